"""Builds the models of a pool from arrays of outputs or losses, and further ones as targets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from mico_competition.signals.pool_checks import (
    as_array,
    check_labels,
    check_logits,
    check_losses,
    check_outputs,
    check_probabilities,
    check_rows,
    smallest,
)
from mico_competition.signals.pool_models import OfLosses, OfOutputs, PoolModel

Targets = tuple[list[PoolModel], bool]
"""Models, and whether they were given as several: one may be given as a list of one."""


class Kit(Protocol):
    """What a pool was made from, and how more models of the kind are made."""

    @property
    def models(self) -> Sequence[PoolModel]:
        """The pool's models, in the order of its rows."""
        ...

    @property
    def labels(self) -> np.ndarray:
        """int64[records]."""
        ...

    @property
    def holds(self) -> str:
        """What there is of each model, in a word."""
        ...

    @property
    def classes(self) -> int:
        """The number of classes; 0 if it is not known."""
        ...

    @property
    def data(self) -> Any:
        """The records as models take them; None if there are only outputs."""
        ...

    def targets(self, target: Any) -> Targets:
        """Further models at the same records; ValueError for what is no such model."""
        ...

    def at(self, rows: np.ndarray, columns: np.ndarray) -> Kit:
        """The kit of some of the models and records."""
        ...


class OutputKit:
    """Logits or probabilities float[models, records, classes]; arguments are checked."""

    data = None

    def __init__(
        self, name: str, outputs: np.ndarray, labels: np.ndarray, floor: float | None
    ) -> None:
        self.holds, self.labels, self._outputs, self._floor = name, labels, outputs, floor
        self.classes = outputs.shape[2]
        self.models = [self._model(rows) for rows in outputs]

    @classmethod
    def of(cls, name: str, outputs: Any, labels: Any) -> OutputKit:
        """The kit of arrays that are not checked yet; `name` is "logits" or "probabilities"."""
        array = check_outputs(name, outputs, labels)
        checked = check_labels(labels, array.shape[1], array.shape[2])
        for row, rows in enumerate(array):
            _check(name, f"{name} of model {row}", rows)
        floor = min(map(smallest, array)) / 2 if name == "probabilities" else None
        return cls(name, array, checked, floor)

    def targets(self, target: Any) -> Targets:
        """The models of outputs [records, classes], or [models, records, classes]."""
        array = as_array("target", target)
        shape = (len(self.labels), self.classes)
        if array.ndim not in (2, 3) or array.shape[-2:] != shape or not len(array):
            raise ValueError(
                f"Expected target to be a row of the pool, or {self.holds} of shape [records, "
                f"classes] = {shape} at the pool's records, got {array.shape}."
            )
        several = array.ndim == 3
        array = array.reshape(-1, *shape)
        for row, rows in enumerate(array):
            what = f"{self.holds} of target {row}" if several else f"{self.holds} of target"
            check_rows(what, rows)
            _check(self.holds, what, rows)
        return [self._model(rows) for rows in array], several

    def at(self, rows: np.ndarray, columns: np.ndarray) -> OutputKit:
        """The kit of some of the models and records."""
        chosen = self._outputs[np.ix_(rows, columns)]
        return OutputKit(self.holds, chosen, self.labels[columns], self._floor)

    def _model(self, rows: np.ndarray) -> PoolModel:
        return OfOutputs(rows, self.labels, self._floor)


class LossKit:
    """Losses float[models, records] that are checked."""

    classes, data, holds = 0, None, "losses"

    def __init__(self, losses: np.ndarray, labels: np.ndarray, least: float | None = None) -> None:
        self.labels, self._losses = labels, losses
        found = smallest(losses) / 2
        self._least = (found if np.isfinite(found) else 1.0) if least is None else least
        self.models: list[PoolModel] = [OfLosses(rows, self._least) for rows in losses]

    @classmethod
    def of(cls, losses: Any, labels: Any) -> LossKit:
        """The kit of losses that are not checked yet, and of labels, which are 0 for None."""
        array = check_losses(losses)
        records = array.shape[1]
        classes = np.zeros(records, np.int64) if labels is None else check_labels(labels, records)
        return cls(array, classes)

    def targets(self, target: Any) -> Targets:
        """The models of losses [records], or [models, records]."""
        array = as_array("target", target)
        if array.ndim not in (1, 2) or array.shape[-1] != len(self.labels):
            raise ValueError(
                "Expected target to be a row of the pool, or losses of shape [records] = "
                f"({len(self.labels)},) at the pool's records, got {array.shape}."
            )
        models: list[PoolModel] = [
            OfLosses(rows, self._least) for rows in check_losses(np.atleast_2d(array))
        ]
        return models, array.ndim == 2

    def at(self, rows: np.ndarray, columns: np.ndarray) -> LossKit:
        """The kit of some of the models and records."""
        return LossKit(self._losses[np.ix_(rows, columns)], self.labels[columns], self._least)


def _check(kind: str, what: str, rows: np.ndarray) -> None:
    (check_logits if kind == "logits" else check_probabilities)(what, rows)
