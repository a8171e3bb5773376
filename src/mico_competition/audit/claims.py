"""The epsilon that models claim in their metadata, and the mechanism behind it.

Models without metadata.json, such as those of 2022, state no epsilon.  The scenario table then says
what is claimed for a scenario of that name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mico_competition.competition.layout import scenario_of
from mico_competition.competition.lengths import read_metadata
from mico_competition.competition.table import METADATA_FILE, Scenario
from mico_competition.training.accounting import Mechanism
from mico_competition.training.settings import resolve

STATED, BY_TABLE, NOT_KNOWN = "metadata.json", "the scenario table", "not known"
"""Where a claim comes from."""


@dataclass(frozen=True)
class PrivacyClaim:
    """The (epsilon, delta) that a private run claims, and the mechanism from which they follow.

    Attributes:
        epsilon: in (0, 1e6].
        delta: in (0, 1), at which epsilon is given.
        mechanism: noise, sampling and steps of the run.
        target: the target epsilon of the run, if it is known.

    >>> claim = PrivacyClaim(2.0, 1e-5, Mechanism(1.1, 0.01, 1000))
    >>> claim.is_sound()
    True
    """

    epsilon: float
    delta: float
    mechanism: Mechanism
    target: float | None = None

    @classmethod
    def of(cls, metadata: Mapping[str, Any]) -> PrivacyClaim | None:
        """The claim in a model's metadata.json; None for a run without privacy.

        Raises:
            ValueError: if its `privacy` lacks a number, or one is out of range.
        """
        stated = metadata.get("privacy")
        if stated is None:
            return None
        try:
            numbers = {name: _number(stated[name]) for name in _NUMBERS}
            steps = int(numbers["num_steps"])
            run = Mechanism(numbers["noise_multiplier"], numbers["sample_rate"], steps)
            claim = cls(numbers["epsilon"], numbers["delta"], run)
            whole = steps == numbers["num_steps"]
        except (KeyError, TypeError, ValueError, OverflowError):
            claim, whole = None, False
        if claim is None or not whole or not claim.is_sound():
            raise ValueError(
                "Expected `privacy` in metadata.json to have epsilon in (0, 1e6], delta in "
                "[1e-100, 1), noise_multiplier in [0.01, 1e6], sample_rate in [1e-12, 1] and "
                "num_steps in [1, 1e9]: take the file that training wrote."
            )
        return claim

    def is_sound(self) -> bool:
        """Whether every number is in the range that a training run can have."""
        run = self.mechanism
        return (
            0 < self.epsilon <= 1e6
            and 1e-100 <= self.delta < 1
            and 1e-2 <= run.noise_multiplier <= 1e6
            and 1e-12 <= run.sample_rate <= 1
            and 1 <= run.num_steps <= 1e9
        )


_NUMBERS = ("epsilon", "delta", "noise_multiplier", "sample_rate", "num_steps")


def _number(value: Any) -> float:
    """`value` as a float; TypeError if it is not a JSON number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError
    return float(value)


@dataclass(frozen=True)
class SourcedClaim:
    """A claim and its source.

    Attributes:
        claim: None if the models claim no privacy, or if their claim is not known.
        source: STATED, BY_TABLE or NOT_KNOWN.
    """

    claim: PrivacyClaim | None
    source: str

    @classmethod
    def of_table(cls, scenario: Scenario | None) -> SourcedClaim:
        """The claim of the scenario table; not known without a scenario."""
        if scenario is None:
            return cls(None, NOT_KNOWN)
        if not scenario.private:
            return cls(None, BY_TABLE)
        settings = resolve({"scenario": scenario.name})
        mechanism = Mechanism.for_target(
            target_epsilon=settings.target_epsilon,
            target_delta=settings.target_delta,
            sample_rate=settings.sample_rate,
            num_steps=settings.num_steps,
        )
        claim = PrivacyClaim(settings.target_epsilon, settings.target_delta, mechanism)
        return cls(claim, BY_TABLE)


def claim_of(folders: Sequence[Path]) -> SourcedClaim:
    """The claim that all of these models share: in their metadata.json, or else in the table.

    Raises:
        ValueError: if their claims differ, or a metadata.json is damaged or belongs to another
            scenario.
    """
    claims: dict[tuple[PrivacyClaim | None, bool], Path] = {}
    for folder in folders:
        claims.setdefault(_stated(Path(folder)), Path(folder))
    (one, *others) = claims.items()
    if others:
        what = "not all state an epsilon" if one[0][1] != others[0][0][1] else "got several"
        raise ValueError(
            f"Expected the models to claim the same epsilon, delta and mechanism, {what} "
            f"({one[1]} and {others[0][1]}): audit models of one setting at a time."
        )
    (claim, stated), folder = one
    return SourcedClaim(claim, STATED) if stated else SourcedClaim.of_table(scenario_of(folder))


def _stated(folder: Path) -> tuple[PrivacyClaim | None, bool]:
    """The claim in a model's metadata.json, and whether the file states one."""
    metadata, scenario = read_metadata(folder), scenario_of(folder)
    named = metadata.get("scenario")
    if named is not None and scenario is not None and named != scenario.name:
        raise ValueError(
            f"{folder / METADATA_FILE} is of scenario {named}, in a folder of {scenario.name}: put "
            "back the file that training wrote."
        )
    try:
        claim = PrivacyClaim.of(metadata)
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from None
    # The table overrules a file that states no privacy for a private scenario.
    silent = claim is None and scenario is not None and scenario.private
    return claim, "privacy" in metadata and not silent
