"""Right length, wrong data: a model is opened with the dataset that it was trained on, or not."""

import logging
import re

import numpy as np
import pytest
import torch
from helpers_fingerprints import (
    SCENARIO,
    a_subset,
    backwards,
    centred,
    one_label,
    one_pixel,
    other_preparation,
    rolled_labels,
    tensors,
)

from mico_competition.cli import main
from mico_competition.competition.challenge import ChallengeDataset
from mico_competition.data import fingerprint
from mico_competition.data.arrays import ArrayDataset, sixteenths
from mico_competition.data.datasets import LOADERS
from mico_competition.data.fingerprint import dataset_fingerprint
from mico_competition.evaluation.predict import attack_challenge
from mico_competition.signals import open_signals

WRONG = [
    backwards,
    rolled_labels,
    one_pixel,
    one_label,
    other_preparation,
    a_subset,
    tensors,
]


@pytest.mark.parametrize("change", WRONG)
def test_another_dataset_of_the_same_length_is_refused(fleet, data, tmp_path, change):
    wrong = change(data)
    folder = fleet / SCENARIO / "train/model_0"
    with pytest.raises(ValueError, match=r"model_0 was trained on another dataset: the 1797 reco"):
        ChallengeDataset.from_path(folder, wrong)
    if isinstance(wrong, ArrayDataset):
        with pytest.raises(ValueError, match="another dataset"):
            open_signals(fleet, SCENARIO, wrong, cache=tmp_path)
        with pytest.raises(ValueError, match="another dataset"):
            attack_challenge(fleet, lambda task: wrong, predictions=tmp_path)


@pytest.mark.parametrize(
    "verb", ["evaluate --attack threshold", "signals", "attack", "audit --attack threshold"]
)
def test_every_verb_refuses_it_in_a_sentence(fleet, data, tmp_path, capsys, monkeypatch, verb):
    monkeypatch.setitem(LOADERS, "digits", lambda *a, **k: one_pixel(data))
    words = [*verb.split(), str(fleet), "--cache", str(tmp_path / "cache")]
    if verb == "attack":
        words += ["--predictions", str(tmp_path / "predictions")]
    assert main(words) == 1
    error = capsys.readouterr().err
    assert "was trained on another dataset" in error and "Traceback" not in error


def test_what_is_changed_in_place_is_seen(data):
    own = ArrayDataset(data.storage.clone(), data.labels.clone(), data.expand)
    before = dataset_fingerprint(own)
    own.labels[:] = own.labels.flip(0)
    assert dataset_fingerprint(own) != before
    own.labels[:] = own.labels.flip(0)
    own.expand = centred
    assert dataset_fingerprint(own) != before


def by_numpy(data):
    pixels = data.storage.numpy().copy()
    own = ArrayDataset(torch.from_numpy(pixels), data.labels.clone(), data.expand)
    return own, lambda: pixels.__setitem__(slice(None), pixels[::-1].copy())


def by_data(data):
    own = ArrayDataset(data.storage.clone(), data.labels.clone(), data.expand)
    return own, lambda: own.storage.data.__setitem__(slice(None), own.storage.data.flip(0))


def by_labels_of_numpy(data):
    own = ArrayDataset(data.storage.clone(), data.labels.clone(), data.expand)
    labels = own.labels.numpy()
    return own, lambda: labels.__setitem__(slice(None), np.roll(labels, 5))


def by_one_byte(data):
    pixels = data.storage.numpy().copy()
    own = ArrayDataset(torch.from_numpy(pixels), data.labels.clone(), data.expand)
    return own, lambda: pixels.__setitem__((1700, 60), pixels[1700, 60] ^ 1)


def by_what_prepares_them(data):
    shift = torch.zeros(1)
    own = ArrayDataset(data.storage, data.labels, lambda x: sixteenths(x) - shift.to(x.device))
    return own, lambda: shift.fill_(0.5)


@pytest.mark.parametrize(
    "make", [by_numpy, by_data, by_labels_of_numpy, by_one_byte, by_what_prepares_them]
)
def test_what_torch_does_not_count_is_seen_too(fleet, data, tmp_path, make):
    own, change = make(data)
    folder = fleet / SCENARIO / "train/model_0"
    ChallengeDataset.from_path(folder, own)
    open_signals(fleet, SCENARIO, own, cache=tmp_path).get("loss")
    change()
    with pytest.raises(ValueError, match="another dataset"):
        ChallengeDataset.from_path(folder, own)
    with pytest.raises(ValueError, match="another dataset"):
        open_signals(fleet, SCENARIO, own, cache=tmp_path)


def test_the_models_of_a_fleet_hash_a_dataset_once(fleet, data, tmp_path, monkeypatch):
    counted = []
    original = fingerprint._bytes_digest

    def counting(part):
        counted.append(1)
        return original(part)

    monkeypatch.setattr(fingerprint, "_bytes_digest", counting)
    attack_challenge(fleet, lambda task: data, predictions=tmp_path)
    open_signals(fleet, SCENARIO, data, cache=tmp_path)
    assert len(counted) <= 4 * 6  # storage, labels and some records, a few times; not for 4 models


def test_labels_that_are_no_whole_numbers_are_others(fleet, data):
    items = [(x, y + 0.7) for x, y in (data[i] for i in range(len(data)))]
    with pytest.raises(ValueError, match="another dataset"):
        ChallengeDataset.from_path(fleet / SCENARIO / "train/model_0", items)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            rolled_labels,
            "4 of 4 models of digits_inf whose folders name no dataset are near",
        ),
        (backwards, "models whose folders name no dataset classify the records .* no better"),
    ],
)
def test_folders_of_2022_are_judged_by_accuracy(own, data, tmp_path, caplog, change, sentence):
    for path in own.rglob("metadata.json"):
        path.unlink()
    caplog.set_level(logging.WARNING, "mico_competition.signals.plausible")
    open_signals(own, SCENARIO, data, cache=tmp_path / "a").get("loss")
    assert not caplog.records
    for _ in range(2):  # computed, and found in the cache
        caplog.clear()
        open_signals(own, SCENARIO, change(data), cache=tmp_path / "b").get("loss")
        (record,) = caplog.records
        assert re.search(sentence, record.message)
    caplog.clear()
    attack_challenge(own, lambda task: change(data), predictions=tmp_path)
    assert re.search(sentence, caplog.records[0].message) and len(caplog.records) == 1
