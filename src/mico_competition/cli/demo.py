"""`mico demo`: a whole small competition on this machine."""

from __future__ import annotations

import argparse
from pathlib import Path

from mico_competition.cli.attack_options import seed
from mico_competition.competition.table import using
from mico_competition.support.command_line import load_torch, output_folder


def add_demo(parser: argparse.ArgumentParser) -> None:
    """Give `parser` what `mico demo` takes."""
    parser.add_argument(
        "--out", type=output_folder, default=Path("demo"), help="folder to work in (default: demo)"
    )
    parser.add_argument(
        "--models", type=int, default=30, help="models per scenario and phase (default: 30)"
    )
    parser.add_argument("--workers", type=int, help="processes (default: one for each core)")
    parser.add_argument(
        "--seed", type=seed, help="repeat a demonstration: the same seed gives the same scores"
    )
    parser.set_defaults(run=_run_demo, tidy=True)


def _run_demo(args: argparse.Namespace) -> None:
    load_torch()
    from mico_competition.demo import run_demo

    with using(None):  # the demonstration is of the package's own digits
        run_demo(args.out, models_per_phase=args.models, workers=args.workers, seed=args.seed)
