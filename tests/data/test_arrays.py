"""Datasets in memory: 2022's items, and the same records many at a time."""

import pickle
from functools import partial

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Subset

from mico_competition.data.arrays import (
    CIFAR10_MEAN,
    CIFAR10_STD,
    ArrayDataset,
    TextDataset,
    TokenDataset,
    normalise_cifar10,
    sixteenths,
    unpack_bits,
)
from mico_competition.data.datasets import load_digits


@pytest.fixture
def images():
    """Every byte value in every channel."""
    pixels = torch.arange(6 * 3072).mul(7).to(torch.uint8).view(6, 3, 32, 32)
    return ArrayDataset(pixels, torch.arange(6), normalise_cifar10)


def scaled(factor, levels):
    return levels.float() * factor


def test_pixels_are_normalised_as_torchvision_does_it_bit_for_bit(images):
    # ToTensor: float32 / 255; Normalize: minus a float32 mean, over a float32 deviation.
    pixels = images.storage.numpy().astype(np.float32) / np.float32(255)
    mean, std = (np.array(v, np.float32)[:, None, None] for v in (CIFAR10_MEAN, CIFAR10_STD))
    expected = torch.from_numpy((pixels - mean) / std)
    assert set(images.storage[:, 1].unique().tolist()) == set(range(256))
    assert torch.equal(images.inputs(range(6)), expected)


def test_bits_are_unpacked_in_numpys_order():
    rows = np.random.default_rng(0).integers(0, 2, (40, 600), np.uint8)
    packed = torch.from_numpy(np.packbits(rows, axis=1))
    assert torch.equal(unpack_bits(packed), torch.from_numpy(rows).float())


def test_items_are_those_of_2022(images):
    record, label = images[2]
    assert record.dtype == torch.float32
    assert record.shape == (3, 32, 32)
    assert type(label) is int
    assert label == 2
    assert len(images) == 6


def test_inputs_are_the_items(images):
    items = torch.stack([images[i][0] for i in range(6)])
    assert torch.equal(images.inputs([4, 0, 4]), items[[4, 0, 4]])
    for indices in (torch.tensor([1, 3, 5]), [1, 3, 5], range(1, 6, 2), np.array([1, 3, 5])):
        assert torch.equal(images.inputs(indices), items[1::2])
    assert images.inputs([]).shape == (0, 3, 32, 32)


def test_inputs_leave_the_storage_alone(images):
    before = images.storage.clone()
    images.inputs([0, 1]).zero_()
    images[0][0].zero_()
    assert torch.equal(images.storage, before)


def test_negative_indices_count_from_the_end(images):
    assert torch.equal(images[-1][0], images[5][0])
    assert images[-6][1] == 0


@pytest.mark.parametrize("index", [6, -7])
def test_an_index_out_of_range_ends_iteration(images, index):
    with pytest.raises(IndexError, match="there are 6 records"):
        images[index]
    assert len(list(images)) == 6


def test_a_mask_is_not_taken_for_indices(images):
    with pytest.raises(ValueError, match="whole numbers"):
        images.inputs(torch.tensor([True, False]))
    with pytest.raises(ValueError, match="whole numbers"):
        images.inputs([0.5])


def test_torchs_loader_and_subset_give_the_same_records(images):
    batches = list(DataLoader(Subset(images, [5, 1, 2]), batch_size=2))
    assert torch.equal(batches[0][0], images.inputs([5, 1]))
    assert batches[1][1].tolist() == [2]


def test_datasets_pickle_and_move(images):
    for dataset in (images, ArrayDataset(torch.ones(3, 2).byte(), torch.zeros(3), sixteenths)):
        again = pickle.loads(pickle.dumps(dataset)).to("cpu")
        assert torch.equal(again.inputs([0, 2]), dataset.inputs([0, 2]))
    other = ArrayDataset(torch.ones(2, 2), torch.tensor([0, 1]), partial(scaled, 3.0))
    assert pickle.loads(pickle.dumps(other))[1][0].tolist() == [3.0, 3.0]


def test_storage_is_compact(images):
    assert images.nbytes == 6 * 3072 + 6 * 8
    assert images.labels.dtype == torch.int64


def test_lengths_must_agree():
    with pytest.raises(ValueError, match="2 != 3"):
        ArrayDataset(torch.ones(3, 2), torch.tensor([0, 1]), sixteenths)
    with pytest.raises(ValueError, match="as many labels as idx"):
        TextDataset(["a", "b"], torch.tensor([0, 1]), torch.tensor([0]))


def by_letter(sentences, *, padding, truncation, max_length):
    """A tokeniser with Hugging Face's interface: a letter is a token."""
    assert padding == "max_length"
    assert truncation is True
    rows = [[ord(letter) for letter in sentence[:max_length]] for sentence in sentences]
    return {
        "input_ids": [row + [1] * (max_length - len(row)) for row in rows],
        "attention_mask": [[1] * len(row) + [0] * (max_length - len(row)) for row in rows],
    }


@pytest.fixture
def texts():
    return TextDataset(["ab ", "", "abcdefg"], torch.tensor([1, 0, 1]), torch.tensor([0, 1, 0]))


def test_text_items_are_those_of_2022(texts):
    assert texts[0] == {"sentence": "ab ", "label": 1, "idx": 0}
    assert texts[-1] == {"sentence": "abcdefg", "label": 1, "idx": 0}
    assert [type(value) for value in texts[1].values()] == [str, int, int]
    assert len(list(texts)) == 3


def test_sentences_are_tokenised_once_padded_and_truncated(texts):
    tokens = texts.tokenise(by_letter, max_length=4)
    batch = tokens.inputs(torch.tensor([2, 0]))
    assert batch["input_ids"].tolist() == [[97, 98, 99, 100], [97, 98, 32, 1]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 1, 0]]
    assert {values.dtype for values in batch.values()} == {torch.int64}
    row, label = tokens[-3]
    assert row["input_ids"].tolist() == [97, 98, 32, 1]
    assert (type(label), label) == (int, 1)
    assert len(tokens.to("cpu")) == 3
    assert tokens.nbytes == 3 * 4 * (4 + 1) + 3 * 8
    assert len(list(tokens)) == 3


def test_datasets_show_one_line():
    tokens = TokenDataset(torch.zeros(2, 7, dtype=torch.int32), torch.ones(2, 7), torch.arange(2))
    text = TextDataset(["a film", "a plot"], torch.tensor([1, 1]), torch.arange(2))
    assert repr(tokens) == "TokenDataset(2 records, labels of 2 classes, inputs of 7 tokens)"
    assert repr(text) == "TextDataset(2 records, labels of 1 class, sentences)"
    assert repr(load_digits()) == (
        "ArrayDataset(1,797 records, labels of 10 classes, inputs float32 [64])"
    )
