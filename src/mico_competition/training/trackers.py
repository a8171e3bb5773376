"""Trackers of other projects, TensorBoard and MLflow, that plot a run while it trains.

They are optional: each is imported when it is asked for.  A tracker never gets a seed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from mico_competition.training.settings import Settings

TRACKERS = ("tensorboard", "mlflow")
_EXPERIMENT = "mico_competition"
_REASON = 300  # characters of an error of MLflow in a message


class Tracker(Protocol):
    """Takes the numbers of one run."""

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Take numbers by name, after `step` steps."""

    def close(self) -> None:
        """Called when the model is whole."""


def check_tracker(kind: str) -> None:
    """Check, before a run begins, that a tracker is there and answers.

    Raises:
        ImportError: if its package is missing, with the command that installs it.
        ValueError: if MLflow's server or database does not answer.
    """
    mlflow: Any = None
    try:
        if kind == "tensorboard":
            import_module("torch.utils.tensorboard")
        else:
            mlflow = import_module("mlflow")
    except ImportError as error:
        raise ImportError(
            f"--track {kind} needs the package {kind} ({error}): pip install {kind}"
        ) from error
    if mlflow is not None:
        _wait_briefly()
        try:
            mlflow.set_experiment(_EXPERIMENT)
        except Exception as error:  # of MLflow, of its database, or of the network
            raise ValueError(
                f"--track mlflow: MLflow cannot write to {mlflow.get_tracking_uri()} "
                f"({str(error).strip()[:_REASON]}). Set MLFLOW_TRACKING_URI to a server that runs, "
                "or to a database such as sqlite:////shared/mlflow.db."
            ) from None


def _wait_briefly() -> None:
    """Let MLflow give up on a server that is gone after seconds: a run waits for it."""
    for name, value in (("MAX_RETRIES", "1"), ("TIMEOUT", "10")):
        os.environ.setdefault(f"MLFLOW_HTTP_REQUEST_{name}", value)


def open_tracker(kind: str, folder: Path, name: str, settings: Settings) -> Tracker:
    """A tracker of one of TRACKERS, which is opened when it gets its first numbers.

    Args:
        kind: which.
        folder: where TensorBoard writes; MLflow writes where MLFLOW_TRACKING_URI says.
        name: the run's name, such as "model_3".
        settings: whose public part MLflow keeps with the run.
    """
    if kind == "tensorboard":
        return _OpenedLate(lambda: _TensorBoard(folder / name))
    return _OpenedLate(lambda: _MLflow(name, settings))


class _OpenedLate:
    """A tracker that is opened at the first `log`, whose errors the run survives."""

    def __init__(self, make: Callable[[], Tracker]) -> None:
        self._make = make
        self._tracker: Tracker | None = None

    def log(self, values: Mapping[str, float], step: int) -> None:
        if self._tracker is None:
            self._tracker = self._make()
        self._tracker.log(values, step)

    def close(self) -> None:
        if self._tracker is not None:
            self._tracker.close()


class _TensorBoard:
    def __init__(self, folder: Path) -> None:
        self._writer: Any = import_module("torch.utils.tensorboard").SummaryWriter(str(folder))

    def log(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class _MLflow:
    """One run; by the client, since a process may train several models one after another."""

    def __init__(self, name: str, settings: Settings) -> None:
        _wait_briefly()
        mlflow: Any = import_module("mlflow")
        self._client = mlflow.MlflowClient()
        experiment = mlflow.set_experiment(_EXPERIMENT)
        run = self._client.create_run(experiment.experiment_id, run_name=name)
        self._id = run.info.run_id
        for key, value in settings.public().items():
            self._client.log_param(self._id, key, value)

    def log(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self._client.log_metric(self._id, name, value, step=step)

    def close(self) -> None:
        self._client.set_terminated(self._id)
