"""A small real fleet in memory: MLPs trained on random subsets, their logits and signals."""

from functools import cache

import numpy as np
import torch
from helpers_problem import Arrays

from mico_competition.attacks.problem import Problem
from mico_competition.attacks.scores.transforms import confidence, negative_loss, stable_logit
from mico_competition.data.arrays import ArrayDataset
from mico_competition.models.architectures import MLP
from mico_competition.signals import HIDDEN, Fleet
from mico_competition.signals.scalars import entropies

FEATURES, CLASSES = 8, 3


def signals_of(logits, labels):
    """What `Signals.get` gives, of float[models, points, classes]."""
    every = torch.from_numpy(logits).flatten(0, 1), torch.from_numpy(labels).repeat(len(logits))
    entropy, modified = entropies(*every).view(2, *logits.shape[:2]).numpy()
    return {
        "logit": stable_logit(logits, labels),
        "loss": negative_loss(logits, labels),
        "confidence": confidence(logits, labels),
        "entropy": entropy,
        "modified_entropy": modified,
    }


def planted(*, shadows=16, targets=4, points=150, asked=60, shift=1.5, seed=0):
    """Logits of random models in which membership raises the true class by `shift`; no models.

    Returns the problem and its truth bool[t, k].
    """
    rng = np.random.default_rng(seed)
    total = shadows + targets
    labels = rng.integers(CLASSES, size=points)
    is_member = rng.random((total, points)) < 0.5
    columns = np.stack([rng.choice(points, asked, replace=False) for _ in range(total)])
    logits = rng.normal(0, 2, (points, CLASSES)) + rng.normal(0, 1, (total, points, CLASSES))
    logits[:, np.arange(points), labels] += 1 + shift * is_member
    logits = logits.astype(np.float32)
    data = ArrayDataset(
        torch.from_numpy(rng.integers(0, 2, (points, FEATURES)).astype(np.uint8)),
        torch.from_numpy(labels),
        torch.Tensor.float,
    )
    return _problem(is_member, columns, shadows, labels, logits, data, None)


@cache  # it takes a second: do not write into it
def trained(*, shadows=10, targets=3, points=90, asked=40, steps=60, seed=0):
    """Real MLPs on random halves of random records; everything about them in memory."""
    rng = np.random.default_rng(seed)
    total = shadows + targets
    inputs = rng.integers(0, 2, (points, FEATURES)).astype(np.uint8)
    labels = rng.integers(CLASSES, size=points)
    data = ArrayDataset(torch.from_numpy(inputs), torch.from_numpy(labels), torch.Tensor.float)
    is_member = rng.random((total, points)) < 0.5
    columns = np.stack([rng.choice(points, asked, replace=False) for _ in range(total)])
    x, y = data.inputs(range(points)), data.labels
    models = []
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for seen in is_member:
            model = MLP(FEATURES, 16, CLASSES)
            optimiser = torch.optim.Adam(model.parameters(), lr=0.03)
            mine = torch.from_numpy(np.flatnonzero(seen))
            for _ in range(steps):
                optimiser.zero_grad()
                torch.nn.functional.cross_entropy(model(x[mine]), y[mine]).backward()
                optimiser.step()
            models.append(model.eval())
    with torch.no_grad():
        logits = np.stack([model(x).numpy() for model in models])
    return _problem(is_member, columns, shadows, labels, logits, data, models)


def _problem(is_member, columns, shadows, labels, logits, data, models):
    total, points = is_member.shape
    known_membership = is_member.astype(np.int8)
    known_membership[shadows:] = HIDDEN
    fleet = Fleet("digits_inf", (), np.arange(points), labels, columns, known_membership)
    source = Arrays(fleet, signals_of(logits, labels), logits, models, data)
    rows = np.arange(shadows, total)
    problem = Problem(source, np.arange(shadows), rows, columns[rows], known_membership)
    return problem, np.take_along_axis(is_member[rows], columns[rows], axis=1)


def auc(scores, solution):
    """Chance that a member is above a non-member, by all pairs."""
    inside, outside = scores[solution], scores[~solution]
    return (inside[:, None] > outside).mean() + 0.5 * (inside[:, None] == outside).mean()
