"""Traces of records in weights that Adam trained, and the kernel of their joint decode.

Adam divides each coordinate's step by the root mean square of its gradients. So the update of a
record is no longer of rank one: features that few records have move further. Multiplying the
weights by these root mean squares undoes it. And a record that models find hard moves the weights
further than one that they find easy, so directions have the length of the usual residual. Ours:
docs/METHODS.md, section 6.11 (formula 54).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from mico_competition.attacks.whitebox.mlp.joint import Kernel, compact
from mico_competition.attacks.whitebox.mlp.mlp_layers import Layers
from mico_competition.attacks.whitebox.mlp.trace import noise_of, whitener

RIDGE = 0.03  # of the whitening, in units of the mean variance


@dataclass(frozen=True)
class Adaptive:
    """What the decodes of these models need.

    Attributes:
        white: float[N, D], (x - mean x) L with the whitening L of rescaled weights, `compact`.
        weights: by row, float32[H, D], rescaled weights times L.
        length: float32[N], the lengths of the usual residuals.
    """

    white: Tensor
    weights: dict[int, Tensor]
    length: Tensor

    def decoded(self, row: int, unit: Tensor) -> tuple[Kernel, Tensor]:
        """K of a model, with 1 as the mean of its diagonal, and the trace float32[N] in its scale.

        Args:
            row: of the model.
            unit: float32[N, H], its unit directions.
        """
        kernel = Kernel(self.white, unit * self.length[:, None]).standardised()
        return kernel, kernel.inner(self.weights[row])


def adaptive(
    layers: Mapping[int, Layers],
    unit: Callable[[int], Tensor],
    inputs: Tensor,
    length: Tensor,
    some: Tensor,
) -> Adaptive:
    """The frame of these models, without any label of membership.

    Args:
        layers: by row, of two models or more.
        unit: row -> float32[N, H], the unit directions of a model.
        inputs: float32[N, D].
        length: float32[N], `trace.residual_lengths`.
        some: int64[k], the records at which models are compared.

    Raises:
        ValueError: as `trace.noise_of`.
    """
    units = len(next(iter(layers.values())).w1)
    squares = compact(inputs.square(), units)
    rescaled: dict[int, Tensor] = {}

    def pair(row: int) -> tuple[Tensor, Tensor]:
        directions = unit(row)
        usual = root_mean_squares(directions * length[:, None], squares)
        rescaled[row] = layers[row].w1 * usual
        return rescaled[row], directions[some]

    root = whitener(noise_of(map(pair, layers)), RIDGE)
    white = compact((inputs - inputs.mean(0)) @ root, units)
    return Adaptive(white, {row: own @ root for row, own in rescaled.items()}, length)


def root_mean_squares(directions: Tensor, squares: Tensor) -> Tensor:
    """float32[H, D], of the records' gradients a x^T in each coordinate.

    Args:
        directions: float32[N, H], a.
        squares: float[N, D], of the inputs x.
    """
    total = directions.square().to(squares.dtype).T @ squares
    return (total.float() / len(squares)).sqrt()
