"""What a run tells while it trains: its position and speed, and no loss of a private run."""

import json
import stat
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from helpers_data import blobs
from helpers_resume import Killed, place, run, small_settings, stop_after

from mico_competition.cli import main
from mico_competition.competition.splits import Seeds
from mico_competition.training import run_report as module
from mico_competition.training.private_checks import PrivacyChecks
from mico_competition.training.run_report import Reports, RunReport
from mico_competition.training.settings import resolve
from mico_competition.training.trackers import open_tracker
from mico_competition.training.train_many import Run, train_many


@pytest.fixture(autouse=True)
def sound(monkeypatch):
    """These models are sound; the checks before a first step have tests of their own."""
    monkeypatch.setattr(PrivacyChecks, "_check", lambda *_: None)
    monkeypatch.setattr(module, "_FIRST_SECONDS", 0.0)


class Log:
    """A tracker that keeps what it gets."""

    def __init__(self):
        self.rows, self.closed = [], False

    def log(self, values, step):
        self.rows.append((step, dict(values)))

    def close(self):
        self.closed = True


def reported(tmp_path, scenario, **options):
    """The last file of a run, and what its tracker got."""
    settings, log = small_settings(tmp_path, "purchase100", scenario, train_seed=7), Log()
    report = RunReport(settings, path=tmp_path / "now.json", tracker=log, seconds=1e-9)
    run(tmp_path / "model", settings, report=report, **options)
    return json.loads((tmp_path / "now.json").read_text()), log


def test_a_plain_run_tells_its_loss(tmp_path):
    values, log = reported(tmp_path, "inf")
    assert (values["epoch"], values["step"]) == (3, 12)
    assert 0 < values["loss"] < 10 and values["steps_per_second"] > 0
    assert stat.S_IMODE((tmp_path / "now.json").stat().st_mode) == 0o600
    assert [step for step, _ in log.rows] == [*range(1, 13), 12]
    assert log.rows[1][1]["training_loss"] == pytest.approx(4.6, abs=0.5)  # of 100 classes
    assert log.rows[1][1]["epoch"] == 0.5
    assert set(log.rows[-1][1]) == {"evaluation_accuracy", "evaluation_loss"} and log.closed


def test_a_private_run_tells_no_training_loss(tmp_path):
    values, log = reported(tmp_path, "lo")
    assert values["loss"] is None and values["step"] == 12
    assert not any("training_loss" in row for _, row in log.rows)
    assert log.rows[-1][1]["epsilon"] > 0


def test_reports_do_not_change_the_run(tmp_path):
    settings = small_settings(tmp_path, "purchase100", "inf", train_seed=7)
    run(tmp_path / "whole", settings)
    reported(tmp_path, "inf")
    whole, told = (tmp_path / name / "model.pt" for name in ("whole", "model"))
    assert whole.read_bytes() == told.read_bytes()


def test_a_resumed_run_counts_the_speed_of_this_process_only(tmp_path, monkeypatch):
    settings = small_settings(tmp_path, "purchase100", "inf", train_seed=7)
    with pytest.raises(Killed):
        checkpoint = place(tmp_path / "model")
        run(tmp_path / "model", settings, checkpoint=checkpoint, progress=stop_after(9))
    report = RunReport(settings, tracker=(log := Log()), seconds=1e-9)
    started: list[int] = []
    begin = report.start

    def start(steps):
        started.append(steps)
        begin(steps)

    monkeypatch.setattr(report, "start", start)
    run(tmp_path / "model", settings, checkpoint=place(tmp_path / "model"), report=report)
    assert started == [8] and log.rows[0][0] == 9


def test_it_is_written_every_few_seconds_only(tmp_path, monkeypatch):
    settings = small_settings(tmp_path, "purchase100", "inf")
    written = []
    monkeypatch.setattr(module, "write_text", lambda *a, **k: written.append(a))
    run(tmp_path / "model", settings, report=RunReport(settings, path=tmp_path / "now.json"))
    assert len(written) == 1  # the first; five seconds were not over


def test_models_of_a_stack_tell_their_own_losses(tmp_path):
    settings = resolve({"scenario": "digits_inf", "num_epochs": 2})
    runs = []
    for i in range(3):
        seeds = Seeds(*(bytes([3 * i + k] * 16) for k in range(3)))
        report = RunReport(settings, path=tmp_path / f"{i}.json", seconds=1e-9)
        runs.append(Run(seeds, tmp_path / f"model_{i}", i, i, report=report))
    list(train_many(settings, blobs(1797), runs, stack=3, progress=False))
    found = [json.loads((tmp_path / f"{i}.json").read_text()) for i in range(3)]
    assert len({values["loss"] for values in found}) == 3
    assert {values["step"] for values in found} == {settings.num_steps}


def test_a_tracker_that_fails_does_not_end_the_run(tmp_path, caplog):
    class Broken(Log):
        def log(self, values, step):
            raise RuntimeError("the server is gone")

    settings = small_settings(tmp_path, "purchase100", "inf")
    run(tmp_path / "model", settings, report=RunReport(settings, tracker=Broken(), seconds=1e-9))
    assert caplog.text.count("tracked no longer: the server is gone") == 1


