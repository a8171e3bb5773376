"""Builds the models of a pool from scikit-learn classifiers, by their class probabilities."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from mico_competition.signals.pool_build import Targets
from mico_competition.signals.pool_checks import check_probabilities, check_rows, smallest
from mico_competition.signals.pool_models import OfOutputs, PoolModel
from mico_competition.support.progress import tracked

_RECORDS = 4096  # records that a classifier predicts together


class EstimatorKit:
    """Classifiers with `predict_proba` and `classes_`.

    The classes of the pool are those that a classifier or a label names, in ascending order.  A
    class that a classifier has not seen has the probability 0 there.
    """

    holds, data = "probabilities", None

    def __init__(self, classes: np.ndarray, inputs: Any, labels: np.ndarray) -> None:
        self.names, self.labels, self._inputs = classes, labels, inputs
        self.classes = len(classes)
        self._floor = 0.0
        self._probabilities: list[np.ndarray] = []
        self.models: Sequence[PoolModel] = ()

    @classmethod
    def of(cls, estimators: Sequence[Any], inputs: Any, labels: Any) -> EstimatorKit:
        """The kit of classifiers, run on all records."""
        stated = np.asarray(labels)
        if stated.ndim != 1 or stated.shape[0] != count(inputs):
            raise ValueError(
                f"Expected labels of shape [records] = ({count(inputs)},), one for each record of "
                f"inputs, got {stated.shape}."
            )
        other = next((row for row, one in enumerate(estimators) if not is_estimator(one)), None)
        if other is not None:
            raise ValueError(
                "Expected classifiers with predict_proba, like model 0, got "
                f"{type(estimators[other]).__name__} as model {other}: make a pool of each kind."
            )
        try:
            seen = np.concatenate([np.asarray(one.classes_) for one in estimators])
            classes = np.unique(np.concatenate([seen, stated]))
        except (AttributeError, TypeError, ValueError) as error:
            raise ValueError(
                "Expected fitted classifiers whose classes_ are of the same type as labels: "
                f"{error}."
            ) from error
        if not np.isin(stated, seen).all():
            wrong = stated[~np.isin(stated, seen)].tolist()[0]
            raise ValueError(
                f"Expected labels that the classifiers were fitted with, got {wrong!r}, which no "
                "classes_ holds."
            )
        if len(classes) < 2:
            raise ValueError(f"Expected classifiers of two classes or more, got {len(classes)}.")
        kit = cls(classes, inputs, np.searchsorted(classes, stated))
        kit._probabilities = [
            kit._run(one, f"model {row}")
            for row, one in enumerate(tracked(estimators, "Signals", "model"))
        ]
        kit._floor = min(map(smallest, kit._probabilities)) / 2
        kit.models = [kit._model(rows) for rows in kit._probabilities]
        return kit

    def targets(self, target: Any) -> Targets:
        """A classifier, or several."""
        several = isinstance(target, (list, tuple))
        given = list(target) if several else [target]
        for one in given:
            if not is_estimator(one):
                raise ValueError(
                    "Expected target to be a row of the pool or a classifier with predict_proba, "
                    f"got {type(one).__name__}."
                )
        return [self._model(self._run(one, "target")) for one in given], several

    def at(self, rows: np.ndarray, columns: np.ndarray) -> EstimatorKit:
        """The kit of some of the models and records."""
        kit = EstimatorKit(self.names, take(self._inputs, columns), self.labels[columns])
        kit._floor = self._floor
        kit._probabilities = [self._probabilities[row][columns] for row in rows]
        kit.models = [kit._model(own) for own in kit._probabilities]
        return kit

    def _model(self, probabilities: np.ndarray) -> PoolModel:
        return OfOutputs(probabilities, self.labels, self._floor)

    def _run(self, estimator: Any, name: str) -> np.ndarray:
        """float64[records, classes], in the pool's classes."""
        own = np.asarray(estimator.classes_)
        if not np.isin(own, self.names).all():
            raise ValueError(
                f"Expected {name} to know no other classes than the pool's, but its classes_ hold "
                f"{own[~np.isin(own, self.names)].tolist()[0]!r}."
            )
        places = np.searchsorted(self.names, own)
        found = np.zeros((len(self.labels), len(self.names)))
        for rows in _chunks(len(self.labels)):
            found[np.ix_(rows, places)] = estimator.predict_proba(take(self._inputs, rows))
        check_rows(f"probabilities of {name}", found)
        check_probabilities(f"probabilities of {name}", found)
        return found


def is_estimator(model: Any) -> bool:
    """Whether a model has class probabilities, as scikit-learn's classifiers do."""
    return hasattr(model, "predict_proba")


def count(inputs: Any) -> int:
    """The number of records in an array, a sparse matrix, a table or a list."""
    shape = getattr(inputs, "shape", None)
    return int(shape[0]) if shape else len(inputs)


def take(inputs: Any, index: np.ndarray) -> Any:
    """Some of the records, int64[k]."""
    if hasattr(inputs, "iloc"):
        return inputs.iloc[index]
    return [inputs[i] for i in index] if isinstance(inputs, (list, tuple)) else inputs[index]


def _chunks(records: int) -> Iterator[np.ndarray]:
    for start in range(0, records, _RECORDS):
        yield np.arange(start, min(start + _RECORDS, records))
