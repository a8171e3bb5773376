"""benchmarks/gpu.py, tried on the CPU: its parts, their time boxes, its tables and their sum."""

import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers_scripts import script_of

from mico_competition.competition.table import SCENARIOS, get_scenario


@pytest.fixture(scope="module")
def script():
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
        ("tables", 4, "| purchase100_lo | float32 | 2 |"),
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


def trial_row(scenario, models_an_hour, precision="float32", stack=1):
    return {
        "scenario": scenario,
        "precision": precision,
        "graphs": False,
        "stack": stack,
        "models_an_hour": models_an_hour,
        "trial_steps": 30,
        "steps": 1000,
    }


def test_hours_of_all_models_have_their_sources(script):
    page = script.gpu_page
    of_2022 = {name for name in SCENARIOS if get_scenario(name).task in page.TASKS}
    assert set(page.OF_2022) == of_2022 and len(of_2022) == 12
    rows = [trial_row("purchase100_lo", 100.0), trial_row("purchase100_lo", 400.0, stack=50)]
    rows.append(trial_row("purchase100_lo", 9000.0, precision="bfloat16"))
    whole = {"scenario": "cifar10_lo", "part": 1.0, "accuracy": 0.5, "seconds": 90.0}
    begun = {"scenario": "cifar10_inf", "part": 0.5, "seconds": 90.0}
    found = {"tables": rows, "models": [whole, begun]}
    assert page.seconds_a_model(found, "purchase100_hi") == (
        9.0,
        "as purchase100_lo: scaled from 30 of 1,000 steps in a stack of 50",
    )
    assert page.seconds_a_model(found, "cifar10_lo") == (90.0, "measured, a whole model")
    assert page.seconds_a_model(found, "cifar10_inf") == (None, page.NOT_MEASURED)
    shown = page.hours_section(found)
    assert (
        "| cifar10_ddp | 200 | 90.00 s | 5.00 | as cifar10_lo: measured, a whole model |" in shown
    )
    assert f"| sum | 1,200 of 2,400 |  | {3 * (0.5 + 5.0):.1f} |  |" in shown
    assert "2,400 models were not measured on a GPU" in page.hours_section({})


def test_the_committed_page_names_its_code_and_what_is_missing(script):
    shown = script.gpu_page.gpu_section()
    assert "code of commit" in shown and "GPU hours" in shown
    results = Path(script.gpu_parts.ROOT) / "benchmarks" / "RESULTS.md"
    assert shown in results.read_text()


def test_sentences_are_as_long_as_those_of_sst2(script):
    lengths = sys.modules["gpu_data"].sentences(5000, 67, 300).attention_mask.sum(1).float()
    assert 11 < float(lengths.mean()) < 14 and lengths.min() >= 3 and lengths.max() <= 67
