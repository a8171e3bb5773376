"""A neural network that learns membership from shadow models' outputs and losses.

Sources: Shokri, Stronati, Song and Shmatikov, S&P 2017 (arXiv 1610.05820): shadows as labelled
examples of outputs; Salem et al., NDSS 2019 (arXiv 1806.01246): sorted top probabilities, one
network for all classes; Nasr, Shokri and Houmansadr, S&P 2019 (arXiv 1812.00910): the loss besides
the outputs. Standard scores over the other shadows are inputs, too: without them the network would
have to learn from the output alone which records are easy.

The mathematics is in docs/METHODS.md, section 5.5.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from mico_competition.attacks.problem import Problem
from mico_competition.attacks.scores.common import check_finite
from mico_competition.attacks.stacking.calibrator import CLIP_SCORE, Calibrator
from mico_competition.attacks.stacking.outputs import SIGNALS, read_outputs
from mico_competition.attacks.stacking.table import Table, make_table, training_points
from mico_competition.models.inputs import default_device
from mico_competition.support.cpus import threads_for
from mico_competition.support.progress import tracked


@dataclass(frozen=True)
class Settings:
    """Settings of the network and its training.

    Attributes:
        hidden: units of the two hidden layers.
        epochs: passes over the training rows.
        batch_size: rows a step.
        rate: Adam's peak learning rate; it falls to 0 along a cosine.
        decay: decoupled weight decay.
        networks: the number of networks, trained with different seeds; their log odds are averaged.
        rows: about the maximal number of training rows.
    """

    hidden: int = 64
    epochs: int = 8
    batch_size: int = 1024
    rate: float = 3e-3
    decay: float = 1e-2
    networks: int = 3
    rows: int = 250_000


def neural(
    problem: Problem,
    *,
    top: int = 10,
    calibrate: bool = True,
    settings: Settings | None = None,
    seed: int = 0,
    device: torch.device | None = None,
) -> np.ndarray:
    """The network's log odds of membership.

    Args:
        problem: with own=False.
        top: the number of sorted log-probabilities as inputs.
        calibrate: whether standard scores over the shadows are inputs; False is the papers' attack.
        settings: of the network; None for the default.
        seed: for training rows, initial weights and order.
        device: for the network; None for CUDA if available.

    Returns: float64[t, k], log odds for as many members as non-members; reproducible on the same
    machine with the same seed.

    Raises:
        ValueError: as `make_table`; on NaN; on constant signals.
    """
    settings = settings or Settings()
    if top < 1 or min(settings.hidden, settings.epochs, settings.networks) < 1:
        raise ValueError("Expected top, hidden, epochs and networks of 1 or more.")
    table = make_table(problem)
    features = neural_features(table, top=top, calibrate=calibrate)
    stacked = table.stack(training_points(table, settings.rows, seed), table.asked)
    for feature in features:
        stacked.add(feature[: table.shadows], feature[table.shadows :])
    with threads_for(*problem.known_membership.shape):
        scores = train_and_score(
            stacked.shadow_features(),
            stacked.labels,
            stacked.target_features().reshape(-1, len(features)),
            settings,
            seed,
            device or default_device(),
        )
    return scores.reshape(problem.columns.shape)


def neural_features(table: Table, *, top: int = 10, calibrate: bool = True) -> list[np.ndarray]:
    """Features of all rows, each float32[s + t, p].

    Sorted log-probabilities, the scalar signals and the margin; with `calibrate` also the standard
    scores of the latter over the other shadows.
    """
    outputs = read_outputs(table, top)
    scalars = [table.values(name) for name in SIGNALS] + [outputs.margin]
    features = [outputs.top[:, :, k] for k in range(outputs.top.shape[2])] + scalars
    if not calibrate:
        return features
    return features + [table.calibrated(Calibrator.standard_score, values) for values in scalars]


def train_and_score(
    x: np.ndarray,
    labels: np.ndarray,
    targets: np.ndarray,
    settings: Settings,
    seed: int,
    device: torch.device,
) -> np.ndarray:
    """Fit networks and apply them.

    Args:
        x: float[rows, k].
        labels: bool[rows].
        targets: float[asked, k].
        settings: of networks and training.
        seed: of the first network; the others use the following ones.
        device: for training.

    Returns:
        float64[asked], the mean log odds of the networks.
    """
    check_finite("features", x)
    check_finite("features of targets", targets)
    if labels.all() or not labels.any():
        raise ValueError("Expected shadows with members and non-members, got one kind only.")
    mean, scale = x.mean(axis=0, dtype=np.float64), x.std(axis=0, dtype=np.float64)
    scale = np.where(
        scale > 1e-6 * np.abs(mean) + 1e-12, scale, np.inf
    )  # a constant feature has no effect
    inputs, asked = (
        torch.from_numpy(((a - mean) / scale).clip(-CLIP_SCORE, CLIP_SCORE).astype(np.float32)).to(
            device
        )
        for a in (x, targets)
    )
    seen = torch.from_numpy(labels).to(device, torch.float32)
    total = np.zeros(len(targets))
    for place in tracked(range(settings.networks), "Neural attack", "network"):
        network = _trained(inputs, seen, settings, seed + 7919 * place)
        with torch.inference_mode():
            parts = [network(part)[:, 0].double().cpu() for part in asked.split(1 << 16)]
        total += torch.cat(parts).numpy()
    return total / settings.networks


def _trained(inputs: Tensor, seen: Tensor, settings: Settings, seed: int) -> nn.Module:
    """One network, trained with equal total weights of both classes."""
    share = seen.mean()
    weight = torch.where(seen > 0, 0.5 / share, 0.5 / (1 - share))
    order = torch.Generator().manual_seed(seed)
    network = _network(inputs.shape[1], settings.hidden, seed).to(inputs.device)
    optimiser = torch.optim.AdamW(
        network.parameters(), lr=settings.rate, weight_decay=settings.decay
    )
    steps = settings.epochs * -(-len(inputs) // settings.batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(settings.epochs):
        shuffled = torch.randperm(len(inputs), generator=order).to(inputs.device)
        for batch in shuffled.split(settings.batch_size):
            optimiser.zero_grad()
            nn.functional.binary_cross_entropy_with_logits(
                network(inputs[batch])[:, 0], seen[batch], weight=weight[batch]
            ).backward()
            optimiser.step()
            schedule.step()
    return network.eval()


def _network(features: int, hidden: int, seed: int) -> nn.Module:
    """Two hidden layers, with weights from `seed`; torch's global generator keeps its state."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would affect GPUs, too
        return nn.Sequential(
            nn.Linear(features, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, 1),
        )
