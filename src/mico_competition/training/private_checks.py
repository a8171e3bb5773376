"""The checks of a private trainer: before training, on its first batch, and at every later step.

Before training, unsuitable layers are refused.  On the first batch that is
not empty, before any weight changes, the forward pass (`forward_checks`) and the clipped sum
(`gradient_checks`) are checked.  At every later batch, the checks make sure that the forward pass
writes to no weight or buffer.  A failed check raises ValueError, and nothing is trained.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mico_competition.models.precision import FLOAT32
from mico_competition.training.check_batches import Batch
from mico_competition.training.forward_checks import ForwardChecks, NotFinite
from mico_competition.training.gradient_checks import Delivered, GradientChecks
from mico_competition.training.model_state import State, WriteGuard, plain_name
from mico_competition.training.random_numbers import SEED, undisturbed


def check_trainable(
    model: nn.Module, optimizer: torch.optim.Optimizer, mode: str = "bookkeeping"
) -> None:
    """Raise ValueError, naming the layer or parameter, that cannot be trained privately."""
    if not model.training:
        raise ValueError("This model cannot be trained privately in eval mode: call model.train().")
    for name, module in model.named_modules():
        fault = _known_fault(module) or (_fault_of_opacus(module) if mode != "bookkeeping" else "")
        if fault:
            where = f"layer {name or 'model'} ({type(module).__name__})"
            raise ValueError(f"This model cannot be trained privately, because of {where}: {fault}")
    trained = {id(p): name for name, p in model.named_parameters() if p.requires_grad}
    if not trained:
        raise ValueError(
            "Every parameter of the model is frozen: call requires_grad_(True) on those to train."
        )
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and parameter.dtype not in (torch.float32, torch.float64):
            raise ValueError(
                f"Parameter {name} cannot be trained privately in {parameter.dtype}, in which "
                "rounding lets one record move the sum of gradients by more than max_grad_norm: "
                "call model.float(); frozen parameters may stay in half precision."
            )
    held = {id(p) for group in optimizer.param_groups for p in group["params"] if p.requires_grad}
    loose = [name for key, name in trained.items() if key not in held]
    if loose:
        raise ValueError(
            f"Parameter {loose[0]} is not the optimizer's: make the optimizer of this model's "
            "parameters, or freeze this one by requires_grad_(False)."
        )
    if held - set(trained):
        raise ValueError(
            "The optimizer holds a parameter that is not the model's, so its gradient is not "
            "clipped: make it a part of the model, or leave it out."
        )


def _known_fault(module: nn.Module) -> str:
    """Why a layer of this kind cannot be trained privately; empty if no reason is known."""
    if isinstance(module, _BatchNorm):
        if not module.training and module.running_mean is not None:
            return ""  # an affine map of each example
        return (
            "batch normalisation mixes the examples of a batch. Use GroupNorm or LayerNorm, or "
            "leave it in eval mode."
        )
    if getattr(module, "track_running_stats", False) and module.training:
        return "running statistics carry data past the noise. Set track_running_stats=False."
    if isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
        if module.max_norm is not None:
            return "max_norm changes weights by the data, without noise. Leave it out."
        if module.scale_grad_by_freq:
            return "scale_grad_by_freq counts the tokens of the whole batch. Leave it out."
    return ""


def _fault_of_opacus(module: nn.Module) -> str:
    """Why Opacus' modes cannot train a layer of this kind; empty if no reason is known."""
    from opacus.validators import ModuleValidator  # only private runs need Opacus

    validator = ModuleValidator.VALIDATORS.get(type(module))
    faults = validator(module) if validator else []
    return str(faults[0]) if faults else ""


def _modules(model: nn.Module) -> list[nn.Module]:
    """All modules, each once; several times as fast as `model.modules()`."""
    found, waiting = {id(model): model}, [model]
    while waiting:
        for child in waiting.pop()._modules.values():
            if child is not None and id(child) not in found:
                found[id(child)] = child
                waiting.append(child)
    return list(found.values())


def _computes(module: nn.Module) -> tuple[Any, ...]:
    """What tells whether a module still computes what it did: itself, mode, hooks and method."""
    hooks = (*module._forward_pre_hooks, *module._forward_hooks)
    return module, module.training, hooks, vars(module).get("forward")


