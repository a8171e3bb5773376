"""docs/PEERS.md: its tables are what the script makes of the committed measurements."""

import importlib.util
import json
from pathlib import Path

import pytest
from scipy.stats import binom

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("peers_page", ROOT / "benchmarks/peers_page.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_what_its_script_writes(script):
    report = json.loads(script.RESULTS.read_text(encoding="utf-8"))
    page = script.PAGE.read_text(encoding="utf-8")
    assert report["attacks"] and report["bounds"] and script.filled(page, report) == page


def test_our_scores_are_the_papers_and_our_alarms_as_few_as_allowed(script):
    report = json.loads(script.RESULTS.read_text(encoding="utf-8"))
    ours = [row for row in report["attacks"] if row["package"] == script.OURS]
    assert len(ours) == 3 and all(row["largest difference"] < 1e-12 for row in ours)
    for row in report["bounds"]:
        if row["package"] == script.OURS:
            for mechanism, one in row["mechanisms"].items():
                if row["bound"] in script.GAUSSIAN and not mechanism.startswith(("no", "Gauss")):
                    continue
                assert one["false alarms"] * one["runs"] <= binom.ppf(0.999, one["runs"], 0.05)
