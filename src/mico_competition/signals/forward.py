"""Models x points -> arrays: what attacks work on (torch; the slow half of an attack)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from mico_competition.challenge import ChallengeDataset
from mico_competition.layout import ModelFolder
from mico_competition.models import load_model, logits


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
    device = next(model.parameters()).device
    parts = []
    with torch.inference_mode():
        for chunk in indices.split(batch_size):
            outputs = logits(model, _to(data.inputs(chunk), device)).double()
            labels = data.labels[chunk].to(device)
            parts.append(nn.functional.cross_entropy(outputs, labels, reduction="none").cpu())
    return torch.cat(parts).numpy() if parts else np.empty(0)


def challenge_losses(
    folders: Sequence[ModelFolder],
    data: Any,
    *,
    device: torch.device | None = None,
    progress: bool = True,
) -> np.ndarray:
    """float64[models, 2m], each model's losses on its own challenge points, in their order."""
    rows = []
    for folder in tqdm(folders, unit="model", desc="Signals", disable=None if progress else True):
        splits = ChallengeDataset.from_path(folder.path, data)
        model = load_model(folder.task.name, folder.path, device=device)
        rows.append(losses(model, data, splits.challenge_indices))
    return np.stack(rows)


def _to(inputs: Any, device: torch.device) -> Any:
    if isinstance(inputs, dict):
        return {name: value.to(device) for name, value in inputs.items()}
    return inputs.to(device)
