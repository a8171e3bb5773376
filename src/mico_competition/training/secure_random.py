"""Secure randomness: batches and noise that nobody can predict or repeat.

The numbers come from AES-256 in counter mode (package `cryptography`) with a key that the operating
system draws.  There is no seed, so a run cannot be repeated.

What it protects:
    - It protects against prediction.  torch's generator on a CPU is a Mersenne Twister (MT19937)
      that spreads a seed of 32 bits over its state: an attacker who tries all seeds, or sees 624
      outputs, learns every batch and can subtract the noise.  Here that takes breaking AES-256.
    - It protects against reading low-order bits.  Box-Muller cannot produce every double, so a
      noisy sum can reveal which sums are possible without the noise (Mironov, CCS 2012; Jin et
      al., arXiv 2112.05307).  Each number is a sum of four Gaussians divided by 2, as in Opacus'
      secure mode (Holohan and Braghin, ESORICS 2021, arXiv 2107.10138, section 5.1;
      docs/METHODS.md, section 11.2), so the attacker must try 2**159 combinations of uniforms
      instead of 2**53.

What it does not protect:
    - It does not protect against timing and other side channels, or against reading the memory of
      the process.
    - It does not protect against floating-point errors elsewhere: gradients, norms and the noisy
      sum are float32, while the accountant assumes real numbers.
    - The seeds of splits, the initial weights and the order of data come from elsewhere.

This module never reads a seed, saves its state, or touches torch's generators.
"""

from __future__ import annotations

import builtins
import math
import os
import secrets
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

import numpy as np
import torch

# Blocks of 16 bytes under one key. Blocks of one keystream never repeat, while truly random ones
# would, so the advantage of distinguishing 2**32 blocks from random ones is below 2**-65. At 32
# bytes a number that is 2**31 numbers, which a long run exceeds; a new key costs microseconds.
BLOCKS_PER_KEY = 2**32

KEY_BYTES = 32
BLOCK_BYTES = 16
GAUSSIANS_PER_NUMBER = 4  # Opacus' 2n with n = 2; their sum has deviation 2
# Pairs per Gaussian.  The buffers, 1.4 MB, stay in a core's cache, and below 32768 elements torch
# does not split plain arithmetic among threads, which would wait for each other at each step.
PAIRS_AT_ONCE = 8000
WORDS_AT_ONCE = 2 * GAUSSIANS_PER_NUMBER * PAIRS_AT_ONCE

_ZEROS = memoryview(bytes(8 * WORDS_AT_ONCE))  # encrypting zeros gives the keystream
# Added to a word times 2**-64, which lies in [-1/2, 1/2], so that the sum is in (0, 1].
_HALF_AND_A_BIT = torch.tensor(0.5 + 2.0**-53, dtype=torch.float64, device="cpu")

_forks = 0


def _count_fork() -> None:
    global _forks
    _forks += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_count_fork)


