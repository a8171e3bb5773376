"""Which dataset it is: a fingerprint of all records, as models take them, and of their labels.

It is the same however a dataset was read or cached and wherever it lies, and differs if one record
or label does, or their order, or how records are prepared.  It is of the whole dataset, so it tells
nothing of what a model was trained on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from mico_competition.cpus import available_cpus
from mico_competition.data.arrays import ArrayDataset, TextDataset, TokenDataset

_BLOCK_BYTES = 1 << 22  # of records that are hashed together; another number, other fingerprints

_known: WeakKeyDictionary[Any, tuple[object, str]] = WeakKeyDictionary()


def dataset_fingerprint(dataset: Any) -> str | None:
    """SHA-256 in hex of a dataset; None for one that is not of records and labels.

    Args:
        dataset: of this package, which is hashed once as long as it stays as it is; or any
            sequence of (array, label) pairs or of dicts with `sentence` and `label`.

    An ArrayDataset has the fingerprint of the sequence of its items, and so has the TokenDataset
    made of a TextDataset.
    """
    state = _state(dataset)
    if state is None:
        return _of_items(dataset)
    found = _known.get(dataset)
    if found is None or found[0] != state:
        found = _known[dataset] = (state, _of_ours(dataset))
    return found[1]


def remember_fingerprint(dataset: ArrayDataset | TokenDataset, fingerprint: str) -> None:
    """Have `dataset_fingerprint` give `fingerprint`, which is known to be that of `dataset`."""
    _known[dataset] = (_state(dataset), fingerprint)


def check_dataset(where: object, stated: object, dataset: Any) -> None:
    """ValueError if `dataset` is not the one whose fingerprint is `stated` (None: not known).

    Args:
        where: the model's folder, for the message.
        stated: what its metadata say.
        dataset: what it is to be used with; one without records and labels passes.
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


def _state(dataset: Any) -> object:
    """What changes when the tensors of one of our datasets do; None for another's dataset."""
    if isinstance(dataset, TextDataset):
        tensors: tuple[Tensor, ...] = (dataset.labels,)
        rest: object = (id(dataset.sentences), len(dataset.sentences))
    elif isinstance(dataset, TokenDataset):
        tensors = (dataset.input_ids, dataset.attention_mask, dataset.labels)
        rest = dataset.sentences_digest
    elif isinstance(dataset, ArrayDataset):
        tensors, rest = (dataset.storage, dataset.labels), dataset.expand
    else:
        return None
    return [(part.data_ptr(), part._version, tuple(part.shape)) for part in tensors], rest


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
    """The same of somebody else's dataset, item by item; None if its items are of another form."""
    try:
        first = dataset[0]
        if isinstance(first, Mapping):
            sentences, labels = zip(
                *((item["sentence"], item["label"]) for item in _items(dataset))
            )
            text = TextDataset(list(sentences), torch.tensor(labels), torch.tensor(labels))
            return _of_ours(text)
        found: list[int] = []
        rows = _rows_of_block(_record(first).unsqueeze(0))
        digests = list(_digests(_blocks(dataset, rows, found)))
        return _joined("records", digests, torch.tensor(found))
    except (TypeError, ValueError, KeyError, IndexError, AttributeError, RuntimeError):
        return None


def _items(dataset: Any) -> Iterator[Any]:
    return (dataset[i] for i in range(len(dataset)))


def _record(item: Any) -> Tensor:
    record, label = item
    if not isinstance(record, (Tensor, np.ndarray)):
        raise TypeError("A record that is no array.")
    int(label)
    return torch.as_tensor(record)


def _blocks(dataset: Any, rows: int, labels: list[int]) -> Iterator[Tensor]:
    """Records in blocks; their labels are added to `labels`."""
    block: list[Tensor] = []
    for item in _items(dataset):
        block.append(_record(item))
        labels.append(int(item[1]))
        if len(block) == rows:
            yield torch.stack(block)
            block = []
    if block:
        yield torch.stack(block)


def _rows_of_block(record: Tensor) -> int:
    return max(1, _BLOCK_BYTES // max(1, 4 * record.numel()))


def _digests(blocks: Iterable[Tensor]) -> Iterator[bytes]:
    """The digest of each block, in order; the next ones are hashed while one is made."""
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
    digest.update(_digest(labels.to(torch.int64)))
    return digest.hexdigest()
