"""The architectures of the tasks, and functions that create, load and save their models.

A model's folder holds `model.pt`, or for text `config.json` with `model.safetensors` (2022:
`pytorch_model.bin`).  Loading never executes code from a file, never uses the network, and leaves
torch's global generator unchanged.  `text_models` has the parts that need transformers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from mico_competition.competition.code import described, resolve
from mico_competition.competition.table import Task, get_task
from mico_competition.models.checkpoints import (
    check_state,
    find_file,
    plain_state,
    read_state,
    size_limit,
    write_state,
)
from mico_competition.models.text_models import (
    check_config,
    load_tokenizer,
    pretrained,
    read_config,
    trained,
    untrained,
)
from mico_competition.support.files import PathLike, write_text

if TYPE_CHECKING:
    from typing import Self

__all__ = [
    "ARCHITECTURES",
    "CNN",
    "MLP",
    "load_model",
    "load_tokenizer",
    "logits",
    "new_model",
    "save_model",
    "weights_limit",
]

Device = str | torch.device | None
_T = TypeVar("_T")
# torch's own words for inputs of a wrong shape or type; "memory" is a failure of the machine.
_MISFIT = re.compile(r"\A(?!.*memory).*(shape|size|dimension|channel|dtype)", re.I | re.S)


class _Classifier(nn.Module):
    """Base class of models that are stored as `model.pt`."""

    @classmethod
    def load(cls, path: PathLike, device: Device = None) -> Self:
        """Load the model from the file `path` (`.../model_0/model.pt`), in eval mode.

        Raises:
            ValueError: as `load_model`, for the file.
        """
        model = _unseeded(cls)
        _fill(model, path, f"the weights of {cls.__name__}()")
        return model.to(device or "cpu").eval()


class CNN(_Classifier):
    """2022's network for CIFAR-10: three convolutions and a linear layer, with tanh.

    >>> CNN()(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """

    def __init__(self) -> None:
        super().__init__()
        self.cnn = nn.Sequential(
            nn.Conv2d(3, 128, kernel_size=8, stride=2, padding=3),
            nn.Tanh(),
            nn.MaxPool2d(kernel_size=3, stride=1),
            nn.Conv2d(128, 256, kernel_size=3),
            nn.Tanh(),
            nn.Conv2d(256, 256, kernel_size=3),
            nn.Tanh(),
            nn.AvgPool2d(kernel_size=2, stride=2),
            nn.Flatten(),
            nn.Linear(6400, 10),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Logits [B, 10] of normalised images [B, 3, 32, 32]."""
        logits: Tensor = self.cnn(x)
        return logits


class MLP(_Classifier):
    """A network with one hidden layer and tanh; by default 2022's network for Purchase-100.

    A `gain` above 1 multiplies the inputs, so that hidden units saturate on small differences
    between records, and the model memorises rather than generalises.

    >>> MLP()(torch.zeros(2, 600)).shape
    torch.Size([2, 100])
    """

    def __init__(
        self,
        in_features: int = 600,
        hidden: int = 128,
        out_features: int = 100,
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        self.gain = gain
        self.mlp = nn.Sequential(
            nn.Linear(in_features, hidden), nn.Tanh(), nn.Linear(hidden, out_features)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Logits [B, out_features] of records [B, in_features]."""
        logits: Tensor = self.mlp(x if self.gain == 1 else x * self.gain)
        return logits


# By `Task.architecture`.  For text tasks, that is a model type of transformers instead.
ARCHITECTURES: Mapping[str, Callable[[], nn.Module]] = {
    "cnn": CNN,
    "mlp": MLP,
    # The demonstration has few records; the large gain makes the model memorise them.
    "digits_mlp": lambda: MLP(64, 256, 10, gain=64.0),
    "baskets_mlp": lambda: MLP(240, 32, 20),
}


def new_model(task: Task, *, base_model: str | None = None) -> nn.Module:
    """Create a model to train for `task`, in train mode on the CPU, in float32.

    Args:
        task: the task.
        base_model: for text, the model to fine-tune instead of `task.base_model`: a name on the
            Hugging Face Hub, or a folder with a `config.json` and weights.  A folder without
            weights gives a fresh model of that configuration.

    Returns:
        A module whose initial weights come from torch's global generator; in a pretrained text
        model that is only the classification head.

    Raises:
        ValueError: if the base model cannot be downloaded or read or has another architecture, or
            if the architecture is not registered.
    """
    return pretrained(task, base_model) if task.text else _constructor(task)()


def load_model(task: str, path: PathLike, device: Device = None) -> nn.Module:
    """Load the trained model in folder `path`, in eval mode; its parameters require gradients.

    Args:
        task: a task's name ("cifar10", "purchase100", "sst2", "digits", "baskets").
        path: the model's folder (`purchase100/purchase100_lo/train/model_0`), of 2022 (with or
            without Opacus's prefix `_module.`) or written by `save_model`.
        device: the device of the model; by default the CPU.

    Returns:
        A module in float32, for `logits`.

    Raises:
        ValueError: naming the file and the fix, if the task is unknown; if the folder lacks
            weights; if a file is truncated or damaged, or holds more than plain tensors (no code
            in it is executed); or if the weights have another architecture or are not finite.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     save_model(get_task("purchase100"), MLP(), folder)
    ...     model = load_model("purchase100", folder)
    >>> type(model).__name__, model.training
    ('MLP', False)
    """
    row = get_task(task)
    weights = find_file(path, row.weights[-1])
    if row.text:
        model = trained(read_config(row, path), weights, _what(row))
    else:
        model = _unseeded(_constructor(row))
        _fill(model, weights, _what(row))
    return model.to(device or "cpu").eval()


def weights_limit(task: str, path: PathLike) -> int:
    """The most bytes that a file of weights in folder `path` may have.

    Raises:
        ValueError: as `load_model`, but the weights are not read.
    """
    row = get_task(task)
    if row.text:
        model = untrained(read_config(row, path), find_file(path, row.weights[-1]))
    else:
        model = _unseeded(_constructor(row))
    return size_limit(model.state_dict())


def save_model(task: Task, model: nn.Module, folder: PathLike, tokenizer: Any = None) -> None:
    """Write a trained model so that `load_model(task.name, folder)` loads it.

    The same weights give the same bytes.

    Args:
        task: the task.
        model: a model of the task's architecture, on any device; Opacus may have wrapped it.
        folder: the folder to write to; the caller makes sure that it appears atomically.
        tokenizer: for text, the tokenizer to write beside the model, if any.

    Raises:
        ValueError: if the weights are not finite or not of the task's architecture.
    """
    folder = Path(folder)
    path = folder / task.weights[-1].split("|")[0]
    state = plain_state(model)
    inner: Any = getattr(model, "_module", model)
    if task.text:
        check_config(task, getattr(inner, "config", None), path)
        expected = inner.state_dict()
    else:
        expected = _unseeded(_constructor(task)).state_dict()
    check_state(state, expected, path, _what(task))
    if task.text:
        fields = {**inner.config.to_diff_dict(), "architectures": [type(inner).__name__]}
        fields.pop("_name_or_path", None)  # a path of the organiser's machine
        write_text(folder / task.weights[0], json.dumps(fields, indent=2, sort_keys=True) + "\n")
    if tokenizer is not None:
        _save_tokenizer(tokenizer, folder)
    write_state(path, state)


def _save_tokenizer(tokenizer: Any, folder: Path) -> None:
    """Write a tokenizer; the same one gives the same bytes, whatever its last call was."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:  # remove the settings of the last call; every call sets its own
        backend.no_padding()
        backend.no_truncation()
    tokenizer.save_pretrained(folder)


def logits(model: nn.Module, inputs: Tensor | Mapping[str, Tensor]) -> Tensor:
    """Compute the logits of a batch, by a model of any task, plain or wrapped by Opacus.

    In private training, always call RoBERTa through this function: only then are its per-example
    gradients right.

    Args:
        model: the model, on the device of `inputs`.
        inputs: a float tensor [B, ...], or for text the tokenizer's tensors (`input_ids` and
            `attention_mask`, int64 [B, L], B > 0).

    Returns:
        Logits [B, classes].

    Raises:
        ValueError: if the model does not take records of this shape.
    """
    if not isinstance(inputs, Mapping):
        try:
            return _tensor(model(inputs))
        except RuntimeError as error:
            if not _MISFIT.search(str(error)):
                raise
            raise ValueError(
                f"Model {type(model).__name__} does not take records of shape "
                f"{list(inputs.shape[1:])}, {described(error)}: correct the model, or the loader "
                "of the dataset."
            ) from error
    inputs = dict(inputs)
    config = getattr(getattr(model, "_module", model), "config", None)
    if "input_ids" in inputs and getattr(config, "type_vocab_size", None):
        # Without them, transformers before 5 expands a single row, which Opacus does not support.
        inputs.setdefault("token_type_ids", torch.zeros_like(inputs["input_ids"]))
    return _tensor(model(**inputs))


def _tensor(output: Any) -> Tensor:
    """The logits in what a model returns: a tensor, or an object that has them as `logits`."""
    logits: Tensor = getattr(output, "logits", output)
    return logits


def _what(task: Task) -> str:
    """The expected content of a file of weights, for messages."""
    return f"the weights of a {task.name} model ({task.architecture})"


def _constructor(task: Task) -> Callable[[], nn.Module]:
    """The function that creates the model of a task that is not text."""
    if ":" in task.architecture:
        return partial(_own_model, task.architecture)
    if task.architecture not in ARCHITECTURES:
        raise ValueError(
            f"Task {task.name!r} has the unknown model {task.architecture!r}: choose one of "
            f"{', '.join(ARCHITECTURES)}, or name your own as MODULE:CLASS."
        )
    return ARCHITECTURES[task.architecture]


def _own_model(dotted: str) -> nn.Module:
    """The untrained model that a competition's file names."""
    build = resolve(dotted)
    try:
        model = build()
    except ValueError:
        raise
    except Exception as error:
        raise ValueError(f"The model {dotted} cannot be made: {described(error)}.") from error
    if not isinstance(model, nn.Module):
        raise ValueError(f"Expected {dotted}() to be a torch module, got {type(model).__name__}.")
    return model


def _unseeded(build: Callable[[], _T]) -> _T:
    """Call `build` and leave torch's global generator unchanged."""
    with torch.random.fork_rng(devices=[]):
        return build()


def _fill(model: nn.Module, path: PathLike, what: str) -> None:
    """Load the weights of file `path` into `model`."""
    expected = model.state_dict()
    state = read_state(path, size_limit(expected))
    check_state(state, expected, path, what)
    model.load_state_dict(state)
