"""Reads state dicts from disk, checks them against an architecture, and writes them.

It reads the files of 2022 (`model.pt` and `pytorch_model.bin`, zipped or in the older format, with
or without Opacus's prefix `_module.`) and safetensors.  Reading builds nothing but tensors.
"""

from __future__ import annotations

import io
import re
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from mico_competition.models.checkpoint_limits import (
    ForbiddenName,
    NoCheckpoint,
    check_safetensors,
    check_torch,
)
from mico_competition.scoring.printable import printable
from mico_competition.support.files import PathLike, written_aside
from mico_competition.support.untrusted import check_file

State = dict[str, Tensor]

OPACUS_PREFIX = "_module."
SAFETENSORS = ".safetensors"
_ROOM = 64 << 20


def find_file(folder: PathLike, names: str) -> Path:
    """Find the first file in `folder` whose name is in `names`, alternatives separated by "|".

    Raises:
        ValueError: if `folder` is not a folder, or holds no file of these names.
    """
    folder, alternatives = Path(folder), names.split("|")
    wanted = " or ".join(alternatives)
    if not folder.is_dir():
        fault = "is a file, not a folder" if folder.exists() else "does not exist"
        raise ValueError(f"{folder} {fault}: give the folder of a model, which holds {wanted}.")
    for name in alternatives:
        if (folder / name).is_file():
            return folder / name
        if (folder / name).is_dir():
            raise ValueError(f"{folder / name} is a folder where a file is expected: replace it.")
    raise ValueError(
        f"{folder} is not a complete model folder: it holds no {wanted}; fetch it again, or "
        "check the task and the path."
    )


def read_state(path: PathLike, limit: int | None = None) -> State:
    """Read the tensors of a checkpoint, on the CPU, without the prefix `_module.`.

    Args:
        path: a safetensors file (by its suffix), or a state dict written by `torch.save`.
        limit: the most bytes that the file may have; `size_limit` computes it for a model.

    Returns:
        Tensors by name, with the dtypes and shapes of the file; `check_state` checks them.

    Raises:
        ValueError: if the file is missing, too long, truncated, damaged, in another format, or only
            the pointer of a git-LFS file; if it holds more than tensors (no code in it is
            executed); or if it is not a flat dictionary of dense tensors.
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path} is a folder: give the file of weights in it, such as model.pt.")
    if not path.is_file():
        raise ValueError(f"There is no file of weights {path}: check the path.")
    check_file(path, limit or sys.maxsize, "these weights", "check the task and the path")
    loaded = _read_safetensors(path) if path.suffix == SAFETENSORS else _read_torch(path)
    return _without_prefix(_flat(loaded, path))


def size_limit(expected: Mapping[str, Tensor]) -> int:
    """The most bytes that a file with weights of these shapes may have: 16 a value, and 64 MB."""
    return 16 * sum(tensor.numel() for tensor in expected.values()) + _ROOM


def _read_safetensors(path: Path) -> object:
    """Load `path` by safetensors."""
    from safetensors.torch import load_file

    try:
        check_safetensors(path)
        return load_file(path)
    except MemoryError:  # the machine lacks memory: the file is within its limit
        raise
    except Exception as error:  # a damaged file may raise nearly any error
        raise _damaged(path, error) from None


def _read_torch(path: Path) -> object:
    """Load `path` by torch, restricted to tensors."""
    try:
        check_torch(path)
        with warnings.catch_warnings():  # torch's warnings about damaged files do not help
            warnings.simplefilter("ignore")
            with open(path, "rb") as file:
                return torch.load(file, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except ForbiddenName as error:
        raise _forbidden(path, str(error)) from None
    except Exception as error:  # a damaged file may raise nearly any error
        # torch's message advises to try again with weights_only=False, so it is not passed on.
        forbidden = re.search(r"GLOBAL ([\w.]+)", str(error))
        raise (_forbidden(path, forbidden[1]) if forbidden else _damaged(path, error)) from None


def _forbidden(path: Path, name: str) -> ValueError:
    return ValueError(
        f"{path} is refused, and no code in it was executed: it asks for {printable(name)}, but a "
        "checkpoint may hold tensors only; have it written again with save_model or "
        "torch.save(model.state_dict(), ...)."
    )


def _damaged(path: Path, error: Exception) -> ValueError:
    """The error for a file that cannot be parsed."""
    if isinstance(error, OSError):
        return ValueError(f"{path} could not be read: {error.strerror or error}.")
    reason = str(error) if isinstance(error, NoCheckpoint) else type(error).__name__
    return ValueError(
        f"{path} is truncated, damaged or not a checkpoint ({reason}): fetch it again, or have it "
        "written again."
    )


def _flat(loaded: object, path: Path) -> State:
    """`loaded` as a dictionary of dense CPU tensors; ValueError if it is something else."""
    if not isinstance(loaded, Mapping):
        raise ValueError(
            f"{path} holds {type(loaded).__name__!r} where a state dict is expected: have it "
            "written again with torch.save(model.state_dict(), ...)."
        )
    for name, value in loaded.items():
        dense = isinstance(value, Tensor) and value.layout == torch.strided
        if not (isinstance(name, str) and dense and value.device.type == "cpu"):
            raise ValueError(
                f"{path} is not a flat state dict: its entry {printable(repr(name))} is not a "
                "dense tensor; have it written again with torch.save(model.state_dict(), ...)."
            )
        if value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise ValueError(
                f"{path} gives {printable(name)} a shape that its data do not fill: fetch it "
                "again, or have it written again."
            )
    return dict(loaded)


def _without_prefix(state: State) -> State:
    """`state` without Opacus's prefix, if all names have it."""
    if all(name.startswith(OPACUS_PREFIX) for name in state):
        return {name[len(OPACUS_PREFIX) :]: value for name, value in state.items()}
    return state


