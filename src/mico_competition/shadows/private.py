"""Trains shadow models with DP-SGD, and states the privacy that each of them has."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from mico_competition.audit.claims import PrivacyClaim
from mico_competition.models.inputs import device_of
from mico_competition.shadows.one_shadow import Job, SeededTraining
from mico_competition.shadows.records import Records, taken
from mico_competition.support.call_errors import check_call
from mico_competition.training.private_trainer import PrivateTrainer

_OPTIMIZER = (
    "Expected optimizer as a function of a list of parameters that returns an optimizer, such as "
    "`lambda parameters: torch.optim.SGD(parameters, lr=0.5)`"
)


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
        device = device_of(self.device)
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
        return PrivateTrainer(
            model,
            self._optimizer_of(model),
            target_epsilon=self.target_epsilon,
            target_delta=self.target_delta,
            num_records=num_records,
            batch_size=self.batch_size,
            epochs=self.epochs,
            max_grad_norm=self.max_grad_norm,
            loss="cross_entropy" if self.loss is None else self.loss,
            seed=seed,
        )

    def _optimizer_of(self, model: Any) -> torch.optim.Optimizer:
        """The optimizer of a new model; ValueError if the user's function gives none."""
        parameters = [p for p in model.parameters() if p.requires_grad]
        try:
            made = self.optimizer(parameters)
        except (AttributeError, TypeError) as error:
            raise ValueError(f"{_OPTIMIZER}, which failed: {error}.") from error
        if not isinstance(made, torch.optim.Optimizer):
            raise ValueError(f"{_OPTIMIZER}, which returned {type(made).__name__}.")
        return made


def check_optimizer(optimizer: Any) -> None:
    """ValueError unless this is a function that makes an optimizer of a list of parameters."""
    if isinstance(optimizer, torch.optim.Optimizer) or not callable(optimizer):
        raise ValueError(
            f"{_OPTIMIZER}, got {type(optimizer).__name__}: each shadow model needs an optimizer "
            "of its own."
        )
    check_call("optimizer", optimizer, "parameters")
