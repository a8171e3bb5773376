#!/usr/bin/env python3
"""docs/RELIABILITY.md from docs/results/*.json; `make results` ends with this, in a second."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from markdown_tables import table

DOCS = Path(__file__).resolve().parent.parent / "docs"

HEAD = """# Faults that were tried, and their outcomes

`benchmarks/reliability_page.py` generates this page from `docs/results/*.json`; the runs are
those of `benchmarks/reliability.py`, `benchmarks/hostile_cases.py` and
`benchmarks/fuzz_scoring.py`. The machines were shared with other work: seconds are upper bounds,
and ratios come from alternating runs.
"""


def main() -> None:
    """Write the page."""
    sections = [HEAD, fleets(), memory(), cluster(), leaks(), hostile(), cost(), fuzz()]
    (DOCS / "RELIABILITY.md").write_text("\n".join(sections), encoding="utf-8")


def read(name: str) -> Any:
    """One JSON of docs/results/."""
    return json.loads((DOCS / "results" / f"{name}.json").read_text(encoding="utf-8"))


def fleets() -> str:
    """Kills, and the overhead of a fleet."""
    storm, overhead = read("reliability_storm"), read("reliability_overhead")
    rows = [
        ["models to train", storm["models"]],
        ["kills of the whole fleet (two thirds SIGKILL, one third SIGTERM)", storm["fleet_kills"]],
        ["kills of single workers (SIGKILL)", storm["worker_kills"]],
        ["models tried again within a run", storm["retries"]],
        ["models finished", storm["models_done"]],
        ["models lost", storm["models_lost"]],
        [
            "models trained twice (a second result for a finished one)",
            storm["models_trained_twice"],
        ],
        ["files of finished models that changed later", storm["files_touched_after_done"]],
        ["half-written folders left", storm["leftovers"]],
    ]
    turns = ", ".join(f"{t['fleet_seconds']} / {t['bare_seconds']} s" for t in overhead["turns"])
    return (
        f"## A fleet that is killed again and again\n\n`{generic(storm['command'])}`, killed at "
        f"random moments ({storm['machine']}):\n\n{table(['', ''], rows)}\n\n"
        "The tests also kill it at chosen moments (ledger just written, workers starting, between "
        "models, while a folder is being written), fill its disk, stop it with Ctrl-C "
        "(`tests/fleets/test_fleet_workers.py`), and kill workers before they can begin "
        "(`tests/fleets/test_fleet_births.py`). `mico fleet status`, the next run and "
        "`mico release` detect files of finished models that were emptied, truncated, changed or "
        "lost (`tests/fleets/test_finished.py`).\n\n"
        f"**Overhead of a fleet**: {overhead['models']} models, from command to prompt, one "
        "worker with one thread, against `mico train` of the same models with one thread, "
        f"alternating: {turns}; median overhead {overhead['overhead_median']:+.1%}.\n"
        f"`{generic(overhead['command'])}`\n"
    )


def memory() -> str:
    """Time and memory of workers."""
    report = read("reliability_workers")
    rows = [
        [r["workers"], r["seconds_to_all"], r["own_mb"], r["proportional_mb"]]
        for r in report["rows"]
    ]
    head = ["workers", "seconds until all train", "own MB of each", "own and shared MB of each"]
    return (
        "## Workers\n\nFull-size Purchase-100 (197,324 synthetic records), without privacy. A "
        "worker is a fork of one process that has imported all packages, and maps the dataset's "
        "file. A private run's workers also search for the noise first, 1 to 4 s each.\n\n"
        + table(head, rows)
        + "\n"
        + threads()
    )


def threads() -> str:
    """The effect of a second thread."""
    report = read("reliability_threads")
    others = max(row["others"] for row in report["rows"])
    quiet, busy = (
        [report["medians"][f"{n} others, {count} threads"] for count in (1, 2)] for n in (0, others)
    )
    return (
        "\nWorkers and their threads never take more CPUs than the run may use, by its affinity, "
        "the quota of its container and `OMP_NUM_THREADS`. A surplus thread waits for a CPU that "
        "another process has, and the others of its step wait with it. Seconds for each model of "
        f"one worker (`{generic(report['command'])}`, {report['machine']}, medians of 3 turns):\n\n"
        + table(
            ["", "1 thread", "2 threads"],
            [
                ["no other load of ours", *quiet],
                [f"{others} busy processes", *busy],
            ],
        )
        + "\n"
    )


def cluster() -> str:
    """A Ray cluster; CLUSTER.md has the figures."""
    return (
        "## A Ray cluster that loses a node\n\nOn two real nodes on one machine, a node, a worker "
        "and the head were killed while models trained: [CLUSTER.md](CLUSTER.md) describes what "
        "happens, what it costs, and what was not run. The tests "
        "(`tests/fleets/test_fleet_ray.py`) check that all models complete, that none is trained "
        "twice, and that the bits are those of local workers.\n"
    )


def leaks() -> str:
    """Planted leaks."""
    report = read("reliability_leaks")
    rows = [[kind.replace("_", " "), *counts] for kind, counts in report["kinds"].items()]
    return (
        f"## Releases\n\nLeaks planted: {report['planted']}; caught: {report['caught']} "
        f"(`{report['command']}`; {report['other_tests_passed']} of {report['other_tests']} other "
        "tests of the check passed, among them that clean releases of all four challenges have "
        f"no fault).\n\n{table(['kind of leak', 'planted', 'caught'], rows)}\n\n{_REMAINS}"
    )


_REMAINS = """\
The check derives from the trained models what every file of a release must hold, and compares
bytes: metadata and configurations field by field, each with a type and a closed set of values (the
only free text, the name of your own base model, is left out), seeds and labels with those of the
trained model, checksums, commitments and `release.json` with the files that they describe, weights
with the trained tensors, archives with the files of their phase. So the encoding of a secret does
not matter. The search of all bytes only names what leaked, and covers what training wrote.

