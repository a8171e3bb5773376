"""Runs that SIGKILL ends at random moments give the weights of a run that nobody killed."""

import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time

import pytest
from helpers_resume import TASKS, place, run, small_settings, weights

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="kills processes"),
]


@pytest.mark.parametrize("scenario", ["inf", "lo"])
@pytest.mark.parametrize("task", TASKS)
def test_killed_at_random_moments_it_has_the_same_weights(tmp_path, monkeypatch, task, scenario):
    # Processes are forked from one that has imported the helpers, which it finds by this.
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    settings = small_settings(tmp_path, task, scenario, train_seed=7)
    run(tmp_path / "whole", settings)
    folder = tmp_path / "model"
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["helpers_resume"])
    rng, seen = random.Random(5), set()
    for _ in range(5):
        process = context.Process(
            target=run, args=(folder, settings), kwargs={"checkpoint": place(folder)}
        )
        process.start()
        before = steps_in(folder)
        while process.is_alive() and steps_in(folder) == before:
            time.sleep(0.01)  # on a loaded machine it would else be killed before it began
        time.sleep(rng.random() * 0.1)
        process.kill()
        process.join()
        seen.add(steps_in(folder))
        if folder.exists():
            break
    if not folder.exists():
        run(folder, settings, checkpoint=place(folder))
    assert len(seen) >= 2
    assert weights(folder) == weights(tmp_path / "whole")
    assert not place(folder).folder.exists()


def steps_in(folder):
    """The steps of the checkpoint of a model; None if there is none."""
    try:
        return json.loads((place(folder).folder / "checkpoint.json").read_text())["steps"]
    except OSError:
        return None


def command(folder, *flags):
    """`mico train` of a model with fresh seeds."""
    words = ["train", "--scenario", "digits_inf", "--num_epochs", "60", "--model_id", "3", *flags]
    words += ["--output_dir", str(folder), "--checkpoint_minutes", "1e-9"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "mico_competition.cli", *words],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_the_same_command_goes_on_with_the_seeds_that_it_had_drawn(tmp_path):
    phase = tmp_path / "digits" / "digits_inf" / "train"
    about = phase / ".checkpoint-model_3" / "checkpoint.json"
    process = command(tmp_path)
    while not about.exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    facts = json.loads(about.read_text())["facts"]
    process = command(tmp_path, "--learning_rate", "0.5")
    _, error = process.communicate(timeout=600)
    assert process.returncode == 1 and "and this one has learning_rate=0.5" in error
    before = about.stat().st_mtime_ns
    process = command(tmp_path)
    while about.stat().st_mtime_ns == before and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=600)
    assert process.returncode == 128 + signal.SIGTERM, error
    assert "ending after this step, with a checkpoint" in error and "Traceback" not in error
    assert f"Stopped after step {json.loads(about.read_text())['steps']}, of which" in error
    assert error.endswith("mico: stopped; the same command goes on from the checkpoint.\n")
    process = command(tmp_path)
    out, error = process.communicate(timeout=600)
    assert process.returncode == 0, error
    assert "Going on from step" in error and "evaluation accuracy" in out
    seeds = [
        (phase / "model_3" / f"seed_{n}").read_text().strip()
        for n in ("challenge", "training", "membership")
    ]
    assert seeds == facts["seeds"]
    assert json.loads((phase / "model_3" / "metadata.json").read_text())["resumed"] == 2
    assert [path.name for path in phase.iterdir()] == ["model_3"]
