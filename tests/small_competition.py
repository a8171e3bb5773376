"""A competition of all four challenges, small and real: made-up data in the official forms."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from mico_competition.competition.layout import model_path
from mico_competition.competition.splits import draw_seeds
from mico_competition.competition.table import CHALLENGES, SCENARIOS, get_phase
from mico_competition.data.datasets import load_dataset
from mico_competition.models.inputs import prepare
from mico_competition.models.small_roberta import make_small_roberta
from mico_competition.release.release import release
from mico_competition.training.accounting import Mechanism
from mico_competition.training.private_checks import PrivacyChecks
from mico_competition.training.settings import resolve
from mico_competition.training.train import train_model

# n and m of every model here, and models in each phase.
SMALL = {"len_training": 40, "len_challenge": 10, "batch_size": 10, "num_epochs": 1}
MODELS = {"train": 2, "dev": 1, "final": 1}

# The least noise for each target at `SMALL`'s batches and steps, which takes 15 seconds to find;
# test_accounting_check holds it against the search.
NOISE = {10.0: 0.61187744140625, 4.0: 1.046142578125}

_WORDS = ("a the film plot is was good bad dull charming slow funny moving mess joy").split()


@dataclass(frozen=True)
class Competition:
    """Where things are: datasets, what training wrote, what participants get."""

    datasets: Path
    trained: Path
    released: Path


def write_datasets(folder: Path) -> Path:
    """120 images, 150 shoppers and 160 sentences, each in an official form."""
    rng = np.random.default_rng(0)
    cifar10 = folder / "cifar10" / "cifar-10-batches-bin"
    cifar10.mkdir(parents=True)
    for name in [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]:
        rng.integers(0, 256, size=(20, 3073), dtype=np.uint8).tofile(cifar10 / f"{name}.bin")
        rows = np.fromfile(cifar10 / f"{name}.bin", np.uint8).reshape(20, 3073)
        rows[:, 0] %= 10
        rows.tofile(cifar10 / f"{name}.bin")
    purchase = folder / "purchase100" / "dataset_purchase"
    purchase.parent.mkdir()
    rows = np.c_[rng.integers(1, 101, size=150), rng.integers(0, 2, size=(150, 600))]
    np.savetxt(purchase, rows, fmt="%d", delimiter=",")
    (folder / "sst2").mkdir()
    for name, count in (("train", 140), ("dev", 20)):
        lines = [f"{' '.join(rng.choice(_WORDS, 8))} \t{rng.integers(2)}" for _ in range(count)]
        text = "\n".join(["sentence\tlabel", *lines]) + "\n"
        (folder / "sst2" / f"{name}.tsv").write_text(text)
    return folder


def competition_in(root: Path) -> Competition:
    """What `train_competition` writes below `root`."""
    return Competition(root / "datasets", root / "trained", root / "released")


def train_competition(root: Path) -> None:
    """Train and release every official scenario, a few models a phase."""
    datasets = write_datasets(root / "datasets")
    base = make_small_roberta(
        root / "base",
        load_dataset("sst2", datasets).sentences,
        vocab_size=300,
        hidden_size=16,
        num_layers=1,
        num_heads=2,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Mechanism, "for_target", found_noise)
        # These models are sound; the checks before a first step have tests of their own.
        patch.setattr(PrivacyChecks, "_check", lambda *_: None)
        for challenge in ("cifar10", "purchase100", "sst2", "ddp"):
            for name in CHALLENGES[challenge]:
                train_scenario(root / "trained", name, datasets, base)
            release(root / "trained", challenge, root / "released")


def found_noise(*, target_epsilon: float, sample_rate: float, num_steps: int, **_: float):
    """What `Mechanism.for_target` finds for models of this size."""
    assert (sample_rate, num_steps) == (0.25, 4)
    return Mechanism(NOISE[target_epsilon], sample_rate, num_steps)


def train_scenario(root: Path, name: str, datasets: Path, base: Path) -> None:
    """Train the models of one scenario."""
    scenario = SCENARIOS[name]
    model_name = str(base) if scenario.task == "sst2" else None
    settings = resolve({"scenario": name, **SMALL, "model_name": model_name})
    data, tokenizer = prepare(scenario.task, load_dataset(scenario.task, datasets), model_name)
    for phase, count in MODELS.items():
        for model_id in get_phase(scenario.challenge, phase).model_ids[:count]:
            train_model(
                settings,
                data,
                draw_seeds(),
                model_path(root, scenario, phase, model_id),
                tokenizer=tokenizer,
                model_id=model_id,
                progress=False,
            )
