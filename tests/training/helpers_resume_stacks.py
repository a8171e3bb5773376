"""Small stacks whose models have checkpoints, killed at a step."""

import json

import pytest
import torch
from helpers_resume import PRIVATE, Killed, place, records, stop_after, weights

from mico_competition.competition.splits import Seeds
from mico_competition.training.train_many import Run, train_many

COUNT = 3


def runs_in(folder, *, seeded=True, **options):
    """The runs of COUNT models with checkpoints beside their folders."""
    folder.mkdir(exist_ok=True)
    return [
        Run(
            Seeds(*(bytes([16 * n + part] * 16) for part in range(3))),
            folder / f"model_{n}",
            n,
            100 + n if seeded else None,
            place(folder / f"model_{n}", **options),
        )
        for n in range(COUNT)
    ]


def train(settings, runs, *, stack=COUNT, progress=False):
    """Train the runs; return their metadata."""
    mechanism = None if settings.disable_dp else PRIVATE
    options = {"stack": stack, "progress": progress, "mechanism": mechanism}
    return list(train_many(settings, records(settings.task), runs, **options))


def killed(settings, runs, steps):
    with pytest.raises(Killed):
        train(settings, runs, progress=stop_after(steps))
    assert not any(run.folder.exists() for run in runs)


def whole(settings, folder):
    """The weights of a stack that nobody killed: the bytes of each model's file."""
    runs = runs_in(folder, minutes=15)
    train(settings, runs)
    return [weights(run.folder) for run in runs]


def steps_in(run):
    """The steps of a model's checkpoint."""
    return json.loads((run.checkpoint.folder / "checkpoint.json").read_text())["steps"]


def tensors(folder):
    return torch.load(folder / "model.pt", weights_only=True)


def assert_near(runs, expected):
    """The models are those that another company gives, up to rounding."""
    for run in runs:
        for name, value in tensors(expected / run.folder.name).items():
            torch.testing.assert_close(tensors(run.folder)[name], value, rtol=1e-4, atol=1e-5)
