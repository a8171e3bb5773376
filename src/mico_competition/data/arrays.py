"""Classes for datasets in memory, stored as compactly as their values allow.

An `ArrayDataset` stores bytes (pixels, packed bits) and expands them to float32 on demand, a
`TextDataset` stores sentences, and a `TokenDataset` stores tokenised sentences.  Their items are
those of 2022.  The method `inputs` returns many records at once without a Python loop.
"""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from mico_competition.support.counts import count_of

Device: TypeAlias = str | torch.device
Indices: TypeAlias = Tensor | np.ndarray | Sequence[int]

CIFAR10_MEAN = (0.49139968, 0.48215841, 0.44653091)
CIFAR10_STD = (0.24703223, 0.24348513, 0.26158784)


@cache
def _cifar10_constants(device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """255, the mean and the standard deviation as tensors, cached so that no batch copies them."""
    mean = torch.tensor(CIFAR10_MEAN, dtype=torch.float32, device=device)
    std = torch.tensor(CIFAR10_STD, dtype=torch.float32, device=device)
    return torch.full((), 255.0, device=device), mean.view(3, 1, 1), std.view(3, 1, 1)


def normalise_cifar10(pixels: Tensor) -> Tensor:
    """Convert pixels uint8 [B, 3, 32, 32] to float32: (x / 255 - mean) / std of each channel.

    The order of operations is that of 2022 (torchvision's ToTensor, then Normalize), so the
    values are the same bit for bit.  255 is a tensor on the pixels' device because CUDA would
    multiply by the rounded inverse of a plain number.
    """
    largest, mean, std = _cifar10_constants(pixels.device)
    return pixels.to(torch.float32).div_(largest).sub_(mean).div_(std)


@cache
def _bits_of_bytes(device: torch.device) -> Tensor:
    """The bits of every byte, float32 [256, 8], the highest bit first."""
    shifts = torch.arange(7, -1, -1)
    return ((torch.arange(256).unsqueeze(1) >> shifts) & 1).to(device, torch.float32)


def unpack_bits(packed: Tensor) -> Tensor:
    """Convert bits packed by `numpy.packbits`, uint8 [B, W], to zeros and ones, float32 [B, 8 W].

    A lookup in a table of 8 KB is 3 to 8 times as fast as shifting and masking.
    """
    table = _bits_of_bytes(packed.device)
    return torch.nn.functional.embedding(packed.to(torch.int32), table).flatten(1)


def sixteenths(levels: Tensor) -> Tensor:
    """Convert uint8 values 0..16 to float32 values 0..1, exactly."""
    return levels.to(torch.float32).div_(16.0)


def _index_tensor(indices: Indices, device: torch.device) -> Tensor:
    """`indices` as an int64 tensor on `device`; ValueError for a mask or for fractions."""
    if isinstance(indices, range):
        return torch.arange(indices.start, indices.stop, indices.step, device=device)
    if isinstance(indices, np.ndarray) and not indices.flags.writeable:
        indices = indices.copy()  # torch warns if an array is read-only
    index = torch.as_tensor(indices)
    if index.numel() and (index.dtype == torch.bool or index.is_floating_point()):
        raise ValueError(f"Expected whole numbers as indices, found {index.dtype}.")
    return index.to(device=device, dtype=torch.int64)


def _position(index: Any, length: int) -> int:
    """An index, which may count from the end, as a position with 0 <= position < length."""
    position = operator.index(index)
    if not -length <= position < length:
        raise IndexError(f"Record {position} is out of range: there are {length} records.")
    return position % length


def _whole(labels: Tensor) -> Tensor:
    """Labels as int64; ValueError for fractions, which the conversion would cut off."""
    whole = labels.to(torch.int64)
    if labels.is_floating_point() and not torch.equal(whole.to(labels.dtype), labels):
        raise ValueError("Expected labels as whole numbers, one a record, got fractions or NaN.")
    return whole


def _counts(labels: Tensor) -> str:
    """The numbers of records and of classes, for a repr."""
    classes = count_of(len(labels.unique()), "class", "classes")
    return f"{count_of(len(labels), 'record')}, labels of {classes}"


def _same_length(labels: Tensor, **others: int) -> None:
    for name, length in others.items():
        if length != len(labels):
            raise ValueError(f"Expected as many labels as {name}: {len(labels)} != {length}.")


class ArrayDataset(Dataset[tuple[Tensor, int]]):
    """Records of one shape, stored compactly and expanded to float32 on demand.

    Args:
        storage: compact records, [N, ...], usually uint8.
        labels: int64 [N].
        expand: converts compact records [B, ...] to float32 [B, ...] on the same device.  It must
            be a module-level function or a `functools.partial` of one, so that it can be pickled.
    """

    def __init__(self, storage: Tensor, labels: Tensor, expand: Callable[[Tensor], Tensor]):
        _same_length(labels, records=len(storage))
        self.storage = storage
        self.labels = _whole(labels)
        self.expand = expand

    def __len__(self) -> int:
        return len(self.storage)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Item `index` as in 2022: (float32 record, int label); IndexError if out of range."""
        position = _position(index, len(self))
        record = self.expand(self.storage[position : position + 1])[0]
        return record, int(self.labels[position])

    def __getitems__(self, indices: list[int]) -> list[tuple[Tensor, int]]:
        """The items of a whole batch; torch's DataLoader and Subset call this if it exists."""
        index = _index_tensor(indices, self.storage.device)
        return list(zip(self.inputs(index), self.labels[index].tolist(), strict=True))

    def inputs(self, indices: Indices) -> Tensor:
        """The records at `indices` (0 <= i < N) as float32 [len(indices), ...].

        The result is new memory on the dataset's device.  It takes one gather of compact records
        and one expansion, which is much faster than reading items.
        """
        index = _index_tensor(indices, self.storage.device)
        return self.expand(self.storage.index_select(0, index))

    def to(self, device: Device) -> ArrayDataset:
        """The same dataset on `device` (still compact there)."""
        return ArrayDataset(self.storage.to(device), self.labels.to(device), self.expand)

    @property
    def nbytes(self) -> int:
        """The memory that the dataset takes, in bytes: stored records and labels."""
        return self.storage.nbytes + self.labels.nbytes

    def __repr__(self) -> str:
        shape = f"float32 {list(self.inputs([0]).shape[1:])}" if len(self) else "no shape"
        return f"ArrayDataset({_counts(self.labels)}, inputs {shape})"


class TextDataset(Dataset[dict[str, str | int]]):
    """Sentences with labels.

    Args:
        sentences: N strings.
        labels: int64 [N].
        idx: int64 [N], each sentence's number in its original split.
    """

    def __init__(self, sentences: list[str], labels: Tensor, idx: Tensor):
        _same_length(labels, sentences=len(sentences), idx=len(idx))
        self.sentences = sentences
        self.labels = _whole(labels)
        self.idx = idx.to(torch.int64)

    def __len__(self) -> int:
        return len(self.sentences)

    def __getitem__(self, index: int) -> dict[str, str | int]:
        """Item `index` as in 2022: a dict of `sentence`, `label` and `idx`."""
        position = _position(index, len(self))
        return {
            "sentence": self.sentences[position],
            "label": int(self.labels[position]),
            "idx": int(self.idx[position]),
        }

    def __repr__(self) -> str:
        return f"TextDataset({_counts(self.labels)}, sentences)"

    @property
    def sentences_digest(self) -> str:
        """SHA-256 in hex of the sentences in their order, each preceded by its length."""
        digest = hashlib.sha256()
        for sentence in self.sentences:
            raw = sentence.encode("utf-8", "surrogatepass")
            digest.update(b"%d:" % len(raw) + raw)
        return digest.hexdigest()

    def tokenise(self, tokenizer: Callable[..., Any], max_length: int) -> TokenDataset:
        """Tokenise all sentences with a Hugging Face `tokenizer`, in one call.

        As in 2022, sentences are padded or truncated to `max_length` tokens.
        """
        encoded = tokenizer(
            list(self.sentences), padding="max_length", truncation=True, max_length=max_length
        )
        shape = (len(self), max_length)
        input_ids = torch.from_numpy(np.asarray(encoded["input_ids"], np.int32).reshape(shape))
        mask = torch.from_numpy(np.asarray(encoded["attention_mask"], np.uint8).reshape(shape))
        return TokenDataset(input_ids, mask, self.labels, self.sentences_digest)


class TokenDataset(Dataset[tuple[dict[str, Tensor], int]]):
    """Tokenised sentences with labels: the inputs of a text model.

    Args:
        input_ids: int32 [N, L], token ids.
        attention_mask: uint8 [N, L], 1 for a token and 0 for padding.
        labels: int64 [N].
        sentences_digest: `TextDataset.sentences_digest` of the sentences, if it is known.
    """

    def __init__(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        labels: Tensor,
        sentences_digest: str | None = None,
    ):
        _same_length(labels, input_ids=len(input_ids), attention_mask=len(attention_mask))
        self.input_ids = input_ids
        self.attention_mask = attention_mask
        self.labels = _whole(labels)
        self.sentences_digest = sentences_digest

    def __len__(self) -> int:
        return len(self.input_ids)

    def __getitem__(self, index: int) -> tuple[dict[str, Tensor], int]:
        """Item `index`: (dict of int64 [L] `input_ids` and `attention_mask`, int label)."""
        position = _position(index, len(self))
        row = {name: values[0] for name, values in self.inputs([position]).items()}
        return row, int(self.labels[position])

    def inputs(self, indices: Indices) -> dict[str, Tensor]:
        """The records at `indices` (0 <= i < N) as the model takes them.

        Returns:
            A dict of `input_ids` and `attention_mask`, int64 [len(indices), L], on the dataset's
            device.
        """
        index = _index_tensor(indices, self.input_ids.device)
        return {
            "input_ids": self.input_ids.index_select(0, index).long(),
            "attention_mask": self.attention_mask.index_select(0, index).long(),
        }

    def to(self, device: Device) -> TokenDataset:
        """The same dataset on `device` (still compact there)."""
        return TokenDataset(
            self.input_ids.to(device),
            self.attention_mask.to(device),
            self.labels.to(device),
            self.sentences_digest,
        )

    @property
    def nbytes(self) -> int:
        """The memory that the dataset takes, in bytes: ids, mask and labels."""
        return self.input_ids.nbytes + self.attention_mask.nbytes + self.labels.nbytes

    def __repr__(self) -> str:
        return f"TokenDataset({_counts(self.labels)}, inputs of {self.input_ids.shape[1]} tokens)"
