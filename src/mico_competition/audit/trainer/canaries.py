"""Canaries for the audit of a trainer: records made to be detected, each let in by a fair coin.

There are two kinds. A **Dirac canary** has its own weight in an additional layer of the model, and
a gradient that is zero in every other coordinate and clipped in that one: the worst case that the
accountant assumes (Nasr et al., USENIX Security 2023, arXiv 2302.07956, section 4; Steinke, Nasr
and Jagielski, NeurIPS 2023, arXiv 2305.08846, section 6). A **record canary** passes through the
model like any other record, but is mislabelled, blank or very large, so its gradient is large in
some layer.

The mathematics is in docs/METHODS.md, section 10.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mico_competition.audit.trainer.canary_models import ORDINARY
from mico_competition.data.arrays import TokenDataset
from mico_competition.models.inputs import Data

LENGTH = 1000.0
"""A Dirac canary's gradient before clipping, in units of max_grad_norm: large enough that the
rounding margin of the clipping factor is negligible."""

MISLABELLED, BLANK, LARGE = "mislabelled", "blank", "large"
_LARGEST = 1000.0  # factors of large canaries' inputs, spread evenly over magnitudes


@dataclass(frozen=True)
class RecordCanaries:
    """Record canaries: `inputs` as a model takes them, [R, ...], labels int64[R]."""

    inputs: Any
    labels: Tensor
    kinds: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def rows(self, at: Tensor) -> Any:
        """The inputs of the canaries with numbers `at`."""
        if isinstance(self.inputs, dict):
            return {name: values[at] for name, values in self.inputs.items()}
        return self.inputs[at]


def make_record_canaries(
    data: Data, candidates: Tensor, count: int, classes: int, generator: torch.Generator
) -> RecordCanaries:
    """`count` record canaries, of all kinds in turn.

    * mislabelled: a record with a wrong label; * blank: zeros except for one input of its own, with
      a random label (text: one token);
    * large: a mislabelled record, its inputs times 1 to 1000 (not for text).

    Args:
        data: the dataset.
        candidates: int64[c], c >= 1, positions of records outside the training set, from which
            canaries are made.
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
    """Keep only the opening mark and the first token of a sentence."""
    for mask, kind in zip(inputs["attention_mask"], kinds):
        if kind == BLANK:
            mask[2:] = 0


class AuditSet:
    """The training set: real records, then the record canaries, then the Dirac canaries let in.

    Args:
        data: the real dataset.
        real: int64[n], n >= 1, positions of the real records in `data`.
        records: all record canaries, R.
        records_in: bool[R], the coins of the record canaries.
        dirac_in: bool[m], the coins of the Dirac canaries.
        length: of the whole set; null records, which give no gradient, fill the rest. By default
            there are none.

    Attributes:
        labels: int64[N] by position, N = n + canaries let in + null records; a Dirac canary's is
            1, so that its gradient is positive.
        record_at: int64[N], number of the record canary at a position, R where there is none.
        canary_at: int64[N], number of the Dirac canary at a position, ORDINARY where there is
            none, and m at a null record.
    """

    def __init__(
        self,
        data: Data,
        real: Tensor,
        records: RecordCanaries,
        records_in: Tensor,
        dirac_in: Tensor,
        length: int | None = None,
    ) -> None:
        self.data, self.records = data, records
        self.records_in, self.dirac_in = records_in, dirac_in
        device = data.labels.device
        which = records_in.nonzero().squeeze(1).to(device)
        dirac = dirac_in.nonzero().squeeze(1).to(device)
        real = real.to(device)
        nulls = max(0, (length or 0) - len(real) - len(which) - len(dirac))
        dirac = torch.cat([dirac, dirac.new_full((nulls,), len(dirac_in))])
        # A Dirac canary needs some record; which one does not matter.
        others = real[:1].expand(len(which) + len(dirac))
        self._data_at = torch.cat([real, others])
        self.record_at = torch.full_like(self._data_at, len(records_in))
        self.record_at[len(real) : len(real) + len(which)] = which
        self.canary_at = torch.full_like(self._data_at, ORDINARY)
        self.canary_at[len(real) + len(which) :] = dirac
        self.labels = torch.cat([data.labels[real], records.labels[which], torch.ones_like(dirac)])

    def __len__(self) -> int:
        return len(self.labels)

    def inputs(self, batch: Tensor) -> dict[str, Any]:
        """The inputs of `CanaryModel` for the positions of a batch, int64[b], in any order."""
        rows: Any = self.data.inputs(self._data_at[batch])
        record = self.record_at[batch]
        is_record = record < len(self.records)
        own = self.records.rows(record[is_record])
        if isinstance(rows, dict):
            for name, values in rows.items():
                values[is_record] = own[name]
        else:
            rows[is_record] = own
        return {"records": rows, "canary": self.canary_at[batch]}

    def of_model(self, batch: Tensor) -> Tensor:
        """The positions of a batch that pass through the real layers."""
        return batch[self.canary_at[batch] == ORDINARY]

    def dirac_of(self, batch: Tensor) -> Tensor:
        """The numbers of the Dirac canaries in a batch."""
        canary = self.canary_at[batch]
        return canary[(canary >= 0) & (canary < len(self.dirac_in))]
