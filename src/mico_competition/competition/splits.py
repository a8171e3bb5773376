"""A seed and a length -> index lists, by one of two schemes that the seed's own form tells apart.

**Keyed** (new competitions): a seed is 128 bits from the operating system, 32 hexadecimal digits
in its file.  A permutation is the stable argsort of as many 64-bit words of SHAKE-256(seed), so
finding a withheld seed is searching 2^128 of them.

**2022's**: a seed is a decimal integer, and every split is `torch.utils.data.random_split` over an
MT19937 stream.  2022 drew the stream from `torchcsprng.create_mt19937_generator(seed)`;
`torch.Generator().manual_seed(seed)` gives the same bits, since both take the low 32 bits of the
seed (`tests/competition/test_challenge.py` holds cases computed with the real torchcsprng).  That
is also why it must not be used for anything new: whoever has a fair attack tries all 2^32
memberships of a model and keeps the likeliest, which is the true one (docs/METHODS.md, sections
12.1 and 12.2).

Indices only: knows nothing of data.
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
                "all decimal integers of 2022's."
            )

    @property
    def keyed(self) -> bool:
        """Whether the splits are keyed by 128 bits; 2022's are by 32."""
        return isinstance(self.challenge, bytes)

    def __repr__(self) -> str:
        """Names only: a seed in a log or an error gives the split away."""
        known = ", ".join(name for name, seed in vars(self).items() if seed is not None)
        return f"Seeds(known: {known})"


def check_seed(name: str, seed: object) -> Seed:
    """`seed` if it is 16 bytes, or an integer of at most 64 bits; ValueError naming it if not."""
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
    """The seed in the text of a seed file: 32 hexadecimal digits, or 2022's decimal integer."""
    text = text.strip()
    if _KEYED.fullmatch(text):
        return bytes.fromhex(text)
    if not _DECIMAL.fullmatch(text):  # int() takes more: "1_0", and digits of any script
        raise ValueError(
            f"Expected {name} to hold 32 hexadecimal digits, or one decimal integer as in 2022."
        )
    return check_seed(name, int(text))


def seed_text(seed: Seed) -> str:
    """What a seed's file holds; `parse_seed` reads it back."""
    return seed.hex() if isinstance(seed, bytes) else str(seed)


def draw_seeds(*, scheme_of_2022: bool = False) -> Seeds:
    """Three fresh seeds from the operating system: 128 bits each, or 2022's 63-bit integers."""
    if scheme_of_2022:
        return Seeds(*(secrets.randbits(63) for _ in range(3)))
    return Seeds(*(secrets.token_bytes(SEED_BYTES) for _ in range(3)))


def derive_seeds(split_seed: int) -> Seeds:
    """Three seeds of 2022's scheme: the first 63-bit words of the MT19937 stream of `split_seed`.

    As 2022's training scripts derived them.  Whoever is given one of them finds the others, so
    this is for trials, and for models whose seeds are all disclosed.
    """
    if not isinstance(check_seed("split_seed", split_seed), int):
        raise ValueError("Expected split_seed to be an integer.")
    generator = torch.Generator().manual_seed(split_seed)
    words = torch.empty(3, dtype=torch.int64).random_(0, to=None, generator=generator)
    return Seeds(*words.tolist())


def permutation(length: int, seed: Seed) -> torch.Tensor:
    """int64[length], the permutation that splits cut into consecutive parts.

    Args:
        length: number of records, 0 or more.
        seed: 16 bytes: the stable argsort of the first `length` little-endian 64-bit words of
            SHAKE-256(seed) (FIPS 202).  An integer: what `random_split` draws; only its low 32
            bits count.
    """
    if isinstance(seed, bytes):
        words = np.frombuffer(hashlib.shake_256(seed).digest(8 * length), dtype="<u8")
        order = words.argsort()  # several times as fast as a stable sort, and the same but for ties
        if (words[order[1:]] == words[order[:-1]]).any():
            order = words.argsort(kind="stable")
        return torch.from_numpy(order)
    return torch.randperm(length, generator=torch.Generator().manual_seed(seed))
