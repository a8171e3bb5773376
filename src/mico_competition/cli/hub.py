"""`mico download` and `mico publish`: challenges from, and to, the Hugging Face Hub."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from mico_competition.competition.table import PHASE_NAMES
from mico_competition.support.command_line import UsageError, model_ids, output_folder
from mico_competition.support.counts import count_of
from mico_competition.support.progress import stage
from mico_competition.support.reports import add_json, report


def add_download(parser: argparse.ArgumentParser) -> None:
    """Give `parser` what `mico download` takes."""
    parser.add_argument("challenge", help="its name, such as cifar10; see `mico tracks`")
    parser.add_argument(
        "--to",
        type=output_folder,
        default=Path("."),
        help="folder for <challenge>/... (default: .)",
    )
    parser.add_argument(
        "--scenario", action="append", metavar="NAME", help="may be repeated (default: all)"
    )
    parser.add_argument(
        "--phase", action="append", choices=PHASE_NAMES, help="may be repeated (default: all)"
    )
    parser.add_argument(
        "--models", type=model_ids, metavar="IDS", help="such as 0-9,100 (default: all)"
    )
    parser.add_argument(
        "--repo", metavar="OWNER/NAME", help="dataset repository (default: MICO's of 2022)"
    )
    parser.add_argument("--revision", help="branch, tag or commit of it (default: main)")
    parser.add_argument("--dry_run", action="store_true", help="print the size; download nothing")
    add_json(parser)

    def run(args: argparse.Namespace) -> None:
        from mico_competition.hosting.hub.download import fetch, plan_download

        if args.json and not args.dry_run:
            raise UsageError("--json is for --dry_run.")

        with stage("Listing of the repository"):
            plan = plan_download(
                args.challenge,
                args.to,
                scenarios=args.scenario or (),
                phases=args.phase or (),
                models=args.models or (),
                repo=args.repo,
                revision=args.revision,
            )
        print(plan.sentence(), flush=True)
        report(
            "download plan",
            challenge=plan.challenge,
            repo=plan.repo,
            commit=plan.commit,
            folder=plan.folder,
            models=len(plan.models),
            missing=len(plan.missing),
            bytes=plan.size,
            bytes_there=plan.bytes_there,
        )
        if not args.dry_run:
            count = fetch(plan)
            print(
                f"Fetched {count_of(count, 'model')}; checked models in {plan.folder}: "
                f"{len(plan.models)}"
            )

    parser.set_defaults(run=run)


def add_publish(parser: argparse.ArgumentParser) -> None:
    """Give `parser` what `mico publish` takes."""
    parser.add_argument(
        "challenge_folder", type=Path, help="<challenge> folder that `mico release` wrote"
    )
    parser.add_argument(
        "repo", metavar="OWNER/NAME", help="dataset repository; created if it does not exist"
    )
    parser.add_argument("--private", action="store_true", help="make the repository private")
    parser.add_argument(
        "--licence",
        type=_licence,
        default="mit",
        help="the Hub's identifier of the licence (default: mit)",
    )
    parser.add_argument(
        "--page", type=Path, help="file for the page, README.md (default: a page is written)"
    )
    parser.add_argument("--citation", type=Path, help="file with BibTeX for the default page")
    parser.add_argument(
        "--form",
        choices=("archives", "files"),
        help="publish a zip for each scenario and phase, or the files of models one by one "
        "(default: as the repository has them, or else archives below 50 MB a model)",
    )
    parser.add_argument(
        "--dry_run", action="store_true", help="check and print the page; upload nothing"
    )

    def run(args: argparse.Namespace) -> None:
        from mico_competition.hosting.hub.contents import default_form, pages
        from mico_competition.hosting.hub.listing import check_repository
        from mico_competition.hosting.hub.publish import publish
        from mico_competition.hosting.hub.released import CARD_FILE, check_publishable

        if args.dry_run:
            release = check_publishable(args.challenge_folder)
            repo = check_repository(args.repo)
            form = args.form or default_form(release)
            texts = pages(release, repo, args.licence, args.page, args.citation, form)
            print(texts[CARD_FILE])
            print(f"{count_of(len(release.models), 'model')} can be published; nothing was sent")
            return
        address = publish(
            args.challenge_folder,
            args.repo,
            private=args.private,
            licence=args.licence,
            page=args.page,
            citation=args.citation,
            form=args.form,
            say=lambda sentence: print(sentence, flush=True),
        )
        print(f"Published: {address}")

    parser.set_defaults(run=run)


def _licence(text: str) -> str:
    """An identifier such as `cc-by-4.0`."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", text):
        raise argparse.ArgumentTypeError(f"expected an identifier such as mit, got {text!r}")
    return text
