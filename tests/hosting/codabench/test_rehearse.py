"""The rehearsal: what the platform would do to a submission, in each phase, and its exit code."""

import csv
import json
import sys
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from helpers_bundle import (
    SCHEDULE,
    make_bundle,
    read_zip,
    spec_of,
    with_spec,
    write_files,
    write_submission,
    zipped,
)
from mico_competition.scoring import score
from mico_competition.scoring.coarse import coarse, to_step

from mico_competition.cli import main
from mico_competition.competition.layout import walk_challenge
from mico_competition.competition.submission import pack, write_prediction
from mico_competition.competition.table import CHALLENGES
from mico_competition.hosting.codabench.bundle import write_bundle, write_final_reference
from mico_competition.hosting.codabench.options import Options
from mico_competition.hosting.codabench.rehearse import rehearse
from mico_competition.hosting.codabench.rehearse_text import as_text

PYTHON37 = Path(__file__).resolve().parents[3] / ".venv-3.7" / "bin" / "python"
KEY = "average_TPR_FPR_1000"
DATES = ["--dev_start", "2027-01-01 00:00:00", "--final_start", "2027-03-01 12:00:00"]
DATES += ["--end", "2027-03-15 12:00:00"]


@pytest.fixture(scope="module")
def real(competition, tmp_path_factory):
    """A bundle, Final's reference and a submission, from models that were trained."""
    folder = tmp_path_factory.mktemp("real")
    released, predictions = competition.released / "cifar10", folder / "cifar10"
    rng = np.random.default_rng(0)
    for model in walk_challenge(released, phases=["dev", "final"]):
        write_prediction(model.prediction_in(predictions), rng.random(20))
    submission = pack(released, folder / "submission.zip", predictions)
    write_bundle(competition.trained, "cifar10", folder / "bundle.zip", SCHEDULE)
    write_final_reference(competition.trained, "cifar10", folder / "final.zip")
    return folder, submission, competition.trained / "cifar10", predictions


def read_line(path):
    return np.array([float(value) for value in next(csv.reader([path.read_text()]))])


def expected_scores(trained, predictions, phase):
    """The board's line, from the files and the scorer's own function."""
    row, ranked = {}, []
    for i, name in enumerate(CHALLENGES["cifar10"], start=1):
        places = sorted((trained / name / phase).iterdir())
        truth = np.concatenate([read_line(p / "solution.csv") for p in places])
        mine = predictions / name / phase
        values = np.concatenate([read_line(mine / p.name / "prediction.csv") for p in places])
        result = score(truth.astype(int), values)
        if phase == "dev":
            result = coarse(result, 0.005)
        ranked.append(result["TPR_FPR_1000"])
        row.update({f"scenario{i}_{key}": result[key] for key in result})
    average = float(np.mean(ranked))
    return {**row, KEY: to_step(average, 0.005) if phase == "dev" else average}


def check_scores(run, expected):
    assert len(run.columns) == 19 and run.complete
    for column in run.columns:
        kept = Decimal(repr(expected[column.key])).quantize(Decimal("1e-10"))
        assert run.outcome.scores[column.key] == kept


def test_both_phases_of_a_real_competition(real):
    folder, submission, trained, predictions = real
    rehearsal = rehearse(folder / "bundle.zip", submission, final_reference=folder / "final.zip")
    assert rehearsal.faults == [] and rehearsal.sound
    dev, final = rehearsal.phases
    check_scores(dev, expected_scores(trained, predictions, "dev"))
    check_scores(final, expected_scores(trained, predictions, "final"))
    assert final.migration == "It is on the leaderboard of Development and is copied here."
    assert dev.outcome.stderr == "" and not final.closed


def test_the_placeholder_scores_nobody(real):
    folder, submission, *_ = real
    rehearsal = rehearse(folder / "bundle.zip", submission)
    dev, final = rehearsal.phases
    assert rehearsal.sound and dev.complete
    assert final.closed and final.outcome.status == "Failed" and not final.outcome.scores
    assert final.outcome.stderr.count("\n") == 1
    assert final.outcome.stderr.startswith("Not scored: Final is not open yet")
    assert "scores nobody, as intended" in as_text(rehearsal)


def test_the_placeholder_does_not_do_where_the_truth_was_promised(real, tmp_path):
    folder, submission, *_ = real
    placeholder = tmp_path / "final.zip"
    placeholder.write_bytes(read_zip(folder / "bundle.zip")["reference_data_final.zip"])
    rehearsal = rehearse(folder / "bundle.zip", submission, final_reference=placeholder)
    assert not rehearsal.sound and not rehearsal.phases[1].closed


