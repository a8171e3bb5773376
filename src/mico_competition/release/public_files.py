"""Writes the public part of each file in a model's folder.

Only `tokenizer.json` is copied.  Of all other files, the values are read, and the public ones are
written in a fixed form, so that nothing leaks through additional entries of a checkpoint, trailing
spaces of a seed, or notes that software leaves in a configuration.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from mico_competition.competition.layout import ModelFolder, read_text
from mico_competition.competition.lengths import read_metadata
from mico_competition.competition.splits import parse_seed, seed_text
from mico_competition.competition.table import (
    METADATA_FILE,
    SOLUTION_FILE,
    TASKS,
    disclosed_files,
    get_scenario,
)
from mico_competition.models.checkpoints import read_state, write_new_state
from mico_competition.support.files import PathLike, write_text
from mico_competition.support.untrusted import JSON_LIMIT, read_limited_json

# Keys of metadata.json that have the same value for all models of a scenario, and so reveal nothing
# about one of them.  Results are excluded, because they depend on a model's splits.
PUBLIC_METADATA = (
    "format",
    "scenario",
    "task",
    "len_dataset",
    "len_training",
    "len_challenge",
    "settings",
    "privacy",
    "sampler",
    "dataset_fingerprint",
    "architecture_fingerprint",
)
# The public keys of nested objects in metadata.json: all but the seed of the run.
_PUBLIC_NESTED = {
    "settings": (
        *("task", "scenario", "len_training", "len_challenge", "disable_dp", "target_epsilon"),
        *("target_delta", "max_grad_norm", "optimizer", "learning_rate", "batch_size"),
        *("num_epochs", "lr_scheduler_gamma", "lr_scheduler_step", "max_physical_batch_size"),
        *("grad_sample_mode", "members_first", "model_name", "secure_mode", "precision"),
        *("num_steps", "sample_rate"),
    ),
    "privacy": (
        *("epsilon", "delta", "noise_multiplier", "sample_rate", "num_steps", "max_grad_norm"),
        *("sampler", "accountant", "eps_error", "randomness"),
    ),
}
# The fields of configurations that transformers needs; others say where and how they were made.
_PUBLIC_CONFIG = {
    "config.json": (
        *("architectures", "attention_probs_dropout_prob", "bos_token_id", "classifier_dropout"),
        *("eos_token_id", "hidden_act", "hidden_dropout_prob", "hidden_size", "id2label"),
        *("initializer_range", "intermediate_size", "label2id", "layer_norm_eps"),
        *("max_position_embeddings", "model_type", "num_attention_heads", "num_hidden_layers"),
        *("pad_token_id", "type_vocab_size", "vocab_size"),
    ),
    "tokenizer_config.json": (
        *("add_prefix_space", "added_tokens_decoder", "bos_token", "clean_up_tokenization_spaces"),
        *("cls_token", "eos_token", "errors", "mask_token", "model_max_length", "pad_token"),
        *("sep_token", "tokenizer_class", "trim_offsets", "unk_token"),
    ),
}


def write_public_files(model: ModelFolder, folder: Path) -> None:
    """Write the files that participants get of a trained model into a new `folder`.

    The release that the folder is of is written aside, so each file is written only once.

    Raises:
        ValueError: if one of the files is missing, damaged or invalid.
    """
    folder.mkdir(parents=True)
    for alternatives in model.task.weights[:-1]:
        write_config(_found(model, alternatives), folder)
    names = model.task.weights[-1]
    write_weights(_found(model, names), folder / names.split("|")[0])
    for name in model.task.companions:
        if (model.path / name).is_file():
            write_config(model.path / name, folder)
    for name in disclosed_files(get_scenario(model.scenario), model.phase):
        write_disclosed(_found(model, name), folder)
    metadata = public_metadata(read_metadata(model.path))
    if metadata:
        _write_new(folder / METADATA_FILE, _json(metadata))


def public_metadata(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a model's metadata that reveals nothing about its members."""
    public = {name: metadata[name] for name in PUBLIC_METADATA if name in metadata}
    for name, keys in _PUBLIC_NESTED.items():
        if isinstance(public.get(name), dict):
            public[name] = {key: public[name][key] for key in keys if key in public[name]}
    settings = public.get("settings")
    if isinstance(settings, dict) and "model_name" in settings:
        known = {task.base_model for task in TASKS.values()}
        if settings["model_name"] not in known:  # a name that the organiser chose may reveal much
            settings["model_name"] = None
    return public


def write_config(source: Path, folder: Path) -> None:
    """Write the public part of a text model's configuration, or copy a tokenizer."""
    if source.name not in _PUBLIC_CONFIG:
        shutil.copyfile(source, folder / source.name)
        return
    config = read_limited_json(source, JSON_LIMIT, fix="train the model again")
    if not isinstance(config, dict):
        raise ValueError(f"{source} is not a JSON object: train the model again.")
    public = {key: config[key] for key in _PUBLIC_CONFIG[source.name] if key in config}
    _write_new(folder / source.name, _json(public))


def write_weights(source: Path, target: Path) -> None:
    """Write only the tensors of a checkpoint: float32, contiguous, without Opacus's prefix."""
    state = {}
    for name, tensor in read_state(source).items():
        if name.endswith(".embeddings.position_ids"):  # a constant, saved until transformers 4.31
            continue
        dtype = torch.float32 if tensor.is_floating_point() else tensor.dtype
        state[name] = tensor.to(dtype).clone(memory_format=torch.contiguous_format)
    write_new_state(target, state)


def write_disclosed(source: Path, folder: Path) -> None:
    """Write a seed or a solution in its canonical form."""
    text = read_text(source)
    if source.name == SOLUTION_FILE:
        text = ",".join(value.strip() for value in text.split(","))
    else:
        text = seed_text(parse_seed(str(source), text))
    _write_new(folder / source.name, f"{text}\n")


def write_json(path: PathLike, value: object) -> None:
    """Write a JSON value in the fixed form of releases."""
    write_text(path, _json(value))


def _json(value: object) -> str:
    return json.dumps(value, indent=2) + "\n"


def _write_new(path: Path, text: str) -> None:
    with open(path, "xb") as file:
        file.write(text.encode())


def _found(model: ModelFolder, alternatives: str) -> Path:
    """The first of the files "a|b" that the model has; ValueError if it has none."""
    names = alternatives.split("|")
    for name in names:
        if (model.path / name).is_file():
            return model.path / name
    raise ValueError(f"There is no {names[0]} in {model.path}: train the model again.")
