"""The fields that the JSON files of a released model may have, and the values that they may take.

Every field has a type and a closed set of values, so no text can be chosen freely to carry a
secret.  Numbers are settings, which were chosen before any seed was drawn.  Faults name a field,
and never quote a value.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Union

from mico_competition.competition.layout import ModelFolder
from mico_competition.competition.table import PRECISIONS, get_scenario
from mico_competition.support.untrusted import read_limited_json

Check = Callable[[Any], bool]
Fields = Mapping[str, Union[Check, "Fields"]]  # a field holds a value, or an object or null

_DIGEST = re.compile(r"[0-9a-f]{64}")
_UNLIMITED = int(1e30)  # transformers' model_max_length of a tokenizer without a limit
_LARGEST = 10**9
_LARGEST_TOKENIZER = 50_000_000


def one_of(*values: object) -> Check:
    """A check for one of these values with the same type: 1 is neither 1.0 nor True."""
    return lambda value: any(type(value) is type(v) and value == v for v in values)


def is_count(value: object) -> bool:
    """Whether `value` is a whole number such as a length."""
    return type(value) is int and 0 <= value <= _LARGEST


def is_number(value: object) -> bool:
    """Whether `value` is a finite number such as a learning rate."""
    return type(value) in (int, float) and abs(value) <= _LARGEST  # type: ignore[arg-type]


def is_flag(value: object) -> bool:
    """Whether `value` is true or false."""
    return type(value) is bool


def is_digest(value: object) -> bool:
    """Whether `value` is a SHA-256 in lower-case hexadecimal."""
    return isinstance(value, str) and bool(_DIGEST.fullmatch(value))


def or_none(check: Check) -> Check:
    """A check that null passes, too."""
    return lambda value: value is None or check(value)


_SAMPLER = one_of("poisson", "shuffle", "members first")
_MODES = ("bookkeeping", "hooks", "functorch", "ghost", "ew")
_PRIVACY: Fields = {
    "epsilon": is_number,
    "delta": is_number,
    "noise_multiplier": is_number,
    "sample_rate": is_number,
    "num_steps": is_count,
    "max_grad_norm": is_number,
    "sampler": _SAMPLER,
    "accountant": one_of("opacus PRV", "Google PLD"),
    "eps_error": is_number,
    "randomness": one_of("torch.Generator", "AES-256-CTR"),
}


def metadata_fields(model: ModelFolder) -> Fields:
    """The fields of a released model's metadata.json, in their order."""
    scenario = get_scenario(model.scenario)
    task, name = one_of(scenario.task), one_of(scenario.name)
    lengths: Fields = {"len_training": is_count, "len_challenge": is_count}
    return {
        "format": one_of(1),
        "scenario": name,
        "task": task,
        "len_dataset": is_count,
        **lengths,
        "settings": {
            "task": task,
            "scenario": name,
            **lengths,
            "disable_dp": is_flag,
            "target_epsilon": or_none(is_number),
            "target_delta": is_number,
            "max_grad_norm": or_none(is_number),
            "optimizer": one_of("sgd", "adam", "adamw"),
            "learning_rate": is_number,
            "batch_size": is_count,
            "num_epochs": is_count,
            "lr_scheduler_gamma": is_number,
            "lr_scheduler_step": is_count,
            "max_physical_batch_size": is_count,
            "grad_sample_mode": one_of(*_MODES),
            "members_first": is_flag,
            "model_name": one_of(None, model.task.base_model),
            "secure_mode": is_flag,
            "precision": one_of(*PRECISIONS),
            "num_steps": is_count,
            "sample_rate": is_number,
        },
        "privacy": _PRIVACY,
        "sampler": _SAMPLER,
        "dataset_fingerprint": is_digest,
        "architecture_fingerprint": is_digest,
    }