class SecureGenerator:
    """Draws uniform bits and Gaussian numbers by AES-256-CTR with a fresh key from the system.

    It cannot be seeded, copied or pickled, and a forked child draws a new key.  Use it from one
    thread at a time.  The module's docstring says what it protects.

    Args:
        device: the device of results; they are drawn on the CPU.

    Raises:
        ImportError: if the package `cryptography` is missing.
    """

    def __init__(self, device: str | torch.device = "cpu") -> None:
        self.device = torch.device(device)
        # Buffers.  The cipher needs room for one block more than it writes.
        self._words = torch.empty(WORDS_AT_ONCE + 2, dtype=torch.int64, device="cpu")
        self._word_bytes = self._words.numpy().data.cast("B")
        self._doubles, self._cosines, self._numbers = (
            torch.empty(size, dtype=torch.float64, device="cpu")
            for size in (WORDS_AT_ONCE, WORDS_AT_ONCE // 2, 2 * PAIRS_AT_ONCE)
        )
        self._set_key(secrets.token_bytes(KEY_BYTES))

    @classmethod
    def _from_key(cls, key: builtins.bytes, device: str | torch.device = "cpu") -> SecureGenerator:
        """A generator with a given key, only for known-answer tests."""
        generator = cls(device)
        generator._set_key(key)
        return generator

    def bytes(self, count: int) -> builtins.bytes:
        """Return the next `count` >= 0 bytes of the keystream.

        Raises:
            ValueError: if `count` is negative.
        """
        _check_count(count)
        return b"".join(self._keystream(size).tobytes() for size in _parts(count, len(_ZEROS)))

    def bernoulli(self, count: int, probability: float) -> torch.Tensor:
        """Draw independent coins, True with `probability`, exact to 2**-64.

        A coin is True if a word of 64 bits is below floor(probability * 2**64), so it is never
        True too often.

        Args:
            count: the number of coins, >= 0.
            probability: in (0, 1].

        Returns:
            bool[count] on `device`.

        Raises:
            ValueError: if an argument is out of range.
        """
        _check_count(count)
        if not 0 < probability <= 1:
            raise ValueError(f"Expected 0 < probability={probability} <= 1.")
        coins = np.ones(count, dtype=np.bool_)
        if probability < 1:
            threshold = np.uint64(int(probability * 2.0**64))  # a power of two: no rounding
            start = 0
            for size in _parts(count, WORDS_AT_ONCE):
                words = np.frombuffer(self._keystream(8 * size), dtype=np.uint64)
                np.less(words, threshold, out=coins[start : start + size])
                start += size
        return torch.from_numpy(coins).to(self.device)

    def normal(
        self,
        shape: int | Sequence[int],
        std: float,
        dtype: torch.dtype = torch.float32,
    ) -> torch.Tensor:
        """Draw independent Gaussians of mean 0, each the sum of four divided by 2, times `std`.

        The four are float64 and come from four Box-Muller pairs, since the two numbers of one
        pair add up to a single one: cos t + sin t = sqrt(2) cos(t - pi / 4).  The other numbers
        of the four pairs make another element.

        Args:
            shape: the result's shape, or its length.
            std: standard deviation, finite and >= 0.
            dtype: a floating-point type, which the float64 result is rounded to.

        Returns:
            float[shape] of type `dtype` on `device`.

        Raises:
            ValueError: if an argument is out of range.
        """
        if not 0 <= std < math.inf:
            raise ValueError(f"Expected 0 <= std={std} < inf.")
        if not dtype.is_floating_point:
            raise ValueError(f"Expected a floating-point dtype, got {dtype}.")
        sizes = (shape,) if isinstance(shape, int) else tuple(shape)
        if any(size < 0 for size in sizes):
            raise ValueError(f"Expected no negative size in shape={sizes}.")
        numbers = torch.empty(sizes, dtype=dtype, device="cpu")
        flat = numbers.view(-1)
        start = 0
        for size in _parts(flat.numel(), 2 * PAIRS_AT_ONCE):
            flat[start : start + size] = self._unit_normals(size).mul_(std)
            start += size
        return numbers.to(self.device)

    def _unit_normals(self, count: int) -> torch.Tensor:
        """float64[count], at most 2 * PAIRS_AT_ONCE, in a buffer that the next draw overwrites."""
        pairs = (count + 1) // 2
        words = 2 * GAUSSIANS_PER_NUMBER * pairs
        self._keystream(8 * words)
        halves = (2, GAUSSIANS_PER_NUMBER, pairs)
        radius, angle = self._doubles[:words].view(halves)
        for_radius, for_angle = self._words[:words].view(halves)
        radius.copy_(for_radius)  # in [-2**63, 2**63]
        angle.copy_(for_angle)
        torch.add(_HALF_AND_A_BIT, radius, alpha=2.0**-64, out=radius)  # uniform in [2**-53, 1]
        radius.log_().mul_(-2.0 / GAUSSIANS_PER_NUMBER).sqrt_()
        angle.mul_(math.pi / 2**63)
        numbers = self._numbers[: 2 * pairs].view(2, pairs)
        cosine = torch.cos(angle, out=self._cosines[: words // 2].view_as(angle))
        torch.sum(cosine.mul_(radius), 0, out=numbers[0])
        torch.sum(angle.sin_().mul_(radius), 0, out=numbers[1])
        return self._numbers[:count]

    def _keystream(self, size: int) -> memoryview:
        """The next `size` <= len(_ZEROS) bytes, in a buffer that the next call overwrites."""
        if self._owner != _process():
            self._set_key(secrets.token_bytes(KEY_BYTES))
        self._bytes_left -= size
        if self._bytes_left < 0:
            self._set_key(secrets.token_bytes(KEY_BYTES))
            self._bytes_left -= size
        self._cipher.update_into(_ZEROS[:size], self._word_bytes)
        return self._word_bytes[:size]

    def _set_key(self, key: builtins.bytes) -> None:
        """Start the keystream of `key` for this process; only the cipher keeps the key."""
        self._cipher = _cipher(key)
        self._bytes_left = BLOCKS_PER_KEY * BLOCK_BYTES
        self._owner = _process()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(device={str(self.device)!r})"

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError(
            "A SecureGenerator cannot be copied or pickled, since two would give the same numbers: "
            "make a new one instead."
        )


def _cipher(key: builtins.bytes) -> Any:
    """An AES-256-CTR encryptor whose counter starts at 0; a key must be used only once."""
    try:
        from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
    except ImportError as error:
        raise ImportError(
            "Secure randomness needs the package cryptography: pip install cryptography"
        ) from error
    return Cipher(algorithms.AES256(key), modes.CTR(builtins.bytes(BLOCK_BYTES))).encryptor()


def _process() -> tuple[int, int]:
    """A value that differs in a forked child; the count covers process ids that are reused."""
    return os.getpid(), _forks


def _parts(total: int, size: int) -> Iterator[int]:
    """`total` cut into sizes of at most `size`."""
    for start in range(0, total, size):
        yield min(size, total - start)


def _check_count(count: int) -> None:
    if count < 0:
        raise ValueError(f"Expected count={count} >= 0.")


Generator = torch.Generator | SecureGenerator
