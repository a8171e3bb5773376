"""Records a run as it trains: batches, canaries' coordinates, and the noise of some steps.

A row is the noise of one model in one step: the released gradient minus the clipped sum that
`LayerReplay` computes, in units of sigma * C. If the claim holds, all numbers of all rows are
independent and standard normal.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from mico_competition.audit.trainer.layer_replay import LayerReplay
from mico_competition.audit.trainer.observed import DiracSeen, Participation
from mico_competition.audit.trainer.paths import CANARIES, Path
from mico_competition.models.precision import FLOAT32
from mico_competition.training.accounting import Mechanism

BLOCK = 256
"""Adjacent coordinates of a parameter are also tested in blocks of this size."""

_KEPT = 30_000  # coordinates of a row that are kept individually
_FEWEST = 2000  # of these, from each parameter with at least as many
_ROUNDING_NOISE = 4e-6  # float32's relative error of the norm of a noisy sum
_ROUNDING_SUM = 2e-3  # relative error of the norm of the clipped sum, computed twice in float32
_ROUNDING_LOW = 1e-2  # the same where the replay rounds gradients of parameters to fewer bits


@dataclass
class NoiseRows:
    """Rows of noise.

    Attributes:
        kept: name of a parameter -> its slice of a kept row.
        blocks: for each block of all coordinates, their number and their parameter.
        step, model: of each row.
        values: float32[rows, kept], the first coordinates of each parameter.
        squares: float64[rows, blocks], sums of squares.
    """

    kept: Mapping[str, slice]
    block_sizes: np.ndarray
    block_names: Sequence[str]
    step: list[int] = field(default_factory=list)
    model: list[int] = field(default_factory=list)
    values: list[np.ndarray] = field(default_factory=list)
    squares: list[np.ndarray] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.step)


@dataclass
class Sums:
    """Released gradients minus the noise of an empty batch, step by step.

    Attributes:
        step, model: of each row.
        noise: float[rows], the norm of the noise, over C.
        length: float[rows], the norm of the released gradient minus an empty step's noise.
        wrong: float[rows], the norm of this minus the expected clipped sum.
        clipped: float[rows], the norm of the expected clipped sum.
        precision: of the passes.
    """

    precision: str = FLOAT32
    step: list[int] = field(default_factory=list)
    model: list[int] = field(default_factory=list)
    noise: list[float] = field(default_factory=list)
    length: list[float] = field(default_factory=list)
    wrong: list[float] = field(default_factory=list)
    clipped: list[float] = field(default_factory=list)

    def see(self, step: int, model: int, released: Tensor, clipped: Tensor, empty: Tensor) -> None:
        """Add a step: its released gradient, the expected clipped sum, an empty step's gradient."""
        left = (released - empty).double()
        for found, vector in (
            (self.noise, (released - clipped).double()),
            (self.length, left),
            (self.wrong, left - clipped.double()),
            (self.clipped, clipped.double()),
        ):
            found.append(float(torch.linalg.vector_norm(vector)))
        self.step.append(step)
        self.model.append(model)

    def allowed(self) -> np.ndarray:
        """float64[rows], the largest `wrong` that rounding explains."""
        of_sum = _ROUNDING_SUM if self.precision == FLOAT32 else _ROUNDING_LOW
        return self.allowed_length() + (of_sum - _ROUNDING_SUM) * np.array(self.clipped)

    def allowed_length(self) -> np.ndarray:
        """float64[rows], by how much rounding may exceed `length`, in any precision of passes."""
        return _ROUNDING_NOISE * np.array(self.noise) + _ROUNDING_SUM * np.array(self.clipped)


