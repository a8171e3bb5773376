"""A competition of one's own, from `mico init` to a leaderboard, in one process and in workers."""

import json
import os
import shutil
from importlib.resources import files

import pytest
from helpers_competition import write_own

from mico_competition.cli import main, split_competition
from mico_competition.competition.table import (
    CHALLENGES,
    SCENARIOS,
    VARIABLE,
    current,
    get_scenario,
    use,
    using,
)
from mico_competition.release.leak_check.check import check_release
from mico_competition.release.release import release

DATES = [
    *("--dev_start", "2036-01-01 00:00:00", "--final_start", "2036-02-01 00:00:00"),
    *("--end", "2036-03-01 00:00:00"),
]


def mico(file, *words):
    """Run a verb on the competition; it must end well."""
    line = [*map(str, words), "--quiet", "--competition", str(file)]
    assert main(line) == 0, line


ONE = {"only": {"target_epsilon": 2.5}}
FIVE = {
    "half": {"target_epsilon": 0.5},
    "Two and a half": {"target_epsilon": 2.5},
    "none": {"target_epsilon": float("inf")},
    "eight": {"target_epsilon": 8.0, "disclosure": "distinguisher"},
    "dp-sgd": {"target_epsilon": 3.0, "optimizer": "sgd", "title": "SGD, ε = {epsilon}"},
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "scenarios", [{"only": {"target_epsilon": 2.5}}, FIVE], ids=["one", "five"]
)
def test_a_competition_from_its_file_to_its_leaderboard(tmp_path, monkeypatch, capsys, scenarios):
    monkeypatch.chdir(tmp_path)
    file = write_own(tmp_path / "mine", scenarios)
    for name in scenarios:
        mico(file, "fleet", name, "--models", "0,1,5-8,20", "--out", "trained", "--workers", "1")
    mico(file, "release", "trained", "--to", "released")
    side = tmp_path / "released" / "faces.release"
    assert (side / "competition.toml").read_bytes() == file.read_bytes()
    assert json.loads((side / "release.json").read_text())["competition"] == {
        "file": "competition.toml",
        "code": ["my_competition:load_blobs", "my_competition:BlobNet"],
    }
    mico(file, "verify", "released/faces")
    mico(file, "leaks", "released", "--trained", "trained")
    # A participant has the released file, and the module from the organisers.
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    shutil.copy(side / "competition.toml", theirs)
    shutil.copy(file.with_name("my_competition.py"), theirs)
    there = theirs / "competition.toml"
    mico(there, "attack", "eb", "released/faces")
    mico(there, "score", "released/faces")
    shown = capsys.readouterr().out
    assert all(name in shown for name in scenarios)
    mico(there, "evaluate", "released/faces", "--attack", "lira", "--resamples", "50")
    mico(there, "submit", "released/faces", "--zip", "team.zip")
    mico(file, "reference", "trained", "--challenge", "faces", "--phase", "dev", "--to", "ref")
    mico(file, "bundle", "trained", "--challenge", "faces", "--out", "bundle.zip", *DATES)
    mico(file, "bundle", "--check", "bundle.zip")
    mico(file, "rehearse", "bundle.zip", "team.zip")
    (tmp_path / "sent").mkdir()
    shutil.copy("team.zip", "sent/team.zip")
    mico(file, "score-all", "sent", "--truth", "trained", "--out", "entries")
    assert (
        main(["leaderboard", "build", "entries", "--out", "site", "--competition", str(file)]) == 0
    )
    mico(file, "audit", "released/faces", "--attack", "threshold")
    mico(file, "release", "trained", "--to", "released", "--reveal", "dev")
    mico(file, "verify", "released/faces")
    assert "faces" not in CHALLENGES and VARIABLE not in os.environ


def test_the_flag_stands_anywhere_and_ends_with_the_command(tmp_path, capsys):
    file = write_own(tmp_path, {"only": {}})
    for words in (["--competition", str(file), "tracks"], ["tracks", f"--competition={file}"]):
        assert main(words) == 0
        assert "only" in capsys.readouterr().out
    assert main(["tracks"]) == 0
    assert "cifar10_lo" in capsys.readouterr().out
    assert split_competition(["a", "--", "--competition", "x"])[0] is None
    twice = ["tracks", "--competition", str(file), "--competition", str(file)]
    for words, fault in ((twice, "give it once"), (twice[:2], "expected one argument")):
        with pytest.raises(SystemExit):
            main(words)
        assert fault in capsys.readouterr().err


def test_the_variable_brings_a_competition_and_its_faults_are_a_sentence(
    tmp_path, monkeypatch, capsys
):
    file = write_own(tmp_path, {"only": {}})
    monkeypatch.setattr("mico_competition.competition.table._in_use", None)
    monkeypatch.setenv(VARIABLE, str(file))
    assert list(SCENARIOS) == ["only"] and current().path == file
    monkeypatch.setattr("mico_competition.competition.table._in_use", None)
    file.write_text(file.read_text().replace("num_epochs", "epochs"))
    assert main(["tracks"]) == 1
    said = capsys.readouterr().err
    assert "has 2 faults" in said and "unknown column epochs: did you mean num_epochs?" in said
    monkeypatch.delenv(VARIABLE)
    with using(None):
        assert "cifar10_lo" in SCENARIOS


