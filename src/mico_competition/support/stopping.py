"""Ends long work at its next step, with its state kept, when a signal asks the process to end.

A signal is for the whole process, so this module keeps for the process what is under way, and
whether it was asked to end.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_DEFAULTS = (signal.SIG_DFL, signal.default_int_handler)
_LOOK_SECONDS = 0.05
_SENTENCE = b"\nmico: ending after this step, with a checkpoint; once more ends it at once.\n"


class Terminated(KeyboardInterrupt):
    """The signal of this number asked the process to end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


_under_way: list[Callable[[], bool]] = []
_asked: list[int] = []  # the numbers of the signals that asked


@contextmanager
def under_way(worth_keeping: Callable[[], bool]) -> Iterator[None]:
    """Work in this block ends by itself after it was asked to, if `worth_keeping()` was True."""
    _under_way.append(worth_keeping)
    try:
        yield
    finally:
        _under_way.remove(worth_keeping)
        if not _under_way:
            _asked.clear()


def ask(number: int) -> bool:
    """Ask the work to end, as signal `number` does; False if no work is worth the wait."""
    if not any(worth_keeping() for worth_keeping in list(_under_way)):
        return False
    _asked.append(number)
    return True


def asked() -> bool:
    """Whether the work was asked to end."""
    return bool(_asked)


def end() -> NoReturn:
    """End the work, after its state was kept."""
    stop = Terminated(_asked[0])
    stop.add_note("the same command goes on from the checkpoint")
    raise stop


def wait(seconds: float) -> None:
    """Wait in another thread until no work is under way, at most so long."""
    deadline = time.monotonic() + seconds
    while _under_way and time.monotonic() < deadline:
        time.sleep(_LOOK_SECONDS)


@contextmanager
def politely() -> Iterator[None]:
    """Let SIGTERM and Ctrl-C ask the work of this block to end; a second one ends it at once."""
    before: dict[int, Any] = {}

    def stop(number: int, frame: Any) -> None:
        if asked() or not ask(number):
            raise Terminated(number)
        os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, _SENTENCE)

    if threading.current_thread() is threading.main_thread():
        for number in _SIGNALS:
            if signal.getsignal(number) in _DEFAULTS:  # a parent may have it ignored
                before[number] = signal.signal(number, stop)
    try:
        yield
    finally:
        for replaced, handler in before.items():
            signal.signal(replaced, handler)
