"""The demonstration runs from splits to report; its scores are those of the scoring program."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from helpers_extras import run_without_extras
from sklearn.metrics import roc_auc_score

from mico_competition.demo import _runs, run_demo


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo") / "josé's, in\ntwo lines" / "out"
    return out, run_demo(out, models_per_phase=4, workers=2)


@pytest.mark.slow
def test_a_seed_repeats_all_scores_whatever_the_workers(tmp_path):
    tables = []
    for name, seed, workers in (("a", 3, 1), ("b", 3, 2), ("c", 4, 2)):
        run_demo(tmp_path / name, models_per_phase=1, workers=workers, seed=seed)
        tables.append(json.loads((tmp_path / name / "summary.json").read_text())["rows"])
    assert tables[0] == tables[1] != tables[2]
    with pytest.raises(ValueError, match="seed=-1 >= 0"):
        run_demo(tmp_path / "d", models_per_phase=1, seed=-1)


def test_without_a_seed_nothing_is_repeated():
    first, second = (_runs(Path("out"), "digits_lo", 2, None) for _ in range(2))
    assert all(run.train_seed is None for run in first)
    assert {run.seeds.challenge for run in first}.isdisjoint(r.seeds.challenge for r in second)
    known = _runs(Path("out"), "digits_lo", 2, 7) + _runs(Path("out"), "digits_hi", 2, 7)
    assert len({run.seeds.membership for run in known}) == len(known)


@pytest.mark.slow
def test_the_report_opens_offline(demo):
    text = demo[1].read_text()
    assert text.startswith("<!DOCTYPE html>")
    assert text.count("<svg") >= 3
    assert "http://" not in text.replace("http://www.w3.org", "") and "https://" not in text
    places = [text.index(word) for word in ("No DP", "High ε = 10", "Low ε = 4")]
    assert places == sorted(places), "no privacy first, then by falling epsilon"
    for name in ("digits_hi", "digits_inf", "digits_lo"):
        assert name in text
    rows = json.loads((demo[0] / "summary.json").read_text())["rows"]
    assert [row["scenario"] for row in rows] == ["digits_inf", "digits_hi", "digits_lo"]


@pytest.mark.slow
def test_no_privacy_leaks_and_privacy_leaks_less(demo):
    """AUC over 4 models x 200 points has a standard error near 0.02; the gap is about 0.2."""
    scores = json.loads((demo[0] / "score_final/output/scores.json").read_text())
    assert scores["scenario2_AUC"] > 0.68, "no DP"
    assert scores["scenario1_AUC"] < scores["scenario2_AUC"] - 0.07, "epsilon 10"
    assert scores["scenario3_AUC"] < scores["scenario2_AUC"] - 0.07, "epsilon 4"


@pytest.mark.slow
def test_the_core_install_is_enough_to_evaluate_score_audit_and_download(demo, tmp_path):
    folder, report = str(demo[0] / "released" / "digits"), str(tmp_path / "report.html")
    predictions = ["--predictions", str(tmp_path / "predictions" / "digits")]
    finished = run_without_extras(
        "from mico_competition.cli import main;"
        f"codes = [main(['attack', 'winner-2023', {folder!r}, *{predictions!r}]),"
        f"main(['score', {folder!r}, *{predictions!r}, '--html', {report!r}]),"
        f"main(['evaluate', {folder!r}, '--attack', 'eb', '--scenario', 'digits_lo']),"
        f"main(['audit', {folder!r}, '--attack', 'threshold', '--scenario', 'digits_lo'])];"
        "import mico_competition.hosting.hub.download, huggingface_hub;"
        "print(codes)"
    )
    assert finished.stdout.splitlines()[-1] == "[0, 0, 0, 0]", finished.stderr


@pytest.mark.slow
def test_scores_are_of_what_the_models_say(demo):
    """The final AUC from the organiser's solutions and the predictions, by sklearn."""
    out = demo[0]
    truth, values = [], []
    for path in sorted((out / "trained/digits/digits_inf/final").iterdir()):
        truth.extend(np.loadtxt(path / "solution.csv", delimiter=","))
        mine = out / "predictions/digits/digits_inf/final" / path.name / "prediction.csv"
        values.extend(np.loadtxt(mine, delimiter=","))
    scores = json.loads((out / "score_final/output/scores.json").read_text())
    assert scores["scenario2_AUC"] == pytest.approx(roc_auc_score(truth, values))


def test_only_its_own_leavings_are_replaced(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds other things"):
        run_demo(tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "mine"


@pytest.mark.slow
def test_a_demonstration_is_alone_in_its_folder(tmp_path, monkeypatch):
    tried = []

    def another(*args):
        kept = tmp_path / "trained" / "model"
        kept.parent.mkdir()
        kept.write_text("of the first")
        with pytest.raises(ValueError, match="Another demonstration is running in"):
            run_demo(tmp_path, models_per_phase=1)
        tried.append(kept.read_text())
        raise KeyboardInterrupt

    monkeypatch.setattr("mico_competition.demo._train_all", another)
    for _ in range(2):  # one that was stopped is replaced
        with pytest.raises(KeyboardInterrupt):
            run_demo(tmp_path, models_per_phase=1)
    assert tried == ["of the first"] * 2


def test_what_no_demonstration_wrote_is_kept(tmp_path, monkeypatch):
    def stopped(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("mico_competition.demo._train_all", stopped)
    with pytest.raises(KeyboardInterrupt):
        run_demo(tmp_path, models_per_phase=1)
    mine = tmp_path / "my_notes.txt"
    mine.write_text("mine")
    with pytest.raises(ValueError, match=r"holds my_notes\.txt, which no demonstration wrote"):
        run_demo(tmp_path, models_per_phase=1)
    assert mine.read_text() == "mine"


def test_the_number_of_models_has_bounds(tmp_path):
    for count in (0, 51):
        with pytest.raises(ValueError, match=f"models={count} <= 50"):
            run_demo(tmp_path / "demo", models_per_phase=count)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_demonstration_ends_at_once_with_one_sentence(tmp_path, number):
    """And so do its workers, of whose training nothing half-written is kept."""
    command = [sys.executable, "-m", "mico_competition.cli", "demo", "--out", "out", "--quiet"]
    process = subprocess.Popen(
        [*command, "--workers", "1"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        while not list(tmp_path.glob("out/trained/digits/*/train")):
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.1)
        os.kill(process.pid, number)
        errors = process.communicate(timeout=600)[1]
    finally:
        process.kill()
    # Python ends by SIGINT itself, which shells call 130, too, where it came within an exec().
    assert process.returncode in (128 + number, -number)
    assert errors == "mico: stopped; nothing half-written was kept.\n"
    with pytest.raises(ProcessLookupError):  # the group is empty soon: no worker is left
        for _ in range(600):
            os.killpg(process.pid, 0)
            time.sleep(0.1)
