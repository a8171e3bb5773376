"""Text classifiers, built through transformers, and their tokenizers.

transformers is imported when it is first asked for something.  A configuration found in a
folder is read for its numbers only: code it may point to is never fetched nor run.  Only
`pretrained` and `load_tokenizer` reach the network, and only for what is not a local folder.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mico_competition.files import PathLike
from mico_competition.nets.checkpoints import State, check_state, find_file
from mico_competition.tracks import Task

# What is taken over from a config.json.  The rest could name code to fetch ("auto_map",
# "attn_implementation": "some/repository"), or only matters to other uses of the model.
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


def pretrained(task: Task, base_model: str | None = None) -> nn.Module:
    """The classifier that is fine-tuned for `task`, in train mode on the CPU, in float32.

    Args:
        task: a text task of the table.
        base_model: what is fine-tuned instead of `task.base_model`: a name on the Hugging Face
            Hub, or a folder with a `config.json` and weights.  A folder without weights gives
            a fresh model of that configuration.

    Raises:
        ValueError: if the model cannot be fetched or read, or is of another architecture.
    """
    name = base_model or task.base_model or task.architecture
    folder = Path(name)
    auto = _transformers().AutoModelForSequenceClassification
    options: dict[str, Any] = {"num_labels": task.num_classes}
    if folder.is_dir():
        config = read_config(task, folder, num_labels=task.num_classes)
        if not any(folder.glob("*.safetensors")) and not any(folder.glob("pytorch_model*.bin")):
            return auto.from_config(config).train()
        options = {"config": config, "local_files_only": True}
    with _fetching("base model", name):
        model = auto.from_pretrained(name, trust_remote_code=False, **options)
    check_config(task, model.config, name)
    return model.float().train()


def load_tokenizer(path_or_name: PathLike, fallback: str | None = None) -> Any:
    """The tokenizer in a model's folder if it holds one, else that of `fallback`.

    Args:
        path_or_name: a folder, or a name on the Hugging Face Hub.
        fallback: another folder or name, for a folder without tokenizer files; usually
            `Task.base_model`.

    Raises:
        ValueError: if there is no tokenizer, or if it cannot be fetched or read.
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
    auto = _transformers().AutoTokenizer
    with _fetching("tokenizer", str(path_or_name)):
        return auto.from_pretrained(
            str(path_or_name), trust_remote_code=False, local_files_only=local
        )


def trained(config: Any, state: State, path: Path, what: str) -> nn.Module:
    """The classifier of `config` with the weights `state`, read from `path`, in eval mode.

    Raises:
        ValueError: as `check_state`, or if no model can be built from `config`.
    """
    transformers = _transformers()
    try:
        with torch.device("meta"):  # names and shapes only: the initialisation takes seconds
            model = transformers.AutoModelForSequenceClassification.from_config(config)
    except Exception as error:  # sizes that contradict each other fail wherever they first meet
        raise _unusable(f"The configuration beside {path}", error) from None
    # In the file until transformers 4.31, since then computed.
    state = {k: v for k, v in state.items() if not k.endswith(".embeddings.position_ids")}
    check_state(state, model.state_dict(), path, what)
    logging = transformers.utils.logging
    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # one for each of hundreds of models
    try:
        model = type(model).from_pretrained(None, config=config, state_dict=state)
    finally:
        if bars:
            logging.enable_progress_bar()
    return model.float().eval()


def read_config(task: Task, folder: PathLike, num_labels: int | None = None) -> Any:
    """The configuration in `folder`; only its sizes, rates and names of labels are believed.

    Args:
        task: the text task that the configuration has to suit.
        folder: holds the `config.json`.
        num_labels: replaces what the file says, for a model that is yet to be fine-tuned.

    Raises:
        ValueError: if the file is missing or damaged, or describes another architecture or
            number of labels.
    """
    path = find_file(folder, task.weights[0])
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        model_type = fields["model_type"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise ValueError(
            f"{path} is not a model configuration of transformers: fetch it again."
        ) from None
    _check_type(task, model_type, path)
    known = {name: value for name, value in fields.items() if name in _CONFIG_FIELDS}
    if num_labels is not None:
        known = {name: known[name] for name in known.keys() - _LABELS}
        known["num_labels"] = num_labels
    try:
        config = _transformers().AutoConfig.for_model(task.architecture, **known)
    except Exception as error:  # transformers has many ways to say that a value is of a wrong kind
        raise _unusable(path, error) from None
    check_config(task, config, path)
    return config


def base_config(task: Task, base_model: str | None = None) -> Any:
    """The configuration of what is fine-tuned for `task`; see `pretrained` for the arguments."""
    name = base_model or task.base_model or task.architecture
    if Path(name).is_dir():
        return read_config(task, name, num_labels=task.num_classes)
    auto = _transformers().AutoConfig
    with _fetching("base model", name):
        return auto.from_pretrained(name, trust_remote_code=False, num_labels=task.num_classes)


def config_facts(config: Any) -> dict[str, Any]:
    """What a configuration says of how a model computes."""
    return {name: getattr(config, name, None) for name in sorted(_CONFIG_FIELDS - _LABELS)}


def small_copy(task: Task, config: Any) -> nn.Module:
    """A model of `config` but for its size, in milliseconds; its weights are fresh ones."""
    transformers = _transformers()
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
    return transformers.AutoModelForSequenceClassification.from_config(small)


def check_config(task: Task, config: Any, where: object) -> None:
    """Refuse a model's configuration that does not suit the task; `where` is for the message.

    Raises:
        ValueError: if it is of another architecture or number of labels.
    """
    _check_type(task, getattr(config, "model_type", None), where)
    if config.num_labels != task.num_classes:
        raise ValueError(
            f"{where} is no {task.name} model: it has {config.num_labels} labels where "
            f"{task.num_classes} are expected; check the task and the path."
        )


def _check_type(task: Task, model_type: object, where: object) -> None:
    """Refuse another architecture than the task's."""
    if model_type != task.architecture:
        raise ValueError(
            f"{where} is no {task.name} model: its type is {model_type!r} where "
            f"{task.architecture!r} is expected; check the task and the path."
        )


def _unusable(where: object, error: Exception) -> ValueError:
    """The error for a configuration that no model can be built from."""
    reason = " ".join(str(error).split()) or type(error).__name__
    return ValueError(f"{where} is not usable ({reason}): fetch it again.")


def _holds_tokenizer(folder: Path) -> bool:
    """Whether a tokenizer can be read from `folder` alone."""
    if (folder / "tokenizer.json").is_file():
        return True
    return (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file()


@contextmanager
def _fetching(kind: str, name: str) -> Iterator[None]:
    """One sentence instead of the many errors of transformers and the Hub."""
    try:
        yield
    except (OSError, ValueError, RuntimeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".:")
        raise ValueError(
            f"Could not load the {kind} {name!r} ({reason}): check the name and the network, or "
            "give a folder that holds a copy with --model_name FOLDER."
        ) from error


def _transformers() -> Any:
    """The transformers package, or the line that installs it."""
    try:
        import transformers
    except ImportError:
        raise ImportError("Text models need transformers: pip install -e '.[text]'.") from None
    return transformers
