"""One private step: Poisson batch, per-example clipping, noise once, and what it costs in epsilon.

DP-SGD (Abadi et al., CCS 2016, arXiv 1607.00133, Algorithm 1) on Opacus, which owns the
accountant, the noise and the optimiser's contract: clipped gradients are summed over the
physical batches of a logical one, noise of standard deviation sigma * C is added once, and the
sum is divided by the expected batch size.  Batches are drawn here, with the semantics of Opacus'
`UniformWithReplacementSampler`: each record independently with probability `sample_rate`.
This module never sees a file, a seed of a split, or who is a member.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from opacus.accountants import PRVAccountant
from opacus.accountants.utils import get_noise_multiplier
from opacus.grad_sample.utils import get_gsm_class
from opacus.optimizers import DPOptimizerFastGradientClipping, get_optimizer_class
from opacus.utils.fast_gradient_clipping_utils import DPTensorFastGradientClipping
from opacus.validators import ModuleValidator
from torch import nn
from torch.nn.functional import cross_entropy

from mico_competition.bookkeeping import BookKeeper
from mico_competition.models import logits

# Ours first; the others are Opacus' own, for comparison and for models that ours does not know.
GRAD_SAMPLE_MODES = ("bookkeeping", "hooks", "functorch", "ghost")

# The accountant's bound is an upper one: the true epsilon lies at most this far below it.
EPS_ERROR = 0.1

Inputs = torch.Tensor | dict
Batch = Callable[[torch.Tensor], Inputs]


@dataclass(frozen=True)
class Mechanism:
    """What the accountant needs: a Poisson-subsampled Gaussian, `num_steps` times.

    Attributes:
        noise_multiplier: sigma > 0, the noise's standard deviation in units of max_grad_norm.
        sample_rate: q in (0, 1], the probability that a record is in a batch.
        num_steps: number of steps, 1 or more.
    """

    noise_multiplier: float
    sample_rate: float
    num_steps: int

    @lru_cache(maxsize=256)  # noqa: B019 (frozen and small; a fleet asks for the same few)
    def epsilon(self, target_delta: float) -> float:
        """Upper bound of epsilon at `target_delta`, at most EPS_ERROR above the true one.

        Numerical composition of privacy loss random variables: Gopi, Lee and Wutschitz,
        NeurIPS 2021, arXiv 2106.02848.
        """
        accountant = PRVAccountant()
        accountant.history = [(self.noise_multiplier, self.sample_rate, self.num_steps)]
        with _quiet_accountant():
            return float(accountant.get_epsilon(delta=target_delta, eps_error=EPS_ERROR))

    @classmethod
    @lru_cache(maxsize=256)
    def for_target(
        cls, *, target_epsilon: float, target_delta: float, sample_rate: float, num_steps: int
    ) -> Mechanism:
        """The mechanism with the least noise whose epsilon is at most `target_epsilon`.

        Raises:
            ValueError: if no noise in reach gives that epsilon.
        """
        with _quiet_accountant():
            noise_multiplier = get_noise_multiplier(
                target_epsilon=target_epsilon,
                target_delta=target_delta,
                sample_rate=sample_rate,
                steps=num_steps,
                accountant="prv",
                eps_error=EPS_ERROR,
            )
        return cls(float(noise_multiplier), sample_rate, num_steps)


@contextmanager
def _quiet_accountant() -> Iterator[None]:
    """Integrating a truncated PRV warns of round-off that its error bound already counts."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def poisson_batches(
    num_records: int,
    *,
    sample_rate: float,
    num_steps: int,
    generator: torch.Generator,
) -> Iterator[torch.Tensor]:
    """`num_steps` batches of positions below `num_records`, each drawn with `sample_rate`.

    A batch may be empty; it still counts as a step.
    """
    for _ in range(num_steps):
        drawn = torch.rand(num_records, generator=generator, device=generator.device)
        yield (drawn < sample_rate).nonzero().squeeze(1)


