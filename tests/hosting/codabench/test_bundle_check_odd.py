"""The linter as a whole: all faults at once, none where there is none, and nothing trips it."""

import datetime
import json

import pytest
import yaml
from helpers_breaks import COLUMN, UUID, both, command, drop, edit, find, program, put, yaml_as
from helpers_bundle import spec_of, with_values, write_files, zipped

from mico_competition.cli import main
from mico_competition.hosting.codabench.check import check_bundle
from mico_competition.hosting.codabench.files import Archive
from mico_competition.hosting.codabench.rules.version2 import version2_rules
from mico_competition.hosting.codabench.rules.version15 import version15_rules


@pytest.mark.slow
def test_all_faults_at_once(good, tmp_path, capsys):
    change = both(
        drop("image"),
        edit("terms", to="no.md"),
        edit("phases", 0, "tasks", to=[7]),
        edit(*COLUMN, 4, "sorting", to="down"),
        edit("leaderboards", 0, "submission_rule", to="Force Last"),
        edit("colour", to="red"),
        program(metadata=None),
    )
    path = write_files(tmp_path / "bundle.zip", change(good["codabench"]))
    faults = check_bundle(path)
    assert len(faults) == 8, "the program without metadata is used by two tasks"
    assert main(["bundle", "--check", str(path)]) == 1
    shown = capsys.readouterr()
    assert len(shown.err.splitlines()) == 8 and "8 faults" in shown.out
    assert "error: image: The platform says" in shown.err


def test_warnings_alone_do_not_fail_the_check(good, tmp_path, capsys):
    path = write_files(tmp_path / "b.zip", edit("colour", to="red")(good["codabench"]))
    assert main(["bundle", "--check", str(path)]) == 0
    assert "warning: colour" in capsys.readouterr().err


@pytest.mark.parametrize(
    "change",
    [
        edit("tasks", 0, "reference_data", to=UUID),
        edit("tasks", 1, to={"index": 1, "key": UUID}),
        drop("phases", 1, "end"),
        edit("phases", 0, "start", to="2026-01-01T00:00:00Z"),
        edit("phases", 0, "start", to=datetime.date(2026, 1, 1)),
        edit("phases", 0, "max_submissions", to="12"),
        edit("leaderboards", 0, "primary_index", to=3),
        edit("leaderboards", 0, "submission_rule", to="Force_Best"),
        edit("pages", to=[]),
        edit("image", to="./logo.png"),
        command("sh -c 'python3 $program/score.py $input $output && true'"),
        program(**{"metadata.yaml": "command: python3 $program/score.py $input $output\n"}),
        put("logo.png", b"GIF89a..."),
    ],
)
def test_what_is_sound_as_well(good, tmp_path, change):
    path = write_files(tmp_path / "bundle.zip", change(good["codabench"]))
    assert [str(fault) for fault in check_bundle(path)] == []


def test_files_that_are_no_bundle(tmp_path):
    (tmp_path / "b.zip").write_bytes(b"no zip")
    (fault,) = check_bundle(tmp_path / "b.zip")
    assert "Bad zip file uploaded." in fault.what
    with pytest.raises(ValueError, match="There is no file"):
        check_bundle(tmp_path / "none.zip")
    with pytest.raises(ValueError, match="Expected platform as one of codabench, codalab"):
        check_bundle(tmp_path / "b.zip", "kaggle")


@pytest.mark.slow
def test_no_value_makes_the_linter_stumble(good, tmp_path):
    """Each part of competition.yaml replaced by each kind of value: faults, never a traceback."""
    odd = [None, -1, "x", [], [None], {"a": 1}, datetime.date(2027, 1, 1)]
    files = good["codabench"]
    # An empty program keeps this quick: its zip is read for every one of some 500 bundles.
    files = {**files, "scoring_program.zip": zipped({"metadata": "command: python3 x"})}
    spec = spec_of(files)
    del spec["leaderboards"][0]["columns"][2:]
    del spec["pages"][1:]
    archive = Archive(zipped(files), "bundle")
    count = 0
    for broken in with_values(spec, odd):
        list(version2_rules(broken, archive))
        count += 1
    assert count > 450
    spec = spec_of(good["codalab"])
    archive = Archive(zipped({**files, **good["codalab"]}), "bundle")
    for key in list(spec["leaderboard"]["columns"])[2:]:
        del spec["leaderboard"]["columns"][key]
    spec = json.loads(json.dumps(spec))  # what anchors share becomes separate
    for broken in with_values(spec, odd):
        list(version15_rules(broken, archive))


def test_a_yaml_of_aliases_costs_nothing(good, tmp_path):
    lines = ["a0: &a0 [x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 40)]
    bomb = "\n".join([*lines, "version: 2", "title: *a39", "pages: *a39"])
    assert yaml.safe_load(bomb)
    path = write_files(tmp_path / "b.zip", yaml_as(bomb)(good["codabench"]))
    faults = check_bundle(path)
    assert find(faults, "error", "title", "Not a valid string")
    assert max(len(str(fault)) for fault in faults) < 1000


def test_large_members_are_not_read(good, tmp_path, monkeypatch):
    monkeypatch.setattr("mico_competition.hosting.codabench.rules.files._LARGE", 1000)
    path = write_files(tmp_path / "b.zip", good["codabench"])
    assert find(check_bundle(path), "warning", "tasks[0].scoring_program", "have often failed")
    monkeypatch.setattr("mico_competition.hosting.codabench.check.MAX_TEXT", 100)
    (fault,) = check_bundle(path)
    assert "larger than 100 bytes" in fault.what
