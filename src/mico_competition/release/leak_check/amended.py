"""Checks the record of amendments, amendments.jsonl, against the organiser's own.

Everything in a line but the date and the reason follows from files or from earlier lines; the
reason is the only free text of a release, and is searched for secrets as all small files are.  What
a line states of files that are gone cannot be derived any more, and must be what the organiser's
openings.json holds.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mico_competition.competition.table import PHASE_NAMES, get_challenge

History = Sequence[Mapping[str, Any]]  # {"line": a line of the file, "replaced": openings} each

_KEYS = ["format", "challenge", "number", "date", "reason", "previous", "changes", "commitments"]
_DAY = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_MODEL = re.compile(r"([^/]+)/([^/]+)/model_(0|[1-9][0-9]*)")
_LONGEST = 300


def replaced_openings(history: History) -> list[Mapping[str, str]]:
    """The openings of models that are not part of the release any more."""
    return [opening for past in history for opening in past["replaced"].values()]


def amendments_faults(
    history: History, challenge: str, commitments: Path, sums: Mapping[str, str], content: bytes
) -> Iterator[str]:
    """What is wrong with amendments.jsonl.

    Args:
        history: the organiser's amendments.
        challenge: the name of the challenge.
        commitments: the file commitments.json of the release.
        sums: the SHA-256 of all files of the release, by name.
        content: the bytes of amendments.jsonl.
    """
    lines = [past["line"].encode() for past in history]
    if content != b"".join(lines):
        yield "is not the organiser's record of amendments"
        return
    try:
        records = [json.loads(line) for line in lines]
        if not all(_sound(challenge, *pair) for pair in zip(records, lines)):
            raise ValueError
        now = json.loads(commitments.read_bytes())["commitments"]
        last = {model: both["after"] for one in records for model, both in one["changes"].items()}
        for number in range(len(records), 0, -1):
            record = records[number - 1]
            if record["number"] != number or record["commitments"] != _digest(challenge, now):
                yield f"has an amendment {number} that does not lead to the commitments after it"
            for model, both in record["changes"].items():
                now.pop(model, None)
                if both["before"] and both["before"]["commitment"]:
                    now[model] = both["before"]["commitment"]
            before = _digest(challenge, now) if number == 1 else _sha256(lines[number - 2])
            if record["previous"] != before:
                yield f"has an amendment {number} that does not follow from what is before it"
    except (ValueError, KeyError, TypeError, AttributeError, OSError):
        yield "is not a record of amendments in its fixed form"
        return
    for model, state in last.items():
        there = {n: s for n, s in sums.items() if n.startswith(f"{challenge}/{model}/")}
        said = {f"{challenge}/{model}/{n}": s for n, s in (state or {"files": {}})["files"].items()}
        if not said.items() <= there.items() or (state is None and there):
            yield f"does not state the files of {model}"


def _sound(challenge: str, record: Mapping[str, Any], line: bytes) -> bool:
    """Whether a line has exactly the keys of an amendment, in its fixed form."""
    reason = record["reason"]
    return (
        list(record) == _KEYS
        and line == json.dumps(record, separators=(",", ":")).encode() + b"\n"
        and (record["format"], record["challenge"]) == (1, challenge)
        and _DAY.fullmatch(record["date"]) is not None
        and 0 < len(reason) <= _LONGEST
        and reason.isprintable()
        and all(
            _place(challenge, model)
            and set(both) == {"before", "after"}
            and all(s is None or set(s) == {"commitment", "files"} for s in both.values())
            for model, both in record["changes"].items()
        )
    )


def _place(challenge: str, model: str) -> tuple[int, int, int]:
    """Where the table lists a model; ValueError if it cannot be one of the challenge."""
    match = _MODEL.fullmatch(model)
    if match is None:
        raise ValueError("not a model")
    scenarios = list(get_challenge(challenge))
    return scenarios.index(match[1]), PHASE_NAMES.index(match[2]), int(match[3])


def _digest(challenge: str, committed: Mapping[str, str]) -> str:
    """SHA-256 of the commitments.json with these commitments."""
    ordered = sorted(committed.items(), key=lambda item: _place(challenge, item[0]))
    value = {"format": 1, "challenge": challenge, "commitments": dict(ordered)}
    return _sha256((json.dumps(value, indent=2) + "\n").encode())


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
