"""Runs an attack from an untrusted file in a process that can access only its arrays.

A fresh process starts with one socket, no other open file, and none of this process's environment.
It forks a child for each problem; the child solves the problem in an empty folder and ends with its
answer.  An answer must be a line of JSON with known keys, or exactly as many numbers as there are
points to score.  Nothing in an answer is unpickled, evaluated or printed unescaped.
"""

from __future__ import annotations

import atexit
import io
import json
import logging
import os
import pickle
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import numpy as np

from mico_competition.attacks.problem import Attack, Problem
from mico_competition.competition.code import one_line
from mico_competition.competition.in_use import InUse
from mico_competition.evaluation import landlock
from mico_competition.evaluation.modules import python_files
from mico_competition.scoring.printable import printable

_LINE = 8192  # maximal bytes of a line from an untrusted process
_PATIENCE = 10.0  # seconds for a child to end after its answer
_START = (
    "import sys; sys.path.insert(0, sys.argv[1])\n"
    "from mico_competition.evaluation.isolated_child import main; main()"
)
_KEPT = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "LANG", "SYSTEMROOT")

_log = logging.getLogger(__name__)


def isolated_attack(path: Path, function: str) -> Attack:
    """The attack `function` of the file `path`, named `<path as given>:<function>`, isolated.

    The file is read here and run there, with the Python files of its folder and of the folders in
    it only.

    Raises:
        ValueError: if there is no such file or function, the file does not run, or this system
            cannot isolate it.
    """
    if not path.is_file():
        raise ValueError(f"There is no file {path} to take the attack {function} from.")
    name = f"{path}:{function}"
    if not hasattr(os, "fork"):
        raise ValueError("An attack is isolated on Linux and macOS only: leave out --isolate.")
    if not landlock.version():
        _log.warning(
            "This system has no Landlock, so the isolated attack %s receives arrays only, but "
            "could still open files by their paths.",
            name,
        )
    source = {"files": python_files(path), "file": path.name, "function": function}
    stranger = _Stranger(name, source)
    about = stranger.about()
    return Attack(
        name,
        about["title"] or "an attack of your own",
        str(path),
        stranger.solve,
        leaves_one_out=about["leaves_one_out"],
        white_box=about["white_box"],
        all_records=about["all_records"],
        least_shadows=about["least_shadows"],
    )


def fresh_attack(attack: Attack) -> Attack | None:
    """An attack from a file, run in a fresh process without restrictions.

    None for an attack that is isolated already, or if processes cannot be forked.
    """
    path, _, function = attack.name.rpartition(":")
    isolated = isinstance(getattr(attack.run, "__self__", None), _Stranger)
    if isolated or not hasattr(os, "fork") or not path.endswith(".py"):
        return None
    source = {
        "path": os.path.abspath(path),
        "function": function,
        "folder": os.getcwd(),
        "environment": dict(os.environ),
        "search": list(sys.path),
    }
    return replace(attack, run=_Stranger(attack.name, source).solve)


class _Server:
    """The other process, for all isolated attacks; started at its first use."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._competition: InUse | None = None

    @contextmanager
    def conversation(self, name: str, kind: bytes, competition: InUse) -> Iterator[_Talk]:
        """A socket to a new child of the process; the child ends when it closes."""
        if competition != self._competition:
            self.end()
        if self._control is None:
            self._child, self._control = _start()
            self._competition = competition
            atexit.register(self.end)
            _send(self._control, pickle.dumps(competition))
        ours, theirs = socket.socketpair()
        try:
            with ours, ours.makefile("rb") as heard:
                with theirs:
                    socket.send_fds(self._control, [kind], [theirs.fileno()])
                yield _Talk(name, ours, heard)
        finally:
            if not self._has_ended():
                self.end()

    def _has_ended(self) -> bool:
        """Whether the child has ended, and all that it started."""
        assert self._control is not None
        self._control.settimeout(_PATIENCE)
        try:
            return self._control.recv(1) == b"."
        except OSError:
            return False

    def end(self) -> None:
        """End this process: another is started for the next problem."""
        atexit.unregister(self.end)
        if self._child is not None and self._control is not None:
            self._control.close()
            self._child.kill()
            self._child.wait()
        self._child = self._control = None


_server = _Server()


class _Stranger:
    """An attack in the other process."""

    def __init__(self, name: str, source: dict[str, Any]) -> None:
        self.name, self._source = name, pickle.dumps(source)
        self._competition = InUse.here()

    def about(self) -> dict[str, Any]:
        """The attributes of the attack, of known types and sizes."""
        with _server.conversation(self.name, b"A", self._competition) as talk:
            talk.send(self._source)
            words = talk.answer(None)
        fits = (
            words.get("op") == "about"
            and isinstance(words.get("title"), str)
            and type(words.get("leaves_one_out")) is bool
            and type(words.get("white_box")) is bool
            and type(words.get("all_records")) is bool
            and type(words.get("least_shadows")) is int
            and 0 <= words["least_shadows"] <= 10**6
        )
        if not fits:
            raise ValueError(f"Attack {self.name} failed: its attributes are invalid.")
        return {**words, "title": printable(words["title"])}

    def solve(self, problem: Problem) -> np.ndarray:
        """float64 of the expected shape: the attack's scores of a problem."""
        facts = {
            "fleet": problem.source.fleet,
            "shadows": problem.shadows,
            "targets": problem.targets,
            "columns": problem.columns,
            "known_membership": problem.known_membership,
            "targets_in_shadows": problem.targets_in_shadows,
        }
        shape = problem.columns.shape
        with _server.conversation(self.name, b"P", self._competition) as talk:
            talk.send(self._source)
            talk.send(pickle.dumps(facts))
            words = talk.answer(problem)
            if words.get("op") != "scores" or words.get("shape") != list(shape):
                talk.refuse(
                    f"expected real numbers of shape {shape}, one for each target and point, got "
                    f"shape {printable(words.get('shape'), 100)}"
                )
            raw = talk.read(8 * problem.columns.size)
        return np.frombuffer(raw, "<f8").reshape(shape).astype(np.float64)


