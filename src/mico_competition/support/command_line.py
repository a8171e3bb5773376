"""What all commands share: strict parsing of flags, and errors as a sentence with an exit code."""

from __future__ import annotations

import argparse
import errno
import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

from mico_competition.scoring.printable import printable, printable_lines, shown
from mico_competition.support.cpus import limit_threads
from mico_competition.support.extras import install, where
from mico_competition.support.files import check_output
from mico_competition.support.help_text import HelpFormatter
from mico_competition.support.memory_limits import is_out_of_memory
from mico_competition.support.output import patient_output
from mico_competition.support.own_code import own_frame
from mico_competition.support.progress import heartbeat, quiet, stage
from mico_competition.support.reports import only_a_report
from mico_competition.support.spelling import nearest
from mico_competition.support.stopping import Terminated
from mico_competition.support.terminal import styled

_ADVICE = {
    errno.ENOENT: ": check the path",
    errno.EACCES: ": choose another path, or change its permissions",
    errno.EPERM: ": choose another path, or change its permissions",
    errno.EROFS: ": choose a path that can be written",
    errno.EISDIR: ": name a file",
    errno.ENOTDIR: ": name a folder",
    errno.ENOSPC: ": free some space, and run the same command again",
}
DEBUG = "MICO_DEBUG"
FAILED, MISUSED, BUG, STOPPED = 1, 2, 70, 130
"""Exit codes besides 0: a failure or an alarm, a command that cannot be understood, a fault of this
program, Ctrl-C."""
MAX_IDS = 100_000
_WHOLE = re.compile(r"[+-]?[0-9]{1,20}")
_NUMBER = re.compile(r"[+-]?(([0-9]+(\.[0-9]*)?|\.[0-9]+)(e[+-]?[0-9]{1,3})?|inf(inity)?)", re.I)
_RANGE = re.compile(r"([0-9]{1,9})(?:-([0-9]{1,9}))?")


class UsageError(ValueError):
    """The words of a command do not fit together, or lack one; the exit code is `MISUSED`."""


@contextmanager
def usage() -> Iterator[None]:
    """Make a ValueError of the block, which reads the words of a command, a `UsageError`."""
    try:
        yield
    except ValueError as mistake:
        raise UsageError(str(mistake)) from None


class Parser(argparse.ArgumentParser):
    """An argument parser that reads numbers and paths strictly, and answers mistakes in a sentence.

    A flag of type `int`, `float` or `Path` is read by `whole_number`, `number` or `path`.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{"formatter_class": HelpFormatter, **options})
        self._bare = False  # whether it was given nothing to parse
        self.color = False  # Python 3.14 would write codes that `PatientStream` shows as text
        for kind, read in ((int, whole_number), (float, number), (Path, path)):
            self.register("type", kind, read)

    def _add_action(self, action: Any) -> Any:
        """Add a flag or a word; a word without a name of its own is shown in capitals."""
        if not action.option_strings and action.metavar is None and action.choices is None:
            action.metavar = action.dest.upper()
        return super()._add_action(action)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Answer an invalid choice with the nearest choices, or with all of them."""
        if action.choices is None or value in action.choices:
            return
        known = [str(choice) for choice in action.choices]
        near = nearest(str(value), known)
        meant = " or ".join([", ".join(near[:-1])] * (len(near) > 1) + near[-1:])
        instead = f"did you mean {meant}?" if near else f"choose from {', '.join(known)}"
        raise argparse.ArgumentError(action, f"invalid choice: {shown(value)} ({instead})")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """Parse as argparse does, and answer an unknown flag with the nearest one."""
        words = list(sys.argv[1:] if args is None else args)
        self._bare = not words
        parsed, others = super().parse_known_args(self._split(words), namespace)
        others = self._after_flags(parsed, others)
        for flag in (text.partition("=")[0] for text in others if text.startswith("--")):
            files = [a.option_strings[0] for a in self._actions if a.type is output_file]
            asks_for_file = flag in ("--out", "--output") and files
            if near := files if asks_for_file else nearest(flag, self._option_string_actions):
                self.error(f"unrecognized argument {shown(flag)}: did you mean {near[0]}?")
        if others:
            attack = "--attack" in self._option_string_actions and not others[0].startswith("-")
            hint = ": an attack is given as --attack NAME" if attack else ""
            self.error(f"unrecognized argument {shown(others[0])}{hint}")
        return parsed, others

    def _after_flags(self, parsed: Any, others: list[str]) -> list[str]:
        """Take words after a flag for the last argument that may have them; the other words.

        argparse itself gives such an argument only what directly follows those before it.
        """
        action = next((a for a in reversed(self._actions) if not a.option_strings), None)
        if action is None or action.nargs not in ("*", "?") or any(w[:1] == "-" for w in others):
            return others
        have = getattr(parsed, action.dest, None)
        if not others or (action.nargs == "?" and (have is not None or len(others) > 1)):
            return others
        values = self._get_values(action, others)
        setattr(parsed, action.dest, [*(have or []), *values] if action.nargs == "*" else values)
        return []

    def _split(self, words: list[str]) -> list[str]:
        """The words, where --json before a folder or arrays does not take them for its FILE."""
        json = self._option_string_actions.get("--json")
        if json is None or json.nargs != "?":
            return words
        for at, (word, following) in enumerate(pairwise(words)):
            if word == "--json" and (os.path.isdir(following) or following.endswith(".npz")):
                return [*words[:at], "--json=-", *words[at + 1 :]]
        return words

    def error(self, message: str) -> NoReturn:
        """Print the message as one sentence that names the help, and exit with code `MISUSED`.

        A command that was given nothing at all also gets its usage line.
        """
        end = "" if message.endswith("?") else "."
        message = message.rstrip(".") + end
        sentence = f"{message[:1].upper()}{message[1:]} See {self.prog} --help."
        self.exit(self.complain(sentence))

    def complain(self, sentence: str) -> int:
        """Print a sentence on a misused command; gives the exit code."""
        usage = self.format_usage() if self._bare else ""
        print(usage + _line(sentence), end="", file=sys.stderr)
        return MISUSED


