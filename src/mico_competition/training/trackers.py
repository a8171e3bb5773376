"""Trackers of other projects, TensorBoard and MLflow, that plot a run while it trains.

They are optional: each is imported when it is asked for.  A tracker never gets a seed.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from mico_competition.training.settings import Settings

TRACKERS = ("tensorboard", "mlflow")


class Tracker(Protocol):
    """Takes the numbers of one run."""

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Take numbers by name, after `step` steps."""

    def close(self) -> None:
        """Called when the model is whole."""


def check_tracker(kind: str) -> None:
    """Raise ImportError, with the command that installs it, if a tracker's package is missing."""
    try:
        if kind == "tensorboard":
            import_module("torch.utils.tensorboard")
        else:
            import_module("mlflow")
    except ImportError as error:
        raise ImportError(
            f"--track {kind} needs the package {kind} ({error}): pip install {kind}"
        ) from error


def open_tracker(kind: str, folder: Path, name: str, settings: Settings) -> Tracker:
    """A tracker of one of TRACKERS.

    Args:
        kind: which.
        folder: where TensorBoard writes; MLflow writes where MLFLOW_TRACKING_URI says.
        name: the run's name, such as "digits_lo/model_3".
        settings: whose public part MLflow keeps with the run.

    Raises:
        ImportError: if its package is missing.
    """
    check_tracker(kind)
    if kind == "tensorboard":
        return _TensorBoard(folder / name)
    return _MLflow(name, settings)


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
        mlflow: Any = import_module("mlflow")
        self._client = mlflow.MlflowClient()
        experiment = mlflow.set_experiment("mico_competition")
        run = self._client.create_run(experiment.experiment_id, run_name=name)
        self._id = run.info.run_id
        for key, value in settings.public().items():
            self._client.log_param(self._id, key, value)

    def log(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self._client.log_metric(self._id, name, value, step=step)

    def close(self) -> None:
        self._client.set_terminated(self._id)
