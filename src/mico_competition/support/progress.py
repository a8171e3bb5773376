"""Shows the progress of long work: as a bar on a terminal, elsewhere as a line every 30 seconds.

    with stage("Signals", total=len(models), unit="model") as shown:
        for model in models:
            ...
            shown.update()

Stages can be nested: a terminal shows a bar for each open stage, a log one line for all of them.
The time left is that of the outermost stage with a total, since others end before the work does.
The output goes to standard error; `quiet()` and the variable MICO_QUIET switch it off.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import Any, TypeVar

LOG_SECONDS = 30.0  # between two lines if there is no terminal
DELAY_SECONDS = 0.5  # a stage that ends sooner shows no bar
REFRESH_SECONDS = 0.25  # between two updates of the bars

Item = TypeVar("Item")

_lock = threading.RLock()  # guards the variables below
_open: list[Stage] = []  # the open stages, outermost first
_clock: _Clock | None = None  # the thread that shows them
_due = 0.0  # when the next line is due
_quiet = 0  # the number of open `quiet()` blocks


class Stage:
    """A stage of the work.

    Attributes:
        name: a title, such as "Signals".
        total: the number of units of work; None if it is not known.
        unit: the name of a unit in the singular; "B" for bytes.
        done: the number of finished units, including those from before; it may be a fraction.
        note: a few words on the state, such as "loss 0.31".
    """

    def __init__(
        self, name: str, total: int | None = None, unit: str = "step", initial: int = 0
    ) -> None:
        self.name, self.total, self.unit = name, total, unit
        self.done: float = initial
        self.note = ""
        self.initial = initial
        self.started = time.monotonic()
        self._bar: Any = None

    def update(self, count: int = 1) -> None:
        """Count `count` more units as done; any thread may call this."""
        with _lock:
            self.done += count

    def text(self, now: float, *, time_left: bool = True) -> str:
        """The stage in words: the units done, the total, and (if asked) the time left."""
        note = f" ({self.note})" if self.note else ""
        if not self.total:
            return self.name + (f": {_count(self.done, self.unit)}" if self.done else "") + note
        share = f"{int(100 * self.done / self.total)} %"
        words = f"{self.name}: {_amount(self.done, self.unit)} of {_count(self.total, self.unit)}"
        seconds = self._seconds_left(now) if time_left else None
        left = "" if seconds is None else f", about {_duration(seconds)} left"
        return f"{words} ({share}){left}{note}"

    def _seconds_left(self, now: float) -> float | None:
        gained = self.done - self.initial
        if self.unit == "attack":  # one may take a thousand times as long as the last
            return None
        if not self.total or gained <= 0 or self.done >= self.total:
            return None
        return (now - self.started) / gained * (self.total - self.done)

    def _draw(self) -> None:
        """Update the bar on the terminal; create it if there is none yet."""
        if self._bar is None:
            self._bar = _new_bar(self)
        self._bar.total, self._bar.initial, self._bar.n = self.total, self.initial, self.done
        self._bar.ncols, self._bar.nrows = _terminal_size()
        self._bar.set_postfix_str(self.note, refresh=False)
        self._bar.refresh()

    def _close(self) -> None:
        if self._bar is not None:
            self._draw()
            self._bar.close()


@contextmanager
def stage(
    name: str,
    total: int | None = None,
    unit: str = "step",
    *,
    initial: int = 0,
    show: bool = True,
) -> Iterator[Stage]:
    """Open a stage for the `with` block.

    Args:
        name, total, unit: as in `Stage`.
        initial: the number of units that were done before.
        show: whether to show the stage; it counts in any case.
    """
    opened = Stage(name, total, unit, initial)
    shown = show and not is_quiet()
    # A generator that is still open when Python ends is closed after the names of this module.
    ends = sys.is_finalizing
    if shown:
        _add(opened)
    try:
        yield opened
    finally:
        if shown and not ends():
            _remove(opened)


def tracked(
    items: Iterable[Item],
    name: str,
    unit: str = "step",
    *,
    total: int | None = None,
    show: bool = True,
) -> Iterator[Item]:
    """Iterate over `items` in a stage that counts them.

    Args:
        items: any iterable; the iteration itself may be the slow work.
        name, unit: as in `Stage`.
        total: the number of items; by default their `len`, if they have one.
        show: whether to show the stage.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    with stage(name, total, unit, show=show) as opened:
        for item in items:
            yield item
            opened.update()


