"""The platform's program `score.py IN OUT`, run as the platforms run it."""

import re

import numpy as np
import pytest
from helpers_score_program import check_outputs, check_page, faults_of, run_here
from helpers_scoring import OUTPUTS, SCENARIOS, SCORING, Competition
from mico_competition.scoring import program
from mico_competition.scoring.reading import read_values


@pytest.fixture
def competition(tmp_path):
    return Competition(tmp_path)


@pytest.mark.parametrize("phase", ["dev", "final"])
def test_a_sound_submission_is_scored(tmp_path, phase):
    competition = Competition(tmp_path, phase)
    done = competition.run()
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert re.fullmatch(r"Scored [0-9]+ models in 3 scenarios\.\n", done.stdout)
    check_outputs(competition)
    page = (competition.outputs / "detailed_results.html").read_text(encoding="utf-8")
    assert all(scenario in page for scenario in SCENARIOS)


def test_metadata_holds_the_command_that_works_on_both_platforms():
    lines = (SCORING / "metadata").read_text().splitlines()
    assert "command: python3 $program/score.py $input $output" in lines


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_wrong_call_says_how_to_call(capsys, count):
    assert program.main(["x"] * count) == 2
    assert capsys.readouterr().err.startswith("usage: score.py IN OUT")


def test_a_missing_folder_is_named_and_no_other_is_made(tmp_path, capsys):
    told = "Not scored: There is no folder nosuch.\n"
    out = tmp_path / "out"
    assert program.main(["nosuch", str(out)]) == 1
    assert capsys.readouterr().err == told and not out.exists()
    out.mkdir()  # as a platform does, which shows the page
    assert program.main(["nosuch", str(out)]) == 1
    assert capsys.readouterr().err == told
    assert [path.name for path in out.iterdir()] == [program.PAGE]


@pytest.mark.parametrize("value", [0.0, 1.0, 0.1, 1e-5, 4e-8, 1 / 3, np.float64(2e-7), 5e-324])
def test_scores_are_plain_decimals_that_read_back(value):
    text = program.plain_decimal(value)
    assert re.fullmatch(r"[0-9]+\.[0-9]+", text) and float(text) == value


def test_stray_files_and_other_phases_are_ignored(competition):
    res = competition.res
    (res.parent / "metadata").write_text("elapsedTime: 0.1\n")  # the worker's own
    for folder in (res.parent, res, res / "cifar10_hi", competition.prediction().parent):
        (folder / ".DS_Store").write_bytes(b"\0\1")
        (folder / "__MACOSX").mkdir()
        (folder / "._prediction.csv").write_text("x")
    for folder in (competition.ref.parent, competition.ref, competition.solution().parent):
        (folder / ".DS_Store").write_bytes(b"\0\1")
    (competition.ref.parent / "metadata").write_text("x")
    competition.prediction(phase="final", i=150).write_text("this phase is not scored")
    done = competition.run()
    assert (done.returncode, done.stderr) == (0, "")
    check_outputs(competition)


@pytest.mark.parametrize(
    "dress",
    [
        lambda line: "\ufeff" + line,
        lambda line: line + "\r\n",
        lambda line: line + ",\n",
        lambda line: "\n " + line.replace(",", " , ") + " \n\n",
        lambda line: ",".join(f"{float(x):.18e}" for x in line.split(",")),
    ],
)
def test_harmless_ways_to_write_a_line_are_read(tmp_path, dress):
    path = tmp_path / "prediction.csv"
    path.write_bytes(dress("0.25,1,0,.5,1e-3").encode())
    values, faults = read_values(str(path), 5)
    assert faults == [] and values.tolist() == [0.25, 1, 0, 0.5, 0.001]


def test_a_failed_run_leaves_no_scores_of_an_earlier_one(competition, capsys):
    assert run_here(competition, capsys)[0] == 0
    assert competition.written() == OUTPUTS
    competition.prediction().unlink()
    assert len(faults_of(competition, capsys)) == 1  # and nothing in OUT


def test_a_run_that_stops_while_writing_leaves_nothing(competition, capsys, monkeypatch):
    def fail(*args, **options):
        raise OSError("disk full, and 0,1,1,0")

    monkeypatch.setattr(program.json, "dumps", fail)
    code, out, err = run_here(competition, capsys)
    assert (code, out, competition.written()) == (1, "", [program.PAGE])
    check_page(competition, err)
    assert re.fullmatch(r"Not scored: OSError in \S+, line [0-9]+\. Please .*\n", err)


def test_the_page_is_never_missing_and_never_old(competition, capsys, monkeypatch):
    """Legacy CodaLab makes an empty page before the program starts, and fails without one."""
    competition.outputs.mkdir()
    page = competition.outputs / program.PAGE
    page.touch()
    seen = []

    def watch(*args):
        seen.append(page.read_text())
        return {}, ["a fault"]

    monkeypatch.setattr(program, "check_predictions", watch)
    assert run_here(competition, capsys)[0] == 1
    assert "did not come to its end" in seen[0] and "a fault" in page.read_text()


def test_a_phase_that_is_not_open_says_so_on_the_page(competition, capsys):
    (competition.ref.parent / "not_open_yet.txt").write_text("Final opens\non <Monday>.\n")
    assert faults_of(competition, capsys) == []
    page = (competition.outputs / program.PAGE).read_text()
    assert "Final opens on &lt;Monday&gt;." in page


def test_nothing_of_the_truth_is_printed(competition):
    marks = ("0.123456", "1,0,1,1")
    competition.solution().write_text("0.123456,1,0,1,1,oops\n")
    done = competition.run()
    assert done.returncode == 1 and competition.written() == [program.PAGE]
    assert "the competition's own data has faults (1)" in done.stderr
    assert "cifar10/cifar10_hi/dev/model_100/solution.csv cannot be used" in done.stderr
    page = (competition.outputs / program.PAGE).read_text(encoding="utf-8")
    for mark in (*marks, "oops"):
        assert mark not in done.stdout + done.stderr + page.partition("<main>")[2]


def test_no_array_is_printed_and_no_record_is_on_the_page(competition):
    done = competition.run()
    assert len(done.stdout) < 100 and "[" not in done.stdout and done.stderr == ""
    page = (competition.outputs / "detailed_results.html").read_text(encoding="utf-8")
    for path in competition.inputs.rglob("*.csv"):
        assert path.read_text().strip() not in page
