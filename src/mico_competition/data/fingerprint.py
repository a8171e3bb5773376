"""Fingerprints of datasets: a hash of all records, as models take them, and of all labels.

The fingerprint does not depend on how or from where a dataset was read.  It changes with any record
or label, with their order, and with the preparation of records.  It covers the whole dataset, so it
reveals nothing about who is a member.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from mico_competition.data.arrays import ArrayDataset, TextDataset, TokenDataset
from mico_competition.data.items import labels_tensor, records_of, sentences_of
from mico_competition.scoring.printable import printable
from mico_competition.support.cpus import available_cpus

_BLOCK_BYTES = 1 << 22  # records that are hashed together; changing it changes all fingerprints
_REASON = 200  # characters of an error of another library in a message
_RAW_BYTES = 1 << 24  # stored bytes that one thread hashes at a time

_log = logging.getLogger(__name__)
_known: WeakKeyDictionary[Any, tuple[object, str]] = WeakKeyDictionary()
_held: dict[int, tuple[Any, str | None]] = {}
_warned: set[str] = set()


def dataset_fingerprint(dataset: Any) -> str | None:
    """Compute the SHA-256, in hex, of a dataset.

    An ArrayDataset has the same fingerprint as the list of its items, and a TextDataset the same
    as the TokenDataset made from it.  Every call reads the stored data, so that changes are
    noticed, but records are expanded again only if it has changed.

    Args:
        dataset: a dataset of this package; or any sequence of (array, label, ...), or of dicts with
            one array and a label, or with `sentence` and `label`; or a `range`, for a dataset of
            which only the length matters.

    Returns:
        The fingerprint; None for a `range`, and None with a warning if the items have another form.
    """
    if id(dataset) in _held:
        return _held[id(dataset)][1]
    if isinstance(dataset, TextDataset):
        return _of_ours(dataset)
    if not isinstance(dataset, (ArrayDataset, TokenDataset)):
        return _of_items(dataset)
    state, found = _state(dataset), _known.get(dataset)
    if found is None or found[0] != state:
        found = _known[dataset] = (state, _of_ours(dataset))
    return found[1]


@contextmanager
def hashed_once(dataset: Any) -> Iterator[None]:
    """Compute the fingerprint of `dataset` only once in this block, for many models."""
    if id(dataset) in _held:
        yield
        return
    _held[id(dataset)] = (dataset, dataset_fingerprint(dataset))
    try:
        yield
    finally:
        del _held[id(dataset)]


def remember_fingerprint(dataset: ArrayDataset | TokenDataset, fingerprint: str) -> None:
    """Set the fingerprint of `dataset`, if the caller knows it already."""
    _known[dataset] = (_state(dataset), fingerprint)


def check_dataset(where: object, stated: object, dataset: Any) -> None:
    """Raise ValueError if `dataset` is not the one that a model was trained on.

    Args:
        where: the model's folder, for the message.
        stated: the fingerprint in the model's metadata; None passes.
        dataset: the given dataset; one without a fingerprint passes, with a warning.
    """
    if stated is None:
        return
    found = dataset_fingerprint(dataset)
    if found is not None and found != stated:
        raise ValueError(
            f"{where} was trained on another dataset: the {len(dataset)} records given differ from "
            "those it was trained on in a record, a label, their order or their preparation "
            f"(dataset_fingerprint {found[:12]}..., expected {str(stated)[:12]}...): load the "
            "dataset of its training."
        )


def _state(dataset: ArrayDataset | TokenDataset) -> object:
    """Hashes of the stored bytes, and of how records are prepared."""
    rest: object
    if isinstance(dataset, TokenDataset):
        parts, rest = [dataset.input_ids, dataset.attention_mask], dataset.sentences_digest
    else:
        some = dataset.inputs(range(min(4, len(dataset))))  # changes with the preparation
        parts, rest = [dataset.storage], (dataset.expand, _raw(some))
    return [_raw(part) for part in (*parts, dataset.labels)], rest


def _raw(part: Tensor) -> object:
    """The type and shape of a tensor, and hashes of its bytes."""
    rows = max(1, _RAW_BYTES // max(1, part[:1].nbytes))
    with ThreadPoolExecutor(min(4, available_cpus())) as pool:
        return part.dtype, part.shape, list(pool.map(_bytes_digest, part.detach().split(rows)))


def _bytes_digest(part: Tensor) -> bytes:
    flat = part.cpu().contiguous().flatten()
    return hashlib.sha256(flat.view(torch.uint8).numpy().data).digest()


def _of_ours(dataset: ArrayDataset | TextDataset | TokenDataset) -> str:
    if not isinstance(dataset, ArrayDataset) and dataset.sentences_digest is not None:
        return _joined("text", [dataset.sentences_digest], dataset.labels)
    if isinstance(dataset, TokenDataset):
        parts = [dataset.input_ids.int(), dataset.attention_mask.to(torch.uint8)]
        return _joined("tokens", map(_digest, parts), dataset.labels)
    rows = _rows_of_block(dataset.inputs([0])) if len(dataset) else 1
    records = torch.arange(len(dataset)).split(rows)
    return _joined("records", _digests(map(dataset.inputs, records)), dataset.labels)


def _of_items(dataset: Any) -> str | None:
    """The fingerprint of a dataset of another class, from its items."""
    if isinstance(dataset, range):
        return None
    try:
        found = sentences_of(dataset)
        if found is not None:
            return _of_ours(TextDataset(found[0], found[1], torch.zeros(len(found[0]))))
        labels: list[float] = []
        digests = list(_digests(_blocks(dataset, labels)))
        return _joined("records", digests, labels_tensor(labels))
    except Exception as error:  # code of others may raise anything
        _warn(type(dataset).__name__, error)
        return None


def _blocks(dataset: Any, labels: list[float]) -> Iterator[Tensor]:
    """Records in blocks; their labels are added to `labels`."""
    block: list[Tensor] = []
    for record, label in records_of(dataset):
        block.append(record)
        labels.append(label)
        if len(block) == _rows_of_block(record.unsqueeze(0)):
            yield torch.stack(block)
            block = []
    if block:
        yield torch.stack(block)


def _warn(kind: str, error: Exception) -> None:
    reason = printable(f"{type(error).__name__}: {error}"[:_REASON])
    sentence = (
        f"The dataset given (a {printable(kind)}) cannot be compared with the one that the models "
        f"were trained on, since its items cannot be read as records with labels ({reason}): make "
        "sure that it is the same one, or give pairs of an array and a whole number."
    )
    if sentence not in _warned:
        _warned.add(sentence)
        _log.warning(sentence)


def _rows_of_block(record: Tensor) -> int:
    return max(1, _BLOCK_BYTES // max(1, 4 * record.numel()))


def _digests(blocks: Iterable[Tensor]) -> Iterator[bytes]:
    """The digest of each block, in order; threads hash blocks while the next one is made."""
    count = min(4, available_cpus())
    with ThreadPoolExecutor(count) as pool:
        waiting = []
        for block in blocks:
            waiting.append(pool.submit(_digest, block.to("cpu", torch.float32)))
            if len(waiting) > count:
                yield waiting.pop(0).result()
        for digest in waiting:
            yield digest.result()


def _digest(part: Tensor) -> bytes:
    if part.dtype == torch.float32:  # zeros and ones take a quarter of the time as bytes
        small = part.to(torch.uint8)
        part = small if torch.equal(small.to(torch.float32), part) else part
    digest = hashlib.sha256(f"{part.dtype} {tuple(part.shape)};".encode())
    digest.update(part.detach().cpu().contiguous().numpy().data)
    return digest.digest()


def _joined(kind: str, parts: Iterable[str | bytes], labels: Tensor) -> str:
    digest = hashlib.sha256(f"{kind};".encode())
    for part in parts:
        digest.update(part if isinstance(part, bytes) else part.encode())
    digest.update(_digest(labels if labels.is_floating_point() else labels.to(torch.int64)))
    return digest.hexdigest()
