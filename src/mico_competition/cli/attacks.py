"""`mico attacks [NAME ...]`: the built-in attacks, as a table or as JSON."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mico_competition.support.command_line import usage
from mico_competition.support.reports import add_json, report
from mico_competition.support.terminal import table

if TYPE_CHECKING:
    from mico_competition.attacks.registry import Row

_KEY = """\
access: black box (outputs at the records), queries (and at changed records),
        white box (weights);
        * uses the known training set if the scenario discloses it (DP
        distinguisher)
shadows: the least number of shadow models; train models are the shadow models,
         and `mico evaluate` needs one more"""
_COST = """\
cost: of 50 targets and 100 shadow models of Purchase-100's shape at a tenth of
      its size, on one core, once `mico signals` are computed"""
_OWN = "Your own attack is path/to/file.py:function: docs/ATTACKS.md"


def add_attacks(parser: argparse.ArgumentParser) -> None:
    """Give `parser` the flags of the list."""
    parser.add_argument("name", nargs="*", metavar="NAME", help="describe these (default: all)")
    parser.add_argument(
        "--wide", action="store_true", help="also cost and source, in lines of 250 characters"
    )
    add_json(parser)
    parser.set_defaults(run=run_attacks)


def run_attacks(args: argparse.Namespace) -> None:
    """Print the list, or the descriptions of the named attacks."""
    from mico_competition.attacks.registry import ROWS, check_name

    with usage():
        rows = [check_name(name) for name in dict.fromkeys(args.name)] or list(ROWS.values())
    print("\n".join(lines(rows, wide=args.wide)))
    report("attack list", attacks=rows)


def lines(attacks: Sequence[Row], *, wide: bool = False) -> list[str]:
    """A table of the attacks, with an explanation of its columns; `wide` adds cost and source."""
    costs = ("cost",) if wide else ()
    header = ("name", "access", "shadows", *costs, "what it is; source" if wide else "what it is")
    rows = []
    for row in attacks:
        what = row.title
        if wide:
            what += f"; {row.source}"
        if row.alias_of:
            what = f"the same as {row.alias_of}"
        access = row.access + (" *" if row.known_training_set else "")
        cells = (row.name, access, str(row.least_shadows or "none"))
        rows.append((*cells, *((row.cost,) if wide else ()), what))
    end = [_COST] if wide else ["`mico attacks --wide` adds cost and source."]
    return [*table(header, rows, wide=wide), "", _KEY, *end, _OWN]
