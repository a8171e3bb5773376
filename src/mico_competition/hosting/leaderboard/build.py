"""Builds a static site from entries: an index with ranked tables, and a page for each entry.

The site needs no server and fetches nothing, since styles, script and drawings are inside each
page.  The same entries give the same bytes.  Until the final phase opens, its entries are left out
completely, and not merely hidden.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path

from mico_competition.hosting.leaderboard.entries import read_entries
from mico_competition.hosting.leaderboard.pages import HIDDEN_PHASE, Pages
from mico_competition.support.files import PathLike, make_folder, named_if_full
from mico_competition.support.scratch import scratch

TITLE = "Membership inference leaderboard"
MARKER = ".made_by_mico_leaderboard"


@dataclass(frozen=True)
class Built:
    """The number of pages of a site, and of entries that were left out until they may be shown."""

    entries: int
    hidden: int


def build(
    folder: PathLike,
    out: PathLike,
    *,
    final_opens: datetime | None = None,
    title: str = TITLE,
    now: datetime | None = None,
) -> Built:
    """Write the site of the entries in `folder` to `out`.

    Args:
        folder: the folder with `<challenge>/<entry>.json`.
        out: the folder to write; a site that this function wrote earlier is replaced.
        final_opens: the time from which entries of the final phase are shown; by default never.
        title: the heading of the site.
        now: the present time, for tests.

    Raises:
        ValueError: listing all faults of all entries; or if `out` holds other files.
    """
    entries = read_entries(folder)
    opened = final_opens is not None and (now or datetime.now(UTC)) >= final_opens
    shown = [entry for entry in entries if opened or entry.phase != HIDDEN_PHASE]
    pages = Pages(title, None if opened else final_opens)
    write_pages(Path(out), pages.render(shown))
    return Built(len(shown), len(entries) - len(shown))


def write_pages(out: Path, pages: Iterable[tuple[str, str]]) -> None:
    """Write pages to a temporary folder, and replace `out` by it."""
    out = Path(os.path.realpath(out))
    if out.exists() and not (out / MARKER).is_file() and (out.is_file() or any(out.iterdir())):
        raise ValueError(f"{out} holds other things: choose another folder with --out.")
    with scratch(make_folder(out.parent), f".{out.name}.aside") as aside, named_if_full(out, aside):
        new, old = aside / "new", aside / "old"
        for name, text in chain([(MARKER, "`mico leaderboard build` replaces this.\n")], pages):
            path = new / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        if out.exists():
            os.rename(out, old)
        os.rename(new, out)
