#!/usr/bin/env python3
"""Faults and load, for real: docs/results/reliability_*.json, one file a part.

    python benchmarks/reliability.py storm overhead workers threads leaks     (or some of them)

storm: a fleet is killed again and again, wholly and by single workers, until it is done.
overhead: a fleet of one worker against the same trainings without a fleet, in turns.
workers: how long a worker takes to start, and what it costs in memory.
threads: one worker with one thread and with two, on a quiet machine and on a busy one.
leaks: every leak that the tests plant in a release, and how many are caught.
Some 20 minutes on two cores.  docs/RELIABILITY.md tells what they found.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import signal
import statistics
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from helpers_fleet import Fleet, wait_for  # noqa: E402

from mico_competition.support.cpus import available_cpus  # noqa: E402

MODELS, KILLS, WORKER_KILLS = 200, 20, 10


def main() -> None:
    """Run the parts asked for, all by default."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], help="default: all")
    parser.add_argument("--work", type=Path, default=Path("/tmp/reliability"))
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    for name in args.parts or PARTS:
        started = time.perf_counter()
        report = PARTS[name](args.work / f"{name}_{time.time_ns()}")
        report |= {"machine": machine(), "seconds": round(time.perf_counter() - started)}
        path = ROOT / "docs" / "results" / f"reliability_{name}.json"
        path.write_text(json.dumps(report, indent=2) + "\n")
        print(json.dumps(report, indent=2))


def machine() -> str:
    """What the numbers were taken on."""
    return (
        f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}, "
        f"torch {version('torch')}"
    )


def storm(work: Path) -> dict[str, Any]:
    """Kill a fleet of MODELS models at random moments, until every kill has been dealt."""
    chance = random.Random(0)
    fleet = Fleet(work, "--stack", "1", "--num_epochs", "40", models=f"0-{MODELS - 1}")
    kills, worker_kills, touched, before = 0, 0, 0, {}
    while kills < KILLS:
        process = fleet.start()
        had = len(fleet.models())
        wait_for(lambda p=process, n=had: len(fleet.models()) > n or p.poll() is not None)
        while worker_kills < WORKER_KILLS * (kills + 1) / KILLS and fleet.workers():
            os.kill(chance.choice(fleet.workers()), signal.SIGKILL)
            worker_kills += 1
        time.sleep(chance.uniform(0, 1.5))
        if process.poll() is not None:
            break
        process.send_signal(chance.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM]))
        process.communicate()
        kills += 1
        wait_for(lambda: not fleet.workers())
        now = fleet.stamps()
        touched += sum(now.get(name) != stamp for name, stamp in before.items())
        before = now
    finished = fleet.run()
    now = fleet.stamps()
    touched += sum(now.get(name) != stamp for name, stamp in before.items())
    done = [event["model_id"] for event in fleet.events("done")]
    return {
        "command": "mico " + " ".join(["fleet", *fleet.flags]),
        "models": MODELS,
        "fleet_kills": kills,
        "worker_kills": worker_kills,
        "retries": len(fleet.events("lost")),
        "runs": len(fleet.events("run")),
        "exit_code_of_last": finished.returncode,
        "models_done": len(fleet.models()),
        "models_lost": MODELS - len(fleet.models()),
        "models_trained_twice": len(done) - len(set(done)),
        "files_touched_after_done": touched,
        "leftovers": len(fleet.leftovers()),
    }


def overhead(work: Path) -> dict[str, Any]:
    """A fleet of one worker, and `mico train` of the same models, in turns."""
    data = work / "data"
    make = ["mico_competition.data.synthetic", str(data), "--records", "20000"]
    subprocess.run([sys.executable, "-m", *make], check=True)
    flags = ["--len_training", "15000", "--dataset_dir", str(data)]
    count, ratios, rows = 8, [], []
    for turn in range(3):
        out = str(work / f"fleet{turn}")
        ids = f"0-{count - 1}"
        train = ["train", "--scenario", "purchase100_lo", "--model_id", ids, *flags]
        bare = timed([*train, "--output_dir", str(work / f"bare{turn}")])
        fleet = ["fleet", "purchase100_lo", "--models", ids, "--out", out, *flags]
        with_fleet = timed([*fleet, "--workers", "1", "--threads", "1"])
        ratios.append(with_fleet / bare)
        rows.append({"bare_seconds": round(bare, 1), "fleet_seconds": round(with_fleet, 1)})
    return {
        "command": "mico " + " ".join([*fleet, "--workers", "1", "--threads", "1"]),
        "against": "mico " + " ".join(train),
        "models": count,
        "turns": rows,
        "overhead_median": round(statistics.median(ratios) - 1, 4),
    }


