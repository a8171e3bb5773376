"""Text classifiers of the package transformers, and their tokenizers.

transformers is imported at first use.  Of a configuration in a folder, only numbers are read; code
that it may point to is neither downloaded nor run.  Only `pretrained`, `base_config` and
`load_tokenizer` use the network, and only for names that are not local folders.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from math import inf
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mico_competition.competition.table import Task
from mico_competition.models.checkpoints import check_state, find_file, read_state, size_limit
from mico_competition.models.tokenizer_files import check_tokenizer
from mico_competition.scoring.printable import printable
from mico_competition.support.extras import install
from mico_competition.support.files import PathLike
from mico_competition.support.untrusted import read_limited_json, refuse_pointer

# The fields that are read from a config.json.  Others could name code to download ("auto_map",
# "attn_implementation": "some/repository"), or matter only to other uses of the model.
_LABELS = frozenset({"id2label", "label2id"})
_CONFIG_FIELDS = _LABELS | {
    "attention_probs_dropout_prob",
    "bos_token_id",
    "classifier_dropout",
    "eos_token_id",
    "hidden_act",
    "hidden_dropout_prob",
    "hidden_size",
    "initializer_range",
    "intermediate_size",
    "layer_norm_eps",
    "max_position_embeddings",
    "num_attention_heads",
    "num_hidden_layers",
    "pad_token_id",
    "type_vocab_size",
    "vocab_size",
}


_SMALLEST = {
    **{"hidden_size": 8, "num_attention_heads": 1, "num_hidden_layers": 1, "intermediate_size": 8},
    **{"vocab_size": 8, "max_position_embeddings": 8},
}
_SIZES = tuple(n for n in _CONFIG_FIELDS if n.endswith("_size") or n.startswith(("num_", "max_")))
_CONFIG_LIMIT = 1_000_000
_MAX_LAYERS = 200
_MAX_SIZE = 10**9
_MAX_PARAMETERS = 2 * 10**9


def pretrained(task: Task, base_model: str | None = None) -> nn.Module:
    """Load the classifier to fine-tune for `task`, in train mode on the CPU, in float32.

    Args:
        task: a text task.
        base_model: the model to fine-tune instead of `task.base_model`: a name on the Hugging
            Face Hub, or a folder with a `config.json` and weights.  A folder without weights
            gives a fresh model of that configuration.

    Raises:
        ValueError: if the model cannot be downloaded or read, or has another architecture.
    """
    name = base_model or task.base_model or task.architecture
    folder = Path(name)
    auto = _transformers(task.architecture).AutoModelForSequenceClassification
    options: dict[str, Any] = {"num_labels": task.num_classes}
    if folder.is_dir():
        config = read_config(task, folder, num_labels=task.num_classes)
        _check_size(config_facts(config), folder, _MAX_PARAMETERS)
        weights = [*folder.glob("*.safetensors"), *folder.glob("pytorch_model*.bin")]
        if not weights:
            try:
                model: nn.Module = auto.from_config(config)
                return model.train()
            except Exception as error:  # as in `trained`
                raise _unusable(folder, error) from None
        for path in weights:
            refuse_pointer(path)
        options = {"config": config, "local_files_only": True}
    with _fetching("base model", name):
        model = auto.from_pretrained(name, trust_remote_code=False, **options)
    check_config(task, model.config, name)
    return model.float().train()


def load_tokenizer(path_or_name: PathLike, fallback: str | None = None) -> Any:
    """Load the tokenizer in a model's folder if it holds one, else that of `fallback`.

    Args:
        path_or_name: a folder, or a name on the Hugging Face Hub.
        fallback: another folder or name, for a folder without tokenizer files; usually
            `Task.base_model`.

    Raises:
        ValueError: if there is no tokenizer, or if it cannot be downloaded or read.
    """
    folder = Path(path_or_name)
    local = folder.is_dir()
    if local and not _holds_tokenizer(folder):
        if fallback is None:
            raise ValueError(
                f"{folder} holds no tokenizer (looked for tokenizer.json, or vocab.json and "
                "merges.txt): give a folder that holds one with --model_name FOLDER."
            )
        return load_tokenizer(fallback)
    auto = _transformers("roberta").AutoTokenizer
    if local:
        check_tokenizer(folder)
    with _fetching("tokenizer", str(path_or_name)):
        return auto.from_pretrained(
            str(path_or_name), trust_remote_code=False, local_files_only=local
        )


def untrained(config: Any, path: Path) -> Any:
    """The classifier of `config` on the "meta" device, without values; `path` is for messages."""
    transformers = _transformers(config.model_type)
    try:
        with torch.device("meta"):  # initialising values takes seconds
            return transformers.AutoModelForSequenceClassification.from_config(config)
    except Exception as error:  # contradictory sizes may raise any error
        raise _unusable(f"The configuration beside {path}", error) from None


def trained(config: Any, path: Path, what: str) -> nn.Module:
    """Load the classifier of `config` with the weights of file `path`, in eval mode.

    Raises:
        ValueError: as `read_state` and `check_state`, or if `config` gives no model.
    """
    transformers = _transformers(config.model_type)
    model = untrained(config, path)
    expected = model.state_dict()
    state = read_state(path, size_limit(expected))
    # transformers wrote them until 4.31, and has computed them since.
    state = {k: v for k, v in state.items() if not k.endswith(".embeddings.position_ids")}
    check_state(state, expected, path, what)
    logging = transformers.utils.logging
    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # there would be one for each model
    try:
        loaded: nn.Module = type(model).from_pretrained(None, config=config, state_dict=state)
    finally:
        if bars:
            logging.enable_progress_bar()
    return loaded.float().eval()


def read_config(task: Task, folder: PathLike, num_labels: int | None = None) -> Any:
    """Read the configuration in `folder`: only its sizes, rates and names of labels.

    Args:
        task: the text task of the model.
        folder: the folder that holds `config.json`.
        num_labels: replaces the number in the file, for a model before fine-tuning.

    Raises:
        ValueError: if the file is missing or damaged, or describes another architecture or
            number of labels.
    """
    path = find_file(folder, task.weights[0])
    what = "a model configuration of transformers"
    fields = read_limited_json(path, _CONFIG_LIMIT, what, "fetch it again")
    if not isinstance(fields, dict) or "model_type" not in fields:
        raise ValueError(f"{path} is not {what}: fetch it again.")
    _check_type(task, fields["model_type"], path)
    known = {name: value for name, value in fields.items() if name in _CONFIG_FIELDS}
    _check_size(known, path)
    if num_labels is not None:
        known = {name: known[name] for name in known.keys() - _LABELS}
        known["num_labels"] = num_labels
    transformers = _transformers(task.architecture)
    try:
        config = transformers.AutoConfig.for_model(task.architecture, **known)
    except Exception as error:  # transformers raises many errors for values of a wrong type
        raise _unusable(path, error) from None
    check_config(task, config, path)
    return config


def _check_size(fields: dict[str, Any], where: object, most: float = inf) -> None:
    """Raise ValueError for a configuration of an absurdly large model.

    Args:
        fields: the fields of the configuration.
        where: the file, for the message.
        most: the most parameters that the model may have, if they will be allocated.
    """
    sizes = {name: fields.get(name) for name in _SIZES}
    counts = {name: size for name, size in sizes.items() if type(size) is int}
    layers = counts.get("num_hidden_layers", 0)
    if layers > _MAX_LAYERS or any(size > _MAX_SIZE for size in counts.values()):
        raise ValueError(
            f"{where} is not usable (a model of {layers:,} layers, or a size of over "
            f"{_MAX_SIZE:,}): fetch it again."
        )
    width, inner = counts.get("hidden_size", 768), counts.get("intermediate_size", 3072)
    tokens = sum(counts.get(name, 512) for name in ("vocab_size", "max_position_embeddings"))
    parameters = width * (tokens + max(layers, 1) * (4 * width + 2 * inner))
    if parameters > most:
        raise ValueError(
            f"{where} is not usable (a model of {parameters:,} parameters, over {most:,.0f}): "
            "give another with --model_name FOLDER."
        )


def base_config(task: Task, base_model: str | None = None) -> Any:
    """The configuration of the model to fine-tune for `task`; arguments as in `pretrained`."""
    name = base_model or task.base_model or task.architecture
    if Path(name).is_dir():
        return read_config(task, name, num_labels=task.num_classes)
    auto = _transformers(task.architecture).AutoConfig
    with _fetching("base model", name):
        return auto.from_pretrained(name, trust_remote_code=False, num_labels=task.num_classes)


def config_facts(config: Any) -> dict[str, Any]:
    """The fields of a configuration that affect what a model computes."""
    return {name: getattr(config, name, None) for name in sorted(_CONFIG_FIELDS - _LABELS)}


def small_copy(task: Task, config: Any) -> nn.Module:
    """A small model with fresh weights and the configuration `config` except for its sizes."""
    transformers = _transformers(task.architecture)
    special = ("bos_token_id", "eos_token_id", "pad_token_id")
    largest = max(getattr(config, name, None) or 0 for name in special)
    sizes = {
        "hidden_size": 16,
        "num_attention_heads": 2,
        "intermediate_size": 24,
        "num_hidden_layers": min(2, config.num_hidden_layers),
        "vocab_size": largest + 64,
        "max_position_embeddings": largest + 32,
    }
    fields = {name: value for name, value in config_facts(config).items() if value is not None}
    small = transformers.AutoConfig.for_model(
        task.architecture, **{**fields, **sizes, "num_labels": task.num_classes}
    )
    model: nn.Module = transformers.AutoModelForSequenceClassification.from_config(small)
    return model


def check_config(task: Task, config: Any, where: object) -> None:
    """Check that a model's configuration suits the task; `where` is for the message.

    Raises:
        ValueError: if the architecture or the number of labels is another one.
    """
    _check_type(task, getattr(config, "model_type", None), where)
    if config.num_labels != task.num_classes:
        raise ValueError(
            f"{where} is no {task.name} model: it has {config.num_labels} labels where "
            f"{task.num_classes} are expected; check the task and the path."
        )


def _check_type(task: Task, model_type: object, where: object) -> None:
    """Raise ValueError if the architecture is not the task's."""
    if model_type != task.architecture:
        raise ValueError(
            f"{where} is no {task.name} model: its type is {printable(repr(model_type))} where "
            f"{task.architecture!r} is expected; check the task and the path."
        )


