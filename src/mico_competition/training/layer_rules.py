"""Chooses, for each layer of a model, how the norms of its per-example gradients are computed.

A layer with a formula has a rule in `ghost_norms.RULES`.  Any other layer, or the smallest block
that contains all uses of a parameter, is a `WholeLayer`, for which per-example gradients are built.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from mico_competition.training import convolution_norms as convolution_norms  # adds its rules
from mico_competition.training.ghost_norms import (
    RULES,
    EmbeddingRule,
    LinearRule,
    TransposedLinearRule,
)
from mico_competition.training.layer_rule import Rule
from mico_competition.training.one_row import OneRow
from mico_competition.training.tied_weights import TiedRule
from mico_competition.training.whole_layers import WholeLayer


class Part(Protocol):
    """Gives the norms, and the weighted sum, of the per-example gradients of some parameters."""

    def squared_norms(self, batch: torch.Size) -> Tensor:
        """float[batch]."""
        ...

    def drop(self, dropped: Tensor) -> None:
        """Make the gradients of the examples that `dropped`, bool[batch], marks zero."""
        ...

    def write_weighted_sum(self, weights: Tensor) -> None:
        """Write into the `grad` of each parameter."""
        ...

    def forget(self) -> None:
        """Drop what was recorded of a batch."""
        ...


@runtime_checkable
class DoubtfulPart(Part, Protocol):
    """A part whose squared norms rounding may hide."""

    def doubt(self, batch: torch.Size) -> Tensor | None:
        """What the squared norms must exceed, float[batch]; None if rounding cannot hide them."""
        ...

    def set_apart(self, at: Tensor) -> None:
        """Take the examples at int64[k] out of the weighted sum."""
        ...

    def alone(self, example: int) -> dict[nn.Parameter, Tensor]:
        """The gradient of an example that was set apart, by parameter."""
        ...


@dataclass(frozen=True)
class Layers:
    """How each layer of a model is handled.

    Attributes:
        rules: layers with a formula.
        rows: parameters with one row that blocks of layers use themselves.
        whole: layers without one.
        parts: what covers each trained parameter once.
    """

    rules: Mapping[nn.Module, Rule]
    rows: list[OneRow]
    whole: Mapping[nn.Module, WholeLayer]
    parts: list[Part]

    def described(self) -> dict[str, str]:
        """For each layer with trained parameters, its kind and how its norms are computed."""
        found = {
            rule.name or "model": f"{type(layer).__name__}: formula"
            for layer, rule in self.rules.items()
        }
        for row in self.rows:
            found[row.name] = f"{type(row.module).__name__}'s parameter: formula"
        for layer, whole in self.whole.items():
            found[whole.name or "model"] = f"{type(layer).__name__}: {whole.cost}"
        return dict(sorted(found.items()))


def layers_of(model: nn.Module) -> Layers:
    """Choose a rule for each layer with trained parameters.

    Raises:
        ValueError: naming a parameter that several layers share in a way that has no rule.
    """
    names = {module: name for name, module in model.named_modules()}
    rows = [
        OneRow(f"{names[module]}.{own}".removeprefix("."), module, own)
        for module in model.modules()
        if _is_block_of_rows(module)
        for own in _own_trained(module)
    ]
    whole = {module: WholeLayer(names[module], module) for module in _without_formula(model)}
    covered = {inner for module in whole for inner in module.modules()}
    _check_apart(model, covered)
    rules: dict[nn.Module, Rule] = {}
    for module, name in names.items():
        kind = _rule_of(module)
        if module not in covered and _own_trained(module) and kind is not None:
            rules[module] = kind(name, module)
    rows = [row for row in rows if row.module not in covered]
    parts: list[Part] = [*_untied(rules), *rows, *whole.values()]
    return Layers(rules, rows, whole, parts)


def _is_block_of_rows(module: nn.Module) -> bool:
    """Whether a block of layers has parameters of its own that all have one row, [1, T, d]."""
    own = [module.get_parameter(name) for name in _own_trained(module)]
    others = any(map(_own_trained, list(module.modules())[1:]))
    return bool(own) and others and all(p.ndim > 2 and len(p) == 1 for p in own)


def _without_formula(model: nn.Module) -> list[nn.Module]:
    """The outermost layers for which per-example gradients are built."""
    found: list[nn.Module] = []
    # A parameter that a block holds for one of its layers, as heads of transformers hold a bias.
    of_layers = {
        id(module.get_parameter(own))
        for module in model.modules()
        if _rule_of(module)
        for own in _own_trained(module)
    }

    def holds(module: nn.Module) -> bool:
        return any(id(module.get_parameter(own)) not in of_layers for own in _own_trained(module))

    def visit(module: nn.Module) -> None:
        held = (nn.ParameterList, nn.ParameterDict)  # which are never called
        containers = [child for child in module.children() if isinstance(child, held)]
        alone = _rule_of(module) is None and not _is_block_of_rows(module)
        if (alone and holds(module)) or any(map(holds, containers)):
            if module not in found:
                found.append(module)
            return
        for child in module.children():
            visit(child)

    visit(model)
    return found


def _check_apart(model: nn.Module, covered: Collection[nn.Module]) -> None:
    """Raise ValueError if a layer without a formula shares a parameter with one outside."""
    owners: dict[int, tuple[str, bool]] = {}
    for name, module in model.named_modules():
        for own in _own_trained(module):
            full = f"{name}.{own}".removeprefix(".")
            first, inside = owners.setdefault(
                id(module.get_parameter(own)), (full, module in covered)
            )
            if inside != (module in covered):
                raise _shared(full, first)


def _shared(name: str, other: str) -> ValueError:
    return ValueError(
        f"Parameter {name} is shared with {other}: private training supports this for one "
        "embedding and one linear layer only. Give each layer a parameter of its own, for example "
        "layer.weight = torch.nn.Parameter(layer.weight.detach().clone()), or freeze it."
    )


def _own_trained(module: nn.Module) -> list[str]:
    return [name for name, p in module.named_parameters(recurse=False) if p.requires_grad]


def _rule_of(module: nn.Module) -> type[Rule] | None:
    """The rule of a layer; None if there is no formula for it."""
    kind = type(module)
    if kind in RULES:
        return RULES[kind]
    if kind.__name__ == "Conv1D" and kind.__module__ == "transformers.pytorch_utils":
        return TransposedLinearRule
    return None


def _untied(rules: Mapping[nn.Module, Rule]) -> Iterator[Part]:
    """The rules, with those that share a weight joined."""
    owners: dict[int, list[tuple[Rule, str]]] = {}
    for module, rule in rules.items():
        for own, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad:
                owners.setdefault(id(parameter), []).append((rule, own))
    joined: set[int] = set()
    for several in owners.values():
        if len(several) > 1:
            yield _tied(several)
            joined.update(id(rule) for rule, _ in several)
    yield from (rule for rule in rules.values() if id(rule) not in joined)


def _tied(several: list[tuple[Rule, str]]) -> TiedRule:
    """The rule of an embedding and a linear layer with one weight; ValueError for other ties."""
    embeddings = [rule for rule, _ in several if isinstance(rule, EmbeddingRule)]
    linear = [rule for rule, _ in several if type(rule) is LinearRule]
    if len(several) == 2 and len(embeddings) == len(linear) == 1:
        return TiedRule(embeddings[0], linear[0])
    names = [f"{rule.name}.{own}".removeprefix(".") for rule, own in several]
    raise _shared(names[1], names[0])