def timed(arguments: list[str]) -> float:
    """Seconds that a `mico` command takes, start to end."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "mico_competition.cli", *arguments]
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - started


def workers(work: Path) -> dict[str, Any]:
    """Seconds until a worker trains, and its memory beside that of others (full-size Purchase)."""
    data = work / "data"
    make = ["mico_competition.data.synthetic", str(data), "--records", "197324"]
    subprocess.run([sys.executable, "-m", *make], check=True)
    rows = []
    for count in (n for n in (1, 2, 4) if n <= available_cpus()):
        fleet = Fleet(work / f"out{count}", models="0-7")
        flags = ["--dataset_dir", str(data), "--threads", "1", "--workers", str(count)]
        arguments = ["purchase100_inf", "--models", "0-7", "--out", str(fleet.out), *flags]
        fleet.folder = fleet.out / "fleet" / "purchase100_inf"
        fleet.flags = arguments
        process = fleet.start()
        wait_for(lambda fleet=fleet: (fleet.folder / "dataset.pt").exists())
        started = time.perf_counter()
        pids = wait_for(lambda fleet=fleet, n=count: len(fleet.workers()) == n and fleet.workers())
        seconds = time.perf_counter() - started
        time.sleep(15)
        rows.append({"workers": count, "seconds_to_all": round(seconds, 2)} | memory(pids))
        process.send_signal(signal.SIGTERM)
        process.communicate()
    return {
        "command": "mico fleet " + " ".join(arguments),
        "rows": rows,
    }


def threads(work: Path) -> dict[str, Any]:
    """Seconds a model of one worker, by its threads and by how many others want the CPUs."""
    rows = []
    for others in (0, available_cpus()):
        for turn in range(3):
            for count in (1, 2):
                busy = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(others)]
                try:
                    seconds = seconds_a_model(work / f"{others}_{turn}_{count}", count)
                finally:
                    for process in busy:
                        process.kill()
                rows.append({"others": others, "threads": count, "seconds": seconds})
    medians = {
        f"{others} others, {count} threads": statistics.median(
            row["seconds"] for row in rows if (row["others"], row["threads"]) == (others, count)
        )
        for others in (0, available_cpus())
        for count in (1, 2)
    }
    return {"command": f"mico {' '.join(THREADS)} --threads N", "rows": rows, "medians": medians}


THREADS = [
    *("fleet", "digits_hi", "--models", "0-3", "--workers", "1"),
    *("--stack", "1", "--num_epochs", "30"),
]
BUSY = "while True: pass"


def seconds_a_model(out: Path, count: int) -> float:
    """The median over the models of one fleet, by their own metadata."""
    timed([*THREADS, "--out", str(out), "--threads", str(count)])
    found = [json.loads(path.read_text()) for path in out.rglob("metadata.json")]
    assert {metadata["machine"]["threads"] for metadata in found} == {count}
    return round(statistics.median(metadata["wall_time_seconds"] for metadata in found), 2)


def memory(pids: Any) -> dict[str, Any]:
    """MB of each worker that are its own, and that it shares with others, means over workers."""
    own, shared, proportional = [], [], []
    for pid in pids:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        kb = {line.split(":")[0]: int(line.split()[1]) for line in text.splitlines()[1:]}
        own.append(kb["Private_Clean"] + kb["Private_Dirty"])
        shared.append(kb["Shared_Clean"] + kb["Shared_Dirty"])
        proportional.append(kb["Pss"])
    names = {"own_mb": own, "shared_mb": shared, "proportional_mb": proportional}
    return {name: round(statistics.mean(values) / 1024, 1) for name, values in names.items()}


def run_tests(work: Path, files: list[str]) -> list[tuple[str, bool, float]]:
    """Name, success and seconds of every test in `files`."""
    work.mkdir(parents=True)
    command = [sys.executable, "-m", "pytest", "-q", "--junit-xml", str(work / "out.xml"), *files]
    subprocess.run(command, cwd=ROOT, check=False, capture_output=True)
    cases = ElementTree.parse(work / "out.xml").getroot().iter("testcase")
    return [
        (case.get("name", ""), not len(case), float(case.get("time", "nan")))  # children are faults
        for case in cases
    ]


def leaks(work: Path) -> dict[str, Any]:
    """Plant every leak that the tests know, and count those that were caught."""
    files = [
        f"tests/release/test_leak_{name}.py" for name in ("encodings", "check", "forms", "archives")
    ]
    rows = [(name, ok) for name, ok, _ in run_tests(work, files)]
    plants = [(name, caught) for name, caught in rows if "[" in name and "clean" not in name]
    kinds: dict[str, list[bool]] = {}
    for name, caught in plants:
        kinds.setdefault(name.partition("[")[0].removeprefix("test_"), []).append(caught)
    return {
        "command": "pytest " + " ".join(files),
        "planted": len(plants),
        "caught": sum(caught for _, caught in plants),
        "kinds": {kind: [len(caught), sum(caught)] for kind, caught in kinds.items()},
        "other_tests": len(rows) - len(plants),
        "other_tests_passed": sum(ok for _, ok in rows) - sum(ok for _, ok in plants),
    }


PARTS = {
    "storm": storm,
    "overhead": overhead,
    "workers": workers,
    "threads": threads,
    "leaks": leaks,
}


if __name__ == "__main__":
    main()
