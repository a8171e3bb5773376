"""A seed and a length -> index lists: how 2022's competition drew every split.

Every split is `torch.utils.data.random_split` over an MT19937 stream.  2022 drew the stream
from `torchcsprng.create_mt19937_generator(seed)`; `torch.Generator().manual_seed(seed)` gives
the same bits, since both take the low 32 bits of the seed (`tests/test_splits.py` holds cases
computed with the real torchcsprng).  Indices only: knows nothing of data.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass

import torch

_SEED_LIMIT = 2**64


@dataclass(frozen=True)
class Seeds:
    """The three seeds of a model's splits; None is a seed that was not disclosed."""

    challenge: int
    training: int | None = None
    membership: int | None = None

    def __post_init__(self) -> None:
        for name, seed in vars(self).items():
            if seed is None and name != "challenge":
                continue
            check_seed(f"seed_{name}", seed)

    def __repr__(self) -> str:
        """Names only: a seed in a log or an error gives the split away."""
        known = ", ".join(name for name, seed in vars(self).items() if seed is not None)
        return f"Seeds(known: {known})"


def check_seed(name: str, seed: object) -> int:
    """`seed` if it is an integer of at most 64 bits, signed or not; ValueError naming it if not."""
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise ValueError(f"Expected {name} to be an integer, got {type(seed).__name__}.")
    if not -(_SEED_LIMIT // 2) <= seed < _SEED_LIMIT:
        raise ValueError(f"Expected {name} to fit in 64 bits.")
    return seed


def parse_seed(name: str, text: str) -> int:
    """The seed in the text of a seed file: one decimal integer of at most 64 bits."""
    try:
        seed = int(text.strip())
    except ValueError:
        raise ValueError(f"Expected {name} to hold one decimal integer.") from None
    return check_seed(name, seed)


def draw_seeds(split_seed: int | None = None) -> Seeds:
    """Three seeds, as 2022 drew them: from the operating system, or from `split_seed`.

    With a `split_seed` the three are the first 63-bit words of its MT19937 stream, as in
    2022's training scripts; without one they come from `secrets`.
    """
    if split_seed is None:
        return Seeds(*(secrets.randbits(63) for _ in range(3)))
    generator = torch.Generator().manual_seed(check_seed("split_seed", split_seed))
    words = torch.empty(3, dtype=torch.int64).random_(0, to=None, generator=generator)
    return Seeds(*words.tolist())


def permutation(length: int, seed: int) -> torch.Tensor:
    """int64[length], the permutation that `random_split` cuts into consecutive parts.

    Args:
        length: number of records, 0 or more.
        seed: decimal seed of 2022's scheme; only its low 32 bits count.
    """
    return torch.randperm(length, generator=torch.Generator().manual_seed(seed))
