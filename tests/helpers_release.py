"""A trained tree without training, its release, and leaks planted into copies of it."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mico_competition.competition.challenge import ChallengeDataset
from mico_competition.competition.layout import model_path
from mico_competition.competition.splits import Seeds, seed_text
from mico_competition.competition.table import CHALLENGES, SCENARIOS, TASKS, get_phase
from mico_competition.models.architectures import new_model, save_model
from mico_competition.models.checkpoints import write_state
from mico_competition.release.archives import (
    files_of_release,
    settle,
    sha256_of,
    write_archive,
    write_sums,
)
from mico_competition.release.leak_check.check import check_release
from mico_competition.release.release import release

CHALLENGE = "digits"
MODELS = {"train": 2, "dev": 1, "final": 1}
DEV = "digits_inf/dev/model_100"


def points_of(seeds: Seeds) -> ChallengeDataset:
    """The splits of a digits model."""
    task = TASKS["digits"]
    records = range(task.len_dataset)
    return ChallengeDataset(records, task.len_training, 100, *vars(seeds).values())


def write_model(folder: Path, scenario: str, model_id: int, seeds: Seeds) -> None:
    """A model's folder as training leaves it, with fresh weights."""
    row = SCENARIOS[scenario]
    task = TASKS[row.task]
    folder.mkdir(parents=True)
    torch.manual_seed(model_id + 1000 * list(SCENARIOS).index(scenario))
    save_model(task, new_model(task), folder)
    for name, seed in vars(seeds).items():
        (folder / f"seed_{name}").write_text(f"{seed_text(seed)}\n")
    labels = ",".join(map(str, points_of(seeds).get_solutions()))
    (folder / "solution.csv").write_text(f"{labels}\n")
    settings = {"task": task.name, "model_name": None, "secure_mode": False}
    metadata: dict[str, Any] = {
        "format": 1,
        "scenario": scenario,
        "task": task.name,
        "len_dataset": task.len_dataset,
        "len_training": task.len_training,
        "len_challenge": 100,
        "settings": settings,
        "privacy": None,
        "sampler": "shuffle",
        "software": {"python": "3"},
        "model_id": model_id,
        "results": {"accuracy": 0.5 + model_id / 1000, "loss": 1.0},
        "train_seed": 987654321012,
        "wall_time_seconds": 1.5,
    }
    if row.private:
        claimed = {"target_epsilon": row.target_epsilon, "target_delta": row.target_delta}
        metadata["settings"] = {**settings, **claimed}
        spent = {"epsilon": row.target_epsilon, "delta": row.target_delta}
        metadata["privacy"] = {**spent, "max_grad_norm": row.max_grad_norm}
    (folder / "metadata.json").write_text(json.dumps(metadata, indent=2) + "\n")


def write_trained(root: Path) -> Path:
    """All scenarios of the digits, 100 members a model; the same at every call."""
    rng = np.random.default_rng(7)
    for scenario in CHALLENGES[CHALLENGE]:
        for phase, count in MODELS.items():
            for model_id in get_phase(CHALLENGE, phase).model_ids[:count]:
                # Bytes that are finite as float32, so that a test can hide them in weights.
                seeds = Seeds(*(bytes(rng.integers(1, 120, 16, np.uint8)) for _ in range(3)))
                folder = model_path(root, SCENARIOS[scenario], phase, model_id)
                write_model(folder, scenario, model_id, seeds)
    return root


@dataclass
class Released:
    """A trained tree, a copy of its release to plant a leak in, and secrets of one dev model."""

    trained: Path
    root: Path

    @property
    def tree(self) -> Path:
        return self.root / CHALLENGE

    @property
    def side(self) -> Path:
        return self.root / f"{CHALLENGE}.release"

    @property
    def dev(self) -> Path:
        return self.tree / DEV

    @property
    def zip(self) -> Path:
        return self.side / "archives" / "digits_inf_dev.zip"

    def read(self, name: str) -> str:
        """A withheld file's text."""
        return (self.trained / CHALLENGE / DEV / name).read_text().strip()

    @property
    def seed(self) -> bytes:
        return bytes.fromhex(self.read("seed_membership"))

    @property
    def labels(self) -> np.ndarray:
        return np.array(list(map(int, self.read("solution.csv").split(","))))

    @property
    def points(self) -> ChallengeDataset:
        names = ("seed_challenge", "seed_training", "seed_membership")
        return points_of(Seeds(*(bytes.fromhex(self.read(name)) for name in names)))

    @property
    def members(self) -> np.ndarray:
        """Record numbers of the members, in the split's order."""
        return self.points.train_indices[:100].numpy()

    def edit_json(self, pattern: str, edit) -> None:
        """Apply `edit` to the value of every file that matches, below the released root."""
        paths = sorted(self.root.glob(pattern))
        assert paths
        for path in paths:
            value = json.loads(path.read_text())
            edit(value)
            path.write_text(json.dumps(value, indent=2) + "\n")

    def note(self, text) -> str:
        """Put `text` into the metadata of all models of a scenario, so that they stay alike."""
        self.edit_json(
            f"{CHALLENGE}/digits_inf/*/*/metadata.json",
            lambda m: m["settings"].update(model_name=text),
        )
        return f"{CHALLENGE}/{DEV}/metadata.json"

    def edit_weights(self, edit) -> str:
        """Apply `edit` to the state dict of the dev model, and write it as it always is."""
        path = self.dev / "model.pt"
        state = torch.load(path, weights_only=True)
        edit(state)
        write_state(path, state)
        return f"{CHALLENGE}/{DEV}/model.pt"

    def made_up(self) -> None:
        """Checksums, archives, times and modes as if the leak had been there from the start."""
        files = {n: sha256_of(p) for n, p in files_of_release(self.tree) if p.is_file()}
        write_sums(self.side, files)
        for path in self.zip.parent.glob("*.zip"):
            path.unlink()
        for folder in sorted(self.tree.glob("digits_*/*")):
            scenario, phase = folder.parent.name, folder.name
            name = f"{scenario}_{phase}.zip"
            write_archive(self.zip.parent / name, self.root, f"{CHALLENGE}/{scenario}/{phase}")
        zips = sorted(self.zip.parent.glob("*.zip"))
        write_sums(self.zip.parent, {path.name: sha256_of(path) for path in zips})
        settle(self.root)


def write_release(folder: Path) -> Released:
    """A trained tree and its release below `folder`."""
    trained = write_trained(folder / "organisers_own" / "trained")
    release(trained, CHALLENGE, folder / "released")
    settle(folder / "released")
    return Released(trained, folder / "released")


def copied(original: Released, folder: Path) -> Released:
    """A copy of a release to plant a leak in; the trained tree is shared."""
    return Released(original.trained, Path(shutil.copytree(original.root, folder / "released")))


def faults_of(made: Released) -> list[str]:
    """What the leak check says of a release."""
    return check_release(made.root, made.trained, [CHALLENGE])


def size_below(folder: Path) -> int:
    """Bytes of all files below `folder`, where another process may rename files meanwhile."""
    size = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                size += os.stat(os.path.join(place, name)).st_size
    return size


def files_below(folder: Path) -> dict[str, bytes]:
    """Content of all files below `folder`, by path."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