def config_fields(model: ModelFolder) -> Fields:
    """The fields of a released text model's config.json."""
    classes = model.task.num_classes
    labels = [f"LABEL_{i}" for i in range(classes)]
    return {
        "architectures": one_of([_class_of(model.task.architecture)]),
        "attention_probs_dropout_prob": is_number,
        "bos_token_id": or_none(is_count),
        "classifier_dropout": or_none(is_number),
        "eos_token_id": or_none(is_count),
        "hidden_act": one_of("gelu", "gelu_new", "relu", "silu", "swish", "tanh"),
        "hidden_dropout_prob": is_number,
        "hidden_size": is_count,
        "id2label": one_of({str(i): label for i, label in enumerate(labels)}),
        "initializer_range": is_number,
        "intermediate_size": is_count,
        "label2id": one_of({label: i for i, label in enumerate(labels)}),
        "layer_norm_eps": is_number,
        "max_position_embeddings": is_count,
        "model_type": one_of(model.task.architecture),
        "num_attention_heads": is_count,
        "num_hidden_layers": is_count,
        "pad_token_id": or_none(is_count),
        "type_vocab_size": is_count,
        "vocab_size": is_count,
    }


def _class_of(model_type: str) -> str | None:
    """The class of transformers for a text model of this type."""
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES as NAMES,
    )

    return NAMES.get(model_type)


def tokenizer_fields(tokens: Mapping[str, int]) -> Fields:
    """The fields of tokenizer_config.json for a tokenizer with these special tokens."""
    flags = ("lstrip", "normalized", "rstrip", "single_word", "special")
    known = one_of(*tokens)

    def is_token(value: object) -> bool:
        if isinstance(value, dict):
            rest = {k: v for k, v in value.items() if k not in ("content", *flags)}
            return (
                known(value.get("content"))
                and rest in ({}, {"__type": "AddedToken"})
                and all(is_flag(value[flag]) for flag in flags if flag in value)
            )
        return value is None or known(value)

    def is_decoder(value: object) -> bool:
        return isinstance(value, dict) and all(
            isinstance(token, dict) and is_token(token) and str(tokens[token["content"]]) == number
            for number, token in value.items()
        )

    return {
        "add_prefix_space": is_flag,
        "added_tokens_decoder": is_decoder,
        "bos_token": is_token,
        "clean_up_tokenization_spaces": is_flag,
        "cls_token": is_token,
        "eos_token": is_token,
        "errors": one_of("replace", "strict", "ignore"),
        "mask_token": is_token,
        "model_max_length": lambda value: is_count(value) or one_of(_UNLIMITED)(value),
        "pad_token": is_token,
        "sep_token": is_token,
        "tokenizer_class": one_of(
            *("RobertaTokenizer", "RobertaTokenizerFast", "PreTrainedTokenizerFast"),
            *("TokenizersBackend", "BertTokenizer", "BertTokenizerFast", "DistilBertTokenizer"),
        ),
        "trim_offsets": is_flag,
        "unk_token": is_token,
    }


def special_tokens(path: Path) -> dict[str, int]:
    """The ids of the special tokens in a tokenizer.json, by content; empty if it is invalid."""
    try:
        added = read_limited_json(path, _LARGEST_TOKENIZER)["added_tokens"]
        return {str(token["content"]): int(token["id"]) for token in added}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def public_part(value: Mapping[str, Any], fields: Fields) -> dict[str, Any]:
    """The part of `value` in these fields, in their order.

    The name of a base model that is not in the table is left out, since it cannot be checked.
    """
    part = {}
    for name, field in fields.items():
        if name in value:
            inner = value[name]
            nested = isinstance(field, Mapping) and isinstance(inner, dict)
            part[name] = public_part(inner, field) if nested else inner  # type: ignore[arg-type]
    if part.get("model_name") is not None and not fields["model_name"](part["model_name"]):  # type: ignore[operator]
        part["model_name"] = None
    return part


def field_faults(value: Any, fields: Fields, within: str = "") -> Iterator[str]:
    """What is wrong with the keys and values of a JSON object."""
    if not isinstance(value, dict):
        yield "is not a JSON object of known fields"
        return
    if value.keys() - fields.keys():
        yield f"has a key {f'in {within} ' if within else ''}that is not public"
    for name, field in fields.items():
        if name not in value:
            continue
        if isinstance(field, Mapping):
            if value[name] is not None:
                yield from field_faults(value[name], field, name)
        elif not field(value[name]):
            yield f"has a {name} that is not one of the allowed values"
