"""The optimiser of a private step: it sums clipped gradients, adds noise once, and divides.

The contract is that of Opacus' optimiser, whose classes do this for Opacus' modes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import torch

from mico_competition.training.example_gradients import without
from mico_competition.training.gradient_checks import Delivered
from mico_competition.training.secure_random import Generator, SecureGenerator


def gaussian_like(
    tensors: Sequence[torch.Tensor], std: float, generator: Generator | None
) -> list[torch.Tensor]:
    """Draw independent Gaussian noise of deviation `std`, one tensor like each of `tensors`."""
    if one_draw(tensors, generator):
        sizes = [tensor.numel() for tensor in tensors]
        flat = torch.empty(sum(sizes), dtype=tensors[0].dtype, device=tensors[0].device)
        fill_gaussian([flat], std, generator)
        return [part.view_as(tensor) for part, tensor in zip(flat.split(sizes), tensors)]
    noise = [torch.empty_like(t, requires_grad=False) for t in tensors]
    fill_gaussian(noise, std, generator)
    return noise


def one_draw(tensors: Sequence[torch.Tensor], generator: Generator | None) -> bool:
    """Whether noise for a model's `tensors` is drawn at once, as each draw has a fixed cost.

    On a GPU that is the start of a kernel.  A CPU draws for one tensor after another, in the order
    of Opacus, so that all modes give the same run.
    """
    first = tensors[0]
    alike = all(t.dtype == first.dtype and t.device == first.device for t in tensors)
    return alike and (first.is_cuda or isinstance(generator, SecureGenerator))


def fill_gaussian(tensors: Sequence[torch.Tensor], std: float, generator: Generator | None) -> None:
    """Draw independent Gaussian noise of deviation `std` into `tensors`, one after another."""
    for tensor in tensors:
        if isinstance(generator, SecureGenerator):
            tensor.copy_(generator.normal(tensor.shape, std, tensor.dtype))
        else:
            tensor.normal_(0, std, generator=generator)


def optimizer_class(mode: str) -> Any:
    """The class of optimiser for a grad_sample_mode of `dpsgd`."""
    if mode == "bookkeeping":
        return summed_optimizer()
    from opacus.optimizers import get_optimizer_class

    return get_optimizer_class("flat", False, mode)


@cache
def summed_optimizer() -> Any:
    """The class SummedOptimizer, created at the first call: only private runs import Opacus."""
    from opacus.optimizers import DPOptimizerFastGradientClipping

    class SummedOptimizer(DPOptimizerFastGradientClipping):  # type: ignore[misc] # no types
        """Opacus' optimiser for gradients that arrive clipped and summed in `grad`.

        The contract is that of Opacus: it sums over physical batches, adds noise once and divides
        by the expected batch size.  Only needless copies and questions are left out.
        """

        _parameters: Sequence[Any] | None = None

        @property
        def params(self) -> Sequence[Any]:
            """The trained parameters, which are those of the first call."""
            if self._parameters is None:
                self._parameters = super().params
            return self._parameters

        def accumulate(self) -> None:
            """Add `grad` to the sum of the logical batch."""
            for parameter in self.params:
                if parameter.summed_grad is None:
                    parameter.summed_grad = parameter.grad
                else:
                    parameter.summed_grad.add_(parameter.grad)
                parameter.grad = None

        def add_noise(self) -> None:
            """Write the sum with noise of deviation sigma * C into `grad`."""
            std = self.noise_multiplier * self.max_grad_norm
            parameters = self.params
            noises = gaussian_like(parameters, std, self.generator)
            torch._foreach_add_(noises, [p.summed_grad for p in parameters])
            for parameter, noise in zip(parameters, noises):
                parameter.grad = noise

        def scale_grad(self) -> None:
            """Divide by the expected batch size."""
            torch._foreach_div_([p.grad for p in self.params], float(self.expected_batch_size))

        def zero_grad(self, set_to_none: bool = True) -> None:
            """Drop the gradients, and the sum too unless the logical batch goes on."""
            for group in self.param_groups:  # a frozen parameter may have one of before
                for parameter in group["params"]:
                    parameter.grad = None
            if not self._is_last_step_skipped:
                for parameter in self.params:
                    parameter.summed_grad = None

        def __reduce_ex__(self, protocol: Any) -> Any:
            raise TypeError(
                "A private optimizer cannot be copied or pickled: use the trainer's state_dict()."
            )

    return SummedOptimizer


def logical_step(optimizer: Any, chunks: Sequence[Any]) -> Iterator[Any]:
    """Yield the physical batches; the optimiser sums after each, and steps after the last."""
    # Discard the partial sum of an earlier step that failed half-way.
    optimizer._is_last_step_skipped = False
    optimizer.zero_grad(set_to_none=True)
    for number, chunk in enumerate(chunks, start=1):
        yield chunk
        optimizer.signal_skip_step(do_skip=number < len(chunks))
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def take_sum(optimizer: Any, parameters: Sequence[Any]) -> Delivered:
    """Take the clipped sum that a backward pass has left, as the optimiser accumulates it.

    The optimiser treats it like a physical batch that is not the last one of a step, so it draws
    no noise and takes no step.
    """
    try:
        optimizer.signal_skip_step(do_skip=True)
        optimizer.step()
        return Delivered([p.summed_grad for p in parameters], _norms_by_parameter(parameters))
    finally:
        optimizer._step_skip_queue.clear()
        optimizer._is_last_step_skipped = False
        optimizer.zero_grad(set_to_none=True)


def drop_not_finite(parameters: Sequence[Any]) -> None:
    """Make Opacus' per-example gradients zero for the examples for which one is not finite."""
    held = [p for p in parameters if isinstance(getattr(p, "grad_sample", None), torch.Tensor)]
    if not held or torch.stack([p.grad_sample.sum() for p in held]).isfinite().all():
        return
    finite = [p.grad_sample.isfinite().reshape(len(p.grad_sample), -1).all(1) for p in held]
    dropped = ~torch.stack(finite).all(0)
    for parameter in held:
        parameter.grad_sample = without(parameter.grad_sample, dropped)


def _norms_by_parameter(parameters: Sequence[Any]) -> torch.Tensor | None:
    """The norms of per-example gradients, float[b, parameters], if Opacus has left them."""
    norms_of: list[torch.Tensor] = []
    for parameter in parameters:
        norms = getattr(parameter, "_norm_sample", None)  # ghost
        rows = getattr(parameter, "grad_sample", None)  # hooks, functorch
        if norms is None and isinstance(rows, torch.Tensor):
            norms = torch.linalg.vector_norm(rows.flatten(1), dim=1)
        if norms is None:
            return None
        norms_of.append(norms)
    return torch.stack(norms_of, 1)
