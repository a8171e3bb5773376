#!/usr/bin/env python3
"""What the last iterate of a private MLP can show: linear decodes that know more than an attacker.

    python benchmarks/table_oracle.py [BED ...] [--seeds 0] [--work runs/fleets]

trains one model of each bed with its scenario's settings (DP-SGD with Poisson batches and Adam,
written out here so that the trajectory is at hand), and decodes the memberships of all records from
its final weights: as the attack does (docs/METHODS.md, formula 57), and by whole gradients with
biases, clipped at the true bound, with and without two things that no attacker has: the weights at
the start, and the records' gradients along the true trajectory instead of at the end. The ridge is
the best in hindsight. Where `attack_fleets.py` has trained models of the scenario, each decode is
also joined with the model's outputs, compared with those of the fleet's models, by a logistic
regression in hindsight. It writes docs/results/table_oracle.json; half a minute a bed of 20,000
records, several for `full`.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "docs/results/table_oracle.json"

from mico_competition.scoring import tpr_at_most_fpr  # noqa: E402
from testbeds import BEDS, TESTBEDS  # noqa: E402

from mico_competition.attacks.stacking.logistic import fit_logistic  # noqa: E402
from mico_competition.attacks.whitebox.mlp.both_layers import (  # noqa: E402
    gradient_kernel,
    gradient_lengths,
    gradient_trace,
)
from mico_competition.attacks.whitebox.mlp.joint import Kernel, solve_shifted  # noqa: E402
from mico_competition.attacks.whitebox.mlp.mlp_layers import Layers, layers_of  # noqa: E402
from mico_competition.competition.table import SCENARIOS, TASKS, Scenario, use  # noqa: E402
from mico_competition.data.datasets import load_dataset  # noqa: E402
from mico_competition.models.architectures import new_model  # noqa: E402
from mico_competition.signals import Signals, read_fleet  # noqa: E402
from mico_competition.training.accounting import Mechanism  # noqa: E402

PRIVATE_BEDS = {
    "bundles_hi": "bundles",
    "widebundles_hi": "widebundles",
    "widebundles_lo": "widebundles",
    "purchase100_hi": "full",
    "purchase100_lo": "full",
}
POINTS = 90  # of the trajectory at which gradients are taken
BETAS, TINY = (0.9, 0.999), 1e-8  # Adam's
RIDGES = (1.0, 3.0, 10.0, 30.0, 100.0)
SOFT, WIDE = 0.05, 5.0  # the least spread of a logit, and the largest deviation in its spreads
MANY, LEAST_OF_MANY = 50_000, 10.0  # above so many records, smaller ridges take minutes each

Trajectory = list[tuple[float, Layers]]


def main() -> None:
    """Write the rates of each bed and seed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("beds", nargs="*", metavar="BED", help=f"of {', '.join(PRIVATE_BEDS)}")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "fleets")
    args = parser.parse_args()
    found = json.loads(OUT.read_text(encoding="utf-8")) if OUT.exists() else []
    for bed in args.beds or PRIVATE_BEDS:
        testbed = TESTBEDS[PRIVATE_BEDS[bed]]
        use(BEDS / testbed.competition if testbed.competition else None)
        scenario = SCENARIOS[bed]
        data = load_dataset(scenario.task, str(args.work / (testbed.data or ".")))
        inputs, labels = data.inputs(torch.arange(len(data))).float(), data.labels.long()
        models = args.work / PRIVATE_BEDS[bed] / testbed.challenge
        others = logits_of(models, bed, data) if (models / bed).is_dir() else None
        for seed in map(int, args.seeds.split(",")):
            started = time.process_time()
            row = {"bed": bed, "seed": seed, **detect(seed, scenario, inputs, labels, others)}
            row["cpu_seconds"] = round(time.process_time() - started, 1)
            print(row, flush=True)
            found = [old for old in found if (old["bed"], old["seed"]) != (bed, seed)] + [row]
            OUT.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def logits_of(models: Path, scenario: str, data: Any) -> np.ndarray:
    """float32[models, N], the signal `logit` of a fleet's models at all records."""
    fleet = read_fleet(models, scenario, data, phases=("train", "dev"), records="all")
    return Signals(fleet, data).get("logit")