def trained_names(model: nn.Module) -> frozenset[str]:
    """The names of the parameters that require a gradient."""
    return frozenset(name for name, p in model.named_parameters() if p.requires_grad)


class PrivacyChecks:
    """The checks of one trainer on its batches.

    Args:
        model: the model that is trained.
        losses: computes the losses of a batch, float[rows], with a graph, as the trainer does.
        plain: the context in which the mode's hooks are off.
        clipped_sum: computes the trainer's clipped sum of a batch for a given norm.
        max_grad_norm: C, the clipping norm.
        mode: the name of the grad_sample_mode.
        precision: of the trainer's passes.  The model is checked in float32, whose tolerances are
            narrow, and then in this precision too.
        at_precision: the context in which the trainer's passes have another precision.

    Attributes:
        checked: what tells of each layer whether it computes what it did when it was checked.
    """

    def __init__(
        self,
        model: nn.Module,
        losses: Callable[[Batch], Tensor],
        plain: Callable[[], AbstractContextManager[Any]],
        clipped_sum: Callable[[Batch, float], Delivered],
        *,
        max_grad_norm: float,
        mode: str,
        precision: str = FLOAT32,
        at_precision: Callable[[str], AbstractContextManager[Any]] = lambda _: nullcontext(),
    ) -> None:
        self.model, self._losses, self._plain = model, losses, plain
        self._precision, self._at_precision = precision, at_precision
        self._clipped_sum, self.max_grad_norm, self.mode = clipped_sum, max_grad_norm, mode
        self.checked: list[Any] | None = None
        self._guard = WriteGuard(model)
        self._trained = trained_names(model)
        self._flags: list[bool] = []

    def before(self, batch: Batch, largest: int) -> None:
        """Check the model on a physical batch before it is trained on, if it is the first one.

        The checks run again if a layer has been switched between train and eval mode, replaced
        or added, or has got another hook or forward method.

        Args:
            batch: the examples of the physical batch; at least one.
            largest: the most examples (of each model) that a physical batch may have.

        Raises:
            ValueError: naming the fault; weights and buffers are unchanged.
        """
        modules = _modules(self.model)
        flags = [p.requires_grad for m in modules for p in m._parameters.values() if p is not None]
        if flags != self._flags:
            self._check_trained()
            self._flags = flags
        computes = [_computes(module) for module in modules]
        if computes != self.checked:
            self._check(batch, largest)
            if self._precision != FLOAT32:
                self._check_again(batch, largest)
            self.checked = computes
        self._guard.start()

    def _check_trained(self) -> None:
        """Raise ValueError if a parameter has been frozen, or thawed, since the start."""
        changed = self._trained ^ trained_names(self.model)
        if changed:
            raise ValueError(
                f"Parameter {plain_name(min(changed))} is frozen, or not, in another way than when "
                "the trainer was made: set requires_grad first, then make the trainer."
            )

    def after(self) -> None:
        """Raise ValueError if the passes since `before` wrote to a weight or buffer."""
        self._guard.check()

    def _check_again(self, batch: Batch, largest: int) -> None:
        """Check a model that float32 lets through in the precision that it is trained in."""
        try:
            self._check(batch, largest, self._precision)
        except ValueError as error:
            raise ValueError(
                f"{error} (This model passes all checks in float32 and not in {self._precision}, "
                "so choose precision float32.)"
            ) from error

    def _check(self, batch: Batch, largest: int, precision: str = FLOAT32) -> None:
        def losses(batch: Batch) -> Tensor:
            with self._plain():
                return self._losses(batch)

        def run() -> None:
            forward = ForwardChecks(self.model, losses, batch, largest, precision)
            try:
                forward.run()
                GradientChecks(
                    forward,
                    self._losses,
                    self._plain,
                    self._clipped_sum,
                    max_grad_norm=self.max_grad_norm,
                    mode=self.mode,
                ).run()
                forward.state.check()
            finally:
                forward.state.restore()
                forward.before.restore()

        with undisturbed(), self._at_precision(precision):
            try:
                with State(self.model).shaken(torch.Generator().manual_seed(SEED)):
                    run()
            except NotFinite:  # because of the data, or of the perturbed weights: try without
                run()
