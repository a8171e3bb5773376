"""An audit as text, as JSON, and as a page with the attack's curve below the limits."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np

from mico_competition.audit.bound import Bound
from mico_competition.audit.claims import STATED
from mico_competition.audit.verdict import RANKED, Verdict
from mico_competition.scoring.curve import shown_curve
from mico_competition.scoring.intervals import describe_intervals, interval_method
from mico_competition.scoring.page import document
from mico_competition.scoring.svg import SHOWN_DECADE, Axes, ceiling_key, draw_roc

TITLE = "Membership inference: lower bounds on epsilon, and the claim"

RATES = {"TPR_FPR_1000": "TPR at 10% FPR", "TPR_FPR_100": "at 1%", "TPR_FPR_10": "at 0.1%"}

ASSUMED = {
    "one-run": "labels from fair coins, which halves of many points nearly are",
    "one-run of pairs": "nothing; for a record replaced by another",
    "one-run f-DP": "a Gaussian mechanism",
    "Gaussian DP": "a Gaussian mechanism, and independent points",
    "threshold": "independent points",
}
"""Bound.method -> its assumptions."""


def text(verdicts: Sequence[Verdict]) -> str:
    """Text for a terminal: a sentence for each scenario, then its bounds and limits."""
    return "\n\n".join("\n".join([v.sentence(), *_lines(v)]) for v in verdicts)


def _lines(verdict: Verdict) -> list[str]:
    lines = [
        f"  at least, by {b.method}: {b.epsilon:.2f} (assumes {assumed(b.method)}{guessed(b)})"
        for b in verdict.bounds
    ]
    lines += [f"  {name}: {b.epsilon:.2f} ({of})" for name, b, of in deciding(verdict)]
    claim = verdict.scored.claim
    if claim is not None:
        run = claim.mechanism
        lines += [
            f"  {claimed(verdict)}: epsilon {claim.epsilon:.2f} at delta {claim.delta:g}; if "
            f"a record is replaced by another, {verdict.replace_one:.2f}; Gaussian mu "
            f"{verdict.mu:.2f}",
            f"  mechanism: noise_multiplier {run.noise_multiplier:g}, sample_rate "
            f"{run.sample_rate:.5g}, {run.num_steps} steps",
        ]
        for name, (fpr, tpr) in verdict.allowed.items():
            cells = ", ".join(
                f"{_at(fpr, tpr, rate):.1%} at {rate:.1%}" for rate in (0.1, 0.01, 0.001)
            )
            lines.append(f"  TPR at most, by {name}: {cells} FPR")
    return [*lines, f"  {_intervals(verdict)}"]


def _intervals(verdict: Verdict) -> str:
    """The method of the intervals, in a sentence."""
    return describe_intervals({verdict.scored.scenario: len(verdict.scored.truth)}, verdict.level)


def claimed(verdict: Verdict) -> str:
    """The name of the claimed epsilon, with its source."""
    stated = verdict.scored.source == STATED
    return "claimed" if stated else f"claimed by {verdict.scored.source}"


def guessed(bound: Bound) -> str:
    """The plan of a one-run bound, and the number of plans; empty for other bounds."""
    if "guesses" not in bound.detail:
        return ""
    plus, minus, points, plans = (
        int(bound.detail[name]) for name in ("guessed_in", "guessed_out", "points", "plans")
    )
    of = f", the best of {plans} plans" if plans > 1 else ""
    return f"; guessed {plus:,} in and {minus:,} out of {points:,}{of}"


def deciding(verdict: Verdict) -> list[tuple[str, Bound, str]]:
    """The bounds that raise alarms, at the level of the sentence: a name, the bound, its record."""
    records = ("a record added or removed", "a record replaced by another")
    return [
        (f"at least, by {b.method}, jointly", b, f"{record}; the bounds that decide hold together")
        for b, record in zip(verdict.joint, records)
    ]


def assumed(method: str) -> str:
    """The assumptions of a bound."""
    return ASSUMED.get(method.partition(" (")[0], "see its source")


def _at(fpr: Any, tpr: Any, rate: float) -> float:
    return float(np.interp(rate, fpr, tpr))


def to_json(verdicts: Sequence[Verdict]) -> str:
    """All shown numbers."""
    return json.dumps([record(v) for v in verdicts], indent=2, allow_nan=False) + "\n"


def record(verdict: Verdict) -> dict[str, Any]:
    """One audit as values for JSON; numbers that are not finite become None."""
    scored, claim = verdict.scored, verdict.scored.claim
    found = {
        key: {
            "value": float(verdict.result[key]),
            "low": _finite(verdict.known[key][0]),
            "high": _finite(verdict.known[key][1]),
        }
        for key in (*RATES, "AUC", "MIA")
    }
    return {
        "scenario": scored.scenario,
        "phase": scored.phase,
        "attack": scored.attack,
        "models": len(scored.truth),
        "interval_method": interval_method(len(scored.truth)),
        "points": int(sum(len(part) for part in scored.truth)),
        "members": int(sum(part.sum() for part in scored.truth)),
        "sentence": verdict.sentence(),
        "alarm": verdict.alarm,
        "level": verdict.level,
        "delta": verdict.delta,
        "proven": verdict.proven.epsilon,
        "claim": scored.source,
        "bounds": [
            {
                "method": b.method,
                "epsilon": _finite(b.epsilon),
                "assumes": assumed(b.method),
                **_joint(verdict, b.method),
                "detail": {name: _finite(value) for name, value in b.detail.items()},
            }
            for b in verdict.bounds
        ],
        "promised": None
        if claim is None
        else {
            "epsilon": claim.epsilon,
            "delta": claim.delta,
            "replace_one": verdict.replace_one,
            "gaussian_mu": _finite(verdict.mu),
            "noise_multiplier": claim.mechanism.noise_multiplier,
            "sample_rate": claim.mechanism.sample_rate,
            "num_steps": claim.mechanism.num_steps,
        },
        "ceilings": {
            name: [[round(float(x), 6), round(float(y), 6)] for x, y in zip(fpr, tpr)]
            for name, (fpr, tpr) in verdict.allowed.items()
        },
        "curve": vars(shown_curve(verdict.result, verdict.known)),
        "metrics": found,
    }


def _joint(verdict: Verdict, method: str) -> dict[str, Any]:
    """A bound that raises alarms, at the level at which all of them hold jointly."""
    return {
        name: value
        for bound in verdict.joint
        if bound.method == method
        for name, value in (("joint_epsilon", bound.epsilon), ("joint_level", bound.level))
    }


def _finite(value: Any) -> Any:
    """`value`, or None for a number that is not finite."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def to_html(verdicts: Sequence[Verdict], *, made: str = "") -> str:
    """The page; ValueError if there are no audits.

    `made` is a line about when and with what it was made (`support.made`).
    """
    if not verdicts:
        raise ValueError("Expected at least one audit for a page.")
    body = [f"<h1>{TITLE}</h1>", *(_section(i, v) for i, v in enumerate(verdicts))]
    return document(TITLE, "\n".join(body), made)


