#!/usr/bin/env python3
"""Fuzzes the reader, the unpacker and the scoring program: docs/results/fuzz_scoring.json.

    python benchmarks/fuzz_scoring.py --seconds 300 --atheris PYTHON

Each target gets that many seconds of hypothesis, and as many of atheris (libFuzzer, guided by
coverage) where PYTHON names an interpreter that has atheris and numpy: it is no dependency, so
    python3.11 -m venv /tmp/atheris && /tmp/atheris/bin/pip install atheris numpy
What must hold, and for which inputs, is in tests/helpers_fuzz.py and
tests/scoring/test_scoring_fuzz.py.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "docs" / "results" / "fuzz_scoring.json"
TARGETS = ("values", "zip", "tree")
sys.path.insert(0, str(ROOT / "tests"))


def main() -> None:
    """Fuzz every target in both ways, print and write what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=300, help="for each target and each way")
    parser.add_argument("--atheris", metavar="PYTHON", help="an interpreter that has atheris")
    parser.add_argument("--targets", nargs="*", default=TARGETS, choices=TARGETS)
    parser.add_argument("--inside", choices=TARGETS, help=argparse.SUPPRESS)
    args, rest = parser.parse_known_args()
    if args.inside:
        run_inside_atheris(args.inside, rest)
        return
    report: dict[str, Any] = {"python": platform.python_version(), "hypothesis": {}}
    for target in args.targets:
        report["hypothesis"][target] = with_hypothesis(target, args.seconds)
        print(target, json.dumps(report["hypothesis"][target]), flush=True)
    if args.atheris:
        report["atheris"] = {}
        for target in args.targets:
            report["atheris"][target] = with_atheris(args.atheris, target, args.seconds)
            print(target, json.dumps(report["atheris"][target]), flush=True)
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(report, indent=1) + "\n")


def with_hypothesis(target: str, seconds: float) -> dict[str, Any]:
    """Run one target on random examples until the time is up."""
    import hypothesis
    import test_scoring_fuzz as fuzz
    from hypothesis import HealthCheck, given, seed, settings

    check: dict[str, tuple[Any, Callable[[Any], bool]]] = {
        "values": (fuzz.CONTENTS, lambda data: fuzz.check_values(data, path)),
        "zip": (fuzz.ZIP_EDITS, lambda edits: fuzz.check_archive(fuzz.spoilt_zip(edits))),
        "tree": (fuzz.TREE_EDITS, fuzz.check_program),
    }
    strategy, function = check[target]
    counts = {True: 0, False: 0}
    findings: list[str] = []
    slowest = 0.0
    started = time.perf_counter()

    def one(example: Any) -> None:
        nonlocal slowest
        begun = time.perf_counter()
        counts[bool(function(example))] += 1
        slowest = max(slowest, time.perf_counter() - begun)

    limits = settings(
        max_examples=2_000,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    with fuzz.scratch() as folder:
        path = f"{folder}/prediction.csv"
        for turn in range(1_000_000):
            if time.perf_counter() - started > seconds:
                break
            try:
                seed(turn)(limits(given(strategy)(one)))()
            except Exception as error:
                findings.append(f"{type(error).__name__}: {error}"[:500])
    return {
        "executions": sum(counts.values()),
        "accepted": counts[True],
        "refused": counts[False],
        "seconds": round(time.perf_counter() - started, 1),
        "slowest_seconds": round(slowest, 3),
        "findings": findings,
        "version": hypothesis.__version__,
    }


def with_atheris(python: str, target: str, seconds: int) -> dict[str, Any]:
    """Run one target under libFuzzer in a process of another interpreter."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        # The package as it is installed, without installing it there.
        package = folder / "lib" / "mico_competition"
        package.mkdir(parents=True)
        for source in [*(ROOT / "src" / "mico_competition").iterdir(), ROOT / "scoring"]:
            (package / source.name).symlink_to(source)
        corpus = folder / "corpus"
        corpus.mkdir()
        write_corpus(target, corpus)
        flags = [f"-max_total_time={seconds}", "-timeout=10", "-rss_limit_mb=500", "-print_pcs=0"]
        flags += ["-max_len=2000", "-artifact_prefix=" + place + "/", str(corpus)]
        done = subprocess.run(
            [python, __file__, "--inside", target, *flags],
            capture_output=True,
            text=True,
            errors="replace",
            env={
                **os.environ,
                "PYTHONPATH": str(folder / "lib"),
                "PYTHONDONTWRITEBYTECODE": "1",
                "FUZZED_FILE": str(folder / "prediction.csv"),
            },
        )
        runs = re.findall(r"^Done ([0-9]+) runs in ([0-9]+) second", done.stderr, re.MULTILINE)
        covered = re.findall(r"cov: ([0-9]+)", done.stderr)
        crashes = [path.name for path in folder.glob("*-*") if path.is_file()]
        return {
            "executions": int(runs[-1][0]) if runs else None,
            "seconds": int(runs[-1][1]) if runs else None,
            "edges_covered": int(covered[-1]) if covered else None,
            "inputs_kept": len(list(corpus.iterdir())),
            "findings": crashes and [*crashes, done.stderr[-1_500:]],
            "exit_code": done.returncode,
        }


def write_corpus(target: str, corpus: Path) -> None:
    """What libFuzzer starts from."""
    import helpers_fuzz

    if target == "zip":
        (corpus / "sound").write_bytes(helpers_fuzz.sound_zip())
        for number in range(200):
            edits = [(number * 7919, number % 7, number * 104_729)]
            (corpus / str(number)).write_bytes(helpers_fuzz.spoilt_zip(edits))
    elif target == "values":
        for number, word in enumerate(helpers_fuzz.WORDS):
            line = ",".join(["0.5", "1", word, "0"])
            (corpus / str(number)).write_bytes(line.encode())
    else:
        for number in range(50):
            (corpus / str(number)).write_bytes(bytes((number * k) % 256 for k in range(60)))


def run_inside_atheris(target: str, flags: list[str]) -> None:
    """The body of the process that `with_atheris` starts."""
    import atheris  # type: ignore[import-not-found]

    with atheris.instrument_imports(include=["mico_competition", "helpers_fuzz"]):
        import helpers_fuzz as fuzz

    def one(data: bytes) -> None:
        if target == "values":
            fuzz.check_values(data, os.environ["FUZZED_FILE"])
        elif target == "zip":
            fuzz.check_archive(data)
        else:
            fuzz.check_program(edits_from(atheris.FuzzedDataProvider(data)))

    def edits_from(source: Any) -> list[tuple[list[str], str, list[str], bytes]]:
        good = ["cifar10", "cifar10_hi", "dev", "model_0", "prediction.csv"]

        def path() -> list[str]:
            known = good[: source.ConsumeIntInRange(0, 5)]
            count = source.ConsumeIntInRange(0 if known else 1, 2)
            return known + [source.PickValueInList(fuzz.PARTS) for _ in range(count)]

        return [
            (path(), source.PickValueInList(fuzz.KINDS), path(), source.ConsumeBytes(40))
            for _ in range(source.ConsumeIntInRange(0, 4))
        ]

    atheris.Setup([sys.argv[0], *flags], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
