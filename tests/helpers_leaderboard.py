"""A truth on disk, submissions to it, and made-up entries, for the tests of the leaderboard."""

from __future__ import annotations

import hashlib
import zipfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from mico_competition.scoring.curve import grid
from mico_competition.scoring.metrics import SCALARS

from mico_competition.competition.table import CHALLENGES, SCORED_PHASES, get_phase
from mico_competition.hosting.leaderboard.form import time_text

NUM_POINTS = 20
FIRST = datetime(2026, 12, 31, 12, tzinfo=UTC)


def write_truth(root, challenge="cifar10", models=4, seed=0, phases=SCORED_PHASES):
    """Solutions of `challenge` below `root`; gives them by place."""
    rng = np.random.default_rng(seed)
    truth = {}
    for scenario in CHALLENGES[challenge]:
        for phase in phases:
            for i in get_phase(challenge, phase).model_ids[:models]:
                place = f"{challenge}/{scenario}/{phase}/model_{i}"
                truth[place] = rng.permutation(np.repeat([0, 1], NUM_POINTS // 2))
                path = Path(root) / place / "solution.csv"
                path.parent.mkdir(parents=True)
                path.write_text(",".join(map(str, truth[place])) + "\n")
    return truth


def predictions_of(truth, skill=0.5, seed=1):
    """Predictions by place: right by `skill`."""
    rng = np.random.default_rng(seed)
    return {
        place: np.round((1 - skill) * rng.random(len(labels)) + skill * labels, 6)
        for place, labels in truth.items()
    }


def write_zip(path, predictions):
    """A submission's zip."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for place, values in predictions.items():
            line = ",".join(map(repr, values.tolist())) + "\n"
            archive.writestr(f"{place}/prediction.csv", line)
    return path


def made_up(name, score=0.2, *, challenge="cifar10", phase="dev", half=0.015, day=1, **fields):
    """Values of a sound entry that nobody computed."""
    rates = grid(5000)
    power = np.log(score) / np.log(0.1)  # the curve goes through (0.1, score)
    interval = [round(max(score - half, 0), 4), round(min(score + half, 1), 4)]
    result = {
        "models": 50,
        "scores": dict.fromkeys(SCALARS, round(score, 4)),
        "intervals": {
            key: [round(max(score - half, 0), 4), round(min(score + half, 1), 4)] for key in SCALARS
        },
        "roc": {"fpr": rates, "tpr": np.round(np.power(rates, power), 3).tolist()},
    }
    digest = hashlib.sha256(repr((name, score, phase, day)).encode()).hexdigest()
    values = {
        "format": 1,
        "challenge": challenge,
        "phase": phase,
        "name": name,
        "authors": ["Ada Lovelace", "Alan Turing"],
        "link": "https://example.org/attack",
        "description": "Differences to the mean over shadow models.",
        "command": "python attack.py --all",
        "commit": "0123abc",
        "versions": {"python": "3.11.9", "numpy": "2.2.6", "mico_competition": "0.1.0"},
        "submitted": time_text(FIRST + timedelta(days=day)),
        "data_version": "2027",
        "predictions_sha256": digest,
        "submission_sha256": None,
        "average": {
            "score": round(score, 4),
            "interval": interval,
        },
        "scenarios": dict.fromkeys(CHALLENGES[challenge], result),
    }
    return {**values, **fields}