def load_torch() -> None:
    """Import PyTorch, which takes seconds, and show that as a stage."""
    with stage("Loading PyTorch"):
        import torch  # noqa: F401


def whole_number(text: str) -> int:
    """Parse a whole number in ASCII digits; `int` would also accept "1_0" and other scripts."""
    if not _WHOLE.fullmatch(text):
        raise argparse.ArgumentTypeError(f"expected a whole number, got {shown(text)}")
    return int(text)


def number(text: str) -> float:
    """Parse a number in ASCII digits, or inf; NaN and numbers too large for a float are refused."""
    value = float(text) if _NUMBER.fullmatch(text) else None
    if value is None or (value in (float("inf"), -float("inf")) and "inf" not in text.lower()):
        raise argparse.ArgumentTypeError(f"expected a number, got {shown(text)}")
    return value


def path(text: str) -> Path:
    """Parse a path; a leading ~ is the home directory, even where shells keep it (--out=~/x)."""
    return Path(path_or_name(text))


def output_file(text: str) -> Path:
    """Parse the path of a file to write, and check at once that it can be written."""
    file = path(text)
    try:
        check_output(file)
    except ValueError as fault:
        raise argparse.ArgumentTypeError(str(fault)) from None
    return file


def output_folder(text: str) -> Path:
    """Parse the path of a folder to write into, and check at once that it is no file."""
    if not text:
        raise argparse.ArgumentTypeError("expected the name of a folder, got ''")
    folder = path(text)
    try:
        parts = folder.absolute(), *folder.absolute().parents
        there = next(part for part in parts if part.exists())
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{shown(text[:80])}: {error.strerror}") from None
    if not there.is_dir():
        raise argparse.ArgumentTypeError(f"{there} is a file: name a folder")
    return folder


def path_or_name(text: str) -> str:
    """Parse a path as `path` does; a name stays unchanged."""
    try:
        return os.path.join(Path(text).expanduser()) if text.startswith("~") else text
    except RuntimeError:
        raise argparse.ArgumentTypeError(
            f"no home directory is known for {shown(text)}: write the path out"
        ) from None


def model_ids(text: str) -> list[int]:
    """Parse model ids such as `7`, `0-99` or `0-9,100-104`; the result is sorted."""
    ids: set[int] = set()
    for part in text.split(","):
        match = _RANGE.fullmatch(part.strip())
        found = range(int(match[1]), int(match[2] or match[1]) + 1) if match else range(0)
        if not found or len(found) > MAX_IDS:
            raise argparse.ArgumentTypeError(
                f"expected a number or a range such as 0-99, got {shown(text)}"
            )
        ids.update(found)
    return sorted(ids)


