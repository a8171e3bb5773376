"""Canaries for the audit of a trainer: records made to be found again, each let in by a fair coin.

Two sorts.  A **Dirac canary** has a weight of its own in one more layer of the model, and a
gradient that is zero in every other coordinate and clipped in that one: the worst case that the
accountant counts with (Nasr et al., USENIX Security 2023, arXiv 2302.07956, section 4; Steinke,
Nasr and Jagielski, NeurIPS 2023, arXiv 2305.08846, section 6).  A **record canary** goes through
the model like any other record, but is mislabelled, or blank, or very large, so that its gradient
is long in some layer.  Knows records and models, nothing of batches, noise or epsilon.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from mico_competition.data.arrays import TokenDataset
from mico_competition.inputs import Data
from mico_competition.models import logits
from mico_competition.training.dpsgd import Inputs

# A Dirac canary's gradient before clipping, in units of max_grad_norm: so much that the rounding
# margin of the clipping factor does not count.
PUSH = 1000.0

MISLABELLED, BLANK, LARGE = "mislabelled", "blank", "large"
_LARGEST = 1000.0  # factor of a large canary's inputs; they are spread evenly over magnitudes


class CanaryModel(nn.Module):
    """A model with a weight for each Dirac canary beside it.

    A Dirac canary's logits do not depend on the model: canary i has push * w_i for class 0, and 0
    for all others.  While w_i is 0 and its label is not 0, the gradient of its loss is
    push / classes at w_i, and zero everywhere else.  Every other record has the model's logits.

    Args:
        model: takes records and gives logits, as `models.logits` asks it.
        dirac: m >= 1, number of Dirac canaries.
        classes: K >= 2.
        max_grad_norm: C; a Dirac canary's gradient is PUSH times as long.
    """

    def __init__(self, model: nn.Module, dirac: int, classes: int, max_grad_norm: float) -> None:
        super().__init__()
        self.model = model
        self.dirac = dirac
        self.push = PUSH * classes * max_grad_norm
        # A linear layer on one-hot inputs; number m stands for no canary, and has no gradient.
        self.weights = nn.Embedding(dirac + 1, 1, padding_idx=dirac)
        self.reset()

    def reset(self) -> None:
        """Set the canaries' weights back to 0, where their gradient is what it should be.

        Whoever attacks may choose each step's loss anew, knowing all steps before (adaptive
        composition), so this takes nothing from the promise.
        """
        with torch.no_grad():
            self.weights.weight.zero_()

    def forward(self, records: Inputs, canary: Tensor) -> SimpleNamespace:
        """`.logits` [B, K] of records [B, ...] with canary's numbers int64[B], m for none."""
        of_model = logits(self.model, records)
        own = torch.zeros_like(of_model)
        own[:, :1] = self.push * self.weights(canary)
        is_dirac = (canary < self.dirac).unsqueeze(1)
        return SimpleNamespace(logits=torch.where(is_dirac, own, of_model))


@dataclass(frozen=True)
class RecordCanaries:
    """Records to be let in or not: `inputs` as a model takes them, [R, ...], labels int64[R]."""

    inputs: Any
    labels: Tensor
    kinds: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def rows(self, at: Tensor) -> Any:
        """The inputs of canaries number `at`."""
        if isinstance(self.inputs, dict):
            return {name: values[at] for name, values in self.inputs.items()}
        return self.inputs[at]


