"""Steps of a trainer done again by other means: each record's own gradient, clipped, and summed.

The trainer never writes out a record's gradient; here torch.func does, one record at a time in
parallel, so the two share the model's formula and nothing else.  What a noisy sum has beyond the
clipped gradients of its batch is noise, in every layer, of a known deviation.  The same gradients
give the white-box scores of the record canaries, layer by layer (Nasr et al., USENIX Security
2023, arXiv 2302.07956, section 4; Steinke, Nasr and Jagielski, NeurIPS 2023, section 6).
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
from mico_competition.training.accounting import Mechanism
from mico_competition.training.dpsgd import per_example_losses

WHOLE = "all layers"
_NUMBERS_AT_ONCE = 2e7  # of per-example gradients
_PREFIX = "model."

Layers = dict[str, Tensor]


class _Losses(nn.Module):
    """A model as a function of parameters that are called as in `CanaryModel`."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Any, labels: Tensor) -> Tensor:
        return per_example_losses(self.model, inputs, labels)


class LayerReplay:
    """Replays steps and scores record canaries.

    Args:
        model: a copy of the model, without hooks of a trainer.
        audit_set: what is trained on.
        mechanism: as promised.
        max_grad_norm: C.

    Attributes, by layer (the name of the module that has the parameters):
        along, length: sums over steps of <x, s> and <s, s>, where x is the noisy sum and s the
            sum of the batch's clipped gradients, both over C.  If x = a s + noise, then
            along / length is a, up to N(0, sigma^2 / length).
        squares, numbers: sum of (x - s)^2, and of how many numbers.
        scores: float64[R], log likelihood ratios of record canaries; also WHOLE, of all layers.
        steps: int64, the steps that were replayed.
    """

    def __init__(
        self, model: nn.Module, audit_set: AuditSet, mechanism: Mechanism, max_grad_norm: float
    ) -> None:
        self._losses = _Losses(model)
        self._set, self._mechanism, self._norm = audit_set, mechanism, max_grad_norm
        self._names: dict[str, list[str]] = {}
        for name, _ in model.named_parameters():
            self._names.setdefault(name.rpartition(".")[0], []).append(_PREFIX + name)
        size = sum(p.numel() for p in model.parameters())
        self._rows_at_once = max(1, int(_NUMBERS_AT_ONCE // size))
        self.along, self.length, self.squares = (dict.fromkeys(self._names, 0.0) for _ in range(3))
        self.numbers = dict.fromkeys(self._names, 0)
        self.scores = {layer: np.zeros(len(audit_set.records)) for layer in (*self._names, WHOLE)}
        self.steps: list[int] = []

    @torch.no_grad()
    def see(
        self,
        step: int,
        batch: Tensor,
        parameters: Mapping[str, Tensor],
        noisy: Mapping[str, Tensor],
    ) -> None:
        """One step.

        Args:
            step: its number.
            batch: int64[b], positions in the audit's set.
            parameters: name -> value before the step.
            noisy: name -> noisy sum over C.
        """
        rows = self._set.of_model(batch)
        record = self._set.record_at[rows]
        is_real = record == len(self._set.records)
        x = self._by_layer(noisy, 0)
        real = {layer: torch.zeros_like(value) for layer, value in x.items()}
        for part in self._clipped(parameters, self._of_batch(rows[is_real])):
            for layer, clipped in part.items():
                real[layer] += clipped.sum(0)
        canaries = self._of_canaries(parameters, x)
        for layer in self._names:
            s = real[layer] + canaries[layer][record[~is_real]].sum(0)
            self.along[layer] += float(x[layer].double() @ s.double())
            self.length[layer] += float(_squares(s.double()))
            self.squares[layer] += float(_squares((x[layer] - s).double()))
            self.numbers[layer] += s.numel()
        self._score({layer: x[layer] - real[layer] for layer in x}, canaries)
        self.steps.append(step)

    def _score(self, rest: Layers, canaries: Layers) -> None:
        """Add to the scores; `rest` is the noisy sum without what real records gave.

        That other records' batches are known takes nothing from the promise, since each record's
        coins are its own.  Other canaries are taken out by what is expected of them.
        """
        if not len(self._set.records):
            return
        expected = self._mechanism.sample_rate / 2
        whole = np.zeros((2, len(self._set.records)))
        for layer, own in canaries.items():
            squares = _squares(own)
            shift = own @ (rest[layer] - expected * own.sum(0)) + expected * squares
            both = torch.stack([shift, squares]).double().cpu().numpy()
            self.scores[layer] += log_ratio(both[0], self._mechanism, np.sqrt(both[1]))
            whole += both
        self.scores[WHOLE] += log_ratio(whole[0], self._mechanism, np.sqrt(whole[1]))

    def _of_canaries(self, parameters: Mapping[str, Tensor], like: Layers) -> Layers:
        """[R, P] a layer, the clipped gradients of all record canaries, in or out."""
        records = self._set.records
        parts = list(
            self._clipped(
                parameters,
                (
                    (records.rows(at), records.labels[at])
                    for at in torch.arange(len(records)).split(self._rows_at_once)
                    if len(at)
                ),
            )
        )
        return {
            layer: torch.cat([part[layer] for part in parts])
            if parts
            else value.new_zeros((0, len(value)))
            for layer, value in like.items()
        }

    def _of_batch(self, positions: Tensor) -> Iterator[tuple[Any, Tensor]]:
        for at in positions.split(self._rows_at_once):
            if len(at):
                yield self._set.inputs(at)["records"], self._set.labels[at]

    def _clipped(
        self, parameters: Mapping[str, Tensor], parts: Iterable[tuple[Any, Tensor]]
    ) -> Iterator[Layers]:
        """[b, P] a layer for each part: gradients over C, of norm 1 at most over all layers."""
        of_model = {name: p for name, p in parameters.items() if name.startswith(_PREFIX)}
        for inputs, labels in parts:
            rows = self._by_layer(self._gradients(of_model, inputs, labels), 1)
            norms = torch.stack([_squares(row) for row in rows.values()]).sum(0).sqrt()
            factors = norms.clamp(min=self._norm).reciprocal().unsqueeze(1)
            yield {layer: row.mul_(factors) for layer, row in rows.items()}

    def _gradients(
        self, parameters: dict[str, Tensor], inputs: Any, labels: Tensor
    ) -> dict[str, Tensor]:
        """name -> [b, ...], the gradient of each record's loss."""
        one = grad(self._loss)
        if not isinstance(inputs, dict):
            return vmap(one, in_dims=(None, 0, 0), randomness="error")(parameters, inputs, labels)
        # transformers looks at values of its masks, which vmap cannot do.
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
        return functional_call(self._losses, parameters, (one, label.unsqueeze(0)))[0]

    def _by_layer(self, values: Mapping[str, Tensor], first: int) -> Layers:
        """Parameters of each layer laid end to end, from dimension `first` on."""
        return {
            layer: torch.cat([values[name].flatten(first) for name in names], dim=first)
            for layer, names in self._names.items()
        }


def _squares(rows: Tensor) -> Tensor:
    """Squared norms along the last dimension, without a copy."""
    return torch.linalg.vecdot(rows, rows)
