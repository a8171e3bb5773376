"""What lies beside a release, and what its files' owners tell."""

from __future__ import annotations

import os
import subprocess
import zipfile

import numpy as np
import pytest
from helpers_cases import one_in
from helpers_release import CHALLENGE, DEV, faults_of

from mico_competition.cli import main
from mico_competition.release.leak_check import tree as leak_tree
from mico_competition.release.leak_check.predictions import _is_unlikely

TRAIN = "digits_inf/train/model_0"


@pytest.fixture
def made(planted):
    rng = np.random.default_rng(0)
    for place in (DEV, TRAIN):
        write(planted, f"{place}/prediction.csv", ",".join(map(str, rng.random(200).round(6))))
    return planted


def write(made, name, text):
    path = made.root / f"{CHALLENGE}.predictions" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n")
    return path


def solution(made):
    return made.read("solution.csv")


STRAYS = {
    "a solution on top": lambda m: write(m, "solution.csv", solution(m)),
    "a solution in a model": lambda m: write(m, f"{DEV}/solution.csv", solution(m)),
    "a seed": lambda m: write(m, f"{DEV}/seed_membership", m.read("seed_membership")),
    "a note": lambda m: write(m, "notes.txt", "x"),
    "a model that was not trained": lambda m: write(
        m, "digits_inf/dev/model_140/prediction.csv", "0.5"
    ),
    "a folder named by a seed": lambda m: (
        m.root / f"{CHALLENGE}.predictions" / DEV / m.read("seed_membership")
    ).mkdir(),
    "a link": lambda m: os.symlink(
        m.trained / CHALLENGE / DEV / "solution.csv",
        m.root / f"{CHALLENGE}.predictions" / "digits_inf" / "x.csv",
    ),
}
VALUES = {
    "too few": (lambda m: ",".join(["0.5"] * 199), "does not hold 200 numbers"),
    "labels after the values": (
        lambda m: ",".join(["0.5"] * 200) + "\n" + solution(m),
        "does not hold 200 numbers",
    ),
    "words": (lambda m: m.read("seed_membership"), "does not hold 200 numbers"),
    "the labels": (solution, "reveals every label of the model without a mistake"),
    "the labels, turned": (
        lambda m: ",".join(str(1 - v) for v in m.labels),
        "reveals every label of the model",
    ),
    "the labels with noise": (
        lambda m: ",".join(f"{0.4 + 0.1 * v + 0.0001 * i:.4f}" for i, v in enumerate(m.labels)),
        "reveals every label of the model",
    ),
}


@pytest.mark.parametrize("stray", one_in(3, STRAYS))
def test_what_is_no_prediction_is_a_fault(made, stray):
    assert faults_of(made) == []
    STRAYS[stray](made)
    found = faults_of(made)
    assert found
    assert all(f.endswith("is not a prediction of a model: do not publish it.") for f in found)
    assert all(f.startswith(f"{CHALLENGE}.predictions/") for f in found)
    assert made.read("seed_membership") not in "".join(found)


@pytest.mark.parametrize("values", VALUES)
def test_predictions_hold_numbers_and_not_the_labels(made, values):
    text, words = VALUES[values]
    write(made, f"{DEV}/prediction.csv", text(made))
    (fault,) = faults_of(made)
    assert f"{CHALLENGE}.predictions/{DEV}/prediction.csv" in fault and words in fault
    assert solution(made)[:20] not in fault


def test_labels_that_are_disclosed_may_be_predicted(made):
    labels = (made.trained / CHALLENGE / TRAIN / "solution.csv").read_text().strip()
    write(made, f"{TRAIN}/prediction.csv", labels)
    assert faults_of(made) == []


def test_the_verb_says_what_must_not_be_published(made, capsys):
    words = ["leaks", str(made.root), "--trained", str(made.trained)]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "No leak found in digits" in out
    assert f"{CHALLENGE}.predictions is not part of the release" in out
    write(made, "solution.csv", solution(made))
    assert main(words) == 1
    captured = capsys.readouterr()
    assert "digits.predictions/solution.csv: is not a prediction" in captured.err
    assert "No leak" not in captured.out


@pytest.mark.parametrize("number", ["st_uid", "st_gid"])
def test_owners_that_differ_are_a_fault(made, monkeypatch, number):
    """Labels in the ids of owners, which only root can set."""
    ids = iter([int(v) + 1000 for v in made.labels] * 10)

    class Status:
        def __init__(self, status):
            self.status, self.id = status, next(ids)

        def __getattr__(self, name):
            return self.id if name == number else getattr(self.status, name)

    real = leak_tree.Entry.status.func
    monkeypatch.setattr(leak_tree.Entry, "status", property(lambda e: Status(real(e))))
    assert any("has another owner or group than other files" in f for f in faults_of(made))


def test_archives_and_tar_carry_no_time_of_reading(made, tmp_path):
    """What the check says of access times: neither an archive nor plain tar has them."""
    weights = made.dev / "model.pt"

    def packed():
        with zipfile.ZipFile(made.zip) as archive:
            assert not any(info.extra for info in archive.infolist())
        command = ["tar", "--format=gnu", "-cf", "-", "-C", str(made.root), CHALLENGE]
        return subprocess.run(command, check=True, capture_output=True).stdout

    before = packed()
    os.utime(weights, ns=(int(made.seed.hex()[:14], 16), weights.stat().st_mtime_ns))
    assert packed() == before


def test_few_points_are_separated_by_luck_and_many_are_not():
    assert _is_unlikely(1, [100] * 150) and _is_unlikely(1, [40] * 100)
    assert not _is_unlikely(1, [7] * 40) and not _is_unlikely(0, [])
    assert _is_unlikely(4, [7] * 40)  # a folder of copied labels separates them all
