"""mypy sees the types of `mico_competition.scoring`, whose folder has another name."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
USES = """\
from mico_competition.scoring import generate_table, score, tpr_at_fpr

rate: float = tpr_at_fpr([0, 1], [0.1, 0.9], max_fpr=0.1)
"""
MISUSES = {
    'tpr_at_fpr([0, 1], [0.1, 0.9], max_fpr="a tenth")': "arg-type",
    "text: str = tpr_at_fpr([0, 1], [0.1, 0.9])": "assignment",
    "score([0, 1])": "call-arg",
    "generate_table(3)": "arg-type",
    "from mico_competition.scoring import no_such_name": "attr-defined",
}


@pytest.mark.slow
def test_mypy_reports_what_misuses_a_scoring_function(tmp_path):
    pytest.importorskip("mypy")
    path = tmp_path / "misuses.py"
    path.write_text(USES + "\n".join(MISUSES))
    config = ("--config-file", str(ROOT / "pyproject.toml"))
    run = subprocess.run(
        [sys.executable, "-m", "mypy", *config, str(path)], cwd=ROOT, text=True, capture_output=True
    )
    errors = [line for line in run.stdout.splitlines() if ": error: " in line]
    first = USES.count("\n") + 1
    found = [(line.split(":")[1], line.rpartition("[")[2].rstrip("]")) for line in errors]
    assert found == [(str(first + n), code) for n, code in enumerate(MISUSES.values())], run.stdout
