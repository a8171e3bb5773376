"""A model folder whose solution contradicts its seeds is refused by whatever reads it."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from helpers_release import CHALLENGE

from mico_competition.cli import main
from mico_competition.competition.challenge import ChallengeDataset
from mico_competition.competition.solutions import read_solution
from mico_competition.competition.splits import seed_text
from mico_competition.competition.submission import read_phase
from mico_competition.competition.table import TASKS, get_task
from mico_competition.fleets.finished import _unreadable
from mico_competition.hosting.codabench.bundle import solutions, write_final_reference
from mico_competition.hosting.leaderboard.truth_tree import read_truth
from mico_competition.release.archives import files_of_release, settle, sha256_of, write_sums
from mico_competition.release.check_files import check_files
from mico_competition.release.release import release, write_reference
from mico_competition.signals import fleet

MODEL = {p: f"digits_inf/{p}/model_{i}" for p, i in (("train", 0), ("dev", 100), ("final", 150))}


@pytest.fixture
def trained(trained, tmp_path):
    return shutil.copytree(trained.parent, tmp_path / "trained")


def flipped(labels):
    return [str(1 - int(label)) for label in labels]


def swapped(labels):
    one, other = labels.index("0"), labels.index("1")
    labels[one], labels[other] = labels[other], labels[one]
    return labels


CHANGES = {
    "flipped": flipped,
    "reversed": lambda labels: labels[::-1],
    "two swapped": swapped,
    "one more member": lambda labels: [
        *labels[: labels.index("0")],
        "1",
        *labels[labels.index("0") + 1 :],
    ],
    "shifted by one": lambda labels: [*labels[1:], labels[0]],
    "written as decimals": lambda labels: [f"{label}.0" for label in flipped(labels)],
}


def spoil(root, phase, change=flipped):
    """Change a model's solution; gives its folder and what to look for in messages."""
    path = root / CHALLENGE / MODEL[phase] / "solution.csv"
    labels = path.read_text().strip().split(",")
    path.write_text(",".join(change(labels)) + "\n")
    return path.parent


def predict(root):
    for path in (root / CHALLENGE).rglob("solution.csv"):
        target = root / f"{CHALLENGE}.predictions" / path.parent.relative_to(root / CHALLENGE)
        target.mkdir(parents=True)
        (target / "prediction.csv").write_text(",".join(["0.5"] * 200) + "\n")


READERS = {
    "reference": lambda root, phase, to: write_reference(root, CHALLENGE, phase, to / "ref"),
    "bundle": lambda root, phase, to: solutions(root, CHALLENGE, phase),
    "truth of score-all": lambda root, phase, to: read_truth(root, CHALLENGE, phase),
    "score": lambda root, phase, to: read_phase(root / CHALLENGE, phase=phase),
    "release": lambda root, phase, to: release(root, CHALLENGE, to / "out"),
    "splits": lambda root, phase, to: ChallengeDataset.from_path(
        root / CHALLENGE / MODEL[phase], range(TASKS["digits"].len_dataset)
    ),
}


@pytest.mark.parametrize("phase", MODEL)
@pytest.mark.parametrize("reader", READERS)
def test_every_reader_refuses_a_solution_that_contradicts_the_seed(
    trained, tmp_path, reader, phase
):
    predict(trained)
    READERS[reader](trained, phase, tmp_path / "sound")
    folder = spoil(trained, phase)
    with pytest.raises(ValueError) as caught:
        READERS[reader](trained, phase, tmp_path / "spoilt")
    message = str(caught.value)
    assert f"solution.csv in {folder} is not what its seed_membership gives" in message
    assert "put back a copy of the folder" in message
    assert (folder / "solution.csv").read_text().strip()[:20] not in message
    assert (folder / "seed_membership").read_text().strip() not in message
    assert not (tmp_path / "spoilt").exists() or not list((tmp_path / "spoilt").rglob("*.csv"))


@pytest.mark.parametrize("change", CHANGES)
def test_however_the_labels_differ(trained, change):
    folder = spoil(trained, "dev", CHANGES[change])
    with pytest.raises(ValueError, match="is not what its seed_membership gives"):
        read_solution(folder)


