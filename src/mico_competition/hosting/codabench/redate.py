"""`mico bundle --redate`: moves the dates of a bundle that is finished, and changes nothing else.

The dates stand in competition.yaml, in pages and in the notice of Final's placeholder.  They are
replaced as texts, so what the organisers wrote by hand stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from mico_competition.competition.table import SCORED_PHASES
from mico_competition.hosting.codabench.check import (
    Fault,
    check_bundle,
    has_errors,
    platform_of,
    read_yaml,
)
from mico_competition.hosting.codabench.facts import PHASE_TITLES, Schedule, date_text
from mico_competition.hosting.codabench.files import MAX_TEXT, Archive
from mico_competition.hosting.codabench.options import CODABENCH
from mico_competition.hosting.codabench.rules.scored import scored_phases
from mico_competition.hosting.codabench.yaml_form import PAGES, TERMS, YAML_FILE
from mico_competition.scoring.truth import NOTICE_FILE
from mico_competition.support.counts import count_of
from mico_competition.support.files import PRIVATE, PathLike, written_aside
from mico_competition.support.zips import zip_bytes

NAMES = ("dev_start", "final_start", "end")
_MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
_DATES = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d")


@dataclass(frozen=True)
class Redated:
    """What moved: the schedules, the changed pages with their titles, and what needs a look.

    `pages` maps the file of each changed page to its title and its new text, `left` are sentences
    on pages that still name an old day in other words, and `faults` the warnings of the check.
    """

    platform: str
    before: Schedule
    after: Schedule
    pages: dict[str, tuple[str, bytes]]
    left: list[str]
    faults: list[Fault]


def redate(
    bundle: PathLike, to: PathLike, dates: Mapping[str, str | None], *, now: datetime
) -> Redated:
    """Write a copy of a bundle with other dates, which only its owner can read.

    All other bytes of its files stay as they are.

    Args:
        bundle: the zip, of either platform.
        to: the zip to write; an earlier one is replaced.
        dates: `dev_start`, `final_start` and `end` as YYYY-MM-DD HH:MM:SS in UTC; one that is
            missing or None keeps its date.
        now: the present, in UTC.

    Raises:
        ValueError: if the bundle has not the form that `write_bundle` gives, if no date moves, if
            the new dates are out of order or in the past, or if the result has an error. Nothing
            is written then.
    """
    with Archive(bundle) as archive:
        spec, faults = read_yaml(archive)
        if spec is None:
            raise ValueError(f"{archive.label} cannot be read: {faults[0]}")
        platform = platform_of(spec)
        before = _schedule(spec, platform, archive.label)
        after = _moved(before, dates, now)
        texts = _texts(before, after)
        changes = dict(_changes(spec, archive, texts))
        titles = {file: title for title, file in page_files(spec)}
        pages = {file: (titles[file], text) for file, text in changes.items() if file in titles}
        left = [
            f"{file} also says {words!r}: correct it by hand if that is the old date."
            for file in titles
            if archive.holds(file)
            for words in _left(changes.get(file) or archive.read(file), before, after)
        ]
        with written_aside(to, access=PRIVATE) as aside:
            archive.copy(aside, changes)
            found = check_bundle(aside)
            if has_errors(found):
                listing = "\n".join(f"  {fault}" for fault in found)
                raise ValueError(
                    f"With these dates the bundle does not pass its check, "
                    f"{count_of(len(found), 'fault')}:\n{listing}"
                )
    return Redated(platform, before, after, pages, left, found)


def page_files(spec: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The title and the file of each page that competition.yaml names, terms included."""
    listed = spec.get("pages")
    for page in listed if isinstance(listed, list) else ():
        if isinstance(page, dict) and isinstance(page.get("file"), str):
            yield str(page.get("title")), page["file"]
    named = spec.get("html")
    named = named if isinstance(named, dict) else {TERMS: spec.get("terms")}
    for name, file in named.items():
        if isinstance(file, str):
            yield PAGES.get(name, str(name).capitalize()), file


def _schedule(spec: Mapping[str, Any], platform: str, label: str) -> Schedule:
    """The dates in competition.yaml."""
    phases = scored_phases(spec)
    if len(phases) != len(SCORED_PHASES):
        raise ValueError(
            f"{label} has {count_of(len(phases), 'phase')}, and --redate moves the dates of "
            f"{' and '.join(PHASE_TITLES.values())}: edit {YAML_FILE} and the pages by hand."
        )
    dev, final = (phase.spec for phase in phases)
    if platform == CODABENCH:
        found = (dev.get("start"), final.get("start"), final.get("end"))
    else:
        found = (dev.get("start_date"), final.get("start_date"), spec.get("end_date"))
    try:
        return Schedule.of(*(str(date) for date in found))
    except ValueError as fault:
        raise ValueError(f"{YAML_FILE} in {label}: {fault}") from None


