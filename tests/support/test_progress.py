"""Progress: a bar on a terminal, lines where there is none, nothing where it is quiet."""

import io
import os
import pty
import re
import subprocess
import sys
import threading

import pytest

from mico_competition.support import progress
from mico_competition.support.progress import heartbeat, quiet, say, stage, tracked


@pytest.fixture
def soon(monkeypatch):
    """Lines and bars at once, as if half a minute had passed; gives what waits for one line."""
    monkeypatch.setattr(progress, "LOG_SECONDS", 0.0)
    monkeypatch.setattr(progress, "DELAY_SECONDS", 0.0)
    monkeypatch.setattr(progress, "REFRESH_SECONDS", 0.001)
    monkeypatch.setattr(progress, "_due", 0.0)
    monkeypatch.delenv("MICO_QUIET", raising=False)
    shown = threading.Event()
    real = progress._show

    def show(now):
        real(now)
        shown.set()

    monkeypatch.setattr(progress, "_show", show)

    def wait():
        shown.clear()
        assert shown.wait(60)

    return wait


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_lines_where_there_is_no_terminal(soon, capsys):
    with stage("mico attack"), stage("Signals", total=4, unit="model") as inner:
        inner.update()
        soon()
        inner.note = "cifar10_inf"
        inner.update(2)
        soon()
    text = capsys.readouterr().err
    left = "about 0 s left"
    assert f"mico attack; Signals: 1 of 4 models (25 %), {left}; 0 s so far\n" in text
    assert f"mico attack; Signals: 3 of 4 models (75 %), {left} (cifar10_inf); 0 s" in text


def test_a_bar_with_stage_and_time_left_on_a_terminal(soon, monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    with heartbeat("mico attack"), stage("Joint decode", total=4, unit="model") as shown:
        shown.update()
        soon()
        say("a line for people")
    text = sys.stderr.getvalue()
    assert re.search(r"Joint decode:  25%.*1/4 \[00:00<", text)
    assert "mico attack" not in text


def test_the_time_left_is_that_of_the_whole_work(soon, capsys):
    with heartbeat("mico attack"), stage("Attack", total=60, unit="model") as whole:
        with stage("Signals", total=4, unit="model") as inner:
            inner.update(3)
            soon()
        whole.update(30)
        with stage("Fits", total=4) as inner:
            inner.update(3)
            soon()
    lines = capsys.readouterr().err.splitlines()
    first = "mico attack; Attack: 0 of 60 models (0 %); Signals: 3 of 4 models (75 %); 0 s so far"
    assert first in lines
    left = "Attack: 30 of 60 models (50 %), about 0 s left; Fits: 3 of 4 steps (75 %); 0 s so far"
    assert f"mico attack; {left}" in lines


def test_quiet(soon, capsys, monkeypatch):
    done = stage("Signals", total=2)
    with quiet(), heartbeat("mico attack"), done as counted, stage("Inner", show=False):
        counted.update(2)
    assert counted.done == 2
    monkeypatch.setenv("MICO_QUIET", "1")
    assert list(tracked([1, 2], "Items")) == [1, 2]
    with stage("Hidden", show=False) as hidden:
        hidden.update()
    assert (hidden.done, capsys.readouterr().err) == (1, "")
    assert progress._clock is None and not progress._open


def test_short_work_writes_nothing(capsys, monkeypatch):
    monkeypatch.setattr(progress, "_due", 0.0)
    for text in (sys.stderr, Terminal()):
        monkeypatch.setattr(sys, "stderr", text)
        with stage("Quick", total=1):
            pass
    assert capsys.readouterr().err == "" == sys.stderr.getvalue()


def test_units_and_durations():
    size = progress.Stage("uploading", 5_000_000, "B", initial=1_000_000)
    size.update(1_000_000)
    now = size.started + 10
    assert size.text(now) == "uploading: 2.0 of 5.0 MB (40 %), about 30 s left"
    size.unit = "attack"
    assert "left" not in size.text(now)
    assert progress._duration(125) == "2 min 5 s"
    assert progress._duration(3800) == "1 h 3 min"
    one = progress.Stage("Reading", None, "file")
    assert one.text(now) == "Reading"
    one.update()
    assert one.text(now) == "Reading: 1 file"
    assert progress.Stage("Nothing", 0, "file").text(now) == "Nothing"


def test_stages_of_several_threads_and_mistakes(soon, capsys):
    def work():
        for _ in range(50):
            with stage("Thread"):
                pass

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with pytest.raises(KeyError), stage("Fails"):
        raise KeyError
    assert progress._clock is None and not progress._open


def test_a_broken_standard_error_stops_nothing(soon, monkeypatch):
    closed = io.StringIO()
    closed.close()
    for broken in (closed, None):
        monkeypatch.setattr(sys, "stderr", broken)
        with stage("Signals", total=1):
            soon()


PROGRAM = """
import time
from mico_competition.support import progress
progress.LOG_SECONDS = progress.DELAY_SECONDS = 0.05
progress.REFRESH_SECONDS = 0.01
with progress.heartbeat("mico demo"), progress.stage("Training", 3, "model") as shown:
    for _ in range(3):
        time.sleep(0.2)
        shown.update()
"""


def run_on(stderr):
    env = {**os.environ, "COLUMNS": "80", "MICO_QUIET": ""}
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM], stderr=stderr, env=env, check=True
    )


def everything(leader):
    """All that was written to a terminal that is closed."""
    parts = []
    with open(leader, "rb", buffering=0) as file:
        try:
            while part := file.read(1 << 16):
                parts.append(part)
        except OSError:  # how Linux says that it is over
            pass
    return b"".join(parts).decode()


@pytest.mark.slow
def test_a_real_terminal_and_a_real_file(tmp_path):
    leader, follower = pty.openpty()
    run_on(follower)
    os.close(follower)
    shown = everything(leader)
    assert "Training" in shown and "3/3" in shown and "mico demo" not in shown
    with open(tmp_path / "log", "w") as log:
        run_on(log)
    assert "mico demo; Training" in (tmp_path / "log").read_text()


LEFT_OPEN = """
import mico_competition as mico, torch
model = torch.nn.Linear(5, 2)
trainer = mico.PrivateTrainer(
    model,
    torch.optim.SGD(model.parameters(), 0.1),
    noise_multiplier=1.0,
    target_delta=1e-5,
    num_records=100,
    batch_size=10,
    epochs=1,
    max_grad_norm=1.0,
)
batches = iter(trainer.batches())
batch = next(batches)
trainer.step(torch.ones(100, 5)[batch], torch.zeros(100, dtype=torch.long)[batch])
"""


@pytest.mark.slow
def test_a_script_that_leaves_its_loop_early_ends_without_a_message():
    ended = subprocess.run([sys.executable, "-c", LEFT_OPEN], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
