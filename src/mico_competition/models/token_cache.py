"""A cache of tokenised sentences on disk, so that the processes of a fleet tokenise only once.

The key is a hash of the sentences, the tokenizer and the length, so an entry is never stale.  A
damaged file is ignored, and if the folder cannot be written to, nothing is cached.
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
    """The folder of all caches: `$MICO_CACHE`, else `mico_competition` in the user's cache folder.

    A user without a home directory, as in many containers, gets a private temporary folder.

    Raises:
        ValueError: if the temporary folder belongs to somebody else, or is not private.
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
        raise ValueError(f"{folder} is not a private folder of yours: set MICO_CACHE to one.")
    return folder


def tokenise_once(dataset: TextDataset, tokenizer: Any, max_length: int) -> TokenDataset:
    """Return `dataset.tokenise(tokenizer, max_length)`, from the cache if possible.

    The result takes 5 bytes for each token or padding: 23 MB for all of SST-2 at 67 tokens.
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
    """A hash of all that the result depends on; None for a tokenizer that cannot be hashed."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None
    # Ignore the settings of an earlier call, because every call sets its own.
    plain = type(backend).from_str(backend.to_str())
    plain.no_padding()
    plain.no_truncation()
    sides = (type(tokenizer).__name__, tokenizer.pad_token_id, tokenizer.padding_side)
    options = repr((max_length, *sides, tokenizer.truncation_side))
    facts = f"{options}\n{plain.to_str()}\n{dataset.sentences_digest}"
    return hashlib.sha256(facts.encode()).hexdigest()[:32]


def _read(path: Path, shape: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor] | None:
    if not path.is_file():
        return None
    try:
        with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
            ids, mask = file["input_ids"], file["attention_mask"]
    except Exception:  # a damaged file can fail in any way, and counts as missing
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
