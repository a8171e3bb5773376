"""`mico init FOLDER`: a template for your own competition."""

from __future__ import annotations

import argparse
from pathlib import Path
from shlex import quote


def add_init(parser: argparse.ArgumentParser) -> None:
    """Give `parser` the argument of init."""
    parser.add_argument("folder", type=Path, help="folder to write into; created if it is missing")
    parser.set_defaults(run=run_init)


def run_init(args: argparse.Namespace) -> None:
    """Write the two files, and print the next commands."""
    from mico_competition.competition.init import init

    file, module = init(args.folder)
    mico = f"mico --competition {quote(str(file))}"
    print(f"Wrote {file} and {module}: put your data and model there. It runs as it is:")
    print(f"  {mico} tracks")
    print(f"  {mico} train --scenario blobs_eps2 --model_id 0 --output_dir trial")
