"""`mico release`, `leaks`, `reference`, `reveal`, `verify`: what others may see of models."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mico_competition.competition.table import (
    CHALLENGES,
    SCORED_PHASES,
    get_scenario,
    phases_of,
)
from mico_competition.support.command_line import UsageError, output_file, output_folder
from mico_competition.support.counts import count_of, ids_text
from mico_competition.support.reports import add_json, report

if TYPE_CHECKING:
    from mico_competition.competition.layout import ModelFolder

_BESIDE = "checksums, commitments and archives"


def add_release(parser: argparse.ArgumentParser) -> None:
    """Give `parser` what `mico release` takes."""
    _add_root(parser)
    parser.add_argument(
        "--to",
        required=True,
        type=output_folder,
        help="folder for <challenge>/... and <challenge>.release/...",
    )
    _add_challenges(parser)
    parser.add_argument(
        "--splits_of_2022",
        action="store_true",
        help="release dev and final although their seeds are 2022's decimal ones, whose splits can "
        "be searched (2^32); for comparison only",
    )
    parser.add_argument(
        "--no_archives",
        action="store_true",
        help="do not write the models a second time as zips; `mico publish` makes those it needs",
    )
    parser.add_argument(
        "--reveal",
        nargs="+",
        action="extend",
        choices=SCORED_PHASES,
        metavar="PHASE",
        help="add the labels and seeds of dev or final, or of both, which are over, to the release "
        "in --to",
    )
    parser.add_argument(
        "--amend",
        metavar="REASON",
        help="replace the models of the release in --to that were trained again, add new ones, and "
        "record both, with this line of text, in a public file that anybody can verify",
    )
    parser.add_argument(
        "--withdraw",
        nargs="+",
        action="extend",
        default=[],
        metavar="MODEL",
        help="with --amend: take these models, <scenario>/<phase>/model_<i>, out of the release; "
        "move their trained folders away first",
    )
    parser.add_argument(
        "--date", metavar="YYYY-MM-DD", help="with --amend: its date (default: today, in UTC)"
    )
    parser.add_argument(
        "--dry_run",
        action="store_true",
        help="with --amend: check everything and print the amendment, but change nothing",
    )
    parser.set_defaults(run=_run_release, tidy=True)


def _run_release(args: argparse.Namespace) -> None:
    from mico_competition.competition.layout import find_challenges, release_folder, walk_challenge
    from mico_competition.fleets.finished import check_fleets
    from mico_competition.release.add_labels import add_labels
    from mico_competition.release.amendments import all_amended
    from mico_competition.release.privacy_claims import other_settings
    from mico_competition.release.release import release

    if args.reveal and args.amend is not None:
        raise UsageError("--reveal and --amend are two changes: give one after the other.")
    if args.amend is None and (args.withdraw or args.date or args.dry_run):
        raise UsageError("--withdraw, --date and --dry_run go with --amend REASON.")
    challenges = args.challenge or find_challenges(args.root)
    if args.to.resolve().is_relative_to(args.root.resolve()):
        raise ValueError(
            f"{args.to} lies in {args.root}, which is secret: choose a folder outside for --to."
        )
    if args.amend is not None:
        _amend(args, challenges)
        return
    for challenge in challenges:
        place = args.to / challenge
        for phase in args.reveal or ():
            count = add_labels(args.root, challenge, args.to, phase)
            added = f"Added the labels of {count_of(count, 'model')} of {phase} to {place}"
            print(added, flush=True)
        if args.reveal:
            continue
        check_fleets(args.root, challenge, amended=all_amended(args.root, challenge))
        count = release(
            args.root,
            challenge,
            args.to,
            splits_of_2022=args.splits_of_2022,
            archives=not args.no_archives,
        )
        beside = "checksums and commitments" if args.no_archives else _BESIDE
        print(
            f"Released {count_of(count, 'model')} to {place}, with {beside} in "
            f"{release_folder(place)}; the leak check found nothing",
            flush=True,
        )
        models = walk_challenge(place)
        for sentence in (*_lacking(models), *other_settings(models)):
            print(sentence, flush=True)


def _lacking(models: Sequence[ModelFolder]) -> Iterator[str]:
    """A sentence for each released scenario that lacks models of its challenge's phases."""
    for scenario in dict.fromkeys(model.scenario for model in models):
        have = {model.model_id for model in models if model.scenario == scenario}
        phases = phases_of(get_scenario(scenario).challenge).values()
        gone = [(phase.name, set(phase.model_ids) - have) for phase in phases]
        if words := [f"{name} {ids_text(ids)}" for name, ids in gone if ids]:
            yield f"{scenario} lacks models that its challenge has: {', '.join(words)}"


