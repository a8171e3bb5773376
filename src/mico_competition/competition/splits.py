"""Seeds, and the random permutations that splits are cut from, in two schemes.

**Keyed** (new competitions): a seed is 128 bits from the operating system, written as 32
hexadecimal digits.  The permutation of n records is the stable argsort of n 64-bit words of
SHAKE-256(seed), so an attacker who looks for a withheld seed has to try 2^128 of them.

**2022**: a seed is a decimal integer, and every split is `torch.utils.data.random_split` over an
MT19937 stream.  2022 drew the stream from `torchcsprng.create_mt19937_generator(seed)`, and
`torch.Generator().manual_seed(seed)` gives the same bits, since both use the low 32 bits of the
seed (`tests/competition/test_challenge.py` has cases computed with torchcsprng).  New competitions
must not use it: somebody with a moderately good attack can try all 2^32 membership seeds of a
model, and the likeliest one is the true one (docs/METHODS.md, sections 12.1 and 12.2).

The form of a seed says which scheme it belongs to.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch

Seed: TypeAlias = int | bytes  # of 2022's scheme | keyed

SEED_BYTES = 16
_SEED_LIMIT = 2**64
_KEYED = re.compile(r"[0-9a-f]{32}")
_DECIMAL = re.compile(r"[+-]?[0-9]{1,30}")


@dataclass(frozen=True)
class Seeds:
    """The three seeds of a model's splits; None is a seed that was not disclosed."""

    challenge: Seed
    training: Seed | None = None
    membership: Seed | None = None

    def __post_init__(self) -> None:
        known = {name: seed for name, seed in vars(self).items() if seed is not None}
        for name, seed in {"challenge": self.challenge, **known}.items():
            check_seed(f"seed_{name}", seed)
        if len({isinstance(seed, bytes) for seed in known.values()}) > 1:
            raise ValueError(
                "Expected a model's seeds to be of one scheme: all of 32 hexadecimal digits, or "
                "all decimal integers as in 2022."
            )

    @property
    def keyed(self) -> bool:
        """Whether the splits are keyed by 128 bits, and not by 32 as in 2022."""
        return isinstance(self.challenge, bytes)

    def __repr__(self) -> str:
        """Only the names of the seeds, because a seed in a log or an error reveals the split."""
        known = ", ".join(name for name, seed in vars(self).items() if seed is not None)
        return f"Seeds(known: {known})"


def check_seed(name: str, seed: object) -> Seed:
    """Return `seed`; ValueError if it is neither 16 bytes nor an integer of at most 64 bits."""
    if isinstance(seed, bytes):
        if len(seed) != SEED_BYTES:
            raise ValueError(f"Expected {name} to have {SEED_BYTES} bytes, got {len(seed)}.")
        return seed
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise ValueError(
            f"Expected {name} to be an integer or {SEED_BYTES} bytes, got {type(seed).__name__}."
        )
    if not -(_SEED_LIMIT // 2) <= seed < _SEED_LIMIT:
        raise ValueError(f"Expected {name} to fit in 64 bits.")
    return seed


def parse_seed(name: str, text: str) -> Seed:
    """Parse the text of a seed file: 32 hexadecimal digits, or a decimal integer as in 2022."""
    text = text.strip()
    if _KEYED.fullmatch(text):
        return bytes.fromhex(text)
    if not _DECIMAL.fullmatch(text):  # `int` would also accept "1_0" and digits of other scripts
        raise ValueError(
            f"Expected {name} to hold 32 hexadecimal digits, or one decimal integer as in 2022."
        )
    return check_seed(name, int(text))


def seed_text(seed: Seed) -> str:
    """The text of a seed's file, which `parse_seed` reads."""
    return seed.hex() if isinstance(seed, bytes) else str(seed)


def draw_seeds(*, scheme_of_2022: bool = False) -> Seeds:
    """Draw three seeds from the operating system: 128 bits each, or 63-bit integers as in 2022."""
    if scheme_of_2022:
        return Seeds(*(secrets.randbits(63) for _ in range(3)))
    return Seeds(*(secrets.token_bytes(SEED_BYTES) for _ in range(3)))


def derive_seeds(split_seed: int) -> Seeds:
    """Derive three seeds of 2022's scheme, as 2022's training scripts did.

    They are the first three 63-bit words of the MT19937 stream of `split_seed`.  Anybody who knows
    one of them can compute the others, so use this only for trials, and for models whose seeds are
    all disclosed.
    """
    if not isinstance(check_seed("split_seed", split_seed), int):
        raise ValueError("Expected split_seed to be an integer.")
    generator = torch.Generator().manual_seed(split_seed)
    words = torch.empty(3, dtype=torch.int64).random_(0, to=None, generator=generator)
    return Seeds(*words.tolist())


def permutation(length: int, seed: Seed) -> torch.Tensor:
    """Compute the permutation of a seed, which splits cut into consecutive parts.

    Args:
        length: the number of records, >= 0.
        seed: for 16 bytes, the result is the stable argsort of the first `length` little-endian
            64-bit words of SHAKE-256(seed) (FIPS 202); for an integer, it is what `random_split`
            draws, which uses only the low 32 bits.

    Returns:
        int64[length].
    """
    if isinstance(seed, bytes):
        words = np.frombuffer(hashlib.shake_256(seed).digest(8 * length), dtype="<u8")
        order = words.argsort()  # much faster than a stable sort, and equal if there are no ties
        if (words[order[1:]] == words[order[:-1]]).any():
            order = words.argsort(kind="stable")
        return torch.from_numpy(order)
    return torch.randperm(length, generator=torch.Generator().manual_seed(seed))
