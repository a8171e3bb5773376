"""The audit of a trainer as text and as values for JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from mico_competition.audit.bound import Bound
from mico_competition.audit.mechanism_curve import METHOD
from mico_competition.audit.trainer.audit import DIRAC, Proof, TrainerAudit
from mico_competition.audit.trainer.checks import ALARM, NOTE, Check

Audits = TrainerAudit | Sequence[TrainerAudit]

ASSUMED = {
    "one-run": "fair coins only",
    "one-run f-DP": "a Poisson-subsampled Gaussian, noise unknown",
    METHOD: "a Poisson-subsampled Gaussian, noise unknown, and independent noise for each canary",
    "Gaussian DP": "a Gaussian without sampling, and independent noise for each canary",
}
"""Bound.method -> its assumptions in an audit of a trainer."""


def sentence(audits: Audits) -> str:
    """The verdict on one audit, or on audits of several ways to train."""
    several = _several(audits)
    first = several[0]
    name = first.settings.scenario or f"a run of task {first.settings.task}"
    claimed = f"epsilon {first.claim.epsilon:.2f} at delta {first.claim.delta:g}"
    ways = " and ".join(way(audit) for audit in several)
    alarms = [
        f"{alarm}{f' ({way(audit)})' if len(several) > 1 else ''}"
        for audit in several
        for alarm in audit.alarms
    ]
    if alarms:
        return f"ALARM: the trainer does not meet {name}'s claim of {claimed}: {', '.join(alarms)}."
    notes = list(dict.fromkeys(note for audit in several for note in audit.notes))
    departs = f"; it departs from the settings, without loss of privacy: {', '.join(notes)}"
    best = max(several, key=lambda audit: audit.proven(METHOD).epsilon)
    own, least = best.proven(METHOD), best.proven("one-run")
    runs = "one run shows" if len(several) == 1 else f"{len(several)} runs show"
    return (
        f"The trainer meets {name}'s claim of {claimed} as far as {runs} ({ways}): "
        f"{best.dirac:,} gradient canaries in {best.steps:,} steps prove epsilon >= "
        f"{own.epsilon:.2f} ({_ratio(best, own):.0%} of it), and {least.epsilon:.2f} "
        f"({_ratio(best, least):.0%}) whatever the mechanism is{departs if notes else ''}."
    )


def way(audit: TrainerAudit) -> str:
    """How the models were trained."""
    if audit.stack > 1:
        return f"{audit.stack} models in a stack"
    return "a single model"


def text(audits: Audits) -> str:
    """Text for a terminal: the verdict, the trained models, every bound and every check."""
    several = _several(audits)
    return "\n".join([sentence(several), *(line for audit in several for line in _lines(audit))])


def _lines(audit: TrainerAudit) -> list[str]:
    run = audit.claim.mechanism
    return [
        f"Audited: {way(audit)}, by the code that a fleet runs.",
        f"Claimed: noise_multiplier {run.noise_multiplier:.4f}, sample_rate "
        f"{run.sample_rate:.5g}, {run.num_steps:,} steps, max_grad_norm "
        f"{audit.settings.max_grad_norm:g}.",
        f"Trained on: {audit.real:,} real records, {audit.let_in[0]:,} of {audit.dirac:,} gradient "
        f"canaries, {audit.let_in[1]:,} of {audit.records:,} record canaries; "
        f"{audit.replayed:,} of {audit.steps:,} steps were repeated by other means; "
        f"{audit.seconds:.0f} s.",
        *([f"Epsilon is at least, each at {audit.level:.1%}:"] if audit.proofs else []),
        *(_proof_line(audit, proof) for proof in audit.proofs),
        "Direct tests, with intervals and p-values that all hold at once at "
        f"{1 - (1 - audit.level) / 2:.1%} if the claim holds:",
        *(_check_line(check) for check in audit.checks),
    ]


def _proof_line(audit: TrainerAudit, proof: Proof) -> str:
    mark = "ALARM" if proof.alarm else "  "
    return (
        f"{mark:5} {proof.bound.epsilon:6.2f} ({_ratio(audit, proof.bound):4.0%}) by "
        f"{proof.bound.method}, {proof.scores} (assumes {ASSUMED[proof.bound.method]})"
    )


def _check_line(check: Check) -> str:
    mark = {ALARM: "ALARM", NOTE: "note"}.get(check.verdict, "ok")
    found = check.measured
    interval = "" if found.low == found.high else f" [{found.low:.4g}, {found.high:.4g}]"
    return f"{mark:5} {check.name}: {check.says}{interval}"


def _ratio(audit: TrainerAudit, bound: Bound) -> float:
    return bound.epsilon / audit.claim.epsilon


def record(audit: TrainerAudit) -> dict[str, Any]:
    """One audit as values for JSON; numbers that are not finite become None."""
    run = audit.claim.mechanism
    return {
        "scenario": audit.settings.scenario,
        "task": audit.settings.task,
        "stack": audit.stack,
        "sentence": sentence(audit),
        "alarm": bool(audit.alarms),
        "alarms": audit.alarms,
        "level": audit.level,
        "promised": {
            "epsilon": audit.claim.epsilon,
            "delta": audit.claim.delta,
            "noise_multiplier": run.noise_multiplier,
            "sample_rate": run.sample_rate,
            "num_steps": run.num_steps,
            "max_grad_norm": audit.settings.max_grad_norm,
        },
        "gradient_canaries": {"all": audit.dirac, "let_in": audit.let_in[0]},
        "record_canaries": {"all": audit.records, "let_in": audit.let_in[1]},
        "real_records": audit.real,
        "steps": audit.steps,
        "replayed_steps": audit.replayed,
        "seconds": round(audit.seconds, 1),
        "bounds": [_proof_record(audit, proof) for proof in audit.proofs],
        "checks": [_check_record(check) for check in audit.checks],
    }


def _proof_record(audit: TrainerAudit, proof: Proof) -> dict[str, Any]:
    return {
        "method": proof.bound.method,
        "assumes": ASSUMED[proof.bound.method],
        "scores": proof.scores,
        "worst_case": proof.scores == DIRAC,
        "epsilon": _finite(proof.bound.epsilon),
        "ratio": _finite(_ratio(audit, proof.bound)),
        "level": proof.bound.level,
        "detail": {name: _finite(value) for name, value in proof.bound.detail.items()},
        "alarm": proof.alarm,
        "joint_epsilon": _finite(proof.joint.epsilon),
        "joint_level": proof.joint.level,
        "ceiling": _finite(proof.ceiling),
    }


def _check_record(check: Check) -> dict[str, Any]:
    found = check.measured
    return {
        "name": check.name,
        "verdict": check.verdict,
        "says": check.says,
        "promised": _finite(check.claimed),
        "measured": _finite(found.value),
        "low": _finite(found.low),
        "high": _finite(found.high),
        "level": found.level,
        "detail": {name: _finite(value) for name, value in check.detail.items()},
    }


def to_json(audits: Audits) -> str:
    """The audits as JSON: the verdict on all of them, and each one."""
    several = _several(audits)
    found = {
        "scenario": several[0].settings.scenario,
        "task": several[0].settings.task,
        "sentence": sentence(several),
        "alarm": any(audit.alarms for audit in several),
        "audits": [record(audit) for audit in several],
    }
    return json.dumps(found, indent=2, allow_nan=False) + "\n"


def _several(audits: Audits) -> Sequence[TrainerAudit]:
    return [audits] if isinstance(audits, TrainerAudit) else audits


def _finite(value: float) -> float | None:
    """`value`, or None for a number that is not finite."""
    return value if math.isfinite(value) else None
