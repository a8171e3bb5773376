"""Checks the files of an untrusted tokenizer before the library tokenizers reads them.

A few bytes of a tokenizer.json can demand any amount of memory or time: padding to 10^12 tokens, a
normaliser that repeats each letter a thousand times and is applied five times, or a regular
expression that never ends.  The library, which is written in Rust, then aborts the process.  So
only parts and sizes of tokenizers for encoders such as RoBERTa and BERT are accepted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mico_competition.scoring.printable import printable
from mico_competition.support.untrusted import check_file, read_limited, read_limited_json

MAX_TOKENS = 2_000_000
MAX_LENGTH = 100_000
_MAX_PARTS = 20
_FIX = "fetch it again, or give another tokenizer with --model_name FOLDER"
# name -> the most bytes that the file may have
_FILES = {
    "tokenizer.json": 50_000_000,
    "vocab.json": 50_000_000,
    "vocab.txt": 50_000_000,
    "merges.txt": 50_000_000,
    "tokenizer_config.json": 4_000_000,
    "added_tokens.json": 4_000_000,
    "special_tokens_map.json": 1_000_000,
    "config.json": 4_000_000,
}
_CLASSES = {
    *("RobertaTokenizer", "RobertaTokenizerFast", "PreTrainedTokenizerFast", "TokenizersBackend"),
    *("BertTokenizer", "BertTokenizerFast", "DistilBertTokenizer", "DistilBertTokenizerFast"),
}
# The types that each part may have; a Sequence may contain several, but no further Sequence.
_PARTS = {
    "normalizer": {
        *("NFC", "NFD", "NFKC", "NFKD", "Lowercase", "Strip", "StripAccents", "BertNormalizer"),
    },
    "pre_tokenizer": {
        *("ByteLevel", "BertPreTokenizer", "Whitespace", "WhitespaceSplit", "Punctuation"),
        *("Digits", "Metaspace"),
    },
    "post_processor": {"ByteLevel", "RobertaProcessing", "BertProcessing", "TemplateProcessing"},
    "decoder": {"ByteLevel", "BPEDecoder", "WordPiece", "Metaspace", "Fuse", "Strip"},
    "model": {"BPE", "WordPiece", "WordLevel"},
}
_INNER = {"normalizer": "normalizers", "pre_tokenizer": "pretokenizers"}
_INNER |= {"post_processor": "processors", "decoder": "decoders"}


def tokenizer_bytes(folder: Path) -> bytes | None:
    """The content of `tokenizer.json`, by which tokenizers are compared; None if it is missing."""
    path = folder / "tokenizer.json"
    limit = _FILES[path.name]
    return read_limited(path, limit, "a tokenizer", _FIX) if path.is_file() else None


def check_tokenizer(folder: Path) -> None:
    """Check all files of a tokenizer in `folder`.

    Raises:
        ValueError: naming the file and the part of it that is not accepted.
    """
    for name, limit in _FILES.items():
        path = folder / name
        if not path.exists():
            continue
        if name.endswith(".json"):
            value = read_limited_json(path, limit, "a JSON object", _FIX)
            problem = _CHECKS[name](value) if isinstance(value, dict) else "is not a JSON object"
            if problem:
                raise ValueError(f"{path} {problem}: {_FIX}.")
        else:
            check_file(path, limit, "a vocabulary", _FIX)


def _whole_problem(value: Mapping[str, Any]) -> str:
    """What is wrong with tokenizer.json, in a few words; empty if nothing is."""
    for name in _PARTS:
        if problem := _part_problem(name, value.get(name), nested=name in _INNER):
            return problem
    model, template = value.get("model"), value.get("post_processor")
    if not isinstance(model, dict) or (problem := _vocabulary_problem(model.get("vocab"))):
        return problem if isinstance(model, dict) else "holds no model"
    if isinstance(template, dict) and (problem := _template_problem(template)):
        return problem
    return _lengths_problem(value) or _added_problem(value.get("added_tokens") or [])


def _part_problem(name: str, part: Any, *, nested: bool) -> str:
    if part is None:
        return ""
    kind = part.get("type") if isinstance(part, dict) else part
    if nested and kind == "Sequence":
        inner = part.get(_INNER[name])
        if not isinstance(inner, list) or len(inner) > _MAX_PARTS:
            return f"has a {name} of over {_MAX_PARTS} parts"
        problems = (_part_problem(name, one, nested=False) for one in inner)
        return next(filter(None, problems), "")
    # The model may leave its type out, as the library's older files do.
    if kind not in _PARTS[name] and not (name == "model" and kind is None):
        return f"has the {name} {printable(kind, 40)}, which may cost any amount of memory"
    return _template_problem(part) if kind == "TemplateProcessing" else ""


def _template_problem(part: Mapping[str, Any]) -> str:
    rows = [part.get("single"), part.get("pair")]
    tokens = part.get("special_tokens") or {}
    ids = [token.get("ids") for token in tokens.values()] if isinstance(tokens, dict) else [None]
    sound = all(row is None or _is_short(row) for row in rows) and all(map(_is_short, ids))
    return "" if sound and len(ids) <= _MAX_PARTS else "has a post_processor that adds many tokens"


def _is_short(value: Any) -> bool:
    return isinstance(value, list) and len(value) <= _MAX_PARTS


def _lengths_problem(value: Mapping[str, Any]) -> str:
    padding, truncation = value.get("padding") or {}, value.get("truncation") or {}
    if not isinstance(padding, dict) or not isinstance(truncation, dict):
        return "has an invalid padding or truncation"
    strategy = padding.get("strategy")
    lengths = [*(strategy.values() if isinstance(strategy, dict) else ())]
    lengths += [padding.get("pad_to_multiple_of"), *map(truncation.get, ("max_length", "stride"))]
    if all(length is None or _is_count(length, MAX_LENGTH) for length in lengths):
        return ""
    return f"pads or cuts to over {MAX_LENGTH:,} tokens"


def _vocabulary_problem(tokens: Any) -> str:
    sound = isinstance(tokens, dict) and all(_is_count(n, MAX_TOKENS) for n in tokens.values())
    return "" if sound else f"has no vocabulary of numbers up to {MAX_TOKENS:,}"


def _added_problem(added: Any) -> str:
    sound = isinstance(added, list) and all(
        isinstance(token, dict) and _is_count(token.get("id"), MAX_TOKENS) for token in added
    )
    return "" if sound else f"has added tokens whose ids are not numbers up to {MAX_TOKENS:,}"


def _settings_problem(value: Mapping[str, Any]) -> str:
    """What is wrong with tokenizer_config.json."""
    kind, added = value.get("tokenizer_class"), value.get("added_tokens_decoder") or {}
    if kind is not None and kind not in _CLASSES:
        return f"names the class {printable(kind, 40)}, none of {', '.join(sorted(_CLASSES))}"
    numbers = list(added) if isinstance(added, dict) else ["none"]
    if not all(n.isdecimal() and len(n) < 10 and int(n) <= MAX_TOKENS for n in numbers):
        return f"has added tokens whose ids are not numbers up to {MAX_TOKENS:,}"
    return ""


def _is_count(value: Any, largest: int) -> bool:
    return type(value) is int and 0 <= value <= largest


_CHECKS: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "tokenizer.json": _whole_problem,
    "vocab.json": _vocabulary_problem,
    "tokenizer_config.json": _settings_problem,
    "added_tokens.json": _vocabulary_problem,
    "special_tokens_map.json": lambda value: "",
    "config.json": lambda value: "",
}
