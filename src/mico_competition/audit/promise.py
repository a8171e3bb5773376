"""What private models promise: the epsilon in their metadata and the mechanism behind it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mico_competition.lengths import read_metadata
from mico_competition.training.accounting import Mechanism


@dataclass(frozen=True)
class Promise:
    """What a private run's metadata promises, and the mechanism that it is computed from.

    Attributes:
        epsilon: > 0, finite.
        delta: in (0, 1), at which epsilon is given.
        mechanism: noise, sampling and steps of the run.
    """

    epsilon: float
    delta: float
    mechanism: Mechanism

    @classmethod
    def of(cls, metadata: Mapping[str, Any]) -> Promise | None:
        """The promise in a model's metadata.json; None of a run without privacy.

        Raises:
            ValueError: if its `privacy` lacks a number, or one is out of range.
        """
        told = metadata.get("privacy")
        if told is None:
            return None
        try:
            promise = cls(
                float(told["epsilon"]),
                float(told["delta"]),
                Mechanism(
                    float(told["noise_multiplier"]),
                    float(told["sample_rate"]),
                    int(told["num_steps"]),
                ),
            )
        except (KeyError, TypeError, ValueError):
            promise = None
        if promise is None or not promise.is_sound():
            raise ValueError(
                "Expected `privacy` in metadata.json to have epsilon > 0, delta in (0, 1), "
                "noise_multiplier > 0, sample_rate in (0, 1] and num_steps >= 1: take the file "
                "that training wrote."
            )
        return promise

    def is_sound(self) -> bool:
        """Whether every number is in its range."""
        run = self.mechanism
        return (
            0 < self.epsilon < math.inf
            and 0 < self.delta < 1
            and 0 < run.noise_multiplier < math.inf
            and 0 < run.sample_rate <= 1
            and run.num_steps >= 1
        )


def promise_of(folders: Sequence[Path]) -> Promise | None:
    """What all of these models promise; None if none of them was trained privately.

    Raises:
        ValueError: if they do not all promise the same, or metadata.json is damaged.
    """
    found = {Promise.of(read_metadata(folder)) for folder in folders}
    if len(found) > 1:
        raise ValueError(
            f"Expected the models beside {folders[0]} to promise the same epsilon, delta and "
            "mechanism, got several: audit models of one setting at a time."
        )
    return found.pop()
