"""docs/howto/gpu.md: its tables are those of the scripts, and its numbers have their commit."""

import json
import re
from pathlib import Path

from helpers_scripts import script_of

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "howto" / "gpu.md"


def test_the_table_of_precisions_is_what_its_script_writes():
    with script_of("precision_accuracy") as script:
        beds = json.loads(script.RESULT.read_text(encoding="utf-8"))["beds"]
        page = script.PAGE.read_text(encoding="utf-8")
        assert script.filled(page, beds) == page
        assert all(row["summary"] == script.summary(row["runs"]) for row in beds.values())


def test_the_command_of_the_script_is_that_of_its_docstring():
    """It needs the package installed: a path to its source does not hold all of it."""
    with script_of("gpu") as script:
        assert "    python benchmarks/gpu.py --out gpu.json\n" in script.__doc__
        assert "\npython benchmarks/gpu.py --out gpu.json\n" in PAGE.read_text("utf-8")
        boxes = dict(re.findall(r"^\| `(\w+)` \| (.+?) \|", PAGE.read_text("utf-8"), re.MULTILINE))
        assert list(boxes) == list(script.PARTS)
        for name, box in boxes.items():
            assert box in (f"{script.PARTS[name].seconds:.0f} s", "what is left")


def test_every_number_of_a_gpu_has_the_commit_of_its_code():
    commit = json.loads((ROOT / "docs" / "results" / "gpu.json").read_text("utf-8"))["code"]
    parts = [" ".join(part.split()) for part in PAGE.read_text("utf-8").split("\n\n")]
    found = [part for part in parts if "on an H100" in part]
    assert len(found) >= 2 and all(f"commit {commit}" in part for part in found)
    log = (ROOT / "CHANGELOG.md").read_text("utf-8")
    entries = [" ".join(e.split()) for e in log.split("\n- ") if "benchmarks/gpu.py" in e]
    assert len(entries) >= 2
    assert all("earlier form" in e and f"code of commit {commit}" in e for e in entries)
