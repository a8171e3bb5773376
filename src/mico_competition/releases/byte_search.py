"""Many byte patterns at once in much data: one pass, however many patterns there are.

A pattern is known by its anchor, 8 of its bytes.  The 8 bytes at every place of the data are
hashed with numpy and looked up in a table; at the few places that pass, anchors and then whole
patterns are compared exactly.  Knows nothing of what the patterns mean.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Generic, TypeVar

import numpy as np

T = TypeVar("T")

SHORTEST = 8  # bytes; shorter patterns stand in much data by chance
_CHUNK = 1 << 19
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # 2^64 over the golden ratio: Knuth's, TAOCP 6.4
_COMPARISONS = 10_000


class ByteSearch(Generic[T]):
    """Finds patterns, each with what it means, in any bytes.

    Args:
        patterns: pattern, at least `SHORTEST` bytes -> what it means that it stands somewhere.
        bases: searches whose patterns are looked for too, without being prepared anew.

    Raises:
        ValueError: if a pattern is too short to mean anything.
    """

    def __init__(self, patterns: Mapping[bytes, T], *bases: ByteSearch[T]) -> None:
        short = sum(len(pattern) < SHORTEST for pattern in patterns)
        if short:
            raise ValueError(f"Expected patterns of at least {SHORTEST} bytes, {short} are not.")
        self._bases = bases
        self._meaning = dict(patterns)
        self._longest: int = max([0, *(base._longest for base in bases), *map(len, patterns)])
        starts = [_anchor_start(pattern) for pattern in patterns]
        anchors = b"".join(p[s : s + 8] for p, s in zip(patterns, starts))
        keys = np.frombuffer(anchors, "<u8")
        self._buckets: dict[int, list[tuple[int, bytes]]] = {}
        for key, start, pattern in zip(keys.tolist(), starts, patterns):
            self._buckets.setdefault(key, []).append((start, pattern))
        self._keys: np.ndarray = np.unique(np.concatenate([keys, *(base._keys for base in bases)]))
        bits = min(max(len(self._keys).bit_length() + 6, 18), 23)  # a table that caches hold
        self._shift = np.uint64(64 - bits)
        self._table = np.zeros(1 << bits, bool)
        self._table[(self._keys * _MULTIPLIER) >> self._shift] = True

    def find(self, data: bytes | memoryview) -> list[T]:
        """What the patterns that stand in `data` mean, in no order."""
        view = memoryview(data)
        found: set[bytes] = set()
        if len(self._keys):
            for start in range(0, len(view), _CHUNK):
                found |= self._in_chunk(bytes(view[max(0, start - self._longest) : start + _CHUNK]))
        return [meaning for pattern in found for meaning in self._meanings(pattern)]

    def _meanings(self, pattern: bytes) -> Iterator[T]:
        if pattern in self._meaning:
            yield self._meaning[pattern]
        for base in self._bases:
            yield from base._meanings(pattern)

    def _bucket(self, key: int) -> Iterator[tuple[int, bytes]]:
        """The patterns with an anchor, and where in them it starts."""
        yield from self._buckets.get(key, ())
        for base in self._bases:
            yield from base._bucket(key)

    def _in_chunk(self, chunk: bytes) -> set[bytes]:
        """The patterns that stand in `chunk`."""
        found: set[bytes] = set()
        for key, places in self._anchors_in(chunk).items():
            bucket = list(self._bucket(key))
            many = len(bucket) * len(places) > _COMPARISONS
            for start, pattern in bucket:
                if many:
                    stands = pattern in chunk
                else:
                    stands = any(
                        place >= start and chunk.startswith(pattern, place - start)
                        for place in places
                    )
                if stands:
                    found.add(pattern)
        return found

    def _anchors_in(self, chunk: bytes) -> dict[int, list[int]]:
        """Anchor -> the places in `chunk` where it stands."""
        found: dict[int, list[int]] = {}
        for offset in range(min(8, len(chunk) - SHORTEST + 1)):
            count = (len(chunk) - offset) // 8
            windows = np.frombuffer(chunk, "<u8", count=count, offset=offset)
            hashes = windows * _MULTIPLIER
            hashes >>= self._shift
            passed = np.flatnonzero(np.take(self._table, hashes.view(np.int64), mode="clip"))
            keys = windows[passed]
            nearest = np.searchsorted(self._keys, keys).clip(max=len(self._keys) - 1)
            for at in passed[self._keys[nearest] == keys].tolist():
                found.setdefault(int(windows[at]), []).append(offset + 8 * at)
        return found


def _anchor_start(pattern: bytes) -> int:
    """Where varied 8 bytes near the pattern's head are: a run of zeros stands everywhere."""
    best, most = 0, 0
    for start in range(0, len(pattern) - SHORTEST + 1, 4):
        variety = len(set(pattern[start : start + SHORTEST]))
        if variety > most:
            best, most = start, variety
        if most >= 5 or (most > 1 and start >= 32):
            break
    return best
