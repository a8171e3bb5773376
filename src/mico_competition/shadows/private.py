"""Trains shadow models with DP-SGD, and states the privacy that all of them have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from mico_competition.models.inputs import default_device, to_device
from mico_competition.shadows.records import Records, taken


@dataclass(frozen=True)
class PrivateTraining:
    """`train` of private shadow models; see `train_shadows` for the attributes."""

    target_epsilon: float
    target_delta: float
    optimizer: Callable[[Any], Any]
    loss: Callable[[Any, Any], Any] | None
    epochs: int
    batch_size: int
    max_grad_norm: float
    device: Any

    def trainer(self, model: Any, num_records: int) -> Any:
        """The trainer of one model."""
        from mico_competition.training.private_trainer import PrivateTrainer

        given = {} if self.loss is None else {"loss": self.loss}
        return PrivateTrainer(
            model,
            self.optimizer([p for p in model.parameters() if p.requires_grad]),
            target_epsilon=self.target_epsilon,
            target_delta=self.target_delta,
            num_records=num_records,
            batch_size=self.batch_size,
            epochs=self.epochs,
            max_grad_norm=self.max_grad_norm,
            **given,
        )

    def __call__(self, model: Any, subset: Any) -> None:
        """Train `model` in place on `subset`."""
        device = default_device() if self.device is None else torch.device(self.device)
        inputs, labels = Records.of(subset).arrays
        inputs, targets = to_device(inputs, device), torch.from_numpy(labels).to(device)
        trainer = self.trainer(model.to(device), len(labels))
        for batch in trainer.batches():
            trainer.step(taken(inputs, batch), targets[batch])
