"""CUDA graphs of the passes of a step: recorded once for each shape, and replayed in later steps.

A GPU is faster than the Python that starts its kernels, one by one.  A graph starts those of a
whole physical batch (forward and backward pass, norms, clip factors and weighted sum) at once.
Hooks of modules and tensors run while a graph is recorded; torch.compile does not trace those on
tensors.  Noise and the optimiser's step stay outside, since a graph that drew noise wrongly would
void all privacy.  What a model draws itself, such as dropout, comes from the GPU's default
generator, of which a replay takes new numbers.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from mico_competition.training.random_numbers import global_states, undisturbed

_log = logging.getLogger(__name__)

MOST = 16  # graphs, each with its own inputs and outputs; other shapes run without
WARM_UP = 3  # passes before a graph is recorded, in which libraries choose their kernels

Run = Callable[[], Sequence[Tensor]]
Record = Callable[[Run], tuple[Sequence[Tensor], Callable[[], None]]]


class Recorder:
    """Records what passes launch on the current GPU; all graphs share their memory."""

    def __init__(self) -> None:
        self._pool: Any = None

    def __call__(self, run: Run) -> tuple[Sequence[Tensor], Callable[[], None]]:
        """The outputs of `run`, which the function beside them computes anew at each call."""
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                run()
        torch.cuda.current_stream().wait_stream(side)
        self._pool = self._pool or torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            outputs = run()
        return outputs, graph.replay


class StepGraphs:
    """Runs a function of tensors by graphs, one for each shape of its arguments.

    Args:
        run: maps (nested dicts of) tensors to tensors.  What it computes in Python must be the same
            in each step.
        model: whose weights and buffers `run` reads where they lie in memory.
        record: records a graph.
    """

    def __init__(
        self, run: Callable[..., Sequence[Tensor]], model: nn.Module, record: Record | None = None
    ) -> None:
        self._run, self._model, self._record = run, model, record or Recorder()
        self._graphs: dict[Any, _Graph | None] = {}
        self._made_for: Any = None
        self.off = ""  # why no graph is recorded any more

    def __call__(self, *arguments: Any, made_for: Any = None) -> Sequence[Tensor]:
        """The outputs for these arguments, in memory of their own.

        Args:
            arguments: (nested dicts of) tensors, and other values.
            made_for: what graphs are recorded for; others are forgotten.
        """
        if self.off:
            return self._run(*arguments)
        where = [t.data_ptr() for t in (*self._model.parameters(), *self._model.buffers())]
        if self._made_for != (made_for, where):
            self._graphs, self._made_for = {}, (made_for, where)
        leaves, form = tree_flatten(arguments)
        key = (str(form), *map(_kind, leaves))
        if key not in self._graphs:
            self._graphs[key] = self._recorded(leaves, form)
        graph = self._graphs[key]
        return self._run(*arguments) if graph is None else graph(leaves)

    def _recorded(self, leaves: list[Any], form: Any) -> _Graph | None:
        """A graph for arguments like these; None if none can be recorded."""
        if len(self._graphs) >= MOST:
            _log.warning("More than %d shapes of batches: others run without CUDA graphs.", MOST)
            return None
        held = [leaf.clone() if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        device = next(self._model.parameters()).device
        try:
            with undisturbed():  # warming up draws random numbers
                host = _host_states(device)
                outputs, replay = self._record(lambda: self._run(*tree_unflatten(held, form)))
                if _host_states(device) != host:
                    raise ValueError("the model draws random numbers on the host")
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # of the model, of a library, or of CUDA
            self.off = (str(error).strip().splitlines() or [type(error).__name__])[0]
            _log.warning("Steps run without CUDA graphs: %s.", self.off.rstrip("."))
            return None
        return _Graph(held, outputs, replay)


def graphs_of(run: Callable[..., Sequence[Tensor]], model: nn.Module) -> StepGraphs | None:
    """The graphs of a model's steps; None, and a line in the log, where there can be none."""
    device = next(model.parameters()).device
    if device.type != "cuda":
        _log.warning("Steps run without CUDA graphs: the model is on %s.", device.type)
        return None
    return StepGraphs(run, model)


class _Graph:
    """One graph with the memory that it reads and writes."""

    def __init__(
        self, held: list[Any], outputs: Sequence[Tensor], replay: Callable[[], None]
    ) -> None:
        self._held, self._outputs, self._replay = held, outputs, replay

    def __call__(self, leaves: list[Any]) -> list[Tensor]:
        for own, given in zip(self._held, leaves):
            if isinstance(own, Tensor):
                own.copy_(given, non_blocking=True)
        self._replay()
        return [output.clone() for output in self._outputs]  # the next replay writes them anew


def _kind(leaf: Any) -> Any:
    """What arguments of one graph have in common: a tensor's shape and type, or another value."""
    if isinstance(leaf, Tensor):
        return tuple(leaf.shape), leaf.dtype, leaf.device
    return repr(leaf)


def _host_states(device: torch.device) -> list[Any]:
    """The states of the random generators of the host, whose draws a graph would repeat."""
    states = global_states(device)
    _, keys, *rest = states["numpy"]
    found = [keys.tolist(), rest, states["python"]]
    # On a CPU, as in tests, the default generator stands for that of a GPU.
    return found if device.type == "cpu" else [*found, states["torch"].tolist()]
