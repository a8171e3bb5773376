"""The front door of private training: any model, any loss of single examples, and its epsilon.

`PrivateTrainer` draws the batches, takes the steps by `dpsgd.DPSGD`, counts them, and says what
they cost.  It refuses whatever would make its privacy claim wrong.  docs/METHODS.md, sections 8.5
and 11, has the mechanism; docs/PRIVACY.md says what the claim covers.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from mico_competition.models.precision import FLOAT32
from mico_competition.support.call_errors import explained
from mico_competition.support.counts import check_whole
from mico_competition.support.progress import stage
from mico_competition.training.accounting import Mechanism
from mico_competition.training.certificate import describe_claim, weights_digest
from mico_competition.training.continuations import (
    Moment,
    check_state,
    note_seed,
    optimizer_digest,
    sealed,
)
from mico_competition.training.dpsgd import DPSGD, GRAD_SAMPLE_MODES
from mico_competition.training.example_rows import OneShape, as_batch, part_of
from mico_competition.training.losses import ExampleLosses, Loss
from mico_competition.training.poisson_draws import PoissonDraws, restore, state_of
from mico_competition.training.private_plan import (
    check_module,
    check_number,
    check_opacus,
    check_seed,
    check_surroundings,
    checked_counts,
    claimed_delta,
    generators_of,
    held_by,
    planned_mechanism,
    warn_of_cost,
    warn_of_delta,
)
from mico_competition.training.step_loss import StepLoss
from mico_competition.training.weights_watch import WeightsWatch


class PrivateTrainer:
    """Trains a model by DP-SGD with a privacy claim: from your arrays to an epsilon.

    Every step trains on a batch that holds each record independently with probability
    `sample_rate`.  Each example's gradient is clipped to `max_grad_norm`, Gaussian noise of
    standard deviation `noise_multiplier * max_grad_norm` is added to their sum, and your optimizer
    takes its step with the result.  The claim holds for datasets that differ by one record, added
    or removed.  It covers the weights; the losses that `step` returns are not private.

    The first batch is a test: the clipped sum is compared with per-example gradients by plain
    autograd before any weight changes, and a model that mixes the examples of a batch is refused.
    `layers` shows how each layer's gradients are clipped.

    Args:
        model: a module in train mode, on its device.  Only parameters that require a gradient are
            trained and clipped: freeze a backbone by `requires_grad_(False)`, or use adapters.
            `model(inputs)` is called with the inputs of `step`, or `model(**inputs)` for a dict.
        optimizer: a torch optimizer over the trained parameters.
        target_epsilon: finds the least noise for this epsilon, in (0, 500], at `target_delta`.
        target_delta: in (0, 1); choose it well below 1 / num_records.
        noise_multiplier: sigma > 0, instead of `target_epsilon`.
        num_records: the length n of your data, such as len(inputs); batches are positions in
            0..n-1, so with a larger number `inputs[batch]` raises IndexError.
        batch_size: the expected length L of a batch, in 1..n; the sampling rate is
            q = 1 / ceil(n / L).
        epochs: passes over the data; the planned steps are ceil(n / L) * epochs.
        max_grad_norm: C > 0, the L2 norm to which each example's gradient is clipped.
        loss: maps the model's outputs and the targets to one value an example, float[b]; or a
            name: "cross_entropy", "squared_error", "multi_label", "tokens" (the mean over
            positions whose target is not -100) or "next_token" (the same, for causal models).
        max_physical_batch_size: the most examples in one forward pass, which memory must hold; a
            larger number is faster.  The mechanism, and so epsilon, does not depend on it.
        seed: makes batches and noise repeatable.  Keep it secret: whoever knows it can subtract
            the noise.  Two models of the same data must not have the same seed.
        secure_mode: draws batches and noise from AES-256 with a key of the operating system.
        grad_sample_mode: "bookkeeping", or one of Opacus' modes "hooks", "functorch", "ghost".
        precision: of forward and backward passes: "float32", "tf32" (NVIDIA's GPUs, from the A100
            on) or "bfloat16" (by autocast).  Norms, clipped sums, noise and weights are float32
            in all three; the last two need the mode "bookkeeping".  Their rounding may depend on
            the shape of inputs, so examples of another shape than the first ones are refused: pad
            all sentences to the same length.
        cuda_graphs: on a GPU, repeats the passes of a step from recordings, one for each shape of
            batches.  What the model and the loss compute in Python must be the same in each step.

    Raises:
        ValueError: if an argument is out of range, or the model cannot be trained privately.
        ImportError: with the command that helps, if Opacus is not installed.

    Sources: Abadi et al., CCS 2016 (the step); Gopi, Lee and Wutschitz, NeurIPS 2021 (the
    accountant); docs/METHODS.md, sections 8.5 and 11.

    Example:
        >>> import torch
        >>> from mico_competition import PrivateTrainer
        >>> _ = torch.manual_seed(0)
        >>> inputs, targets = torch.randn(200, 4), torch.randint(3, (200,))
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(),
        ...                             torch.nn.Linear(8, 3))
        >>> trainer = PrivateTrainer(  # or target_epsilon=4, target_delta=1e-5: finds the noise
        ...     model, torch.optim.SGD(model.parameters(), lr=0.1), noise_multiplier=1.25,
        ...     num_records=200, batch_size=50, epochs=2, max_grad_norm=1.0)
        >>> for batch in trainer.batches():
        ...     loss = trainer.step(inputs[batch], targets[batch])
        >>> trainer.steps_taken, round(trainer.epsilon(delta=1e-5), 1)
        (8, 3.9)
    """

    @explained
    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        num_records: int,
        batch_size: int,
        epochs: int,
        max_grad_norm: float,
        target_epsilon: float | None = None,
        target_delta: float | None = None,
        noise_multiplier: float | None = None,
        loss: str | Loss = "cross_entropy",
        max_physical_batch_size: int = 128,
        seed: int | None = None,
        secure_mode: bool = False,
        grad_sample_mode: str = GRAD_SAMPLE_MODES[0],
        precision: str = FLOAT32,
        cuda_graphs: bool = False,
    ) -> None:
        check_opacus()
        check_module(model, optimizer)
        num_records, batch_size, epochs, max_physical_batch_size = checked_counts(
            num_records, batch_size, epochs, max_physical_batch_size
        )
        check_seed(seed, secure_mode)
        check_number("max_grad_norm", max_grad_norm)
        self.model, self.optimizer = model, optimizer
        self.device = next(model.parameters()).device
        self.num_records, self.batch_size, self.epochs = num_records, batch_size, epochs
        self.steps_per_epoch = -(-num_records // batch_size)
        self.max_grad_norm, self.secure_mode = max_grad_norm, secure_mode
        self.planned = planned_mechanism(
            noise_multiplier,
            target_epsilon,
            target_delta,
            sample_rate=1 / self.steps_per_epoch,
            num_steps=self.steps_per_epoch * epochs,
        )
        self.target_delta, self.precision = target_delta, precision
        if target_delta is not None:
            warn_of_delta(target_delta, num_records)
        self._seed, self._moment = seed, Moment()
        self._noise, sampling = generators_of(seed, secure_mode, self.device)
        self._draws = PoissonDraws(
            num_records,
            sample_rate=self.sample_rate,
            num_steps=self.num_steps,
            generator=sampling,
        )
        self._engine = self._make_engine(
            loss, max_physical_batch_size, grad_sample_mode, cuda_graphs
        )
        self._weights, self._shape = WeightsWatch(model), OneShape()
        self._held = held_by(optimizer)
        if self._engine.mode == "bookkeeping":
            warn_of_cost(self._engine.keeper.layers.whole.values(), max_physical_batch_size)

    def _make_engine(self, loss: str | Loss, physical: int, mode: str, graphs: bool) -> DPSGD:
        """What takes the steps; it calls `_begin` before each change of weights."""
        losses = ExampleLosses(loss)
        losses.check(self.model)
        engine = DPSGD(
            self.model,
            self.optimizer,
            noise_multiplier=self.noise_multiplier,
            max_grad_norm=self.max_grad_norm,
            expected_batch_size=self.num_records // self.steps_per_epoch,
            max_physical_batch_size=physical,
            grad_sample_mode=mode,
            precision=self.precision,
            cuda_graphs=graphs,
            noise_generator=self._noise,
            losses=losses,
        )
        engine.optimizer.attach_step_hook(lambda _: self._begin())
        return engine

    @property
    def noise_multiplier(self) -> float:
        """sigma, the noise's standard deviation in units of `max_grad_norm`."""
        return self.planned.noise_multiplier

    @property
    def sample_rate(self) -> float:
        """q, the probability that a record is in a batch."""
        return self.planned.sample_rate

    @property
    def num_steps(self) -> int:
        """The number of planned steps."""
        return self.planned.num_steps

    @property
    def steps_taken(self) -> int:
        """The number of steps that `epsilon` counts."""
        return self._draws.used

    def batches(self, steps: int | None = None, *, progress: bool = True) -> Iterator[Tensor]:
        """Draw the batches of the next steps, each to be passed to `step` at once.

        Args:
            steps: how many, for example `steps_per_epoch`; by default all that remain.
            progress: whether to show a progress bar on a terminal.

        Yields:
            int64[b] on the CPU, the positions of the batch's records in 0..n-1, sorted.  A batch
            may be empty; it is a step too.

        Raises:
            ValueError: if no planned step remains, or if a batch was left out.
        """
        if steps is not None:
            check_whole("steps", steps, least=1)
        self._weights.check()
        drawn = self._draws.batches(steps)
        left = self.num_steps - self.steps_taken
        total = left if steps is None else min(steps, left)
        with stage("Training", total, show=progress) as shown:
            for batch in drawn:
                yield batch
                shown.update()

    @explained
    def step(self, inputs: Any, targets: Any) -> Tensor:
        """Take one step on the batch that `batches` has given.

        The rows must be those of the batch, and nothing else may depend on the records: the
        trainer cannot see rows of other positions, values that the model or the loss takes from
        elsewhere, or a tensor outside the model that you train beside it.  The claim does not
        hold then.

        Args:
            inputs: the batch's inputs in the order of its positions: a tensor or array [b, ...],
                or a dict of them, which becomes the model's named arguments.  Each has one row
                an example; None is allowed in a dict.
            targets: the targets of the same examples, [b, ...]: for the default loss int[b],
                classes counted from 0, or float[b, classes], their probabilities.

        Returns:
            The mean loss of the examples before the step, 0 for an empty batch (0-dimensional,
            without a graph).  It is not private: do not publish it.

        Raises:
            ValueError: if no batch waits, the rows are not as many as the batch has, the loss does
                not return one value an example, the examples have another shape than before (in
                low precision), or the model cannot be trained privately.
        """
        self._weights.check(values=False)
        self._moment.check()
        check_surroundings(self.optimizer, self._held, self.device)
        inputs, targets = as_batch(inputs, targets)
        rows = len(targets)
        self._draws.check(rows)
        low = self.precision != FLOAT32
        shape = self._shape.check(inputs, targets, self.precision) if low else None
        try:
            total = self._engine.step(
                torch.arange(rows, device=self.device),
                lambda at: part_of(inputs, at, self.device),
                targets.to(self.device),
                num_records=self.num_records,
            )
        except BaseException:
            if self._weights.changing:  # some may have changed, so the step counts
                self._draws.use()
            else:
                self._weights.restored()
            raise
        self._draws.use()
        self._shape.keep(shape)
        self._weights.end()
        return (total / max(1, rows)).as_subclass(StepLoss)

    def _begin(self) -> None:
        """Called when the noisy sum is ready, right before the optimizer changes weights."""
        self._weights.begin()
        self._moment.leave()
        if not self.steps_taken:
            note_seed(self._seed)

    def epsilon(self, delta: float | None = None) -> float:
        """Compute the epsilon of the steps taken so far, by the PRV accountant.

        Args:
            delta: in (0, 1); by default `target_delta`.

        Returns:
            An upper bound of epsilon >= 0; 0 before the first step, and infinite if the accountant
            cannot compute a bound.

        Raises:
            ValueError: if delta is out of range or missing, weights were changed otherwise, or a
                weight is not finite.
        """
        self._weights.check_claimable()
        delta = claimed_delta(self.target_delta if delta is None else delta)
        return self.spent().epsilon(delta) if self.steps_taken else 0.0

    def spent(self) -> Mechanism:
        """The mechanism of the steps taken so far, at least one."""
        return Mechanism(self.noise_multiplier, self.sample_rate, max(1, self.steps_taken))

    def certificate(self, delta: float | None = None) -> dict[str, Any]:
        """Describe the privacy claim of the steps taken so far, as values for JSON.

        Its epsilon is that of `epsilon`, and a second accountant of another library must agree.

        Args:
            delta: as in `epsilon`.

        Raises:
            ValueError: if no step was taken, weights were changed otherwise or are not finite, a
                parameter was frozen or thawed, or the epsilon is infinite or disputed.
        """
        if not self.steps_taken:
            raise ValueError("No step has been taken, so there is nothing to certify: train first.")
        self._weights.check_flags()
        self._weights.check_claimable()
        delta = claimed_delta(self.target_delta if delta is None else delta)
        epsilon = self.epsilon(delta)
        if delta != self.target_delta:
            warn_of_delta(delta, self.num_records)
        return describe_claim(self, epsilon, delta)

    def layers(self) -> dict[str, str]:
        """Describe how each trained layer's gradients are clipped, by the layer's name.

        Layers with a formula cost little.  For the others, each example's gradient is computed in
        full, which takes memory for its numbers times the physical batch.
        """
        if self._engine.mode != "bookkeeping":
            return {"model": f"{type(self.model).__name__}: Opacus' mode {self._engine.mode}"}
        return self._engine.keeper.layers.described()

    def state_dict(self) -> dict[str, Any]:
        """What is needed to go on, besides the states of model and optimizer.

        Save the three together, for example by `torch.save`, and the state of torch's global
        generator too if the model has dropout.  The file is secret: it holds the state of the
        noise.  Continue a run only once: two continuations would share their noise.  In one
        process the second is refused; other processes cannot be seen.
        """
        self._weights.check()
        return sealed(
            {
                "privacy": self._privacy(),
                "draws": self._draws.state_dict(),
                "noise": state_of(self._noise),
                "weights": weights_digest(self.model),
                "optimizer": optimizer_digest(self.optimizer),
                "moment": self._moment.saved(),
            }
        )

    def load_state_dict(
        self, state: dict[str, Any], *, discard_other_continuation: bool = False
    ) -> None:
        """Go on from a state; load those of the model and of the optimizer first.

        Args:
            state: what `state_dict` gave.
            discard_other_continuation: allows a state from which this process took steps already.
                The new steps add the same noise as those.  Whoever sees weights of both
                continuations, or what was computed from them, can find out records, and no epsilon
                holds: say this only if you delete all that came of the other one.

        Raises:
            ValueError: if the state is damaged, has other privacy parameters, belongs to other
                weights or another state of the optimizer, or was continued already.
        """
        check_state(state, self._privacy(), self.model, self.optimizer)
        self._moment.load(state["moment"], allowed=discard_other_continuation)
        self._draws.load_state_dict(state["draws"])
        restore(self._noise, state["noise"])
        self._weights.adopt()

    def __repr__(self) -> str:
        return (
            f"PrivateTrainer({type(self.model).__name__}, noise_multiplier="
            f"{self.noise_multiplier:.4g}, max_grad_norm={self.max_grad_norm:g}, sample_rate="
            f"{self.sample_rate:.4g}, step {self.steps_taken} of {self.num_steps})"
        )

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("_") and "_held" in vars(self):
            raise AttributeError(
                f"{name} of a PrivateTrainer cannot be set, since the steps and the certificate "
                "use what it was made with: make a new trainer."
            )
        super().__setattr__(name, value)

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError(
            "A PrivateTrainer cannot be copied or pickled, since the copy would add the same "
            "noise: save its state_dict(), and load that into a trainer made in the same way."
        )

    def _privacy(self) -> dict[str, Any]:
        return {
            "noise_multiplier": self.noise_multiplier,
            "sample_rate": self.sample_rate,
            "num_steps": self.num_steps,
            "num_records": self.num_records,
            "max_grad_norm": self.max_grad_norm,
            "secure_mode": self.secure_mode,
        }
