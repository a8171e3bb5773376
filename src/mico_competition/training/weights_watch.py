"""Makes sure that nothing but the counted steps of one trainer changes a model's weights."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from mico_competition.training.model_state import plain_name
from mico_competition.training.private_checks import trained_names

CHUNK = 2**20  # numbers that a checksum takes at once
_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}

# For each parameter that a trainer has changed, a token of the last one.  By parameter and not by
# module, since another module may hold the same parameters.
_trained_by = WeakTensorKeyDictionary()


class WeightsWatch:
    """Watches the weights and buffers of a model, from the start and between the trainer's steps.

    Version counters find operations in place.  Writes through `.data` are found by copies of the
    trained weights, and by checksums of the others, which may be many more.

    Args:
        model: the model.

    Attributes:
        changing: whether a step has begun to change weights and has not ended, as after an error.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model, self.changing = model, False
        self._token, self._owned = object(), False
        self._left: dict[str, tuple[int, int]] = {}  # versions when they were last noted
        self._trained = trained_names(model)
        self._note_all()

    def begin(self) -> None:
        """Called when the noisy sum is ready, right before the optimizer changes weights."""
        self._tensors = _tensors(self.model)
        self._refuse(self._rewritten(self._trained))  # the checks have moved version counters
        self.changing = True
        if not self._owned:
            self._own()

    def end(self) -> None:
        """Called when the step is done."""
        self.changing = False
        self._note(self._trained)  # of the tensors that `begin` saw, so another one is found

    def restored(self) -> None:
        """Called after a step that failed before it changed weights; its checks restored them.

        They have moved version counters, which is no change if all values are the noted ones.
        """
        self._tensors = _tensors(self.model)
        now = self._versions()
        same = now.keys() == self._left.keys() and all(
            now[name][0] == self._left[name][0] for name in now
        )
        if same and not self._rewritten(self._tensors):
            self._left = now

    def adopt(self) -> None:
        """Take the weights as those of a trainer's state that was loaded."""
        self.changing = False
        self._note_all()
        self._own()

    def check(self, *, values: bool = True) -> None:
        """Raise ValueError if the weights may come from anything but the counted steps.

        Args:
            values: whether to find writes through `.data` too; `begin` finds them again.
        """
        if self.changing:
            raise ValueError(
                "The last step failed while it changed weights: load the states of model, "
                "optimizer and trainer from a checkpoint, or start again."
            )
        self._tensors = _tensors(self.model)
        owners = [_trained_by.get(each, self._token) for each in self._tensors.values()]
        if any(owner is not self._token for owner in owners):
            raise ValueError(
                "Another PrivateTrainer has trained this model, or a part of it, and its steps "
                "would not be counted: make a new model, or load that trainer's state_dict. If it "
                "used other records, train copy.deepcopy(model)."
            )
        now = self._versions()
        changed = [name for name in {**now, **self._left} if now.get(name) != self._left.get(name)]
        self._refuse(changed or (self._rewritten(self._tensors) if values else []))

    @torch.no_grad()
    def _rewritten(self, names: Iterable[str]) -> list[str]:
        """Those of the names whose tensors have other values than noted."""
        changed: list[tuple[str, Any]] = []
        for name in names:
            tensor = self._tensors[name]
            if name not in self._trained:
                changed.append((name, checksum(tensor) != self._sums[name]))
                continue
            now, noted = _bits(tensor), self._copies[name]
            if now.shape != noted.shape or now.dtype != noted.dtype:
                changed.append((name, True))
            elif now.is_cpu:
                changed.append((name, not torch.equal(now, noted)))
            else:
                changed.append((name, (now != noted).any()))
        return [name for name, each in changed if each]  # waits for the device once

    def _refuse(self, changed: list[str]) -> None:
        if changed:
            raise ValueError(
                f"Tensor {plain_name(changed[0])} of the model was changed since the trainer was "
                "made or took its last step, which the privacy claim does not cover: change "
                "weights by trainer.step only. To go on from a checkpoint, load the model's state "
                "and then the trainer's."
            )

    def check_claimable(self) -> None:
        """Raise ValueError unless these weights may have a claim: unchanged by others and finite.

        A weight that is not finite can tell whether one record was trained on.
        """
        self.check()
        for name, tensor in self._tensors.items():
            if name in self._trained and not bool(torch.isfinite(tensor.detach()).all()):
                raise ValueError(
                    f"Parameter {plain_name(name)} is not finite everywhere, so there is no "
                    "privacy claim, and the model must not be published: look for records that "
                    "are not finite or very large, and train again with a lower learning rate."
                )

    def check_flags(self) -> None:
        """Raise ValueError if a parameter was frozen, or thawed, since the trainer was made."""
        changed = self._trained ^ trained_names(self.model)
        if changed:
            raise ValueError(
                f"Parameter {plain_name(min(changed))} is frozen, or not, in another way than when "
                "the trainer was made, so a certificate would name the wrong parameters: set "
                "requires_grad back."
            )

    def _own(self) -> None:
        for name in self._trained:
            _trained_by[self._tensors[name]] = self._token
        self._owned = True

    def _versions(self) -> dict[str, tuple[int, int]]:
        """The identity and version counter of each weight and buffer."""
        return {name: (id(tensor), tensor._version) for name, tensor in self._tensors.items()}

    def _note_all(self) -> None:
        self._tensors = _tensors(self.model)
        self._sums: dict[str, Tensor] = {}
        self._copies: dict[str, Tensor] = {}
        self._note(self._tensors)

    @torch.no_grad()
    def _note(self, names: Iterable[str]) -> None:
        """Remember the versions of all tensors, and the values of those with these names."""
        self._left, tensors = self._versions(), self._tensors
        for name in names:
            if name not in self._trained:
                self._sums[name] = checksum(tensors[name])
            elif name in self._copies:
                self._copies[name].copy_(_bits(tensors[name]))
            else:
                self._copies[name] = _bits(tensors[name]).clone()


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    """The weights and buffers of a model, by name."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def _bits(tensor: Tensor) -> Tensor:
    """The numbers of a real tensor as whole numbers of the same bits, [numbers]."""
    flat = tensor.detach().contiguous().reshape(-1)
    if flat.element_size() == 4 and not len(flat) % 2 and not flat.storage_offset() % 2:
        return flat.view(torch.int64)  # which torch compares faster
    return flat.view(_INTEGERS[flat.element_size()])


@torch.no_grad()
def checksum(tensor: Tensor) -> Tensor:
    """int64[], on the tensor's device, which differs if one of its numbers does.

    It is the sum of the bits of each number times a number of its position, which is odd.
    """
    values = torch.view_as_real(tensor) if tensor.is_complex() else tensor
    flat = values.detach().contiguous().reshape(-1)
    bits = flat.view(torch.uint8) if flat.dtype is torch.bool else _bits(flat)
    total = torch.zeros((), dtype=torch.int64, device=bits.device)
    places = torch.arange(1, 2 * min(CHUNK, len(bits)) + 1, 2, device=bits.device)
    for part in bits.split(CHUNK):
        total = total * 1_000_003 + (part.to(torch.int64) * places[: len(part)]).sum()
    return total
