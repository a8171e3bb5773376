"""Models x points -> arrays: what attacks work on (torch; the slow half of an attack)."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
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
from mico_competition.models.probe import fill, probe_rows, rounded
from mico_competition.signals.gradients import negative_log_norms
from mico_competition.signals.plausible import Plausibility
from mico_competition.signals.points import Points
from mico_competition.signals.scalars import entropies, true_logit
from mico_competition.support.progress import tracked
from mico_competition.training.fingerprints import check_architecture

# What is computed at once and kept in one file: "logits" float32[points, classes], "logit" and
# "gradient_norm" float64[points], "entropies" float64[2, points].  The numbers are versions: raise
# one when its values change.
KINDS = {"logits": 1, "logit": 1, "entropies": 1, "gradient_norm": 1}

Arrays = dict[str, list[np.ndarray]]  # kind -> parts of the array, one below the other

_ROWS = 1024  # of logits that go through `entropies` together


def make_arrays(model: nn.Module, points: Points, kinds: Collection[str], place: str) -> Arrays:
    """Arrays of one model: of `kinds`, and of what comes with them.

    Args:
        model: in eval mode, on the points' device; used for nothing else after "gradient_norm".
        kinds: of KINDS.
        place: the model's name for messages.

    Raises:
        ValueError: if its outputs or gradients are not finite.
    """
    points.check_model(model, place)
    arrays: Arrays = {}
    with full_precision():
        if set(kinds) - {"gradient_norm"}:
            arrays = _forward(model, points)
        if "entropies" in kinds:
            arrays["entropies"] = make_entropies(arrays["logits"], points)
        if "gradient_norm" in kinds:
            arrays["gradient_norm"] = [negative_log_norms(model, points)]
    for kind in arrays.keys() - {"logits"}:  # what is not finite there shows in "logit"
        if not all(np.isfinite(part).all() for part in arrays[kind]):
            raise ValueError(
                f"{place} gives values that are not finite ({kind}), so its scores would mean "
                "nothing: leave it out, or have it trained again."
            )
    return arrays


@contextmanager
def full_precision() -> Iterator[None]:
    """Convolutions on CUDA in float32: cuDNN's default, TF32, keeps 10 bits of each factor.

    Else a GPU's logits would differ from a CPU's in the third digit, under one name in the cache.
    """
    cudnn: Any = torch.backends.cudnn
    kept = {name: getattr(cudnn, name) for name in ("enabled", "benchmark", "deterministic")}
    with cudnn.flags(**kept, allow_tf32=False):
        yield


def _forward(model: nn.Module, points: Points) -> Arrays:
    """The signals "logits" and "logit".

    All batches first, then the scalars: by turns they throw each other's data out of the caches.
    """
    size = points.batch_size()
    with torch.inference_mode():
        outputs = [logits(model, inputs) for inputs, _ in points.batches(size, keep=True)]
        scalars = [true_logit(z, y) for z, y in zip(outputs, points.data.labels.split(size))]
        return {
            "logits": [z.float().cpu().numpy() for z in outputs],
            "logit": [torch.cat(scalars).cpu().numpy()],
        }


def make_entropies(logit_parts: Sequence[np.ndarray], points: Points) -> list[np.ndarray]:
    """The signal "entropies", from logits float32[points, classes], given in parts."""
    found, start = [], 0
    with torch.inference_mode():
        for part in logit_parts:
            for rows in np.split(part, range(_ROWS, len(part), _ROWS)):
                labels = points.data.labels[start : start + len(rows)]
                start += len(rows)
                z = torch.from_numpy(np.array(rows)).to(points.device)  # a copy: maps are read-only
                found.append(entropies(z, labels))
        return [torch.cat(found, 1).cpu().numpy()]


def signals_fingerprint() -> str:
    """SHA-256 in hex of the signals of a small network whose weights a formula gives.

    Another one where the code of signals computes something else; three digits count.
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
    """float64[points], the cross-entropy of each record at `indices`, in nats.

    Taken in double precision from the logits: float32 rounds the small losses of a model that
    fits its training set to the same few values, and an attack lives on their order.

    Args:
        model: in eval mode.
        data: an ArrayDataset or TokenDataset; batches are moved to the model's device.
        indices: int64[points], places in the dataset.
        batch_size: points in one forward pass.
    """
    parts = [
        nn.functional.cross_entropy(outputs, labels, reduction="none").cpu()
        for outputs, labels in _outputs(model, data, indices, batch_size)
    ]
    return torch.cat(parts).numpy() if parts else np.empty(0)


def _outputs(
    model: nn.Module, data: Any, indices: torch.Tensor, batch_size: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Logits float64[b, classes] and labels int64[b] of the records at `indices`, by batches."""
    device = next(model.parameters()).device
    with torch.inference_mode(), full_precision():
        for chunk in indices.split(batch_size):
            outputs = logits(model, to_device(data.inputs(chunk), device)).double()
            yield outputs, data.labels[chunk].to(device)


def challenge_losses(
    folders: Sequence[ModelFolder],
    data: Any,
    *,
    device: torch.device | None = None,
    progress: bool = True,
) -> np.ndarray:
    """float64[models, 2m], each model's losses on its own challenge points, in their order."""
    rows = []
    check_architecture(folders, data)
    plausible = Plausibility(folders)
    with hashed_once(data):
        for folder in tracked(folders, "Signals", "model", show=progress):
            splits = ChallengeDataset.from_path(folder.path, data)
            model = load_model(folder.task.name, folder.path, device=device)
            rows.append(losses(model, data, splits.challenge_indices))
            if plausible.wants(folder):
                _look_at(plausible, folder, model, splits)
    plausible.warn()
    return np.stack(rows)


def _look_at(
    plausible: Plausibility, folder: ModelFolder, model: nn.Module, splits: ChallengeDataset
) -> None:
    points = splits.challenge_indices
    found = [(z.argmax(1), y) for z, y in _outputs(model, splits.dataset, points, len(points))]
    predicted, labels = (torch.cat(part).cpu().numpy() for part in zip(*found))
    known = splits.seeds.membership is not None
    members = np.array(splits.get_solutions(), bool) if known else None
    plausible.see(folder, predicted, labels, members)
