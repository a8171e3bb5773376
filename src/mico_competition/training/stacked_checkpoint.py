"""The checkpoints of a stack: one for each model, in the form of a model that is trained alone.

So a model goes on from its checkpoint in any company: in the stack in which it was, in another one,
or alone after the stack has failed.  The weights are those of the run that nobody killed, bit for
bit if the company is the same, and up to rounding if not.

Each model keeps the state before until all have written the new one, so that a kill between two
files leaves a step that all of them have (`load_common`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mico_competition.training.checkpoint import OpenCheckpoint

_log = logging.getLogger(__name__)


class StackedCheckpoint:
    """The open checkpoints of models that are trained together, as that of the whole stack.

    Args:
        checkpoints: those of the S models, all of which begin, or go on from the same step.
        parameters: the names of the stack's parameters, whose rows are those of the models.
    """

    def __init__(self, checkpoints: Sequence[OpenCheckpoint], parameters: Sequence[str]) -> None:
        self._checkpoints, self._parameters = checkpoints, frozenset(parameters)

    def begin(self) -> dict[str, Any] | None:
        """The stack's state to go on from; None if it begins.  See `OpenCheckpoint.begin`."""
        states = [each.begin(len(self._checkpoints)) for each in self._checkpoints]
        found = [state for state in states if state is not None]
        return _together(found, self._parameters) if found else None

    @property
    def part(self) -> float:
        """The finished fraction of the steps."""
        return self._checkpoints[0].part

    @part.setter
    def part(self, part: float) -> None:
        for each in self._checkpoints:
            each.part = part

    def tell(self, steps: int) -> None:
        """Say that the stack goes on from a step."""
        if len(self._checkpoints) == 1:
            self._checkpoints[0].tell(steps)
            return
        _log.warning(
            "Going on from step %d with a stack of %d, of which %s and the folders beside it have "
            "checkpoints.",
            *(steps, len(self._checkpoints), self._checkpoints[0].folder),
        )

    def due(self) -> bool:
        """Whether it is time for the next checkpoints."""
        return any(each.due() for each in self._checkpoints)

    def write(self, state: Mapping[str, Any], steps: int) -> bool:
        """Write the state of each model after `steps` steps; see `OpenCheckpoint.write`."""
        reasons = [
            each.try_write(_row(state, row, self._parameters), steps, settled=False)
            for row, each in enumerate(self._checkpoints)
            if each.writes
        ]
        failed = [reason for reason in reasons if reason]
        if failed:
            _log.warning(
                "The checkpoints of %d of %d models beside %s could not be written (%s).",
                *(len(failed), len(reasons), self._checkpoints[0].folder, failed[0]),
            )
            return False
        for each in self._checkpoints:
            if each.writes:
                each.settle()
        return bool(reasons)

    def drop(self, models: Sequence[int]) -> None:
        """Remove the checkpoints of `models`, rows of the stack, which cannot succeed."""
        for row in models:
            self._checkpoints[row].drop([0])


def load_common(checkpoints: Sequence[OpenCheckpoint]) -> None:
    """Load the newest states of one step that all models have; if there is none, the newest."""
    steps = [{kept.steps for kept in each.kept} or {0} for each in checkpoints]
    common = set.intersection(*steps) if steps else set[int]()
    for each in checkpoints:
        each.load(max(common) if common else None)


def _row(state: Mapping[str, Any], row: int, parameters: frozenset[str]) -> dict[str, Any]:
    """The state of one model; its tensors share no memory with others', which a file would hold."""
    return _converted(
        [state], parameters, lambda found: found[0][row].clone(), lambda found: found[0][row]
    )


def _together(states: Sequence[Mapping[str, Any]], parameters: frozenset[str]) -> dict[str, Any]:
    """The state of a stack from those of its models."""
    return _converted(states, parameters, torch.stack, list)


def _converted(
    states: Sequence[Mapping[str, Any]],
    parameters: frozenset[str],
    tensors: Callable[[list[Tensor]], Tensor],
    generators: Callable[[list[Any]], Any],
) -> dict[str, Any]:
    """The state of a model from that of a stack, or the other way round.

    What has no row for each model, such as an optimiser's count of steps, is the same for all.

    Args:
        states: what `RunState.state_dict` gave.
        parameters: the names of the parameters.
        tensors: takes a tensor of each state, and gives that of the result.
        generators: the same for the states of generators.
    """
    first = states[0]

    def found(*path: Any) -> list[Any]:
        """What the states hold there."""
        values: list[Any] = list(states)
        for key in path:
            values = [value[key] for value in values]
        return values

    def remembered(number: int, name: str) -> Any:
        """What the optimiser remembers of a parameter under this name."""
        value = first["optimizer"]["state"][number][name]
        has_rows = isinstance(value, Tensor) and value.ndim
        return tensors(found("optimizer", "state", number, name)) if has_rows else value

    memory = {
        number: {name: remembered(number, name) for name in values}
        for number, values in first["optimizer"]["state"].items()
    }
    return {
        **first,
        "total": tensors(found("total")) if isinstance(first["total"], Tensor) else first["total"],
        "model": {
            name: tensors(found("model", name)) if name in parameters else value
            for name, value in first["model"].items()
        },
        "optimizer": {**first["optimizer"], "state": memory},
        "random": None,  # models of a stack draw no other random numbers than these
        "noise": generators(found("noise")),
        "sampling": generators(found("sampling")),
    }
