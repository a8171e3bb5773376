#!/usr/bin/env python3
"""Runs every hostile submission in a process of its own: docs/results/hostile.json.

    python benchmarks/hostile_cases.py [--only WORD] [--files 1000000]

The cases are those of tests/scoring/test_hostile.py, with folders of a million files instead of
10,001.
A line of the result has the case, its layer (a zip is unpacked and then scored, a tree is scored
as the platform unpacked it), what it got, and processor seconds and peak memory of all of it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "docs" / "results" / "hostile.json"
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "scoring")]

from helpers_hostile import HARMLESS, MODEL, TREES, Case, crowd  # noqa: E402
from helpers_hostile_zips import ZIPS, copy_files  # noqa: E402
from helpers_scoring import Competition  # noqa: E402
from hostile_child import run_child  # noqa: E402

MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None


def main() -> None:
    """Run the cases, print a line each, write them all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="cases whose name holds this; writes no file")
    parser.add_argument("--files", type=int, default=1_000_000, help="files in a crowded folder")
    args = parser.parse_args()
    top = "holds over 10000 files and folders"
    crowds = [
        Case(f"{args.files:,} files at the top", crowd(".", args.files), top),
        Case(f"{args.files:,} files in a model folder", crowd(MODEL, args.files), HARMLESS),
    ]
    rows = []
    for case in [*TREES, *crowds, *ZIPS]:
        if args.only in case.name:
            rows.append(row(case))
            print(json.dumps(rows[-1]), flush=True)
    wrong = [found["case"] for found in rows if not found["as_expected"]]
    print(f"{len(rows)} cases, {len(wrong)} not as expected: {wrong}")
    if not args.only:
        RESULT.parent.mkdir(parents=True, exist_ok=True)
        RESULT.write_text("[\n" + ",\n".join(map(json.dumps, rows)) + "\n]\n")


def row(case: Any) -> dict[str, Any]:
    """Make one hostile submission, score it, and tell what came of it."""
    folder = Path(tempfile.mkdtemp(prefix="mico_hostile_", dir=MEMORY))
    try:
        competition = Competition(folder)
        zips = ["submission.zip"] if case.layer == "zip" else []
        if zips:
            case.make(folder / zips[0], copy_files(competition))
        else:
            case.make(competition)
        code, _, err, cost = run_child(folder, *zips, case=case)
        faults = [line for line in err.splitlines() if not line.startswith("Not scored")]
    finally:
        subprocess.run(["rm", "-rf", folder], check=True)
    result = "harmless: scored" if code == 0 else faults[0].removeprefix("- ")
    return {
        "case": case.name,
        "layer": case.layer,
        "result": result,
        "faults": len(faults),
        "seconds": round(cost["seconds"], 2),
        "mb": round(cost["mb"], 1),
        "as_expected": case.words in err and (code == 0) == (case.words == HARMLESS),
    }


if __name__ == "__main__":
    main()
