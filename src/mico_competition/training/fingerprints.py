"""Whether today's code is the one a model was trained with: a fingerprint of what it computes.

Same weights in other code are another model, and nothing in a file of weights shows it: a gain, an
activation, the order of layers, a tokenizer.  The fingerprint is in the metadata of every model,
in the ledger of a fleet and in the names of cached signals.
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

_TOKENS, _SENTENCES = 12, 4  # of a text probe
_LONGER = 9  # records of a batch


def architecture_fingerprint(
    task: Task, data: Data, config: Any = None, *, version: int = 2
) -> str:
    """SHA-256 in hex of what the task's code makes of records, up to the logits.

    Args:
        task: a row of the table.
        data: the whole dataset, as `inputs.prepare` gives it.
        config: of a text model; by default that of the task's base model.
        version: 1 is the fingerprint of earlier versions, which saw less.

    Raises:
        ValueError: if the architecture is not registered, or there is no such configuration.
    """
    facts = [model_fingerprint(task, data, config, version=version)]
    if isinstance(data, TokenDataset):  # how arrays are prepared is in dataset_fingerprint
        tokens = TokenDataset(data.input_ids, data.attention_mask, torch.zeros_like(data.labels))
        facts.append(str(dataset_fingerprint(tokens)))
    return _hash(facts)


def model_fingerprint(task: Task, data: Data, config: Any = None, *, version: int = 2) -> str:
    """The part of `architecture_fingerprint` for which a few records of `data` are enough."""
    if task.text:
        config = base_config(task) if config is None else config
        longer: Any = probe_sentences(config, _LONGER) if version > 1 else None
        build = partial(small_copy, task, config)
        probe = behaviour(build, logits, probe_sentences(config), longer)
        return _hash([probe, config_facts(config)])
    assert isinstance(data, ArrayDataset)  # as records of other tasks are
    build = partial(new_model, task)
    some = data.inputs(range(min(len(SCALES), len(data)))).cpu()
    shape, dtype = some.shape[1:], some.dtype
    try:
        longer = longer_rows(shape, dtype) if version > 1 else None
        return behaviour(build, logits, probe_rows(shape, dtype), longer)
    except Exception:  # a network that refuses records of other values than the dataset's
        longer = data.inputs(range(min(_LONGER, len(data)))).cpu() if version > 1 else None
        return behaviour(build, logits, some, longer)


def of_training(task_name: str, data: Data, config: Any = None) -> dict[str, str | None]:
    """What the metadata of a model that is trained on `data` says of data and code, by its keys."""
    return {
        "dataset_fingerprint": dataset_fingerprint(data),
        "architecture_fingerprint": architecture_fingerprint(get_task(task_name), data, config),
    }


def check_architecture(folders: Sequence[ModelFolder], data: Data) -> list[str]:
    """Each model's architecture_fingerprint in today's code.

    Args:
        folders: models of one task.
        data: the whole dataset, as they take it.

    Raises:
        ValueError: naming a model whose metadata say that it was trained with other code.
    """
    known: dict[tuple[str, int], str] = {}

    def today(task: Task, config: Any, version: int) -> str:
        key = json.dumps(config_facts(config)) if config is not None else "", version
        if key not in known:
            known[key] = architecture_fingerprint(task, data, config, version=version)
        return known[key]

    found = []
    for folder in folders:
        config = read_config(folder.task, folder.path) if folder.task.text else None
        found.append(today(folder.task, config, 2))
        stated = read_metadata(folder.path).get("architecture_fingerprint")
        if stated not in (None, found[-1]) and stated != today(folder.task, config, 1):
            raise ValueError(
                f"{folder.place} was trained with code that computes something else from the same "
                f"weights: its {folder.task.architecture}, or its tokenizer, has changed since "
                f"(architecture_fingerprint {found[-1][:12]}..., expected {str(stated)[:12]}...). "
                "Use the version of the code that trained it, or train it again."
            )
    return found


def probe_sentences(config: Any, count: int = _SENTENCES) -> Mapping[str, torch.Tensor]:
    """Short sentences of a small copy's vocabulary, the last one padded."""
    pad = config.pad_token_id or 0
    ids = pad + 1 + (uniform((count, _TOKENS), stream=1) * 60).long()
    mask = torch.ones_like(ids)
    ids[-1, -3:], mask[-1, -3:] = pad, 0
    return {"input_ids": ids, "attention_mask": mask}


def _hash(facts: Any) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