@pytest.mark.slow
def test_codalabs_form_is_scored_by_codalabs_rules(real, competition, tmp_path):
    folder, submission, trained, predictions = real
    bundle = tmp_path / "bundle.zip"
    write_bundle(competition.trained, "cifar10", bundle, SCHEDULE, Options("codalab"))
    rehearsal = rehearse(bundle, submission, final_reference=folder / "final.zip")
    assert rehearsal.sound
    for run, phase in zip(rehearsal.phases, ("dev", "final")):
        check_scores(run, expected_scores(trained, predictions, phase))


@pytest.mark.slow
@pytest.mark.skipif(not PYTHON37.is_file(), reason="no .venv-3.7 here")
def test_the_oldest_image_gives_the_same_line(real):
    folder, submission, *_ = real
    today = rehearse(folder / "bundle.zip", submission)
    oldest = rehearse(folder / "bundle.zip", submission, python=PYTHON37)
    assert oldest.sound
    assert oldest.phases[0].outcome.scores == today.phases[0].outcome.scores


@pytest.mark.slow
def test_the_command_line(real, competition, tmp_path, capsys):
    folder, submission, *_ = real
    line = ["rehearse", str(folder / "bundle.zip"), str(submission)]
    assert main([*line, "--out", str(tmp_path / "kept")]) == 0
    shown = capsys.readouterr().out
    assert "The bundle has no faults." in shown
    assert "Average TPR at 10% FPR  (ranks)" in shown and shown.count("High ε = 10: ") == 6
    assert "== Final: Failed" in shown and f"in {tmp_path / 'kept' / 'phase_1'}" in shown
    kept = json.loads((tmp_path / "kept" / "phase_1" / "scores.json").read_text())
    assert f"{kept[KEY]:.4f}  Average TPR at 10% FPR" in shown
    assert (tmp_path / "kept" / "phase_1" / "detailed_results.html").is_file()
    assert main([*line, "--out", str(tmp_path / "kept")]) == 1
    assert "exists already" in capsys.readouterr().err
    assert main([*line, "--final_reference", str(folder / "final.zip")]) == 0
    assert main([*line[:2], str(tmp_path / "none.zip")]) == 1
    assert "There is no file" in capsys.readouterr().err


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A bundle of the digits without trained models, its files, and a good submission."""
    folder = tmp_path_factory.mktemp("small")
    path, root = make_bundle(folder)
    write_submission(folder / "good.zip", root, "digits")
    return folder, read_zip(path), root


def submit(small, files):
    """Rehearse the good bundle with a submission of `files`: the run of Development."""
    folder, *_ = small
    write_files(folder / "tried.zip", files)
    return rehearse(folder / "bundle.zip", folder / "tried.zip")


def test_a_faulty_submission_is_turned_away_with_its_faults(small):
    folder, *_ = small
    files = read_zip(folder / "good.zip")
    place = "digits/digits_hi/dev/model_100/prediction.csv"
    rehearsal = submit(small, {**files, place: "0.5,0.5"})
    dev, final = rehearsal.phases
    assert not rehearsal.sound and dev.outcome.status == "Failed" and not dev.outcome.scores
    assert f"- {place} holds 2 values" in dev.outcome.stderr
    assert "not on the leaderboard of Development" in final.migration
    assert "Participants see on stderr" in as_text(rehearsal)


@pytest.mark.slow
def test_what_final_hides_in_its_logs_is_on_its_page(small, tmp_path):
    """Codabench keeps both logs of a phase with hide_output; legacy CodaLab's keeps stdout."""
    folder, _, root = small
    rehearsal = rehearse(folder / "bundle.zip", folder / "good.zip", out=tmp_path / "kept")
    dev, final = rehearsal.phases
    assert (dev.hidden, final.hidden) == ((), ("stdout", "stderr"))
    text = as_text(rehearsal)
    assert "Participants see on stdout:\n  | Scored" in text
    assert "The phase hides stderr from participants. It says:\n  | Not scored: Final" in text
    page = (tmp_path / "kept" / "phase_2" / "detailed_results.html").read_text()
    assert "Not scored" in page and "Final is not open yet" in page
    write_bundle(root, "digits", tmp_path / "legacy.zip", SCHEDULE, Options("codalab"))
    legacy = rehearse(tmp_path / "legacy.zip", folder / "good.zip")
    assert [run.hidden for run in legacy.phases] == [(), ("stdout",)]


def test_what_zips_bring_along_does_no_harm(small):
    """The worker adds a file `metadata` to the submission's tree as well."""
    folder, *_ = small
    stray = {"__MACOSX/x": "", ".DS_Store": "x", "digits/.DS_Store": "x", "readme.txt": "x"}
    assert submit(small, {**read_zip(folder / "good.zip"), **stray}).sound


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"no zip", "Bad or empty zip file"),
        (b"", "Bad or empty zip file"),
        (zipped({}), "Bad or empty zip file: it holds no file"),
        (zipped({"metadata": "command: ls"}), "its metadata makes the submission a program"),
        (zipped({"metadata.yaml": "x"}), "its metadata.yaml makes the submission a program"),
    ],
)
def test_zips_that_are_no_submission(small, content, words):
    folder, *_ = small
    (folder / "tried.zip").write_bytes(content)
    rehearsal = rehearse(folder / "bundle.zip", folder / "tried.zip")
    assert not rehearsal.sound
    assert words in rehearsal.phases[0].outcome.words


