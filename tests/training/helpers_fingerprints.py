"""Datasets that differ from the digits in one thing, and metadata of models."""

import json

from torch.utils.data import Subset, TensorDataset

from mico_competition.competition.splits import Seeds
from mico_competition.data.arrays import ArrayDataset, sixteenths

SCENARIO = "digits_inf"


def seeds_of(model_id):
    return Seeds(*(bytes([model_id, i] * 8) for i in range(3)))


def metadata(folder):
    return json.loads((folder / "metadata.json").read_text())


def edited(folder, **changes):
    """Change keys of the metadata of all models below `folder`; None takes one out."""
    for path in folder.rglob("metadata.json"):
        values = {**json.loads(path.read_text()), **changes}
        values = {key: value for key, value in values.items() if value is not None}
        path.write_text(json.dumps(values))


def backwards(data):
    return ArrayDataset(data.storage.flip(0), data.labels.flip(0), data.expand)


def rolled_labels(data):
    return ArrayDataset(data.storage, data.labels.roll(1), data.expand)


def one_pixel(data):
    storage = data.storage.clone()
    storage[1700, 60] ^= 1
    return ArrayDataset(storage, data.labels, data.expand)


def one_label(data):
    labels = data.labels.clone()
    labels[900] = (labels[900] + 1) % 10
    return ArrayDataset(data.storage, labels, data.expand)


def centred(levels):
    return sixteenths(levels) - 0.5


def other_preparation(data):
    return ArrayDataset(data.storage, data.labels, centred)


def a_subset(data):
    return Subset(data, list(range(len(data)))[::-1])


def tensors(data):
    return TensorDataset(data.inputs(range(len(data))), data.labels.roll(3))
