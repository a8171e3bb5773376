"""`mico leaderboard add`, `check` and `build`, and `mico score-all`."""

from __future__ import annotations

import argparse
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

from mico_competition.competition.table import CHALLENGES, SCORED_PHASES
from mico_competition.support.command_line import UsageError, output_folder
from mico_competition.support.counts import count_of
from mico_competition.support.progress import say, stage, tracked
from mico_competition.support.reports import add_json, report

_ABOUT = {
    "link": "address of a paper or repository, http:// or https://",
    "description": "what the attack does, in a line",
    "command": "the command that made the predictions",
    "commit": "commit of the code that made them",
}


def add_leaderboard(parser: argparse.ArgumentParser) -> None:
    """Add the verbs of `mico leaderboard` to `parser`."""
    verbs = parser.add_subparsers(
        dest="step",
        required=True,
        metavar="add|check|build",
        prog=parser.prog,
        parser_class=type(parser),
    )
    for name, text, fill in (
        ("add", "score a submission and write its entry", _add_add),
        ("check", "list all faults of entries", _add_check),
        ("build", "build the site from the entries", _add_build),
    ):
        sentence = f"{text[:1].upper()}{text[1:]}."
        verb = verbs.add_parser(name, help=text, description=sentence, allow_abbrev=False)
        verb.add_argument(
            "--quiet", action="store_true", default=argparse.SUPPRESS, help="show no progress"
        )
        fill(verb)


def _add_add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("submission", type=Path, help="zip, or folder with predictions")
    parser.add_argument(
        "--name", required=True, help="name of the team or attack, a row of the table"
    )
    parser.add_argument(
        "--author", action="append", default=[], dest="authors", help="may be repeated"
    )
    for name, text in _ABOUT.items():
        parser.add_argument(f"--{name}", default="", help=text)
    parser.add_argument(
        "--submitted", type=_time, help="time of submission, with offset (default: now)"
    )
    _add_truth(parser)

    def run(args: argparse.Namespace) -> None:
        from mico_competition.hosting.leaderboard.add import About, add
        from mico_competition.hosting.leaderboard.entries import write_entry

        about = About(
            args.name,
            tuple(args.authors),
            **{name: getattr(args, name) for name in _ABOUT},
            submitted=args.submitted,
        )
        about.fields()
        with stage("Scoring"):
            entries = add(args.submission, _truths(args), about, exact=args.exact)
        for values in entries:
            path = write_entry(args.out, values)
            average = values["average"]
            interval = average["interval"]
            ends = " [{:.3f}, {:.3f}]".format(*interval) if interval else ""
            print(
                f"{values['challenge']} {values['phase']}: average TPR at 10% FPR "
                f"{average['score']:g}{ends}: {path}"
            )
            if values["phase"] == SCORED_PHASES[-1]:
                print("Keep it out of public repositories until that phase opens")

    parser.set_defaults(run=run)


def _add_check(parser: argparse.ArgumentParser) -> None:
    _add_entries(parser, "a FILE of one entry, or ")
    add_json(parser)

    def run(args: argparse.Namespace) -> int:
        sound, faults = _checked(args.entries)
        if not sound and not faults:
            print(
                f"There are no entries in {args.entries} yet: they are <tier>/<name>.json or "
                "<challenge>/<entry>.json in it.",
                file=sys.stderr,
            )
        for fault in faults:
            print(fault, file=sys.stderr)
        text = count_of(sound, "sound entry", "sound entries")
        print(f"{text}, {count_of(len(faults), 'fault')}")
        report("leaderboard check", entries=sound, faults=faults)
        return 1 if faults else 0

    parser.set_defaults(run=run)


def _checked(path: Path | None) -> tuple[int, list[str]]:
    """How many entries are sound in a file or folder, None for the benchmark's; and all faults."""
    from mico_competition.benchmark.checking import check_file, check_folder, is_benchmark
    from mico_competition.hosting.leaderboard.entries import check_entries

    path = _found(path)
    if path is not None and path.is_file():
        faults = check_file(path)
        return 0 if faults else 1, faults
    if path is None or is_benchmark(path):
        return check_folder(path)
    entries, faults = check_entries(path)
    return len(entries), faults


