"""One private step: a Poisson batch, per-example clipping, noise once a logical batch.

DP-SGD (Abadi et al., CCS 2016, arXiv 1607.00133, algorithm 1; docs/METHODS.md, sections 11.1 and
11.2) on Opacus, which owns the modes to compare with and the optimiser's contract: clipped
gradients are summed over the physical batches of a logical one, noise of standard deviation sigma *
C is added once, and the sum is divided by the expected batch size.  Batches are drawn here, with
the semantics of Opacus' `UniformWithReplacementSampler`, each record independently with probability
`sample_rate`.  This module never sees a file, a seed of a split, or who is a member.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from mico_competition.models.architectures import logits
from mico_competition.training.bookkeeping import BookKeeper
from mico_competition.training.check_batches import Batch as Examples
from mico_competition.training.gradient_checks import Delivered, unfit
from mico_competition.training.model_state import plain_name
from mico_competition.training.private_checks import PrivacyChecks, check_trainable
from mico_competition.training.secure_random import SecureGenerator

# Ours first; the others are Opacus' own, for comparison and for models that ours does not know.
GRAD_SAMPLE_MODES = ("bookkeeping", "hooks", "functorch", "ghost")

Inputs = torch.Tensor | dict
Generator = torch.Generator | SecureGenerator
Batch = Callable[[torch.Tensor], Inputs]


def poisson_batches(
    num_records: int,
    *,
    sample_rate: float,
    num_steps: int,
    generator: Generator,
) -> Iterator[torch.Tensor]:
    """`num_steps` batches of positions below `num_records`, each drawn with `sample_rate`.

    Each record is in a batch independently of all others, in order of position.  A batch may be
    empty; it still counts as a step.
    """
    for _ in range(num_steps):
        if isinstance(generator, SecureGenerator):
            yield generator.bernoulli(num_records, sample_rate).nonzero().squeeze(1)
        else:
            yield poisson_draw(num_records, sample_rate, generator)


def poisson_draw(num_records: int, sample_rate: float, generator: torch.Generator) -> torch.Tensor:
    """int64[b], sorted: where `num_records` independent coins of `sample_rate` come up.

    Draws the gaps between them, which are geometric (Devroye, Non-Uniform Random Variate
    Generation, 1986, chapter X.2), so the cost grows with the batch, not with the dataset.
    """
    if sample_rate >= 1:
        return torch.arange(num_records, device=generator.device)
    expected = num_records * sample_rate
    count = math.ceil(expected + 6 * math.sqrt(expected)) + 8
    last, parts = -1.0, []
    while last < num_records:
        uniform = torch.rand(
            count, generator=generator, dtype=torch.float64, device=generator.device
        )
        gaps = uniform.neg_().log1p_().div_(math.log1p(-sample_rate)).floor_().add_(1)
        parts.append(gaps.cumsum(0).add_(last))
        last = float(parts[-1][-1])
    drawn = torch.cat(parts)
    return drawn[drawn < num_records].long()


def gaussian_like(
    tensors: Sequence[torch.Tensor], std: float, generator: Generator | None
) -> list[torch.Tensor]:
    """Independent Gaussian noise of deviation `std`, one tensor like each of `tensors`."""
    if isinstance(generator, SecureGenerator):
        # One draw for all: each has a fixed cost.
        flat = generator.normal((sum(t.numel() for t in tensors),), std, tensors[0].dtype)
        parts = flat.split([t.numel() for t in tensors])
        return [part.view_as(t) for part, t in zip(parts, tensors)]
    # As Opacus draws it, so that modes can be exchanged without changing a run.
    return [torch.empty_like(t).normal_(0, std, generator=generator) for t in tensors]


class PrivateTrainer:
    """A model and its optimiser, stepped by logical batches under DP-SGD.

    The first batch that is not empty goes through `private_checks` before any weight moves, so
    a model whose examples mix, or whose gradients the mode gets wrong, is refused, not trained.

    Args:
        model: the module to train, in train mode, on its device.  Every parameter is trained
            and clipped; batch normalisation and the like, which mix examples, are refused.
        optimizer: a torch optimiser over all of the model's parameters.
        noise_multiplier: sigma > 0.
        max_grad_norm: C > 0, the L2 norm that a per-example gradient is clipped to.
        expected_batch_size: the logical batch's expected length, which the sum is divided by.
        max_physical_batch_size: the most examples in one forward pass (memory, not privacy).
        grad_sample_mode: how per-example norms are found: one of GRAD_SAMPLE_MODES.
        noise_generator: the generator that alone drives the noise.

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
        noise_generator: Generator | None = None,
    ) -> None:
        check_private(noise_multiplier, max_grad_norm)
        if grad_sample_mode not in GRAD_SAMPLE_MODES:
            raise ValueError(
                f"Unknown grad_sample_mode {grad_sample_mode!r}: choose one of "
                f"{', '.join(GRAD_SAMPLE_MODES)}."
            )
        if isinstance(noise_generator, SecureGenerator) and grad_sample_mode != "bookkeeping":
            raise ValueError(
                f"Secure randomness does not reach Opacus' mode {grad_sample_mode!r}: use "
                "grad_sample_mode bookkeeping."
            )
        check_trainable(model, optimizer)
        self.max_physical_batch_size = max_physical_batch_size
        self.max_grad_norm = max_grad_norm
        self.mode = grad_sample_mode
        self.model = self._wrap(model)
        self.optimizer = _optimizer_class(grad_sample_mode)(
            optimizer,
            noise_multiplier=noise_multiplier,
            max_grad_norm=max_grad_norm,
            expected_batch_size=expected_batch_size,
            loss_reduction="mean",
            generator=noise_generator,
        )
        self.checks = PrivacyChecks(
            self.model,
            lambda batch: per_example_losses(self.model, batch.inputs, batch.labels),
            self._plain,
            self._clipped_sum,
            max_grad_norm=max_grad_norm,
            mode=grad_sample_mode,
        )

    def _wrap(self, model: nn.Module) -> Any:
        """The model, instrumented so that a backward pass finds per-example norms."""
        if self.mode == "bookkeeping":
            self.keeper = BookKeeper(model)
            return model
        from opacus.grad_sample.utils import get_gsm_class

        extra = {"max_grad_norm": self.max_grad_norm} if self.mode == "ghost" else {}
        try:
            return get_gsm_class(self.mode)(
                model,
                loss_reduction="sum",
                strict=False,
                force_functorch=self.mode == "functorch",
                **extra,
            )
        except RuntimeError as error:  # NotImplementedError among them
            raise unfit(self.mode, error) from error

    def step(self, batch: torch.Tensor, inputs: Batch, labels: torch.Tensor) -> torch.Tensor:
        """One step of the mechanism on a logical batch; noise is added even if it is empty.

        Args:
            batch: int64[b], positions of the batch's records, b >= 0.
            inputs: takes positions and gives the model's inputs for them.
            labels: int64[n], labels by position.

        Returns:
            The sum of the batch's losses before the step (0-dimensional, on the device).

        Raises:
            ValueError: naming what is wrong, if the model turns out not to be private.
        """
        total = labels.new_zeros((), dtype=torch.float32)
        chunks = physical_batches(batch, self.max_physical_batch_size)
        # What a step that failed half-way had summed must not count in this one.
        self.optimizer._is_last_step_skipped = False
        self.optimizer.zero_grad(set_to_none=True)
        for number, chunk in enumerate(chunks, start=1):
            if len(chunk):
                total += self._checked_backward(inputs(chunk), labels[chunk], len(labels))
            else:
                self._backward_nothing()
            self.optimizer.signal_skip_step(do_skip=number < len(chunks))
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
        return total

    def _checked_backward(self, inputs: Inputs, labels: torch.Tensor, n: int) -> torch.Tensor:
        """`_backward`, once the checks have passed; n bounds the length of a batch."""
        largest = min(self.max_physical_batch_size, max(n, len(labels)))
        self.checks.before(Examples(inputs, labels), largest)
        total = self._backward(inputs, labels)
        self.checks.after()
        return total

    def _backward(self, inputs: Inputs, labels: torch.Tensor) -> torch.Tensor:
        """Leave clipped or per-example gradients where the optimiser looks for them."""
        if self.mode == "bookkeeping":
            with self.keeper.recording():
                losses = per_example_losses(self.model, inputs, labels)
                norms = self.keeper.norms(losses)
            self.keeper.write_weighted_sum(clip_factors(norms, self.max_grad_norm))
            return losses.detach().sum()
        losses = per_example_losses(self.model, inputs, labels)
        with warnings.catch_warnings():
            # The inputs of the first layer need no gradient; its parameters do.
            warnings.filterwarnings("ignore", message="Full backward hook is firing")
            warnings.filterwarnings("ignore", message="In CPU autocast")  # Opacus', of functorch
            if self.mode == "ghost":
                from opacus.utils.fast_gradient_clipping_utils import DPTensorFastGradientClipping

                DPTensorFastGradientClipping(
                    self.model, self.optimizer, losses, loss_reduction="sum"
                ).backward()
            else:
                losses.sum().backward()
        return losses.detach().sum()

    @contextmanager
    def _plain(self) -> Iterator[None]:
        """Passes in this block are plain ones: Opacus' hooks rest, as ours do by themselves."""
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
        """What a physical batch adds to the sum, clipped to `max_grad_norm`; nothing is kept."""
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
                if isinstance(error, AttributeError):  # of ghost clipping, which stumbles there
                    self._check_found()
                raise unfit(self.mode, error) from error
            self._check_found()
            return take_sum(self.optimizer, list(self.model.parameters()))
        finally:
            for holder in held:
                holder.max_grad_norm = self.checks.max_grad_norm

    def _check_found(self) -> None:
        """ValueError, naming a parameter of which Opacus has found no per-example gradient."""
        for name, parameter in self.model.named_parameters() if self.mode != "bookkeeping" else ():
            found = (getattr(parameter, name, None) for name in ("grad_sample", "_norm_sample"))
            if all(each is None for each in found):
                raise ValueError(
                    f"Parameter {plain_name(name)} has no per-example gradient in grad_sample_mode "
                    f"{self.mode}: call the layer that it belongs to, not a function of it."
                )

    def _backward_nothing(self) -> None:
        """What a backward pass over no example leaves, without asking the model to run on none."""
        for parameter in self.model.parameters():
            if self.mode in ("bookkeeping", "ghost"):
                parameter.grad = torch.zeros_like(parameter)
            else:
                parameter.grad_sample = parameter.new_zeros((0, *parameter.shape))


