"""`mico attacks [NAME ...]`: the built-in attacks, as a table or as JSON."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mico_competition.attacks.registry import Row


def add_attacks(parser: argparse.ArgumentParser) -> None:
    """Give `parser` the flags of the list."""
    parser.add_argument("name", nargs="*", metavar="NAME", help="describe these (default: all)")
    parser.add_argument("--json", action="store_true", help="everything, as JSON")
    parser.set_defaults(run=run_attacks)


def run_attacks(args: argparse.Namespace) -> None:
    """Print the list, or the descriptions of the named attacks."""
    from mico_competition.attacks.registry import ROWS, check_name

    rows = [check_name(name) for name in dict.fromkeys(args.name)] or list(ROWS.values())
    if args.json:
        print(json.dumps([asdict(row) for row in rows], indent=2, ensure_ascii=False))
    else:
        print("\n".join(lines(rows)))


def lines(attacks: Iterable[Row]) -> list[str]:
    """A table of the attacks, with an explanation of its columns."""
    rows = [("name", "access", "shadows", "cost", "what it is; source")]
    for e in attacks:
        what = f"the same as {e.alias_of}" if e.alias_of else f"{e.title}; {e.source}"
        access = e.access + (" *" if e.known_training_set else "")
        rows.append((e.name, access, str(e.least_shadows or "none"), e.cost, what))
    widths = [max(len(row[place]) for row in rows) for place in range(4)]
    table = ["  ".join([*map(str.ljust, row[:4], widths), row[4]]) for row in rows]
    return [
        *table,
        "",
        "access: black box (outputs at the records), queries (and at changed records), white box "
        "(weights);",
        "        * uses the known training set if the scenario discloses it (DP distinguisher)",
        "shadows: the least number of shadow models; train models are the shadow models",
        "cost: of 50 targets and 100 shadow models of Purchase-100's shape at a tenth of its size, "
        "on one",
        "      core, once `mico signals` are computed",
        "Your own attack is path/to/file.py:function: docs/ATTACKS.md",
    ]
