"""Amendments: a public, hash-chained record of models that were replaced after publication.

`<challenge>.release/amendments.jsonl` has one line for each amendment, and lines are only ever
added.  A line is a JSON object without spaces, with these keys:

    format, challenge, number   1, the challenge's name, and the line's number from 1
    date, reason                the day (UTC) and one sentence
    previous                    SHA-256 of the line before, with its newline; of commitments.json
                                as first released for number 1
    changes                     by model, its state before and after, or null where it was not
                                part of the release: {"commitment": 64 hexadecimal digits or null,
                                "files": {name: SHA-256}}
    commitments                 SHA-256 of commitments.json after the amendment

Anybody can undo the changes in today's commitments.json, one amendment after the other, and must
obtain each of these hashes (docs/METHODS.md, section 12.3, formula 99).  So a line cannot be
changed, dropped or moved unless all later ones are written anew, and somebody who kept an earlier
commitments.json or amendments.jsonl notices that too (`descent`).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

from mico_competition.competition.layout import model_id_of, release_folder
from mico_competition.competition.rows import AMENDMENTS_FILE as AMENDMENTS_FILE
from mico_competition.competition.table import PHASE_NAMES, get_challenge
from mico_competition.release.archives import SUMS_FILE, read_sums
from mico_competition.release.commitments import (
    COMMITMENTS_FILE,
    as_public,
    commitments_in,
    openings_path,
    read_history,
)
from mico_competition.support.files import PathLike
from mico_competition.support.untrusted import parse_json, read_limited_text

LONGEST_REASON = 300  # characters
_DIGEST = re.compile(r"[0-9a-f]{64}")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_LARGEST = 1 << 26  # the most bytes of the file
_AGAIN = "fetch it again"

# {"commitment": 64 hexadecimal digits or None, "files": {name: SHA-256}}; None without a model
State = dict[str, Any] | None


@dataclass(frozen=True)
class Amendment:
    """A line of amendments.jsonl; `changes` maps models to their states before and after."""

    number: int
    date: str
    reason: str
    previous: str
    changes: dict[str, dict[str, State]]
    commitments: str

    def line(self, challenge: str) -> str:
        """The line of the file, with its newline."""
        value = {"format": 1, "challenge": challenge, **asdict(self)}
        return json.dumps(value, separators=(",", ":")) + "\n"

    def sentence(self) -> str:
        """What the amendment changed: "replaced a, withdrew b"."""
        parts: dict[str, list[str]] = {}
        for model, change in self.changes.items():
            parts.setdefault(_verb(change), []).append(model)
        return "; ".join(f"{verb} {', '.join(models)}" for verb, models in parts.items())


def _verb(change: Mapping[str, State]) -> str:
    if change["before"] is None:
        return "added"
    return "withdrew" if change["after"] is None else "replaced"


def check_reason(reason: str) -> str:
    """Return `reason`; ValueError if it is not one printable line of at most 300 characters."""
    if not reason.strip() or len(reason) > LONGEST_REASON or not reason.isprintable():
        raise ValueError(
            f"The reason of an amendment has {len(reason)} characters: write one line of 1 to "
            f"{LONGEST_REASON} printable ones, since everybody will read it."
        )
    return reason


def check_date(text: str) -> str:
    """Return `text`; ValueError if it is no date of the form YYYY-MM-DD."""
    try:
        if not _DATE.fullmatch(text):
            raise ValueError
        date.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is no date: write it as in 2027-01-31.") from None
    return text


def sha256_of_text(text: str) -> str:
    """SHA-256 of a text in UTF-8, in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


def commitments_digest(challenge: str, committed: Mapping[str, str]) -> str:
    """SHA-256 of the commitments.json that holds these commitments, in a release's fixed form."""
    ordered = {model: committed[model] for model in sorted(committed, key=_place_in(challenge))}
    return sha256_of_text(json.dumps(as_public(challenge, ordered), indent=2) + "\n")


def in_order(challenge: str, models: Sequence[str]) -> list[str]:
    """Relative paths of models in the order of the table, as a release lists them."""
    return sorted(models, key=_place_in(challenge))


def _place_in(challenge: str) -> Any:
    scenarios = list(get_challenge(challenge))

    def place(model: str) -> tuple[int, int, int]:
        scenario, phase, folder = model.split("/")
        number = model_id_of(folder)
        if number is None:
            raise ValueError(f"{folder} is no folder of a model.")
        return scenarios.index(scenario), PHASE_NAMES.index(phase), number

    return place


