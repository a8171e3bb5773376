"""What an auditor of a training run records: canaries' coordinates, and the records of each batch.

For canaries it keeps sums over steps only, so a run of 8,790 steps with 5,000 canaries takes little
memory. All observations are of a step's noisy sum before its division, in units of max_grad_norm.
`mechanism_tests` and the bounds evaluate them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mico_competition.training.accounting import Mechanism


def log_ratio(
    shift: np.ndarray, mechanism: Mechanism, length: np.ndarray | float = 1.0
) -> np.ndarray:
    """log P(observation | record is in) / P(observation | record is out), for one step.

    The observation is the noisy sum along the record's clipped gradient: docs/METHODS.md, section
    10.1 (formulas 84 and 85).  This ratio gives the most powerful test (Neyman and Pearson).

    Args:
        shift: float64, the noisy sum's inner product with the clipped gradient.
        mechanism: the claimed sigma and q.
        length: float64, the norm of the clipped gradient, 0 to 1.
    """
    sigma, q = mechanism.noise_multiplier, mechanism.sample_rate
    exponent = (shift - np.square(length) / 2) / sigma**2
    if q >= 1:
        return exponent
    log_ratio: np.ndarray = np.logaddexp(np.log1p(-q), np.log(q) + exponent)
    return log_ratio


class DiracSeen:
    """The coordinates of Dirac canaries, step by step.

    Args:
        let_in: bool[m], which canaries are trained on.
        mechanism: as claimed.

    Attributes:
        scores: float64[m], the log likelihood ratio of all steps so far.
        unused_squares: float64[steps], sum of squares over the coordinates of canaries that are
            out, where no record has a gradient.
        unused: their number.
        touched_sum, touched: sum over coordinates of canaries in the batch, and their number.
        epoch_squares, epochs: sum of squared deviations of a canary's epoch sum from its claimed
            mean, over canaries that are in, and their number (canaries times epochs).
    """

    def __init__(self, let_in: np.ndarray, mechanism: Mechanism) -> None:
        self.let_in, self.mechanism = let_in, mechanism
        self.scores = np.zeros(len(let_in))
        self.unused_squares: list[float] = []
        self.unused = int((~let_in).sum())
        self.touched_sum, self.touched = 0.0, 0
        self.epoch_squares, self.epochs = 0.0, 0
        self._epoch = np.zeros(int(let_in.sum()))
        self._epoch_steps = 0

    def see(self, values: np.ndarray, in_batch: np.ndarray) -> None:
        """One step: float64[m] coordinates, and int64[b], the canaries in its batch."""
        self.scores += log_ratio(values, self.mechanism)
        self.unused_squares.append(float(np.square(values[~self.let_in]).sum()))
        self.touched_sum += float(values[in_batch].sum())
        self.touched += len(in_batch)
        self._epoch += values[self.let_in]
        self._epoch_steps += 1

    def end_epoch(self) -> None:
        """Close an epoch."""
        mean = self.mechanism.sample_rate * self._epoch_steps
        self.epoch_squares += float(np.square(self._epoch - mean).sum())
        self.epochs += len(self._epoch)
        self._epoch[:] = 0.0
        self._epoch_steps = 0


class Participation:
    """Which records were in which batch.

    Args:
        records: N, the training records of a model.
        models: S, each with its own records.

    Attributes:
        histogram: int64[k], pairs of record and epoch in which the record was in 0, 1, ... batches.
        lengths: int64[batches], records a batch.
        repeated: batches with some record more than once.
        drawn: by model, the batches so far, int64[b] each.
    """

    def __init__(self, records: int, models: int = 1) -> None:
        self.records, self.models = records, models
        self.histogram: Any = np.zeros(1, dtype=np.int64)
        self.lengths: list[int] = []
        self.repeated = 0
        self.drawn: list[list[np.ndarray]] = [[] for _ in range(models)]
        self._counts = np.zeros((models, records), dtype=np.int64)

    @property
    def epochs(self) -> int:
        """The number of finished epochs, at least 1."""
        return max(1, int(self.histogram.sum()) // (self.records * self.models))

    @property
    def epoch_steps(self) -> int:
        """Steps of an epoch."""
        return len(self.lengths) // (self.epochs * self.models)

    def see(self, batches: Sequence[np.ndarray]) -> None:
        """One step: of each model int64[b], positions, each as often as it is in the batch."""
        for model, batch in enumerate(batches):
            np.add.at(self._counts[model], batch, 1)
            self.lengths.append(len(batch))
            self.repeated += len(np.unique(batch)) < len(batch)
            self.drawn[model].append(batch.astype(np.int32))

    def end_epoch(self) -> None:
        """Close an epoch."""
        found = np.bincount(self._counts.ravel(), minlength=len(self.histogram))
        self.histogram = np.pad(self.histogram, (0, len(found) - len(self.histogram))) + found
        self._counts[:] = 0
