"""The features of CIFAR-10's runner-up of 2023, from one model and the gradients of others.

Source: A. Suri, "My submission to the MICO Challenge" (2023), his description of the entry; the
values of `Settings` are his.  Each function takes records of one model at once, [b, ...].

His mistake, not repeated: his input-space ascent moved a record along itself (x -+ step * x); here
it follows the loss's gradient, as his text describes. Two differences are deliberate: he kept the
loss's change in the last such step, here it is that of all steps; he drew different reference
models for every model, here one draw serves all, so that sums and extremes over them are
comparable.

Records of text are moved in the space of their tokens' embeddings, with noise in units of the
embeddings' deviation.  A transformer has too many weights for a gradient of each record: there
only the last few weight matrices count (`Settings.layers`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from mico_competition.attacks.whitebox.record_gradients import weights_of
from mico_competition.models.architectures import logits

SMALL = 1e-10  # his value: keeps logarithms and quotients finite
HELD = 1 << 25  # numbers of records' gradients in one block: 128 MB
BATCH = 2048  # records in one batch


@dataclass(frozen=True)
class Settings:
    """Parameters of the features; the defaults are his.

    Attributes:
        neighbours, noise: the number of neighbours of each record, and the standard deviation of
            their noise.
        moves, down, up: the number of steps in input space, and their sizes downhill and uphill.
        rate: of the single training step on a record.
        directions, stride, strides: the number of random walks, the deviation of one stride, and
            the maximal number of strides.
        layers: the maximal number of weight tensors for gradients, counted from the last.
    """

    neighbours: int = 50
    noise: float = 0.5
    moves: int = 10
    down: float = 0.1
    up: float = 0.01
    rate: float = 0.05
    directions: int = 10
    stride: float = 0.1
    strides: int = 100
    layers: int = 4

    def __post_init__(self) -> None:
        counts = self.neighbours, self.moves, self.directions, self.strides, self.layers
        sizes = self.noise, self.down, self.up, self.rate, self.stride
        if min(counts) < 1 or not min(sizes) > 0:
            raise ValueError("Expected counts of 1 or more and sizes above 0 in Suri's settings.")


@dataclass(frozen=True)
class Space:
    """Records as points that can be moved.

    Attributes:
        x: float[b, ...], the records, or their tokens' embeddings.
        unit: the unit of noise.
        answer: (float[c, ...], int64[c], their records) -> logits float[c, classes].
    """

    x: Tensor
    unit: float
    answer: Callable[[Tensor, Tensor], Tensor]

    def losses(self, x: Tensor, who: Tensor, labels: Tensor) -> Tensor:
        """float[c], cross-entropies of moved records."""
        return nn.functional.cross_entropy(self.answer(x, who), labels[who], reduction="none")


def space_of(model: nn.Module, inputs: Any) -> Space:
    """The space in which records of a task are moved."""
    if not isinstance(inputs, Mapping):
        if not inputs.is_floating_point():
            raise ValueError(
                "Expected records of real-valued features, which can be moved, got whole numbers: "
                "for text, pass a dict of input_ids and attention_mask."
            )
        return Space(inputs, 1.0, lambda x, who: logits(model, x))
    if not {"input_ids", "attention_mask"} <= set(inputs) or not hasattr(
        model, "get_input_embeddings"
    ):
        raise ValueError(
            "Expected records as one tensor, or input_ids and attention_mask for a model of "
            f"transformers, whose embeddings are moved; got {', '.join(inputs)} for a "
            f"{type(model).__name__}: use the attack `layers` or `whitebox`."
        )
    embed: Any = model.get_input_embeddings
    mask = inputs["attention_mask"]
    with torch.no_grad():
        x = embed()(inputs["input_ids"])

    def answer(moved: Tensor, who: Tensor) -> Tensor:
        return logits(model, {"inputs_embeds": moved, "attention_mask": mask[who]})

    return Space(x, float(x[mask.bool()].std()), answer)


def class_scaled_logit(outputs: Tensor, labels: Tensor) -> Tensor:
    """float[b], the true class's logit minus the largest of the others."""
    others = outputs.scatter(1, labels[:, None], -torch.inf)
    return outputs.gather(1, labels[:, None])[:, 0] - others.amax(dim=1)


