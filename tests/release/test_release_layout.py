"""A challenge folder holds scenario folders and nothing else; what belongs to it lies beside."""

import os
import zipfile

import pytest
from helpers_cases import one_in
from helpers_release import CHALLENGE, DEV

from mico_competition.cli import main
from mico_competition.competition.submission import find_predictions, write_prediction

SCENARIOS = ["digits_hi", "digits_inf", "digits_lo"]


def state(folder):
    return {
        path.relative_to(folder).as_posix(): (path.stat().st_mtime_ns, path.stat().st_mode)
        for path in (folder, *folder.rglob("*"))
    }


def walk_as_in_2022(challenge):
    """The loops of 2022's notebook and of participants' code: nothing is filtered."""
    for scenario in sorted(os.listdir(challenge)):
        for phase in sorted(os.listdir(os.path.join(challenge, scenario))):
            root = os.path.join(challenge, scenario, phase)
            for folder in sorted(os.listdir(root), key=lambda d: int(d.split("_")[1])):
                yield scenario, phase, os.path.join(root, folder)


@pytest.mark.slow
def test_code_of_2022_walks_a_release(copy, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(copy[1])
    found = list(walk_as_in_2022(CHALLENGE))
    assert len(found) == 12 and {scenario for scenario, _, _ in found} == set(SCENARIOS)
    assert {phase for _, phase, _ in found} == {"train", "dev", "final"}
    for _, phase, path in found:
        assert os.path.isfile(os.path.join(path, "model.pt"))
        assert os.path.isfile(os.path.join(path, "solution.csv")) == (phase == "train")
        with open(os.path.join(path, "prediction.csv"), "w") as file:  # where 2022's wrote it
            file.write(",".join(["0.5"] * 200) + "\n")
    assert main(["check", CHALLENGE]) == 0
    assert main(["submit", CHALLENGE, "--zip", str(tmp_path / "s.zip")]) == 0
    with zipfile.ZipFile(tmp_path / "s.zip") as archive:
        assert len(archive.namelist()) == 6
    packed = capsys.readouterr().out.splitlines()[-3:]
    assert [line.split(",")[0].split() for line in packed] == [[n, "dev", "1"] for n in SCENARIOS]
    assert all("final 1 predictions, written 20" in line for line in packed)
    assert main(["score", CHALLENGE]) == 0
    words = "Phase train: 6 models. Not scored: dev and final, whose solutions are not disclosed."
    assert words in capsys.readouterr().out
    again = os.scandir(CHALLENGE)
    assert sorted(entry.name for entry in again) == SCENARIOS
    (found, *_) = (path for _, phase, path in found if phase == "dev")
    beside = f"{CHALLENGE}.predictions/{os.path.relpath(found, CHALLENGE)}/prediction.csv"
    write_prediction(beside, [0.25] * 200)
    capsys.readouterr()
    assert main(["check", CHALLENGE]) == 1  # which of the two is meant?
    assert "choose one of them with --predictions" in capsys.readouterr().err
    assert main(["check", CHALLENGE, "--predictions", CHALLENGE]) == 0


@pytest.mark.slow
def test_an_attack_leaves_a_release_as_it_is(copy):
    trained, out = copy
    before = state(out / CHALLENGE), state(out / f"{CHALLENGE}.release")
    folder = str(out / CHALLENGE)
    assert main(["attack", folder]) == 0
    assert (state(out / CHALLENGE), state(out / f"{CHALLENGE}.release")) == before
    assert len(list((out / f"{CHALLENGE}.predictions").rglob("prediction.csv"))) == 12
    assert main(["check", folder]) == 0
    assert main(["score", folder]) == 0
    assert main(["submit", folder, "--zip", str(out.parent / "s.zip")]) == 0
    assert main(["verify", folder]) == 0
    assert main(["publish", folder, "team/x", "--dry_run"]) == 0
    assert main(["leaks", str(out), "--trained", str(trained)]) == 0


STRANGERS = [
    "digits/notes.txt",
    "digits/release.json",
    "digits/digits_hi/readme",
    "digits/digits_hi/dev/list.csv",
    f"digits/{DEV}/prediction.csv",
    f"digits/{DEV}/.ipynb_checkpoints/x",
    f"digits/{DEV}/solution.csv",
    "digits/digits_hi/dev/model_7/model.pt",
    "digits/cifar10_hi/dev/model_100/model.pt",
    "digits.release/notes.txt",
    "digits.release/README.md",
    "digits.release/revealed_dev.json",
    "digits.release/archives/notes.txt",
    "digits.release/more/notes.txt",
]


@pytest.mark.parametrize("name", one_in(5, STRANGERS))
def test_all_checks_agree_on_a_file_that_does_not_belong(copy, name, capsys):
    trained, out = copy
    (out / name).parent.mkdir(parents=True, exist_ok=True)
    (out / name).write_text("0.5\n")
    for command in (
        ["verify", str(out / CHALLENGE)],
        ["publish", str(out / CHALLENGE), "team/x", "--dry_run"],
        ["leaks", str(out), "--trained", str(trained)],
    ):
        assert main(command) == 1, command
        err = capsys.readouterr().err
        assert os.path.basename(name) in err or "model_7" in err


@pytest.mark.slow
def test_a_link_to_a_challenge_folder_is_as_the_folder(copy, tmp_path, monkeypatch):
    out = copy[1]
    work = tmp_path / "work"
    work.mkdir()
    (work / CHALLENGE).symlink_to(out / CHALLENGE)
    (work / "mine").symlink_to(out / CHALLENGE)
    monkeypatch.chdir(work)
    for name in (CHALLENGE, "mine"):
        assert main(["verify", name]) == 0
        assert main(["publish", name, "team/x", "--dry_run"]) == 0
    assert main(["attack", CHALLENGE]) == 0
    assert find_predictions(CHALLENGE) == work / "digits.predictions"
    assert len(list((work / "digits.predictions").rglob("prediction.csv"))) == 12
    assert main(["score", CHALLENGE]) == 0
