"""Builds the models of a pool from torch modules, by running them on all records."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from mico_competition.models.inputs import device_of
from mico_competition.signals.cache import Cache
from mico_competition.signals.points import Points
from mico_competition.signals.pool_build import OutputKit, Targets
from mico_competition.signals.pool_checks import check_labels
from mico_competition.signals.pool_inputs import data_digest, dataset_of, subset, weights_dtype
from mico_competition.signals.pool_models import OfModule, PoolModel
from mico_competition.support.files import PathLike
from mico_competition.support.progress import tracked

HELD_BYTES = 2**30  # logits that a pool of modules holds in memory; others are computed when needed

Give = Callable[[], Any]


class ModuleKit:
    """Torch modules and records, of which nothing is computed yet.

    Args:
        gives: functions that return the modules.
        points: the records, on the device where modules run.
        labels: int64[records].
        cache: keeps the outputs; None for no cache.
    """

    holds = "models"

    def __init__(
        self, gives: Sequence[Give], points: Points, labels: np.ndarray, cache: Cache | None
    ) -> None:
        self.labels, self.data = labels, points.data
        self._gives, self._points, self._cache = list(gives), points, cache
        self._facts = () if cache is None else (data_digest(points.data),)
        self.classes = 0
        self.models: Sequence[PoolModel] = ()

    @classmethod
    def of(
        cls,
        gives: Sequence[Give],
        first: nn.Module,
        inputs: Any,
        labels: Any,
        device: torch.device | str | None,
        batch_size: int | None,
        cache: PathLike | None,
    ) -> ModuleKit:
        """The kit of modules, of which `first` is loaded already, run on all records."""
        checked = check_labels(labels, len(np.shape(labels)) and np.shape(labels)[0])
        data: Any = dataset_of(inputs, checked, weights_dtype(first))
        if batch_size is not None and batch_size < 1:
            raise ValueError(f"Expected batch_size={batch_size} >= 1.")
        where = device_of(device)
        points = Points("", data, batch_size).to(where)
        kit = cls(gives, points, checked, None if cache is None else Cache(cache))
        kit.models = [
            kit._run(give, f"model {row}", first if row == 0 else None)
            for row, give in enumerate(tracked(gives, "Signals", "model"))
        ]
        return kit

    def targets(self, target: Any) -> Targets:
        """A torch module, a function that returns one, or logits at the records; or several."""
        several = isinstance(target, (list, tuple))
        given = list(target) if several else [target]
        if all(isinstance(one, nn.Module) or callable(one) for one in given):
            models: list[PoolModel] = [self._run(as_give(one), "target") for one in given]
            return models, several
        outputs = np.zeros((1, len(self.labels), self.classes))
        return OutputKit("logits", outputs, self.labels, None).targets(target)

    def at(self, rows: np.ndarray, columns: np.ndarray) -> ModuleKit:
        """The kit of some of the models and records."""
        chosen_data: Any = subset(self.data, columns)
        points = Points("", chosen_data, self._points.size).to(self._points.device)
        gives = [self._gives[row] for row in rows]
        kit = ModuleKit(gives, points, self.labels[columns], None)
        kit.classes = self.classes
        chosen = [self.models[row] for row in rows]
        kit.models = [model.at(columns, points) for model in chosen if isinstance(model, OfModule)]
        return kit

    def _run(self, give: Give, name: str, module: nn.Module | None = None) -> OfModule:
        """One model, run on all records."""
        model = OfModule(give, name, self._points, cache=self._cache, data_facts=self._facts)
        held = 4 * len(self.labels) * max(self.classes, 2) * len(self._gives)
        model.open(module, keep=held <= HELD_BYTES)
        if self.classes not in (0, model.classes):
            raise ValueError(
                f"Expected models of the same classes, but {name} has {model.classes} and the "
                f"first model {self.classes}."
            )
        self.classes = model.classes
        return model


def as_give(model: Any) -> Give:
    """A function that returns the model."""
    if isinstance(model, type) and issubclass(model, nn.Module):
        raise ValueError(
            f"Expected a model, or a function that returns one, got the class {model.__name__}: "
            "pass trained models."
        )
    return (lambda: model) if isinstance(model, nn.Module) or not callable(model) else model
