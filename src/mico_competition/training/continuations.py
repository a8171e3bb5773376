"""The state of a private run: what belongs to it, and that it is continued only once.

Two continuations of one state add the same noise, so their difference has none and can reveal a
record; and the epsilon of one of them does not count the steps of the other.  This process
remembers which states were continued.  It cannot know of other processes.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mico_competition.training.certificate import weights_digest

_log = logging.getLogger(__name__)

_PARTS = ("privacy", "draws", "noise", "weights", "optimizer", "moment", "digest")
_DRAWS = ("used", "waiting", "generator")
_continued: set[str] = set()  # the moments from which a step was taken in this process
_seeds: set[int] = set()  # the seeds of trainers that took a step


class Moment:
    """The point of its run at which a trainer is, known by a random name once it is saved."""

    def __init__(self) -> None:
        self.name: str | None = None
        self._allowed = False

    def saved(self) -> str:
        """The name of this moment, for a state."""
        self.name = self.name or secrets.token_hex(16)
        return self.name

    def load(self, name: str, *, allowed: bool) -> None:
        """Go to a moment; ValueError if it was continued already, unless that is allowed."""
        self.name, before = name, self.name
        self._allowed, earlier = allowed, self._allowed
        try:
            self.check()
        except ValueError:
            self.name, self._allowed = before, earlier
            raise

    def check(self) -> None:
        """Raise ValueError if somebody else took a step from here."""
        if self.name in _continued and not self._allowed:
            raise ValueError(
                "This state of a PrivateTrainer was continued already in this process, and a "
                "second continuation would add the same noise, so that both together reveal "
                "records: make a new trainer. If only one of the two will ever be used or seen, "
                "call load_state_dict(state, discard_other_continuation=True)."
            )

    def leave(self) -> None:
        """Called when a step is taken from here."""
        if self.name is not None:
            _continued.add(self.name)
        self.name, self._allowed = None, False


def note_seed(seed: int | None) -> None:
    """Called at the first step of a trainer with this seed; warns if another had it."""
    if seed is None:
        return
    if seed in _seeds:
        _log.warning(
            "Another PrivateTrainer of this process had the same seed, so both add the same noise: "
            "two models that were trained on overlapping records must not both be used or seen. "
            "Leave seed out, or choose another."
        )
    _seeds.add(seed)


def sealed(state: dict[str, Any]) -> dict[str, Any]:
    """A trainer's state with a digest, which shows whether it was changed later."""
    return {**state, "digest": _digest(state)}


def check_state(
    state: Any, privacy: Mapping[str, Any], model: nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    """Raise ValueError unless `state` is one of a trainer like this, its model and its optimizer.

    Args:
        state: what `PrivateTrainer.state_dict` gave.
        privacy: the privacy parameters of the trainer.
        model: the trainer's model, with the weights of the same checkpoint.
        optimizer: the trainer's optimizer, in the state of the same checkpoint.
    """
    _check_parts(state)
    for name, value in privacy.items():
        if state["privacy"].get(name) != value:
            raise ValueError(
                f"Expected {name}={value}, as this trainer has it, got a state with "
                f"{state['privacy'].get(name)}: make the trainer with the same arguments."
            )
    if state["weights"] != weights_digest(model):
        raise ValueError(
            "The trainer's state belongs to other weights than the model has now: load the "
            "model's state of the same checkpoint first."
        )
    if state["optimizer"] != optimizer_digest(optimizer):
        raise ValueError(
            "The trainer's state belongs to another state of the optimizer: load the "
            "optimizer's state of the same checkpoint first."
        )


def _check_parts(state: Any) -> None:
    """Raise ValueError unless `state` has the parts of a trainer's state, as they were saved."""
    if not isinstance(state, Mapping):
        raise ValueError(
            f"Expected the state_dict of a PrivateTrainer, got {type(state).__name__}: save and "
            "load the states of model, optimizer and trainer in the same order."
        )
    missing = [name for name in _PARTS if name not in state]
    missing += [name for name in ("privacy", "draws") if not isinstance(state.get(name), Mapping)]
    draws: Mapping[str, Any] = state["draws"] if not missing else dict.fromkeys(_DRAWS)
    missing += [name for name in _DRAWS if name not in draws]
    if missing:
        raise ValueError(
            f"Expected the state_dict of a PrivateTrainer, got a dict without {missing[0]!r}: save "
            "and load the states of model, optimizer and trainer in the same order."
        )
    if not state["privacy"].get("secure_mode") and not all(
        isinstance(each, Tensor) for each in (state["noise"], draws["generator"])
    ):
        raise ValueError(
            "The trainer's state has no state of the noise or of the batches, so it was damaged: "
            "load the whole state that state_dict gave."
        )
    if state["digest"] != _digest({name: state[name] for name in state if name != "digest"}):
        raise ValueError(
            "The trainer's state was changed or damaged after state_dict gave it, so the steps "
            "and the noise of the run are not known: load it as it was saved."
        )


def optimizer_digest(optimizer: torch.optim.Optimizer) -> str:
    """The SHA-256, in hex, of what the optimizer remembers of earlier steps."""
    return _digest(optimizer.state_dict()["state"])


def _digest(value: Any) -> str:
    digest = hashlib.sha256()
    _add(digest, value)
    return digest.hexdigest()


def _add(digest: Any, value: Any) -> None:
    if isinstance(value, Mapping):
        for key in sorted(value, key=str):
            digest.update(f"{key}:".encode())
            _add(digest, value[key])
    elif isinstance(value, Tensor):
        flat = value.detach().cpu().contiguous().reshape(-1)
        digest.update(f"{list(value.shape)} {value.dtype}\n".encode())
        digest.update(flat.view(torch.uint8).numpy().tobytes())
    else:
        digest.update(f"{value!r}\n".encode())
