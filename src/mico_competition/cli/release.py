"""`mico release`, `leaks`, `reference`, `reveal`, `verify`: what others may see of models."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mico_competition.competition.table import CHALLENGES, SCORED_PHASES
from mico_competition.support.command_line import UsageError, output_file
from mico_competition.support.counts import count_of
from mico_competition.support.reports import add_json, report

_BESIDE = "checksums, commitments and archives"


def add_release(parser: argparse.ArgumentParser) -> None:
    """Give `parser` what `mico release` takes."""
    _add_root(parser)
    parser.add_argument(
        "--to",
        required=True,
        type=Path,
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
        choices=SCORED_PHASES,
        help="add the labels and seeds of this phase, which is over, to the release in --to",
    )

    def run(args: argparse.Namespace) -> None:
        from mico_competition.competition.layout import (
            find_challenges,
            release_folder,
            walk_challenge,
        )
        from mico_competition.fleets.finished import check_fleets
        from mico_competition.release.add_labels import add_labels
        from mico_competition.release.privacy_claims import other_settings
        from mico_competition.release.release import release

        for challenge in args.challenge or find_challenges(args.root):
            place = args.to / challenge
            if args.reveal:
                count = add_labels(args.root, challenge, args.to, args.reveal)
                print(
                    f"Added the labels of {count_of(count, 'model')} of {args.reveal} to {place}",
                    flush=True,
                )
                continue
            check_fleets(args.root, challenge)
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
            for sentence in other_settings(walk_challenge(place)):
                print(sentence, flush=True)

    parser.set_defaults(run=run, tidy=True)


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
        from mico_competition.competition.layout import find_challenges
        from mico_competition.release.leak_check.check import check_release

        challenges = args.challenge or find_challenges(args.released)
        faults = check_release(args.released, args.trained, challenges, revealed=args.revealed)
        report("leaks", challenges=list(challenges), sound=not faults, faults=faults)
        found = f"Do not publish: {count_of(len(faults), 'fault')}" if faults else "No leak found"
        code = _report(faults, f"{found} in {', '.join(challenges)}")
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
    parser.add_argument("--to", required=True, type=Path, help="the scoring program's ref folder")

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
        "check the release's files against its checksums)",
    )
    parser.add_argument(
        "--to",
        type=Path,
        metavar="FOLDER",
        help="write the labels and seeds that were verified to FOLDER/<scenario>/<phase>/"
        "model_<i>/; FOLDER may be the challenge folder itself",
    )
    add_json(parser)

    def run(args: argparse.Namespace) -> int:
        from mico_competition.release.check_files import check_files
        from mico_competition.release.reveal import read_revealed, verify, write_solutions

        if args.revealed is None:
            if args.to is not None:
                raise UsageError("Name the revealed file whose labels --to writes.")
            count, faults = check_files(args.challenge_folder)
            wrong = f"; {count_of(len(faults), 'fault')}" if faults else ""
            report("verify", checked="files", count=count, sound=not faults, faults=faults)
            return _report(faults, f"{count} files match SHA256SUMS{wrong}")
        count, faults = verify(args.challenge_folder, args.revealed)
        report("verify", checked="labels", count=count, sound=not faults, faults=faults)
        wrong = f"; {count_of(len(faults), 'fault')}" if faults else ""
        code = _report(faults, f"{count} label sets verified{wrong}")
        if args.to is not None and not faults:
            written = write_solutions(read_revealed(args.revealed), args.to)
            print(f"Wrote the labels of {count_of(written, 'model')} below {args.to}")
        return code

    parser.set_defaults(run=run)


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