def _section(number: int, verdict: Verdict) -> str:
    name = verdict.scored.scenario
    return "\n".join(
        [
            f"<section>\n<h2>{escape(name)}</h2>",
            f'<p class="headline">{escape(verdict.sentence())}</p>',
            f'<div class="plots">{"".join(figures(verdict, f"roc{number}"))}</div>',
            _key(verdict),
            _bounds(verdict),
            "</section>",
        ]
    )


def figures(verdict: Verdict, identity: str) -> list[str]:
    """The attack's curve with its band and the limits, on linear and logarithmic axes."""
    curve = shown_curve(verdict.result, verdict.known)
    drawn = []
    for axes in (Axes(), Axes(SHOWN_DECADE)):
        picture = draw_roc(
            curve,
            float(verdict.result[RANKED]),
            axes,
            f"ROC curve of {verdict.scored.scenario} on {axes.kind} axes",
            verdict.sentence(),
            f"{identity}-{axes.kind}",
            verdict.allowed,
        )
        caption = f"{axes.kind.capitalize()} axes"
        drawn.append(f"<figure>{picture}<figcaption>{caption}</figcaption></figure>")
    return drawn


def _key(verdict: Verdict) -> str:
    """The key of the lines."""
    band = f"band of {verdict.level:.0%} intervals"
    attack = f"Solid blue line with its {band}: the attack. Dashed grey: guessing. "
    attack += _intervals(verdict)
    if not verdict.allowed:
        return f"<p>{attack} Without a claim there is no limit.</p>"
    lines = ceiling_key(verdict.allowed)
    return f"<p>{attack} The mechanism permits an attack at most:</p>\n{lines}"


def _bounds(verdict: Verdict) -> str:
    rows = [
        (
            f"at least, by {bound.method}",
            bound.epsilon,
            f"assumes {assumed(bound.method)}{guessed(bound)}",
        )
        for bound in verdict.bounds
    ]
    rows += [(name, bound.epsilon, of) for name, bound, of in deciding(verdict)]
    claim = verdict.scored.claim
    if claim is not None:
        assert verdict.replace_one is not None
        rows.append((claimed(verdict), claim.epsilon, "one record added or removed"))
        rows.append((claimed(verdict), verdict.replace_one, "one record replaced by another"))
    caption = f"Epsilon at delta {verdict.delta:g}; each bound at {verdict.level:.0%}"
    cells = "\n".join(
        f'<tr><th scope="row">{escape(name)} <span class="range">{escape(of)}</span></th>'
        f"<td>{epsilon:.2f}</td></tr>"
        for name, epsilon, of in rows
    )
    table = f"<table><caption>{caption}</caption>\n<tbody>{cells}</tbody></table>"
    return f'<div class="wide">{table}</div>'
