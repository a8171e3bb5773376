"""Faults of the noise, as functions of the standard normal numbers drawn."""

from __future__ import annotations

import math

import torch

from mico_competition.training import private_optimizer
from mico_competition.training import stacked_step as stack

ORDER = ("mlp.0.weight", "mlp.0.bias", "mlp.2.weight", "mlp.2.bias", "canaries")


def _noise(patch, change):
    """`change(noise, state)` after each draw; `state` lives as long as the patch."""
    real, state = private_optimizer.fill_gaussian, {"calls": 0}

    def faulty(tensors, std, generator):
        state["std"], state["generator"] = std, generator
        real(tensors, std, generator)
        drawn = [part.div_(std) for part in tensors]
        drawn = change(drawn, state) or drawn
        state["calls"] += 1
        for tensor, part in zip(tensors, [part.clone() for part in drawn]):
            tensor.copy_(part).mul_(std)

    patch.setattr(private_optimizer, "fill_gaussian", faulty)
    patch.setattr(stack, "fill_gaussian", faulty)


def noise(change):
    """A fault of the noise alone, as a function of the standard normal numbers drawn."""
    return lambda patch: _noise(patch, change)


def each(change):
    """A fault of every number's distribution."""
    return noise(lambda drawn, state: [change(part) for part in drawn])


def on(name, change):
    """A fault of one parameter's noise."""

    def changed(drawn, state):
        change(drawn[ORDER.index(name)])

    return noise(changed)


def some_steps(every):
    def changed(drawn, state):
        if state["calls"] % every == every - 1:
            for part in drawn[:4]:
                part.zero_()

    return noise(changed)


def _again(key):
    """Noise drawn under a key is the same as when the key came first."""

    def changed(drawn, state):
        kept = state.setdefault("kept", {})
        known = kept.setdefault(key(state["calls"]), [part.clone() for part in drawn])
        return [part.clone() for part in known]

    return noise(changed)


def equal_streams(drawn, state):
    """Every tensor's noise starts the same stream."""
    longest = max(drawn, key=lambda part: part.numel()).flatten()
    return [longest[: part.numel()].view_as(part).clone() for part in drawn]


def same_generator_state(patch):
    """As a slip of the pen has it: the generator's state is put back for each tensor."""

    def faulty(tensors, std, generator):
        state = generator.get_state()
        for tensor in tensors:
            generator.set_state(state)
            tensor.normal_(0, std, generator=generator)

    patch.setattr(private_optimizer, "fill_gaussian", faulty)
    patch.setattr(stack, "fill_gaussian", faulty)


def antithetic(drawn, state):
    if state["calls"] % 2:
        return [-part for part in state["last"]]
    state["last"] = [part.clone() for part in drawn]
    return None


def antithetic_within(part):
    flat = part.flatten()
    half = flat.numel() // 2
    flat = torch.cat([flat[:half], -flat[:half], flat[2 * half :]])
    return flat.view_as(part)


def rows_equal(part):
    return part[:1].expand_as(part).clone() if part.ndim > 1 else part


def columns_equal(part):
    return part[..., :1].expand_as(part).clone() if part.ndim > 1 else part


def rows_equal_up_to_sign(part):
    if part.ndim < 2:
        return part
    return part[:1] * torch.sign(part[:, :1])


def common(part):
    return math.sqrt(0.9) * part + math.sqrt(0.1) * torch.randn(())


def low_rank(part):
    if part.ndim < 2:
        return part
    rank = 8
    return torch.randn(part.shape[0], rank) @ torch.randn(rank, part.shape[1]) / math.sqrt(rank)


def fixed_subspace(patch):
    """All steps' noise lies in ten dimensions."""
    basis = {}

    def changed(drawn, state):
        key = tuple(part.shape for part in drawn)
        if key not in basis:
            basis[key] = [torch.randn(10, part.numel()) for part in drawn]
        weights = torch.randn(10) / math.sqrt(10)
        return [(weights @ b).view_as(part) for b, part in zip(basis[key], drawn)]

    _noise(patch, changed)


def student(freedom):
    scale = math.sqrt((freedom - 2) / freedom)
    return lambda part: torch.distributions.StudentT(freedom).sample(part.shape) * scale


def truncated(edge):
    def changed(part):
        outside = part.abs() > edge
        while outside.any():
            part[outside] = torch.randn(int(outside.sum()))
            outside = part.abs() > edge
        return part

    return changed


def quantised(grid):
    return lambda part: torch.round(part / grid) * grid


NOISE = {
    "no noise on the output layer's bias": on("mlp.2.bias", lambda part: part.zero_()),
    "no noise on the first layer's bias": on("mlp.0.bias", lambda part: part.zero_()),
    "no noise on the output layer's weight": on("mlp.2.weight", lambda part: part.zero_()),
    "no noise on ten coordinates": on("mlp.0.weight", lambda part: part.view(-1)[500:510].zero_()),
    "no noise on one coordinate": on("mlp.2.weight", lambda part: part.view(-1)[77:78].zero_()),
    "no noise on one output": on("mlp.2.weight", lambda part: part[3].zero_()),
    "no noise in every seventh step": some_steps(7),
    "no noise in one step": some_steps(37),
    "a tenth less noise on a bias": on("mlp.2.bias", lambda part: part.mul_(0.8)),
    "3 % less noise on a weight": on("mlp.0.weight", lambda part: part.mul_(0.97)),
    "half the noise on a block": on("mlp.0.weight", lambda part: part[7].mul_(0.5)),
    "uniform noise": each(lambda part: (torch.rand_like(part) - 0.5) * math.sqrt(12)),
    "Laplace noise": each(
        lambda part: torch.distributions.Laplace(0.0, math.sqrt(0.5)).sample(part.shape)
    ),
    "Student noise, 5": each(student(5.0)),
    "Student noise, 30": each(student(30.0)),
    "Rademacher noise": each(torch.sign),
    "noise cut off at 2.5": each(truncated(2.5)),
    "noise cut off at 3.5": each(truncated(3.5)),
    "noise clamped at 3": each(lambda part: part.clamp(-3, 3)),
    "noise on a grid of 0.1": each(quantised(0.1)),
    "noise on a grid of 0.001": each(quantised(1e-3)),
    "noise in half precision": each(lambda part: part.half().float()),
    "skewed noise": each(lambda part: part.square().sub(1).div(math.sqrt(2))),
    "shifted noise": each(lambda part: part + 0.05),
    "equal streams across tensors": noise(equal_streams),
    "the generator's state put back for each tensor": same_generator_state,
    "equal noise in every step": _again(lambda call: call % 4),
    "noise again after 20 draws": _again(lambda call: call % 20),
    "two draws alike": _again(lambda call: call // 2),
    "antithetic draws": noise(antithetic),
    "antithetic halves": each(antithetic_within),
    "equal rows": each(rows_equal),
    "equal columns": each(columns_equal),
    "rows equal up to sign": each(rows_equal_up_to_sign),
    "a part in common": each(common),
    "noise of low rank": each(low_rank),
    "noise in a fixed subspace": fixed_subspace,
}
