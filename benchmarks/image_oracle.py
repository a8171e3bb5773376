#!/usr/bin/env python3
"""What the last iterate of a private CNN can show: a linear detector that knows the trajectory.

    python benchmarks/image_oracle.py [--seeds 0] [--work runs/fleets]

trains the model of the test-bed `images_real_lo` with its settings (DP-SGD with Poisson batches,
written out here so that the trajectory is at hand), sums every record's clipped gradient along the
true trajectory, each by its learning rate, and decodes the change of the weights, from their true
start, as the sum of these directions over the members and noise.  No attacker has the trajectory,
so this shows about how much a linear decode of the final weights could find by itself, without
shadow models' outputs.  It writes docs/results/image_oracle.json; 90 CPU seconds a seed.  Needs the
images of `attack_fleets.py`.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "docs/results/image_oracle.json"
sys.path.insert(0, str(ROOT / "benchmarks/beds"))

from images import images, narrow_head  # noqa: E402
from mico_competition.scoring import tpr_at_most_fpr  # noqa: E402

from mico_competition.attacks.whitebox.layers.directions import directions  # noqa: E402
from mico_competition.attacks.whitebox.layers.joint_layers import gram  # noqa: E402
from mico_competition.attacks.whitebox.layers.layers import (  # noqa: E402
    find_layers,
    watch,
    weights_of,
)
from mico_competition.attacks.whitebox.mlp.joint import solve_shifted  # noqa: E402

# As images_real_lo in beds/images.toml; the noise is what `mico train` finds for epsilon 4.
TRAINING, BATCH, EPOCHS, RATE, DECAY, CLIP, NOISE = 2_250, 256, 20, 0.5, 0.96, 2.6, 1.8774
STEPS_AN_EPOCH = -(-TRAINING // BATCH)
EVERY = 12  # steps between two points of the trajectory at which gradients are taken
RIDGES = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)

Parameters = dict[str, Tensor]


def main() -> None:
    """Write the detector's rates for each seed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "fleets")
    args = parser.parse_args()
    data = images(str(args.work / "full_images"))
    inputs, labels = data.inputs(torch.arange(len(data))), data.labels
    found = []
    for seed in map(int, args.seeds.split(",")):
        started = time.process_time()
        row = detect(seed, inputs, labels)
        row["cpu_seconds"] = round(time.process_time() - started, 1)
        print(row, flush=True)
        found.append(row)
    OUT.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def detect(seed: int, inputs: Tensor, labels: Tensor) -> dict[str, float]:
    """TPR at 10 % FPR over all records of one model, by ridge; the best ridge is hindsight."""
    torch.manual_seed(seed)
    model = narrow_head()
    inside = torch.zeros(len(inputs), dtype=torch.bool)
    inside[torch.randperm(len(inputs))[:TRAINING]] = True
    members = torch.nonzero(inside)[:, 0]
    start = {name: own.detach().clone() for name, own in model.named_parameters()}
    end, trajectory = train(model, start, inputs[members], labels[members])
    change = flat_weights(model, end) - flat_weights(model, start)
    total = torch.zeros(len(inputs), len(change))
    for rate, weights in trajectory:
        add_clipped_gradients(total, rate, fill(model, weights), inputs, labels)
    total -= total.mean(0)
    kernel, trace = gram(total), total @ change
    scale = kernel.diagonal().mean()
    solved = solve_shifted(lambda c: kernel @ c / scale, trace / scale, RIDGES, 1e-3)
    truth = inside.int().numpy()
    rates = {
        f"joint {ridge:g}": float(tpr_at_most_fpr(truth, own.numpy(), 0.1))
        for ridge, own in zip(RIDGES, solved)
    }
    with torch.inference_mode():
        right = fill(model, end)(inputs).argmax(1) == labels
    return {
        "seed": seed,
        "accuracy_members": float(right[inside].float().mean()),
        "accuracy_nonmembers": float(right[~inside].float().mean()),
        "trace": float(tpr_at_most_fpr(truth, trace.numpy(), 0.1)),
        **rates,
    }


def train(
    model: nn.Module, start: Parameters, inputs: Tensor, labels: Tensor
) -> tuple[Parameters, list[tuple[float, Parameters]]]:
    """The final weights, and some (learning rate, weights) on the way, by private SGD."""
    by_record = vmap(grad(loss_of(model)), in_dims=(None, 0, 0))
    weights, kept = {name: own.clone() for name, own in start.items()}, []
    for step in range(EPOCHS * STEPS_AN_EPOCH):
        rate = RATE * DECAY ** (step // STEPS_AN_EPOCH)
        if step % EVERY == EVERY // 2:
            kept.append((rate, {name: own.clone() for name, own in weights.items()}))
        batch = torch.nonzero(torch.rand(len(inputs)) < BATCH / len(inputs))[:, 0]
        total = {name: torch.zeros_like(own) for name, own in weights.items()}
        for part in batch.split(128):
            gradients = by_record(weights, inputs[part], labels[part])
            length = torch.stack([g.flatten(1).square().sum(1) for g in gradients.values()])
            factor = (CLIP / length.sum(0).sqrt()).clamp(max=1)
            for name, own in gradients.items():
                total[name] += torch.einsum("b...,b->...", own, factor)
        for name, own in weights.items():
            noise = NOISE * CLIP * torch.randn_like(own)
            weights[name] = own - rate * (total[name] + noise) / BATCH
    return weights, kept


def loss_of(model: nn.Module) -> Callable[[Parameters, Tensor, Tensor], Tensor]:
    """The loss of one record, as a function of the weights."""

    def loss(weights: Parameters, record: Tensor, label: Tensor) -> Tensor:
        output = functional_call(model, weights, (record[None],))
        return nn.functional.cross_entropy(output, label[None])

    return loss


def add_clipped_gradients(
    total: Tensor, rate: float, model: nn.Module, inputs: Tensor, labels: Tensor
) -> None:
    """Add rate times each record's clipped descent direction to the rows of `total`."""
    layers = find_layers(model)
    for rows in torch.arange(len(inputs)).split(200):
        with torch.no_grad():
            shares = model(inputs[rows]).softmax(1)
        residual = nn.functional.one_hot(labels[rows], shares.shape[1]) - shares
        seen, _ = watch(model, layers, inputs[rows], residual)
        flat = torch.cat([directions(seen[name]).flatten(1) for name in layers], dim=1)
        total[rows] += flat * (rate * (CLIP / flat.norm(dim=1, keepdim=True)).clamp(max=1))


def fill(model: nn.Module, weights: Mapping[str, Tensor]) -> nn.Module:
    """The model, with these weights."""
    with torch.no_grad():
        for name, own in model.named_parameters():
            own.copy_(weights[name])
    return model


def flat_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> Tensor:
    """float32[P], all weights in the order of the layers."""
    layers = find_layers(fill(model, weights)).values()
    return torch.cat([weights_of(layer).flatten() for layer in layers])


if __name__ == "__main__":
    main()
