"""The tiers of the benchmark: which models are trained, from which seeds, and which are attacked.

All seeds are public, so the truth is too: anybody can compute every score anew. A tier without a
file of seeds derives them from its name. The fleets of `medium` and `full` were drawn before the
benchmark, so their seeds are listed in `seeds/<scenario>.txt`, a model in each line.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from mico_competition.competition.challenge import ChallengeDataset
from mico_competition.competition.layout import walk_phase
from mico_competition.competition.splits import SEED_BYTES, Seeds, parse_seed
from mico_competition.competition.table import get_scenario, get_task, using
from mico_competition.support.command_line import model_ids
from mico_competition.support.spelling import nearest

VERSION = 1
"""The version of the tiers: it grows when fleets, seeds or scored points change."""

_SEED_NAMES = ("challenge", "training", "membership")


@dataclass(frozen=True)
class Tier:
    """A set of reference fleets.

    Attributes:
        name: as on the command line.
        title: what it holds, in a line.
        scenarios: their names, in the order of display.
        shadows, targets: ids of the train models, and of the models that are attacked.
        competition: the competition file, "" for the package's own.
        downloaded: whether its models are those that `mico download` wrote: then train models are
            attacked by leaving models out, and their truth is in the entry.
        records: records of the synthetic Purchase-shaped table, if the tier needs one.
    """

    name: str
    title: str
    scenarios: tuple[str, ...]
    shadows: str
    targets: str
    competition: str = ""
    records: int = 0
    downloaded: bool = False

    @property
    def model_ids(self) -> list[int]:
        """The ids of all models of a scenario."""
        return sorted({*model_ids(self.shadows), *model_ids(self.targets)})

    @property
    def target_ids(self) -> list[int]:
        """The ids of the targets."""
        return sorted(model_ids(self.targets))

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Use the tier's competition in the block."""
        file = Path(str(files(__package__) / self.competition)) if self.competition else None
        with using(file):
            yield


_PUBLISHED = ("cifar10", "purchase100", "sst2")

TIERS: Mapping[str, Tier] = {
    tier.name: tier
    for tier in (
        Tier(
            "small",
            "scikit-learn's digits, N = 1,797, n = 120, 256 hidden units",
            ("digits_inf", "digits_hi", "digits_lo"),
            "0-99",
            "100-149",
        ),
        Tier(
            "medium",
            "synthetic baskets, N = 19,732, n = 15,000: with the real ratio of records to weights "
            "(bundles), and in Purchase-100's shape with a tenth of it (widebundles)",
            ("bundles_inf", "bundles_hi", "widebundles_inf", "widebundles_hi"),
            "0-49",
            "100-119",
            "tables.toml",
        ),
        Tier(
            "full",
            "a synthetic table in the shape and size of Purchase-100, N = 197,324, n = 150,000",
            ("purchase100_inf", "purchase100_hi", "purchase100_lo"),
            "0-23",
            "100-111",
            records=197_324,
        ),
        Tier(
            "mico2022",
            "the published train models of 2022's competition",
            tuple(f"{name}_{kind}" for name in _PUBLISHED for kind in ("inf", "hi", "lo")),
            "0-99",
            "0-99",
            downloaded=True,
        ),
    )
}
"""Name -> tier."""


def get_tier(name: str) -> Tier:
    """The tier of a name; ValueError with the nearest names if there is none."""
    if name in TIERS:
        return TIERS[name]
    near = nearest(name, TIERS)
    fix = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(TIERS)}."
    raise ValueError(f"Unknown tier {name!r}: {fix}")


def found_tier(tier: Tier, folder: Path) -> Tier:
    """A downloaded tier with the scenarios whose train models are below `folder`.

    Raises:
        ValueError: if there are none.
    """
    found = [
        name
        for name in tier.scenarios
        if len(walk_phase(folder / get_scenario(name).challenge, name, "train")) > 1
    ]
    if not found:
        raise ValueError(
            f"There are no train models of 2022 in {folder}: run `mico download purchase100 "
            "--phase train` there, or name the folder with --downloads."
        )
    return replace(tier, scenarios=tuple(found))


@dataclass(frozen=True)
class ModelSeeds:
    """The seeds of one model: of its splits, and of its training."""

    model_id: int
    seeds: Seeds
    train_seed: int


def seeds_of(tier: Tier, scenario: str) -> list[ModelSeeds]:
    """The seeds of a scenario's models, by id.

    Raises:
        ValueError: on a scenario that is not the tier's, or whose models are not trained here.
    """
    if scenario not in tier.scenarios or tier.downloaded:
        raise ValueError(f"Tier {tier.name} has no seeds of {scenario}.")
    listed = files(__package__) / "seeds" / f"{scenario}.txt"
    if not listed.is_file():
        return [_derived(f"{tier.name}/{scenario}/{i}", i) for i in tier.model_ids]
    rows = [line.split() for line in listed.read_text(encoding="utf-8").splitlines()]
    known = {int(row[0]): _listed(row) for row in rows}
    return [known[i] for i in tier.model_ids]


def _listed(row: list[str]) -> ModelSeeds:
    seeds = Seeds(*(parse_seed(f"seed_{name}", text) for name, text in zip(_SEED_NAMES, row[1:4])))
    return ModelSeeds(int(row[0]), seeds, int(row[4]))


def _derived(name: str, model_id: int) -> ModelSeeds:
    digest = hashlib.sha512(f"mico benchmark {VERSION}/{name}".encode()).digest()
    parts = [digest[start : start + SEED_BYTES] for start in range(0, 3 * SEED_BYTES, SEED_BYTES)]
    train_seed = int.from_bytes(digest[3 * SEED_BYTES : 3 * SEED_BYTES + 8], "little") >> 1
    return ModelSeeds(model_id, Seeds(*parts), train_seed)


@lru_cache(maxsize=16)
def truth_of(tier_name: str, scenario: str) -> np.ndarray:
    """bool[targets, 2m], who of each target's challenge points is a member, in their order.

    It follows from the seeds alone: neither data nor models are needed.
    """
    tier = get_tier(tier_name)
    with tier.in_use():
        task = get_task(get_scenario(scenario).task)
        records: Any = range(task.len_dataset)  # only their number counts
        lengths = task.len_training, task.len_challenge
    rows = []
    for model in seeds_of(tier, scenario):
        if model.model_id in tier.target_ids:
            keys = model.seeds
            splits = ChallengeDataset(
                records, *lengths, keys.challenge, keys.training, keys.membership
            )
            rows.append(splits.get_solutions())
    return np.array(rows, bool)