def read_amendments(challenge_folder: PathLike) -> list[Amendment]:
    """Read the amendments of a release, of which there may be none.

    Args:
        challenge_folder: the released challenge folder, beside which `<challenge>.release` lies.

    Raises:
        ValueError: if the file has another form; the chain is checked by `history_faults`.
    """
    path = release_folder(challenge_folder) / AMENDMENTS_FILE
    return amendments_in(path)[1] if path.exists() else []


def amendments_in(path: Path) -> tuple[str, list[Amendment]]:
    """The challenge's name and the amendments in a file amendments.jsonl; ValueError if not."""
    text = read_limited_text(path, _LARGEST, "a record of amendments", _AGAIN)
    found, names = [], set()
    for number, line in enumerate(text.splitlines(keepends=True), start=1):
        try:
            value = parse_json(line)
            challenge, amendment = _parsed(value)
            if amendment.line(challenge) != line:
                raise ValueError
        except (ValueError, TypeError, KeyError, AttributeError):
            raise ValueError(
                f"Line {number} of {path} is not an amendment as `mico release` writes it: "
                f"{_AGAIN}."
            ) from None
        found.append(amendment)
        names.add(challenge)
    if len(names) != 1:
        raise ValueError(f"{path} does not hold the amendments of one challenge: {_AGAIN}.")
    return names.pop(), found


def _parsed(value: Any) -> tuple[str, Amendment]:
    """The challenge and amendment in the object of a line; an error if it has another form."""
    keys = ("number", "date", "reason", "previous", "changes", "commitments")
    amendment = Amendment(**{key: value[key] for key in keys})
    digests = [amendment.previous, amendment.commitments]
    check_reason(amendment.reason)
    check_date(amendment.date)
    models = in_order(value["challenge"], list(amendment.changes))
    for model, change in amendment.changes.items():
        if list(change) != ["before", "after"] or change["before"] == change["after"]:
            raise ValueError(model)
        for state in change.values():
            if state is None:
                continue
            names = list(state["files"])
            if list(state) != ["commitment", "files"] or names != sorted(names) or not names:
                raise ValueError(model)
            committed = [] if state["commitment"] is None else [state["commitment"]]
            digests += [*state["files"].values(), *committed]
    if (
        value["format"] != 1
        or type(amendment.number) is not int
        or not amendment.changes
        or models != list(amendment.changes)
        or not all(_DIGEST.fullmatch(digest) for digest in digests)
    ):
        raise ValueError("another form")
    return value["challenge"], amendment


def rolled_back(
    challenge: str, committed: Mapping[str, str], amendments: Sequence[Amendment]
) -> tuple[list[dict[str, str]], list[str]]:
    """Undo amendments in today's commitments.

    Returns:
        The commitments before the first amendment, after it, and so on until today; and a
        sentence for each hash or state that does not follow.
    """
    now = dict(committed)
    states, faults = [dict(now)], []
    for amendment in reversed(amendments):
        if commitments_digest(challenge, now) != amendment.commitments:
            faults.append(
                f"Amendment {amendment.number} does not lead to the commitments that the release "
                "has, or had before the next amendment."
            )
        for model, change in amendment.changes.items():
            if now.pop(model, None) != _committed(change["after"]):
                faults.append(
                    f"{model}: its commitment is not that of amendment {amendment.number}, and no "
                    "other one changed it."
                )
            if (value := _committed(change["before"])) is not None:
                now[model] = value
        states.append(dict(now))
    return states[::-1], faults[::-1]


def _committed(state: State) -> str | None:
    return None if state is None else state["commitment"]


def history_faults(challenge_folder: PathLike, stated: object = None) -> list[str]:
    """A sentence for each fault of a release's amendments.

    Args:
        challenge_folder: the released challenge folder, beside which `<challenge>.release` lies.
        stated: the number of amendments in release.json, None if it states none.

    Raises:
        ValueError: if a file is missing or has another form.
    """
    side = release_folder(challenge_folder)
    amendments = read_amendments(challenge_folder)
    if len(amendments) != (stated or 0) or type(stated) is bool:
        return [
            f"release.json states {stated or 0} amendments, and {AMENDMENTS_FILE} holds "
            f"{len(amendments)}."
        ]
    if not amendments:
        return []
    challenge, committed = commitments_in(side / COMMITMENTS_FILE)
    states, faults = rolled_back(challenge, committed, amendments)
    original = commitments_digest(challenge, states[0])
    faults += chain_faults(challenge, amendments, original)
    return [*faults, *_state_faults(challenge, amendments, read_sums(side / SUMS_FILE))]


