"""Scores as ranks, packed into text: all that an entry keeps of an attack's predictions.

Rates and AUC depend on the order of the scores of a scenario only, so dense ranks (0 for the
lowest score, equal for equal scores) give the same numbers as the scores, to the last digit.
"""

from __future__ import annotations

import base64
import hashlib
import zlib
from binascii import Error

import numpy as np

MOST = 1 << 16  # distinct ranks that fit
_TYPE = np.dtype("<u2")


def dense_ranks(scores: np.ndarray) -> np.ndarray:
    """uint16 of the same shape, by ascending score; ValueError on more than 65,536 scores."""
    found = np.unique(scores, return_inverse=True)[1].reshape(scores.shape)
    if found.max() >= MOST:
        raise ValueError(f"Expected at most {MOST:,} different scores of a scenario.")
    return found.astype(_TYPE)


def ranks_sha256(ranks: np.ndarray) -> str:
    """The SHA-256 in hex of ranks, row by row, two bytes each, the lower first."""
    return hashlib.sha256(np.ascontiguousarray(ranks, _TYPE).tobytes()).hexdigest()


def pack(ranks: np.ndarray) -> str:
    """Ranks as text: all lower bytes, then all upper ones, deflated, in base64."""
    raw = np.ascontiguousarray(ranks, _TYPE).view(np.uint8).reshape(-1, 2).T
    return base64.b64encode(zlib.compress(raw.tobytes(), 9)).decode()


def unpack(text: str, shape: tuple[int, int]) -> np.ndarray:
    """uint16 ranks of this shape from `pack`'s text, which need not be trusted.

    Raises:
        ValueError: if the text does not hold that many ranks, or if they are not dense.
    """
    size = 2 * shape[0] * shape[1]
    try:
        reader = zlib.decompressobj()
        raw = reader.decompress(base64.b64decode(text, validate=True), size + 1)
    except (Error, ValueError, zlib.error):
        raise ValueError("the ranks are not deflated numbers in base64") from None
    if len(raw) != size or not reader.eof or reader.unused_data:
        raise ValueError(f"expected ranks of {shape[0]} x {shape[1]} points")
    pairs = np.frombuffer(raw, np.uint8).reshape(2, -1).T
    ranks: np.ndarray = np.ascontiguousarray(pairs).view(_TYPE).reshape(shape)
    if not np.array_equal(np.unique(ranks), np.arange(int(ranks.max()) + 1)):
        raise ValueError("expected dense ranks, from 0 without gaps")
    return ranks


def pack_bits(truth: np.ndarray) -> str:
    """bool values as text: packed into bytes, in base64."""
    return base64.b64encode(np.packbits(truth).tobytes()).decode()


def unpack_bits(text: str, shape: tuple[int, int]) -> np.ndarray:
    """bool values of this shape from `pack_bits`' text; ValueError if it holds others."""
    size = shape[0] * shape[1]
    try:
        raw = base64.b64decode(text, validate=True)
    except (Error, ValueError):
        raise ValueError("the truth is not bits in base64") from None
    if len(raw) != -(-size // 8):
        raise ValueError(f"expected the truth of {shape[0]} x {shape[1]} points")
    return np.unpackbits(np.frombuffer(raw, np.uint8), count=size).reshape(shape).astype(bool)
