"""Repeats a trainer's steps with torch.func: each record's gradient, clipped, and their sum.

The trainer never computes a single record's gradient, so the two computations share only the
model's formula. The difference between a noisy sum and the clipped gradients of its batch is noise,
in every parameter, of a known deviation. The same gradients give the white-box scores of the record
canaries, layer by layer (Nasr et al., USENIX Security 2023, arXiv 2302.07956, section 4; Steinke,
Nasr and Jagielski, NeurIPS 2023, section 6).

The mathematics is in docs/METHODS.md, section 10.1 (formula 85).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from mico_competition.audit.trainer.canaries import AuditSet
from mico_competition.audit.trainer.observed import log_ratio
from mico_competition.models.precision import FLOAT32, forward_pass, full_float32
from mico_competition.training.accounting import Mechanism
from mico_competition.training.losses import per_example_losses

WHOLE = "all layers"
_NUMBERS_AT_ONCE = 2e7  # numbers of per-example gradients
_PREFIX = "model."


class _Losses(nn.Module):
    """A model as a function of its parameters."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Any, labels: Tensor) -> Tensor:
        return per_example_losses(self.model, inputs, labels)


class LayerReplay:
    """Repeats steps of one model, and scores its record canaries.

    Args:
        model: a copy of the model, without a trainer's hooks.
        audit_set: its training set.
        mechanism: as claimed.
        max_grad_norm: C.
        precision: of the trainer's passes, in which the replay rounds as they do.

    Attributes:
        sizes: name of each parameter -> its number of elements, in the order of vectors.
        layers: name of each module with parameters -> their slice of a vector.
        along, length: by layer, sums over steps of <x, s> and <s, s>, where x is the noisy sum
            and s the sum of the batch's clipped gradients, both over C.  If x = a s + noise, then
            along / length is a, up to N(0, sigma^2 / length).
        scores: by layer, float64[R], log likelihood ratios of record canaries; also WHOLE.
    """

    def __init__(
        self,
        model: nn.Module,
        audit_set: AuditSet,
        mechanism: Mechanism,
        max_grad_norm: float,
        precision: str = FLOAT32,
    ) -> None:
        self._losses = _Losses(model)
        self._set, self._mechanism, self._norm = audit_set, mechanism, max_grad_norm
        self._precision = precision
        self.sizes = {name: p.numel() for name, p in model.named_parameters()}
        self.layers = _layers(self.sizes)
        self._rows_at_once = max(1, int(_NUMBERS_AT_ONCE // sum(self.sizes.values())))
        self.along, self.length = (dict.fromkeys(self.layers, 0.0) for _ in range(2))
        self.scores = {layer: np.zeros(len(audit_set.records)) for layer in (*self.layers, WHOLE)}

    @torch.no_grad()
    def see(self, batch: Tensor, parameters: Mapping[str, Tensor], noisy: Tensor) -> Tensor:
        """Repeat a step; returns the sum of the batch's clipped gradients over C, each record once.

        Args:
            batch: int64[b], positions in the audit's set.
            parameters: name -> value before the step.
            noisy: float[P], the noisy sum over C.
        """
        rows = self._set.of_model(batch.unique())
        record = self._set.record_at[rows]
        is_real = record == len(self._set.records)
        real = torch.zeros_like(noisy)
        for clipped_rows in self._clipped(parameters, self._of_batch(rows[is_real])):
            real += clipped_rows.sum(0)
        canaries = self._of_canaries(parameters, noisy)
        clipped = real + canaries[record[~is_real]].sum(0)
        for layer, part in self.layers.items():
            s = clipped[part].double()
            self.along[layer] += float(noisy[part].double() @ s)
            self.length[layer] += float(s @ s)
        self._score(noisy - real, canaries)
        return clipped

    def _score(self, rest: Tensor, canaries: Tensor) -> None:
        """Add to the scores; `rest` is the noisy sum minus the gradients of real records.

        Knowing the batches of other records does not weaken the claim, since each record has its
        own coins. The expected gradients of other canaries are subtracted.
        """
        if not len(canaries):
            return
        expected = self._mechanism.sample_rate / 2
        whole = np.zeros((2, len(canaries)))
        for layer, part in self.layers.items():
            own = canaries[:, part]
            squares = torch.linalg.vecdot(own, own)
            shift = own @ (rest[part] - expected * own.sum(0)) + expected * squares
            both = torch.stack([shift, squares]).double().cpu().numpy()
            self.scores[layer] += log_ratio(both[0], self._mechanism, np.sqrt(both[1]))
            whole += both
        self.scores[WHOLE] += log_ratio(whole[0], self._mechanism, np.sqrt(whole[1]))

    def _of_canaries(self, parameters: Mapping[str, Tensor], like: Tensor) -> Tensor:
        """[R, P], the clipped gradients of all record canaries, in or out."""
        records = self._set.records
        ats = torch.arange(len(records), device=like.device).split(self._rows_at_once)
        parts = ((records.rows(at), records.labels[at]) for at in ats if len(at))
        return torch.cat([like.new_zeros((0, len(like))), *self._clipped(parameters, parts)])

    def _of_batch(self, positions: Tensor) -> Iterator[tuple[Any, Tensor]]:
        for at in positions.split(self._rows_at_once):
            if len(at):
                yield self._set.inputs(at)["records"], self._set.labels[at]

    def _clipped(
        self, parameters: Mapping[str, Tensor], parts: Iterable[tuple[Any, Tensor]]
    ) -> Iterator[Tensor]:
        """[b, P] for each part: gradients over C, of norm 1 at most."""
        of_model = {_PREFIX + name: value for name, value in parameters.items()}
        for inputs, labels in parts:
            device = labels.device
            with full_float32(device), forward_pass(self._precision, device):  # as the step did
                found = self._gradients(of_model, inputs, labels)
            rows = torch.cat([found[_PREFIX + name].flatten(1) for name in self.sizes], dim=1)
            norms = torch.linalg.vector_norm(rows, dim=1, dtype=torch.float64)
            yield rows.mul_(norms.clamp(min=self._norm).reciprocal().to(rows.dtype).unsqueeze(1))

    def _gradients(
        self, parameters: dict[str, Tensor], inputs: Any, labels: Tensor
    ) -> dict[str, Tensor]:
        """name -> [b, ...], the gradient of each record's loss."""
        one = grad(self._loss)
        if not isinstance(inputs, dict):
            gradients: dict[str, Tensor] = vmap(one, in_dims=(None, 0, 0), randomness="error")(
                parameters, inputs, labels
            )
            return gradients
        # transformers branches on values of its masks, which vmap cannot do.
        found = [
            one(parameters, {name: value[i] for name, value in inputs.items()}, labels[i])
            for i in range(len(labels))
        ]
        return {name: torch.stack([row[name] for row in found]) for name in parameters}

    def _loss(self, parameters: dict[str, Tensor], inputs: Any, label: Tensor) -> Tensor:
        """One record's loss."""
        if isinstance(inputs, dict):
            one: Any = {name: value.unsqueeze(0) for name, value in inputs.items()}
        else:
            one = inputs.unsqueeze(0)
        loss: Tensor = functional_call(self._losses, parameters, (one, label.unsqueeze(0)))[0]
        return loss


def _layers(sizes: Mapping[str, int]) -> dict[str, slice]:
    """The slice of a vector that holds each module's own parameters, which are adjacent."""
    found: dict[str, slice] = {}
    start = 0
    for name, size in sizes.items():
        layer = name.rpartition(".")[0]
        found[layer] = slice(found[layer].start if layer in found else start, start + size)
        start += size
    return found