def _amend(args: argparse.Namespace, challenges: Sequence[str]) -> None:
    """Amend the release of one challenge, and print what it means for participants."""
    from mico_competition.release.amend import amend

    if len(challenges) > 1:
        raise UsageError(f"{args.root} holds {', '.join(challenges)}: choose one with --challenge.")
    place = args.to / challenges[0]
    amendment = amend(
        args.root,
        challenges[0],
        args.to,
        args.amend,
        day=args.date,
        withdraw=args.withdraw,
        splits_of_2022=args.splits_of_2022,
        dry_run=args.dry_run,
    )
    what = f"Amendment {amendment.number} of {amendment.date}: {amendment.sentence()}"
    if args.dry_run:
        print(f"{what}. Nothing was changed")
        return
    print(f"{what}. It is recorded in {place}.release/amendments.jsonl; publish the release again")


def add_leaks(parser: argparse.ArgumentParser) -> None:
    """Give `parser` what `mico leaks` takes."""
    parser.add_argument("released", type=Path, help="folder that `mico release --to` wrote")
    parser.add_argument(
        "--trained", required=True, type=Path, help="folder that training wrote <challenge>/... to"
    )
    _add_challenges(parser)
    parser.add_argument(
        "--revealed",
        action="append",
        choices=SCORED_PHASES,
        default=[],
        help="a phase whose labels were revealed, so that the release may hold them (may be "
        "repeated)",
    )
    add_json(parser)

    def run(args: argparse.Namespace) -> int:
        from mico_competition.competition.layout import find_challenges, release_folder
        from mico_competition.release.leak_check.check import check_release
        from mico_competition.release.reveal import revealed_file

        challenges = args.challenge or find_challenges(args.released)
        faults = check_release(args.released, args.trained, challenges, revealed=args.revealed)
        report("leaks", challenges=list(challenges), sound=not faults, faults=faults)
        found = f"Do not publish: {count_of(len(faults), 'fault')}" if faults else "No leak found"
        code = _report(faults, f"{found} in {', '.join(challenges)}")
        for phase in SCORED_PHASES:
            files = [release_folder(args.released / c) / revealed_file(phase) for c in challenges]
            if phase not in args.revealed and any(file.is_file() for file in files):
                print(f"The release reveals {phase}: if that is meant, give --revealed {phase}")
        for name in (f"{challenge}.predictions" for challenge in challenges):
            if (args.released / name).exists():
                print(
                    f"{args.released / name} is not part of the release, and its numbers can "
                    "encode anything: do not publish it"
                )
        return code

    parser.set_defaults(run=run)


def add_reference(parser: argparse.ArgumentParser) -> None:
    """Give `parser` what `mico reference` takes."""
    _add_root(parser)
    parser.add_argument("--challenge", required=True, choices=CHALLENGES, help="its name")
    parser.add_argument("--phase", required=True, choices=SCORED_PHASES, help="whose labels")
    parser.add_argument(
        "--to", required=True, type=output_folder, help="the scoring program's ref folder"
    )

    def run(args: argparse.Namespace) -> None:
        from mico_competition.release.release import write_reference

        count = write_reference(args.root, args.challenge, args.phase, args.to)
        print(f"Wrote {count} solutions to {args.to / args.challenge}; keep them secret")

    parser.set_defaults(run=run)


