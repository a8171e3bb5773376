"""Reads the pickles of CIFAR-10 without running any code that they name.

A pickle names functions to call.  This reader replaces the few that a plain array needs by
stand-ins, which only store their arguments, and refuses all other names.  No numpy function runs
before the values have been checked.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

MAX_OBJECTS = 2_000_000
_PUTS = {"PUT", "BINPUT", "LONG_BINPUT"}  # the unpickler allocates memory up to their argument
_SET_ASIDE = {"BYTEARRAY8", "NEXT_BUFFER", "READONLY_BUFFER"}


class RefusedPickleError(ValueError):
    """A pickle names something that plain arrays do not need."""


class _StandIn:
    """An inert object that a pickle builds instead of a numpy object."""

    __slots__ = ("state",)

    def __init__(self, *_: Any):
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Array(_StandIn):
    """Stands in for an array under construction; `state` is the tuple numpy would get."""

    __slots__ = ()

    def to_numpy(self) -> np.ndarray:
        """The array, read-only; ValueError if it holds anything but bytes."""
        _, shape, element, fortran, raw = self.state
        if not isinstance(element, _ElementType) or element.name != "u1":
            raise ValueError("the array is not of bytes (uint8)")
        return np.frombuffer(raw, np.uint8).reshape(shape, order="F" if fortran else "C")


class _ElementType(_StandIn):
    """Stands in for numpy.dtype."""

    __slots__ = ("name",)

    def __init__(self, name: Any, *_: Any):
        super().__init__()
        self.name = name.decode("ascii") if isinstance(name, bytes) else name


class _Bytes(_StandIn):
    """Stands in for _codecs.encode, by which Python 3 writes bytes into old pickles."""

    __slots__ = ()

    def __new__(cls, text: str, encoding: str) -> Any:
        return text.encode("latin1") if encoding == "latin1" else super().__new__(cls)


_ADMITTED = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy", "ndarray"): "numpy.ndarray",  # it is only an argument, so a string suffices
    ("numpy", "dtype"): _ElementType,
    ("_codecs", "encode"): _Bytes,
}


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ADMITTED[module, name]
        except KeyError:
            raise RefusedPickleError(f"{module}.{name}") from None


def read_plain_pickle(raw: bytes, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read the arrays of one CIFAR-10 batch.

    Args:
        raw: the pickle; Python 2 wrote the official ones, and later protocols are read too.
        path: the file, for messages.

    Returns:
        `data` uint8 [k, 3072] and `labels` int64 [k], read-only, not yet checked for range.

    Raises:
        ValueError: if the pickle needs more than plain arrays, naming what it needs, or is not a
            CIFAR-10 batch.
    """
    try:
        _check_cost(raw)
        batch = _PlainUnpickler(io.BytesIO(raw), encoding="bytes").load()
        data, labels = (_entry(batch, name) for name in ("data", "labels"))
        if not isinstance(data, _Array):
            raise ValueError("'data' is not an array")
        return data.to_numpy(), _integers(labels)
    except RefusedPickleError as error:
        raise RefusedPickleError(
            f"{path} asks for {error}, which plain arrays do not need, so it was not loaded: it "
            "may be hostile; delete it and download CIFAR-10 anew."
        ) from None
    except Exception as error:  # a damaged pickle can fail in any way
        raise ValueError(
            f"{path} is not a whole CIFAR-10 batch ({type(error).__name__}: {error}): delete it "
            "and download CIFAR-10 anew."
        ) from error


def _check_cost(raw: bytes) -> None:
    """Raise ValueError if a pickle builds too many objects, or allocates memory in advance.

    Each label and each file name is an object; the pixels of all records are a single one.
    """
    for count, (operation, argument, _) in enumerate(_operations(raw)):
        large = operation.name in _PUTS and isinstance(argument, int) and argument > MAX_OBJECTS
        if count > MAX_OBJECTS or large or operation.name in _SET_ASIDE:
            raise ValueError(f"it takes more than {MAX_OBJECTS:,} objects, or memory of any size")


def _operations(raw: bytes) -> Iterator[tuple[Any, Any, Any]]:
    try:
        yield from pickletools.genops(raw)
    except ValueError as error:  # raise what the unpickler would raise
        kind = pickle.UnpicklingError if "unknown" in str(error) else EOFError
        raise kind(str(error)) from None


def _entry(batch: Any, name: str) -> Any:
    """`batch[name]`, under the bytes of Python 2 or the string of Python 3."""
    if not isinstance(batch, dict):
        raise ValueError("it holds no dict")
    for key in (name.encode(), name):
        if key in batch:
            return batch[key]
    raise ValueError(f"it has no {name!r}")


def _integers(labels: Any) -> np.ndarray:
    if not isinstance(labels, list) or not all(type(label) is int for label in labels):
        raise ValueError("'labels' is not a list of whole numbers")
    return np.array(labels, np.int64)