**What it cannot see**: what the training program itself hides, since the release must repeat it.
This includes the low bits of weights; the last digits of numbers that training reports (epsilon,
the noise multiplier) or that were set (a learning rate), and the fingerprints of dataset and code,
each the same for all models of a scenario; a text model's vocabulary, the same for all models and
searched; and the set of models. The reason of an [amendment](reference/release.md#amendments) is
text that the organiser writes; it is searched as well. What a model remembers of its members is the
subject of the competition. Nor does the check protect the trained folder: somebody who can change
both this and the release can change both consistently.
"""


def hostile() -> str:
    """Hostile submissions."""
    cases = read("hostile")
    rows = [[c["case"], c["layer"], c["result"]] for c in cases]
    seconds, megabytes = (max(c[name] for c in cases) for name in ("seconds", "mb"))
    expected = sum(c["as_expected"] for c in cases)
    return (
        f"## Hostile submissions\n\n{len(cases)} cases, {expected} of them with the expected "
        f"result; the slowest took {seconds} s of CPU time, the largest {megabytes} MB. `tree` is "
        "an unpacked submission for the scoring program; `zip` is a zip for `mico check --zip`, "
        f"`score-all` and `rehearse`.\n\n{table(['case', 'layer', 'result'], rows)}\n"
    )


def cost() -> str:
    """The scorer against a program of 2022's kind."""
    report = read("scorer_cost")
    rows = [[r["program"], r["seconds"], r["mb"], r["wall"]] for r in report["rows"]]
    head = ["program", "s of CPU time", "MB", "s of wall time"]
    return (
        f"## What scoring costs\n\n3 scenarios x {report['models'] // 3} models x "
        f"{report['points']} points, medians of {report['turns']} turns. The stand-in imports "
        "scikit-learn, pandas and matplotlib, as 2022's program did, and computes the same scores; "
        f"it is not that program. Ours also draws the page ({report['page_bytes'] / 1000:.0f} kB) "
        f"with intervals.\n\n{table(head, rows)}\n"
    )


def fuzz() -> str:
    """Fuzzing."""
    report = read("fuzz_scoring")
    rows = [
        [target, engine, r["executions"], r["seconds"], len(r["findings"])]
        for engine in ("hypothesis", "atheris")
        for target, r in report[engine].items()
    ]
    head = ["target", "engine", "executions", "seconds", "findings"]
    return f"## Fuzzing the scorer\n\nPython {report['python']}.\n\n{table(head, rows)}\n"


def generic(command: str) -> str:
    """A command without this machine's folders."""
    words = command.split()
    return " ".join("DIR" if word.startswith("/") else word for word in words)


if __name__ == "__main__":
    main()
