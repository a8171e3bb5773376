"""Prepares datasets as inputs of models (sentences are tokenised), and moves them to a device."""

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
    """CUDA if it is available, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def device_of(device: Any) -> torch.device:
    """The device that a user names; `default_device()` for None.

    Raises:
        ValueError: if torch does not know it, or has no CUDA device of this number.
    """
    if device is None:
        return default_device()
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError):
        raise ValueError(
            f'Expected device={device!r} to be a device of torch, such as "cpu" or "cuda".'
        ) from None
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"Expected device={device!r} to be there, but torch sees "
            f'{torch.cuda.device_count()} CUDA devices: give device="cpu".'
        )
    return found


def sent(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """The same values on `device`; the host does not wait until a GPU has them."""
    if device.type == "cuda" and values.device.type == "cpu":
        values = values.pin_memory()
    return values.to(device, non_blocking=True)


def to_device(inputs: Any, device: torch.device) -> Any:
    """Move a batch for `logits` (a tensor, or tensors by name) to `device`."""
    if isinstance(inputs, Mapping):
        return {name: value.to(device) for name, value in inputs.items()}
    return inputs.to(device)


def prepare(
    task_name: str, dataset: Any, tokenizer_from: PathLike | None = None
) -> tuple[Data, Any]:
    """Prepare a dataset for the models of a task.

    Args:
        task_name: the name of a task.
        dataset: the dataset, as the task's loader returns it.
        tokenizer_from: for text, the folder or Hub name of the tokenizer; by default that of the
            task's base model.

    Returns:
        The data as the models take it, and the tokenizer (None unless the task is text).
    """
    task = get_task(task_name)
    if not isinstance(dataset, TextDataset):
        return dataset, None
    assert task.base_model is not None and task.max_length is not None  # as all text tasks have
    tokenizer = load_tokenizer(tokenizer_from or task.base_model, fallback=task.base_model)
    return tokenise_once(dataset, tokenizer, task.max_length), tokenizer
