"""Searches data for many byte patterns in a single pass.

Each pattern has an anchor, 8 of its bytes.  The 8 bytes at every offset of the data are hashed with
numpy and looked up in a table; at the few offsets that pass, anchors and then whole patterns are
compared exactly.  All patterns are stored in one block of bytes, so that hundreds of thousands take
little memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Generic, TypeVar

import numpy as np

T = TypeVar("T")

SHORTEST = 8  # bytes; shorter patterns occur by chance
_CHUNK = 1 << 19
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # 2^64 over the golden ratio: Knuth's, TAOCP 6.4
_COMPARISONS = 10_000


class ByteSearch(Generic[T]):
    """Finds patterns in bytes, and returns their meanings.

    Args:
        patterns: pattern, at least `SHORTEST` bytes -> its meaning.
        bases: other searches, whose patterns are searched for too.

    Raises:
        ValueError: if a pattern is too short.
    """

    def __init__(self, patterns: Mapping[bytes, T], *bases: ByteSearch[T]) -> None:
        short = sum(len(pattern) < SHORTEST for pattern in patterns)
        if short:
            raise ValueError(f"Expected patterns of at least {SHORTEST} bytes, {short} are not.")
        self._bases = bases
        starts = [_anchor_start(pattern) for pattern in patterns]
        anchors = b"".join(p[s : s + 8] for p, s in zip(patterns, starts))
        keys = np.frombuffer(anchors, "<u8")
        order = np.argsort(keys, kind="stable")
        lengths = np.fromiter(map(len, patterns), np.int64, len(patterns))
        self._block = b"".join(patterns)
        self._ends = np.cumsum(lengths)
        self._sorted_keys, self._sorted = keys[order], order  # anchors, and whose they are
        self._starts = np.array(starts, np.int64)  # of anchors, in their patterns
        meanings = {id(meaning): meaning for meaning in patterns.values()}
        numbers = {known: number for number, known in enumerate(meanings)}
        self._meanings = list(meanings.values())
        self._meaning = np.array([numbers[id(m)] for m in patterns.values()], np.int64)
        self._longest: int = max([0, *(b._longest for b in bases), *lengths.tolist()])
        self._keys: np.ndarray = np.unique(np.concatenate([keys, *(b._keys for b in bases)]))
        bits = min(max(len(self._keys).bit_length() + 6, 18), 23)  # a table that caches hold
        self._shift = np.uint64(64 - bits)
        self._table = np.zeros(1 << bits, bool)
        self._table[(self._keys * _MULTIPLIER) >> self._shift] = True

    def find(self, data: bytes | memoryview) -> list[T]:
        """The meanings of the patterns that occur in `data`, in no particular order."""
        view = memoryview(data)
        found: dict[int, T] = {}
        if len(self._keys):
            for start in range(0, len(view), _CHUNK):
                chunk = bytes(view[max(0, start - self._longest) : start + _CHUNK])
                anchors = self._anchors_in(chunk)
                for search in (self, *self._bases) if anchors else ():
                    found |= {id(meaning): meaning for meaning in search._in_chunk(chunk, anchors)}
        return list(found.values())

    def _in_chunk(self, chunk: bytes, anchors: Mapping[int, list[int]]) -> Iterator[T]:
        """The meanings of the patterns in `chunk`, given the offsets of anchors in it."""
        for key, offsets in anchors.items():
            first = int(np.searchsorted(self._sorted_keys, np.uint64(key), "left"))
            last = int(np.searchsorted(self._sorted_keys, np.uint64(key), "right"))
            many = (last - first) * len(offsets) > _COMPARISONS
            for number in self._sorted[first:last].tolist():
                end, start = int(self._ends[number]), int(self._starts[number])
                pattern = self._block[int(self._ends[number - 1]) if number else 0 : end]
                if many:
                    stands = pattern in chunk
                else:
                    stands = any(
                        offset >= start and chunk.startswith(pattern, offset - start)
                        for offset in offsets
                    )
                if stands:
                    yield self._meanings[int(self._meaning[number])]

    def _anchors_in(self, chunk: bytes) -> dict[int, list[int]]:
        """The offsets of each anchor in `chunk`."""
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
    """The start of 8 varied bytes near the head of a pattern, since zeros occur everywhere."""
    best, most = 0, 0
    for start in range(0, len(pattern) - SHORTEST + 1, 4):
        variety = len(set(pattern[start : start + SHORTEST]))
        if variety > most:
            best, most = start, variety
        if most >= 5 or (most > 1 and start >= 32):
            break
    return best
