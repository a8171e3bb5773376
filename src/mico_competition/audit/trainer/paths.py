"""The two ways in which a fleet trains: a single model, and a stack of models together.

The fleet's own functions `train.fit` and `train_stack.fit_stack` train them; the auditor's
interface is the same for both, model by model.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from mico_competition.audit.trainer.canaries import AuditSet
from mico_competition.audit.trainer.canary_models import CanaryModel
from mico_competition.competition.table import get_task
from mico_competition.models.architectures import new_model
from mico_competition.training import train, train_stack
from mico_competition.training.epochs import Observer
from mico_competition.training.settings import Settings
from mico_competition.training.stacked_model import stacked as stack_of
from mico_competition.training.streams import Streams, seeded

CANARIES = "gradient canaries"
"""The name of the audit's own coordinates."""

Epoch = Callable[..., Iterator[Tensor]]
"""Gives the batches of an epoch, as `train.epoch_of` does."""


class Path:
    """Models to audit, and how a fleet trains them.

    Args:
        settings: of the run, private.
        sets: the training set of each model, all of one length; several make a stack.
        lengths: float[m], of the Dirac canaries' gradients before clipping, over C.
        streams: one for each model.
        repeated: whether initialisation is drawn from the streams.

    Attributes:
        models: copies of the initial models, without a trainer's hooks.
        whole: the trained module.
    """

    def __init__(
        self,
        settings: Settings,
        sets: Sequence[AuditSet],
        lengths: Tensor,
        streams: Sequence[Streams],
        *,
        stacked: bool,
    ) -> None:
        assert settings.max_grad_norm is not None
        self.settings, self.sets, self.streams, self.stacked = settings, sets, streams, stacked
        task = get_task(settings.task)
        self.models = [_model_of(settings, stream) for stream in streams]
        device = sets[0].labels.device
        arguments = (lengths, task.num_classes, settings.max_grad_norm)
        whole = [CanaryModel(copy.deepcopy(model), *arguments) for model in self.models]
        self.whole: Any = stack_of(whole) if stacked else whole[0]
        self.whole.to(device)
        self.models = [model.to(device) for model in self.models]
        self.names = [name for name, _ in self.models[0].named_parameters()]
        self._parameters = self._found()

    def _found(self) -> list[nn.Parameter]:
        """The real parameters of `whole`, in the order of `names`."""
        prefix = "model."
        found = [p for name, p in self.whole.named_parameters() if name.startswith(prefix)]
        assert len(found) == len(self.names)
        return found

    def fit(
        self,
        observer: Observer,
        *,
        settings: Settings | None = None,
        epoch: Epoch | None = None,
        make_trainer: Callable[..., Any] | None = None,
        progress: bool = False,
    ) -> None:
        """Train as a fleet does, with `observer` watching; see `train.fit`."""
        settings = settings or self.settings
        options: dict[str, Any] = {
            "observer": observer,
            "epoch": epoch,
            "make_trainer": make_trainer,
        }
        with seeded(self.streams[0], deterministic=False):
            if self.stacked:
                labels = torch.stack([one.labels for one in self.sets])
                train_stack.fit_stack(
                    settings, self.whole, self._inputs, labels, self.streams, progress, **options
                )
            else:
                one = self.sets[0]
                train.fit(
                    settings,
                    self.whole,
                    one.inputs,
                    one.labels,
                    self.streams[0],
                    progress,
                    **options,
                )

    def _inputs(self, positions: Tensor) -> dict[str, Any]:
        """The inputs of a stack for positions [S, b], model by model."""
        rows = [one.inputs(at) for one, at in zip(self.sets, positions)]
        joined: dict[str, Any] = tree_map(lambda *parts: torch.cat(parts), *rows)
        return joined

    def values(self, model: int) -> dict[str, Tensor]:
        """Name -> value of each real parameter of a model, without a copy."""
        rows = [p.detach()[model] if self.stacked else p.detach() for p in self._parameters]
        return dict(zip(self.names, rows))

    def released(self, model: int) -> list[Tensor]:
        """The gradient that the optimiser received for each real parameter; zeros if none."""
        found = []
        for p in self._parameters:
            grad = torch.zeros_like(p) if p.grad is None else p.grad.detach()
            found.append(grad[model] if self.stacked else grad)
        return found

    def released_canaries(self) -> Tensor:
        """float[S, m], the gradients received for the Dirac canaries' coordinates."""
        weight = self.whole.weights.weight
        grad = torch.zeros_like(weight) if weight.grad is None else weight.grad.detach()
        own = grad[..., : self.whole.dirac, 0]
        return own if self.stacked else own.unsqueeze(0)

    def trained(self) -> list[nn.Module]:
        """The models in their present state, in eval mode."""
        for number, model in enumerate(self.models):
            for name, parameter in model.named_parameters():
                parameter.data.copy_(self.values(number)[name])
            model.eval()
        return self.models


def _model_of(settings: Settings, streams: Streams) -> nn.Module:
    """A model as a fleet initialises it, but without dropout."""
    with seeded(streams, deterministic=False):
        model = new_model(get_task(settings.task), base_model=settings.model_name)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0  # so that a step can be repeated; not part of the mechanism
    return model.train()


def parts_of(batch: Tensor | Sequence[Tensor]) -> Sequence[Tensor]:
    """The batch of each model."""
    return (batch,) if isinstance(batch, Tensor) else tuple(batch)