def detect(
    seed: int, scenario: Scenario, inputs: Tensor, labels: Tensor, others: np.ndarray | None
) -> dict[str, object]:
    """TPR at 10 % FPR over all records of one model, in percent, for each decode."""
    torch.manual_seed(seed)
    start = layers_of(new_model(TASKS[scenario.task]))
    inputs, start = inputs * start.gain, Layers(*parts(start), 1.0)
    inside = torch.zeros(len(inputs), dtype=torch.bool)
    inside[torch.randperm(len(inputs))[: TASKS[scenario.task].len_training]] = True
    noise, trajectory = train(start, scenario, inputs[inside], labels[inside])
    end = trajectory.pop()[1]
    change = Layers(*(a - b for a, b in zip(parts(end), parts(start))), end.gain)
    along = kernel_along(trajectory, scenario.max_grad_norm, inputs, labels)
    at_end = kernel_along([(1.0, end)], scenario.max_grad_norm, inputs, labels)

    ridges = [r for r in RIDGES if r >= LEAST_OF_MANY or len(inputs) <= MANY]
    truth = inside.int().numpy()
    outputs = None if others is None else against(others, end, inputs, labels)

    def percent(scores: np.ndarray) -> float:
        return 100 * float(tpr_at_most_fpr(truth, scores, 0.1))

    def rate(name: str, kernel: Kernel, weights: Layers) -> dict[str, float]:
        solved = solve_shifted(kernel.fast(), gradient_trace(kernel, weights), ridges).numpy()
        found = {name: max(map(percent, solved))}
        if outputs is not None:
            scores = [joined(truth, outputs, own) for own in solved]
            found[f"{name}, outputs"] = max(map(percent, scores))
        return {key: round(value, 1) for key, value in found.items()}

    length = gradients(end, inputs, labels)[-1]
    right = (end.hidden(inputs) @ end.w2.T + end.b2).argmax(1) == labels
    centred = inputs - inputs.mean(0)
    known, unknown = with_biases(change), with_biases(end)
    return {
        "noise_multiplier": round(noise, 4),
        "accuracy_members": round(float(right[inside].float().mean()), 3),
        "accuracy_nonmembers": round(float(right[~inside].float().mean()), 3),
        "clipped": round(float((length > scenario.max_grad_norm).float().mean()), 3),
        **({} if outputs is None else {"outputs": round(percent(joined(truth, outputs)), 1)}),
        **rate("start and trajectory known", along, known),
        **rate("start known", at_end, known),
        **rate("trajectory known", along, unknown),
        **rate("neither known", at_end, unknown),
        **rate("the attack's", gradient_kernel(end, inputs, centred, labels), end),
    }


def against(others: np.ndarray, layers: Layers, inputs: Tensor, labels: Tensor) -> np.ndarray:
    """float64[N, 2]: how far a model's logits lie from others', and how easy each record is."""
    log_p = torch.addmm(layers.b2, layers.hidden(inputs), layers.w2.T).log_softmax(1)
    log_p = log_p.double()
    own = log_p.gather(1, labels[:, None])[:, 0]
    rest = log_p.scatter(1, labels[:, None], -torch.inf).logsumexp(1)
    usual, spread = others.mean(0), others.std(0)
    far = np.clip(((own - rest).numpy() - usual) / (spread + SOFT), -WIDE, WIDE)
    return np.stack([far, np.tanh(usual / 4)], 1)


def joined(truth: np.ndarray, outputs: np.ndarray, decode: np.ndarray | None = None) -> np.ndarray:
    """float64[N], logistic regression of membership on the result of `against` and a decode."""
    far, easy = outputs.T
    columns = [far, far * easy, far**2]
    if decode is not None:
        own = np.clip(decode / decode.std(), -WIDE, WIDE)
        columns += [own, own * easy]
    features = np.stack(columns, 1)
    features = (features - features.mean(0)) / features.std(0)
    return fit_logistic(features, truth).scores(features)


