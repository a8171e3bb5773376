"""docs/PRIVACY.md: its tables and pictures are what the script makes of the committed audits."""

import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from helpers_scripts import script_of
from scipy.stats import binom

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "PRIVACY.md"
AUDITS = ROOT / "docs" / "results" / "audits"


@pytest.fixture(scope="module")
def script():
    with script_of("audits_page") as module:
        yield module


def test_the_page_is_what_its_script_writes(script):
    page = PAGE.read_text(encoding="utf-8")
    audits = script.read()
    filled = script.filled(page, audits, script.files(script.TRAINED))
    assert audits and script.with_false_alarms(filled, script.false_alarms()) == page
    for name, audit in audits.items():
        picture = (ROOT / "docs/privacy" / f"{name}.svg").read_text(encoding="utf-8")
        assert picture == script.picture(name, audit)
        assert f"(privacy/{name}.svg)" in page


def test_every_audit_keeps_to_its_promise_and_its_ceiling(script):
    """What was measured here, held against itself: no alarm, and no curve above the exact one."""
    for name, audit in script.read().items():
        assert not audit["alarm"], name
        curve = audit["curve"]
        for points in audit["ceilings"].values():
            rates, most = zip(*points)
            for fpr, low in zip(curve["fpr"], curve["low"]):
                ceiling = max(m for rate, m in zip(rates, most) if rate <= fpr + 0.03)
                assert low <= ceiling + 1e-6, (name, fpr)
    for name, audit in script.files(script.TRAINED).items():
        assert not audit["alarm"], name
        assert all(way["bounds"] and way["checks"] for way in script.ways(audit)), name


def test_false_alarms_are_no_more_than_said(script):
    """5 % at most, by as much more as chance may add to so many runs."""
    found = script.false_alarms()
    shares = [(f["joint"], found["attacks"]["runs"]) for f in found["attacks"]["alarms"].values()]
    shares += [
        (kind["alarms"] / kind["runs"], kind["runs"])
        for kind in found.get("trainer", {}).values()
        if isinstance(kind, dict)
    ]
    assert min(runs for _, runs in shares) >= 100
    for share, runs in shares:
        assert share * runs <= binom.ppf(0.99, runs, 0.05)
    for row in found["bounds"]:
        for share in row.get("above", {}).values():
            assert share * 100 <= binom.ppf(0.999, 100, 0.05), row


def test_files_are_of_runs_that_are_known(script):
    known = {*script.AUDITED, *script.TRAINED}
    assert {path.stem for path in AUDITS.glob("*.json")} <= known
    for path in AUDITS.glob("*.json"):
        assert json.loads(path.read_text())


def test_pictures_stand_by_themselves(script):
    for path in (ROOT / "docs/privacy").glob("*.svg"):
        root = ET.fromstring(path.read_text(encoding="utf-8"))
        assert len(root.findall("{http://www.w3.org/2000/svg}svg")) == 2
        assert not re.search(r"https?://(?!www.w3.org)", path.read_text())
