"""Builds the benchmark's site: static pages without any outside resource.

An overview, a page for each tier with ranked tables and charts, a page for each attack, and how to
submit. The style is that of a competition's leaderboard (`hosting.leaderboard`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from mico_competition.attacks.registry import TABLE
from mico_competition.benchmark.about import ACCESS, once_more
from mico_competition.benchmark.board import Board, cell, limit_of, ranks_in, row_of, swatch
from mico_competition.benchmark.checking import check_file
from mico_competition.benchmark.entry import (
    ENTRIES,
    Entry,
    entry_text,
    read_tier,
    read_values,
    stem_of,
)
from mico_competition.benchmark.methods import HEADINGS, SECTIONS, anchor_of
from mico_competition.benchmark.pictures import curve_of, roc_chart, scenario_colours
from mico_competition.benchmark.tiers import TIERS
from mico_competition.evaluation.measure import RANKED
from mico_competition.hosting.leaderboard.build import write_pages
from mico_competition.hosting.leaderboard.pages import policy_hash
from mico_competition.support.command_line import model_ids
from mico_competition.support.files import PathLike

TITLE = "Membership inference benchmark"
_FIRST = 8  # rows of a tier on the overview
_PACKAGES = ("mico_competition.benchmark", "mico_competition.hosting.leaderboard")


def build_site(
    folder: PathLike | None,
    out: PathLike,
    *,
    more: Sequence[Path] = (),
    title: str = TITLE,
    docs: str = "",
) -> int:
    """Write the site of the entries in `folder` to `out`.

    Args:
        folder: with `<tier>/<name>.json`; None for the committed entries.
        out: the folder to write; a site that this function wrote earlier is replaced.
        more: files of further entries, which are marked; each replaces one of the same name.
        title: the heading of the site.
        docs: the way from the site's top to the pages of the documentation, such as "../docs/".

    Returns:
        The number of entries.

    Raises:
        ValueError: if one of `more` has faults; if there are no entries; if `out` holds other
            files.
    """
    own = [_sound(path) for path in more]
    boards = []
    for name, tier in TIERS.items():
        mine = [entry for entry in own if entry.tier == name]
        names = frozenset(entry.name for entry in mine)
        stems = Counter(stem_of(entry.name) for entry in mine)
        twice = next((stem for stem, count in stems.items() if count > 1), None)
        if twice is not None:
            raise ValueError(f"Two entries to show would both be {name}/{twice}.json: rename one.")
        others = [e for e in read_tier(folder or ENTRIES, name) if stem_of(e.name) not in stems]
        if others or mine:
            boards.append(Board(tier, [*others, *mine], names))
    if not boards:
        raise ValueError(f"There are no entries of the benchmark in {folder or ENTRIES}.")
    write_pages(Path(out), Site(title, docs, boards).pages())
    return sum(len(board.entries) for board in boards)


def _sound(path: Path) -> Entry:
    faults = check_file(path)
    if faults:
        raise ValueError(faults[0])
    return Entry(path, read_values(path))


class Site:
    """Renders the pages of some boards."""

    def __init__(self, title: str, docs: str, boards: Sequence[Board]) -> None:
        environment = Environment(
            loader=ChoiceLoader([PackageLoader(package, "site") for package in _PACKAGES]),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
        )
        style = _file(1, "style.css") + _file(0, "board.css")
        script = _file(0, "board.js")
        self.boards = boards
        self.tiers = {board.tier.name: self._tier(board) for board in boards}
        self.environment = environment
        environment.globals.update(
            title=title,
            docs=docs,
            style=Markup(style),
            style_hash=policy_hash(style),
            script=Markup(script),
            script_hash=policy_hash(script),
            tiers=[*self.tiers.values()],
        )

    def pages(self) -> Iterator[tuple[str, str]]:
        """Yield (path, text) of all files of the site."""
        yield "index.html", self._render("index", here="index", up="")
        yield "submit.html", self._render("submit", here="submit", up="")
        for board in self.boards:
            yield f"{board.tier.name}.html", self._render_tier(board)
            for entry in board.entries:
                yield f"entries/{entry.tier}/{stem_of(entry.name)}.json", entry_text(entry.values)
        names = dict.fromkeys(entry.name for board in self.boards for entry in board.entries)
        for name in names:
            yield f"attacks/{stem_of(name)}.html", self._render_attack(name)

    def _render(self, page: str, **values: Any) -> str:
        return self.environment.get_template(f"board_{page}.html").render(**values)

    def _tier(self, board: Board) -> dict[str, Any]:
        """What pages say of a tier."""
        table = board.table()
        return {
            "name": board.tier.name,
            "title": board.tier.title[:1].upper() + board.tier.title[1:],
            "scenarios": list(board.scenarios),
            "shadows": len(model_ids(board.tier.shadows)),
            "targets": len(board.tier.target_ids),
            "count": len(board.entries),
            "missing": [row.name for row in TABLE if row.name not in board.ranks()],
            "first": table[:_FIRST],
            "table": table,
            "charts": board.charts(),
        }

    def _render_tier(self, board: Board) -> str:
        parts = [
            {
                "name": name,
                "label": board.label(name),
                "privacy": board.privacy(name),
                "limit": limit_of(part),
                "table": board.table(name),
            }
            for name, part in board.scenarios.items()
        ]
        privacies = {part["privacy"]: part["label"] for part in parts}
        tier = {
            **self.tiers[board.tier.name],
            "parts": parts,
            "all_records": board.on_all_records(),
        }
        accesses = [a for a in ACCESS if any(e.access == a for e in board.entries)]
        return self._render(
            "tier",
            here=board.tier.name,
            up="",
            tier=tier,
            accesses=accesses,
            privacies=list(privacies.items()),
        )

    def _render_attack(self, name: str) -> str:
        found = [
            (board, entry) for board in self.boards for entry in board.entries if entry.name == name
        ]
        values = found[0][1].values
        section = SECTIONS.get(name, "") if values["file"] is None else ""
        return self._render(
            "attack",
            here="",
            up="../",
            name=name,
            authors=values["authors"],
            about=_about(values),
            source=values["source"],
            link=values["link"],
            access=values["access"],
            known_training_set=values["known_training_set"],
            section=section,
            heading=HEADINGS.get(section, "").replace("`", ""),
            anchor=anchor_of(section) if section else "",
            file=values["file"],
            results=[_result(board, entry) for board, entry in found],
        )


def _file(package: int, name: str) -> str:
    return (files(_PACKAGES[package]) / "site" / name).read_text(encoding="utf-8")


def _about(values: Mapping[str, Any]) -> str:
    """What an attack does, as a sentence."""
    text = str(values["title"]).replace("`", "")
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."


def _result(board: Board, entry: Entry) -> dict[str, Any]:
    """An attack's numbers, curves and command in one tier."""
    rows, curves = [], {}
    mean = {"formula": "", "beside": "", "limit": "", "fleet": ""}
    rows.append({"scenario": "", "rank": board.ranks()[entry.name], **mean, **row_of(entry, None)})
    for name, part in entry.values["scenarios"].items():
        winner = cell(part["winner"]["metrics"][RANKED])
        rows.append(
            {
                "scenario": name,
                "rank": board.ranks(name)[entry.name],
                "formula": part["winner"]["formula"],
                "beside": f"{winner['value']} {winner['ends']}",
                "limit": limit_of(part),
                "fleet": part["fleet"],
                **row_of(entry, name),
            }
        )
        truth, own, beside = ranks_in(entry, name, board.held_ranks)
        curves[name] = curve_of(truth, own), curve_of(truth, beside)
    title = f"ROC curves of {entry.name} on logarithmic axes: {', '.join(curves)}"
    return {
        "name": entry.tier,
        "rank": rows[0]["rank"],
        "of": len(board.entries),
        "rows": rows,
        "roc": Markup(roc_chart(title, f"roc-{entry.tier}", curves)),
        "key": [
            {"swatch": swatch(colour), "name": name}
            for name, colour in zip(curves, scenario_colours())
        ],
        "command": once_more(entry.values),
        "made": entry.values["made"][:10],
        "versions": entry.values["versions"],
        "machine": entry.values["machine"],
        "file": f"{entry.tier}/{stem_of(entry.name)}.json",
    }
