"""The first pass: label-free traces and joint decodes of all models at all records.

Nothing here reads `known_membership`, so the results hold for any split of the models into shadows
and targets. Those of the last source are kept for the folds of one evaluation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mico_competition.attacks.cost import Shared
from mico_competition.attacks.problem import Problem
from mico_competition.attacks.whitebox.mlp.adaptive import Adaptive, adaptive
from mico_competition.attacks.whitebox.mlp.balance import balance_kernel, white_inputs
from mico_competition.attacks.whitebox.mlp.both_layers import gradient_kernel, gradient_trace
from mico_competition.attacks.whitebox.mlp.joint import (
    TOLERANCE,
    Kernel,
    Solves,
    compact,
    joint_decode,
)
from mico_competition.attacks.whitebox.mlp.label_free import Last, check_problem
from mico_competition.attacks.whitebox.mlp.mlp_layers import HALFWAY, Layers, inputs_of, read_layers
from mico_competition.attacks.whitebox.mlp.trace import (
    NOISE_RECORDS,
    input_noise,
    mean_probabilities,
    residual_directions,
    residual_lengths,
    second_layer_traces,
    some_of_each,
    whitener,
)
from mico_competition.signals.source import Source
from mico_competition.support.progress import tracked

# Ridges of the whitening: the first layer's (the first also the kernel's), the second layer's.
FIRST_LAYER, SECOND_LAYER = (1.0, 0.3), (3.0, 0.3)
COSTLY = 2**28  # records times weights of the first layer, from which `best` takes few decodes


class Effort(NamedTuple):
    """How far a decode is solved: its ridges, and the residual at which the smallest one stops."""

    ridges: tuple[float, ...]
    tolerance: float = TOLERANCE


# Shadows determine the choice of the ridge. With fewer records than weights, a smaller ridge adds
# more than a smaller residual; with more records than weights it is the other way round.
JOINT = Effort((0.1, 0.3, 1.0, 3.0, 10.0, 30.0)), Effort((1.0, 3.0, 10.0, 30.0))
ADAMS_STEPS = Effort((0.1, 1.0, 10.0), 0.15), Effort((1.0, 3.0, 10.0))
BALANCE = Effort((0.1, 1.0, 10.0), 0.15), Effort((0.3, 1.0, 10.0))
BOTH_LAYERS = Effort((3.0, 10.0, 30.0), 0.15), Effort((3.0, 10.0, 30.0))

Decoded = dict[float, np.ndarray]
"""Ridge -> float32[models, N]."""


@dataclass
class FirstPass:
    """Frame and signals of the models of `rows`, float32, NaN in other rows.

    Attributes:
        layers: of the models, by row.
        inputs: float32[N, D].
        residual: float32[N, C], unit rows.
        white: float[N, D], whitened centred inputs in the kernel's scale, `compact`.
        trace: float32[models, N], the first layer's, in the kernel's scale.
        whiter_trace: the same, whitened with a smaller ridge.
        second: float32[models, N], the second layer's.
        whiter_second: the same, whitened with less of a ridge.
        labels: int64[N], classes.
        length: float32[N], of the usual residuals.
        joint, adaptive, balance, both: float32[models, N] for each ridge; computed at first use.
    """

    layers: dict[int, Layers]
    inputs: Tensor
    residual: Tensor
    white: Tensor
    trace: np.ndarray
    whiter_trace: np.ndarray
    second: np.ndarray
    whiter_second: np.ndarray
    labels: Tensor
    length: Tensor
    _joint: Shared[Decoded] = field(default_factory=Shared)
    _adaptive: Shared[Decoded] = field(default_factory=Shared)
    _balance: Shared[Decoded] = field(default_factory=Shared)
    _both: Shared[Decoded] = field(default_factory=Shared)
    _adaptive_frame: Shared[Adaptive] = field(default_factory=Shared)
    _balance_white: Shared[Tensor] = field(default_factory=Shared)
    _centred: Shared[Tensor] = field(default_factory=Shared)

    def directions(self, row: int) -> Tensor:
        """float32[N, H], unit directions of the model in one row."""
        layers = self.layers[row]
        return layers.directions(layers.hidden(self.inputs), self.residual)

    def kernel(self, row: int) -> Kernel:
        """K of the model in one row."""
        return Kernel(self.white, self.directions(row))

    def tensor(self, array: np.ndarray) -> Tensor:
        """float32 on the models' device."""
        return torch.as_tensor(array, dtype=torch.float32, device=self.inputs.device)

    @property
    def joint(self) -> Decoded:
        """The joint decode of all models, by ridge."""
        return self._joint.get(self._decode_jointly)

    @property
    def adaptive(self) -> Decoded:
        """The joint decode of weights that Adam trained, by ridge."""
        return self._adaptive.get(self._decode_adaptively)

    @property
    def balance(self) -> Decoded:
        """The decode of the gradients at the final weights, by ridge."""
        return self._balance.get(self._decode_balance)

    @property
    def both(self) -> Decoded:
        """The joint decode of all weights of both layers, by ridge."""
        return self._both.get(self._decode_both)

    def _decode_jointly(self) -> Decoded:
        return self._decoded("Joint decode", JOINT, self.system)

    def _decode_adaptively(self) -> Decoded:
        return self._decoded("Decode of Adam's steps", ADAMS_STEPS, self.adaptive_system)

    def _decode_balance(self) -> Decoded:
        return self._decoded("Decode of final gradients", BALANCE, self.balance_system)

    def _decode_both(self) -> Decoded:
        return self._decoded("Decode of both layers", BOTH_LAYERS, self.both_system)

    def system(self, row: int) -> tuple[Kernel, Tensor]:
        """K and T of the joint decode."""
        return self.kernel(row), self.tensor(self.trace[row])

    def adaptive_system(self, row: int) -> tuple[Kernel, Tensor]:
        """K and T of the decode of Adam's steps."""
        frame = self._adaptive_frame.get(self._make_adaptive_frame)
        return frame.decoded(row, self.directions(row))

    def balance_system(self, row: int) -> tuple[Kernel, Tensor]:
        """K and T of the decode of final gradients.

        T = -K 1: members' gradients sum to nothing, and c is the deviation of membership from 1.
        """
        white = self._balance_white.get(self._make_balance_white)
        kernel = balance_kernel(white, self.layers[row], self.inputs, self.labels).fast()
        return kernel, -kernel(torch.ones_like(self.length))

    def both_system(self, row: int) -> tuple[Kernel, Tensor]:
        """K and T of the decode of both layers."""
        layers = self.layers[row]
        centred = self._centred.get(
            lambda: compact(self.inputs - self.inputs.mean(0), len(layers.w1))
        )
        kernel = gradient_kernel(layers, self.inputs, centred, self.labels).fast()
        return kernel, gradient_trace(kernel, layers)

    def _make_adaptive_frame(self) -> Adaptive:
        some = torch.as_tensor(some_of_each(self.labels.cpu().numpy(), NOISE_RECORDS))
        return adaptive(
            self.layers, self.directions, self.inputs, self.length, some.to(self.labels)
        )

    def _make_balance_white(self) -> Tensor:
        return white_inputs(list(self.layers.values()), self.inputs, self.labels)

    @property
    def many(self) -> bool:
        """Whether there are more records than weights of the first layer."""
        return len(self.inputs) > self._weights

    @property
    def cheap(self) -> bool:
        """Whether decodes cost so little that all of them are worth it."""
        return len(self.inputs) * self._weights < COSTLY

    @property
    def _weights(self) -> int:
        return next(iter(self.layers.values())).w1.numel()

    def effort(self, efforts: tuple[Effort, Effort]) -> Effort:
        """That of fewer records than weights, or that of more."""
        return efforts[self.many]

    def _decoded(
        self,
        what: str,
        efforts: tuple[Effort, Effort],
        system: Callable[[int], tuple[Kernel, Tensor]],
    ) -> Decoded:
        """The solutions of all models' systems; NaN in other rows."""
        solves = Solves()
        ridges, tolerance = self.effort(efforts)
        out = {ridge: np.full(self.trace.shape, np.nan, np.float32) for ridge in ridges}
        for row in tracked(sorted(self.layers), what, "model"):
            solved = joint_decode(*system(row), ridges, solves, tolerance)
            for array, own in zip(out.values(), solved.cpu().numpy()):
                array[row] = own
        solves.warn(f"The {what[0].lower()}{what[1:]}")
        return out


