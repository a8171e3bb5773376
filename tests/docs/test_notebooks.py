"""The starting kit: notebooks, each run whole; four of them differ in one constant."""

import os
import shutil
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from mico_competition.competition.submission import check_zip

ROOT = Path(__file__).resolve().parents[2]
KIT = ROOT / "starting-kit"
CHALLENGES = ["cifar10", "purchase100", "sst2", "ddp"]
TUTORIALS = {  # path -> pictures
    "starting-kit/your-own-model.ipynb": 2,
    "starting-kit/private-training.ipynb": 1,
    "docs/tutorials/private-fine-tuning.ipynb": 0,
    "docs/tutorials/run-a-competition.ipynb": 0,
}
"""Committed with the outputs of a run, since the site shows them."""


def test_they_differ_in_one_constant():
    texts = {name: (KIT / f"{name}.ipynb").read_text() for name in CHALLENGES}
    for name, text in texts.items():
        line = f'"CHALLENGE = \\"{name}\\""'
        assert text.count(line) == 1
        assert text.replace(line, "") == texts["ddp"].replace('"CHALLENGE = \\"ddp\\""', "")


def test_those_of_challenges_are_committed_without_outputs():
    for path in KIT.glob("*.ipynb"):
        if f"starting-kit/{path.name}" in TUTORIALS:
            continue
        for cell in nbformat.read(path, 4).cells:
            assert not cell.get("outputs") and cell.get("execution_count") is None


@pytest.mark.parametrize("name", TUTORIALS)
def test_tutorials_are_committed_as_one_run_left_them(name):
    notebook = nbformat.read(ROOT / name, 4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    assert outputs and not [o for o in outputs if o.output_type == "error"]
    assert not [o for o in outputs if o.get("name") == "stderr"]
    assert len([o for o in outputs if "image/png" in o.get("data", {})]) == TUTORIALS[name]
    assert "/work/" not in (ROOT / name).read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("name", TUTORIALS)
@pytest.mark.filterwarnings("ignore::DeprecationWarning:jupyter_client")
@pytest.mark.filterwarnings("ignore::DeprecationWarning:zmq")
def test_tutorials_run(name, tmp_path, monkeypatch):
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    notebook = nbformat.read(ROOT / name, 4)
    for cell in notebook.cells:  # fewer models
        cell.source = cell.source.replace("count=16", "count=6")
    execute(notebook, tmp_path)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert not [o for o in outputs if o.output_type == "error"]
    assert len([o for o in outputs if "image/png" in o.get("data", {})]) == TUTORIALS[name]


def execute(notebook, folder):
    client = NotebookClient(
        notebook,
        timeout=600,
        resources={"metadata": {"path": str(folder)}},
        kernel_name="python3",
    )
    client.execute(env={**os.environ, "HF_HUB_OFFLINE": "1"})


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning:jupyter_client")
@pytest.mark.filterwarnings("ignore::DeprecationWarning:zmq")
def test_the_baseline_is_beaten(tmp_path, monkeypatch):
    monkeypatch.setenv("MICO_DEMO_MODELS", "8")
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    notebook = nbformat.read(KIT / "beat-the-baseline.ipynb", 4)
    execute(notebook, tmp_path)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert not [o for o in outputs if o.output_type == "error"]
    assert len([o for o in outputs if "image/png" in o.get("data", {})]) == 3
    assert "48 models attacked" in "".join(o.get("text", "") for o in outputs)
    gains = next(
        o.data["text/plain"] for o in reversed(outputs) if "text/plain" in o.get("data", {})
    )
    gain = dict(line.split()[:2] for line in gains.splitlines()[1:])["whitebox"]
    assert float(gain) > 0.2  # in TPR at 10 % FPR over the threshold
    assert check_zip(tmp_path / "predictions_digits.zip", tmp_path / "demo/released/digits") == []


@pytest.mark.slow
@pytest.mark.parametrize("challenge", CHALLENGES)
@pytest.mark.filterwarnings("ignore::DeprecationWarning:jupyter_client")
@pytest.mark.filterwarnings("ignore::DeprecationWarning:zmq")
def test_it_runs_and_makes_a_sound_submission(challenge, competition, tmp_path, monkeypatch):
    shutil.copytree(competition.released / challenge, tmp_path / challenge)
    monkeypatch.setenv("MICO_CHALLENGES", str(tmp_path))
    monkeypatch.setenv("MICO_DATASETS", str(competition.datasets))
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    notebook = nbformat.read(KIT / f"{challenge}.ipynb", 4)
    execute(notebook, tmp_path)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert not [o for o in outputs if o.output_type == "error"]
    assert "".join(o.get("text", "") for o in outputs).count(" 0 faults") == 1
    pictures = [o for o in outputs if "image/png" in o.get("data", {})]
    # A ROC figure for each scenario, and a picture of the points of each dataset that is no text.
    assert len(pictures) == 3 + {"cifar10": 1, "purchase100": 1, "sst2": 0, "ddp": 2}[challenge]
    assert check_zip(tmp_path / f"predictions_{challenge}.zip", tmp_path / challenge) == []
    nbformat.write(notebook, tmp_path / "executed.ipynb")
