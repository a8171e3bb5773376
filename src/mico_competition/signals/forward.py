"""Runs models over records, and makes the arrays that signals are derived from.

This is the slow part of an attack, and the part that needs torch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from mico_competition.competition.challenge import ChallengeDataset
from mico_competition.competition.layout import ModelFolder
from mico_competition.data.arrays import ArrayDataset
from mico_competition.data.fingerprint import hashed_once
from mico_competition.models.architectures import MLP, load_model, logits
from mico_competition.models.inputs import to_device
from mico_competition.models.precision import full_float32
from mico_competition.models.probe import fill, probe_rows, rounded
from mico_competition.signals.gradients import negative_log_norms
from mico_competition.signals.plausible import Plausibility
from mico_competition.signals.points import Points
from mico_competition.signals.scalars import entropies, true_logit
from mico_competition.support.progress import tracked
from mico_competition.training.fingerprints import check_architecture

# The arrays that one file of the cache holds: "logits" float32[points, classes], "logit" and
# "gradient_norm" float64[points], "entropies" float64[2, points].  The numbers are versions: raise
# one when its values change.
KINDS = {"logits": 1, "logit": 1, "entropies": 1, "gradient_norm": 1}

Arrays = dict[str, list[np.ndarray]]  # kind -> parts of the array, to be concatenated

_ROWS = 1024  # rows of logits that `entropies` takes together


def make_arrays(model: nn.Module, points: Points, kinds: Collection[str], name: str) -> Arrays:
    """Compute arrays of the requested kinds, and of those that the same passes give anyway.

    Args:
        model: in eval mode, on the points' device.  "gradient_norm" leaves hooks in it, so do not
            use it for anything else afterwards.
        points: the records.
        kinds: some of KINDS.
        name: the model's name in messages.

    Raises:
        ValueError: if the model's outputs or gradients are not finite.
    """
    points.check_model(model, name)
    arrays: Arrays = {}
    with full_float32(points.device):
        if set(kinds) - {"gradient_norm"}:
            arrays = _forward(model, points)
        if "entropies" in kinds:
            arrays["entropies"] = make_entropies(arrays["logits"], points)
        if "gradient_norm" in kinds:
            arrays["gradient_norm"] = [negative_log_norms(model, points)]
    for kind in arrays.keys() - {"logits"}:  # what is not finite there shows in "logit"
        if not all(np.isfinite(part).all() for part in arrays[kind]):
            raise ValueError(
                f"{name} gives values that are not finite ({kind}), so its scores would mean "
                "nothing: leave it out, or train it again."
            )
    return arrays


def _forward(model: nn.Module, points: Points) -> Arrays:
    """The arrays "logits" and "logit".

    All forward passes come before the scalars; alternating them would empty the CPU's caches.
    """
    size = points.batch_size()
    with torch.inference_mode():
        outputs = points.outputs(model, lambda inputs, _: logits(model, inputs), size, keep=True)
        labels = points.data.labels.split([len(z) for z in outputs])
        scalars = [true_logit(z, y) for z, y in zip(outputs, labels)]
        return {
            "logits": [z.float().cpu().numpy() for z in outputs],
            "logit": [torch.cat(scalars).cpu().numpy()],
        }


def make_entropies(logit_parts: Sequence[np.ndarray], points: Points) -> list[np.ndarray]:
    """The array "entropies", from logits float32[points, classes] that come in parts."""
    parts, start = [], 0
    with torch.inference_mode():
        for part in logit_parts:
            for rows in np.split(part, range(_ROWS, len(part), _ROWS)):
                labels = points.data.labels[start : start + len(rows)]
                start += len(rows)
                z = torch.from_numpy(np.array(rows)).to(points.device)  # a copy: maps are read-only
                parts.append(entropies(z, labels))
        return [torch.cat(parts, 1).cpu().numpy()]


def signals_fingerprint() -> str:
    """SHA-256 in hex of the signals of a small network whose weights are given by a formula.

    It changes when the code of this package computes other values, to three digits.
    """
    with torch.random.fork_rng(devices=[]):
        model = MLP(8, 6, 5).eval()
    fill(model)
    records = probe_rows((8,), torch.float32).float()
    points = Points("probe", ArrayDataset(records, torch.arange(len(records)), torch.clone))
    arrays = make_arrays(model, points, KINDS, "the probe of signals")
    texts = [rounded(np.concatenate(arrays[kind]).ravel().tolist(), 3) for kind in sorted(KINDS)]
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()


def losses(
    model: nn.Module, data: Any, indices: torch.Tensor, *, batch_size: int = 512
) -> np.ndarray:
    """Compute a model's cross-entropy loss at each record.

    The loss is taken from the logits in double precision: float32 rounds the small losses of a
    model that fits its training set to a few values, and attacks depend on their order.

    Args:
        model: in eval mode.
        data: an ArrayDataset or TokenDataset; batches are moved to the model's device.
        indices: int64[points], indices into the dataset.
        batch_size: records in one forward pass.

    Returns:
        float64[points], in nats, in the order of `indices`.
    """
    parts = [
        nn.functional.cross_entropy(outputs, labels, reduction="none").cpu()
        for outputs, labels in _outputs(model, data, indices, batch_size)
    ]
    return torch.cat(parts).numpy() if parts else np.empty(0)


def _outputs(
    model: nn.Module, data: Any, indices: torch.Tensor, batch_size: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Batches of logits float64[b, classes] and labels int64[b] of the records at `indices`."""
    device = next(model.parameters()).device
    with torch.inference_mode(), full_float32(device):
        for chunk in indices.split(batch_size):
            outputs = logits(model, to_device(data.inputs(chunk), device)).double()
            yield outputs, data.labels[chunk].to(device)


def challenge_losses(
    folders: Sequence[ModelFolder],
    data: Any,
    *,
    device: torch.device | None = None,
) -> np.ndarray:
    """Compute each model's loss at its own challenge points: the input of the threshold attack.

    Args:
        folders: the models, of one task.
        data: the task's whole dataset, prepared as models take it.
        device: where models run; by default CUDA if there is one.

    Returns:
        float64[models, 2m], in nats, in the order of each model's challenge points.

    Raises:
        ValueError: if a model was trained with other code than today's, or on another dataset.
    """
    rows = []
    check_architecture(folders, data)
    plausible = Plausibility(folders)
    with hashed_once(data):
        for folder in tracked(folders, "Signals", "model"):
            splits = ChallengeDataset.from_path(folder.path, data)
            model = load_model(folder.task.name, folder.path, device=device)
            rows.append(losses(model, data, splits.challenge_indices))
            if plausible.wants(folder):
                _check_plausible(plausible, folder, model, splits)
    plausible.warn()
    return np.stack(rows)


def _check_plausible(
    plausible: Plausibility, folder: ModelFolder, model: nn.Module, splits: ChallengeDataset
) -> None:
    """Let `plausible` compare a model's predictions at its challenge points with the labels."""
    points = splits.challenge_indices
    batches = [(z.argmax(1), y) for z, y in _outputs(model, splits.dataset, points, len(points))]
    predicted, labels = (torch.cat(part).cpu().numpy() for part in zip(*batches))
    known = splits.seeds.membership is not None
    members = np.array(splits.get_solutions(), bool) if known else None
    plausible.see(folder, predicted, labels, members)