def run_command(parser: argparse.ArgumentParser, argv: list[str] | None) -> int:
    """Parse the arguments, run the command, and return its exit code.

    The code is 0 for success, 1 for a failure or an alarm, 2 for a command that cannot be
    understood, 70 for a fault of this program, and 130 for Ctrl-C.  A failure is one sentence on
    standard error.
    """
    with patient_output() as output:
        code = run_verb(parser.parse_args(argv))
    if output.problem and not code:
        print(_line(f"Not all output could be written: {output.problem}."), end="", file=sys.stderr)
        return FAILED
    return code


def run_verb(args: argparse.Namespace) -> int:
    """Run the verb of `args`, and turn any error into one sentence and an exit code."""
    limit_threads()
    try:
        with only_a_report(getattr(args, "json", None) is True), _progress(args), _stoppable(args):
            return args.run(args) or 0
    except KeyboardInterrupt as stop:
        notes = getattr(stop, "__notes__", ["nothing half-written was kept"])
        print(f"mico: stopped; {printable_lines('; '.join(notes))}.", file=sys.stderr)
        return 128 + stop.number if isinstance(stop, Terminated) else STOPPED
    except UsageError as mistake:
        parser: Parser | None = getattr(args, "parser", None)
        return parser.complain(str(mistake)) if parser else refused(mistake)
    except Exception as error:
        sentence = _sentence(error)
        code = BUG if sentence is None else FAILED
        if sentence is None:
            sentence = _bug(error)
            if os.environ.get(DEBUG):
                traceback.print_exception(error)
        print(_line(sentence), end="", file=sys.stderr)
        return code


def refused(error: Exception) -> int:
    """Say why nothing can be run, in a sentence on stderr; gives the exit code."""
    print(_line(_sentence(error) or _bug(error)), end="", file=sys.stderr)
    return MISUSED if isinstance(error, UsageError) else FAILED


@contextmanager
def _stoppable(args: argparse.Namespace) -> Iterator[None]:
    """Let SIGTERM and SIGHUP end a `tidy` verb as Ctrl-C does: it removes its temporary files."""
    before: dict[int, Any] = {}

    def stop(number: int, frame: Any) -> None:
        raise Terminated(number)

    if getattr(args, "tidy", False) and threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) == signal.SIG_DFL:  # nohup ignores SIGHUP
                before[number] = signal.signal(number, stop)
    try:
        yield
    finally:
        for ended, handler in before.items():
            signal.signal(ended, handler)


def _progress(args: argparse.Namespace) -> AbstractContextManager[None]:
    """Show progress lines regularly if there is no terminal, unless --quiet is given."""
    verb = getattr(args, "verb", None)
    return (
        quiet() if getattr(args, "quiet", False) else heartbeat(f"mico {verb}" if verb else "mico")
    )


def _line(sentence: str) -> str:
    return f"{styled('mico:', 'red', sys.stderr)} {printable_lines(sentence)}\n"


def _sentence(error: Exception) -> str | None:
    """The error as a sentence, or None if it is a bug of this program."""
    if isinstance(error, OSError) and error.strerror:
        prefix = f"{printable(os.fsdecode(error.filename))}: " if error.filename else ""
        advice = _ADVICE.get(error.errno or 0, "") if error.filename else ""
        return f"{prefix}{error.strerror}{advice}."
    sentence = isinstance(error, (ValueError, OSError)) or is_out_of_memory(error)
    if frame := None if sentence else own_frame(error):
        place = f"line {frame.lineno} of {printable(frame.filename)}"
        return f"{type(error).__name__} in {place}: {printable(str(error)).rstrip('.')}."
    if isinstance(error, ModuleNotFoundError):
        package = (error.name or "A package").partition(".")[0]
        return f"{package} is not installed: `{install(package)}`{where()}."
    if isinstance(error, (ValueError, OSError, ImportError)):
        return str(error) or type(error).__name__
    if is_out_of_memory(error):
        return (
            "There was not enough memory: stop other programs, or ask for less at a time "
            "(--workers, --stack, --max_physical_batch_size)."
        )
    return None


def _bug(error: Exception) -> str:
    """The message for a bug of this program."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{os.path.basename(frame.filename)}, line {frame.lineno}"
    return (
        f"a fault of the program, {type(error).__name__} in {where} ({printable(error)}): please "
        f"report it; {DEBUG}=1 prints the traceback."
    )
