"""Results in files: one JSON file, with or without scores, and an HTML page beside it.

Without scores the file holds what the page shows: the numbers with their intervals, and the coarse
curves of `scoring.curve`, so that it does not reveal which records are members.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mico_competition.attacks.cost import Cost
from mico_competition.evaluation.measure import METRICS, Estimate, Measured
from mico_competition.evaluation.results_checks import Misfit, check_content
from mico_competition.scoring.curve import Curve
from mico_competition.support.files import PRIVATE, write_text
from mico_competition.support.made import made_line

if TYPE_CHECKING:
    from mico_competition.evaluation.attack_result import AttackResult
    from mico_competition.evaluation.results import Results
    from mico_competition.support.files import PathLike

FORMAT = "mico_competition results"
VERSION = 1


def save(results: Results, path: PathLike, *, scores: bool) -> None:
    """Write the JSON file and the page; see `Results.save`."""
    from mico_competition.evaluation.page import to_html

    if not isinstance(path, (str, os.PathLike)):
        raise ValueError(f"Expected path as the name of a file, got {type(path).__name__}.")
    target = Path(path)
    if target.suffix != ".json":
        raise ValueError(f"Expected path={str(path)!r} to end in .json: the page gets .html.")
    content = {
        "format": FORMAT,
        "version": VERSION,
        "subject": results.subject,
        "phase": results.phase,
        "against": results.against,
        "about": results.about,
        "attacks": [_attack(attack, scores) for attack in results.values()],
    }
    written = json.dumps(content, indent=None if scores else 2, allow_nan=False) + "\n"
    page = to_html([(results.evaluation(), ())], made=made_line(results.about))
    try:
        write_text(target, written, access=PRIVATE if scores else None)
        write_text(target.with_suffix(".html"), page)
    except OSError as error:
        raise ValueError(
            f"Cannot write {target} ({error.strerror or error}): name a file in a folder that you "
            "can write to."
        ) from error


def _attack(attack: AttackResult, scores: bool) -> dict[str, Any]:
    found = attack.with_bands()
    entry: dict[str, Any] = {
        "name": attack.name,
        "title": attack.title,
        "white_box": attack.white_box,
        "seconds": round(attack.seconds, 3),
        "cost": asdict(attack.cost),
        "resamples": attack.resamples,
        "seed": attack.seed,
        "models": found.models,
        "members": found.members,
        "nonmembers": found.nonmembers,
        "interval_method": found.method,
        "metrics": _numbers(found.estimates),
        "gain": None if attack.gain is None else _numbers(attack.gain),
        "curve": vars(found.shown_curve()),
    }
    if scores:
        entry["truth"] = attack.truth.astype(int).tolist()
        entry["scores"] = attack.scores.tolist()
        where = attack._kept().known
        entry["known"] = None if where is None else where.astype(int).tolist()
    return entry


def _numbers(estimates: Mapping[str, Estimate]) -> dict[str, Any]:
    return {
        metric: {end: _or_none(getattr(estimates[metric], end)) for end in ("value", "low", "high")}
        for metric in METRICS
    }


def _or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None


def load(path: PathLike) -> Results:
    """Read a file of `save`."""
    from mico_competition.evaluation.results import Results

    written = _content(path)
    try:
        content = json.loads(written)
        fits = content["format"] == FORMAT
        number = content["version"] if fits else None
    except (ValueError, KeyError, TypeError, RecursionError):
        fits, number = False, None
    if not fits:
        raise ValueError(f"Expected {path} to be a file of `Results.save`: it has another form.")
    if number != VERSION:
        raise ValueError(
            f"Expected {path} of version {VERSION}, got {number!r}: load it with the version of "
            "mico_competition that wrote it, or a later one."
        )
    try:
        check_content(content)
        return Results(
            [_read(entry) for entry in content["attacks"]],
            against=content["against"],
            subject=content["subject"],
            phase=content["phase"],
            about=content["about"],
        )
    except Misfit as error:
        raise ValueError(
            f"Expected {path} to be a whole file of `Results.save`, and {error}."
        ) from None
    except ValueError as error:
        raise ValueError(f"Expected {path} to be a whole file of `Results.save`. {error}") from None


def _content(path: PathLike) -> bytes:
    try:
        return Path(path).read_bytes()
    except IsADirectoryError:
        raise ValueError(
            f"Expected {path} to be a file of `Results.save`: it is a folder."
        ) from None


def _read(entry: Mapping[str, Any]) -> AttackResult:
    from mico_competition.evaluation.attack_result import AttackResult

    about: dict[str, Any] = {
        "title": entry["title"],
        "white_box": entry["white_box"],
        "seconds": entry["seconds"],
        "cost": Cost(**entry["cost"]),
        "resamples": entry["resamples"],
        "seed": entry["seed"],
    }
    if "scores" in entry:  # everything else follows from them
        given = (np.array(entry["truth"], dtype=bool), np.array(entry["scores"], dtype=float))
        known = None if entry["known"] is None else np.array(entry["known"], dtype=bool)
        return AttackResult.of(entry["name"], *given, known=known, **about)
    curve = entry["curve"]
    # The file has the best TPR strictly below each rate: such points lie just left of them.
    fpr = np.nextafter(np.array([*curve["fpr"], 2.0]), 0.0).clip(max=1.0)
    measured = Measured(
        _estimates(entry["metrics"]),
        np.append(0.0, fpr),
        np.array([0.0, *curve["tpr"], 1.0]),
        entry["models"],
        entry["members"],
        entry["nonmembers"],
        dict(zip(curve["fpr"], zip(curve["low"], curve["high"]))),
        Curve(*(curve[name] for name in ("fpr", "tpr", "low", "high"))),
    )
    gain = None if entry["gain"] is None else _estimates(entry["gain"])
    return AttackResult(entry["name"], measured=measured, gain=gain, **about)


def _estimates(numbers: Mapping[str, Any]) -> dict[str, Estimate]:
    def of(one: Mapping[str, Any]) -> Estimate:
        value, low, high = (_or_nan(one[end]) for end in ("value", "low", "high"))
        return Estimate(value, low, high, np.zeros(0))

    return {metric: of(one) for metric, one in numbers.items()}


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else float(value)
