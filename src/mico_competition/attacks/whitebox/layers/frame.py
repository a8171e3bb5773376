"""What the models of a fleet share, computed without membership.

This is mean outputs, the weights from which all models started, and which record holds which token.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mico_competition.attacks.whitebox.layers.layers import (
    find_layers,
    shapes,
    token_embedding,
    weights_of,
)
from mico_competition.attacks.whitebox.layers.model_signals import Frame, token_rows
from mico_competition.attacks.whitebox.layers.start import base_of, decay, known_start, near_base
from mico_competition.attacks.whitebox.layers.tokens import Held, shared_start
from mico_competition.attacks.whitebox.mlp.trace import mean_probabilities, residual_directions
from mico_competition.signals.source import Source
from mico_competition.support.progress import tracked

WIDEST_ROW = 128  # numbers kept for a token's row in each model
SHARED = 0.5  # models share a start if their mean explains this share of the weights' squares


def supports(model: nn.Module) -> bool:
    """Whether a model has layers that can be decoded."""
    return bool(find_layers(model))


def load_checked(source: Source, row: int, expected: dict[str, tuple[int, ...]] | None) -> Any:
    """Load one model; its layers must be those of the others and its weights finite.

    Raises:
        ValueError: if they are not, or if no layer can be decoded.
    """
    model, name = source.load(row), source.fleet.name(row)
    own = shapes(model)
    if not supports(model):
        raise ValueError(
            f"Expected a model with Linear or Conv2d layers, found none in {type(model).__name__}."
        )
    if expected is not None and own != expected:
        differing = sorted(
            layer for layer in own.keys() | expected.keys() if own.get(layer) != expected.get(layer)
        )
        raise ValueError(
            f"Expected models with the same layers, but {name} differs from the first at "
            f"{', '.join(differing[:3])}: leave it out, since it has another architecture."
        )
    for part, parameter in model.named_parameters():
        if not torch.isfinite(parameter).all():
            raise ValueError(
                f"Expected finite weights, but {name} has NaN or infinite ones in {part}: leave "
                "it out."
            )
    return model


def make_frame(source: Source, rows: np.ndarray) -> Frame:
    """The frame of the models of `rows`.

    If the source knows the base model, training started from it; else starts are estimated from
    the models themselves.

    Raises:
        ValueError: on models that differ in their layers, are not finite, or did not start from the
            base model.
    """
    usual = mean_probabilities(source.logits(int(row)) for row in rows)
    labels = source.fleet.labels
    if labels.max() >= usual.shape[1]:
        raise ValueError(
            f"Expected labels below {usual.shape[1]}, the models' classes, got {labels.max()}: is "
            "it the dataset of this scenario?"
        )
    residual = torch.from_numpy(residual_directions(usual, labels))
    strength = torch.from_numpy(usual_strength(usual, labels))
    first = load_checked(source, int(rows[0]), None)
    held = _held(source, first)
    base = base_of(source)
    before = {} if base is None else _known_start(source, rows, first, base, held)
    name = _embedding_name(first)
    narrow = None if held is None else _narrowing(token_embedding(first).weight.shape[1])  # type: ignore[union-attr]
    means, embedded = _Means(), []
    for row in tracked(rows.tolist(), "Usual weights", "model"):
        model = load_checked(source, row, shapes(first))
        means.add({name: weights_of(layer).cpu() for name, layer in find_layers(model).items()})
        if held is not None and name not in before:
            embedded.append(token_rows(model, held, narrow).cpu())
    token_start = None
    if held is not None and name in before:
        token_start = before[name].cpu()[held.tokens]
        token_start = token_start if narrow is None else token_start @ narrow
    elif len(embedded) > 2:
        token_start = shared_start(torch.stack(embedded))
    else:
        held = None
    start = {**means.shared(), **_of_layers(first, before)}
    return Frame(source.data, residual, strength, start, held, token_start, narrow, before)


def usual_strength(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """float32[N], the mean of 1 - p_y with equal probabilities and with the usual ones.

    Training starts at the first and ends at the second.
    """
    usual = np.take_along_axis(probabilities, np.asarray(labels)[:, None], axis=1)[:, 0]
    strength: np.ndarray = (1 - 1 / probabilities.shape[1] + 1 - usual) / 2
    return strength.astype(np.float32)


def _held(source: Source, model: nn.Module) -> Held | None:
    """Which record holds which token; None unless the models read text."""
    if token_embedding(model) is None or not hasattr(source.data, "input_ids"):
        return None
    return Held.of(source.data.input_ids.cpu(), source.data.attention_mask.cpu())


def _known_start(
    source: Source, rows: np.ndarray, first: nn.Module, base: nn.Module, held: Held | None
) -> dict[str, Tensor]:
    """The start of the parameters that the base explains in most models, by name."""
    near: Counter[str] = Counter()
    decays = []
    for row in tracked(rows.tolist(), "Base model", "model"):
        model = load_checked(source, row, shapes(first))
        near.update(near_base(model, base, source.fleet.name(row)))
        decays.append(decay(model, base, held))
    usual = {name for name, models in near.items() if 2 * models > len(rows)}
    return known_start(first, base, usual, float(np.median(decays)))


def _embedding_name(model: nn.Module) -> str:
    """The name of the token embedding's parameter; empty if there is none."""
    embedding = token_embedding(model)
    names = (name for name, own in model.named_modules() if own is embedding is not None)
    return next((f"{name}.weight" for name in names), "")


def _of_layers(model: nn.Module, before: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """By layer, known initial weights as `weights_of` gives them; an unknown bias starts at 0."""
    out = {}
    for name, layer in find_layers(model).items():
        if f"{name}.weight" in before:
            weight = before[f"{name}.weight"].flatten(1).cpu()
            bias = before.get(f"{name}.bias", torch.zeros(len(weight))).cpu()
            parts = [weight] if layer.bias is None else [weight, bias[:, None]]
            out[name] = torch.cat(parts, dim=1)
    return out


def _narrowing(width: int) -> Tensor | None:
    """float32[H, 128], a random projection that preserves distances; None if rows are narrow."""
    if width <= WIDEST_ROW:
        return None
    generator = torch.Generator().manual_seed(0)
    narrowing: Tensor = torch.randn(width, WIDEST_ROW, generator=generator) / WIDEST_ROW**0.5
    return narrowing


class _Means:
    """Mean weights of the layers, and whether models share a start."""

    def __init__(self) -> None:
        self.count = 0
        self.total: dict[str, Tensor] = {}
        self.squares: dict[str, float] = {}

    def add(self, weights: dict[str, Tensor]) -> None:
        self.count += 1
        for name, own in weights.items():
            own = own.double()
            self.total[name] = self.total[name] + own if name in self.total else own
            self.squares[name] = self.squares.get(name, 0.0) + float((own**2).sum())

    def shared(self) -> dict[str, Tensor]:
        """Means of the layers in which models share a start.

        For k models from random starts the mean keeps about 1/k of the squares, for models from one
        base nearly all. The mean replaces the base: what training adds in all models is a common
        offset of a record's trace, which calibration by shadows removes.
        """
        if self.count < 4:
            return {}
        return {
            name: (total / self.count).float()
            for name, total in self.total.items()
            if float((total**2).sum()) > SHARED * self.count * self.squares[name]
        }