def test_a_changed_seed_counts_as_well(trained):
    folder = trained / CHALLENGE / MODEL["dev"]
    for text in ("00" * 16, "12345"):
        (folder / "seed_membership").write_text(text)
        with pytest.raises(ValueError, match="is not what its seed_membership gives"):
            read_solution(folder)
    (folder / "seed_membership").write_text("no seed")
    with pytest.raises(ValueError, match="32 hexadecimal digits") as caught:
        read_solution(folder)
    assert "no seed" not in str(caught.value)


def test_decimal_seeds_of_2022_links_and_folders_without_seeds(trained, tmp_path):
    data = range(TASKS["digits"].len_dataset)
    splits = ChallengeDataset(data, TASKS["digits"].len_training, 100, 1, 2, -3)
    folder = tmp_path / "model_0"
    folder.mkdir()
    (folder / "real.csv").write_text(",".join(map(str, splits.get_solutions())))
    (folder / "solution.csv").symlink_to("real.csv")
    (folder / "seed_membership").write_text(seed_text(-3))
    assert read_solution(folder).tolist() == splits.get_solutions()
    (folder / "seed_membership").write_text(seed_text(-4))
    with pytest.raises(ValueError, match="is not what"):
        read_solution(folder)
    (folder / "seed_membership").unlink()  # as `mico reference` leaves it
    assert read_solution(folder, count=200).sum() == 100
    with pytest.raises(ValueError, match="one line of 20 values"):
        read_solution(folder, count=20)


def test_the_final_reference_and_a_fleet_refuse_it_too(trained, tmp_path):
    folder = spoil(trained, "final")
    with pytest.raises(ValueError, match="is not what its seed_membership gives"):
        write_final_reference(trained, CHALLENGE, tmp_path / "final.zip")
    assert not (tmp_path / "final.zip").exists()
    assert "seed_membership" in (_unreadable(folder, get_task("digits")) or "")


def test_all_contradictions_are_listed_before_a_release(trained, tmp_path):
    folders = [spoil(trained, phase) for phase in MODEL]
    with pytest.raises(ValueError) as caught:
        release(trained, CHALLENGE, tmp_path / "out")
    assert all(str(folder) in str(caught.value) for folder in folders)


def test_verify_finds_it_in_a_release_whose_checksums_were_made_anew(trained, tmp_path):
    release(trained, CHALLENGE, tmp_path)
    tree, side = tmp_path / CHALLENGE, tmp_path / f"{CHALLENGE}.release"
    assert check_files(tree)[1] == []
    spoil(tmp_path, "train")
    write_sums(side, {name: sha256_of(path) for name, path in files_of_release(tree)})
    for folder in (tree, side):
        settle(folder)
    faults = check_files(tree)[1]
    assert len([f for f in faults if "is not what its seed_membership gives" in f]) == 1


@pytest.mark.parametrize("verb", ["evaluate", "audit", "attack"])
def test_the_verbs_that_attack(trained, verb, capsys):
    folder = spoil(trained, "train")
    end = ["eb"] if verb == "attack" else ["--attack", "eb"]
    words = (
        [verb, *end, str(trained / CHALLENGE)]
        if verb == "attack"
        else [verb, str(trained / CHALLENGE), *end]
    )
    assert main([*words, "--scenario", "digits_inf"]) == 1
    err = capsys.readouterr().err
    assert f"solution.csv in {folder} is not what its seed_membership gives" in err


def test_labels_of_a_fleet_are_those_of_the_solutions(trained):
    """What `evaluate` takes from seeds and what `score` takes from solutions are one truth."""
    from mico_competition import load_digits

    data = load_digits()
    read = fleet.read_fleet(trained / CHALLENGE, "digits_inf", data)
    truth = fleet.truth(read, np.arange(len(read)), data)
    for row, model in enumerate(read.folders):
        assert (truth[row, read.challenge[row]] == read_solution(model.path)).all()