def make_record_canaries(
    data: Data, candidates: Tensor, count: int, classes: int, generator: torch.Generator
) -> RecordCanaries:
    """`count` record canaries, of all kinds in turn.

    * mislabelled: a record with a label that is not its own;
    * blank: zeros but for one input of its own, with a random label (text: one token);
    * large: a mislabelled record, its inputs times 1 to 1000 (text has no such).

    Args:
        data: whose records they are made from.
        candidates: int64[c], c >= 1, positions of records that are not trained on otherwise.
        count: R >= 0.
        classes: K >= 2.
        generator: on the CPU; draws records, labels, inputs and factors.
    """

    def draw(high: int) -> Tensor:
        return torch.randint(high, (count,), generator=generator)

    text = isinstance(data, TokenDataset)
    turn = (MISLABELLED, BLANK) if text else (MISLABELLED, BLANK, LARGE)
    kinds = tuple(turn[i % len(turn)] for i in range(count))
    chosen = candidates.cpu()[draw(len(candidates))].to(data.labels.device)
    shift = 1 + draw(classes - 1).to(data.labels.device)
    inputs: Any = data.inputs(chosen)
    if text:
        _blank_text(inputs, kinds)
    elif count:
        rows = inputs.flatten(1)
        spots, factors = draw(rows.shape[1]), _LARGEST ** torch.rand(count, generator=generator)
        for row, kind, spot, factor in zip(rows, kinds, spots.tolist(), factors.tolist()):
            if kind == BLANK:
                row.zero_()[spot] = 1.0
            elif kind == LARGE:
                row.mul_(factor)
        inputs = rows.view_as(inputs)
    return RecordCanaries(inputs, (data.labels[chosen] + shift) % classes, kinds)


def _blank_text(inputs: dict[str, Tensor], kinds: tuple[str, ...]) -> None:
    """Leave a blank sentence its opening mark and its first token."""
    for mask, kind in zip(inputs["attention_mask"], kinds):
        if kind == BLANK:
            mask[2:] = 0


class AuditSet:
    """What is trained on: real records, then the record canaries, then the Dirac canaries let in.

    Args:
        data: the real dataset.
        real: int64[n], n >= 1, positions of the real records in `data`.
        records: all record canaries, R.
        records_in: bool[R], the coins of the record canaries.
        dirac_in: bool[m], the coins of the Dirac canaries.

    Attributes:
        labels: int64[N] by position, N = n + canaries let in; a Dirac canary's is 1, so that its
            gradient is positive.
        record_at: int64[N], number of the record canary at a position, R where there is none.
        dirac_at: int64[N], number of the Dirac canary at a position, m where there is none.
    """

    def __init__(
        self,
        data: Data,
        real: Tensor,
        records: RecordCanaries,
        records_in: Tensor,
        dirac_in: Tensor,
    ) -> None:
        self.data, self.records = data, records
        self.records_in, self.dirac_in = records_in, dirac_in
        device = data.labels.device
        which = records_in.nonzero().squeeze(1).to(device)
        dirac = dirac_in.nonzero().squeeze(1).to(device)
        real = real.to(device)
        # A Dirac canary's record does not matter, but there must be one.
        others = real[:1].expand(len(which) + len(dirac))
        self._data_at = torch.cat([real, others])
        self.record_at = torch.full_like(self._data_at, len(records_in))
        self.record_at[len(real) : len(real) + len(which)] = which
        self.dirac_at = torch.full_like(self._data_at, len(dirac_in))
        self.dirac_at[len(real) + len(which) :] = dirac
        self.labels = torch.cat([data.labels[real], records.labels[which], torch.ones_like(dirac)])

    def __len__(self) -> int:
        return len(self.labels)

    def inputs(self, batch: Tensor) -> dict[str, Any]:
        """What `CanaryModel` takes for the positions of a batch, int64[b], in any order."""
        rows: Any = self.data.inputs(self._data_at[batch])
        record = self.record_at[batch]
        is_record = record < len(self.records)
        own = self.records.rows(record[is_record])
        if isinstance(rows, dict):
            for name, values in rows.items():
                values[is_record] = own[name]
        else:
            rows[is_record] = own
        return {"records": rows, "canary": self.dirac_at[batch]}

    def of_model(self, batch: Tensor) -> Tensor:
        """The positions of a batch that go through the real layers: all but Dirac canaries."""
        return batch[self.dirac_at[batch] == len(self.dirac_in)]