def neighbourhood(space: Space, labels: Tensor, s: Settings, generator: torch.Generator) -> Tensor:
    """float[b], log of the loss's relative change among neighbours, at least 0 (as his).

    It is log(|losses of neighbours - loss| / loss), |.| the Euclidean norm over the neighbours.
    """
    who = torch.arange(len(labels), device=labels.device)
    squares = torch.zeros(len(labels), device=labels.device)
    with torch.no_grad():
        base = space.losses(space.x, who, labels)
        for _ in range(s.neighbours):
            moved = space.x + s.noise * space.unit * _noise(space.x, generator)
            squares += (space.losses(moved, who, labels) - base) ** 2
    return (squares.sqrt() / (base + SMALL) + SMALL).log().clamp(min=0)


def input_descent(space: Space, labels: Tensor, step: float, moves: int) -> Tensor:
    """float[b, 2]: the fall of the loss in `moves` steps along its gradient, and the distance.

    A negative step climbs.
    """
    who = torch.arange(len(labels), device=labels.device)
    x = space.x.detach()
    for _ in range(moves):
        x = x.detach().requires_grad_()
        losses = space.losses(x, who, labels)
        x = x - step * torch.autograd.grad(losses.sum(), x)[0]
    x = x.detach()
    with torch.no_grad():
        fall = space.losses(space.x, who, labels) - space.losses(x, who, labels)
    return torch.stack([fall, (x - space.x).flatten(1).norm(dim=1)], dim=1)


def boundary_walk(space: Space, labels: Tensor, s: Settings, generator: torch.Generator) -> Tensor:
    """float[b], strides in a random direction until the output is wrong, averaged over directions.

    At least 1; `strides` if it never is.
    """
    total = torch.zeros(len(labels), device=labels.device)
    for _ in range(s.directions):
        stride = s.stride * space.unit * _noise(space.x, generator)
        steps = torch.full_like(total, s.strides)
        walking = torch.arange(len(labels), device=labels.device)
        for count in range(1, s.strides):
            with torch.no_grad():
                answers = space.answer(space.x[walking] + count * stride[walking], walking)
            wrong = answers.argmax(dim=1) != labels[walking]
            steps[walking[wrong]] = count
            walking = walking[~wrong]
            if len(walking) == 0:
                break
        total += steps
    return total / s.directions


def one_step(
    model: nn.Module, inputs: Any, labels: Tensor, found: list[Tensor], s: Settings
) -> Tensor:
    """How far one step of SGD on the record moves each layer and lowers its loss.

    Returns float[b, layers + 1].

    Args:
        model: not changed.
        inputs: records.
        labels: int64[b].
        found: of `gradients`.
        s: `rate` and `layers` count.
    """
    weights = weights_of(model, s.layers)
    norms = torch.stack([s.rate * g.norm(dim=1) for g in found], dim=1)
    with torch.no_grad():
        before = nn.functional.cross_entropy(logits(model, inputs), labels, reduction="none")
        moved = {
            name: weight - s.rate * g.reshape(-1, *weight.shape)
            for (name, weight), g in zip(weights.items(), found)
        }
        after = nn.functional.cross_entropy(
            _each_with_its_own(model, moved, inputs, len(labels)), labels, reduction="none"
        )
    return torch.cat([norms, (before - after)[:, None]], dim=1)


def _each_with_its_own(
    model: nn.Module, moved: dict[str, Tensor], inputs: Any, count: int
) -> Tensor:
    """Logits [b, classes] of each record, with its own weights."""
    if not isinstance(inputs, Mapping):
        logits: Tensor = vmap(lambda w, x: functional_call(model, w, (x[None],))[0])(moved, inputs)
        return logits
    rows = []
    for i in range(count):
        own = {name: value[i] for name, value in moved.items()}
        one = {name: value[i : i + 1] for name, value in inputs.items()}
        rows.append(
            functional_call(_Logits(model), {f"model.{n}": w for n, w in own.items()}, (), one)
        )
    return torch.cat(rows)


class _Logits(nn.Module):
    """`models.logits` as a module, so that its weights can be replaced."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, **inputs: Tensor) -> Tensor:
        return logits(self.model, inputs)


def summarise(products: Tensor) -> Tensor:
    """float[b, 4 layers] of float[references, b, layers]: range, sum of sizes, minimum, maximum."""
    least, largest = products.amin(dim=0), products.amax(dim=0)
    return torch.cat([largest - least, products.abs().sum(dim=0), least, largest], dim=1)


def _noise(like: Tensor, generator: torch.Generator) -> Tensor:
    """Standard normal numbers, drawn on the CPU, so that all devices get the same."""
    return torch.randn(like.shape, generator=generator).to(like)
