"""Problems for attacks from arrays, without folders, models or files."""

from pathlib import Path

import numpy as np
import torch
from torch import nn

from mico_competition.attacks.problem import Problem
from mico_competition.attacks.registry import ROWS, get_attack
from mico_competition.attacks.scores.transforms import sigmoid
from mico_competition.competition.layout import ModelFolder
from mico_competition.signals import HIDDEN, Fleet

# The attacks that need nothing but scalar signals, by name.
ATTACKS = {name: get_attack(name) for name, row in ROWS.items() if row.signals_only}


class Arrays:
    """A Source whose signals are given; `models` are what `load` gives, by row."""

    def __init__(self, fleet, signals, logits=None, models=None, data=None):
        self.fleet, self.data = fleet, data
        self._signals, self._logits, self._models = signals, logits, models

    def get(self, name):
        return self._signals[name]

    def logits(self, row):
        return self._logits[row]

    def load(self, row):
        return self._models[row]


def make_problem(
    *,
    shadows=20,
    targets=6,
    points=120,
    asked=20,
    shift=1.0,
    targets_in_shadows=False,
    seed=0,
    known=False,
):
    """A problem with one Gaussian signal "loss" (and "logit", the same), and its truth [t, k].

    Every other target point asked for is a member.  With `targets_in_shadows` the targets are the
    first of the shadows; with `known` the membership of a target at other points is known, as in
    the DP distinguisher.
    """
    rng = np.random.default_rng(seed)
    total = shadows if targets_in_shadows else shadows + targets
    is_member = rng.random((total, points)) < 0.5
    columns = np.stack([rng.choice(points, asked, replace=False) for _ in range(total)])
    for row, own_columns in enumerate(columns):
        is_member[row, own_columns] = np.arange(asked) % 2
    signal = rng.normal(0, 2, points) + rng.normal(0, 1, (total, points)) + shift * is_member
    known_membership = is_member.astype(np.int8)
    rows = np.arange(targets) if targets_in_shadows else np.arange(shadows, total)
    if not targets_in_shadows:
        for row in rows:
            known_membership[row, columns[row] if known else slice(None)] = HIDDEN
    fleet = Fleet(
        "digits_inf", (), np.arange(points), np.zeros(points, np.int64), columns, known_membership
    )
    source = Arrays(fleet, {"loss": signal, "logit": signal})
    problem = Problem(
        source, np.arange(shadows), rows, columns[rows], known_membership, targets_in_shadows
    )
    return problem, np.take_along_axis(is_member[rows], columns[rows], axis=1)


def make_source(
    *,
    train=20,
    dev=6,
    points=150,
    asked=20,
    shift=1.0,
    share_in=0.6,
    scenario="digits_inf",
    told_of_dev=True,
    seed=0,
):
    """A whole fleet with Gaussian logits and all signals that named attacks take.

    Rows are train, then dev models; half of each model's challenge points are members.  With
    `told_of_dev` the fleet tells of dev models too, as an organiser's evaluation needs it.
    """
    rng = np.random.default_rng(seed)
    total = train + dev
    is_member = rng.random((total, points)) < share_in
    columns = np.stack([rng.choice(points, asked, replace=False) for _ in range(total)])
    np.put_along_axis(is_member, columns, np.arange(asked) % 2 == 1, axis=1)
    base, sd = rng.normal(0, 2, points), np.exp(0.3 * rng.normal(size=points))
    phases = ["train"] * train + ["dev"] * dev
    folders = tuple(
        ModelFolder(scenario, phase, i if phase == "train" else 100 + i - train, Path("/nowhere"))
        for i, phase in enumerate(phases)
    )

    def signal():
        return base + sd * (rng.normal(size=is_member.shape) + shift * is_member)

    logit = signal()
    signals = {
        "logit": logit,
        "loss": -np.logaddexp(0, -logit),
        "confidence": sigmoid(logit),
        "entropy": signal(),
        "modified_entropy": signal(),
        "gradient_norm": signal(),
    }
    known_membership = is_member.astype(np.int8)
    if not told_of_dev:
        known_membership[train:] = HIDDEN
    labels = rng.integers(0, 10, points)
    return Arrays(
        Fleet(scenario, folders, np.arange(points), labels, columns, known_membership), signals
    )


class Data:
    """A dataset in memory."""

    def __init__(self, points):
        self.x, self.labels = torch.randn(points, 3), torch.zeros(points, dtype=torch.int64)

    def inputs(self, indices):
        return self.x[indices]


def whole_source(**options):
    """A source that also has data, logits and models."""
    source = make_source(**options)
    models, points = source.fleet.known_membership.shape
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(models, points, 3)).astype(np.float32)
    networks = [nn.Linear(3, 3) for _ in range(models)]
    return Arrays(source.fleet, source._signals, logits, networks, Data(points))
