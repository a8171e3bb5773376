"""Gives models of a fleet new seeds, so that its next run trains them anew."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Collection
from pathlib import Path

from mico_competition.fleets.events import EVENTS_FILE, RENEWED
from mico_competition.fleets.finished import forget_files
from mico_competition.fleets.ledger import Ledger, append_line, fleet_folder
from mico_competition.fleets.lock import only_fleet
from mico_competition.support.counts import ids_text
from mico_competition.support.files import PRIVATE, PathLike, make_folder

_REPLACED = "replaced"


def renew(out: PathLike, scenario: str, model_ids: Collection[int]) -> dict[int, Path | None]:
    """Draw new seeds for models of a fleet, and move away what was trained with the old ones.

    A call that was killed is completed by the same call.

    Args:
        out: what was given as --out when the fleet was trained.
        scenario: the scenario of the fleet.
        model_ids: which models.

    Returns:
        The folder that each model was moved to; None for a model that was not finished.

    Raises:
        ValueError: if there is no such fleet or model, or if a fleet is at work there.
    """
    folder = fleet_folder(out, scenario)
    if Ledger.read(out, scenario) is None:
        raise ValueError(f"There is no fleet of {scenario} in {out}: name what was its --out.")
    with only_fleet(folder):
        ledger = Ledger.read(out, scenario)
        assert ledger is not None
        if unknown := set(model_ids) - {entry.model_id for entry in ledger.entries}:
            raise ValueError(
                f"The fleet in {folder} has no model_{ids_text(unknown)}: `mico fleet {scenario} "
                f"--models {ids_text(unknown)} --out {out}` adds models."
            )
        again = sorted(model_ids)
        for model_id in again:
            # Before the ledger, so that the old line is never taken for that of the new model.
            forget_files(ledger, model_id)
            event = {"time": round(time.time(), 3), "event": RENEWED, "model_id": model_id}
            append_line(folder / EVENTS_FILE, json.dumps(event))
            ledger.remove_checkpoint(model_id)
            ledger.forget_running(model_id)
        ledger.with_new_seeds(again).write()
        # After the ledger: a model that is gone would be trained with its old seeds again, and one
        # that is there with other seeds than the ledger's is refused by everything.
        return {model_id: _moved_away(ledger, model_id) for model_id in again}


def _moved_away(ledger: Ledger, model_id: int) -> Path | None:
    """Move the folder of a model to the fleet's folder `replaced`; where it is now."""
    trained = ledger.folder_of(model_id)
    if not trained.exists():
        return None
    kept = ledger.folder / _REPLACED
    make_folder(kept, PRIVATE)
    number, target = 1, kept / trained.name
    while target.exists():
        number += 1
        target = kept / f"{trained.name}-{number}"
    os.rename(trained, target)
    return target
