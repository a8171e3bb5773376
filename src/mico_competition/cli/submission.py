"""`mico check`, `submit` and `score`: predictions for a challenge folder."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mico_competition.cli.attack_options import add_challenge_folder
from mico_competition.competition.rows import AMENDMENTS_FILE
from mico_competition.competition.table import (
    PHASE_NAMES,
    SCORED_PHASES,
    SOLUTION_FILE,
    labels_of,
)
from mico_competition.support.command_line import output_file
from mico_competition.support.counts import count_of
from mico_competition.support.progress import stage
from mico_competition.support.reports import add_json, report
from mico_competition.support.terminal import styled, width, wrapped


def add_check(parser: argparse.ArgumentParser) -> None:
    """Give `parser` what `mico check` takes."""
    _add_predictions(parser)
    parser.add_argument(
        "--zip", type=Path, help="check this zip instead of the predictions' folder"
    )
    add_json(parser)
    parser.set_defaults(run=_run_check)


def _run_check(args: argparse.Namespace) -> int:
    from mico_competition.competition.submission import check_folder, check_zip

    if args.zip:
        faults = check_zip(args.zip, args.challenge_folder)
    else:
        faults = check_folder(args.challenge_folder, args.predictions)
    for fault in faults:
        print(fault, file=sys.stderr)
    _print_amendments(args)
    print(count_of(len(faults), "fault") if faults else "No faults: ready to submit")
    checked = args.zip or args.predictions or args.challenge_folder
    report("check", checked=checked, sound=not faults, faults=faults)
    return 1 if faults else 0


def add_submit(parser: argparse.ArgumentParser) -> None:
    """Give `parser` what `mico submit` takes."""
    _add_predictions(parser)
    parser.add_argument(
        "--zip", type=output_file, help="zip to write (default: predictions_<challenge>.zip)"
    )
    parser.set_defaults(run=_run_submit)


def _run_submit(args: argparse.Namespace) -> None:
    from mico_competition.competition.layout import challenge_folder_of
    from mico_competition.competition.submission import pack

    name = challenge_folder_of(args.challenge_folder).name
    path = pack(
        args.challenge_folder, args.zip or Path(f"predictions_{name}.zip"), args.predictions
    )
    print(f"Packed {path} ({path.stat().st_size:,} bytes)")
    print("\n".join(packed_lines(args.challenge_folder, args.predictions)))
    _print_amendments(args)


def _print_amendments(args: argparse.Namespace) -> None:
    """Print which models were amended after publication, since predictions may be older."""
    from mico_competition.competition.layout import challenge_folder_of, release_folder

    side = release_folder(challenge_folder_of(args.challenge_folder))
    if not (side / AMENDMENTS_FILE).is_file():
        return  # without importing torch, which takes seconds
    from mico_competition.release.stale import amendment_notes

    for note in amendment_notes(args.challenge_folder, args.predictions):
        print(note)


def packed_lines(challenge_folder: Path, predictions: Path | None = None) -> list[str]:
    """What a zip of predictions holds: a line for each scenario, with when its files were written.

    A prediction does not say which attack made it, but files of another time may be of another.
    """
    from datetime import datetime

    from mico_competition.competition.layout import walk_challenge
    from mico_competition.competition.submission import find_predictions

    folder = find_predictions(challenge_folder, predictions)
    times: dict[str, list[float]] = {}
    counts: dict[str, Counter[str]] = {}
    for model in walk_challenge(challenge_folder, phases=SCORED_PHASES):
        written = model.prediction_in(folder).stat().st_mtime
        times.setdefault(model.scenario, []).append(written)
        counts.setdefault(model.scenario, Counter())[model.phase] += 1
    size = max(map(len, counts))
    lines = []
    for name, own in times.items():
        first, last = (f"{datetime.fromtimestamp(t):%Y-%m-%d %H:%M}" for t in (min(own), max(own)))
        when = first if first == last else f"{first} to {last}"
        phases = ", ".join(f"{phase} {count}" for phase, count in counts[name].items())
        lines.append(f"  {name.ljust(size)}  {phases} predictions, written {when}")
    return lines


def _phases_line(challenge_folder: Path, phase: str, models: int) -> str:
    """The phase that is scored, and those of the folder that are not."""
    from mico_competition.competition.layout import walk_challenge

    others: dict[str, bool] = {}
    for model in walk_challenge(challenge_folder):
        if model.phase != phase:
            known = others.get(model.phase, True)
            others[model.phase] = known and (model.path / SOLUTION_FILE).is_file()
    words = [f"Phase {phase}: {count_of(models, 'model')}."]
    words += [f"Not scored: {p} (use --phase {p})." for p, known in others.items() if known]
    hidden = [p for p, known in others.items() if not known]
    if hidden:
        words.append(f"Not scored: {' and '.join(hidden)}, whose solutions are not disclosed.")
    return " ".join(words)


def add_score(parser: argparse.ArgumentParser) -> None:
    """Give `parser` what `mico score` takes."""
    _add_predictions(parser)
    parser.add_argument(
        "--phase",
        default="train",
        choices=PHASE_NAMES,
        help="whose solutions exist (default: train)",
    )
    parser.add_argument("--html", type=output_file, help="also write a report with ROC curves here")
    add_json(parser)
    parser.set_defaults(run=_run_score)


def _run_score(args: argparse.Namespace) -> None:
    from mico_competition.competition.submission import read_phase
    from mico_competition.scoring import generate_html, intervals_of
    from mico_competition.scoring.curve import RATES
    from mico_competition.scoring.intervals import describe_intervals
    from mico_competition.scoring.program import score_scenarios
    from mico_competition.support.files import write_text
    from mico_competition.support.made import made_line

    values = read_phase(args.challenge_folder, args.predictions, phase=args.phase)
    with stage("Scoring"):
        scores, intervals = score_scenarios(*values), intervals_of(*values, rates=RATES)
    labels = labels_of(scores)
    scores = {name: scores[name] for name in labels}
    print(_phases_line(args.challenge_folder, args.phase, len(values[0])))
    _print_amendments(args)
    print("\n".join(score_lines(scores, intervals, labels)))
    known = {name: intervals[name] for name in scores}
    counts = {n: one.get("effective_models", one["models"]) for n, one in known.items()}
    print("\n" + wrapped(describe_intervals(counts)))
    if args.html:
        with stage("Report"):
            allowed = _ceilings(args.challenge_folder, args.phase)
            folder = args.challenge_folder.resolve().name
            made = made_line(what=f"{folder}, phase {args.phase}")
            write_text(args.html, generate_html(scores, intervals, allowed, labels, made))
        print(f"Report: {args.html}")
    _report_scores(args.phase, scores, intervals, labels)


def _report_scores(
    phase: str,
    scores: Mapping[str, Mapping[str, Any]],
    intervals: Mapping[str, Any],
    labels: Mapping[str, str],
) -> None:
    """The report of `mico score`."""
    from mico_competition.scoring.coarse import average
    from mico_competition.scoring.metrics import RANKED, SCALARS
    from mico_competition.scoring.report import AVERAGE

    def number(value: float, ends: Any) -> dict[str, Any]:
        low, high = (None, None) if ends is None else ends
        return {"value": value, "low": low, "high": high}

    report(
        "score",
        phase=phase,
        ranked=RANKED,
        average=number(average(scores, RANKED), intervals.get(AVERAGE)),
        scenarios=[
            {
                "scenario": name,
                "label": labels[name],
                "models": intervals[name]["models"],
                "metrics": {key: number(numbers[key], intervals[name].get(key)) for key in SCALARS},
            }
            for name, numbers in scores.items()
        ],
    )


def score_lines(
    scores: Mapping[str, Mapping[str, Any]],
    intervals: Mapping[str, Any],
    labels: Mapping[str, str],
) -> list[str]:
    """The scores as a table: a line for each number, a column for each scenario.

    The competition's number comes first, with its interval, apart from the others; these are in the
    order of their rate.  As many scenarios stand side by side as the terminal is wide.
    """
    from mico_competition.scoring.metrics import RANKED, TITLES
    from mico_competition.scoring.report import AVERAGE

    columns = [_column(name, labels[name], scores[name], intervals[name]) for name in scores]
    if len(scores) > 1:
        mean = {key: sum(one[key] for one in scores.values()) / len(scores) for key in TITLES}
        columns.append(_column("average", "", mean, {RANKED: intervals.get(AVERAGE)}))
    others = [title for key, title in TITLES.items() if key != RANKED]
    titles = ["scenario", "", TITLES[RANKED], "  95% interval", "", *others]
    first = max(map(len, titles)) + 2
    size = max(len(cell) for column in columns for cell in column) + 2
    beside = max(1, (width() - first) // size)
    lines: list[str] = []
    for at in range(0, len(columns), beside):
        lines += [""] * bool(lines)
        for number, (title, *cells) in enumerate(zip(titles, *columns[at : at + beside])):
            line = title.ljust(first) + "".join(cell.rjust(size) for cell in cells)
            lines.append(styled(line.rstrip(), "bold" if number in (0, 2) else ""))
    return lines


def _column(
    name: str, label: str, numbers: Mapping[str, float], intervals: Mapping[str, Any]
) -> list[str]:
    """The cells of a scenario, from the top."""
    import math

    from mico_competition.scoring.metrics import RANKED, TITLES

    low, high = intervals.get(RANKED) or (math.nan, math.nan)
    interval = "unknown" if math.isnan(low) else f"{low:.3f} - {high:.3f}"
    others = [f"{numbers[key]:.4f}" for key in TITLES if key != RANKED]
    return [name, label, f"{numbers[RANKED]:.4f}", interval, "", *others]


def _ceilings(challenge_folder: Path, phase: str) -> Mapping[str, Any]:
    """The largest TPR that privacy allows in each scenario; empty, with a message, if not known."""
    from mico_competition.audit import tpr_limits_of

    try:
        return tpr_limits_of(challenge_folder, phase=phase)
    except ValueError as reason:
        print(f"No limits of privacy in the report. {reason}", file=sys.stderr)
        return {}


def _add_predictions(parser: argparse.ArgumentParser) -> None:
    add_challenge_folder(parser)
    parser.add_argument(
        "--predictions",
        type=Path,
        help="folder with predictions (default: FOLDER.predictions beside the challenge "
        "folder, or its model folders if they hold predictions, as in 2022)",
    )