def _unusable(where: object, error: Exception) -> ValueError:
    """The error for a configuration from which no model can be built."""
    reason = printable(" ".join(str(error).split()) or type(error).__name__)
    return ValueError(f"{where} is not usable ({reason}): fetch it again.")


def _holds_tokenizer(folder: Path) -> bool:
    """Whether a tokenizer can be read from `folder` alone."""
    if (folder / "tokenizer.json").is_file():
        return True
    return (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file()


@contextmanager
def _fetching(kind: str, name: str) -> Iterator[None]:
    """Turn the many errors of transformers and the Hub into a ValueError of one sentence."""
    try:
        yield
    except BaseException as error:  # a panic of the tokenizers library is not an Exception
        if isinstance(error, (KeyboardInterrupt, SystemExit, MemoryError)):
            raise
        words = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".:")
        reason = printable(words)
        raise ValueError(
            f"Could not load the {kind} {name!r} ({reason}): check the name and the network, or "
            "give a folder that holds a copy with --model_name FOLDER."
        ) from error


@cache
def _transformers(architecture: str) -> Any:
    """Import transformers, and check that it can build a model of `architecture`.

    A missing or incompatible dependency (torchvision, say) shows only when a model is built; later
    it would be mistaken for an error of a model's files.

    Raises:
        ImportError: with the command that installs transformers, or with the cause.
    """
    try:
        import transformers
    except ImportError:
        raise ImportError(f"Text models need transformers: {install('transformers')}.") from None
    try:
        config = transformers.AutoConfig.for_model(architecture, **_SMALLEST)
        with torch.device("meta"):
            transformers.AutoModelForSequenceClassification.from_config(config)
    except Exception as error:
        while error.__cause__ is not None and isinstance(error.__cause__, Exception):
            error = error.__cause__  # the library wraps the cause several times
        raise ImportError(
            f"transformers {transformers.__version__} cannot build a {architecture} model here "
            f"({type(error).__name__}: {printable(error)}). The model's files are not the cause: "
            f"install torch {torch.__version__}, transformers, and torchvision if you have it, so "
            f"that they fit each other ({install('transformers')}), or uninstall torchvision."
        ) from error
    return transformers
