"""Features of the models' outputs at the records themselves: margins, top classes, kriging."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from mico_competition.attacks.stacking.queries import real_valued
from mico_competition.attacks.stacking.table import Table
from mico_competition.support.progress import tracked

SIGNALS = ("logit", "loss", "confidence", "entropy", "modified_entropy")
POOL = 20_000  # records among which neighbours are searched: their kernel is POOL x POOL
BLOCK = 1000  # records whose neighbours are searched in one block
DAMPING = 0.1  # weight of a neutral neighbour: a point without neighbours is predicted 0


@dataclass(frozen=True)
class Outputs:
    """The results of one pass over all logits.

    Attributes:
        margin: float32[s + t, p], z_y - max of the others (Suri's "class-scaled logit").
        top: float32[s + t, p, top], the largest log-probabilities, sorted down.
        mean: float32[p, classes], the shadows' mean probabilities.
    """

    margin: np.ndarray
    top: np.ndarray
    mean: np.ndarray


def read_outputs(table: Table, top: int = 0) -> Outputs:
    """One pass over the logits of all rows.

    Args:
        table: rows and points.
        top: how many sorted log-probabilities to keep; at most the number of classes are.
    """
    rows, p = len(table.rows), len(table.points)
    places = np.arange(p)
    margin = np.empty((rows, p), np.float32)
    kept: list[np.ndarray] = []
    mean: np.ndarray | float = 0.0
    for place, row in enumerate(tracked(table.rows, "Outputs", "model")):
        logits = table.logits(int(row)).astype(np.float64)
        classes = logits.shape[1]
        logits -= logits.max(axis=1, keepdims=True)
        if place < table.shadows or top:
            logits -= np.log(np.exp(logits).sum(axis=1, keepdims=True))
        if place < table.shadows:
            mean = mean + np.exp(logits) / table.shadows
        true = logits[places, table.labels]
        if top:
            largest = np.partition(logits, range(-min(top, classes), 0), axis=1)
            kept.append(largest[:, : -min(top, classes) - 1 : -1].astype(np.float32))
        logits[places, table.labels] = -np.inf
        margin[place] = true - logits.max(axis=1)
    stacked = np.stack(kept) if kept else np.empty((rows, p, 0), np.float32)
    return Outputs(margin, stacked, np.asarray(mean, np.float32))


def output_gradients(table: Table, mean: np.ndarray) -> np.ndarray:
    """float32[p, classes], e_y - mean probabilities, of length 1: the direction of a step.

    It is 0 if every shadow is certain, instead of a direction of rounding errors.
    """
    pull = -mean.copy()
    pull[np.arange(len(pull)), table.labels] += 1.0
    norm = np.linalg.norm(pull, axis=1, keepdims=True)
    return np.where(norm > 1e-6, pull / np.maximum(norm, 1e-6), 0.0).astype(np.float32)


def kriging(
    table: Table, u: np.ndarray, pull: np.ndarray, *, neighbours: int = 40, seed: int = 0
) -> np.ndarray:
    """A point's standard score, predicted from those of similar records in the same model.

    A model may fit a kind of record well by chance: this part is noise, which the neighbours
    estimate. Records are similar if a training step moves them in the same way: cos(x_i, x_j)
    cos(e_y - p_i, e_y - p_j), the kernel of a last layer on the inputs themselves; for tokens, only
    the second factor.

    Args:
        table: rows and points.
        u: float[s + t, p], standard scores (`calibrated`).
        pull: float32[p, classes], of `output_gradients`.
        neighbours: the number for each point.
        seed: for the choice of possible neighbours if there are more than `POOL` records.

    Returns:
        float32[s + t, p], mean of the neighbours' scores weighted by similarity; 0 for a point
        without similar ones.

    Source: ours (simple kriging with a kernel in place of a fitted covariance; docs/METHODS.md,
    section 5.3, formula 35); it only helps as an input of a stack.
    """
    p = len(pull)
    rng = np.random.default_rng(seed)
    pool = np.arange(p) if p <= POOL else np.sort(rng.choice(p, POOL, replace=False))
    others = _unit_inputs(table, pool)
    known = np.ascontiguousarray(u[:, pool], dtype=np.float32)
    predicted = np.zeros(u.shape, np.float32)
    for start in range(0, p, BLOCK):
        block = np.arange(start, min(start + BLOCK, p))
        like = pull[block] @ pull[pool].T
        mine = _unit_inputs(table, block)
        if mine is not None and others is not None:
            like *= mine @ others.T
        like[block[:, None] == pool] = 0.0  # a point is not its own neighbour
        weight, nearest = torch.topk(torch.from_numpy(like), min(neighbours, len(pool)), dim=1)
        weights, who = weight.clamp(min=0).numpy(), nearest.numpy()
        weights = weights / (weights.sum(axis=1, keepdims=True) + DAMPING)
        for place, j in enumerate(block):
            predicted[:, j] = known[:, who[place]] @ weights[place]
    return predicted


def _unit_inputs(table: Table, columns: np.ndarray) -> np.ndarray | None:
    """float32[columns, features], centred and of length 1; None for text and whole numbers."""
    data = table.problem.source.data
    if not real_valued(data):
        return None
    x = data.inputs(table.places[columns]).flatten(1).cpu()
    x = x - data.inputs(table.places[:BLOCK]).flatten(1).cpu().mean(dim=0)
    return torch.nn.functional.normalize(x, dim=1).numpy()
