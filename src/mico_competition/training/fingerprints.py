"""Fingerprints of what a model's code computes, which tell whether the code has changed since.

The same weights in other code (another activation, gain, order of layers, tokenizer) are another
model, and the file of weights does not show it.  The fingerprint is in the metadata of every model,
in the ledger of a fleet and in the keys of cached signals.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch

from mico_competition.competition.layout import ModelFolder
from mico_competition.competition.lengths import read_metadata
from mico_competition.competition.table import Task, get_task
from mico_competition.data.arrays import ArrayDataset, TokenDataset
from mico_competition.data.fingerprint import dataset_fingerprint
from mico_competition.models.architectures import logits, new_model
from mico_competition.models.inputs import Data
from mico_competition.models.probe import SCALES, behaviour, longer_rows, probe_rows, uniform
from mico_competition.models.text_models import base_config, config_facts, read_config, small_copy

_TOKENS, _SENTENCES = 12, 4  # the size of the probe of a text model
_LONGER = 9  # records in the larger of the two probe batches


def architecture_fingerprint(task: Task, data: Data, config: Any = None) -> str:
    """Compute a SHA-256, in hex, of how the task's code turns records into logits.

    Args:
        task: the task.
        data: the whole dataset, as `inputs.prepare` returns it.
        config: the configuration of a text model; by default that of the task's base model.

    Raises:
        ValueError: if the architecture is not registered, or the configuration is missing.
    """
    facts = [model_fingerprint(task, data, config)]
    if isinstance(data, TokenDataset):  # how arrays are prepared is in dataset_fingerprint
        tokens = TokenDataset(data.input_ids, data.attention_mask, torch.zeros_like(data.labels))
        facts.append(str(dataset_fingerprint(tokens)))
    return _hash(facts)


def model_fingerprint(task: Task, data: Data, config: Any = None) -> str:
    """The part of `architecture_fingerprint` that needs only a few records of `data`."""
    if task.text:
        config = base_config(task) if config is None else config
        build = partial(small_copy, task, config)
        longer = probe_sentences(config, _LONGER)
        probe = behaviour(build, logits, probe_sentences(config), longer)
        return _hash([probe, config_facts(config)])
    assert isinstance(data, ArrayDataset)  # as records of other tasks are
    build = partial(new_model, task)
    some = data.inputs(range(min(len(SCALES), len(data)))).cpu()
    shape, dtype = some.shape[1:], some.dtype
    try:
        return behaviour(build, logits, probe_rows(shape, dtype), longer_rows(shape, dtype))
    except Exception:  # a network that refuses records of other values than the dataset's
        return behaviour(build, logits, some, data.inputs(range(min(_LONGER, len(data)))).cpu())


def of_training(task_name: str, data: Data, config: Any = None) -> dict[str, str | None]:
    """The fingerprints of data and code for the metadata of a model that is trained on `data`."""
    return {
        "dataset_fingerprint": dataset_fingerprint(data),
        "architecture_fingerprint": architecture_fingerprint(get_task(task_name), data, config),
    }


def check_architecture(folders: Sequence[ModelFolder], data: Data) -> list[str]:
    """Check that models were trained with code that computes what today's code does.

    Args:
        folders: models of one task.
        data: the whole dataset, as the models take it.

    Returns:
        Each model's architecture_fingerprint in today's code.

    Raises:
        ValueError: naming a model whose metadata hold another fingerprint.
    """
    computed: dict[str, str] = {}
    current = []
    for folder in folders:
        config = read_config(folder.task, folder.path) if folder.task.text else None
        key = json.dumps(config_facts(config)) if config is not None else ""
        if key not in computed:
            computed[key] = architecture_fingerprint(folder.task, data, config)
        current.append(computed[key])
        stated = read_metadata(folder.path).get("architecture_fingerprint")
        if stated not in (None, current[-1]):
            raise ValueError(
                f"{folder.relative_path} was trained with code that computes something else from "
                f"the same weights: its {folder.task.architecture} or tokenizer has changed since "
                f"(architecture_fingerprint {current[-1][:12]}..., expected "
                f"{str(stated)[:12]}...). "
                "Use the version of the code that trained it, or train it again."
            )
    return current


def probe_sentences(config: Any, count: int = _SENTENCES) -> Mapping[str, torch.Tensor]:
    """Short sentences in the vocabulary of a small copy; the last one is padded."""
    pad = config.pad_token_id or 0
    ids = pad + 1 + (uniform((count, _TOKENS), stream=1) * 60).long()
    mask = torch.ones_like(ids)
    ids[-1, -3:], mask[-1, -3:] = pad, 0
    return {"input_ids": ids, "attention_mask": mask}


def _hash(facts: Any) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
