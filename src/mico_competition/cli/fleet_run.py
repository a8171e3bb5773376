"""Runs a fleet with a display of its progress, and sums it up."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from typing import TYPE_CHECKING, Any

from mico_competition.support.counts import ids_text
from mico_competition.support.progress import Stage, is_quiet, on_terminal, say, stage

if TYPE_CHECKING:
    import argparse

    from mico_competition.fleets.fleet import Backend, Progress
    from mico_competition.fleets.ledger import Ledger


def train(args: argparse.Namespace, ledger: Ledger, backend: Backend) -> int:
    """Run the fleet with a display, and print a summary."""
    from mico_competition.fleets.fleet import run_fleet

    started = time.monotonic()
    progress = None
    steps = run_fleet(ledger, backend, stack=args.stack, retries=args.retries)
    try:
        with _stopped_politely(), closing(steps), _stage(ledger) as shown:
            for progress in steps:
                _show(shown, progress)
    except KeyboardInterrupt:
        done = progress.done if progress else 0
        print(
            f"mico: stopped with {done} of {len(ledger.entries)} models done; the same command "
            "continues from here.",
            file=sys.stderr,
        )
        return 130
    assert progress is not None
    return _sum_up(ledger, progress, time.monotonic() - started)


@contextmanager
def _stopped_politely() -> Iterator[None]:
    """SIGTERM, which Slurm sends, stops a fleet as Ctrl-C does."""

    def stop(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _stage(ledger: Ledger) -> AbstractContextManager[Stage]:
    return stage(
        ledger.settings.scenario or "",
        len(ledger.entries),
        "model",
        initial=len(ledger.done()),
    )


def _show(shown: Stage, progress: Progress) -> None:
    """Show progress; without a bar, print a line for each block, unless --quiet is given."""
    shown.done = round(progress.done + progress.under_way, 1)
    shown.note = f"{len(progress.failed)} failed, {_retries(progress)}"
    if progress.newly_done and not on_terminal() and not is_quiet():
        say(
            f"{shown.name}: models {ids_text(progress.newly_done)} done; {progress.done} of "
            f"{progress.total} done, {len(progress.failed)} failed"
        )


def _retries(progress: Progress) -> str:
    return f"{progress.retries} {'retry' if progress.retries == 1 else 'retries'}"


def _sum_up(ledger: Ledger, progress: Progress, seconds: float) -> int:
    print(
        f"{ledger.settings.scenario}: {progress.done} of {progress.total} models done, "
        f"{len(progress.failed)} failed, {progress.left} left, "
        f"{_retries(progress)}, {seconds:.0f} s."
    )
    for model_id, error in sorted(progress.failed.items()):
        print(f"  model_{model_id}: {error}", file=sys.stderr)
    if progress.failed:
        print(f"Tracebacks are in {ledger.folder / 'failures.log'}", file=sys.stderr)
    if progress.stopped:
        print(f"mico: {progress.stopped}", file=sys.stderr)
    return 1 if progress.failed or progress.left else 0
