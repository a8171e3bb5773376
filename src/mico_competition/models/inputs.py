"""Data as a model takes it: arrays as they are, sentences tokenised once; and where it goes.

Knows datasets and models, nothing of splits, seeds or folders of a challenge.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from mico_competition.competition.table import get_task
from mico_competition.data.arrays import ArrayDataset, TextDataset, TokenDataset
from mico_competition.models.architectures import load_tokenizer
from mico_competition.models.token_cache import tokenise_once
from mico_competition.support.files import PathLike

Data = ArrayDataset | TokenDataset


def default_device() -> torch.device:
    """CUDA where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def to_device(inputs: Any, device: torch.device) -> Any:
    """A batch as `models.logits` takes it, a tensor or a text's tensors by name, on `device`."""
    if isinstance(inputs, Mapping):
        return {name: value.to(device) for name, value in inputs.items()}
    return inputs.to(device)


def prepare(
    task_name: str, dataset: Any, tokenizer_from: PathLike | None = None
) -> tuple[Data, Any]:
    """Data as the model takes it, and the tokenizer (None unless the task is text).

    Args:
        task_name: a task of the table.
        dataset: what the task's loader gave.
        tokenizer_from: folder or hub name that the tokenizer comes from; by default the task's
            base model.  Text only.
    """
    task = get_task(task_name)
    if not isinstance(dataset, TextDataset):
        return dataset, None
    assert task.base_model is not None and task.max_length is not None  # as all text tasks have
    tokenizer = load_tokenizer(tokenizer_from or task.base_model, fallback=task.base_model)
    return tokenise_once(dataset, tokenizer, task.max_length), tokenizer
