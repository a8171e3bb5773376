"""benchmarks/bench_gpu.py, tried on the CPU: its parts, its time, and a part that fails."""

import json

import pytest
from helpers_scripts import script_of


@pytest.fixture(scope="module")
def script():
    with script_of("bench_gpu") as module:
        yield module


@pytest.mark.slow
def test_steps_and_runs_are_measured_and_written(script, tmp_path):
    out = tmp_path / "gpu.json"
    small = ["--models", "mlp", "--modes", "bookkeeping", "--records", "1100", "--stacks", "1", "2"]
    script.main(["--out", str(out), "--device", "cpu", *small, "--runs", "purchase100_lo"])
    found = json.loads(out.read_text())
    (case,) = found["steps"]
    assert set(case["seconds"]) == {"plain", script.IN_FULL, "bookkeeping"} and not found["failed"]
    assert [(run["stack"], run["steps"]) for run in found["runs"]] == [(1, 3), (2, 3)]
    assert all(run["models_an_hour"] > 0 for run in found["runs"])


def test_a_part_that_fails_leaves_the_others_and_none_begins_too_late(script, tmp_path, capsys):
    def fails():
        raise RuntimeError("out of memory")

    out, found = tmp_path / "gpu.json", {"steps": [], "runs": [], "failed": {}}
    parts = [("first", "steps", fails), ("second", "runs", lambda: {"stack": 1})]
    script.measure_parts(parts, found, out, 60.0)
    assert json.loads(out.read_text()) == found
    assert found["failed"] == {"first": "RuntimeError: out of memory"}
    assert found["runs"] == [{"stack": 1}]
    script.measure_parts(parts, found, out, -1.0)
    assert "first and what follows are left out" in capsys.readouterr().out
    assert len(found["runs"]) == 1