def _found(path: Path | None) -> Path | None:
    """Where the entries are: None is the benchmark's own, and --work of a benchmark holds a folder.

    Raises:
        ValueError: if there is nothing at the path, or if files lie where no entry is looked for.
    """
    from mico_competition.benchmark.checking import is_benchmark
    from mico_competition.benchmark.tiers import TIERS

    if path is None:
        return None
    if not path.exists():
        raise ValueError(
            f"There is no {path}: name entries that `mico benchmark --out` or `mico leaderboard "
            "add --out` wrote."
        )
    loose = next(iter(sorted(path.glob("*.json"))), None) if path.is_dir() else None
    if loose is not None and path.resolve().name not in TIERS:
        raise ValueError(
            f"{loose} lies in no folder of a tier or challenge: entries are <tier>/<name>.json or "
            "<challenge>/<entry>.json. Move it, or name this one file to check it."
        )
    return path / "entries" if is_benchmark(path / "entries") else path


def _add_build(parser: argparse.ArgumentParser) -> None:
    _add_entries(parser)
    parser.add_argument(
        "--out", type=output_folder, default=Path("site"), help="folder for the site"
    )
    parser.add_argument(
        "--with",
        dest="more",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="show this entry of the benchmark, too; may be repeated",
    )
    parser.add_argument(
        "--final_opens",
        type=_time,
        metavar="TIME",
        help="such as 2027-01-13T12:00:00Z; a competition's entries of the final phase are left "
        "out before this time, and always without this flag",
    )
    parser.add_argument("--title", help="heading of the site")
    parser.set_defaults(run=_run_build)


def _run_build(args: argparse.Namespace) -> None:
    from mico_competition.benchmark.checking import is_benchmark
    from mico_competition.benchmark.tiers import TIERS

    args.entries = _found(args.entries)
    if args.entries is not None and args.entries.is_file():
        raise ValueError(
            f"{args.entries} is a file: name its folder, or show an entry of the benchmark beside "
            f"the package's with --with {args.entries}."
        )
    if args.entries is None or is_benchmark(args.entries):
        if args.entries is not None and args.entries.resolve().name in TIERS:
            args.entries = args.entries.resolve().parent
        _build_benchmark(args)
        return
    from mico_competition.hosting.leaderboard.build import TITLE, build

    if args.more:
        raise UsageError("--with is for the benchmark's site: put the file into the folder.")
    with stage("Site"):
        built = build(
            args.entries, args.out, final_opens=args.final_opens, title=args.title or TITLE
        )
    shown = count_of(built.entries, "entry", "entries")
    print(f"Made {args.out / 'index.html'}, {shown}")
    if built.hidden:
        hidden = count_of(built.hidden, "entry", "entries")
        print(f"Left out {hidden} of the final phase (see --final_opens)")


def _build_benchmark(args: argparse.Namespace) -> None:
    from mico_competition.benchmark.site import TITLE, build_site

    if args.final_opens is not None:
        raise UsageError("--final_opens is for a competition's entries: the benchmark hides none.")
    for path in args.more:
        if not path.is_file():
            raise ValueError(
                f"There is no file {path} to show: --with takes an entry that `mico benchmark` "
                "wrote."
            )
    with stage("Site"):
        shown = build_site(args.entries, args.out, more=args.more, title=args.title or TITLE)
    print(f"Made {args.out / 'index.html'}, {count_of(shown, 'entry', 'entries')}")


def add_score_all(parser: argparse.ArgumentParser) -> None:
    """Give `parser` what `mico score-all` takes."""
    parser.add_argument(
        "submissions",
        type=Path,
        help="folder of zips; <name>.json beside <name>.zip may state name, authors, link, "
        "description, command, commit and submitted",
    )
    _add_truth(parser)
    parser.add_argument("--workers", type=int, help="processes (default: one for each core)")
    parser.add_argument("--time_limit", type=float, help="seconds for one zip (default: 300)")
    parser.add_argument("--resamples", type=int, help="resamples for intervals (default: 2000)")
    parser.add_argument("--again", action="store_true", help="also score zips that have entries")
    add_json(parser)
    parser.set_defaults(run=_run_score_all)


