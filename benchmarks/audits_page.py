#!/usr/bin/env python3
"""What attacks prove and privacy allows, in docs/PRIVACY.md.

It reads docs/results/audits/*.json and docs/results/audit_false_alarms.json. It rewrites
what stands between the page's markers, and the pictures in docs/privacy/.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mico_competition.scoring.curve import Curve
from mico_competition.scoring.page import STYLE
from mico_competition.scoring.svg import HEIGHT, SHOWN_DECADE, WIDTH, Axes, draw_roc

DOCS = Path(__file__).resolve().parent.parent / "docs"
AUDITS, PICTURES = DOCS / "results/audits", DOCS / "privacy"
AUDITS_BLOCK, TRAINER_BLOCK = "audits", "trainer"
ALARMS_BLOCK, PLANS_BLOCK, CORRECT_BLOCK = "alarms", "plans", "correct"
sys.path.insert(0, str(Path(__file__).resolve().parent))

from audit_results import AUDITED, TRAINED  # noqa: E402
from testbeds import TESTBEDS  # noqa: E402

RANKED = "TPR_FPR_1000"
HEADS = (
    *("run", "TPR at 10 % FPR", "at 1 % FPR", "epsilon at least"),
    *(
        "replacing",
        "Gaussian assumed",
        "claimed epsilon",
        "TPR limit at 10 % FPR",
        "by Gaussian DP",
    ),
    "by epsilon, delta",
)
LIGHT = "--paper: #fff; --ink: #1c2024; --soft: #59626e; --line: #d9dee4; --curve: #1558b0; "
LIGHT += "--mark: #b3261e; --read: #8a4b00"

Audit = dict[str, Any]


def main() -> None:
    """Write pictures and the page's block."""
    audits = read()
    PICTURES.mkdir(exist_ok=True)
    for name, audit in audits.items():
        (PICTURES / f"{name}.svg").write_text(picture(name, audit), encoding="utf-8")
    page = DOCS / "PRIVACY.md"
    text = filled(page.read_text(encoding="utf-8"), audits, files(TRAINED))
    text = with_false_alarms(text, false_alarms())
    page.write_text(text, encoding="utf-8")
    print(f"Wrote the audits of {page} and {len(audits)} pictures")


def read() -> dict[str, Audit]:
    """Run -> its audit, of those that are there."""
    return {name: found[0] for name, found in files(AUDITED).items()}


def false_alarms() -> dict[str, Any]:
    """What `benchmarks/audit_false_alarms.py` measured."""
    path = DOCS / "results/audit_false_alarms.json"
    return json.loads(path.read_text(encoding="utf-8"))


def files(names: Iterable[str]) -> dict[str, Any]:
    """What the runs' files hold, of those that are there."""
    paths = {name: AUDITS / f"{name}.json" for name in names}
    return {n: json.loads(p.read_text(encoding="utf-8")) for n, p in paths.items() if p.is_file()}


def between(page: str, block: str, lines: list[str]) -> str:
    """`page` with `lines` between the markers of a block."""
    begin, end = f"<!-- {block}: begin -->", f"<!-- {block}: end -->"
    head, rest = page.split(begin)
    return "\n".join([head + begin, *lines, end + rest.split(end)[1]])


def filled(page: str, audits: dict[str, Audit], trained: dict[str, Audit]) -> str:
    """`page` with tables and pictures between its markers."""
    lines = [bought(audits), "", f"| {' | '.join(HEADS)} |", "|---" * len(HEADS) + "|"]
    lines += [f"| {' | '.join(row(name, audit))} |" for name, audit in audits.items()]
    lines += ["", "The runs:", ""]
    lines += [f"- `{name}`: {about(name, audit)}" for name, audit in audits.items()]
    for name, audit in audits.items():
        lines += ["", f"![{audit['sentence']}](privacy/{name}.svg)"]
    page = between(page, AUDITS_BLOCK, lines)
    methods = list(
        dict.fromkeys(b["method"] for a in trained.values() for w in ways(a) for b in worst(w))
    )
    heads = [
        "settings",
        "trained",
        "gradient canaries",
        "steps",
        "claimed",
        *methods,
        "direct tests",
    ]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    lines += [
        f"| {' | '.join(trainer_row(audit, methods))} |"
        for a in trained.values()
        for audit in ways(a)
    ]
    return between(page, TRAINER_BLOCK, lines)


