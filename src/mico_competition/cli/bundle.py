"""`mico bundle`: writes and checks a bundle; `mico rehearse`: a dry run of it."""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path

from mico_competition.competition.table import CHALLENGES
from mico_competition.support.command_line import UsageError, output_file, output_folder
from mico_competition.support.counts import count_of
from mico_competition.support.progress import stage
from mico_competition.support.reports import add_json, report

_DATE = '"YYYY-MM-DD HH:MM:SS", UTC'
_DATES = ("dev_start", "final_start", "end")
_NOT_MOVED = (
    *("root", "challenge", "platform", "docker_image", "repo", "code", "starting_kit"),
    *("public_data", "step", "per_day", "in_all", "final_reference"),
)


def add_bundle(parser: argparse.ArgumentParser) -> None:
    """Give `parser` what `mico bundle` takes."""
    parser.description = (
        "Write the bundle of a competition for Codabench or CodaLab; or, with --final_reference, "
        "the solutions to swap in when Final opens; or, with --redate, a copy of a bundle with "
        "other dates; or, with --check, list all faults of a bundle."
    )
    parser.add_argument(
        "root", nargs="?", type=Path, help="folder that training wrote <challenge>/... into"
    )
    parser.add_argument("--challenge", choices=CHALLENGES, help="its name")
    parser.add_argument("--out", type=output_file, help="zip to write")
    parser.add_argument(
        "--replace", action="store_true", help="replace the file at --out if there is one"
    )
    parser.add_argument("--dev_start", metavar="TIME", help=f"Development opens: {_DATE}")
    parser.add_argument("--final_start", metavar="TIME", help="Final opens, a minute after")
    parser.add_argument("--end", metavar="TIME", help="Final closes")
    parser.add_argument(
        "--platform",
        choices=("codabench", "codalab"),
        help="default: codabench; with --check, the platform of the bundle's version",
    )
    parser.add_argument("--docker_image", help="docker image for the scoring program")
    parser.add_argument(
        "--repo", metavar="OWNER/NAME", help="the release on the Hugging Face Hub, for the pages"
    )
    parser.add_argument(
        "--code", metavar="URL", help="repository of this package, for the page on how to start"
    )
    parser.add_argument("--starting_kit", type=Path, help="a zip for participants")
    parser.add_argument("--public_data", type=Path, help="another zip for them")
    parser.add_argument(
        "--step",
        type=float,
        help="step of Development's scores; 0: exact scores (default: that of the phase, or 0.005)",
    )
    parser.add_argument(
        "--per_day", type=int, help="submissions to Development allowed each day (default: 5)"
    )
    parser.add_argument(
        "--in_all", type=int, help="submissions to Development allowed in all (default: 100)"
    )
    parser.add_argument(
        "--final_reference", action="store_true", help="write only the solutions of Final"
    )
    parser.add_argument(
        "--redate",
        type=Path,
        metavar="FILE",
        help="write FILE to --out with the dates given; dates that are left out stay",
    )
    parser.add_argument(
        "--pages", type=Path, metavar="FOLDER", help="with --redate: write changed pages there, too"
    )
    parser.add_argument("--check", type=Path, metavar="FILE", help="write nothing; check FILE")
    add_json(parser)
    parser.set_defaults(run=_run_bundle, tidy=True)


def _run_bundle(args: argparse.Namespace) -> int:
    if args.check:
        return _check(args.check, args.platform)
    if args.json:
        raise UsageError("--json is for --check FILE.")
    if args.redate:
        return _redate(args)
    if args.pages:
        raise UsageError("--pages is for --redate FILE.")
    for name in ("root", "challenge", "out"):
        if getattr(args, name) is None:
            flag = "the folder of trained models" if name == "root" else f"--{name}"
            raise UsageError(f"Give {flag}, or --check FILE.")
    if args.out.is_file() and not args.replace:
        raise ValueError(f"{args.out} exists already: name another file, or give --replace.")
    if args.final_reference:
        from mico_competition.hosting.codabench.bundle import write_final_reference

        count = write_final_reference(args.root, args.challenge, args.out)
        print(f"Wrote {count} solutions of Final to {args.out}; upload it when Final opens")
        return 0
    for name in _DATES:
        if getattr(args, name) is None:
            raise UsageError(f"Give --{name} {_DATE}.")
    from mico_competition.hosting.codabench.bundle import write_bundle
    from mico_competition.hosting.codabench.facts import Schedule
    from mico_competition.hosting.codabench.options import options_of

    names = ("platform", "docker_image", "step", "per_day", "in_all")
    options = options_of(args.challenge, **{name: getattr(args, name) for name in names})
    now = datetime.now(UTC).replace(tzinfo=None)
    schedule = Schedule.of(args.dev_start, args.final_start, args.end, now=now)
    if schedule.dev_start < now:
        print(f"Development opens in the past, at {args.dev_start} UTC.", file=sys.stderr)
    with stage("Bundle"):
        faults = write_bundle(
            args.root,
            args.challenge,
            args.out,
            schedule,
            options,
            repo=args.repo,
            code=args.code,
            starting_kit=args.starting_kit,
            public_data=args.public_data,
        )
    for fault in faults:
        print(fault, file=sys.stderr)
    verdict = (
        f"its check warns of {count_of(len(faults), 'thing')}" if faults else "it passes its check"
    )
    print(f"Wrote {args.out} ({args.out.stat().st_size:,} bytes); {verdict}")
    print("The solutions of Final are not in it: docs/HOST.md says how to add them")
    return 0


