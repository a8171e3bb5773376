"""The starting kit: four notebooks that differ in one constant, each run on a challenge."""

import os
import shutil
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from mico_competition.submission import check_zip

KIT = Path(__file__).resolve().parent.parent / "starting-kit"
CHALLENGES = ["cifar10", "purchase100", "sst2", "ddp"]


def test_they_differ_in_one_constant():
    texts = {name: (KIT / f"{name}.ipynb").read_text() for name in CHALLENGES}
    for name, text in texts.items():
        line = f'"CHALLENGE = \\"{name}\\""'
        assert text.count(line) == 1
        assert text.replace(line, "") == texts["ddp"].replace('"CHALLENGE = \\"ddp\\""', "")


def test_they_are_committed_without_outputs():
    for name in CHALLENGES:
        for cell in nbformat.read(KIT / f"{name}.ipynb", 4).cells:
            assert not cell.get("outputs") and cell.get("execution_count") is None


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
    client = NotebookClient(
        notebook,
        timeout=300,
        resources={"metadata": {"path": str(tmp_path)}},
        kernel_name="python3",
    )
    client.execute(env={**os.environ, "HF_HUB_OFFLINE": "1"})
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert not [o for o in outputs if o.output_type == "error"]
    assert "".join(o.get("text", "") for o in outputs).count(" 0 faults") == 1
    pictures = [o for o in outputs if "image/png" in o.get("data", {})]
    # A ROC figure for each scenario, and a picture of the points of each dataset that is no text.
    assert len(pictures) == 3 + {"cifar10": 1, "purchase100": 1, "sst2": 0, "ddp": 2}[challenge]
    assert check_zip(tmp_path / f"predictions_{challenge}.zip", tmp_path / challenge) == []
    nbformat.write(notebook, tmp_path / "executed.ipynb")