def check_state(
    state: Mapping[str, Tensor], expected: Mapping[str, Tensor], path: PathLike, what: str
) -> None:
    """Check that `state` has the names and shapes of `expected`, and finite values.

    Args:
        state: a state dict that was read, or that will be written.
        expected: the state dict of a model of the right architecture; its values are not read,
            so it may be on the "meta" device.
        path: the file, for messages.
        what: the expected content, for messages ("the weights of a cifar10 model").

    Raises:
        ValueError: naming the first key that is missing or unexpected, has another shape or type,
            or holds NaN or infinite values.
    """
    if state.keys() != expected.keys():
        faults = [
            _first(f"lacks {len(expected.keys() - state.keys())}", expected, state),
            _first(f"has {len(state.keys() - expected.keys())} unknown", state, expected),
        ]
        raise ValueError(
            f"{path} does not hold {what}: it {' and '.join(filter(None, faults))}; check the "
            "task and the path."
        )
    for name, tensor in state.items():
        for kind, found, wanted in (
            ("shape", tuple(tensor.shape), tuple(expected[name].shape)),
            ("floats", tensor.is_floating_point(), expected[name].is_floating_point()),
        ):
            if found != wanted:
                raise ValueError(
                    f"{path} does not hold {what}: {name} has {kind} {found} where {wanted} is "
                    "expected; check the task and the path."
                )
    for name, tensor in state.items():
        if not _finite(tensor):
            raise ValueError(
                f"{path} holds NaN or infinite values in {name}, so its scores would mean "
                "nothing: its training diverged or the file is damaged."
            )


def _first(fault: str, these: Mapping[str, Tensor], those: Mapping[str, Tensor]) -> str | None:
    """`fault` with the first key that `these` have and `those` lack; None if there is none."""
    keys = [name for name in these if name not in those]
    if not keys:
        return None
    plural = "" if len(keys) == 1 else "s"
    return f"{fault} key{plural}, first {printable(keys[0])} of shape {tuple(these[keys[0]].shape)}"


def _finite(tensor: Tensor) -> bool:
    """Whether every value is finite as a float32."""
    if not tensor.is_floating_point():
        return True
    values = tensor.detach().to(torch.float32)
    # A finite sum means finite values, and is ten times cheaper than a look at each value.
    return bool(torch.isfinite(values.sum())) or bool(torch.isfinite(values).all())


def plain_state(model: nn.Module) -> State:
    """A copy of the model's state dict on the CPU, with floats in float32 and no prefix."""
    state: State = {}
    for name, value in _without_prefix(model.state_dict()).items():
        dtype = torch.float32 if value.is_floating_point() else value.dtype
        # clone, because torch.save writes the whole storage of a view
        state[name] = value.detach().to("cpu", dtype).clone(memory_format=torch.contiguous_format)
    return state


def write_state(path: PathLike, state: Mapping[str, Tensor]) -> None:
    """Write `state` atomically, to a safetensors file (by its suffix) or by `torch.save`.

    The same tensors give the same bytes at any path, because `torch.save` gets a file object; given
    a path, it would write a part of it into the file.
    """
    with written_aside(path) as temporary:
        write_new_state(temporary, state)


def write_new_state(path: Path, state: Mapping[str, Tensor]) -> None:
    """`write_state` for a new file in a folder that is itself written aside."""
    with open(path, "xb") as file:
        if path.suffix == SAFETENSORS:
            from safetensors.torch import save

            file.write(save(dict(state), metadata={"format": "pt"}))
        else:
            held = io.BytesIO()  # torch.save has words of its own for a full disk
            torch.save(dict(state), held)
            file.write(held.getbuffer())