def _optimizer_class(mode: str) -> Any:
    """The optimiser that goes with a grad_sample_mode."""
    if mode == "bookkeeping":
        return summed_optimizer()
    from opacus.optimizers import get_optimizer_class

    return get_optimizer_class("flat", False, mode)


@cache
def summed_optimizer() -> Any:
    """The class SummedOptimizer, made when first asked for: only private runs need Opacus."""
    from opacus.optimizers import DPOptimizerFastGradientClipping

    class SummedOptimizer(DPOptimizerFastGradientClipping):
        """Opacus' optimiser for gradients that arrive clipped and summed in `grad`.

        The contract is Opacus': sum over physical batches, noise once, division by the expected
        batch size.  Only needless copies are left out.
        """

        def accumulate(self) -> None:
            """Add `grad` to the sum of the logical batch."""
            for parameter in self.params:
                if parameter.summed_grad is None:
                    parameter.summed_grad = parameter.grad
                else:
                    parameter.summed_grad.add_(parameter.grad)
                parameter.grad = None

        def add_noise(self) -> None:
            """Noise of deviation sigma * C on the sum, into `grad`."""
            std = self.noise_multiplier * self.max_grad_norm
            parameters = self.params
            for parameter, noise in zip(parameters, gaussian_like(parameters, std, self.generator)):
                parameter.grad = noise.add_(parameter.summed_grad)

    return SummedOptimizer


