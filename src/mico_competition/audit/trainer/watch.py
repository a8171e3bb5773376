"""Observes a run as the accountant's attacker does: every released gradient, and all weights.

It uses hooks of torch's optimisers, so any trainer that ends in one can be observed. The audit's
own optimiser receives the same gradients: weights that anything else moved differ from its weights.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from mico_competition.audit.trainer.paths import Path, parts_of
from mico_competition.training.settings import Settings

_OPTIMIZERS: dict[str, type[torch.optim.Optimizer]] = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
}


class Recorder(Protocol):
    """Receives the observations."""

    def batch(self, batches: Sequence[Tensor]) -> None:
        """A step on these batches follows, one of each model."""

    def release(self, batches: Sequence[Tensor]) -> None:
        """The optimiser has the released gradients of a step on these batches."""

    def end_epoch(self) -> None:
        """The steps of an epoch are done."""


class Watch:
    """An observer of `train.fit`: calls a recorder, and follows the weights.

    Args:
        path: the trained models.
        settings: of the run.
        recorder: receives the observations.

    Attributes:
        batches, releases: numbers of steps begun and of gradients released.
        unexplained: the first difference from the audit's own optimiser, in a clause; or empty.
    """

    def __init__(self, path: Path, settings: Settings, recorder: Recorder) -> None:
        self._path, self._settings, self._recorder = path, settings, recorder
        self.batches, self.releases = 0, 0
        self.unexplained = ""
        self._last: Sequence[Tensor] = ()

    def start(self, optimizer: torch.optim.Optimizer) -> None:
        """Watch `optimizer` from now on."""
        whole = self._path.whole
        self._named = dict(whole.named_parameters())
        self._own = {name: p.detach().clone().requires_grad_() for name, p in self._named.items()}
        self._buffers = {name: b.detach().clone() for name, b in whole.named_buffers()}
        kind = _OPTIMIZERS[self._settings.optimizer]
        arguments: dict[str, Any] = {"lr": self._settings.learning_rate}
        self._optimizer = kind(list(self._own.values()), **arguments)
        self._schedule = torch.optim.lr_scheduler.StepLR(
            self._optimizer, self._settings.lr_scheduler_step, self._settings.lr_scheduler_gamma
        )
        self._handles = [
            optimizer.register_step_pre_hook(self._hook(self._before_step)),
            optimizer.register_step_post_hook(self._hook(self._after_step)),
        ]

    def _hook(self, call: Callable[[], None]) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            with torch.no_grad():
                call()

        return hook

    def before(self, batch: Any) -> None:
        """A step follows."""
        self._compare("between two steps")
        self._last = parts_of(batch)
        self.batches += 1
        self._recorder.batch(self._last)

    def end_epoch(self) -> None:
        """Close an epoch."""
        self._recorder.end_epoch()
        with (
            warnings.catch_warnings()
        ):  # warning of a schedule that moves although no step was taken
            warnings.simplefilter("ignore")
            self._schedule.step()

    def end(self) -> None:
        """The run is over."""
        self._compare("after the last step")
        for handle in self._handles:
            handle.remove()

    def _before_step(self) -> None:
        self._recorder.release(self._last)
        for name, own in self._own.items():
            grad = self._named[name].grad
            own.grad = None if grad is None else grad.detach().clone()

    def _after_step(self) -> None:
        # Outside no_grad, as torch's own step switches gradients off itself.
        self._optimizer.step()
        self.releases += 1
        self._compare("by the optimizer's step")
        self._path.whole.reset()
        for name in self._own:
            if not name.startswith("model."):
                self._own[name].zero_()

    def _compare(self, when: str) -> None:
        """Note the first value that differs from the expected one, bit for bit."""
        if self.unexplained:
            return
        where = f"{when}, {self.releases:,} released gradients into the run"
        for name, own in self._own.items():
            now = self._named[name].detach()
            if not _same(own.detach(), now):
                off = float((own.detach() - now).abs().max())
                self.unexplained = f"{_short(name)} was moved by {off:.3g} {where}"
                return
        for name, before in self._buffers.items():
            now = dict(self._path.whole.named_buffers())[name]
            if not _same(before, now):
                self.unexplained = f"buffer {_short(name)} was changed {where}"
                return


def _same(one: Tensor, other: Tensor) -> bool:
    """Whether all values are the same bit for bit; NaN equals NaN."""
    return torch.equal(one, other) or torch.equal(one.nan_to_num(), other.nan_to_num())


def _short(name: str) -> str:
    return name.removeprefix("model.")