def add_reveal(parser: argparse.ArgumentParser) -> None:
    """Give `parser` what `mico reveal` takes."""
    _add_root(parser)
    parser.add_argument("--phase", required=True, choices=SCORED_PHASES, help="whose labels")
    parser.add_argument(
        "--to", required=True, type=output_file, help="JSON file to write and to publish"
    )
    parser.add_argument("--challenge", choices=CHALLENGES, help="default: the only one")

    def run(args: argparse.Namespace) -> None:
        from mico_competition.competition.layout import find_challenges
        from mico_competition.release.reveal import as_text, reveal
        from mico_competition.support.files import PRIVATE, write_text

        found = [args.challenge] if args.challenge else find_challenges(args.root)
        if len(found) > 1:
            raise UsageError(f"{args.root} holds {', '.join(found)}: choose one with --challenge.")
        revealed = reveal(args.root, found[0], args.phase)
        write_text(args.to, as_text(revealed), access=PRIVATE)
        count = len(revealed["openings"])
        print(
            f"Wrote labels, seeds and salts of {count_of(count, 'model')} of {args.phase} to "
            f"{args.to}; only you can read it until you publish it"
        )

    parser.set_defaults(run=run)


def add_verify(parser: argparse.ArgumentParser) -> None:
    """Give `parser` what `mico verify` takes."""
    parser.add_argument("challenge_folder", type=Path, help="a released challenge folder")
    parser.add_argument(
        "revealed",
        nargs="?",
        type=Path,
        help="file that `mico reveal` wrote, to check against the release's commitments (default: "
        "check the release's files against its checksums, and its amendments)",
    )
    parser.add_argument(
        "--since",
        type=Path,
        metavar="EARLIER",
        help="also check that only amendments changed the release since EARLIER: an earlier copy "
        "of the challenge folder, or its commitments.json or amendments.jsonl",
    )
    parser.add_argument(
        "--to",
        type=output_folder,
        metavar="FOLDER",
        help="write the labels and seeds that were verified to FOLDER/<scenario>/<phase>/"
        "model_<i>/; FOLDER may be the challenge folder itself",
    )
    add_json(parser)

    def run(args: argparse.Namespace) -> int:
        from mico_competition.release.reveal import read_revealed, verify, write_solutions

        if args.revealed is None:
            if args.to is not None:
                raise UsageError("Name the revealed file whose labels --to writes.")
            return _verify_files(args.challenge_folder, args.since)
        if args.since is not None:
            raise UsageError("--since checks a release: give it without a revealed file.")
        count, faults = verify(args.challenge_folder, args.revealed)
        report(
            "verify", checked="labels", count=count, sound=not faults, faults=faults, amendments=[]
        )
        wrong = f"; {count_of(len(faults), 'fault')}" if faults else ""
        code = _report(faults, f"{count} label sets verified{wrong}")
        if args.to is not None and not faults:
            written = write_solutions(read_revealed(args.revealed), args.to)
            print(f"Wrote the labels of {count_of(written, 'model')} below {args.to}")
        return code

    parser.set_defaults(run=run)


def _verify_files(challenge_folder: Path, earlier: Path | None) -> int:
    """Check the files and amendments of a release, and that it descends from an earlier one."""
    from mico_competition.release.amendments import read_amendments, summary_line
    from mico_competition.release.check_files import check_files
    from mico_competition.release.descent import descent

    count, faults = check_files(challenge_folder)
    lines = [f"{count} files match SHA256SUMS"]
    amendments = read_amendments(challenge_folder)
    if amendments:
        lines.append(summary_line(amendments))
    if earlier is not None and not faults:
        found = descent(challenge_folder, earlier)
        faults += found.faults
        if not found.faults:
            alike = "" if found.files is None else f", {found.files} files are the same"
            since = count_of(len(found.since), "amendment")
            lines.append(f"It descends from {earlier}: {since} since{alike}")
    lines[0] += f"; {count_of(len(faults), 'fault')}" if faults else ""
    report(
        "verify",
        checked="files",
        count=count,
        sound=not faults,
        faults=faults,
        amendments=[
            {
                "number": one.number,
                "date": one.date,
                "reason": one.reason,
                "models": list(one.changes),
            }
            for one in amendments
        ],
    )
    return _report(faults, "\n".join(lines))


def _add_root(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("root", type=Path, help="folder that training wrote <challenge>/... into")


def _add_challenges(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--challenge",
        nargs="+",
        action="extend",
        choices=CHALLENGES,
        metavar="CHALLENGE",
        help=f"one or more of {', '.join(CHALLENGES)} (default: all that exist)",
    )


def _report(faults: Sequence[str], verdict: str) -> int:
    """Print faults and the verdict; returns the exit code."""
    for fault in faults:
        print(fault, file=sys.stderr)
    print(verdict)
    return 1 if faults else 0
