"""fastDP (Amazon's book-keeping library) as a rival of bench.py, where it can be imported.

It is on no package index; its source is github.com/awslabs/fast-differential-privacy.  Put a
checkout on PYTHONPATH: `PYTHONPATH=fast-differential-privacy python benchmarks/bench.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from mico_competition.training.losses import per_example_losses


class FastDPTrainer:
    """A model and its optimiser with fastDP's engine: the step that `DPSGD` takes."""

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, batch: int) -> None:
        from fastDP import PrivacyEngine

        self.model, self.optimizer = model, optimizer
        engine: Any = PrivacyEngine(
            model,
            batch_size=batch,
            sample_size=100 * batch,
            epochs=1,
            noise_multiplier=1.0,
            max_grad_norm=1.0,
            clipping_mode="MixOpt",
            clipping_fn="Abadi",
            loss_reduction="sum",
        )
        engine.attach(optimizer)

    def step(
        self, batch: torch.Tensor, inputs: Callable[[torch.Tensor], Any], labels: torch.Tensor
    ) -> torch.Tensor:
        """Take one step on a batch that is one physical batch."""
        loss = per_example_losses(self.model, inputs(batch), labels[batch]).sum()
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.detach()


def available() -> bool:
    """Whether fastDP can be imported."""
    try:
        import fastDP
    except ImportError:
        return False
    return bool(fastDP)
