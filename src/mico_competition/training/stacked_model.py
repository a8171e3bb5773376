"""Makes one module of S models of one architecture, which computes what each of them computes.

The module is a copy of the first model whose layers with parameters are `stacked_layers`: it runs
the model's own code on the rows [S * b, ...] of S batches, model by model.  Its parameters have the
names of the model's, and shape [S, ...].
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from mico_competition.models.architectures import logits
from mico_competition.training.check_batches import mapped
from mico_competition.training.random_numbers import Constant, restart, undisturbed
from mico_competition.training.stacked_layers import STACKED

EXAMPLES = 4  # of each model in the trial of a stack
_MODELS = 3  # of that stack
_SHAKEN = 0.3  # the deviation of the noise on its weights, in units of a parameter's own deviation
_TOLERANCE = 1e-3  # of logits, relative to the largest


def fault_of_stacking(model: nn.Module) -> str:
    """Why models of this architecture do not stack, with the layer's name; empty if they do."""
    owners: dict[int, str] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if owners.setdefault(id(parameter), name) != name:
            return f"parameter {name} is shared with {owners[id(parameter)]}"
    for name, module in model.named_modules():
        where = f"layer {name or 'model'} ({type(module).__name__})"
        if isinstance(module, _NormBase) and (module.track_running_stats or module.affine):
            return f"{where} has no form for stacks"
        if not any(True for _ in module.parameters(recurse=False)):
            continue
        kind = STACKED.get(type(module))
        if kind is None:
            return f"{where} has no form for stacks"
        if module._forward_hooks or module._forward_pre_hooks or module._backward_hooks:
            return f"{where} has hooks"
        if fault := kind.fault(module):
            return f"{where} has no form for stacks where {fault}"
    return ""


def stacked(models: Sequence[nn.Module]) -> nn.Module:
    """One module that computes what S models compute, from copies of their parameters.

    Args:
        models: S >= 1 models of one architecture, on one device and in one mode.

    Returns:
        A module that maps the rows [S * b, ...] of S batches, model by model, to those of the
        models' outputs.

    Raises:
        ValueError: naming the layer, if the models do not stack.
    """
    if fault := fault_of_stacking(models[0]):
        raise ValueError(f"Models of {type(models[0]).__name__} do not stack: {fault}.")
    layers = [dict(model.named_modules()) for model in models]
    whole = copy.deepcopy(models[0])
    for name, module in layers[0].items():
        if type(module) in STACKED and any(True for _ in module.parameters(recurse=False)):
            layer = STACKED[type(module)]([of_model[name] for of_model in layers])
            layer.train(module.training)
            if not name:
                return layer
            whole.set_submodule(name, layer)
    return whole


@torch.no_grad()
def unstack(whole: nn.Module, models: Sequence[nn.Module]) -> None:
    """Copy the weights of a stack into its models, in the order in which it was made."""
    for name, values in whole.named_parameters():
        for value, model in zip(values.unbind(), models, strict=True):
            model.get_parameter(name).copy_(value)


@torch.no_grad()
def check_stacking(model: nn.Module, inputs: Any) -> None:
    """Raise ValueError unless stacks of this architecture compute what its models compute.

    The trial takes copies of the model with different weights, in the model's mode.  It finds code
    that mixes examples, or uses a layer on something other than one row an example.

    Args:
        model: a model of the stack.
        inputs: the inputs of EXAMPLES examples or fewer: a tensor, or tensors by name, with one row
            an example.
    """
    name = type(model).__name__
    with undisturbed():
        restart()
        models = [_shaken(model) for _ in range(_MODELS)]
        whole = stacked(models)
        for width in (EXAMPLES, 1):
            with Constant() as constant:
                parts = torch.arange(_MODELS * width).split(width)
                alone = [logits(each, _some(inputs, at)) for each, at in zip(models, parts)]
                try:
                    together = logits(whole, _some(inputs, torch.cat(parts)))
                except (RuntimeError, ValueError, IndexError) as error:
                    raise ValueError(f"Models of {name} do not stack: {error}") from error
            if constant.used:
                raise ValueError(
                    f"Models of {name} do not stack: they draw random numbers (dropout), which "
                    "would not be those of each model alone. Set dropout to 0."
                )
            if not _agree(torch.cat(alone), together):
                raise ValueError(
                    f"Models of {name} do not stack: in a stack they compute something else than "
                    "alone, so their code uses more than one example at a time, or a layer on "
                    "what examples share."
                )


def _shaken(model: nn.Module) -> nn.Module:
    """A copy with other weights."""
    other = copy.deepcopy(model)
    for parameter in other.parameters():
        size = parameter.std() if parameter.numel() > 1 else parameter.abs()
        parameter.add_(torch.randn_like(parameter) * (_SHAKEN * size + 0.01))
    return other


def _some(inputs: Any, at: Tensor) -> Any:
    """The rows at int64[k] of inputs; numbers beyond the last begin again at the first."""
    rows = len(next(iter(inputs.values())) if isinstance(inputs, Mapping) else inputs)
    return mapped(inputs, lambda values: values[(at % rows).to(values.device)], rows)


def _agree(alone: Tensor, together: Tensor) -> bool:
    """Whether two sets of logits are the same up to rounding."""
    if alone.shape != together.shape:
        return False
    size = alone.abs().nan_to_num(posinf=0.0).max()
    near = (alone - together).abs() <= _TOLERANCE * size
    return bool((near | (alone == together) | (alone.isnan() & together.isnan())).all())