def perform(small, tmp_path, script, *, change=None, command=None, program=None, seconds=600):
    """Rehearse a bundle with another scoring program: a script that writes to its last argument."""
    folder, files, _ = small
    program = program or {
        "metadata": f"command: {command or 'python3 $program/go.py $input $output'}\n",
        "go.py": f"import sys\nout = sys.argv[-1]\n{script}\n",
    }
    spec = spec_of(files)
    for phase in spec["phases"]:
        phase["execution_time_limit"] = seconds
    spec["phases"] = spec["phases"][:1]
    if change:
        change(spec)
    files = {**with_spec(files, spec), "scoring_program.zip": zipped(program)}
    write_files(tmp_path / "bundle.zip", files)
    return rehearse(tmp_path / "bundle.zip", folder / "good.zip")


def save(text, name="scores.json"):
    return f"open(out + '/{name}', 'w').write({text!r})"


ROW = json.dumps({KEY: 0.25})


@pytest.mark.parametrize(
    ("script", "status", "words"),
    [
        ("sys.exit(3)", "Failed", "exit code 3; scores are not read"),
        (save(ROW) + "; sys.exit(1)", "Failed", "exit code 1; scores are not read"),
        ("import os; os.kill(os.getpid(), 9)", "Failed", "exit code -9"),
        ("raise KeyError('x')", "Failed", "exit code 1"),
        ("pass", "Failed", "Could not find scores file, did the scoring program output it?"),
        (save(ROW, "Scores.json"), "Failed", "Could not find scores file"),
        (save("{'a': 1}"), "Failed", "Could not decode scores json properly"),
        (save(ROW) + ";" + save("x", "metadata"), "Failed", "already contains a metadata file"),
        (save(f'{{"{KEY}": NaN}}'), "Finished", "NaN and infinity cannot be posted"),
        (save(f'{{"{KEY}": -Infinity}}'), "Finished", "NaN and infinity cannot be posted"),
        (save("null"), "Finished", "no mapping, but NoneType"),
        (save("[0.5]"), "Finished", "no mapping, but list"),
        (save(""), "Failed", "Could not decode scores json properly"),
        (save("", "scores.txt"), "Finished", "no mapping, but NoneType"),
        (save(f"{KEY}:0.5", "scores.txt"), "Finished", "no mapping, but str"),
        (save(f"{KEY}: .nan", "scores.txt"), "Finished", "NaN and infinity"),
        (save(f"{KEY}: tensor(0.5)", "scores.txt"), "Finished", f"{KEY} is no number"),
        (save(f"{KEY}: 1e99", "scores.txt"), "Finished", f"{KEY} is no number"),
        (save(f"{KEY}: [0.5]", "scores.txt"), "Finished", f"{KEY} is no number"),
        (save(f"a: *b\n{KEY}: 1", "scores.txt"), "Finished", "cannot be read"),
        (save(f'{{"scores": {ROW}}}'), "Finished", "n/a in 19 of 19 columns"),
        (save(json.dumps({"other": 1})), "Finished", "n/a in 19 of 19 columns"),
        (save(ROW), "Finished", "n/a in 18 of 19 columns"),
    ],
)
def test_programs_that_do_not_score(small, tmp_path, script, status, words):
    rehearsal = perform(small, tmp_path, script)
    (run,) = rehearsal.phases
    assert (run.outcome.status, run.complete, rehearsal.sound) == (status, False, False)
    assert words in run.outcome.words
    assert words in as_text(rehearsal)


def test_scores_are_kept_as_the_site_keeps_them(small, tmp_path):
    values = {KEY: 1e-12, "scenario1_AUC": 0.123456789012, "unknown": 3}
    text = "".join(f"{key}: {value}\n" for key, value in values.items())
    (run,) = perform(small, tmp_path, save(text, "scores.txt")).phases
    assert run.outcome.scores == {KEY: 0, "scenario1_AUC": Decimal("0.1234567890")}
    both = f"{save('{}')}; {save(text, 'scores.txt')}"
    (run,) = perform(small, tmp_path, both).phases
    assert run.outcome.scores == {}, "scores.json goes before scores.txt"


@pytest.mark.slow
def test_the_time_limit_holds(small, tmp_path):
    script = "print('before', flush=True); import time; time.sleep(60)"
    (run,) = perform(small, tmp_path, script, seconds=1).phases
    assert run.outcome.words == "Execution Time Limit exceeded. Limit was 1 seconds"
    assert run.outcome.stdout == "before\n" and run.outcome.seconds < 20


