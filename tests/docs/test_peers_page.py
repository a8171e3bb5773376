"""docs/PEERS.md: its tables are what the script makes of the committed measurements."""

import json
from pathlib import Path

import pytest
from helpers_scripts import script_of
from scipy.stats import binom

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def script():
    with script_of("peers_page") as module:
        yield module


@pytest.fixture(scope="module")
def report(script):
    return json.loads(script.RESULTS.read_text(encoding="utf-8"))


def test_the_page_is_what_its_script_writes(script, report):
    page = script.PAGE.read_text(encoding="utf-8")
    steps, gpu = script.read(script.STEPS), script.read(script.GPU)
    assert report["attacks"] and report["bounds"] and steps["steps"] and gpu["steps"]
    assert script.filled(page, report, steps, gpu) == page
    code = f"code of commit {gpu['code']}; later code was not measured on a GPU."
    assert f"{gpu['device']}, " in page and code in page


def test_our_scores_are_the_papers_and_our_alarms_as_few_as_allowed(script, report):
    ours = [row for row in report["attacks"] if row["package"] == script.OURS]
    assert len(ours) == 4 and all(row["largest difference"] < 1e-12 for row in ours)
    for row in report["bounds"]:
        if row["package"] == script.OURS:
            for mechanism, one in row["mechanisms"].items():
                found = one["false alarms"]
                alarms = round(found["value"] * found["n"])
                assert alarms <= binom.ppf(0.999, found["n"], 0.05), (row["bound"], mechanism)


def test_every_number_has_its_repetitions_and_an_interval_that_holds_it(report):
    assert report["seeds"] >= 3 and len(report["records"]) == report["seeds"]
    rates = [one for row in report["attacks"] for one in row.values() if isinstance(one, dict)]
    found = [
        one for row in report["bounds"] for m in row["mechanisms"].values() for one in m.values()
    ]
    assert len(rates) >= 24 and all(one["n"] == report["seeds"] for one in rates)
    assert len(found) >= 60 and all(one["n"] >= 60 for one in found)
    assert all(one["low"] <= one["value"] <= one["high"] for one in rates + found)


def test_a_bound_is_not_measured_where_it_says_nothing(script, report):
    for row in report["bounds"]:
        names = set(row["mechanisms"])
        if row["bound"] in ("Gaussian", "one-run f-DP"):
            assert not [name for name in names if name.startswith(("Laplace", "random"))]
        elif "pure" in row["bound"]:
            assert not [name for name in names if name.startswith("Gauss")]
        else:
            assert names == set(report["mechanisms"])


def test_the_step_times_are_those_of_the_speed_page(script):
    """Both pages show docs/results/step_times.json, which benchmarks/bench.py writes."""
    steps = json.loads(script.STEPS.read_text(encoding="utf-8"))
    speed = (ROOT / "benchmarks/RESULTS.md").read_text(encoding="utf-8")
    assert steps["versions"] in speed and len(steps["steps"]) in (4, 8)  # by one thread, or two too
    for row in steps["steps"]:
        cells = [row["model"], str(row["threads"]), f"{row['plain ms']:.1f} ms"]
        cells += [
            "{:.2f} ({:.2f}-{:.2f})".format(*row[mode]) for mode in script.MODES if mode in row
        ]
        assert f"| {' | '.join(cells)} |" in speed.splitlines()
    rows = [line for line in script.gpu_times(script.read(script.GPU)) if "batch" in line]
    assert len(rows) >= 4
    for row in rows:
        cells = row.strip("| ").split(" | ")
        assert any(all(cell in line for cell in cells) for line in speed.splitlines()), row


def test_a_mode_that_failed_on_a_gpu_is_shown_as_failed(script):
    gpu = script.read(script.GPU)
    del gpu["steps"][1]["seconds"]["hooks"]
    shown = script.gpu_times(gpu)
    assert "failed" in shown[3] and "failed" not in shown[2]
