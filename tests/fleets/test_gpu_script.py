"""benchmarks/gpu.py, tried on the CPU: its parts and their time boxes."""

import json
import sys
import time
from multiprocessing import forkserver
from typing import Any

import pytest
import torch
from helpers_scripts import script_of


@pytest.fixture(scope="module")
def script():
    forkserver._forkserver._stop()  # one that other tests began may know another competition
    with script_of("gpu") as module:
        yield module


def run(script, out, *arguments):
    """The JSON that the script writes on the CPU."""
    script.main(["--out", str(out), "--device", "cpu", *arguments])
    return json.loads(out.read_text())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("part", "rows", "said"),
    [
        ("steps", 3, "A private step over a plain one"),
        ("tables", 7, "| purchase100_lo | float32 | 2 |"),
        ("pictures", 4, "CIFAR-10's CNN, steps of whole runs"),
        ("text", 2, "tokens a second"),
        ("signals", 2, "Outputs and gradient norms of 2 models (MLP"),
        ("profile", 1, "has profiles of private steps: "),
        ("models", 1, "| cifar10_lo | made up | 100 % of 4 |"),
    ],
)
def test_each_part_is_measured_and_shown(script, tmp_path, capfd, part, rows, said):
    if part in ("steps", "text"):
        pytest.importorskip("transformers")
    found = run(script, tmp_path / "gpu.json", "--parts", part)
    assert not found["failed"] and not found["cut"] and len(found[part]) == rows
    shown = capfd.readouterr().out
    assert said in shown and "A tiny version, which only tries the script." in shown
    assert f"{part}: " in shown and f"rows: {rows}" in shown
    assert f"whose JSON is {tmp_path / 'gpu.json'}." in shown
    failed = [row for row in found[part] if row.get("failed")]
    if part == "tables":  # on a CPU there are no CUDA graphs, and nothing else is left out
        assert [row["graphs"] for row in found[part]] == [False] * 4 + [True] * 3
        assert failed == found[part][4:] and "CUDA graphs, in a stack of 2, failed: " in shown
    elif part == "steps":
        assert all(list(row["failed"]) == ["bookkeeping, graphs"] for row in failed)
        assert "CNN, bookkeeping, graphs, failed: no CUDA graphs on cpu." in shown
    else:
        assert not failed
    if part == "models":
        (row,) = found[part]
        assert 0 <= row["accuracy"] <= 1 and row["epsilon"] == pytest.approx(4, abs=0.1)
    if part == "text":
        assert all(row["tokens_a_second"] > row["records_a_second"] for row in found[part])


@pytest.mark.slow
def test_tests_are_counted(script, tmp_path):
    """Passed or skipped, as there is a GPU or none; a file without any is no fault."""
    path = "tests/models/test_architectures.py"
    (row,) = run(script, tmp_path / "gpu.json", "--parts", "tests", "--tests", path)["tests"]
    assert row["passed"] + row["skipped"] > 0 and not row["failed"] and not row["cut"]
    files = script.gpu_parts.gpu_tests()
    assert path in files and "tests/training/test_cuda.py" in files


def told(asked, tell):
    tell({"scenario": "one", "part": 0.5})
    tell({"scenario": "one", "part": 1.0, "accuracy": 0.5})
    tell({"scenario": "two", "part": 0.1})


def fails(asked, tell):
    tell({"stack": 1})
    raise RuntimeError("out of memory")


def hangs(asked, tell):
    tell({"stack": 1})
    time.sleep(600)


def dies(asked, tell):
    import os

    os._exit(3)


@pytest.mark.slow
def test_a_part_that_fails_or_is_cut_leaves_its_rows_and_the_others(script, tmp_path, capsys):
    measures = {"fails": fails, "hangs": hangs, "dies": dies, "told": told}
    parts = {name: script.Part(measure, 30.0) for name, measure in measures.items()}
    asked = script.Asked(torch.device("cpu"), False, 300.0)
    found: dict[str, Any] = {"seconds": {}, "failed": {}, "cut": {}}
    out = tmp_path / "gpu.json"
    script.run_parts(parts, asked, found, out)
    assert json.loads(out.read_text()) == found
    assert found["fails"] == found["hangs"] == [{"stack": 1}] and found["dies"] == []
    assert found["failed"] == {
        "fails": "RuntimeError: out of memory",
        "dies": "its process ended with code 3",
    }
    assert found["cut"] == {"hangs": 30.0} and found["seconds"]["hangs"] < 60
    assert [row["scenario"] for row in found["told"]] == ["one", "two"]
    assert found["told"][0]["accuracy"] == 0.5
    script.run_parts(parts, script.Asked(torch.device("cpu"), False, 0.0), found, out)
    assert capsys.readouterr().out.count("left out, since the time is over") == 4


def test_a_tiny_version_does_not_replace_the_measured_page(script, capsys):
    with pytest.raises(SystemExit):
        script.main(["--device", "cpu"])
    assert "give another --out" in capsys.readouterr().err


def test_float32_of_both_scenarios_is_measured_before_other_precisions(script, monkeypatch):
    """A part that is cut then still has what the sum over all models needs."""
    tried = []
    parts = script.gpu_parts
    monkeypatch.setattr(
        parts,
        "Trials",
        lambda *_: lambda name, precision="float32", **_: tried.append((name, precision)),
    )
    asked = script.Asked(torch.device("cpu"), False, 60.0)
    for part, task in ((parts.text, "sst2"), (parts.pictures, "cifar10")):
        tried.clear()
        part(asked, print)
        assert tried[:2] == [(f"{task}_lo", "float32"), (f"{task}_inf", "float32")]
        assert tried[2][1] == "bfloat16"


def test_a_trial_that_fails_leaves_the_others(script, monkeypatch):
    trials = sys.modules["gpu_trials"]
    first = trials.trial
    calls: list[Any] = []

    def fail(*arguments, like=None, **options):
        calls.append(like)
        if len(calls) == 2:
            raise RuntimeError("CUDA out of memory")
        return first(*arguments, like=like, **options)

    monkeypatch.setattr(trials, "trial", fail)
    rows: list[dict[str, Any]] = []
    tried = trials.Trials(script.Asked(torch.device("cpu"), True, 60.0), rows.append)
    for stack in (1, 2, 2):
        tried("purchase100_inf", stack=stack, seconds=0.0)
    assert [row.get("failed") for row in rows] == [None, "RuntimeError: CUDA out of memory", None]
    assert calls[0] is None and calls[1] is not None and calls[2] is calls[1], "files written once"


def test_a_commit_can_be_told_where_there_is_no_history(script, monkeypatch):
    def none():
        raise FileNotFoundError("git")

    asked = script.Asked(torch.device("cpu"), True, 60.0)
    assert script.about(asked, "1f6b3b8")["code"] == "1f6b3b8"
    monkeypatch.setattr(script, "commit", none)
    assert script.about(asked)["code"] == "not known"
    assert script.about(asked, "1f6b3b8")["code"] == "1f6b3b8"


def test_sentences_are_as_long_as_those_of_sst2(script):
    lengths = sys.modules["gpu_data"].sentences(5000, 67, 300).attention_mask.sum(1).float()
    assert 11 < float(lengths.mean()) < 14 and lengths.min() >= 3 and lengths.max() <= 67
