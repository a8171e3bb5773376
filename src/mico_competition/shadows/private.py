"""Trains shadow models with DP-SGD, and states the privacy that each of them has."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch

from mico_competition.audit.claims import PrivacyClaim
from mico_competition.models.inputs import default_device
from mico_competition.shadows.one_shadow import Job, SeededTraining
from mico_competition.shadows.records import Records, taken
from mico_competition.training.private_trainer import PrivateTrainer


@dataclass(frozen=True)
class PrivateTraining(SeededTraining):
    """`train` of private shadow models; see `train_shadows` for the attributes."""

    target_epsilon: float
    target_delta: float
    optimizer: Callable[[Any], Any]
    loss: Any
    epochs: int
    batch_size: int
    max_grad_norm: float
    device: Any

    def __call__(self, model: Any, subset: Any, seed: int) -> None:
        """Train `model` in place on `subset`, with noise from `seed`.

        No generator that `make_model` may have set gives the noise: models with one noise would
        differ by their records alone.
        """
        device = default_device() if self.device is None else torch.device(self.device)
        inputs, labels = Records.of(subset).arrays
        targets = torch.from_numpy(labels)
        trainer = self._trainer(model.to(device).train(), len(labels), seed >> 2)
        for batch in trainer.batches(progress=False):
            trainer.step(taken(inputs, batch.numpy()), targets[batch])

    def claim(self, job: Job) -> PrivacyClaim:
        """What holds for each shadow model of a job: the larger epsilon, if sizes differ."""
        claims = []
        for size in {int(row.sum()) for row in job.membership}:
            run = self._trainer(job.fresh(), size, 0).planned
            epsilon = run.epsilon(self.target_delta)
            claims.append(PrivacyClaim(epsilon, self.target_delta, run, self.target_epsilon))
        return max(claims, key=lambda claim: claim.epsilon)

    def _trainer(self, model: Any, num_records: int, seed: int) -> PrivateTrainer:
        parameters: Iterable[Any] = [p for p in model.parameters() if p.requires_grad]
        return PrivateTrainer(
            model,
            self.optimizer(parameters),
            target_epsilon=self.target_epsilon,
            target_delta=self.target_delta,
            num_records=num_records,
            batch_size=self.batch_size,
            epochs=self.epochs,
            max_grad_norm=self.max_grad_norm,
            loss="cross_entropy" if self.loss is None else self.loss,
            seed=seed,
        )
