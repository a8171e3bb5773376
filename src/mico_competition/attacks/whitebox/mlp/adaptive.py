"""Traces of records in weights that Adam trained, and the kernel of their joint decode.

Adam divides each coordinate's step by the root mean square of its gradients. So the update of a
record is no longer of rank one: features that few records have move further. Multiplying the
weights by these root mean squares undoes it. And a record that models find hard moves the weights
further than one that they find easy, so directions have the length of the usual residual. Ours:
docs/METHODS.md, section 6.11 (formula 54).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from mico_competition.attacks.whitebox.mlp.joint import Kernel
from mico_competition.attacks.whitebox.mlp.mlp_layers import Layers
from mico_competition.attacks.whitebox.mlp.trace import noise_of, whitener

RIDGE = 0.03  # of the whitening, in units of the mean variance
AT_ONCE = 1 << 15  # records whose squares are formed at a time


@dataclass(frozen=True)
class Adaptive:
    """What all models share.

    Attributes:
        inputs: float32[N, D].
        residual: float32[N, C], unit residual directions.
        length: float32[N], the lengths of the usual residuals.
        root: float32[D, D], the whitening L of rescaled weights.
        white: float32[N, D], (x - mean x) L.
    """

    inputs: Tensor
    residual: Tensor
    length: Tensor
    root: Tensor
    white: Tensor

    def decoded(self, layers: Layers) -> tuple[Kernel, Tensor]:
        """K of a model, with 1 as the mean of its diagonal, and the trace float32[N] in its scale.

        Args:
            layers: of the model.
        """
        directions = _directions(layers, self.inputs, self.residual, self.length)
        kernel = Kernel(self.white, directions).standardised()
        weights = layers.w1 * root_mean_squares(directions, self.inputs)
        trace = ((self.white @ (weights @ self.root).T) * kernel.directions).sum(1)
        return kernel, trace


def adaptive(
    layers: Iterable[Layers], inputs: Tensor, residual: Tensor, length: Tensor, some: Tensor
) -> Adaptive:
    """The frame of these models, without any label of membership.

    Args:
        layers: of two models or more.
        inputs: float32[N, D].
        residual: float32[N, C], unit rows.
        length: float32[N], `trace.residual_lengths`.
        some: int64[k], the records at which models are compared.

    Raises:
        ValueError: as `trace.noise_of`.
    """

    def pair(own: Layers) -> tuple[Tensor, Tensor]:
        directions = _directions(own, inputs, residual, length)
        unit = own.directions(own.hidden(inputs[some]), residual[some])
        return own.w1 * root_mean_squares(directions, inputs), unit

    root = whitener(noise_of(map(pair, layers)), RIDGE)
    return Adaptive(inputs, residual, length, root, (inputs - inputs.mean(0)) @ root)


def _directions(own: Layers, inputs: Tensor, residual: Tensor, length: Tensor) -> Tensor:
    """float32[N, H], directions of a model with the lengths of the usual residuals."""
    return own.directions(own.hidden(inputs), residual) * length[:, None]


def root_mean_squares(directions: Tensor, inputs: Tensor) -> Tensor:
    """float32[H, D], of the records' gradients a x^T in each coordinate.

    Args:
        directions: float32[N, H], a.
        inputs: float32[N, D], x.
    """
    total = torch.zeros(directions.shape[1], inputs.shape[1]).to(directions)
    for part, own in zip(inputs.split(AT_ONCE), directions.split(AT_ONCE)):
        total += own.square().T @ part.square()
    return (total / len(inputs)).sqrt()