def _moved(before: Schedule, dates: Mapping[str, str | None], now: datetime) -> Schedule:
    """The schedule with the given dates."""
    old = {name: date_text(getattr(before, name)) for name in NAMES}
    new = {name: dates.get(name) or old[name] for name in NAMES}
    began = before.final_start <= now
    after = Schedule.of(**new, now=None if began else now)
    if after == before:
        raise ValueError(
            "No date moves: give --dev_start, --final_start or --end another date than "
            f"{', '.join(old.values())}."
        )
    if began and (after.dev_start, after.final_start) != (before.dev_start, before.final_start):
        raise ValueError(
            f"Final began at {old['final_start']} UTC, when submissions were copied to it: only "
            "--end can move now."
        )
    if not now < after.end:
        raise ValueError(
            f"Expected end={new['end']} to be in the future, and it is {date_text(now)} UTC now."
        )
    return after


def _texts(before: Schedule, after: Schedule) -> dict[str, str]:
    """The dates that move, as texts."""
    pairs = ((getattr(before, name), getattr(after, name)) for name in (*NAMES, "dev_end"))
    return {date_text(old): date_text(new) for old, new in pairs if old != new}


def _changes(
    spec: Mapping[str, Any], archive: Archive, texts: Mapping[str, str]
) -> Iterator[tuple[str, bytes]]:
    """The files that change, with their new bytes."""
    for name in dict.fromkeys((YAML_FILE, *(file for _, file in page_files(spec)))):
        if archive.holds(name):
            old = archive.read(name, MAX_TEXT)
            new = _replaced(old, texts)
            if new != old:
                yield name, new
    reference = scored_phases(spec)[-1].reference
    notice = _notice(archive, reference)
    if notice is not None and reference is not None:
        yield reference, zip_bytes({NOTICE_FILE: _replaced(notice, texts)})


def _notice(archive: Archive, reference: str | None) -> bytes | None:
    """The notice of Final's placeholder; None if other reference data are in its place."""
    if reference is None or not archive.holds(reference):
        return None
    with archive.inner(reference) as inner:
        return inner.read(NOTICE_FILE) if inner.names == [NOTICE_FILE] else None


def _replaced(text: bytes, texts: Mapping[str, str]) -> bytes:
    """A text with all dates replaced at once, whatever its encoding and line ends."""
    pattern = _DATES.pattern.encode()
    pairs = {old.encode(): new.encode() for old, new in texts.items()}
    return re.sub(pattern, lambda found: pairs.get(found[0], found[0]), text)


def _left(text: bytes, before: Schedule, after: Schedule) -> list[str]:
    """Other ways to write days that moved, as they stand in a page."""
    rest = _DATES.sub("", text.decode("utf-8", "replace"))
    found: list[str] = []
    for name in NAMES:
        date = getattr(before, name)
        if date == getattr(after, name):
            continue
        full = _MONTHS[date.month - 1]
        month, day = rf"(?:{full}|{full[:3]})\b\.?", rf"{date.day}(?:st|nd|rd|th)?"
        forms = rf"{date.date().isoformat()}|\b{day} {month}|\b{month} {day}\b"
        found += [words for words in re.findall(forms, rest) if words not in found]
    return found


def instructions(redated: Redated, folder: Path | None = None) -> list[str]:
    """What to change by hand in a competition that is uploaded; `folder` holds the pages."""
    after, before = redated.after, redated.before
    dev, final = PHASE_TITLES.values()
    spans = {dev: ("dev_start", "dev_end"), final: ("final_start", "end")}
    lines = [
        "An uploaded competition keeps its dates and pages until you change them there, under Edit:"
    ]
    for title, names in spans.items():
        for name, side in zip(names, ("start", "end"), strict=True):
            old, new = getattr(before, name), getattr(after, name)
            if old != new and redated.platform == CODABENCH:
                lines.append(f"  Phases > {title}: {side} {new:%Y-%m-%d %H:%M} (UTC)")
            elif old != new and name != "dev_end":
                where = "End date" if name == "end" else f"Phases > {title}: start"
                lines.append(f"  {where} {new:%Y-%m-%d %H:%M} (UTC)")
    for file, (title, _) in redated.pages.items():
        terms = title == TERMS.capitalize()
        tab = "Participation" if terms and redated.platform == CODABENCH else "Pages"
        place = f"{file} of the new bundle" if folder is None else str(folder / Path(file).name)
        lines.append(f"  {tab} > {title}: paste {place}")
    return lines
