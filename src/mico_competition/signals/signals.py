"""The signals of a fleet: arrays over models and records, computed once and cached on disk.

Opening a fleet hashes all weights.  The cache is keyed by these hashes, so it never returns the
signals of other weights, and a fleet that holds the same model twice is refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import nn

from mico_competition.competition.layout import ModelFolder
from mico_competition.competition.table import get_scenario, get_task
from mico_competition.data.fingerprint import dataset_fingerprint
from mico_competition.models.architectures import load_model, new_model, weights_limit
from mico_competition.models.inputs import default_device
from mico_competition.signals.cache import Cache, key, stamp, weights_digests
from mico_competition.signals.fleet import HIDDEN, MEMBER, Fleet
from mico_competition.signals.forward import (
    KINDS,
    Arrays,
    make_arrays,
    make_entropies,
    signals_fingerprint,
)
from mico_competition.signals.plausible import Plausibility
from mico_competition.signals.points import Points
from mico_competition.signals.scalars import confidence, negative_loss
from mico_competition.support.files import PathLike
from mico_competition.support.progress import stage
from mico_competition.training.fingerprints import check_architecture

# name -> the kind of array that it is derived from, and the function that derives it
SIGNALS: dict[str, tuple[str, Callable[[np.ndarray], np.ndarray]]] = {
    "loss": ("logit", negative_loss),
    "confidence": ("logit", confidence),
    "logit": ("logit", lambda values: values),
    "entropy": ("entropies", lambda values: values[:, 0]),
    "modified_entropy": ("entropies", lambda values: values[:, 1]),
    "gradient_norm": ("gradient_norm", lambda values: values),
}

# A runner takes points and a list of (folder, kinds), and yields (index in the list, arrays) in any
# order.
Wanted = list[tuple[ModelFolder, list[str]]]
Runner = Callable[[Points, Wanted], Iterator[tuple[int, Arrays]]]


def kinds_of(names: Collection[str]) -> list[str]:
    """The kinds (of `forward.KINDS`) that hold the signals `names`; ValueError if unknown."""
    for name in names:
        if name not in SIGNALS and name != "logits":
            raise ValueError(
                f"Unknown signal {name!r}: choose one of {', '.join(['logits', *SIGNALS])}."
            )
    return sorted({SIGNALS[name][0] if name in SIGNALS else name for name in names})


@dataclass(frozen=True)
class Computed:
    """What `Signals.compute` did: the number of models, and how many were not yet in the cache."""

    models: int
    made: int


class Signals:
    """The signals of a fleet's models (rows) at its records (columns).

    Args:
        fleet: from `read_fleet`.
        data: the dataset that the fleet was read with, as models take it (`inputs.prepare`).
        cache: the folder that keeps arrays; by default `signals` in `$MICO_CACHE`.
        device: where models run; by default CUDA if there is one.
        runner: computes missing arrays elsewhere, such as on a cluster; by default they are
            computed in this process.
        base_model: of text models, the one that they were fine-tuned from, for white-box attacks:
            a folder, or a name on the Hugging Face Hub; None if it is not known.

    Raises:
        ValueError: if the data are not those of the fleet or of its task, a folder lacks weights,
            two models have the same weights, or a model was trained with code that computes other
            outputs than today's.
    """

    def __init__(
        self,
        fleet: Fleet,
        data: Any,
        cache: PathLike | None = None,
        device: torch.device | str | None = None,
        *,
        runner: Runner | None = None,
        base_model: PathLike | None = None,
    ) -> None:
        self.fleet = fleet
        self._base_model = base_model
        self.data = data
        self.device = torch.device(device) if device is not None else default_device()
        task = get_scenario(fleet.scenario).task
        points = Points.of(task, data, fleet.records)
        if not np.array_equal(points.data.labels.cpu().numpy(), fleet.labels):
            raise ValueError(
                f"The labels of the data differ from those that the fleet of {fleet.scenario} was "
                "read with: pass the same dataset."
            )
        self.cache = Cache(cache)
        self._points = points.to(self.device)
        self._stamps = [stamp(folder) for folder in fleet.folders]
        self._digests = weights_digests(fleet.folders, weights_limit(task, fleet.folders[0].path))
        _refuse_twins(fleet.folders, self._digests, "the same weights")
        self._architectures = check_architecture(fleet.folders, data)
        records = hashlib.sha256(fleet.records.astype("<i8").tobytes()).hexdigest()
        self._data_facts = (dataset_fingerprint(data), records, signals_fingerprint())
        self._plausible = Plausibility(fleet.folders)
        self._runner = runner
        self._tables: dict[str, np.ndarray] = {}
        self._named: dict[str, np.ndarray] = {}
        self._logits: dict[int, np.ndarray] = {}

    def get(self, name: str) -> np.ndarray:
        """Return one signal of every model at every record, computing what is not cached.

        The sign of each signal is such that members tend to have larger values.

        Args:
            name: "loss" (minus the cross-entropy, log p_y), "confidence" (p_y), "logit" (log
                p_y / (1 - p_y)), "entropy" and "modified_entropy" (minus these), or
                "gradient_norm" (minus the log of the norm of the loss gradient over all weights).

        Returns:
            float64[models, points], read-only.

        Raises:
            ValueError: if the name is unknown, if a model cannot be loaded or gives values that
                are not finite, or if all models give the same values.
        """
        if name not in SIGNALS:
            raise ValueError(f"Unknown signal {name!r}: choose one of {', '.join(SIGNALS)}.")
        if name not in self._named:
            kind, of_kind = SIGNALS[name]
            values = of_kind(self._table(kind))
            if len(values) > 1 and (values == values[0]).all():
                raise ValueError(
                    f"Signal {name} of {self.fleet.scenario} is constant over all "
                    f"{len(values)} models: is it the same model many times?"
                )
            values.setflags(write=False)
            self._named[name] = values
        return self._named[name]

    def logits(self, row: int) -> np.ndarray:
        """float32[points, classes] of one model; memory-mapped if the cache could keep them."""
        if row not in self._logits:
            cached = self._read(row, "logits")
            if cached is None:
                arrays = self._make(row, ["logits"])
                self._keep(row, arrays)
                cached = self._read(row, "logits")
                if cached is None:  # not held here: a fleet's logits may not fit into memory
                    return np.concatenate(arrays["logits"])
            self._logits[row] = cached
        return self._logits[row]

    def load(self, row: int) -> nn.Module:
        """Load one model, in eval mode, on the device, with parameters that require gradients.

        Raises:
            ValueError: as `load_model`; or if the weights changed since the signals were opened.
        """
        folder = self.fleet.folders[row]
        model = load_model(folder.task.name, folder.path, device=self.device)
        self._check_unchanged(row)
        return model

    @cached_property
    def base(self) -> nn.Module | None:
        """The model that all were fine-tuned from, in eval mode, on the device; None if unknown.

        Raises:
            ValueError: if it cannot be read, or if the models are not of text.
        """
        if self._base_model is None:
            return None
        task = get_task(get_scenario(self.fleet.scenario).task)
        if not task.text:
            raise ValueError(
                f"Expected no base model for {task.title}, whose models start from random weights: "
                "leave base_model out."
            )
        with torch.random.fork_rng():  # a new head is drawn, and ignored by attacks
            return new_model(task, base_model=str(self._base_model)).to(self.device).eval()

    def compute(self, names: Collection[str] = ("logits", "logit")) -> Computed:
        """Compute the arrays that are not in the cache, and write them to it.

        Each model's arrays are written when they are complete, so a killed run resumes where it
        stopped.

        Args:
            names: signals of SIGNALS, or "logits".
        """
        wanted = kinds_of(names)
        made = 0
        for _, arrays in self._computed(wanted, range(len(self.fleet))):
            made += arrays is not None
        return Computed(len(self.fleet), made)

    def _table(self, kind: str) -> np.ndarray:
        """float64[models, ...] of one kind."""
        if kind not in self._tables:
            table = np.empty((len(self.fleet), *self._shape(kind)))
            for row, arrays in self._computed([kind], range(len(self.fleet))):
                values = self._read(row, kind) if arrays is None else np.concatenate(arrays[kind])
                assert values is not None  # `_computed` has just read them
                table[row] = values
            if kind == "logit":
                outputs = [row.tobytes() for row in table]
                if len(set(outputs)) > 1:  # if all are the same, `get` says so
                    _refuse_twins(self.fleet.folders, outputs, "the same outputs")
            self._tables[kind] = table
        return self._tables[kind]

    def _computed(
        self, kinds: list[str], rows: Sequence[int]
    ) -> Iterator[tuple[int, Arrays | None]]:
        """Each row with its new arrays, or with None if the cache had them all.

        A thread writes one model's arrays to the cache while the next model runs.
        """
        lacking: dict[int, list[str]] = {}
        for row in rows:
            kinds_lacking = [kind for kind in kinds if self._read(row, kind) is None]
            if kinds_lacking:
                lacking[row] = kinds_lacking
            else:
                self._check_plausible(row, None)
                yield row, None
        order = list(lacking)
        cached = len(rows) - len(order)
        bar = stage("Signals", len(rows), "model", initial=cached)
        with bar as shown, ThreadPoolExecutor(1) as writer:
            writing: Future[None] | None = None
            if self._runner is None:
                results = ((row, self._make(row, lacking[row])) for row in order)
            else:
                wanted = [(self.fleet.folders[row], lacking[row]) for row in order]
                spread = self._runner(self._points.to(torch.device("cpu")), wanted)
                results = ((order[number], arrays) for number, arrays in spread)
            for row, arrays in results:
                if writing is not None:
                    writing.result()  # one model at most waits to be written
                writing = writer.submit(self._keep, row, arrays)
                self._check_plausible(row, arrays.get("logits"))
                yield row, arrays
                shown.update()
            if writing is not None:
                writing.result()
        self._plausible.warn()

    def _check_plausible(self, row: int, parts: list[np.ndarray] | None) -> None:
        """Compare a model's predictions at its challenge points with their labels."""
        folder = self.fleet.folders[row]
        if not self._plausible.wants(folder):
            return
        kept = self._read(row, "logits") if parts is None else None
        parts = parts if kept is None else [kept]
        columns = self.fleet.challenge[row][self.fleet.challenge[row] >= 0]
        if parts is None or not len(columns):
            return
        known = self.fleet.known_membership[row][columns]
        predicted = np.concatenate([part.argmax(1) for part in parts])[columns]
        members = None if (known == HIDDEN).any() else known == MEMBER
        self._plausible.see(folder, predicted, self.fleet.labels[columns], members)

    def _make(self, row: int, kinds: list[str]) -> Arrays:
        """The arrays of one model, computed in this process."""
        if kinds == ["entropies"]:
            cached = self._read(row, "logits")
            if cached is not None:
                return {"entropies": make_entropies([cached], self._points)}
        return make_arrays(
            self.load(row), self._points, kinds, self.fleet.folders[row].relative_path
        )

    def _keep(self, row: int, arrays: Arrays) -> None:
        """Write arrays to the cache, unless the weights changed meanwhile."""
        self._check_unchanged(row)
        for kind, parts in arrays.items():
            self.cache.write(self._name(row, kind), parts)

    def _read(self, row: int, kind: str) -> np.ndarray | None:
        dtype = "float32" if kind == "logits" else "float64"
        return self.cache.read(self._name(row, kind), dtype, self._shape(kind))

    def _shape(self, kind: str) -> tuple[int, ...]:
        count = len(self._points)
        return {"logits": (count, self._points.task.num_classes), "entropies": (2, count)}.get(
            kind, (count,)
        )

    def _name(self, row: int, kind: str) -> str:
        """The name of the cache's file: a hash of everything that the values depend on."""
        facts = (self._digests[row], self._architectures[row], *self._data_facts)
        name = key(kind, KINDS[kind], "float32", self._points.task_name, *facts)
        return f"{self.fleet.scenario}-{kind}-{name}"

    def _check_unchanged(self, row: int) -> None:
        folder = self.fleet.folders[row]
        if stamp(folder) != self._stamps[row]:
            raise ValueError(
                f"The weights of {folder.relative_path} changed since its signals were opened: "
                "open them again."
            )


def _refuse_twins(folders: Sequence[ModelFolder], values: Sequence[Any], what: str) -> None:
    """Raise ValueError if two models have the same of `values`."""
    seen: dict[Any, ModelFolder] = {}
    for folder, value in zip(folders, values):
        if value in seen:
            raise ValueError(
                f"{seen[value].relative_path} and {folder.relative_path} have {what}, so a target "
                "model would be among its own shadow models: remove one of them."
            )
        seen[value] = folder
