"""One model of a pool: known by its outputs at the records, or as a module that computes them."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from mico_competition.models.architectures import logits
from mico_competition.models.misfit import misfit
from mico_competition.models.precision import full_float32
from mico_competition.models.probe import rounded
from mico_competition.signals.cache import Cache, key
from mico_competition.signals.forward import KINDS, make_arrays, signals_fingerprint
from mico_competition.signals.points import Points
from mico_competition.signals.pool_checks import check_rows, look_like_probabilities
from mico_competition.signals.scalars import entropies, true_logit
from mico_competition.signals.signals import SIGNALS

_BLOCK = 1 << 21  # numbers of logits that are converted together: 16 MB
_PROBE = 16  # records at which a model's outputs are checked before it runs on all


class Lacking(ValueError):
    """A pool does not hold what an attack asks of it."""


def lacking(what: str, remedy: str) -> Lacking:
    """The error for what a pool does not hold."""
    return Lacking(f"This pool does not hold {what}: {remedy}.")


class PoolModel(Protocol):
    """A model of a pool."""

    def get(self, name: str) -> np.ndarray:
        """float64[points], one signal of `signals.SIGNALS`."""
        ...

    def logits(self) -> np.ndarray:
        """float32[points, classes]."""
        ...

    def load(self) -> nn.Module:
        """The model in eval mode; a copy."""
        ...


class _Derived:
    """Signals that follow from the arrays of a model."""

    def array(self, kind: str) -> np.ndarray:
        """float64[points] or float64[2, points], of a kind of `forward.KINDS` without "logits"."""
        raise NotImplementedError

    def get(self, name: str) -> np.ndarray:
        """float64[points], one signal of `signals.SIGNALS`."""
        kind, of_kind = SIGNALS[name]
        signal: np.ndarray = of_kind(self.array(kind)[None])[0]
        return signal


class OfOutputs(_Derived):
    """A model known by an array of its outputs at all records.

    Args:
        outputs: float[points, classes], logits; with `floor`, probabilities.
        labels: int64[points].
        floor: stands for a probability of 0, whose logarithm is not finite.
    """

    def __init__(self, outputs: np.ndarray, labels: np.ndarray, floor: float | None = None) -> None:
        self.outputs, self.labels, self._floor = outputs, labels, floor
        self._arrays: dict[str, np.ndarray] = {}

    def array(self, kind: str) -> np.ndarray:
        """The scalars of a kind, computed at their first use."""
        functions = {"logit": true_logit, "entropies": entropies}
        if kind not in functions:
            raise lacking("the models", "gradients need ModelPool.from_models")
        if kind not in self._arrays:
            by_hand = kind == "logit" and self._floor is not None
            found = self._true_logit() if by_hand else self._scalars(functions[kind])
            self._arrays[kind] = found
        return self._arrays[kind]

    def logits(self) -> np.ndarray:
        """float32[points, classes]."""
        return self._converted(self.outputs).astype(np.float32, copy=False)

    def load(self) -> nn.Module:
        """Raises an error: there are no weights."""
        raise lacking("the models", "weights and new queries need ModelPool.from_models")

    def _converted(self, rows: np.ndarray) -> np.ndarray:
        if rows.dtype not in (np.float32, np.float64):
            rows = rows.astype(np.float32 if rows.dtype == np.float16 else np.float64)
        if self._floor is None:
            return rows
        logits: np.ndarray = np.log(np.maximum(rows.astype(np.float64), self._floor))
        return logits

    def _true_logit(self) -> np.ndarray:
        """float64[points]; the sum of the other probabilities has all digits of 1 - p_y."""
        others = self.outputs.astype(np.float64)
        places = np.arange(len(others)), self.labels
        true = others[places]
        others[places] = 0
        assert self._floor is not None
        rest = np.log(np.maximum(others.sum(axis=1), self._floor))
        logit: np.ndarray = np.log(np.maximum(true, self._floor)) - rest
        return logit

    def _scalars(self, function: Callable[[Tensor, Tensor], Tensor]) -> np.ndarray:
        step = max(1, _BLOCK // self.outputs.shape[1])
        parts = []
        with torch.inference_mode():
            for start in range(0, len(self.outputs), step):
                rows = slice(start, start + step)
                z = np.array(self._converted(self.outputs[rows]))  # a copy, which torch may take
                parts.append(
                    function(torch.from_numpy(z), torch.from_numpy(self.labels[rows].copy()))
                )
        whole: np.ndarray = torch.cat(parts, -1).numpy()
        return whole


class OfLosses:
    """A model known by its loss at each record.

    Args:
        losses: float[points], -log p_y >= 0.
        least: stands for a loss of 0, whose logit is not finite.
    """

    def __init__(self, losses: np.ndarray, least: float) -> None:
        self.losses, self._least = losses.astype(np.float64), least

    def get(self, name: str) -> np.ndarray:
        """float64[points]: the loss, or the confidence or logit of the true class."""
        if name not in ("loss", "confidence", "logit"):
            raise lacking("the models' logits", f"the signal {name} does not follow from losses")
        if name != "logit":
            return -self.losses if name == "loss" else np.exp(-self.losses)
        losses = np.maximum(self.losses, self._least)
        # log(p / (1 - p)) with p = exp(-loss); 1 - p = -expm1(-loss)
        logit: np.ndarray = -losses - np.log(-np.expm1(-losses))
        return logit

    def logits(self) -> np.ndarray:
        """Raises an error: losses do not determine the outputs."""
        raise lacking("the models' logits", "they need ModelPool.from_logits or from_models")

    def load(self) -> nn.Module:
        """Raises an error: there are no weights."""
        raise lacking("the models", "weights and new queries need ModelPool.from_models")


class OfModule(_Derived):
    """A torch module, or a function that returns one.

    The user's module is never changed: it is copied, and the copy is put into eval mode and moved
    to the device.

    Args:
        give: returns the module.
        name: of the model, in messages.
        points: the records, on the device.
        cache: keeps what was computed; None for no cache.
        data_facts: identify the records in the cache's keys.
    """

    def __init__(
        self,
        give: Callable[[], Any],
        name: str,
        points: Points,
        *,
        cache: Cache | None = None,
        data_facts: tuple[object, ...] = (),
    ) -> None:
        self._give, self._name, self.points = give, name, points
        self._cache, self._data_facts = cache, data_facts
        self._arrays: dict[str, np.ndarray] = {}
        self._digest = ""
        self._facts: tuple[object, ...] = ()
        self.classes = 0

    def open(self, module: nn.Module | None = None, *, keep: bool = True) -> None:
        """Compute the outputs at all records, and check them.

        Args:
            module: what `give` returned, if it was called already.
            keep: whether to hold the logits in memory.

        Raises:
            ValueError: on outputs that are not finite logits [records, classes].
        """
        model = self._prepared(self._give() if module is None else module)
        self._digest = digest(model)
        probe = self._check_outputs(model)
        self.classes = probe.shape[1]
        shown = rounded(probe.double().flatten().tolist(), 3)
        self._facts = (self._digest, shown, *self._data_facts)
        wanted = [kind for kind in ("logits", "logit") if self._cached(kind) is None]
        if wanted:
            self._compute(model, wanted, keep)

    def array(self, kind: str) -> np.ndarray:
        """The scalars of a kind, computed at their first use."""
        cached = self._cached(kind)
        if cached is None:
            self._compute(self.load(), [kind], True)
            cached = self._arrays[kind]
        return cached

    def logits(self) -> np.ndarray:
        """float32[points, classes], computed anew if neither memory nor the cache holds them."""
        cached = self._cached("logits")
        if cached is None:
            cached = np.concatenate(
                make_arrays(self.load(), self.points, ["logits"], self._name)["logits"]
            )
        return cached

    def load(self) -> nn.Module:
        """A copy in eval mode on the device, with parameters that require gradients.

        Raises:
            ValueError: if the weights changed since the pool was made.
        """
        model = self._prepared(self._give())
        if digest(model) != self._digest:
            raise ValueError(
                f"The weights of {self._name} changed since its pool was made: make the pool again."
            )
        for parameter in model.parameters():
            parameter.requires_grad_(parameter.is_floating_point())
        return model

    def at(self, columns: np.ndarray, points: Points) -> OfModule:
        """The same model at some of its records, which `points` holds."""
        chosen = OfModule(self._give, self._name, points)
        chosen._digest, chosen.classes = self._digest, self.classes
        for kind in ("logits", "logit", "entropies", "gradient_norm"):
            values = self._cached(kind)
            if values is not None:
                axis = 1 if kind == "entropies" else 0
                chosen._arrays[kind] = values.take(columns, axis=axis)
        return chosen

    def _prepared(self, module: Any) -> nn.Module:
        if not isinstance(module, nn.Module):
            raise ValueError(
                f"Expected {self._name} to be a torch module, got {type(module).__name__}."
            )
        try:
            model = copy.deepcopy(module)
        except Exception as error:  # code of others may raise anything
            raise ValueError(
                f"{self._name} cannot be copied ({error}): pass a function that returns it instead."
            ) from error
        return model.eval().to(self.points.device)

    def _check_outputs(self, model: nn.Module) -> Tensor:
        """float[b, classes], the logits of a few records."""
        index = torch.arange(min(_PROBE, len(self.points)), device=self.points.device)
        inputs = self.points.data.inputs(index)
        with torch.inference_mode(), full_float32(self.points.device):
            try:
                outputs: Any = logits(model, inputs)
            except Exception as error:  # code of others may raise anything
                raise misfit(self._name, model, inputs, error) from error
        if not isinstance(outputs, Tensor):
            raise ValueError(
                f"Expected {self._name} to return logits, a tensor or an object that has them as "
                f"`logits`, got {type(outputs).__name__}."
            )
        if outputs.ndim != 2 or outputs.shape[0] != len(index) or outputs.shape[1] < 2:
            raise ValueError(
                f"Expected {self._name} to return logits [records, classes] of two classes or "
                f"more, got {tuple(outputs.shape)} for {len(index)} records."
            )
        top = int(self.points.data.labels.max())
        if top >= outputs.shape[1]:
            raise ValueError(
                f"Expected labels in 0..{outputs.shape[1] - 1}, the classes of {self._name}, got "
                f"{top}: count classes from 0."
            )
        rows = outputs.float().cpu().numpy()
        check_rows(f"logits of {self._name}", rows)
        if look_like_probabilities(rows):
            raise ValueError(
                f"{self._name} returns probabilities (every row sums to 1), but attacks need "
                "logits: take its softmax off, or pass its outputs to "
                "ModelPool.from_probabilities."
            )
        return outputs

    def _compute(self, model: nn.Module, kinds: list[str], keep: bool) -> None:
        for kind, parts in make_arrays(model, self.points, kinds, self._name).items():
            axis = 1 if kind == "entropies" else 0
            values = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=axis)
            if kind == "logits":
                check_rows(f"logits of {self._name}", values)
            if self._cache is not None and self._cache.write(self._file(kind), [values]):
                mapped = self._cached(kind)  # on disk, so that memory need not hold them
                values = values if mapped is None else mapped
            if kind != "logits" or keep:
                self._arrays[kind] = values

    def _cached(self, kind: str) -> np.ndarray | None:
        if kind not in self._arrays and self._cache is not None and self._facts:
            count = len(self.points)
            shape = {"logits": (count, self.classes), "entropies": (2, count)}.get(kind, (count,))
            dtype = "float32" if kind == "logits" else "float64"
            found = self._cache.read(self._file(kind), dtype, shape)
            if found is not None:
                self._arrays[kind] = found
        return self._arrays.get(kind)

    def _file(self, kind: str) -> str:
        return f"pool-{kind}-{key(kind, KINDS[kind], signals_fingerprint(), *self._facts)}"


def digest(model: nn.Module) -> str:
    """SHA-256 in hex of a module's printed structure and of all its parameters and buffers."""
    total = hashlib.sha256(repr(model).encode())
    for name, value in model.state_dict().items():
        total.update(f"{name} ".encode())
        if isinstance(value, Tensor):
            flat = value.detach().cpu().contiguous()
            total.update(f"{flat.dtype} {tuple(flat.shape)}".encode())
            total.update(flat.flatten().view(torch.uint8).numpy().data)
    return total.hexdigest()
