"""Sources of signals for a pool: its models, a choice of them, and one more model as a target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from torch import nn

from mico_competition.signals.fleet import HIDDEN, OWN, Fleet
from mico_competition.signals.pool_models import PoolModel, lacking
from mico_competition.signals.signals import SIGNALS
from mico_competition.signals.source import Source

TWINS_FROM = 10  # records; on fewer, two models may agree by coincidence
_COPY = 0.05  # of the distance between two models of a pool; rounding to 16 bits stays below it
_COMPARED = 1000  # records at which models are compared with each other
_SUMS = 3  # weighted sums of outputs by which models are ordered


class ModelsSource:
    """The signals of models that are in memory.

    Args:
        fleet: has a row for each of `models`.
        models: in the order of the fleet's rows.
        data: the records, as the models take them; None if there are only outputs.
        base: the model that all were fine-tuned from, if it is known.
    """

    def __init__(
        self,
        fleet: Fleet,
        models: Sequence[PoolModel],
        data: Any = None,
        base: nn.Module | None = None,
    ) -> None:
        self.fleet = fleet
        self.models = list(models)
        self._data, self.base = data, base
        self._named: dict[str, np.ndarray] = {}

    @property
    def data(self) -> Any:
        """The dataset, as models take it."""
        if self._data is None:
            raise lacking("the records", "new queries need ModelPool.from_models")
        return self._data

    def get(self, name: str) -> np.ndarray:
        """float64[models, points], read-only; see `Signals.get`."""
        check_signal(name)
        if name not in self._named:
            values = np.stack([model.get(name) for model in self.models])
            values.setflags(write=False)
            self._named[name] = values
        return self._named[name]

    def logits(self, row: int) -> np.ndarray:
        """float32[points, classes] of one model."""
        return self.models[row].logits()

    def load(self, row: int) -> nn.Module:
        """One model, in eval mode, on its device."""
        return self.models[row].load()


class Joined:
    """A source with further models, whose membership is not known.

    Args:
        base: the source of the first rows.
        models: the further models, at the records of `base`.
    """

    def __init__(self, base: Source, models: Sequence[PoolModel]) -> None:
        self._base, self._rest = base, list(models)
        fleet = base.fleet
        hidden = np.full((len(models), len(fleet.records)), HIDDEN, np.int8)
        places = np.repeat(np.arange(len(fleet.records))[None], len(models), axis=0)
        width = fleet.challenge.shape[1]
        self.fleet = replace(
            fleet,
            challenge=np.concatenate([fleet.challenge, places[:, :width]]),
            known_membership=np.concatenate([fleet.known_membership, hidden]),
            targets_from=len(fleet),
        )

    @property
    def data(self) -> Any:
        """The dataset of the base."""
        return self._base.data

    @property
    def base(self) -> nn.Module | None:
        """The model that all were fine-tuned from, if the first rows' source knows it."""
        known: nn.Module | None = getattr(self._base, "base", None)
        return known

    def get(self, name: str) -> np.ndarray:
        """float64[models, points]."""
        more = [model.get(check_signal(name)) for model in self._rest]
        return np.concatenate([self._base.get(name), np.stack(more)])

    def logits(self, row: int) -> np.ndarray:
        """float32[points, classes] of one model."""
        first = len(self._base.fleet)
        return self._base.logits(row) if row < first else self._rest[row - first].logits()

    def load(self, row: int) -> Any:
        """One model, in eval mode, on its device."""
        first = len(self._base.fleet)
        return self._base.load(row) if row < first else self._rest[row - first].load()


def check_signal(name: str) -> str:
    """The name of a signal; ValueError if there is none of this name."""
    if name not in SIGNALS:
        raise ValueError(f"Unknown signal {name!r}: choose one of {', '.join(SIGNALS)}.")
    return name


def own_fleet(labels: np.ndarray, known_membership: np.ndarray) -> Fleet:
    """The fleet of models of no competition: every record is a challenge point of every model."""
    models, records = known_membership.shape
    places = np.arange(records)
    challenge = np.broadcast_to(places, (models, records))
    return Fleet(OWN, (), places, labels, challenge, known_membership)


def refuse_twins(source: Source) -> None:
    """ValueError if two models have the same outputs: one of them would be its own shadow."""
    outputs = source.get("logit")
    if outputs.shape[1] < TWINS_FROM:
        return
    seen: dict[bytes, int] = {}
    for row, values in enumerate(outputs):
        first = seen.setdefault(values.tobytes(), row)
        if first != row and _same_logits(source, first, row):
            raise ValueError(
                f"Models {first} and {row} have the same outputs at all {outputs.shape[1]} "
                "records, so a target would be among its own shadow models: leave one of them out."
            )
    pair = _rounded_pair(outputs)
    if pair is not None:
        raise ValueError(
            f"Models {pair[0]} and {pair[1]} have the same outputs up to rounding, so a target "
            "would be among its own shadow models: leave one of them out."
        )


def _rounded_pair(outputs: np.ndarray) -> tuple[int, int] | None:
    """Two models whose outputs float[models, records] differ by no more than rounding.

    Such models are neighbours in the order of any weighted sum of their outputs, so that the time
    grows with the number of models and not with its square.
    """
    outputs = outputs[:, :: -(-outputs.shape[1] // _COMPARED)]
    models, records = outputs.shape
    if models < 3:
        return None
    weights = np.random.default_rng(0).normal(size=(_SUMS, records)) / (1 + outputs.std(axis=0))
    for order in np.argsort(outputs @ weights.T, axis=0, kind="stable").T:
        apart = np.abs(np.diff(outputs[order], axis=0)).mean(axis=1)
        for place in np.flatnonzero(apart < _COPY * np.quantile(apart, 0.9)):
            pair = order[place : place + 2]
            others = outputs[:: -(-models // _COMPARED)]
            if apart[place] < _COPY * np.median(np.abs(others - outputs[pair[0]]).mean(axis=1)):
                return int(pair.min()), int(pair.max())
    return None


def near_copies(source: Source, models: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """int64[k], those of `models` that a target repeats up to rounding, such as to 16 bits.

    The distance of two models is the median difference of the logit of the true class.  A target
    repeats a model if it is 20 times nearer to it than every other model is.

    Args:
        source: has the signals of both.
        models: int64[m], rows.
        targets: int64[t], rows.
    """
    outputs = source.get("logit")
    outputs = outputs[:, :: -(-outputs.shape[1] // _COMPARED)]
    if len(models) < 2 or outputs.shape[1] < TWINS_FROM:
        return np.zeros(0, np.int64)
    own, found = outputs[models], set()
    for target in outputs[targets]:
        apart = _distances(own, target)
        nearest = int(apart.argmin())
        others = np.delete(_distances(own, own[nearest]), nearest)
        if apart[nearest] < _COPY * others.min():
            found.add(int(models[nearest]))
    return np.array(sorted(found), np.int64)


def _distances(models: np.ndarray, one: np.ndarray) -> np.ndarray:
    distances: np.ndarray = np.median(np.abs(models - one), axis=1)
    return distances


def _same_logits(source: Source, one: int, other: int) -> bool:
    """Whether two models have equal logits; pools of losses know no more than the losses."""
    try:
        return np.array_equal(source.logits(one), source.logits(other))
    except ValueError:
        return True