def __getattr__(name: str) -> Any:
    if name == "SummedOptimizer":
        return summed_optimizer()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def take_sum(optimizer: Any, parameters: Sequence[Any]) -> Delivered:
    """The clipped sum that a backward pass has left, by the optimiser's own accumulation.

    As in a physical batch that is not the last: no noise is drawn and no step taken.
    """
    try:
        optimizer.signal_skip_step(do_skip=True)
        optimizer.step()
        return Delivered([p.summed_grad for p in parameters], _norms_by_parameter(parameters))
    finally:
        optimizer._step_skip_queue.clear()
        optimizer._is_last_step_skipped = False
        optimizer.zero_grad(set_to_none=True)


def _norms_by_parameter(parameters: Sequence[Any]) -> torch.Tensor | None:
    """float[b, parameters], norms of per-example gradients, where Opacus has left them."""
    found = []
    for parameter in parameters:
        norms = getattr(parameter, "_norm_sample", None)  # ghost
        rows = getattr(parameter, "grad_sample", None)  # hooks, functorch
        if norms is None and isinstance(rows, torch.Tensor):
            norms = torch.linalg.vector_norm(rows.flatten(1), dim=1)
        if norms is None:
            return None
        found.append(norms)
    return torch.stack(found, 1)


def clip_factors(norms: torch.Tensor, max_grad_norm: float) -> torch.Tensor:
    """min(1, C / (norm + 1e-6)): the factor of each example, with Opacus' rounding margin."""
    return (max_grad_norm / (norms + 1e-6)).clamp_(max=1.0)


def per_example_losses(model: nn.Module, inputs: Inputs, labels: torch.Tensor) -> torch.Tensor:
    """float[b], the cross-entropy of each example; one loss an example, never mixed."""
    return cross_entropy(logits(model, inputs), labels, reduction="none")


def physical_batches(batch: torch.Tensor, size: int) -> Sequence[torch.Tensor]:
    """`batch` cut into parts of at most `size`; an empty batch is one empty part."""
    return batch.split(size) if len(batch) else (batch,)


def check_private(noise_multiplier: float, max_grad_norm: float) -> None:
    """ValueError unless there is noise, and a norm to clip to."""
    if not noise_multiplier > 0:
        raise ValueError(
            f"Expected noise_multiplier={noise_multiplier} > 0: without noise nothing is private."
        )
    if not 0 < max_grad_norm < float("inf"):
        raise ValueError(f"Expected 0 < max_grad_norm={max_grad_norm} < inf.")
