"""The DP-SGD step: per-example clipping, and noise once a logical batch.

This is algorithm 1 of Abadi et al. (CCS 2016, arXiv 1607.00133; docs/METHODS.md, sections 11.1 and
11.2) with the contract of Opacus' optimiser (`private_optimizer`): clipped gradients are summed
over the physical batches of a logical one, noise of standard deviation sigma * C is added once, and
the sum is divided by the expected batch size.  `poisson_draws` draws the batches.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from mico_competition.models.inputs import sent
from mico_competition.models.precision import (
    FLOAT32,
    backward_pass,
    check_available,
    forward_pass,
    full_float32,
)
from mico_competition.training.bookkeeping import BookKeeper
from mico_competition.training.check_batches import Batch as Examples
from mico_competition.training.fixed_shapes import (
    fixed_length,
    group_length,
    padded,
    physical_batches,
)
from mico_competition.training.ghost_guard import guard_norms
from mico_competition.training.gradient_checks import Delivered, unfit
from mico_competition.training.losses import per_example_losses
from mico_competition.training.model_state import plain_name
from mico_competition.training.private_checks import PrivacyChecks, check_trainable
from mico_competition.training.private_optimizer import (
    drop_not_finite,
    logical_step,
    optimizer_class,
    take_sum,
)
from mico_competition.training.secure_random import Generator, SecureGenerator
from mico_competition.training.settings import check_precision
from mico_competition.training.step_graphs import graphs_of

# Ours is the first; the others are Opacus', for comparison and for layers that ours lacks.
GRAD_SAMPLE_MODES = ("bookkeeping", "hooks", "functorch", "ghost")

# The least standard deviation of noise; the smallest normal number of float32 is 1.2e-38.
LEAST_NOISE = 1e-30

Inputs = torch.Tensor | dict[str, torch.Tensor]
Batch = Callable[[torch.Tensor], Inputs]
Losses = Callable[[nn.Module, Inputs, torch.Tensor], torch.Tensor]


class DPSGD:
    """A model and its optimiser, trained by DP-SGD one logical batch at a time.

    The first batch that is not empty goes through `private_checks` before any weight changes.  A
    model that mixes examples, or whose per-example gradients the mode gets wrong, is refused.

    Args:
        model: the module to train, in train mode, on its device.  Every parameter that requires
            a gradient is trained and clipped; frozen ones take no part.  Batch normalisation and
            other layers that mix examples are refused.
        optimizer: a torch optimiser over all of the model's trained parameters.
        noise_multiplier: sigma > 0, the noise's standard deviation in units of `max_grad_norm`.
        max_grad_norm: C > 0, the L2 norm to which each per-example gradient is clipped.
        expected_batch_size: the expected length of a logical batch, which divides the sum.
        max_physical_batch_size: the most examples in one forward pass, which memory must hold; a
            larger number is faster.  The mechanism, and so epsilon, does not depend on it.
        grad_sample_mode: how per-example norms are computed, one of GRAD_SAMPLE_MODES.
        precision: of forward and backward passes, one of PRECISIONS.  Norms, sums, noise and
            weights are float32 in all; others than float32 need the mode bookkeeping.
        noise_generator: the generator of the noise, and of nothing else.
        losses: computes the loss of each example of a batch, float[b], as `losses(model, inputs,
            labels)`; by default the cross-entropy.
        fixed_shapes: whether all physical batches get one length by padding (`fixed_shapes`), and
            a step asks a GPU nothing.  It works with "bookkeeping", where it is the default on a
            GPU, and where passes in TF32 and bfloat16, whose rounding may depend on the length,
            need it; on a CPU the padding would take time.
        cuda_graphs: whether a GPU repeats the passes of a step from recorded graphs
            (`step_graphs`), which starts their kernels faster; what the model and the losses
            compute in Python must then be the same in each step.  It works with "bookkeeping".

    Raises:
        ValueError: if an argument is out of range or the model cannot be trained privately.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        noise_multiplier: float,
        max_grad_norm: float,
        expected_batch_size: int,
        max_physical_batch_size: int,
        grad_sample_mode: str = GRAD_SAMPLE_MODES[0],
        precision: str = FLOAT32,
        noise_generator: Generator | None = None,
        losses: Losses | None = None,
        fixed_shapes: bool | None = None,
        cuda_graphs: bool = False,
    ) -> None:
        check_private(noise_multiplier, max_grad_norm)
        if grad_sample_mode not in GRAD_SAMPLE_MODES:
            raise ValueError(
                f"Unknown grad_sample_mode {grad_sample_mode!r}: choose one of "
                f"{', '.join(GRAD_SAMPLE_MODES)}."
            )
        if isinstance(noise_generator, SecureGenerator) and grad_sample_mode != "bookkeeping":
            raise ValueError(
                f"Secure randomness does not work with Opacus' mode {grad_sample_mode!r}: use "
                "grad_sample_mode bookkeeping."
            )
        if fixed_shapes and grad_sample_mode != "bookkeeping":
            raise ValueError(
                f"Fixed shapes do not work with Opacus' mode {grad_sample_mode!r}: use "
                "grad_sample_mode bookkeeping, or leave fixed_shapes out."
            )
        check_precision(precision, grad_sample_mode)
        check_trainable(model, optimizer, grad_sample_mode)
        self.precision, self.device = precision, next(model.parameters()).device
        check_available(precision, self.device)
        if fixed_shapes is None:
            on_gpu = self.device.type == "cuda"
            fixed_shapes = grad_sample_mode == "bookkeeping" and (on_gpu or precision != FLOAT32)
        elif not fixed_shapes and precision != FLOAT32:
            raise ValueError(
                f"precision {precision} needs fixed shapes, since its rounding may depend on the "
                "length of a batch: leave fixed_shapes out."
            )
        self.fixed_shapes, self.expected_batch_size = fixed_shapes, expected_batch_size
        if cuda_graphs and not fixed_shapes and self.device.type == "cuda":
            raise ValueError("CUDA graphs need fixed shapes, and so the mode bookkeeping.")
        self.max_physical_batch_size = max_physical_batch_size
        self.max_grad_norm = max_grad_norm
        self.mode = grad_sample_mode
        self._given_losses = losses
        self.model = self._wrap(model)
        self.optimizer = self._optimizer_class()(
            optimizer,
            noise_multiplier=noise_multiplier,
            max_grad_norm=max_grad_norm,
            expected_batch_size=expected_batch_size,
            loss_reduction="mean",
            generator=noise_generator,
        )
        self.checks = PrivacyChecks(
            self.model,
            lambda batch: self._losses(batch.inputs, batch.labels),
            self._plain,
            self._clipped_sum,
            max_grad_norm=max_grad_norm,
            mode=grad_sample_mode,
            precision=precision,
            at_precision=self._at_precision,
        )
        self.graphs = graphs_of(self._sums, self.model) if cuda_graphs else None

    def _optimizer_class(self) -> Any:
        return optimizer_class(self.mode)

    def _wrap(self, model: nn.Module) -> Any:
        """The model with the hooks by which a backward pass computes per-example norms."""
        if self.mode == "bookkeeping":
            self.keeper = BookKeeper(model)
            return model
        from opacus.grad_sample.utils import get_gsm_class

        extra = {"max_grad_norm": self.max_grad_norm} if self.mode == "ghost" else {}
        try:
            wrapped = get_gsm_class(self.mode)(
                model,
                loss_reduction="sum",
                strict=False,
                force_functorch=self.mode == "functorch",
                **extra,
            )
        except RuntimeError as error:  # NotImplementedError among them
            raise unfit(self.mode, error) from error
        if self.mode == "ghost":
            guard_norms(wrapped)
        return wrapped

    def _losses(self, inputs: Inputs, labels: torch.Tensor) -> torch.Tensor:
        """The loss of each example, float[b], with a graph."""
        with forward_pass(self.precision, self.device):
            return (self._given_losses or per_example_losses)(self.model, inputs, labels)

    @contextmanager
    def _at_precision(self, precision: str) -> Iterator[None]:
        """Run passes in another precision, inside this block."""
        own, self.precision = self.precision, precision
        try:
            yield
        finally:
            self.precision = own

    def trained(self) -> Iterator[tuple[str, Any]]:
        """The names and parameters that are trained; all others are frozen."""
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad:
                yield name, parameter

    def step(
        self,
        batch: torch.Tensor | Sequence[torch.Tensor],
        inputs: Batch,
        labels: torch.Tensor,
        *,
        num_records: int | None = None,
    ) -> torch.Tensor:
        """Take one step on a logical batch; noise is added even if the batch is empty.

        Args:
            batch: int64[b], the positions of the batch's records, b >= 0, on the device of the
                labels or on the host; or groups of them, of which no two share a physical batch.
            inputs: maps positions to the model's inputs.
            labels: int64[n], labels by position, or any targets that the losses take.
            num_records: the most examples that a batch can have; by default n.

        Returns:
            The sum of the batch's losses before the step (0-dimensional, on the device).

        Raises:
            ValueError: naming the fault, if the model cannot be trained privately.
        """
        total = labels.new_zeros((), dtype=torch.float32)
        most = num_records or len(labels)
        length = self._length(most)
        if self.fixed_shapes and not isinstance(batch, torch.Tensor):
            length = group_length(length)
        for chunk in logical_step(self.optimizer, physical_batches(batch, length)):
            if len(chunk):
                at = padded(chunk, length) if self.fixed_shapes else chunk
                wanted = labels[sent(at, labels.device)]
                total += self._checked_backward(inputs(at), wanted, most, len(chunk))
            else:
                self._backward_nothing()
        return total

    def _length(self, most: int) -> int:
        """The most examples of a physical batch, of logical batches of at most `most`."""
        if self.fixed_shapes:
            return fixed_length(self.expected_batch_size, min(self.max_physical_batch_size, most))
        return self.max_physical_batch_size

    def _checked_backward(
        self, inputs: Inputs, labels: torch.Tensor, n: int, real: int
    ) -> torch.Tensor:
        """Run the checks, then `_backward`, on a batch of which all but the first `real` rows pad.

        n bounds the length of a batch.
        """
        largest = min(self.max_physical_batch_size, max(n, len(labels)))
        batch, counts = Examples(inputs, labels), None
        if self.fixed_shapes:
            batch = batch.changed(lambda values: values[:real])
            counts = torch.arange(len(labels), device=labels.device) < real
        with full_float32(labels.device):  # so that norms are those of the sum that is clipped
            self.checks.before(batch, largest)
            total = self._passes(inputs, labels, counts)
            self.checks.after()
        return total

    def _passes(
        self, inputs: Inputs, labels: torch.Tensor, counts: torch.Tensor | None
    ) -> torch.Tensor:
        """`_backward`, by a graph if there are graphs."""
        if self.graphs is None:
            return self._backward(inputs, labels, counts)
        checked = self.checks.checked
        total, *sums = self.graphs(inputs, labels, counts, made_for=checked)
        for (_, parameter), part in zip(self.trained(), sums):
            parameter.grad = part
        return total

    def _sums(
        self, inputs: Inputs, labels: torch.Tensor, counts: torch.Tensor | None
    ) -> list[torch.Tensor]:
        """The sum of the losses, and the clipped sum of each trained parameter, for a graph."""
        total = self._backward(inputs, labels, counts)
        return [total, *(parameter.grad for _, parameter in self.trained())]

    def _backward(
        self, inputs: Inputs, labels: torch.Tensor, counts: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Leave clipped or per-example gradients where the optimiser expects them.

        `counts`, bool[b], is False for padding, which only book-keeping gets.
        """
        if self.mode == "bookkeeping":
            return self._backward_by_keeper(inputs, labels, counts)
        losses = self._losses(inputs, labels)
        with warnings.catch_warnings():
            # The inputs of the first layer need no gradient, but its parameters do.
            warnings.filterwarnings("ignore", message="Full backward hook is firing")
            warnings.filterwarnings("ignore", message="In CPU autocast")  # Opacus uses functorch
            if self.mode == "ghost":
                self._backward_ghost(inputs, labels, losses)
            else:
                losses.sum().backward()
                drop_not_finite([parameter for _, parameter in self.trained()])
        return losses.detach().sum()

    def _backward_by_keeper(
        self, inputs: Inputs, labels: torch.Tensor, counts: torch.Tensor | None
    ) -> torch.Tensor:
        """Leave the clipped sum, and return the sum of the losses, both without the padding."""
        with self.keeper.recording(len(labels)):
            losses = self._losses(inputs, labels)
            passes = backward_pass(self.precision, self.device)
            norms = self.keeper.norms(losses, ask=not self.fixed_shapes, passes=passes)
        weights, losses = clip_factors(norms, self.max_grad_norm), losses.detach()
        if counts is not None:
            weights, losses = weights * counts, torch.where(counts, losses, 0.0)
        self.keeper.write_weighted_sum(weights)
        return self._total(losses)

    def _total(self, losses: torch.Tensor) -> torch.Tensor:
        return losses.sum()

    def _backward_ghost(self, inputs: Inputs, labels: torch.Tensor, losses: torch.Tensor) -> None:
        """Leave the clipped sum over the examples whose norm is finite."""
        from opacus.utils.fast_gradient_clipping_utils import DPTensorFastGradientClipping

        DPTensorFastGradientClipping(
            self.model, self.optimizer, losses, loss_reduction="sum"
        ).backward()
        finite = self.model.per_sample_gradient_norms.isfinite()
        if finite.all():
            return
        # Opacus multiplies losses by factors, and 0 * NaN is NaN: run without these examples.
        for _, parameter in self.trained():
            parameter.grad = None
        if finite.any():
            kept = Examples(inputs, labels).columns(finite.nonzero().squeeze(1))
            self._backward(kept.inputs, kept.labels)
        else:
            self._backward_nothing()

    @contextmanager
    def _plain(self) -> Iterator[None]:
        """Turn Opacus' hooks off in this block; ours are off outside `BookKeeper.recording`."""
        if self.mode == "bookkeeping":
            yield
            return
        self.model.disable_hooks()
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Full backward hook is firing")
                yield
        finally:
            self.model.enable_hooks()

    def _clipped_sum(self, batch: Examples, max_grad_norm: float) -> Delivered:
        """The clipped sum of a physical batch; the optimiser's state does not change."""
        held = [self, self.optimizer, *([self.model] if self.mode == "ghost" else [])]
        for holder in held:
            holder.max_grad_norm = max_grad_norm
        try:
            try:
                self._backward(batch.inputs, batch.labels)
            except torch.OutOfMemoryError:
                raise
            except Exception as error:
                if self.mode == "bookkeeping":
                    raise
                if isinstance(error, AttributeError):  # ghost clipping found no gradient
                    self._check_per_example()
                raise unfit(self.mode, error) from error
            self._check_per_example()
            return take_sum(self.optimizer, [parameter for _, parameter in self.trained()])
        finally:
            for holder in held:
                holder.max_grad_norm = self.checks.max_grad_norm

    def _check_per_example(self) -> None:
        """Raise ValueError, naming a parameter without a per-example gradient."""
        for name, parameter in self.trained() if self.mode != "bookkeeping" else ():
            results = (getattr(parameter, name, None) for name in ("grad_sample", "_norm_sample"))
            if all(each is None for each in results):
                raise ValueError(
                    f"Parameter {plain_name(name)} has no per-example gradient in grad_sample_mode "
                    f"{self.mode}: call the layer that it belongs to, not a function of it."
                )

    def _backward_nothing(self) -> None:
        """Leave the gradients of an empty batch, without running the model on it."""
        for _, parameter in self.trained():
            if self.mode in ("bookkeeping", "ghost"):
                parameter.grad = torch.zeros_like(parameter)
            else:
                parameter.grad_sample = parameter.new_zeros((0, *parameter.shape))


def clip_factors(norms: torch.Tensor, max_grad_norm: float) -> torch.Tensor:
    """The clipping factor of each example, min(1, C / (norm + 1e-6)), as in Opacus."""
    return (max_grad_norm / (norms + 1e-6)).clamp_(max=1.0)


def check_private(noise_multiplier: float, max_grad_norm: float) -> None:
    """Raise ValueError unless both are positive and the norm is finite."""
    if not noise_multiplier > 0:
        raise ValueError(
            f"Expected noise_multiplier={noise_multiplier} > 0: there is no privacy without noise."
        )
    if not 0 < max_grad_norm < float("inf"):
        raise ValueError(f"Expected 0 < max_grad_norm={max_grad_norm} < inf.")
    if noise_multiplier * max_grad_norm < LEAST_NOISE:
        raise ValueError(
            f"Expected noise_multiplier * max_grad_norm = {noise_multiplier * max_grad_norm:g} to "
            f"be at least {LEAST_NOISE:g}: float32 hardly holds smaller noise."
        )
