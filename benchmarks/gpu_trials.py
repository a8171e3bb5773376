"""Trials of gpu.py: steps of whole runs, as the trial of a fleet takes them before it starts."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from gpu_data import BASE, TINY, Asked, Tell, dataset_for, settings_for

from mico_competition.competition.table import get_scenario, get_task, phases_of
from mico_competition.fleets.cost import cost
from mico_competition.fleets.trial import Trial, trial
from mico_competition.models.inputs import Data
from mico_competition.training.accounting import Mechanism
from mico_competition.training.settings import Settings

GRAPHS_LOG = "mico_competition.training.step_graphs"  # says why steps run without CUDA graphs


class Trials:
    """Trials of the models of one task, one after another.

    They share their records, and the time that the first one takes to write a model's files: those
    of roberta-base have 500 MB.
    """

    def __init__(self, asked: Asked, tell: Tell) -> None:
        self._asked, self._tell = asked, tell
        self._data: Data | None = None
        self._first: Trial | None = None

    def __call__(
        self,
        scenario: str,
        *,
        stack: int = 1,
        precision: str = "float32",
        graphs: bool = False,
        seconds: float,
    ) -> None:
        """Tell what a trial of a scenario finds; if it fails, why, and the next ones follow."""
        row = {"scenario": scenario, "precision": precision, "graphs": graphs, "stack": stack}
        flags: dict[str, Any] = {"precision": precision, "cuda_graphs": graphs or None}
        base = TINY if self._asked.tiny else BASE
        try:
            with (
                settings_for(scenario, tiny=self._asked.tiny, base=base, **flags) as settings,
                warnings_of(GRAPHS_LOG) as said,
            ):
                if self._data is None:
                    self._data, _ = dataset_for(settings, base, None)
                found = self._trial(settings, self._data, stack, seconds)
        except (RuntimeError, ValueError) as error:  # out of memory, say
            self._tell({**row, "failed": f"{type(error).__name__}: {error}"})
            return
        if graphs and said:
            self._tell({**row, "failed": said[0]})
        else:
            self._tell({**row, **_values(settings, self._data, found)})

    def _trial(self, settings: Settings, data: Data, stack: int, seconds: float) -> Trial:
        """A trial that ends in time, also if its steps are long."""
        # The accountant's search for the noise of the target would take longer than the steps.
        noise = Mechanism(1.0, settings.sample_rate, settings.num_steps)
        seconds = 0.0 if self._asked.tiny else seconds
        found = trial(
            settings,
            data,
            mechanism=None if settings.disable_dp else noise,
            stack=stack,
            device=self._asked.device,
            seconds=seconds,
            longest=seconds,
            like=self._first,
        )
        self._first = self._first or found
        return found


def _values(settings: Settings, data: Data, found: Trial) -> dict[str, Any]:
    """The numbers of a trial, and what the models of its scenario will take by them.

    Steps are those of whole runs: batches are drawn, records are gathered, and nobody waits for the
    GPU between two steps.
    """
    challenge = get_scenario(settings.scenario or "").challenge
    ids = [i for phase in phases_of(challenge).values() for i in phase.model_ids]
    whole = cost(settings, found, ids)
    batch = settings.batch_size if settings.disable_dp else settings.expected_batch_size
    rate = found.stack * batch / found.step_seconds
    row = {
        "models": len(ids),
        "records": settings.len_training,
        "steps": settings.num_steps,
        "trial_steps": found.steps,
        "step_seconds": found.step_seconds,
        "begin_seconds": found.begin_seconds,
        "records_a_second": rate,
        "models_an_hour": 3600 * len(ids) / whole.worker_seconds,
        "kilowatt_hours": whole.kilowatt_hours,
        "memory": found.memory,
    }
    if get_task(settings.task).text:
        row["tokens_a_second"] = rate * float(data.attention_mask.sum(1).float().mean())
    return row


@contextmanager
def warnings_of(name: str) -> Iterator[list[str]]:
    """The messages that a logger gives in this block."""
    said: list[str] = []

    class Keeper(logging.Handler):
        """Keeps them."""

        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    keeper, logger = Keeper(), logging.getLogger(name)
    logger.addHandler(keeper)
    try:
        yield said
    finally:
        logger.removeHandler(keeper)