def test_a_missing_tracker_is_named_with_its_command(tmp_path, monkeypatch, capsys):
    for kind, name in (("tensorboard", "torch.utils.tensorboard"), ("mlflow", "mlflow")):
        monkeypatch.setitem(sys.modules, name, None)
        out = str(tmp_path / "out")
        for verb in (["train", "--model_id", "0", "--output_dir", out, "--scenario"], ["fleet"]):
            more = ["--models", "0", "--out", out] if verb == ["fleet"] else []
            assert main([*verb, "digits_inf", *more, "--track", kind]) == 1
            error = capsys.readouterr().err
            assert f"--track {kind} needs the package {kind}" in error
            assert f"pip install {kind}" in error
    assert not (tmp_path / "out").exists()


def test_a_tracker_that_cannot_be_opened_or_closed_does_not_end_the_run(
    tmp_path, monkeypatch, caplog
):
    settings = small_settings(tmp_path, "purchase100", "inf")
    monkeypatch.setitem(sys.modules, "mlflow", None)
    tracker = open_tracker("mlflow", tmp_path, "model", settings)
    run(tmp_path / "one", settings, report=RunReport(settings, tracker=tracker))

    class Broken(Log):
        def close(self):
            raise RuntimeError("the disk is full")

    run(tmp_path / "two", settings, report=RunReport(settings, tracker=Broken()))
    assert caplog.text.count("tracked no longer: ") == 2 and "the disk is full" in caplog.text


def test_a_server_that_does_not_answer_is_noticed_before_the_run(tmp_path, monkeypatch, capsys):
    fake = ModuleType("mlflow")
    fake.get_tracking_uri = lambda: "http://nowhere:5000"

    def refuse(name):
        raise RuntimeError("Connection refused")

    fake.set_experiment = refuse
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    out = str(tmp_path / "out")
    words = ["fleet", "digits_inf", "--models", "0", "--out", out, "--track", "mlflow"]
    assert main(words) == 1
    error = capsys.readouterr().err
    assert "MLflow cannot write to http://nowhere:5000 (Connection refused). Set MLFLOW_TRACK" in (
        error
    )
    assert not (tmp_path / "out").exists()


def test_tensorboard_gets_the_numbers(tmp_path, monkeypatch):
    added = []

    class Writer:
        def __init__(self, folder):
            added.append(folder)

        def add_scalar(self, name, value, step):
            added.append((name, value, step))

        def close(self):
            added.append("closed")

    fake = ModuleType("torch.utils.tensorboard")
    fake.SummaryWriter = Writer
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", fake)
    tracker = open_tracker("tensorboard", tmp_path, "model_3", resolve({"scenario": "digits_inf"}))
    tracker.log({"epoch": 0.5}, 7)
    tracker.close()
    assert added == [str(tmp_path / "model_3"), ("epoch", 0.5, 7), "closed"]


def test_mlflow_gets_the_numbers_and_no_seed(tmp_path, monkeypatch):
    got = []

    class Client:
        def create_run(self, experiment_id, run_name):
            return SimpleNamespace(info=SimpleNamespace(run_id=f"{experiment_id}:{run_name}"))

        def log_param(self, run, name, value):
            got.append((run, name, value))

        def log_metric(self, run, name, value, step):
            got.append((run, name, value, step))

        def set_terminated(self, run):
            got.append((run, "ended"))

    fake = ModuleType("mlflow")
    fake.MlflowClient = Client
    fake.set_experiment = lambda name: SimpleNamespace(experiment_id=name)
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    settings = resolve({"scenario": "digits_inf", "train_seed": 31337})
    tracker = open_tracker("mlflow", tmp_path, "model_3", settings)
    tracker.log({"epoch": 0.5}, 7)
    tracker.close()
    run_id = "mico_competition:model_3"
    assert got[-2:] == [(run_id, "epoch", 0.5, 7), (run_id, "ended")]
    assert (run_id, "num_epochs", settings.num_epochs) in got
    assert "31337" not in str(got)


def test_the_total_of_no_report_is_never_read(tmp_path):
    """On a GPU it would wait for all steps."""
    settings = small_settings(tmp_path, "purchase100", "lo", train_seed=7)
    report = RunReport(settings, path=tmp_path / "now.json", seconds=1e-9)
    report.write(0, 1, torch.empty((), device="meta"))
    assert json.loads((tmp_path / "now.json").read_text())["loss"] is None


def test_the_totals_of_a_private_stack_are_never_read(tmp_path):
    """On a GPU each report would wait for all steps, to tell nothing."""
    settings = small_settings(tmp_path, "purchase100", "lo", train_seed=7)
    paths = [tmp_path / f"{i}.json" for i in range(3)]
    reports = Reports([RunReport(settings, path=path, seconds=1e-9) for path in paths])
    reports.write(0, 1, torch.empty(3, device="meta"))
    assert [json.loads(path.read_text())["loss"] for path in paths] == [None] * 3
