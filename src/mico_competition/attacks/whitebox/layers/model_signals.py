"""One model -> label-free signals of all records: decodes and traces of every layer.

The signals of a layer depend on its positions:
- one position (a classifier's head): the free decode, which assumes no direction;
- many positions (convolutions, the linear layers of a transformer): the whitened trace, and the
  joint decode of directions if its kernel is cheap enough;
- all layers with such a kernel: their joint decode together;
- all layers: the sum of their traces without whitening, which noise of a private training suits;
- tokens (the embedding): movement of rows, decoded with and without the records' directions.

The mathematics is in docs/METHODS.md, section 6.8.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mico_competition.attacks.whitebox.layers.directions import (
    directions,
    squared_lengths,
    traces,
)
from mico_competition.attacks.whitebox.layers.joint_layers import (
    WORK,
    affordable,
    decode,
    project,
    together,
)
from mico_competition.attacks.whitebox.layers.layers import (
    Seen,
    find_layers,
    has_positions,
    token_embedding,
    watch,
    weights_of,
    with_gradient,
)
from mico_competition.attacks.whitebox.layers.ridge import free_decode
from mico_competition.attacks.whitebox.layers.start import halfway
from mico_competition.attacks.whitebox.layers.tokens import (
    Held,
    token_signals,
)
from mico_competition.attacks.whitebox.layers.whitenings import some_batches, whitenings
from mico_competition.models.inputs import to_device
from mico_competition.models.padding import by_length, trimmed

FREE_RIDGES = (0.01, 0.03, 0.1, 1.0)
BATCH = 100

Signals = dict[str, dict[float, np.ndarray]]
"""Family of signals -> ridge (0 where there is none) -> float32[N]."""


@dataclass(frozen=True)
class Frame:
    """The common part of all models.

    Attributes:
        data: an ArrayDataset or TokenDataset.
        residual: float32[N, classes], unit rows e_y - p, p the mean over models.
        strength: float32[N], the usual length of e_y - p while a model learns: the mean of that of
            equal probabilities, where training starts, and that of p.
        start: by layer, the initial weights if models share them: known, or the mean over models.
            Other layers started at random, about 0.
        held: which record holds which token; None unless text.
        token_start: float32[V, P], rows of the tokens in `held` before training, narrowed.
        narrow: float32[H, P], the projection of wide rows; None if they are narrow.
        base: by name, the parameters from which training started, if they are known.
    """

    data: Any
    residual: Tensor
    strength: Tensor
    start: Mapping[str, Tensor] = field(default_factory=dict)
    held: Held | None = None
    token_start: Tensor | None = None
    narrow: Tensor | None = None
    base: Mapping[str, Tensor] = field(default_factory=dict)


def token_rows(model: nn.Module, held: Held, narrow: Tensor | None) -> Tensor:
    """float32[V, P], the embedding's rows of the tokens in `held`."""
    embedding = token_embedding(model)
    assert embedding is not None
    rows = embedding.weight.detach().float()[held.tokens.to(embedding.weight.device)]
    return rows if narrow is None else rows @ narrow.to(rows)


def signals_of(model: nn.Module, frame: Frame, *, batch: int = BATCH, work: int = WORK) -> Signals:
    """All signals of one model, larger for likelier members before calibration.

    Args:
        model: in eval mode.
        frame: of the fleet.
        batch: records in one pass.
        work: the maximal number of multiplications for the kernels of all layers, N^2 for each
            weight; larger layers that exceed it have no joint decode.

    Returns: signals of the layers that can be decoded, none if there is no such layer.
    """
    device = next(model.parameters()).device
    passed = halfway(model, frame.base) if frame.base else model
    watched = find_layers(passed)
    records = len(frame.residual)
    some = some_batches(frame.data, records, device, batch)
    once, basis = whitenings(passed, watched, some, records)
    watched = {name: layer for name, layer in watched.items() if name in basis}
    change = {
        name: weights_of(layer) - frame.start[name].to(device)
        if name in frame.start
        else weights_of(layer)
        for name, layer in find_layers(model).items()
        if name in watched
    }
    gather = _Gather(change, once, basis, frame, work)
    embedding = token_embedding(passed)
    if embedding is not None and frame.held is not None:
        watched[_TOKENS] = embedding
        gather.has_positions = has_positions(passed, frame.data.attention_mask.shape[1])
    if not watched:
        return {}
    for rows, inputs in batches(frame, device, batch):
        seen, _ = watch(passed, watched, inputs, frame.residual[rows].to(device))
        gather.add(rows, seen)
    return gather.finish(model)


_TOKENS = "tokens"
ALL_LAYERS, ALL_TRACES = "joint of all layers", "trace of all layers"


def batches(frame: Frame, device: torch.device, batch: int) -> Iterator[tuple[Tensor, Any]]:
    """Records and their inputs: in order, but sentences by length, without needless padding."""
    order = torch.arange(len(frame.residual))
    if frame.held is not None:
        order = by_length(frame.data.attention_mask).cpu()
    for rows in order.split(batch):
        yield rows, to_device(trimmed(frame.data.inputs(rows)), device)


