"""What must be the same for a run to go on from a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from mico_competition.competition.splits import Seeds, seed_text
from mico_competition.training.accounting import Mechanism
from mico_competition.training.model_folder import software_versions
from mico_competition.training.settings import Settings

# What a message calls a fact; of other facts it gives the two values, and of seeds nothing.
_WORDS = {
    "seeds": "other split seeds",
    "train_seed": "another train_seed",
    "dataset_fingerprint": "another dataset",
    "architecture_fingerprint": "code whose model computes something else",
    "training_fingerprint": "code that trains in another way",
}


def facts_of(
    settings: Settings,
    seeds: Seeds,
    device: torch.device,
    fingerprints: Mapping[str, str | None],
    mechanism: Mechanism | None,
) -> dict[str, Any]:
    """What must be the same for a run to go on: settings, seeds, data, software and noise."""
    hidden = ("max_evaluation_records", "cuda_graphs")  # which change no weight
    return {
        "format": 1,
        "seeds": [seed_text(seed) for seed in vars(seeds).values()],
        **{name: value for name, value in vars(settings).items() if name not in hidden},
        **fingerprints,
        "device": device.type,
        "noise_multiplier": None if mechanism is None else mechanism.noise_multiplier,
        **{f"the version of {name}": value for name, value in software_versions().items()},
    }


def check_facts(folder: Path, there: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
    """Raise ValueError, naming the fact, if the checkpoint in `folder` is of another run."""
    for name, value in facts.items():
        if name in there and there[name] == value:
            continue
        was = _WORDS.get(name, f"{name}={there.get(name)!r}")
        now = "" if name in _WORDS else f", and this one has {name}={value!r}"
        raise ValueError(
            f"{folder} holds the checkpoint of a run with {was}{now}: go on with what that run "
            "had, or remove the folder to train the model anew."
        )