class _Talk:
    """Messages to and from an untrusted process, within limits."""

    def __init__(self, name: str, line: socket.socket, heard: BinaryIO) -> None:
        self._name, self._line, self._heard = name, line, heard

    def answer(self, problem: Problem | None) -> dict[str, Any]:
        """Serve the attack's requests, until it sends another message."""
        while True:
            words = self._words()
            if words.get("op") == "failed":
                self.refuse(printable(words.get("what"), 500))
            if problem is None or words.get("op") not in ("get", "logits", "load", "data"):
                return words
            try:
                self.send(b"V" + _served(problem, words))
            except Exception as error:
                self.send(b"E" + one_line(error).encode())

    def _words(self) -> dict[str, Any]:
        """Read one line of JSON that holds an object."""
        line = self._heard.readline(_LINE)
        if not line:
            self.refuse("its process ended without an answer")
        try:
            words = json.loads(line) if line.endswith(b"\n") else None
        except (ValueError, RecursionError):
            words = None
        if not isinstance(words, dict):
            self.refuse("its process speaks out of turn")
        return words

    def read(self, count: int) -> bytes:
        """Read a number of bytes."""
        raw = self._heard.read(count)
        if len(raw) != count:
            self.refuse("its process ended without an answer")
        return raw

    def send(self, data: bytes) -> None:
        """Send a frame."""
        _send(self._line, data)

    def refuse(self, why: str) -> NoReturn:
        """The error for a fault of the attack."""
        raise ValueError(f"Attack {self._name} failed: {why}.")


def _send(line: socket.socket, data: bytes) -> None:
    """Send the length of the data, then the data."""
    try:
        line.sendall(struct.pack(">Q", len(data)))
        line.sendall(data)
    except OSError:
        pass  # the other end has closed; earlier messages can still be read


def _start() -> tuple[subprocess.Popen[bytes], socket.socket]:
    """A new Python with this package but none of this process' state, and its socket."""
    package = str(Path(__file__).resolve().parents[2])
    environment = {name: os.environ[name] for name in _KEPT if name in os.environ}
    environment["PATH"] = os.defpath
    ours, theirs = socket.socketpair()
    with theirs:
        child = subprocess.Popen(
            [sys.executable, "-I", "-B", "-c", _START, package],
            stdin=theirs.fileno(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env=environment,
            close_fds=True,
            start_new_session=True,
        )
    return child, ours


def _served(problem: Problem, words: dict[str, Any]) -> bytes:
    """The answer to a request, in bytes: an array as .npy, else a pickle for the attack."""
    source, op = problem.source, words["op"]
    if op == "data":
        return pickle.dumps(source.data)
    if op == "get":
        if not isinstance(words.get("name"), str):
            raise ValueError("Expected the name of a signal.")
        return _npy(source.get(words["name"]))
    row = words.get("row")
    if type(row) is not int or not 0 <= row < len(problem.known_membership):
        raise ValueError(f"Expected a row in 0..{len(problem.known_membership) - 1}.")
    return _npy(source.logits(row)) if op == "logits" else pickle.dumps(source.load(row).cpu())


def _npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, np.asarray(array), allow_pickle=False)
    return file.getvalue()
