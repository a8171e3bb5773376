"""`--json`: what a verb reports, as one JSON object that is alone on standard output.

An object begins with `report`, the name of a row of `REPORTS`; `schema`, the version of its form,
which grows when a field changes or goes; and `mico_competition`, the version of the package.  Its
other fields are those of the row.  A number that is infinite or not known is null.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import math
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

SCHEMA = 1
REPORTS: dict[str, dict[str, str]] = {
    "attack list": {
        "attacks": "list of objects: name, title, source, access, cost, least_shadows, ...",
    },
    "audit": {
        "alarm": "whether the lower bound of any scenario exceeds its claimed epsilon",
        "scenarios": "list of objects: scenario, sentence, alarm, proven, bounds, metrics, ...",
    },
    "audit of scores": {
        "sentence": "the bound that presumes least, in words",
        "epsilon": "that bound",
        "delta": "of every bound",
        "level": "confidence of each bound",
        "models": "how many",
        "members": "how many",
        "nonmembers": "how many",
        "bounds": "list of objects: method, epsilon",
        "missing": "method -> why it gives no bound",
    },
    "audit-train": {
        "scenario": "name, or null",
        "task": "name",
        "sentence": "the verdict",
        "alarm": "whether any audit raises one",
        "audits": "list of objects, one for each way to train: bounds, checks, alarms, ...",
    },
    "benchmark": {
        "tier": "name",
        "entries": "list of objects: name, file, and average (over scenarios: metrics and gain, "
        "each key -> value, low, high)",
    },
    "bundle check": {
        "file": "the bundle",
        "sound": "whether there are only warnings",
        "faults": "list of objects: severity, where, what, fix",
    },
    "check": {
        "checked": "the folder or the zip",
        "sound": "whether there are no faults",
        "faults": "list of sentences",
    },
    "download plan": {
        "challenge": "name",
        "repo": "OWNER/NAME",
        "commit": "its commit",
        "folder": "where the models go",
        "models": "how many are selected",
        "missing": "how many are to be downloaded",
        "bytes": "of all selected models",
        "bytes_there": "of those that exist already",
    },
    "evaluate": {
        "scenarios": "list of objects: scenario, phase, models, attacks (each with metrics), ...",
    },
    "fleet merge": {
        "out": "the new folder",
        "fleets": "list of objects: scenario, models, finished, parts (folder -> finished models)",
    },
    "fleet plan": {
        "plan": "models, missing, steps, seconds_a_step, stack, workers, device, hours, "
        "worker_hours, gpu_hours, workers_on_a_gpu, gain_of_sharing, gpu_kilowatt_hours, "
        "disk_bytes (training, release, archives), free_bytes, memory_bytes, bound",
    },
    "fleet status": {
        "whole": "whether all models are finished and intact",
        "fleets": "list of objects: scenario, models, done, failed (ids), left, state, "
        "models_per_hour, time_left, damaged (id -> what is wrong)",
    },
    "leaderboard check": {
        "entries": "how many are sound",
        "faults": "list of sentences",
    },
    "leaks": {
        "challenges": "list of names",
        "sound": "whether nothing was found",
        "faults": "list of sentences",
    },
    "rehearse": {
        "sound": "whether every phase scored",
        "faults": "list of objects: severity, where, what, fix",
        "phases": "list of objects: name, status, words, seconds, scores, complete, closed",
    },
    "score": {
        "phase": "name",
        "ranked": "the key of the number that ranks",
        "average": "of that number over the scenarios: value, low, high",
        "scenarios": "list of objects: scenario, label, models, and metrics: "
        "key -> value, low, high (95 %)",
    },
    "score-all": {
        "zips": "how many",
        "scored": "how many now",
        "before": "how many before",
        "faulty": "how many have faults",
        "outcomes": "list of objects: zip, entries (paths), before, faults (text)",
    },
    "signals": {
        "scenarios": "list of objects: scenario, models, cached, points, seconds, folder",
    },
    "tracks": {
        "scenarios": "list of objects with every column of the table, and phases",
    },
    "train plan": {
        "plan": "what --dry_run prints without --json: every setting, output_dir, checked, "
        "not_checked, noise_multiplier, epsilon, and cost as in `fleet plan`",
    },
    "verify": {
        "checked": "`files` or `labels`",
        "count": "how many match",
        "sound": "whether there are no faults",
        "faults": "list of sentences",
        "amendments": "with `files`: number, date, reason and models of each amendment",
    },
}
"""Report -> its fields."""

_out: Any = None  # standard output, while only a report may be written to it


def add_json(parser: argparse.ArgumentParser, *, file: bool = False) -> None:
    """Give `parser` the flag --json; with `file` it may name a file to write as well."""
    if not file:
        parser.add_argument("--json", action="store_true", help="print a report as JSON only")
        return
    parser.add_argument(
        "--json",
        nargs="?",
        const=True,
        type=_target,
        metavar="FILE",
        help="print a report as JSON only; with FILE, write it there beside the usual output",
    )


def _target(text: str) -> Any:
    """Where a report goes: True for standard output, or a file."""
    from mico_competition.support.command_line import output_file

    return True if text == "-" else output_file(text)


@contextmanager
def only_a_report(wanted: bool) -> Iterator[None]:
    """Drop what the block prints to standard output, except for its report, if that is wanted."""
    global _out
    if not wanted:
        yield
        return
    _out, before = sys.stdout, _out
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        _out = before


def report(name: str, **fields: Any) -> None:
    """Print a report if --json asks for one."""
    if _out is not None:
        _out.write(report_text(name, **fields))


def report_text(name: str, **fields: Any) -> str:
    """A report as text; `fields` are those of its row in `REPORTS`."""
    from mico_competition import __version__

    assert set(fields) == set(REPORTS[name]), f"fields of the report {name}"
    head = {"report": name, "schema": SCHEMA, "mico_competition": __version__}
    values = {key: _plain(value) for key, value in fields.items()}
    return json.dumps({**head, **values}, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    """A value as JSON has it."""
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Decimal):
        value = float(value)
    if hasattr(value, "item"):  # a number of numpy
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