def with_false_alarms(page: str, found: dict[str, Any]) -> str:
    """`page` with what `benchmarks/audit_false_alarms.py` measured, part by part."""
    if "attacks" in found:
        lines = ["| mechanism | false alarms | with each bound by itself at 95 % |"]
        lines.append("|---" * 3 + "|")
        for name, share in found["attacks"]["alarms"].items():
            cells = (name, *(f"{100 * share[how]:.2g} %" for how in ("joint", "each by itself")))
            lines.append(f"| {' | '.join(cells)} |")
        page = between(page, ALARMS_BLOCK, lines)
    if "bounds" in found:
        heads = ("scores", "points", "epsilon", "one-run", "one plan", "one-run f-DP", "one plan")
        lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
        for row in found["bounds"]:
            epsilon = "-" if row["epsilon"] is None else f"{row['epsilon']:g}"
            kinds = ("one-run, list", "one-run, one plan", "f-DP, list", "f-DP, one plan")
            cells = [row["setting"], f"{row['points']:,}", epsilon]
            cells += [f"{row['mean'][kind]:.2f}" for kind in kinds]
            lines.append(f"| {' | '.join(cells)} |")
        page = between(page, PLANS_BLOCK, lines)
    if "trainer" in found:
        lines = ["| models | runs | tests and bounds | runs with an alarm |", "|---" * 4 + "|"]
        for name, kind in found["trainer"].items():
            if isinstance(kind, dict):
                which = ", ".join(f"{test}: {n}" for test, n in kind["by test"].items())
                count = f"{kind['alarms']}{f' ({which})' if which else ''}"
                lines.append(f"| {name} | {kind['runs']} | {kind['tests']} | {count} |")
        page = between(page, CORRECT_BLOCK, lines)
    return page


def bought(audits: dict[str, Audit]) -> str:
    """How much epsilon 4 lowers the TPR on each dataset that was trained with and without it."""
    falls = []
    for name, audit in audits.items():
        private = audits.get(name.replace("_inf", "_lo"))
        if name.endswith("_inf") and private is not None:
            before, after = (100 * a["metrics"][RANKED]["value"] for a in (audit, private))
            falls.append(f"from {before:.1f} to {after:.1f} ({name.removesuffix('_inf')})")
    return (
        "With epsilon 4 instead of none, what the attack finds at 10 % FPR, where guessing finds "
        f"10, fell {', '.join(falls)}."
    )


def worst(audit: Audit) -> list[Audit]:
    """Bounds from gradient canaries."""
    return [bound for bound in audit["bounds"] if bound["worst_case"]]


def ways(audit: Audit) -> list[Audit]:
    """Each way of training that was audited; a file of one audit has no such list."""
    return audit.get("audits", [audit])


def trainer_row(audit: Audit, methods: list[str]) -> list[str]:
    """A line of the trainer's table: each bound with its share of the claimed epsilon."""
    found = {b["method"]: f"{b['epsilon']:.2f} ({100 * b['ratio']:.0f} %)" for b in worst(audit)}
    alarms = [check["name"] for check in audit["checks"] if check["verdict"] == "alarm"]
    verdict = ", ".join(alarms) if alarms else f"all {len(audit['checks'])} passed"
    stack = audit.get("stack", 1)
    trained = f"{stack} in a stack" if stack > 1 else "by itself"
    cells = [f"`{audit['scenario']}`", trained, f"{audit['gradient_canaries']['all']:,}"]
    cells += [f"{audit['steps']:,}", number(audit["promised"]["epsilon"])]
    return [*cells, *(found.get(method, "-") for method in methods), verdict]


