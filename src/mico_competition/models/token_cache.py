"""Tokenised sentences kept on disk, by content: what a fleet's processes need not do again.

The key is a hash of the sentences, the tokenizer and the length, so a cache is never stale; a
file that is damaged counts as none, and a folder that cannot be written to is no error.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mico_competition.data.arrays import TextDataset, TokenDataset
from mico_competition.support.files import written_aside


def cache_folder() -> Path:
    """`$MICO_CACHE`, else `mico_competition` in the user's cache folder.

    A user without a home directory, as containers have them, gets a private folder among the
    temporary files.

    Raises:
        ValueError: if somebody else has made that folder.
    """
    if chosen := os.environ.get("MICO_CACHE"):
        return Path(os.path.expanduser(chosen))
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base) / "mico_competition"
    try:
        return Path.home() / ".cache" / "mico_competition"
    except RuntimeError:
        return _private_folder()


def _private_folder() -> Path:
    folder = Path(tempfile.gettempdir()) / f"mico_competition-{os.geteuid()}"
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    status = folder.lstat()
    if (status.st_uid, status.st_mode) != (os.geteuid(), stat.S_IFDIR | 0o700):
        raise ValueError(f"{folder} is not a private folder of yours: name one in MICO_CACHE.")
    return folder


def tokenise_once(dataset: TextDataset, tokenizer: Any, max_length: int) -> TokenDataset:
    """`dataset.tokenise(tokenizer, max_length)`, from the cache where it is there.

    Memory: 5 bytes a token place, 23 MB for all of SST-2 at 67 tokens.
    """
    key = _key(dataset, tokenizer, max_length)
    if key is None:
        return dataset.tokenise(tokenizer, max_length)
    path = cache_folder() / f"tokens-{key}.npz"
    shape = (len(dataset), max_length)
    found = _read(path, shape)
    if found is None:
        tokens = dataset.tokenise(tokenizer, max_length)
        _write(path, tokens)
        return tokens
    return TokenDataset(found[0], found[1], dataset.labels, dataset.sentences_digest)


def _key(dataset: TextDataset, tokenizer: Any, max_length: int) -> str | None:
    """Hash of all that the result depends on; None for a tokenizer that cannot be hashed."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None
    # What an earlier call left in the tokenizer does not count: every call sets it anew.
    plain = type(backend).from_str(backend.to_str())
    plain.no_padding()
    plain.no_truncation()
    sides = (type(tokenizer).__name__, tokenizer.pad_token_id, tokenizer.padding_side)
    told = repr((max_length, *sides, tokenizer.truncation_side))
    facts = f"{told}\n{plain.to_str()}\n{dataset.sentences_digest}"
    return hashlib.sha256(facts.encode()).hexdigest()[:32]


def _read(path: Path, shape: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor] | None:
    if not path.is_file():
        return None
    try:
        with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
            ids, mask = file["input_ids"], file["attention_mask"]
    except Exception:  # a damaged file can fail in any way, and all of them mean "no cache"
        return None
    if (ids.dtype, mask.dtype) != (np.int32, np.uint8) or ids.shape != shape or mask.shape != shape:
        return None
    return torch.from_numpy(ids), torch.from_numpy(mask)


def _write(path: Path, tokens: TokenDataset) -> None:
    try:
        with written_aside(path) as aside, open(aside, "wb") as file:
            np.savez(
                file,
                input_ids=tokens.input_ids.numpy(),
                attention_mask=tokens.attention_mask.numpy(),
            )
    except OSError:
        return