def test_the_variable_may_name_no_file(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("mico_competition.competition.table._in_use", None)
    missing = tmp_path / "mine" / "competition.toml"
    monkeypatch.setenv(VARIABLE, str(missing))
    said = f"mico: {VARIABLE} names no competition that can be used: There is no competition file "
    for words in (["tracks"], ["attacks"], ["--quiet"], []):
        assert main(words) == 1
        assert capsys.readouterr().err.startswith(f"{said}{missing}: name one, or `mico init")
    for words in (["--help"], ["-h"], ["fleet", "--help"]):
        with pytest.raises(SystemExit, match="0"):
            main(words)
        assert "usage: mico" in capsys.readouterr().out
    monkeypatch.setattr("mico_competition.demo.run_demo", lambda *_, **__: print(list(SCENARIOS)))
    assert main(["demo", "--quiet"]) == 0
    assert "digits_lo" in capsys.readouterr().out
    assert os.environ[VARIABLE] == str(missing)
    assert main(["init", str(missing.parent)]) == 0 and missing.is_file()
    assert main(["tracks"]) == 0
    assert "blobs_eps2" in capsys.readouterr().out
    use(None)


def test_a_flag_without_a_name(capsys):
    for words in (
        ["tracks", "--competition="],
        ["--competition", "", "tracks"],
        ["--competition="],
    ):
        assert main(words) == 2
        said = "mico: Expected --competition FILE, got an empty name: name the file.\n"
        assert capsys.readouterr().err == said


def test_no_file_is_picked_up_from_a_folder(tmp_path, monkeypatch, capsys):
    write_own(tmp_path, {"only": {}})
    monkeypatch.chdir(tmp_path)
    assert main(["tracks"]) == 0
    assert "only" not in capsys.readouterr().out


def test_a_dry_run_says_which_loader_of_ones_own_is_at_fault(tmp_path, capsys):
    file = write_own(tmp_path, {"only": {"target_epsilon": float("inf")}}, records=599)
    command = ["train", "--scenario", "only", "--dry_run", "--competition", str(file)]
    assert main(command) == 1
    said = capsys.readouterr().err
    start = "mico: my_competition:load_blobs gives 600 records where records"
    assert said == f"{start} = 599: correct the loader, or [task.faces] in {file}.\n"
    code = "def load_blobs(): raise FileNotFoundError('faces.npy is not here')"  # nothing is wrong
    module = file.with_name("my_competition.py")
    model = module.read_text().partition("class BlobNet")
    module.write_text(f"{model[0].partition('def load_blobs')[0]}{code}\n\n\n{''.join(model[1:])}")
    assert main(command) == 0
    assert capsys.readouterr().err == "mico: Not checked: the data. faces.npy is not here.\n"


def test_a_release_of_another_competition_says_which_flag(tmp_path, capsys):
    (tmp_path / "faces" / "only" / "train" / "model_5").mkdir(parents=True)
    (tmp_path / "faces.release").mkdir()
    (tmp_path / "faces.release" / "competition.toml").write_text("broken [ and never read")
    assert main(["attack", str(tmp_path / "faces")]) == 1
    said = capsys.readouterr().err
    assert "faces.release/competition.toml" in said and "--competition competition.toml" in said
    assert "That file names code" in said


def test_an_unknown_scenario_is_told_of_the_file(tmp_path):
    file = write_own(tmp_path, {"only": {}})
    with using(file), pytest.raises(ValueError, match="choose one of only of .*competition.toml"):
        get_scenario("cifar10_lo")
    with pytest.raises(ValueError, match="or name the competition that has it"):
        get_scenario("only")


def test_a_changed_file_in_a_release_is_a_leak(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "trained" / "digits")
    text = (files("mico_competition.competition") / "digits.toml").read_text(encoding="utf-8")
    file = tmp_path / "own.toml"
    file.write_text(text, encoding="utf-8")
    roots = tmp_path / "released", tmp_path / "trained"
    with using(file):
        release(roots[1], "digits", roots[0])
        assert check_release(*roots, ["digits"]) == []
        carried = roots[0] / "digits.release" / "competition.toml"
        assert carried.read_text(encoding="utf-8") == text
        carried.write_text(f"{text}# 0123\n", encoding="utf-8")
        found = check_release(*roots, ["digits"])
        assert any("is not the file of the competition in use" in fault for fault in found)
        carried.unlink()
        found = check_release(*roots, ["digits"])
        assert any(fault.endswith("competition.toml: is missing.") for fault in found), found
    carried.write_text(text, encoding="utf-8")
    found = check_release(*roots, ["digits"])
    assert any("competition.toml: is not among what" in fault for fault in found), found


def test_init_refuses_to_overwrite_own(tmp_path, capsys):
    assert main(["init", str(tmp_path / "mine")]) == 0
    assert "competition.toml" in capsys.readouterr().out
    (tmp_path / "mine" / "competition.toml").unlink()
    assert main(["init", str(tmp_path / "mine")]) == 1
    assert "my_competition.py exists already" in capsys.readouterr().err
    assert not (tmp_path / "mine" / "competition.toml").exists()
