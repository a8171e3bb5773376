"""The CIFAR-10 runner-up's attack of 2023: features of gradients and neighbours, meta-classifier.

Source: A. Suri, "My submission to the MICO Challenge" (2023). He used auto-sklearn, with a random
forest as second best (here `meta="forest"`, of depth 8 like his; it needs scikit-learn); the
default is a logistic regression on the inverse hyperbolic sine of the features. He trained on the
train models' own challenge points, as here. No feature uses membership.

The mathematics is in docs/METHODS.md, section 5.6.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mico_competition.attacks.problem import Problem
from mico_competition.attacks.scores.common import check_finite
from mico_competition.attacks.stacking.logistic import fit_logistic
from mico_competition.attacks.stacking.queries import device_of
from mico_competition.attacks.stacking.table import make_table
from mico_competition.attacks.whitebox.record_gradients import (
    alignments,
    gradients,
    outer_gradients,
    weights_of,
)
from mico_competition.attacks.winners.suri_features import (
    BATCH,
    HELD,
    Settings,
    boundary_walk,
    class_scaled_logit,
    input_descent,
    neighbourhood,
    one_step,
    space_of,
    summarise,
)
from mico_competition.models.architectures import logits
from mico_competition.models.inputs import to_device
from mico_competition.signals import HIDDEN, MEMBER
from mico_competition.support.progress import tracked

METAS = ("logistic", "forest")


def suri(
    problem: Problem,
    *,
    references: int = 25,
    points: int = 200,
    meta: str = "logistic",
    inverse_penalty: float = 0.1,
    settings: Settings | None = None,
    seed: int = 0,
) -> np.ndarray:
    """The meta-classifier's log odds of membership.

    Args:
        problem: with own=False.
        references: the number of shadows whose gradients are compared with a model's, or all if
            there are fewer; the cost grows with it.
        points: training points of each shadow: its own challenge points that are among the records,
            else random records.
        meta: "logistic", or "forest", which needs scikit-learn.
        inverse_penalty: of the logistic regression (see `attacks.stacking.logistic`).
        settings: of the features; None for his.
        seed: for the references, noise and the forest.

    Returns: float64[t, k], log odds for as many members as non-members.

    Raises:
        ValueError: on an unknown `meta`; as `make_table`; if a feature is not finite.
        ImportError: if scikit-learn is needed and missing.
    """
    if meta not in METAS or references < 1 or points < 2:
        raise ValueError(
            f"Expected meta in {METAS}, references >= 1 and points >= 2, got {meta!r}, "
            f"{references} and {points}."
        )
    make_table(problem)  # refuses problems without training data
    settings = settings or Settings()
    rng = np.random.default_rng(seed)
    count = min(references + 1, len(problem.shadows))
    pool = np.sort(rng.choice(problem.shadows, count, replace=False))
    kept = {int(row): problem.source.load(int(row)) for row in pool}

    def features(row: int, columns: np.ndarray) -> np.ndarray:
        others = [int(other) for other in pool if other != row][:references]
        compared = [kept[other] for other in others]
        return suri_features(problem, row, columns, compared, settings, seed)

    chosen = {int(row): _own_points(problem, int(row), points, rng) for row in problem.shadows}
    learnt = tracked(chosen.items(), "Features of shadow models", "model")
    x = np.concatenate([features(row, columns) for row, columns in learnt])
    labels = np.concatenate(
        [problem.known_membership[row, columns] for row, columns in chosen.items()]
    )
    if (labels == HIDDEN).any():
        raise ValueError("Expected the membership of the shadow models to be known.")
    asked = list(zip(problem.targets, problem.columns))
    targets = np.concatenate(
        [features(int(r), c) for r, c in tracked(asked, "Features of targets", "model")]
    )
    fit = _forest if meta == "forest" else _logistic
    return fit(x, labels == MEMBER, targets, inverse_penalty, seed).reshape(problem.columns.shape)


def suri_features(
    problem: Problem,
    row: int,
    columns: np.ndarray,
    references: list[nn.Module],
    settings: Settings,
    seed: int = 0,
) -> np.ndarray:
    """float64[b, features] of one model, a row of the fleet, at columns int64[b].

    Noise is the same for every model, so that models are comparable.

    Raises:
        ValueError: if a feature is not finite.
    """
    source = problem.source
    model = source.load(row)
    device = device_of(model)
    generator = torch.Generator().manual_seed(seed)
    numbers = sum(w.numel() for w in weights_of(model, settings.layers).values())
    size = int(min(BATCH, max(1, HELD // numbers)))
    parts = []
    for start in range(0, len(columns), size):
        part = columns[start : start + size]
        inputs = to_device(source.data.inputs(source.fleet.records[part]), device)
        labels = torch.from_numpy(source.fleet.labels[part]).to(device, torch.int64)
        parts.append(_features(model, inputs, labels, references, settings, generator).cpu())
    found = torch.cat(parts).double().numpy()
    check_finite(f"features of model {row}", found)
    return found


def _features(
    model: nn.Module,
    inputs: Any,
    labels: Tensor,
    references: list[nn.Module],
    s: Settings,
    generator: torch.Generator,
) -> Tensor:
    """float[b, features], of records that fit into memory with their gradients."""
    space = space_of(model, inputs)
    with torch.no_grad():
        margin = class_scaled_logit(logits(model, inputs), labels)
    mine = gradients(model, inputs, labels, s.layers)
    factors = outer_gradients(model, inputs, labels, s.layers)
    compare, of = (mine, gradients) if factors is None else (factors, outer_gradients)
    products = torch.stack(
        [alignments(compare, of(other, inputs, labels, s.layers) or []) for other in references]
    )
    columns = [
        margin[:, None],
        neighbourhood(space, labels, s, generator)[:, None],
        input_descent(space, labels, s.down, s.moves),
        input_descent(space, labels, -s.up, s.moves),
        boundary_walk(space, labels, s, generator)[:, None],
        one_step(model, inputs, labels, mine, s),
        summarise(products),
    ]
    return torch.cat([column.detach().float() for column in columns], dim=1)


def _own_points(problem: Problem, row: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """int64[count or fewer], columns of a shadow's challenge points, completed at random."""
    own = np.unique(problem.source.fleet.challenge[row])
    own = own[own >= 0]
    if len(own) > count:
        return np.sort(rng.choice(own, count, replace=False))
    others = np.setdiff1d(np.arange(problem.known_membership.shape[1]), own)
    more = rng.choice(others, min(count - len(own), len(others)), replace=False)
    points: np.ndarray = np.concatenate([own, more]).astype(np.int64)
    return points


def _logistic(
    x: np.ndarray, labels: np.ndarray, targets: np.ndarray, inverse_penalty: float, seed: int
) -> np.ndarray:
    """Log odds of targets; the sine compresses gradients, which range over many powers of ten."""
    size = np.median(np.abs(x), axis=0)
    size = np.where(size > 0, size, np.abs(x).mean(axis=0) + 1e-30)
    fitted = fit_logistic(np.arcsinh(x / size), labels, inverse_penalty)
    return fitted.scores(np.arcsinh(targets / size))


def _forest(
    x: np.ndarray, labels: np.ndarray, targets: np.ndarray, inverse_penalty: float, seed: int
) -> np.ndarray:
    """Log odds of targets by a random forest."""
    from sklearn.ensemble import RandomForestClassifier

    forest = RandomForestClassifier(
        200, max_depth=8, class_weight="balanced", random_state=seed, n_jobs=1
    )
    p = forest.fit(x, labels).predict_proba(targets)[:, 1].clip(1e-6, 1 - 1e-6)
    logits: np.ndarray = np.log(p) - np.log1p(-p)
    return logits