def _run_score_all(args: argparse.Namespace) -> int:
    from mico_competition.hosting.leaderboard.score_all import score_all

    limits = {
        name: value
        for name, value in {
            "workers": args.workers,
            "seconds": args.time_limit,
            "resamples": args.resamples,
        }.items()
        if value is not None
    }
    for name, value in limits.items():
        if value <= 0:
            raise UsageError(f"Expected {name}={value} > 0.")
    total, outcomes = score_all(
        args.submissions, _truths(args), args.out, exact=args.exact, again=args.again, **limits
    )
    scored = before = faulty = 0
    found = []
    for outcome in tracked(outcomes, "Scoring", "zip", total=total):
        scored += bool(outcome.entries)
        before += outcome.before
        faulty += bool(outcome.faults)
        found.append(
            {
                "zip": outcome.path,
                "entries": outcome.entries,
                "before": outcome.before,
                "faults": outcome.faults or None,
            }
        )
        if not outcome.before:
            say(_line(outcome))
    print(
        f"{count_of(total, 'zip')}: {scored} scored, {before} done before, {faulty} with faults"
        + (f" (see {args.out / 'faults'})" if faulty else "")
    )
    report("score-all", zips=total, scored=scored, before=before, faulty=faulty, outcomes=found)
    return 1 if faulty else 0


def _line(outcome: Any) -> str:
    from mico_competition.scoring.printable import printable

    name = printable(outcome.path.name)
    if not outcome.faults:
        return f"{name}: {', '.join(str(path) for path in outcome.entries)}"
    first, *more = outcome.faults.splitlines()
    return printable(f"{name}: {' '.join([first, *(line.strip() for line in more[:1])])}", 1000)


def _add_entries(parser: argparse.ArgumentParser, more: str = "") -> None:
    parser.add_argument(
        "entries",
        nargs="?",
        type=Path,
        metavar="FILE|FOLDER" if more else "FOLDER",
        help=f"{more}a folder of them: of the benchmark's, or of a competition's "
        "<challenge>/<entry>.json (default: the entries of `mico benchmark` in this package)",
    )


def _add_truth(parser: argparse.ArgumentParser) -> None:
    """Flags for the solutions, and for the folder of entries."""
    parser.add_argument(
        "--truth",
        required=True,
        type=Path,
        help="folder that training wrote <challenge>/... into, or that `mico reference` wrote",
    )
    parser.add_argument("--challenge", choices=CHALLENGES, help="default: the submission's own")
    parser.add_argument(
        "--phase", action="append", choices=SCORED_PHASES, help="one or both (default: dev)"
    )
    parser.add_argument(
        "--data_version",
        help="name of these data (default: the SHA-256 of the release's commitments)",
    )
    parser.add_argument(
        "--exact",
        action="store_true",
        help="write exact scores of dev, too, once its labels are public: many scores reveal them",
    )
    parser.add_argument(
        "--out", type=output_folder, default=Path("leaderboard"), help="folder of entries to add to"
    )


def _truths(args: argparse.Namespace) -> list[Any]:
    """The solutions of every requested challenge and phase."""
    from mico_competition.competition.layout import find_challenges
    from mico_competition.hosting.leaderboard.truth_tree import read_truth

    challenges = [args.challenge] if args.challenge else find_challenges(args.truth)
    return [
        read_truth(args.truth, challenge, phase, args.data_version)
        for challenge in challenges
        for phase in args.phase or SCORED_PHASES[:1]
    ]


def _time(text: str) -> datetime:
    from mico_competition.hosting.leaderboard.form import parse_time

    try:
        return parse_time(text)
    except ValueError as mistake:
        raise argparse.ArgumentTypeError(str(mistake)) from None
