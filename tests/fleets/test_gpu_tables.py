"""The tables of what benchmarks/gpu.py measured: hours of all models, bars, ratios and reasons."""

import sys
from pathlib import Path

import pytest
from helpers_scripts import script_of

from mico_competition.competition.table import SCENARIOS, get_scenario


@pytest.fixture(scope="module")
def script():
    with script_of("gpu") as module:
        yield module


def trial_row(scenario, models_an_hour, precision="float32", stack=1, graphs=False):
    return {
        "scenario": scenario,
        "precision": precision,
        "graphs": graphs,
        "stack": stack,
        "models_an_hour": models_an_hour,
        "trial_steps": 30,
        "steps": 1000,
    }


def test_hours_of_all_models_have_their_sources(script):
    page = sys.modules["gpu_hours"]
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
    found["tables"].insert(0, {**trial_row("purchase100_lo", 1e6), "failed": "out of memory"})
    assert page.seconds_a_model(found, "purchase100_lo")[0] == 9.0


def whole(scenario, seconds):
    return {"scenario": scenario, "part": 1.0, "accuracy": 0.5, "seconds": seconds}


def measured(seconds):
    """What a GPU is to have measured whose models of cifar10_lo take so long."""
    rows = {"memory": 2**30, "kilowatt_hours": 0.5, "models": 200}
    tables = [
        {**trial_row(name, an_hour, stack=200, graphs=graphs), **rows, "step_seconds": took}
        for name, an_hour, graphs, took in (
            ("purchase100_lo", 2500.0, False, 0.025),
            ("purchase100_lo", 2600.0, True, 0.022),
            ("purchase100_inf", 3000.0, False, 0.02),
        )
    ]
    for row in tables:
        row["records_a_second"] = 200 * 512 / row["step_seconds"]
    pictures = [trial_row("cifar10_lo", 3600 / 40, precision="bfloat16")]
    text = [trial_row("sst2_lo", 3600 / 200), trial_row("sst2_inf", 3600 / 150)]
    cases = [("MLP 600-128-100", 1.5), ("CNN", 1.1), ("RoBERTa 12 x 768", 1.29)]
    steps = [
        {"title": title, "seconds": {"plain": [1.0] * 4, "bookkeeping": [ratio] * 4}}
        for title, ratio in cases
    ]
    models = [whole("cifar10_lo", seconds), whole("cifar10_inf", 30.0)]
    return {
        "code": "abc1234",
        **{"tables": tables, "pictures": pictures, "text": text},
        **{"steps": steps, "models": models},
    }


def test_the_bars_are_held_against_what_was_measured(script):
    bars = sys.modules["gpu_bars"]
    shown = [line.split(" | ")[1:] for line in bars.bars_section(measured(55.0)).splitlines()[4:]]
    assert [(row[0], row[2]) for row in shown] == [
        ("1.3", "yes |"),
        ("1.2", "yes |"),
        ("1.3", "yes |"),
        ("5 min", "yes |"),
        ("60 s", "yes |"),
        ("30 s", "no |"),
        ("4 min", "yes |"),
        ("24", "no |"),
    ]
    assert shown[0][1].startswith(
        "1.25 in a stack of 200, 1.10 with CUDA graphs; one MLP alone: 1.50"
    )
    how = "4.6 min, scaled from 30 of 1,000 steps in a stack of 200, with CUDA graphs"
    assert shown[3][1].startswith(how)
    assert shown[4][1] == "55.0 s, measured, a whole model"
    slow = bars.bars_section(measured(65.0))
    assert "| 60 s | 65.0 s, measured, a whole model | no |" in slow
    tiny = bars.bars_section({**measured(55.0), "tiny": True})
    assert "a tiny version tells nothing of them" in tiny and "| yes |" not in tiny
    assert "| 5 min | tiny: 4.6 min, " in tiny


def test_bars_of_which_nothing_was_measured_say_so(script):
    bars = sys.modules["gpu_bars"]
    shown = bars.bars_section({"code": "abc1234"})
    assert shown.count("| not measured on a GPU | - |") == 8
    few = {"code": "abc1234", "models": [whole("cifar10_lo", 60.0)]}
    assert "10.0 hours for 600 of them, the others not measured on a GPU | - |" in (
        bars.bars_section(few)
    )


def test_the_table_of_stacks_has_the_ratio_the_energy_and_why_a_row_failed(script):
    found = measured(55.0)
    failed = {
        **trial_row("purchase100_inf", 0.0, stack=50),
        "failed": "OutOfMemoryError: 80 GB.\nx",
    }
    found["tables"].append(failed)
    shown = script.gpu_page._trials(found, "tables", "MLPs:")
    assert "| purchase100_lo | float32 | 200 | 25.0 ms | 1.25 |" in shown
    assert "| purchase100_lo | float32, CUDA graphs | 200 | 22.0 ms | 1.10 |" in shown
    assert "| 0.5 kWh for 200 | 1.0 GB |" in shown
    assert shown.endswith(
        "purchase100_inf, float32, in a stack of 50, failed: OutOfMemoryError: 80 GB."
    )


def test_a_rival_that_fails_is_shown_with_the_reason(script):
    found = measured(55.0)
    for case in found["steps"]:
        case |= {"batch": 8, "peak_bytes": {}}
    found["steps"][1]["failed"] = {"ghost": "ValueError: no rule for a layer\nand more"}
    shown = script.gpu_page._steps(found)
    assert "| failed |" in shown and "CNN, ghost, failed: ValueError: no rule for a layer." in shown


def test_the_committed_page_names_its_code_and_what_is_missing(script):
    shown = script.gpu_page.gpu_section()
    assert "code of commit" in shown and "GPU hours" in shown
    results = Path(script.gpu_parts.ROOT) / "benchmarks" / "RESULTS.md"
    assert shown in results.read_text()
    assert (
        "by an earlier form of `benchmarks/gpu.py`, whose JSON is docs/results/gpu.json." in shown
    )
    bars = (
        "one MLP alone: 1.81 (",
        "| 3.11 (2.99-3.18); 1.26 over a plain step in float32 | no |",
        "| 1.84 (1.77-1.85); ",
    )
    assert all(bar in shown for bar in bars)


def test_the_page_is_written_without_a_measurement(script, tmp_path, monkeypatch):
    page = script.gpu_page
    results = tmp_path / "RESULTS.md"
    results.write_text("# Speed\n\nText.\n\n## On a GPU\n\nOld.\n")
    monkeypatch.setattr(page, "RESULTS", results)
    page.main()
    assert results.read_text() == f"# Speed\n\nText.\n\n{page.gpu_section()}\n"


def test_the_plain_step_of_a_ratio_has_no_cuda_graphs(script):
    same = {"precision": "float32", "stack": 200}
    rows = [
        {**same, "scenario": name, "graphs": graphs, "step_seconds": took, "records_a_second": rate}
        for name, graphs, took, rate in (
            ("purchase100_inf", True, 0.5, 200.0),
            ("purchase100_inf", False, 1.0, 100.0),
            ("purchase100_lo", False, 2.0, 50.0),
        )
    ]
    over_plain = sys.modules["gpu_hours"].over_plain
    assert [over_plain(row, rows) for row in rows] == [None, None, 2.0]