class _Gather:
    """Collects batches and computes signals."""

    def __init__(
        self,
        change: Mapping[str, Tensor],
        once: set[str],
        basis: Mapping[str, Tensor | None],
        frame: Frame,
        work: int,
    ) -> None:
        self.change, self.once, self.frame = change, once, frame
        self.basis = {name: own for name, own in basis.items() if own is not None}
        # W M^-1, so that the whitened trace costs what a forward pass costs.
        self.white = {
            name: change[name] @ own @ own.T for name, own in self.basis.items() if name not in once
        }
        self.jointly = affordable(change, len(frame.residual), work)
        if len(self.jointly) == 1 and self.jointly <= once:
            self.jointly = set()  # its own joint decode is no signal, and there is no other layer
        self.kept: dict[str, list[Tensor]] = {}
        self.directions: dict[str, Tensor] = {}
        self.rows: list[Tensor] = []
        self.token_gradients: Tensor | None = None
        self.squares = torch.zeros(len(frame.residual))  # of a record's gradient
        self.has_positions = False

    def _keep(self, name: str, values: Tensor) -> None:
        self.kept.setdefault(name, []).append(values)

    def add(self, rows: Tensor, seen: Mapping[str, Seen]) -> None:
        """One batch."""
        self.rows.append(rows)
        for name, own in seen.items():
            if name == _TOKENS:
                held, narrow = self.frame.held, self.frame.narrow
                assert held is not None
                values = (
                    own.gradients if narrow is None else own.gradients @ narrow.to(own.gradients)
                )
                if self.token_gradients is None:
                    self.token_gradients = torch.zeros(len(held.record), values.shape[-1])
                held.add_to(self.token_gradients, own.inputs.cpu(), values.cpu(), rows)
                if self.has_positions:  # a place's row has the gradient of the token there
                    self.squares[rows] += own.gradients.square().sum((1, 2)).cpu()
                continue
            own = with_gradient(own)
            if self.frame.held is not None:
                self.squares[rows] += squared_lengths(own).cpu()
            self._keep(f"{name} plain", traces(own, self.change[name]))
            if name in self.once:
                self._keep(f"{name} inputs", own.inputs[:, 0])
                self._keep(f"{name} gradients", own.gradients[:, 0])
            else:
                self._keep(f"{name} white", traces(own, self.white[name]))
            if name in self.jointly:
                if name not in self.directions:
                    size = len(self.frame.residual), *self.change[name].shape
                    self.directions[name] = own.inputs.new_zeros(size)
                self.directions[name][rows] = self._white_directions(name, own)

    def _white_directions(self, name: str, own: Seen) -> Tensor:
        if own.inputs.shape[1] < own.gradients.shape[2]:  # fewer positions than rows of directions
            return directions(Seen(self._whitened(name, own.inputs), own.gradients))
        return self._whitened(name, directions(own))

    def _whitened(self, name: str, rows: Tensor) -> Tensor:
        return rows @ self.basis[name] if name in self.basis else rows

    def finish(self, model: nn.Module) -> Signals:
        """The signals of all batches."""
        place = torch.argsort(torch.cat(self.rows))
        kept = {
            name: torch.cat(parts)[place.to(parts[0].device)] for name, parts in self.kept.items()
        }
        out: dict[str, dict[float, Tensor]] = {}
        for name in self.change:
            if f"{name} inputs" in kept:
                unit = nn.functional.normalize(kept[f"{name} gradients"].double(), dim=1)
                found = free_decode(kept[f"{name} inputs"], self.change[name], FREE_RIDGES)
                out[f"{name} free"] = {
                    ridge: (own * unit).sum(1) for ridge, own in zip(FREE_RIDGES, found)
                }
            elif f"{name} white" in kept:
                out[f"{name} trace"] = {0.0: kept[f"{name} white"]}
        plain = [kept[f"{name} plain"] for name in self.change if f"{name} plain" in kept]
        if len(plain) > 1:
            summed = torch.stack(plain).sum(0)
            out[ALL_TRACES] = {0.0: summed - summed.mean()}
        out.update(self._joint())
        if self.token_gradients is not None:
            out.update(self._of_tokens(model, self.token_gradients))
        return {
            family: {ridge: own.float().cpu().numpy() for ridge, own in members.items()}
            for family, members in out.items()
        }

    def _joint(self) -> dict[str, dict[float, Tensor]]:
        """Joint decodes of each layer with many positions, and of all layers together."""
        out, found = {}, []
        for name in list(self.directions):
            change = self._whitened(name, self.change[name])
            layer = project(self.directions.pop(name), change)
            if layer is not None:
                found.append(layer)
                if name not in self.once:
                    out[f"{name} joint"] = decode(layer)
        if len(found) > 1:
            out[ALL_LAYERS] = decode(together(found))
        return out

    def _of_tokens(self, model: nn.Module, gradients: Tensor) -> dict[str, dict[float, Tensor]]:
        held, start = self.frame.held, self.frame.token_start
        assert held is not None and start is not None
        moved = token_rows(model, held, self.frame.narrow).cpu() - start
        squares = self.squares.index_add(0, held.record, gradients.square().sum(1))
        return token_signals(held, gradients, moved, self.frame.strength, squares.sqrt())
