"""Records what goes into some layers of a model, and what comes out, ready for its gradient.

Book-keeping (`training.bookkeeping`), the white-box decoders and the gradients of single records
(`attacks.whitebox`) all need a layer's input and the gradient of its output, and none needs the
gradient of a parameter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

See = Callable[[nn.Module, Tensor, Tensor], Tensor | None]


class Recorder:
    """Hooks on layers that report each call inside a `recording` block.

    Args:
        model: the model whose forward passes are recorded.
        layers: layers of that model.
        see: called as `see(layer, input, output)` after each call of a layer.  Where gradients
            are enabled, the output requires one: take it by `output.register_hook`, or by
            `torch.autograd.grad`.  A tensor that it returns replaces the output.
    """

    def __init__(self, model: nn.Module, layers: Iterable[nn.Module], see: See) -> None:
        self._see = see
        self._parameters = list(model.parameters())
        self._recording = False
        self._hooks = [
            layer.register_forward_hook(self._after_forward, with_kwargs=True) for layer in layers
        ]

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Report the calls made in this block; meanwhile no parameter requires a gradient."""
        asked = [parameter.requires_grad for parameter in self._parameters]
        for parameter in self._parameters:
            parameter.requires_grad_(False)
        self._recording = True
        try:
            yield
        finally:
            self._recording = False
            for parameter, before in zip(self._parameters, asked):
                parameter.requires_grad_(before)

    def remove(self) -> None:
        """Take the hooks off the layers."""
        for hook in self._hooks:
            hook.remove()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Report no call inside this block."""
        before, self._recording = self._recording, False
        try:
            yield
        finally:
            self._recording = before

    def _after_forward(
        self, module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any], output: Any
    ) -> Any:
        if not self._recording:
            return None
        return self._report(module, inputs, named, output)

    def _report(
        self, module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any], output: Any
    ) -> Any:
        """Report a call; what is not None replaces the output."""
        return self._see(module, inputs[0] if inputs else named["input"], started(output))


@contextmanager
def recorded(model: nn.Module, layers: Iterable[nn.Module], see: See) -> Iterator[None]:
    """Report the calls of `layers` in this block (see `Recorder`), and leave no hook behind."""
    recorder = Recorder(model, layers, see)
    try:
        with recorder.recording():
            yield
    finally:
        recorder.remove()


class CallRecorder(Recorder):
    """A recorder that reports all arguments and outputs of a call, of any structure.

    Args:
        model, layers: as in `Recorder`.
        see: called as `see(layer, arguments, named_arguments, output)`.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Iterable[nn.Module],
        see: Callable[[nn.Module, tuple[Any, ...], dict[str, Any], Any], None],
    ) -> None:
        super().__init__(model, layers, lambda *_: None)
        self._see_call = see

    def _report(
        self, module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any], output: Any
    ) -> None:
        for leaf in tree_leaves(output):
            if isinstance(leaf, Tensor) and leaf.is_floating_point():
                started(leaf)
        self._see_call(module, inputs, named, output)


def started(output: Tensor) -> Tensor:
    """Make a layer's output require a gradient, if gradients are enabled."""
    if torch.is_grad_enabled() and not output.requires_grad:
        # No parameter or input below requires a gradient.
        start: Callable[[Tensor, Tensor], Tensor] = _GraphStart.apply
        return start(output, torch.zeros((), requires_grad=True))
    return output


class _GraphStart(torch.autograd.Function):
    """Makes a tensor the start of a graph, and not a leaf: what follows may change it in place."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, asks: Tensor) -> Tensor:
        ctx.mark_dirty(output)
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, None]:
        return None, None