@contextmanager
def heartbeat(name: str) -> Iterator[None]:
    """Open a stage for a whole command, so that a log gets a line at least every 30 seconds.

    On a terminal it shows nothing, so that it does not disturb the output of the command.
    """
    if on_terminal():
        yield
    else:
        with stage(name):
            yield


@contextmanager
def quiet() -> Iterator[None]:
    """Hide all stages that are opened inside the `with` block."""
    global _quiet
    with _lock:
        _quiet += 1
    try:
        yield
    finally:
        with _lock:
            _quiet -= 1


def say(line: str) -> None:
    """Print a line to standard output without disturbing the bars on the terminal."""
    if any(opened._bar is not None for opened in _open):
        _tqdm().write(line, file=sys.stdout)
    else:
        print(line, flush=True)


def on_terminal() -> bool:
    """Whether standard error is a terminal, so that bars are shown."""
    try:
        return sys.stderr.isatty()
    except (AttributeError, ValueError):  # there is none, or it is closed
        return False


def is_quiet() -> bool:
    """Whether stages are hidden, by `quiet` or by MICO_QUIET."""
    return _quiet > 0 or os.environ.get("MICO_QUIET", "") not in ("", "0")


def _add(opened: Stage) -> None:
    """Open a stage, and start the thread that shows stages if it is the first."""
    global _clock, _due
    with _lock:
        if not _open and _due <= opened.started:
            _due = opened.started + LOG_SECONDS
        _open.append(opened)
        if _clock is None:
            _clock = _Clock()
            _clock.start()


def _remove(closed: Stage) -> None:
    """Close a stage, and stop the thread if it was the last."""
    global _clock
    with _lock:
        _open.remove(closed)
        closed._close()
        ended = None if _open else _clock
        if ended is not None:
            ended.over.set()
            _clock = None
    if ended is not None:
        ended.join()


class _Clock(threading.Thread):
    """The thread that shows the open stages until there are none."""

    def __init__(self) -> None:
        super().__init__(name="progress", daemon=True)
        self.over = threading.Event()

    def run(self) -> None:
        while not self.over.wait(REFRESH_SECONDS):
            with _lock:
                if not self.over.is_set():
                    _show(time.monotonic())


def _show(now: float) -> None:
    """Draw bars, or write a line if one is due."""
    global _due
    if on_terminal():
        for opened in _open:
            if now - opened.started >= DELAY_SECONDS:
                opened._draw()
    elif _open and now >= _due:
        whole = next((opened for opened in _open if opened.total), None)
        words = "; ".join(opened.text(now, time_left=opened is whole) for opened in _open)
        try:
            print(f"{words}; {_duration(now - _open[0].started)} so far", file=sys.stderr)
            sys.stderr.flush()
        except (AttributeError, OSError, ValueError):
            pass  # the reader has gone, which must not stop the work
        _due = now + LOG_SECONDS


def _new_bar(shown: Stage) -> Any:
    counted = shown.total is not None or shown.done
    bar = _tqdm()(
        desc=shown.name,
        total=shown.total,
        initial=shown.initial,
        unit=shown.unit,
        unit_scale=shown.unit == "B",
        leave=None if counted else False,  # the outermost bar stays
        bar_format=None if counted else "{desc}: {elapsed}{postfix}",
        file=sys.stderr,
    )
    bar.start_t -= time.monotonic() - shown.started
    return bar


def _terminal_size() -> tuple[int, int]:
    """The columns and rows of the terminal; 80 x 24 if they are unknown."""
    try:
        columns, rows = os.get_terminal_size(sys.stderr.fileno())
    except (OSError, ValueError):
        columns, rows = 0, 0
    return columns or 80, rows or 24


def _tqdm() -> Any:
    """tqdm's class, imported when a terminal needs it."""
    from tqdm import tqdm

    if not hasattr(tqdm, "_lock"):
        tqdm.set_lock(
            threading.RLock()
        )  # the default semaphore would leak if the process is killed
    return tqdm


def _amount(count: float, unit: str) -> str:
    if unit == "B":
        return f"{count / 1e6:,.1f}"
    return f"{int(count):,}" if count == int(count) else f"{count:,.1f}"


def _count(count: float, unit: str) -> str:
    if unit == "B":
        return f"{_amount(count, unit)} MB"
    return f"{_amount(count, unit)} {unit}{'' if count == 1 else 's'}"


def _duration(seconds: float) -> str:
    """A duration in words, such as "45 s", "2 min 5 s" or "1 h 3 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
