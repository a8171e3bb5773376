"""Makes sure that nothing but the counted steps of one trainer changes a model's weights."""

from __future__ import annotations

from weakref import WeakKeyDictionary

from torch import nn

# For each model that a trainer has changed, a token of the last one.
_trained_by: WeakKeyDictionary[nn.Module, object] = WeakKeyDictionary()


class WeightsWatch:
    """Watches the weights and buffers of a model between the steps of its trainer.

    Args:
        model: the model.

    Attributes:
        changing: whether a step has begun to change weights and has not ended, as after an error.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model, self.changing = model, False
        self._token = object()
        self._left: dict[str, tuple[int, int]] | None = None

    def begin(self) -> None:
        """Called when the noisy sum is ready, right before the optimizer changes weights."""
        self.changing = True
        _trained_by[self.model] = self._token

    def end(self) -> None:
        """Called when the step is done."""
        self.changing = False
        self._left = self._now()

    def _now(self) -> dict[str, tuple[int, int]]:
        """The identity and version counter of each weight and buffer."""
        tensors = {**dict(self.model.named_parameters()), **dict(self.model.named_buffers())}
        return {name: (id(tensor), tensor._version) for name, tensor in tensors.items()}

    def check(self) -> None:
        """Raise ValueError if the weights may come from anything but the counted steps."""
        if self.changing:
            raise ValueError(
                "The last step failed while it changed weights: load the states of model, "
                "optimizer and trainer from a checkpoint, or start again."
            )
        if _trained_by.get(self.model, self._token) is not self._token:
            raise ValueError(
                "Another PrivateTrainer has trained this model, and its steps would not be "
                "counted: make a new model, or load that trainer's state_dict. If it used other "
                "records, train copy.deepcopy(model)."
            )
        if self._left is None:
            return
        now = self._now()
        changed = [name for name in {**now, **self._left} if now.get(name) != self._left.get(name)]
        if changed:
            raise ValueError(
                f"Tensor {changed[0]} of the model was changed since the last step, which the "
                "privacy claim does not cover: change weights by trainer.step only. To go on from "
                "a checkpoint, load the model's state and then the trainer's."
            )
