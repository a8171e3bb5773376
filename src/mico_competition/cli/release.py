"""`mico release`, `leaks`, `reference`, `reveal`, `verify`: what others may see of models."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mico_competition.tracks import CHALLENGES, SCORED_PHASES


def add_release(parser: argparse.ArgumentParser) -> None:
    """Give `parser` what `mico release` takes."""
    _add_root(parser)
    parser.add_argument(
        "--to", required=True, type=Path, help="folder to make <challenge>/... and archives/ in"
    )
    _add_challenges(parser)
    parser.add_argument(
        "--splits_of_2022",
        action="store_true",
        help="release dev and final although their seeds are 2022's decimal ones, whose splits can "
        "be searched (2^32); for comparison only",
    )

    def run(args: argparse.Namespace) -> None:
        from mico_competition.fleets.finished import check_fleets
        from mico_competition.releases.release import find_challenges, release

        for challenge in args.challenge or find_challenges(args.root):
            check_fleets(args.root, challenge)
            count = release(args.root, challenge, args.to, splits_of_2022=args.splits_of_2022)
            print(
                f"Released {count} models to {args.to / challenge}, zipped in "
                f"{args.to / 'archives' / challenge}; the leak check found nothing",
                flush=True,
            )

    parser.set_defaults(run=run)


def add_leaks(parser: argparse.ArgumentParser) -> None:
    """Give `parser` what `mico leaks` takes."""
    parser.add_argument("released", type=Path, help="folder that `mico release --to` wrote")
    parser.add_argument(
        "--trained", required=True, type=Path, help="folder that training wrote <challenge>/... to"
    )
    _add_challenges(parser)

    def run(args: argparse.Namespace) -> int:
        from mico_competition.releases.leak_check import check_release
        from mico_competition.releases.release import find_challenges

        challenges = args.challenge or find_challenges(args.released)
        faults = check_release(args.released, args.trained, challenges)
        found = f"Do not publish: {len(faults)} faults" if faults else "No leak found"
        return _report(faults, f"{found} in {', '.join(challenges)}")

    parser.set_defaults(run=run)


def add_reference(parser: argparse.ArgumentParser) -> None:
    """Give `parser` what `mico reference` takes."""
    _add_root(parser)
    parser.add_argument("--challenge", required=True, choices=CHALLENGES)
    parser.add_argument("--phase", required=True, choices=SCORED_PHASES)
    parser.add_argument("--to", required=True, type=Path, help="the scoring program's ref folder")

    def run(args: argparse.Namespace) -> None:
        from mico_competition.releases.release import write_reference

        count = write_reference(args.root, args.challenge, args.phase, args.to)
        print(f"Wrote {count} solutions to {args.to / args.challenge}; keep them to yourself")

    parser.set_defaults(run=run)


def add_reveal(parser: argparse.ArgumentParser) -> None:
    """Give `parser` what `mico reveal` takes."""
    _add_root(parser)
    parser.add_argument("--phase", required=True, choices=SCORED_PHASES)
    parser.add_argument("--to", required=True, type=Path, help="JSON file to write, for everybody")
    parser.add_argument("--challenge", choices=CHALLENGES, help="default: the only one there is")

    def run(args: argparse.Namespace) -> None:
        from mico_competition.files import write_text
        from mico_competition.releases.release import find_challenges
        from mico_competition.releases.reveal import as_text, reveal

        found = [args.challenge] if args.challenge else find_challenges(args.root)
        if len(found) > 1:
            raise ValueError(f"{args.root} holds {', '.join(found)}: say which with --challenge.")
        revealed = reveal(args.root, found[0], args.phase)
        write_text(args.to, as_text(revealed))
        count = len(revealed["openings"])
        print(f"Wrote labels, seeds and salts of {count} models of {args.phase} to {args.to}")

    parser.set_defaults(run=run)


def add_verify(parser: argparse.ArgumentParser) -> None:
    """Give `parser` what `mico verify` takes."""
    parser.add_argument("challenge_folder", type=Path, help="a released challenge folder")
    parser.add_argument(
        "revealed",
        nargs="?",
        type=Path,
        help="file that `mico reveal` wrote, to hold against the release's commitments (default: "
        "hold the release's files against its checksums)",
    )

    def run(args: argparse.Namespace) -> int:
        if args.revealed is None:
            from mico_competition.releases.archives import check_sums

            count, faults = check_sums(args.challenge_folder)
            return _report(faults, f"{count} files match SHA256SUMS, {len(faults)} do not")
        from mico_competition.releases.reveal import verify

        count, faults = verify(args.challenge_folder, args.revealed)
        wrong = f"; {len(faults)} faults" if faults else ""
        return _report(faults, f"{count} label sets verified{wrong}")

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
        help=f"one or more of {', '.join(CHALLENGES)} (default: all that are there)",
    )


def _report(faults: Sequence[str], verdict: str) -> int:
    """Print faults and the verdict; gives the exit code."""
    for fault in faults:
        print(fault, file=sys.stderr)
    print(verdict)
    return 1 if faults else 0