def test_the_environment_is_a_clean_one(small, tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET_OF_MINE", "1")
    script = (
        "import os, json\n"
        "here = os.path.realpath('.') == os.path.dirname(os.path.realpath(__file__))\n"
        "app = os.path.dirname(out)\n"
        "tree = sorted(os.listdir(app + '/input')), sorted(os.listdir(app + '/input/res'))\n"
        "print(json.dumps([here, sorted(os.environ), tree, sys.argv[1:], sys.executable]))"
    )
    command = "python3 $program/go.py '$HOME a' $output"
    (run,) = perform(small, tmp_path, script, command=command).phases
    here, names, tree, arguments, executable = json.loads(run.outcome.stdout)
    assert here and "SECRET_OF_MINE" not in names and "PYTHONUNBUFFERED" in names
    assert tree == [["ref", "res"], ["digits", "metadata"]]
    assert arguments[0] == "$HOME a" and arguments[1].endswith("/app/output")
    assert executable == sys.executable


@pytest.mark.slow
def test_commands_as_the_worker_takes_them(small, tmp_path):
    go = f"import sys\n{save(ROW).replace('out', 'sys.argv[1]')}\n"
    for metadata, words in (
        ("command: sh -c 'python3 $program/go.py $output && true'\n", "n/a in 18"),
        ("command: python3 $program/go.py $tmp\n", "n/a in 18"),
        ("command: [python3, go.py]\n", "A list as command fails"),
        ("command: ./go.py $output\n", "Permission denied"),
        ("command: nothing-of-that-name\n", "No such file"),
        ("description: x\n", "Could not find scores file"),
        ("command: 'a\n", "Could not find scores file"),
    ):
        (run,) = perform(small, tmp_path, "", program={"metadata": metadata, "go.py": go}).phases
        assert words in run.outcome.words, metadata
    for program in ({"go.py": go}, {"folder/metadata": "command: python3 go.py", "go.py": go}):
        rehearsal = perform(small, tmp_path, "", program=program)
        assert "Could not find scores file" in rehearsal.phases[0].outcome.words
        assert not rehearsal.sound and "at its root" in rehearsal.faults[0].what


def test_any_page_at_the_top_of_the_output_is_shown(small, tmp_path):
    script = save("<p>", "scores.html")
    (run,) = perform(small, tmp_path, script).phases
    assert run.outcome.detailed.name == "scores.html"


def test_a_board_that_nothing_gets_onto_by_itself(small):
    folder, files, _ = small
    spec = spec_of(files)
    spec["leaderboards"][0]["submission_rule"] = "Add"
    write_files(folder / "add.zip", with_spec(files, spec))
    dev, final = rehearse(folder / "add.zip", folder / "good.zip").phases
    assert dev.complete and "Only what its owner puts on the leaderboard" in final.migration


def test_a_board_is_shown_in_its_own_order(small, tmp_path):
    def change(spec):
        spec["leaderboards"][0]["primary_index"] = 4

    (run,) = perform(small, tmp_path, save(ROW), change=change).phases
    assert [column.key for column in run.columns[:3]] == [
        *("scenario2_AUC", KEY, "scenario2_TPR_FPR_1000")
    ]


def test_a_bundle_that_cannot_be_read_is_not_played(small):
    folder, *_ = small
    for i, broken in enumerate((b"no zip", zipped({}), zipped({"competition.yaml": "version: 2"}))):
        (folder / f"broken_{i}.zip").write_bytes(broken)
        rehearsal = rehearse(folder / f"broken_{i}.zip", folder / "good.zip")
        assert rehearsal.phases == [] and rehearsal.faults and not rehearsal.sound
        assert "nothing was scored" in as_text(rehearsal)


@pytest.mark.slow
def test_codalab_reads_scores_txt_alone(small, tmp_path):
    files = read_zip(make_bundle(tmp_path, "digits", "codalab")[0])
    for text, words in (
        (f"{KEY}:0.5\n\n", ""),
        (f"{KEY}: 0.5: 1\n", "is not `label: number`"),
        (f"{KEY}: nan\n", "is not `label: number`"),
        (None, "There is no scores.txt"),
    ):
        lines = ["import sys", save(ROW).replace("out", "sys.argv[-1]")]
        lines += [save(text, "scores.txt").replace("out", "sys.argv[-1]")] if text else []
        program = {"metadata": "command: python3 $program/go.py $output", "go.py": "\n".join(lines)}
        write_files(tmp_path / "b.zip", {**files, "scoring_program.zip": zipped(program)})
        run = rehearse(tmp_path / "b.zip", small[0] / "good.zip").phases[0]
        assert words in run.outcome.words
        assert run.outcome.scores == ({} if words else {KEY: Decimal("0.5")})