class Layout:
    """The order of a row's numbers: real parameters, then the canaries' coordinates."""

    def __init__(self, path: Path, unit: float, precision: str = FLOAT32) -> None:
        self.path, self.unit, self.precision = path, unit, precision
        sizes = {name: p.numel() for name, p in path.models[0].named_parameters()}
        self.sizes = {**sizes, CANARIES: path.whole.dirac}
        self.real = sum(sizes.values())
        most = max(_FEWEST, _KEPT // len(self.sizes))
        self.kept: dict[str, slice] = {}
        self._pieces: list[slice] = []
        self._starts: list[int] = []
        names, counts, start, kept = [], [], 0, 0
        for name, size in self.sizes.items():
            count = min(size, most)
            self.kept[name] = slice(kept, kept + count)
            self._pieces.append(slice(start, start + count))
            kept += count
            for at in range(0, size, BLOCK):
                self._starts.append(start + at)
                counts.append(min(BLOCK, size - at))
                names.append(name)
            start += size
        self.block_names, self.block_sizes = names, np.array(counts)

    @property
    def length(self) -> int:
        """The number of coordinates of a row that are kept individually."""
        length: int = max(part.stop for part in self.kept.values())
        return length

    def rows(self) -> NoiseRows:
        """Empty rows."""
        return NoiseRows(self.kept, self.block_sizes, self.block_names)

    def released(self, model: int) -> Tensor:
        """float[P + m], the gradients that the optimiser received, times the divisor, over C."""
        parts = [part.flatten() for part in self.path.released(model)]
        return torch.cat([*parts, self.path.released_canaries()[model]]).float() * self.unit

    def add(self, rows: NoiseRows, step: int, model: int, noise: Tensor) -> None:
        """Add a row, float[P + m]."""
        flat = noise.cpu().numpy()
        rows.step.append(step)
        rows.model.append(model)
        rows.values.append(np.concatenate([flat[piece] for piece in self._pieces]))
        rows.squares.append(np.add.reduceat(np.square(flat, dtype=np.float64), self._starts))


class NoiseOnly:
    """Records a run on empty batches, which is the noise of its steps.

    Args:
        layout: of the run.
        sigma: as claimed.
        steps: the steps to record.
        pending: released gradients and expected clipped sums of a run with the same random streams,
            which are compared and dropped.

    Attributes:
        rows: noise of those steps.
        sums: the comparisons of `pending`.
        full: (step, model) -> float[P + m], released gradients over C; only without `pending`.
        begun, released: numbers of steps begun and of gradients released.
    """

    def __init__(
        self,
        layout: Layout,
        sigma: float,
        steps: Iterable[int],
        pending: dict[tuple[int, int], tuple[Tensor, Tensor]] | None = None,
    ) -> None:
        self._layout, self._sigma, self._steps = layout, sigma, set(steps)
        self._pending = pending
        self.rows, self.sums = layout.rows(), Sums(layout.precision)
        self.full: dict[tuple[int, int], Tensor] = {}
        self.begun, self.released = 0, 0

    def batch(self, batches: Sequence[Tensor]) -> None:
        """A step follows."""
        self.begun += 1

    def release(self, batches: Sequence[Tensor]) -> None:
        """A gradient is released."""
        step = self.begun - 1
        self.released += 1
        if step not in self._steps:
            return
        for model in range(len(batches)):
            found = self._layout.released(model)
            self._layout.add(self.rows, step, model, found / self._sigma)
            if self._pending is None:
                self.full[step, model] = found
            elif (step, model) in self._pending:
                self.sums.see(step, model, *self._pending.pop((step, model)), found)

    def end_epoch(self) -> None:
        """Do nothing."""


class Recording:
    """Records a run.

    Args:
        layout: of the run.
        mechanism: as claimed.
        steps: the steps to repeat.

    Attributes:
        dirac, participation, replays, rows: the observations; one replay for each model.
        pending: (step, model) -> the released gradient and the expected clipped sum.
        least: name of a parameter -> float64[steps * S], sums of squares of released gradients over
            sigma * C, of every step, which noise alone should reach.
        coordinates: float32[steps, S, k], canaries' coordinates minus their gradients.
        steps: noisy gradients seen; replayed: those of repeated steps.
    """

    def __init__(
        self,
        layout: Layout,
        mechanism: Mechanism,
        steps: Iterable[int],
        max_grad_norm: float,
    ) -> None:
        path = layout.path
        self._layout, self._mechanism, self._steps = layout, mechanism, set(steps)
        let_in = np.concatenate([one.dirac_in.cpu().numpy() for one in path.sets])
        self.dirac = DiracSeen(let_in, mechanism)
        self.participation = Participation(len(path.sets[0]), len(path.sets))
        self.replays = [
            LayerReplay(model, one, mechanism, max_grad_norm, layout.precision)
            for model, one in zip(path.models, path.sets)
        ]
        self.rows = layout.rows()
        self.pending: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}
        self.least: dict[str, list[float]] = {name: [] for name in layout.sizes}
        self.coordinates: list[np.ndarray] = []
        self.steps, self.batch_number, self.replayed = 0, 0, 0

    def batch(self, batches: Sequence[Tensor]) -> None:
        """A step on these batches follows."""
        self.participation.see([batch.cpu().numpy() for batch in batches])
        self.batch_number += 1

    def release(self, batches: Sequence[Tensor]) -> None:
        """The optimiser received the gradients of these batches."""
        path, step = self._layout.path, self.batch_number - 1
        values = path.released_canaries().double().cpu().numpy() * self._layout.unit
        gave = np.zeros_like(values)
        dirac = [one.dirac_of(batch).unique() for one, batch in zip(path.sets, batches)]
        for model, which in enumerate(dirac):
            gave[model, which.cpu().numpy()] = path.whole.clipped[which.cpu()].numpy()
        self.dirac.see(values.ravel(), np.flatnonzero(gave.ravel()))
        self.coordinates.append(((values - gave) / self._sigma).astype(np.float32)[:, :512])
        for model, batch in enumerate(batches):
            released = self._layout.released(model)
            parts = released.split(list(self._layout.sizes.values()))
            for name, part in zip(self._layout.sizes, parts):
                self.least[name].append(float((part.double() / self._sigma).square().sum()))
            if step in self._steps:
                self._replay(step, model, batch, released, torch.from_numpy(gave[model]))
        self.steps += 1
        self.replayed += step in self._steps

    @property
    def _sigma(self) -> float:
        return self._mechanism.noise_multiplier

    def _replay(self, step: int, model: int, batch: Tensor, released: Tensor, gave: Tensor) -> None:
        """Compute the clipped sum of a step again, and its noise."""
        real = self._layout.real
        found = self.replays[model].see(batch, self._layout.path.values(model), released[:real])
        clipped = torch.cat([found, gave.to(found)])
        noise = released - clipped
        self._layout.add(self.rows, step, model, noise / self._sigma)
        self.pending[step, model] = released, clipped

    def end_epoch(self) -> None:
        """Close an epoch."""
        self.dirac.end_epoch()
        self.participation.end_epoch()