_last: Last[FirstPass] = Last()


def first_pass(problem: Problem) -> FirstPass:
    """Traces of all shadows and targets of a problem.

    Raises:
        ValueError: if the fleet's records are not all of the dataset, if the targets are among
            the shadows, or if models are not of the MLP family, of one shape and finite.
    """
    check_problem(problem)
    return _last.get(problem, _first_pass)


def _first_pass(source: Source, rows: np.ndarray) -> FirstPass:
    layers = read_layers(source, rows)
    first = layers[int(rows[0])]
    inputs = inputs_of(source.data, first)
    labels = source.fleet.labels
    if labels.max() >= len(first.b2):
        raise ValueError(
            f"Expected labels below {len(first.b2)}, the models' classes, got {labels.max()}: is "
            "it the dataset of this scenario?"
        )
    usual = mean_probabilities(source.logits(int(row)) for row in rows)
    residual = torch.as_tensor(residual_directions(usual, labels), device=inputs.device)
    some = torch.as_tensor(some_of_each(labels, NOISE_RECORDS), device=inputs.device)
    noise = input_noise(list(layers.values()), inputs[some], residual[some])
    centred = inputs - inputs.mean(0)
    root, whiter = (whitener(noise, ridge) for ridge in FIRST_LAYER)
    root = root / (centred @ root).square().sum(1).mean().sqrt()  # the kernel's diagonal is 1
    shape = source.fleet.known_membership.shape
    signals = [np.full(shape, np.nan, np.float32) for _ in range(4)]
    length = torch.as_tensor(residual_lengths(usual, labels), device=inputs.device)
    classes = torch.as_tensor(labels.astype(np.int64), device=inputs.device)
    t1, whiter_t1, t2, whiter_t2 = signals
    common = layers, inputs, residual, compact(centred @ root, len(first.w1))
    made = FirstPass(*common, t1, whiter_t1, t2, whiter_t2, classes, length)
    whiter = torch.linalg.solve(root, whiter @ whiter.T).T  # for inputs that are whitened by root
    for row, own in tracked(layers.items(), "Traces", "model"):
        hidden, halfway = own.hidden_at(inputs, (1.0, HALFWAY))
        kernel = Kernel(made.white, own.directions(hidden, residual))
        traces = [
            kernel.inner(own.w1 @ root),
            kernel.inner(own.w1 @ whiter),
            *second_layer_traces(halfway, residual, own, SECOND_LAYER),
        ]
        for signal, own_trace in zip(signals, traces):
            signal[row] = own_trace.cpu().numpy()
    return made