class PrivateTrainer:
    """A model and its optimiser, stepped by logical batches under DP-SGD.

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
        noise_generator: torch.Generator | None = None,
    ) -> None:
        if not noise_multiplier > 0:
            raise ValueError(
                f"Expected noise_multiplier={noise_multiplier} > 0: without noise training is "
                "not private."
            )
        if not 0 < max_grad_norm < float("inf"):
            raise ValueError(f"Expected 0 < max_grad_norm={max_grad_norm} < inf.")
        if grad_sample_mode not in GRAD_SAMPLE_MODES:
            raise ValueError(
                f"Unknown grad_sample_mode {grad_sample_mode!r}: choose one of "
                f"{', '.join(GRAD_SAMPLE_MODES)}."
            )
        check_trainable(model, optimizer)
        self.max_physical_batch_size = max_physical_batch_size
        self.max_grad_norm = max_grad_norm
        self.mode = grad_sample_mode
        self.model = self._wrap(model)
        kind = (
            SummedOptimizer
            if grad_sample_mode == "bookkeeping"
            else get_optimizer_class("flat", False, grad_sample_mode)
        )
        self.optimizer = kind(
            optimizer,
            noise_multiplier=noise_multiplier,
            max_grad_norm=max_grad_norm,
            expected_batch_size=expected_batch_size,
            loss_reduction="mean",
            generator=noise_generator,
        )

    def _wrap(self, model: nn.Module) -> Any:
        """The model, instrumented so that a backward pass finds per-example norms."""
        if self.mode == "bookkeeping":
            self.keeper = BookKeeper(model)
            return model
        extra = {"max_grad_norm": self.max_grad_norm} if self.mode == "ghost" else {}
        return get_gsm_class(self.mode)(
            model,
            loss_reduction="sum",
            strict=False,
            force_functorch=self.mode == "functorch",
            **extra,
        )

    def step(self, batch: torch.Tensor, inputs: Batch, labels: torch.Tensor) -> torch.Tensor:
        """One step of the mechanism on a logical batch; noise is added even if it is empty.

        Args:
            batch: int64[b], positions of the batch's records, b >= 0.
            inputs: takes positions and gives the model's inputs for them.
            labels: int64[n], labels by position.

        Returns:
            The sum of the batch's losses before the step (0-dimensional, on the device).
        """
        total = labels.new_zeros((), dtype=torch.float32)
        chunks = physical_batches(batch, self.max_physical_batch_size)
        # What a step that failed half-way had summed must not count in this one.
        self.optimizer._is_last_step_skipped = False
        self.optimizer.zero_grad(set_to_none=True)
        for number, chunk in enumerate(chunks, start=1):
            if len(chunk):
                total += self._backward(inputs(chunk), labels[chunk])
            else:
                self._backward_nothing()
            self.optimizer.signal_skip_step(do_skip=number < len(chunks))
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
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
            if self.mode == "ghost":
                DPTensorFastGradientClipping(
                    self.model, self.optimizer, losses, loss_reduction="sum"
                ).backward()
            else:
                losses.sum().backward()
        return losses.detach().sum()

    def _backward_nothing(self) -> None:
        """What a backward pass over no example leaves, without asking the model to run on none."""
        for parameter in self.model.parameters():
            if self.mode in ("bookkeeping", "ghost"):
                parameter.grad = torch.zeros_like(parameter)
            else:
                parameter.grad_sample = parameter.new_zeros((0, *parameter.shape))


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
        """Noise of deviation sigma * C, drawn as Opacus draws it, into `grad`."""
        std = self.noise_multiplier * self.max_grad_norm
        for parameter in self.params:
            noise = torch.empty_like(parameter).normal_(0, std, generator=self.generator)
            parameter.grad = noise.add_(parameter.summed_grad)


def clip_factors(norms: torch.Tensor, max_grad_norm: float) -> torch.Tensor:
    """min(1, C / (norm + 1e-6)): the factor of each example, with Opacus' rounding margin."""
    return (max_grad_norm / (norms + 1e-6)).clamp_(max=1.0)


def per_example_losses(model: nn.Module, inputs: Inputs, labels: torch.Tensor) -> torch.Tensor:
    """float[b], the cross-entropy of each example; one loss an example, never mixed."""
    return cross_entropy(logits(model, inputs), labels, reduction="none")


def physical_batches(batch: torch.Tensor, size: int) -> Sequence[torch.Tensor]:
    """`batch` cut into parts of at most `size`; an empty batch is one empty part."""
    return batch.split(size) if len(batch) else (batch,)


def check_trainable(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """ValueError, naming layer or parameter, unless all of the model can be trained privately."""
    faults = ModuleValidator.validate(model, strict=False)
    if faults:
        raise ValueError(f"This model cannot be trained privately: {faults[0]}")
    frozen = [name for name, p in model.named_parameters() if not p.requires_grad]
    if frozen:
        raise ValueError(
            f"Parameter {frozen[0]} is frozen: train every parameter, or take it out of the model."
        )
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    loose = [name for name, p in model.named_parameters() if id(p) not in held]
    if loose:
        raise ValueError(f"Parameter {loose[0]} is not the optimizer's: give it all parameters.")