def row(name: str, audit: Audit) -> list[str]:
    """A run's line of the table."""
    # Those that raise alarms at the level at which they hold jointly, the others by themselves.
    bounds = {b["method"]: b.get("joint_epsilon", b["epsilon"]) for b in audit["bounds"]}
    promised = audit["promised"]
    cells = [name, rate(audit["metrics"][RANKED]), rate(audit["metrics"]["TPR_FPR_100"])]
    shown = ("one-run", "one-run of pairs", "one-run f-DP")
    cells += [number(bounds[method]) for method in shown]
    if promised is None:
        return [*cells, "none", *3 * ["-"]]
    ceilings = [at(audit["ceilings"][kind], 0.1) for kind in reversed(audit["ceilings"])]
    promises = f"{number(promised['epsilon'])} (replacing {number(promised['replace_one'])})"
    return [*cells, promises, *(f"{100 * most:.1f} %" for most in ceilings)]


def about(name: str, audit: Audit) -> str:
    """What was trained and attacked, in a line."""
    testbed = TESTBEDS[AUDITED[name][0]]
    who = f"{audit['models']} {audit['phase']} models, {audit['points']:,} challenge points"
    return f"{testbed.title}. Attack `{audit['attack']}` on {who}."


def rate(metric: dict[str, float | None]) -> str:
    """A rate in percent with its interval."""
    value, low, high = (metric[key] for key in ("value", "low", "high"))
    words = f"{100 * value:.1f} %"
    return words if low is None else f"{words} [{100 * low:.1f}, {100 * high:.1f}]"


def number(epsilon: float | None) -> str:
    """An epsilon; a lower bound that is 0 proves nothing."""
    return "infinite" if epsilon is None else f"{epsilon:.2f}"


def at(points: list[list[float]], fpr: float) -> float:
    """The ceiling at the drawn rate nearest to `fpr`."""
    return min(points, key=lambda point: abs(point[0] - fpr))[1]


def picture(name: str, audit: Audit) -> str:
    """Both kinds of axes side by side, as an SVG file by itself."""
    curve = Curve(**audit["curve"])
    ceilings = {k: tuple(zip(*points)) for k, points in audit["ceilings"].items()}
    style = STYLE[STYLE.index("svg text") : STYLE.index("@media (min-width")]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {2 * WIDTH} {HEIGHT + 54}" '
        f'width="{2 * WIDTH}" height="{HEIGHT + 54}" style="{LIGHT}">',
        f"<style>{style}</style>",
        '<rect width="100%" height="100%" fill="#fff"/>',
        f'<text x="{WIDTH}" y="20" text-anchor="middle">{name}: attack {audit["attack"]} (solid, '
        "with its 95% band) and what privacy allows</text>",
        *key(list(ceilings)),
    ]
    for i, axes in enumerate((Axes(), Axes(SHOWN_DECADE))):
        drawn = draw_roc(
            curve,
            audit["metrics"][RANKED]["value"],
            axes,
            f"{name}, {axes.kind} axes",
            audit["sentence"],
            f"{name}-{i}",
            ceilings,
        )
        parts.append(drawn.replace("<svg ", f'<svg x="{i * WIDTH}" y="54" ', 1))
    return "\n".join([*parts, "</svg>\n"])


def key(names: list[str]) -> list[str]:
    """Which line is which ceiling."""
    parts = []
    for i, name in enumerate(names):
        x = WIDTH - 250 + 190 * i
        parts.append(f'<path class="ceiling ceiling{i}" d="M{x} 40h34"/>')
        parts.append(f'<text x="{x + 40}" y="44">{name}</text>')
    if not names:
        parts.append(
            f'<text x="{WIDTH}" y="44" text-anchor="middle">nothing was promised, so there is no '
            "ceiling</text>"
        )
    return parts


if __name__ == "__main__":
    main()
