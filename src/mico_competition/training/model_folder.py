"""Writes a trained model's folder: weights, seeds, solution and metadata, all of them or none.

Whether the folder is free is checked before the training.
"""

from __future__ import annotations

import json
import os
import platform
import tempfile
from collections.abc import Mapping
from functools import cache
from importlib import metadata as distributions
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mico_competition.competition.challenge import ChallengeDataset
from mico_competition.competition.splits import seed_text
from mico_competition.competition.table import METADATA_FILE, SOLUTION_FILE, get_task
from mico_competition.models.architectures import save_model
from mico_competition.support.files import PRIVATE, PathLike, make_folder, written_aside
from mico_competition.training.accounting import Mechanism
from mico_competition.training.settings import Settings

# The packages whose versions may affect a model's weights.
_SOFTWARE = ("mico_competition", "torch", "opacus", "transformers", "numpy")


class StorageError(OSError):
    """A folder cannot be written to: the disk is full, read-only, or gone."""


def free_folder(folder: PathLike) -> Path:
    """Check before training that `folder` is free and can be written; return its absolute path.

    Raises:
        ValueError: if the folder is in use.
        StorageError: if its parent cannot be written to.
    """
    folder = Path(os.path.abspath(folder))
    refuse_folder_in_use(folder)
    try:
        make_folder(folder.parent, PRIVATE)
        tempfile.TemporaryFile(dir=folder.parent).close()
    except OSError as error:
        raise StorageError(
            f"{folder.parent} cannot be written to ({error.strerror}): choose another --output_dir."
        ) from None
    return folder


def refuse_folder_in_use(folder: Path) -> None:
    """Raise ValueError if `folder` is not empty, or holds the current directory or is it."""
    folder = Path(os.path.abspath(folder))
    if Path.cwd().is_relative_to(folder.resolve()):
        raise ValueError(
            f"{folder} is the current directory or holds it: choose another --output_dir."
        )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} exists already: remove it or choose another --output_dir.")


def describe(
    settings: Settings,
    mechanism: Mechanism | None,
    labels: torch.Tensor,
    fingerprints: Mapping[str, str | None],
) -> dict[str, Any]:
    """The parts of metadata.json that do not depend on the results.

    Args:
        settings: the settings of the run.
        mechanism: the mechanism of a private run, else None.
        labels: the labels of the whole dataset, on the device of the training.
        fingerprints: `fingerprints.of_training` of the run.

    Returns:
        Values for JSON; `privacy` has the epsilon that was spent, or is None.
    """
    return {
        "format": 1,
        "scenario": settings.scenario,
        "task": settings.task,
        "len_dataset": len(labels),
        "len_training": settings.len_training,
        "len_challenge": settings.len_challenge,
        **fingerprints,
        "settings": settings.public(),
        "privacy": None if mechanism is None else _privacy(settings, mechanism),
        "sampler": _sampler(settings),
        "software": {
            "python": platform.python_version(),
            **software_versions(),
        },
        "machine": {"device": labels.device.type, "threads": torch.get_num_threads()},
    }


def software_versions() -> dict[str, str | None]:
    """The installed versions of the packages that may affect a model's weights."""
    return {name: _version(name) for name in _SOFTWARE}


def _privacy(settings: Settings, mechanism: Mechanism) -> dict[str, Any]:
    """The mechanism and its epsilon."""
    return {
        "epsilon": mechanism.epsilon(settings.target_delta),
        "delta": settings.target_delta,
        "noise_multiplier": mechanism.noise_multiplier,
        "sample_rate": mechanism.sample_rate,
        "num_steps": mechanism.num_steps,
        "max_grad_norm": settings.max_grad_norm,
        "sampler": _sampler(settings),
        "accountant": "opacus PRV",
        "eps_error": mechanism.eps_error(settings.target_delta),
        "randomness": "AES-256-CTR" if settings.secure_mode else "torch.Generator",
    }


def _sampler(settings: Settings) -> str:
    """How batches were drawn, in a word or two."""
    if not settings.disable_dp:
        return "poisson"
    return "members first" if settings.members_first else "shuffle"


@cache
def _version(name: str) -> str | None:
    """The installed version of a distribution, if there is one."""
    try:
        return distributions.version(name)
    except distributions.PackageNotFoundError:
        return None


def write_model_folder(
    folder: PathLike,
    settings: Settings,
    model: nn.Module,
    splits: ChallengeDataset,
    metadata: dict[str, Any],
    *,
    tokenizer: Any = None,
) -> None:
    """Write the weights, seeds, solution and metadata of one model, all of them or none.

    Only their owner can read the files.

    Args:
        folder: the folder to write; it must be missing or empty.
        settings: the settings of the run.
        model: the trained model.
        splits: the model's splits, with all three seeds.
        metadata: the content of metadata.json.
        tokenizer: is written beside the weights of a text model.

    Raises:
        ValueError: as `save_model`.
        StorageError: if the disk is full, or the folder cannot be written for another reason.
    """
    try:
        with written_aside(Path(folder), durable=True, access=PRIVATE) as aside:
            aside.mkdir()
            save_model(get_task(settings.task), model, aside, tokenizer=tokenizer)
            _write_splits(aside, splits)
            text = json.dumps(metadata, indent=2, allow_nan=False)
            (aside / METADATA_FILE).write_text(f"{text}\n", encoding="utf-8")
    except ValueError:
        raise
    except Exception as error:  # torch and safetensors have their own errors for a full disk
        reason = getattr(error, "strerror", None) or error
        raise StorageError(
            f"{folder} could not be written ({reason}): free some space there and run again."
        ) from error


def _write_splits(folder: Path, splits: ChallengeDataset) -> None:
    """Write the three seeds and the solution."""
    for name, seed in vars(splits.seeds).items():
        (folder / f"seed_{name}").write_text(f"{seed_text(seed)}\n", encoding="utf-8")
    solution = ",".join(map(str, splits.get_solutions()))
    (folder / SOLUTION_FILE).write_text(f"{solution}\n", encoding="utf-8")
