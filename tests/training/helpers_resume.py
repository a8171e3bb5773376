"""Small runs of every task that stop at a step, and the state that they leave."""

import json

import torch
from helpers_models import TINY

from mico_competition.competition.splits import Seeds
from mico_competition.data.arrays import ArrayDataset, TokenDataset
from mico_competition.training.accounting import Mechanism
from mico_competition.training.checkpoint import Checkpoint
from mico_competition.training.settings import resolve
from mico_competition.training.train import train_model

ALWAYS = 1e-9  # minutes: a checkpoint after each step
SEEDS = Seeds(bytes(16), bytes([1] * 16), bytes([2] * 16))
SMALL = {"len_training": 20, "len_challenge": 5, "batch_size": 5, "num_epochs": 3}
PRIVATE = Mechanism(5.0, 0.25, 12)
TASKS = ("cifar10", "purchase100", "sst2")


class Killed(BaseException):
    """What stops a run in the middle, as a kill does."""


def stop_after(steps, total=12):
    """A `progress` that stops the run after `steps` of its `total` steps."""

    def progress(part):
        if round(part * total) >= steps:
            raise Killed

    return progress


def records(task, count=60):
    """Made-up records of a task."""
    generator = torch.Generator().manual_seed(4)

    def drawn(high, *shape):
        return torch.randint(high, shape, generator=generator)

    if task == "sst2":
        ids = drawn(295, count, 9) + 5
        mask = (torch.arange(9) < 3 + drawn(7, count, 1)).to(torch.uint8)  # 3 to 9 tokens
        return TokenDataset(ids.where(mask > 0, 1), mask, drawn(2, count))
    shape, classes = {"cifar10": ((3, 32, 32), 10), "purchase100": ((600,), 100)}[task]
    return ArrayDataset(drawn(2, count, *shape).float(), drawn(classes, count), torch.clone)


def base_with_dropout(folder):
    """The folder of a tiny RoBERTa with dropout, as roberta-base has it."""
    base = folder / "base"
    base.mkdir(exist_ok=True)
    config = {**TINY, "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}
    (base / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return str(base)


def small_settings(folder, task, scenario, **flags):
    """The settings of a small run; flags of the scenario's own where they fit."""
    model_name = base_with_dropout(folder) if task == "sst2" else None
    given = {"scenario": f"{task}_{scenario}", **SMALL, "model_name": model_name, **flags}
    return resolve(given)


def run(folder, settings, *, progress=False, seeds=SEEDS, data=None, **options):
    """Train; return the metadata."""
    return train_model(
        settings,
        records(settings.task) if data is None else data,
        seeds,
        folder,
        progress=progress,
        mechanism=None if settings.disable_dp else PRIVATE,
        **options,
    )


def place(folder, **options):
    """The checkpoint of model `folder`, by default written after each step."""
    return Checkpoint.beside(folder, **{"minutes": ALWAYS, "code": "of the code", **options})


def weights(folder):
    """The bytes of a model's weights."""
    found = [*folder.glob("model.pt"), *folder.glob("*model.safetensors")]
    assert len(found) == 1
    return found[0].read_bytes()