def chain_faults(challenge: str, amendments: Sequence[Amendment], original: str) -> list[str]:
    """Amendments whose number, date or `previous` does not follow from what is before them.

    `original` is the SHA-256 of commitments.json as it was first released.
    """
    faults, previous, day = [], original, ""
    for number, amendment in enumerate(amendments, start=1):
        if amendment.number != number:
            faults.append(f"Line {number} of {AMENDMENTS_FILE} has number {amendment.number}.")
        if amendment.previous != previous:
            before = f"amendment {number - 1}" if number > 1 else "the original commitments"
            faults.append(f"Amendment {number} does not follow from {before}: it was altered.")
        if amendment.date < day:
            faults.append(f"Amendment {number} has an earlier date than the one before.")
        previous, day = sha256_of_text(amendment.line(challenge)), amendment.date
    return faults


def _state_faults(
    challenge: str, amendments: Sequence[Amendment], sums: Mapping[str, str]
) -> list[str]:
    """Models whose states do not follow from each other, or are not those of the release."""
    faults: list[str] = []
    last: dict[str, State] = {}
    for amendment in amendments:
        for model, change in amendment.changes.items():
            if model in last and change["before"] != last[model]:
                faults.append(
                    f"{model}: amendment {amendment.number} states other files than the amendment "
                    "before it."
                )
            last[model] = change["after"]
    files = files_by_model(challenge, sums)
    for model, state in last.items():
        present = files.get(model, {})
        if state is None and present:
            faults.append(f"{model}: it was withdrawn, and is part of the release.")
        elif state is not None and not state["files"].items() <= present.items():
            faults.append(f"{model}: its files are not those of its last amendment.")
    return faults


def files_by_model(challenge: str, sums: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Model -> name -> SHA-256, from the names and checksums of SHA256SUMS."""
    files: dict[str, dict[str, str]] = {}
    for name, digest in sorted(sums.items()):
        folder, _, file = name.rpartition("/")
        if folder.startswith(f"{challenge}/"):
            files.setdefault(folder.removeprefix(f"{challenge}/"), {})[file] = digest
    return files


def summary_line(amendments: Sequence[Amendment]) -> str:
    """One line: how many amendments there are, and which models they changed."""
    if not amendments:
        return "No amendments: the release has the models that it was published with"
    count = "1 amendment" if len(amendments) == 1 else f"{len(amendments)} amendments"
    each = (f"{one.number} ({one.date}) {one.sentence()}: {one.reason}" for one in amendments)
    return f"{count}: {' | '.join(each)}"


def stored_text(root: PathLike, challenge: str, count: int | None = None) -> str:
    """The text of amendments.jsonl that the trained folder holds, or its first `count` lines."""
    return "".join(past["line"] for past in read_history(root, challenge)[:count])


def check_whole_history(root: PathLike, tree: Path) -> None:
    """Raise ValueError if SHA256SUMS of a release lacks an amendment of its trained folder.

    An amendment that was killed leaves such a release, and so does one that was made on another
    copy.
    """
    if lacking := lacking_amendments(root, tree):
        raise ValueError(
            f"{tree} lacks amendment {lacking[0].number} of {lacking[0].date}, which was begun: "
            "give its command (`mico release ... --amend`) again to complete it."
        )


def lacking_amendments(root: PathLike, tree: Path) -> list[Amendment]:
    """The last amendments of the trained folder, which SHA256SUMS of release `tree` lacks.

    Raises:
        ValueError: if the amendments of the release are not those of the trained folder.
    """
    challenge, side = tree.name, release_folder(tree)
    digest = read_sums(side / SUMS_FILE).get(f"{side.name}/{AMENDMENTS_FILE}")
    history = read_history(root, challenge)
    for count in range(len(history), -1, -1):
        text = stored_text(root, challenge, count)
        if (sha256_of_text(text) if text else None) == digest:
            return [_parsed(parse_json(past["line"]))[1] for past in history[count:]]
    raise ValueError(
        f"The amendments of {tree} are not those in {openings_path(root, challenge)}: put back "
        "the folder with which the release was made."
    )


def amended_models(challenge_folder: PathLike) -> dict[str, Amendment]:
    """The last amendment of each model that was added, replaced or withdrawn, by relative path."""
    amendments = read_amendments(challenge_folder)
    return {model: amendment for amendment in amendments for model in amendment.changes}


def all_amended(root: PathLike, challenge: str) -> set[str]:
    """The relative paths of all models that amendments of the trained folder name."""
    lines = (past["line"] for past in read_history(root, challenge))
    return {model for line in lines for model in _parsed(parse_json(line))[1].changes}
