"""The loss that a private step returns: a tensor that says what to leave out on `backward()`."""

from __future__ import annotations

from typing import Any, NoReturn

import torch
from torch import Tensor


class StepLoss(Tensor):
    """The mean loss of a step that was taken; results of operations on it are plain tensors.

    >>> loss = torch.tensor(0.5).as_subclass(StepLoss)
    >>> loss, loss.item(), type(loss + 1)
    (tensor(0.5000), 0.5, <class 'torch.Tensor'>)
    >>> loss.backward()
    Traceback (most recent call last):
    ValueError: trainer.step has computed the gradients and changed the weights: leave out
    loss.backward(), optimizer.zero_grad() and optimizer.step().
    """

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    def backward(self, *_: Any, **__: Any) -> NoReturn:
        """Raise ValueError: there is nothing left to do."""
        raise ValueError(
            "trainer.step has computed the gradients and changed the weights: leave out "
            "loss.backward(), optimizer.zero_grad() and optimizer.step()."
        )

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return repr(self.as_subclass(Tensor))

    def __format__(self, spec: str) -> str:
        return format(self.as_subclass(Tensor), spec)

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        return self.as_subclass(Tensor).clone()

    def __reduce_ex__(self, protocol: Any) -> Any:  # a file need not know this class
        return self.as_subclass(Tensor).__reduce_ex__(protocol)