def train(
    start: Layers, scenario: Scenario, inputs: Tensor, labels: Tensor
) -> tuple[float, Trajectory]:
    """The noise multiplier, and (learning rate, weights) on the way and, last, at the end."""
    count, epochs, clip = len(inputs), scenario.num_epochs, scenario.max_grad_norm
    an_epoch = -(-count // scenario.batch_size)
    rate = 1 / an_epoch
    noise = Mechanism.for_target(
        target_epsilon=scenario.target_epsilon,
        target_delta=scenario.target_delta,
        sample_rate=rate,
        num_steps=an_epoch * epochs,
    ).noise_multiplier
    weights = [own.clone() for own in parts(start)]
    first = [torch.zeros_like(own) for own in weights]
    second = [torch.zeros_like(own) for own in weights]
    kept, steps = [], an_epoch * epochs
    every = max(1, steps // POINTS)
    for step in range(steps):
        decay = scenario.lr_scheduler_gamma ** (step // an_epoch // scenario.lr_scheduler_step)
        now = Layers(*weights, start.gain)
        if step % every == every // 2:
            kept.append(
                (scenario.learning_rate * decay, Layers(*map(Tensor.clone, weights), start.gain))
            )
        batch = torch.nonzero(torch.rand(count) < rate)[:, 0]
        for place, total in enumerate(clipped_sum(now, clip, inputs[batch], labels[batch])):
            own = -(total + noise * clip * torch.randn_like(total)) / (count * rate)
            first[place].lerp_(own, 1 - BETAS[0])
            second[place].lerp_(own.square(), 1 - BETAS[1])
            mean = first[place] / (1 - BETAS[0] ** (step + 1))
            size = (second[place] / (1 - BETAS[1] ** (step + 1))).sqrt() + TINY
            weights[place] -= scenario.learning_rate * decay * mean / size
    return noise, [*kept, (0.0, Layers(*weights, start.gain))]


def parts(layers: Layers) -> Sequence[Tensor]:
    """The weights of a model."""
    return layers.w1, layers.b1, layers.w2, layers.b2


def gradients(
    layers: Layers, inputs: Tensor, labels: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Residuals [N, C], directions [N, H], hidden units [N, H], norms of whole gradients [N]."""
    hidden = layers.hidden(inputs)
    residual = -torch.softmax(torch.addmm(layers.b2, hidden, layers.w2.T), 1)
    residual[torch.arange(len(labels)), labels] += 1
    direction = (1 - hidden * hidden) * (residual @ layers.w2)
    return residual, direction, hidden, gradient_lengths(inputs, direction, hidden, residual)


def clipped_sum(layers: Layers, clip: float, inputs: Tensor, labels: Tensor) -> Iterator[Tensor]:
    """The sum of clipped descent directions, for each tensor of weights."""
    residual, direction, hidden, length = gradients(layers, inputs, labels)
    factor = (clip / length).clamp(max=1)[:, None]
    yield (direction * factor).T @ inputs
    yield (direction * factor).sum(0)
    yield (residual * factor).T @ hidden
    yield (residual * factor).sum(0)


def kernel_along(trajectory: Trajectory, clip: float, inputs: Tensor, labels: Tensor) -> Kernel:
    """Inner products of the records' clipped gradients, summed along a trajectory.

    Residuals hardly turn (cosine .99 between start and end), so the second layer's part, a sum of
    products, is taken as the product of the mean residual and the mean hidden units.
    """
    residuals, directions, hiddens, weight = 0.0, 0.0, 0.0, 0.0
    for rate, layers in trajectory:
        residual, direction, hidden, length = gradients(layers, inputs, labels)
        factor = rate * (clip / length).clamp(max=1)[:, None]
        residuals, directions = residuals + factor * residual, directions + factor * direction
        hiddens, weight = hiddens + factor * hidden, weight + factor
    beside = Kernel(with_one(hiddens / weight), residuals)
    return Kernel(with_one(inputs), directions, beside).standardised()


def with_one(inputs: Tensor) -> Tensor:
    """float32[N, D + 1], inputs of a layer and that of its bias."""
    return torch.cat([inputs, torch.ones_like(inputs[:, :1])], 1)


def with_biases(layers: Layers) -> Layers:
    """The model with each bias as a further column of its weights."""
    w1, b1, w2, b2 = parts(layers)
    return Layers(
        torch.cat([w1, b1[:, None]], 1), b1, torch.cat([w2, b2[:, None]], 1), b2, layers.gain
    )


if __name__ == "__main__":
    main()
