"""Features from further queries of a model, at changed records, without its weights.

Resampling replaces a share of a record's features by those of other records, and measures how well
the model still fits. The slope measures how fast the output improves along the whitened record
itself; it estimates by finite differences what the white-box trace computes from the weights. Only
shadow models, which the attacker has, are differentiated. See docs/METHODS.md, section 5.4 (formula
36).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mico_competition.attacks.scores.common import check_finite
from mico_competition.attacks.scores.transforms import stable_logit
from mico_competition.attacks.stacking.table import Table
from mico_competition.data.arrays import ArrayDataset, TokenDataset
from mico_competition.models.architectures import logits
from mico_competition.models.inputs import to_device
from mico_competition.support.progress import tracked

BATCH = 1024
HELD = 1 << 27  # numbers of changed inputs in one block: 512 MB


def device_of(model: nn.Module) -> torch.device:
    """The device of a model."""
    return next(model.parameters()).device


def resampled_logits(
    table: Table, *, share: float = 0.1, draws: int = 4, seed: int = 0
) -> np.ndarray:
    """The mean logit of p_y over copies of the record with a share of features from others.

    Args:
        table: rows and points.
        share: share of the features (for text, of the tokens without the first and last), 0..1.
        draws: changed records for each point, the same for all models.
        seed: for the draws.

    Returns:
        float32[s + t, p].

    Raises:
        ValueError: if share or draws are out of range.

    Source: neighbours of a record, as in MERLIN (Jayaraman et al. 2021, arXiv 2005.10881) and in
    Choquette-Choo et al. 2021 (arXiv 2007.14321); swapping features, which keeps marginals, is
    ours.
    """
    if not 0 < share <= 1 or draws < 1:
        raise ValueError(f"Expected 0 < share <= 1 and draws >= 1, got {share} and {draws}.")
    mean = np.zeros((len(table.rows), len(table.points)), np.float32)
    for part in tracked(list(_parts(table, draws)), "Queries of changed records", "part"):
        rng = np.random.default_rng([seed, int(part[0])])
        changed = [_resample(table, part, share, rng) for _ in range(draws)]
        for place, row in enumerate(table.rows):
            model = table.problem.source.load(int(row))
            for inputs in changed:
                answers = ask(model, inputs)
                mean[place, part] += stable_logit(answers, table.labels[part]) / draws
    check_finite("logits at resampled records", mean)
    return mean


def slopes(
    table: Table,
    pull: np.ndarray,
    *,
    ridges: tuple[float, ...] = (0.3, 1.0),
    step: float = 0.05,
    sample: int = 1000,
    seed: int = 0,
) -> list[np.ndarray]:
    """The derivative of pull . log p at each record along the record itself, whitened.

    Args:
        table: rows and points, of a task with real-valued inputs.
        pull: float32[p, classes], of `outputs.output_gradients`.
        ridges: added to the covariance of input gradients, in units of its mean eigenvalue.
        step: length of the finite difference, in units of the mean record's distance from the
            mean of all.
        sample: number of points for the covariance (in all shadows).
        seed: for their choice.

    Returns:
        For each ridge float32[s + t, p]; larger = more likely a member.

    Raises:
        ValueError: for text, whose records cannot be moved along themselves.

    Source: ours; the white-box trace up to the length of the hidden direction, by central
    differences (docs/METHODS.md, section 5.4).
    """
    check_movable(table)
    data = table.problem.source.data
    rng = np.random.default_rng(seed)
    p = len(table.points)
    chosen = np.sort(rng.choice(p, min(sample, p), replace=False))
    centre = data.inputs(table.places[chosen]).flatten(1).double().cpu().mean(dim=0)
    covariance = gradient_covariance(table, pull, chosen)
    scale = covariance.trace() / len(covariance)
    identity = torch.eye(len(covariance), dtype=torch.float64)
    whiteners = [torch.linalg.inv(covariance / scale + ridge * identity) for ridge in ridges]
    found = np.empty((len(ridges), len(table.rows), p), np.float32)
    parts = list(_parts(table, 2 * len(ridges)))
    for part in tracked(parts, "Queries along slopes", "part"):
        x = data.inputs(table.places[part])
        moved = x.flatten(1).double().cpu() - centre
        ends = []
        for whitener in whiteners:
            along = moved @ whitener
            size = float(step * moved.norm(dim=1).mean() / along.norm(dim=1).mean())
            shift = (size * along).to(x).reshape(x.shape)
            ends.append((x + shift, x - shift, size))
        for place, row in enumerate(table.rows):
            model = table.problem.source.load(int(row))
            for feature, (ahead, behind, size) in zip(found, ends):
                rise = ask(model, ahead) - ask(model, behind)
                feature[place, part] = (rise * pull[part]).sum(axis=1) / (2 * size)
    check_finite("slopes", found)
    return list(found)


def check_movable(table: Table) -> None:
    """ValueError for text, whose records are tokens, and for other whole numbers."""
    if not real_valued(table.problem.source.data):
        raise ValueError(
            "Expected records of real-valued features to query along a slope, got text or other "
            "whole numbers: use the attack 'stack', which swaps tokens instead."
        )


def real_valued(data: Any) -> bool:
    """Whether the records of a dataset are numbers that may be moved a little."""
    return isinstance(data, ArrayDataset) and data.inputs([0]).is_floating_point()


def gradient_covariance(table: Table, pull: np.ndarray, chosen: np.ndarray) -> Tensor:
    """float64[D, D] on the CPU, the covariance over shadows of the input gradient of pull . z.

    Args:
        table: rows and points.
        pull: float32[p, classes].
        chosen: int64[c], the points of the average.
    """
    x = table.problem.source.data.inputs(table.places[chosen])
    direction = torch.from_numpy(pull[chosen])
    total = square = torch.zeros(())
    for row in tracked(table.rows[: table.shadows], "Input gradients", "model"):
        model = table.problem.source.load(int(row))
        parts = []
        for a in range(0, len(x), BATCH):
            batch = x[a : a + BATCH].to(device_of(model)).requires_grad_()
            answer = (logits(model, batch) * direction[a : a + BATCH].to(batch.device)).sum()
            parts.append(torch.autograd.grad(answer, batch)[0].flatten(1).cpu())
        gradients = torch.cat(parts)
        total = total + gradients
        square = square + (gradients.T @ gradients).double()
    shadows = table.shadows
    mean = (total / shadows).double()
    covariance = (square / shadows - mean.T @ mean) / len(x)
    if not covariance.trace() > 0:
        raise ValueError("Expected shadow models whose gradients differ, got the same many times.")
    return covariance


def ask(model: nn.Module, inputs: Any) -> np.ndarray:
    """float32[b, classes], logits at inputs, in batches."""
    device = device_of(model)
    named = isinstance(inputs, dict)
    length = len(next(iter(inputs.values())) if named else inputs)
    parts = []
    with torch.inference_mode():
        for a in range(0, length, BATCH):
            rows = slice(a, a + BATCH)
            batch = {name: v[rows] for name, v in inputs.items()} if named else inputs[rows]
            parts.append(logits(model, to_device(batch, device)).float().cpu())
    return torch.cat(parts).numpy()


def _parts(table: Table, copies: int) -> Iterator[np.ndarray]:
    """Blocks of points whose copies of inputs fit into memory."""
    one = table.problem.source.data.inputs(table.places[:1])
    numbers = sum(v.numel() for v in one.values()) if isinstance(one, dict) else one.numel()
    size = max(1, HELD // (numbers * copies))
    for start in range(0, len(table.points), size):
        yield np.arange(start, min(start + size, len(table.points)))


def _resample(table: Table, part: np.ndarray, share: float, rng: np.random.Generator) -> Any:
    """Inputs of the points, with a share of features from other points."""
    data = table.problem.source.data
    donors = table.places[rng.integers(len(table.points), size=len(part))]
    if isinstance(data, TokenDataset):
        return _resample_tokens(data, table.places[part], donors, share, rng)
    x, given = data.inputs(table.places[part]), data.inputs(donors)
    if isinstance(x, dict):
        return {name: _swapped(value, given[name], share, rng) for name, value in x.items()}
    return _swapped(x, given, share, rng)


def _swapped(x: Tensor, given: Tensor, share: float, rng: np.random.Generator) -> Tensor:
    """`x` with a share of its values from the same places of `given`."""
    swap = torch.from_numpy(rng.random(x.shape, dtype=np.float32) < share).to(x.device)
    return torch.where(swap, given, x)


def _resample_tokens(
    data: TokenDataset,
    places: np.ndarray,
    donors: np.ndarray,
    share: float,
    rng: np.random.Generator,
) -> dict[str, Tensor]:
    """Tokens, with a share of those between the first and the last from other records."""
    inputs = data.inputs(places)
    ids, mask = inputs["input_ids"].cpu().numpy().copy(), inputs["attention_mask"].cpu().numpy()
    given = data.inputs(donors)
    inner, giver = (_inner(m) for m in (mask, given["attention_mask"].cpu().numpy()))
    words = given["input_ids"].cpu().numpy()[giver]
    if len(words):
        swap = inner & (rng.random(ids.shape) < share)
        ids[swap] = rng.choice(words, int(swap.sum()))
    return {**inputs, "input_ids": torch.from_numpy(ids).to(inputs["input_ids"].device)}


def _inner(mask: np.ndarray) -> np.ndarray:
    """bool like mask: tokens that are neither padding nor the first or last."""
    order = mask.cumsum(axis=1)
    inner: np.ndarray = (mask == 1) & (order > 1) & (order < order[:, -1:])
    return inner
