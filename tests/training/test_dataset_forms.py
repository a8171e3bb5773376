"""A dataset has one fingerprint in all forms of its items; what has none is warned of."""

import logging
from typing import Any

import numpy as np
import pytest
import torch
from helpers_fingerprints import SCENARIO
from torch.utils.data import ConcatDataset, Subset, TensorDataset

from mico_competition.competition.challenge import ChallengeDataset
from mico_competition.data import fingerprint
from mico_competition.data.arrays import ArrayDataset, TextDataset
from mico_competition.data.datasets import load_cifar10
from mico_competition.data.fingerprint import dataset_fingerprint


def test_the_same_dataset_is_the_same_however_it_is_held(data):
    expected = dataset_fingerprint(data)
    items = [data[i] for i in range(len(data))]
    whole = data.inputs(range(len(data)))
    halves = [Subset(data, range(900)), Subset(data, range(900, len(data)))]
    for other in (
        ArrayDataset(whole, data.labels, torch.clone),
        items,
        [(record.numpy(), label) for record, label in items],
        ConcatDataset(halves),
        TensorDataset(whole, data.labels),
        data.to("cpu"),
    ):
        assert dataset_fingerprint(other) == expected
    assert dataset_fingerprint(range(1797)) is None  # of no records: nothing to be compared


def test_sentences_that_change_in_place_are_seen():
    text = TextDataset([f"s {i}" for i in range(9)], torch.zeros(9), torch.arange(9))
    seen = {dataset_fingerprint(text)}
    text.sentences[0] = "changed"
    seen.add(dataset_fingerprint(text))
    text.sentences.reverse()
    seen.add(dataset_fingerprint(text))
    text.labels.numpy()[3] = 1
    seen.add(dataset_fingerprint(text))
    assert len(seen) == 4


def one_hot(label: int) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.tensor(label), 10)


FORMS: dict[str, Any] = {
    "lists": lambda x, y, i: (x.tolist(), y),
    "triples": lambda x, y, i: (x, y, i),
    "lists of two": lambda x, y, i: [x, torch.tensor([y])],
    "dicts": lambda x, y, i: {"x": x, "y": y},
    "dicts with more": lambda x, y, i: {"image": x.numpy(), "label": y, "id": i},
    "one-hot": lambda x, y, i: (x, one_hot(y)),
    "one-hot of numpy": lambda x, y, i: (x.numpy(), one_hot(y).numpy().astype(float)),
    "objects": lambda x, y, i: (x.numpy().astype(object), y),
    "sparse": lambda x, y, i: (x.to_sparse(), y),
    "doubles": lambda x, y, i: (x.double(), float(y)),
    "gradients": lambda x, y, i: (x.clone().requires_grad_(), np.int64(y)),
}


@pytest.mark.parametrize("form", FORMS)
def test_items_of_many_forms_are_compared(fleet, data, form):
    items = [FORMS[form](*data[i], i) for i in range(len(data))]
    folder = fleet / SCENARIO / "train/model_0"
    ChallengeDataset.from_path(folder, items)
    with pytest.raises(ValueError, match="another dataset"):
        ChallengeDataset.from_path(folder, items[::-1])


class Broken:
    def __len__(self):
        return 1797

    def __getitem__(self, index):
        raise OSError("disk gone")


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda data: Broken(), "OSError: disk gone"),
        (lambda data: [object()] * len(data), "an item of type object, not a pair"),
        (lambda data: [("a", 1)] * len(data), "a record of type str, not an array"),
        (lambda data: [{"x": torch.ones(2), "z": 1}] * len(data), "a dict of x, z, not of one"),
        (lambda data: [(torch.ones(64), torch.ones(10))] * len(data), "neither a number nor one"),
        (lambda data: [(torch.ones(64), "seven")] * len(data), "could not convert string"),
    ],
)
def test_what_cannot_be_compared_is_warned_of_once(fleet, data, caplog, make, reason):
    fingerprint._warned.clear()
    caplog.set_level(logging.WARNING, "mico_competition.data.fingerprint")
    for _ in range(2):
        ChallengeDataset.from_path(fleet / SCENARIO / "train/model_0", make(data))
    (record,) = caplog.records
    assert "cannot be compared with the one that the models were trained" in record.message
    assert reason in record.message
    ChallengeDataset.from_path(fleet / SCENARIO / "train/model_0", range(1797))  # places only
    assert len(caplog.records) == 1


def test_every_official_form_of_a_dataset_has_one_fingerprint(tmp_path):
    import pickle

    rng = np.random.default_rng(0)
    binary, pickled = (tmp_path / name / "cifar10" for name in ("binary", "pickled"))
    names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    for name in names:
        rows = rng.integers(0, 256, (4, 3073), dtype=np.uint8)
        rows[:, 0] %= 10
        for folder in (binary / "cifar-10-batches-bin", pickled / "cifar-10-batches-py"):
            folder.mkdir(parents=True, exist_ok=True)
        rows.tofile(binary / "cifar-10-batches-bin" / f"{name}.bin")
        batch = {b"data": rows[:, 1:], b"labels": rows[:, 0].tolist()}
        (pickled / "cifar-10-batches-py" / name).write_bytes(pickle.dumps(batch, protocol=2))
    found = {dataset_fingerprint(load_cifar10(tmp_path / name)) for name in ("binary", "pickled")}
    assert len(found) == 1