def _redate(args: argparse.Namespace) -> int:
    """Write a copy with other dates, and the pages that changed; say what to paste where."""
    from mico_competition.hosting.codabench.redate import instructions, redate
    from mico_competition.support.files import write_text

    for name in _NOT_MOVED:
        if getattr(args, name) not in (None, False):
            flag = "the folder of models" if name == "root" else f"--{name}"
            raise UsageError(f"--redate changes dates alone: leave out {flag}.")
    if args.out is None:
        raise UsageError("Give --out, the zip to write.")
    if args.out.is_file() and not args.replace:
        raise ValueError(f"{args.out} exists already: name another file, or give --replace.")
    now = datetime.now(UTC).replace(tzinfo=None)
    with stage("Bundle"):
        dates = {name: getattr(args, name) for name in _DATES}
        redated = redate(args.redate, args.out, dates, now=now)
    for line in (*redated.left, *redated.faults):
        print(line, file=sys.stderr)
    after = redated.after
    print(f"Wrote {args.out}, whose times are (UTC):")
    print(f"  Development  {after.dev_start} to {after.dev_end}")
    print(f"  Final        {after.final_start} to {after.end}")
    if args.pages is not None:
        for file, (_, text) in redated.pages.items():
            path = args.pages / Path(file).name
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(path, text.decode())
    print("\n".join(instructions(redated, args.pages)))
    return 0


def _check(path: Path, platform: str | None) -> int:
    from mico_competition.hosting.codabench.check import check_bundle, has_errors

    with stage("Check of the bundle"):
        faults = check_bundle(path, platform)
    for fault in faults:
        print(fault, file=sys.stderr)
    print(f"{path}: {count_of(len(faults), 'fault') if faults else 'no faults'}")
    report("bundle check", file=path, sound=not has_errors(faults), faults=faults)
    return 1 if has_errors(faults) else 0


def add_rehearse(parser: argparse.ArgumentParser) -> None:
    """Give `parser` what `mico rehearse` takes."""
    parser.description = (
        "Check a bundle, then score a submission in each of its phases as the platform would: with "
        "its folders, its command and its way of reading scores. It needs no docker."
    )
    parser.add_argument("bundle", type=Path, help="zip that `mico bundle` wrote")
    parser.add_argument("submission", type=Path, help="zip that `mico submit` wrote")
    parser.add_argument(
        "--final_reference",
        type=Path,
        metavar="FILE",
        help="rehearse the swap: this zip in place of the last phase's reference data",
    )
    parser.add_argument(
        "--python", type=Path, help="interpreter to run as `python3` (default: this one)"
    )
    parser.add_argument(
        "--out", type=output_folder, help="new folder that keeps what each phase wrote"
    )
    add_json(parser)
    parser.set_defaults(run=_run_rehearse, tidy=True)


def _run_rehearse(args: argparse.Namespace) -> int:
    from mico_competition.hosting.codabench.rehearse import rehearse
    from mico_competition.hosting.codabench.rehearse_text import as_text

    with stage("Rehearsal"):
        rehearsal = rehearse(
            args.bundle,
            args.submission,
            final_reference=args.final_reference,
            python=args.python,
            out=args.out,
        )
    for fault in rehearsal.faults:
        print(fault, file=sys.stderr)
    print(as_text(rehearsal))
    report(
        "rehearse",
        sound=rehearsal.sound,
        faults=rehearsal.faults,
        phases=[
            {
                "name": run.name,
                "status": run.outcome.status,
                "words": run.outcome.words,
                "seconds": run.outcome.seconds,
                "scores": run.outcome.scores,
                "complete": run.complete,
                "closed": run.closed,
            }
            for run in rehearsal.phases
        ],
    )
    return 0 if rehearsal.sound else 1
