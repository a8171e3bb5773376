"""Checks that a fleet goes on with the row, data, code and noise that it was begun with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from mico_competition.competition.table import current, get_scenario, get_task
from mico_competition.fleets.ledger import CHECKPOINTS, Ledger
from mico_competition.training import train
from mico_competition.training.settings import stated_by


def check_stated(ledger: Ledger) -> None:
    """ValueError if the scenario's row states other settings than at the start of the fleet."""
    scenario = get_scenario(ledger.settings.scenario or "")
    now = stated_by(scenario)
    then = now if ledger.stated is None else ledger.stated
    changed = [name for name in now if now[name] != then.get(name)]
    if changed:
        both = ", ".join(f"{name} = {then.get(name)} (now {now[name]})" for name in changed)
        raise ValueError(
            f"The fleet in {ledger.folder} was begun when scenario {scenario.name} stated {both}: "
            f"put that back into {current().path or 'the table'}, or choose another --out."
        )


def begun(ledger: Ledger) -> bool:
    """Whether any of its models is whole or has a checkpoint."""
    return bool(ledger.done()) or (ledger.folder / CHECKPOINTS).is_dir()


def check_same(ledger: Ledger, found: Mapping[str, str | None]) -> None:
    """ValueError if the data or the code differ from those at the start of the fleet."""
    if ledger.dataset_fingerprint != found["dataset_fingerprint"]:
        raise ValueError(
            f"The dataset is not the one that the fleet in {ledger.folder} was begun with, or its "
            "records are prepared differently: give that one's --dataset_dir, or choose another "
            "--out."
        )
    if ledger.architecture_fingerprint != found["architecture_fingerprint"]:
        raise ValueError(
            f"The code has changed since the fleet in {ledger.folder} was begun: its "
            f"{get_task(ledger.settings.task).architecture}, or its tokenizer, now computes "
            "something else, and one fleet would hold two kinds of models. Go on with the code of "
            "before, or choose another --out."
        )
    if ledger.training_fingerprint != found["training_fingerprint"]:
        raise ValueError(
            f"The code has changed since the fleet in {ledger.folder} was begun: under the same "
            "settings and seeds, splits, batches, losses, gradients, steps or first weights are "
            "others now, and one fleet would hold two kinds of models. Go on with the code of "
            "before, or choose another --out."
        )


def with_noise(ledger: Ledger, begins: bool) -> Ledger:
    """The ledger with its noise multiplier; ValueError if it differs from the fleet's."""
    mechanism = train.mechanism_of(ledger.settings)
    noise = None if mechanism is None else mechanism.noise_multiplier
    if not begins and noise != ledger.noise_multiplier:
        raise ValueError(
            f"The fleet in {ledger.folder} was begun with the noise multiplier "
            f"{ledger.noise_multiplier}, and the accountant now gives {noise} for the same target: "
            "go on with the code of before, or choose another --out."
        )
    return replace(ledger, noise_multiplier=noise)
