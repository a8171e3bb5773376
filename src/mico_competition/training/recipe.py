"""How a scenario's training begins and steps, in one hash: optimiser, schedule and first weights.

A fleet's ledger keeps it, so that a fleet is not gone on with by code that trains in another way
under the same settings.  What a private step does is the audits' to check.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace

import torch
from torch import Tensor, nn

from mico_competition.models import new_model
from mico_competition.nets.probe import rounded, uniform
from mico_competition.tracks import get_task
from mico_competition.training.settings import Settings
from mico_competition.training.train import optimizer_of, run_epochs

_EPOCHS = 50  # at most; enough for the first change of the learning rate in any row of the table
_STEPS = 2  # an epoch
_WEIGHTS = 6


def training_fingerprint(settings: Settings) -> str:
    """SHA-256 in hex of what the scenario's optimiser makes of weights and gradients by formula.

    Also of how large an untrained model's weights are, to two digits, where it is no text model.
    """
    model = nn.ParameterList([uniform((_WEIGHTS,), stream=1) - 0.5])
    (weights,) = model.parameters()
    optimizer = optimizer_of(settings, model)
    path: list[float] = []

    def step(number: int) -> Tensor:
        weights.grad = uniform((_WEIGHTS,), stream=2 + number) - 0.5
        optimizer.step()
        path.extend(weights.tolist())
        return torch.zeros(())

    epochs = min(settings.lr_scheduler_step + 2, _EPOCHS)
    run_epochs(replace(settings, num_epochs=epochs), step, lambda: range(_STEPS), optimizer, False)
    facts = [rounded(path, 6), rounded(_sizes(settings), 2)]
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()


def _sizes(settings: Settings) -> list[float]:
    """The norms of an untrained model's tensors, drawn from one seed."""
    task = get_task(settings.task)
    if task.text:  # pretrained
        return []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return [float(value.detach().norm()) for value in new_model(task).parameters()]
