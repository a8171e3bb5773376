"""Makes a tier's fleets from its seeds, finds those that are there, and identifies them.

Two machines that train the same seeds get models that differ in the last bits, and scores differ a
little with them (docs/LEADERBOARD.md). So a fleet has a fingerprint, and only scores on fleets with
one fingerprint are compared as pairs.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mico_competition.audit.limits import max_tpr
from mico_competition.benchmark.measuring import OpenFleet
from mico_competition.benchmark.tiers import Tier, seeds_of
from mico_competition.competition.layout import ModelFolder, walk_phase
from mico_competition.competition.table import get_scenario
from mico_competition.data.datasets import load_dataset
from mico_competition.evaluation.measure import REPORTED
from mico_competition.fleets.continuing import check_same, check_stated, with_noise
from mico_competition.fleets.finished import check_finished
from mico_competition.fleets.ledger import Entry, Ledger
from mico_competition.signals.cache import weights_digests
from mico_competition.support.files import PathLike
from mico_competition.training.fingerprints import of_training
from mico_competition.training.recipe import training_fingerprint
from mico_competition.training.settings import resolve, stated_by
from mico_competition.training.train import mechanism_of

MOST_BYTES = 1 << 30  # of a file of weights
PHASES = ("train", "dev")


def load_data(tier: Tier, scenario: str, work: PathLike) -> Any:
    """The dataset of a scenario's task; the synthetic table of `full` is made below `work`."""
    folder = Path(work) / "data"
    table = folder / "purchase100" / "dataset_purchase"
    if tier.records and not table.exists():
        from mico_competition.data.synthetic import make_synthetic_purchase

        make_synthetic_purchase(table, tier.records, seed=0)
    return load_dataset(get_scenario(scenario).task, folder)


def reference_ledger(tier: Tier, scenario: str, work: PathLike, data: Any) -> Ledger:
    """The ledger of a scenario's fleet, with the tier's seeds; written, so that it can be trained.

    Args:
        tier: the tier, which must be in use (`Tier.in_use`).
        scenario: one of its scenarios.
        work: the folder of the benchmark; the fleet is below `<work>/<tier>`.
        data: the scenario's dataset.

    Raises:
        ValueError: if the folder holds a fleet of other seeds or data; if models are missing and
            the code would train them otherwise than those that are there; if a model is damaged.
    """
    out = Path(work) / tier.name
    mine = {s.model_id: Entry(s.model_id, s.seeds, s.train_seed) for s in seeds_of(tier, scenario)}
    settings = resolve({"scenario": scenario})
    found: dict[str, Any] = dict(of_training(settings.task, data))
    ledger = Ledger.read(out, scenario)
    begins = ledger is None
    if ledger is None:
        found["training_fingerprint"] = training_fingerprint(settings, data)
        ledger = Ledger(
            out,
            settings,
            found["dataset_fingerprint"],
            False,
            architecture_fingerprint=found["architecture_fingerprint"],
            training_fingerprint=found["training_fingerprint"],
            stated=stated_by(get_scenario(scenario)),
        )
    others = {e.model_id: e for e in ledger.entries}
    if any(others.get(i, entry) != entry for i, entry in mine.items()):
        raise ValueError(
            f"The fleet in {ledger.folder} has other seeds than tier {tier.name}: it is not the "
            "benchmark's. Choose another --work."
        )
    check_stated(ledger)
    whole = set(mine) <= ledger.done()
    if not whole and not begins:  # models that are there need no code that trains the same
        found["training_fingerprint"] = training_fingerprint(settings, data)
    check_same(ledger, {"training_fingerprint": ledger.training_fingerprint, **found})
    if not whole:
        ledger = with_noise(ledger, begins)
    entries = sorted({**others, **mine}.values(), key=lambda entry: entry.model_id)
    ledger = replace(ledger, entries=tuple(entries))
    wanted = ledger.only(mine)
    check_finished(wanted)
    ledger.check_done()
    ledger.write()
    return wanted


def reference_folders(tier: Tier, scenario: str, work: PathLike) -> list[ModelFolder]:
    """The folders of a scenario's models: shadows, then targets."""
    row = get_scenario(scenario)
    challenge = Path(work) / tier.name / row.challenge
    ids = set(tier.model_ids)
    return [
        folder
        for phase in PHASES
        for folder in walk_phase(challenge, scenario, phase)
        if folder.model_id in ids
    ]


def fleet_fingerprint(folders: list[ModelFolder]) -> str:
    """SHA-256 in hex of a line `<phase>/model_<i> <SHA-256 of its weights>` for each model."""
    digests = weights_digests(folders, MOST_BYTES)
    lines = [
        f"{folder.phase}/model_{folder.model_id} {digest}\n"
        for folder, digest in zip(folders, digests)
    ]
    return hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()


def open_downloaded(
    tier: Tier, scenario: str, folder: PathLike, data: Any, cache: Path
) -> OpenFleet:
    """The train models of a published scenario, each of which is attacked with the others."""
    challenge = Path(folder) / get_scenario(scenario).challenge
    folders = list(walk_phase(challenge, scenario, "train"))
    return OpenFleet(
        scenario,
        challenge,
        data,
        [one.model_id for one in folders],
        "train",
        fleet_fingerprint(folders),
        tier.scenarios.index(scenario),
        facts_of(scenario),
        cache,
    )


def open_fleet(
    tier: Tier, scenario: str, work: PathLike, data: Any, cache: Path | None = None
) -> OpenFleet:
    """The trained fleet of a scenario, for attacks; signals are cached in `cache`, or below `work`.

    Raises:
        ValueError: if a file of weights is missing or too large.
    """
    folders = reference_folders(tier, scenario, work)
    return OpenFleet(
        scenario,
        Path(work) / tier.name / get_scenario(scenario).challenge,
        data,
        tier.model_ids,
        "dev",
        fleet_fingerprint(folders),
        tier.scenarios.index(scenario),
        facts_of(scenario),
        cache or Path(work) / "signals",
    )


def facts_of(scenario: str) -> dict[str, Any]:
    """What an entry says of a scenario besides scores: its privacy, and the limit that this sets.

    `limit` has, for each rate that is reported, the largest TPR that the mechanism permits any
    attack on one record (`audit.limits.max_tpr`); None without privacy, like `epsilon`.
    """
    settings = resolve({"scenario": scenario})
    mechanism = mechanism_of(settings)
    if mechanism is None:
        return {"epsilon": None, "delta": None, "limit": None}
    rates = list(REPORTED)
    limits = max_tpr(mechanism, np.array(rates)).tolist()
    return {
        "epsilon": settings.target_epsilon,
        "delta": settings.target_delta,
        "limit": {REPORTED[rate]: round(limit, 6) for rate, limit in zip(rates, limits)},
    }
