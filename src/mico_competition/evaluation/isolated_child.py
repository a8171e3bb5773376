"""The process in which an untrusted attack runs: it receives arrays and returns an array.

`isolated.py` starts it with one socket. It has imported this package and the code of the
competition in use, and holds no label. For each problem it receives another socket and forks a
worker. The worker denies itself all files except libraries and an empty folder (if the system has
Landlock), reads its problem, runs the attack and ends. Every process that the worker started is
killed before the next problem, so an attack cannot carry labels from one problem to another.
"""

from __future__ import annotations

import ctypes
import io
import json
import os
import pickle
import shutil
import signal
import socket
import struct
import sys
import tempfile
import types
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mico_competition import scoring
from mico_competition.attacks.problem import Attack, Problem
from mico_competition.competition.code import described, resolve
from mico_competition.competition.in_use import InUse
from mico_competition.competition.table import current
from mico_competition.evaluation import landlock
from mico_competition.evaluation.custom import check_takes_problem, plain
from mico_competition.evaluation.modules import imported_anew
from mico_competition.evaluation.undisturbed import undisturbed

_DIE_WITH_PARENT, _ADOPT_ORPHANS = 1, 36  # prctl
_CONTROL = 0


def main() -> None:
    """Serve until the socket is closed: one worker for each problem."""
    _prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    _prctl(_ADOPT_ORPHANS, 1)
    control = socket.socket(fileno=_CONTROL)
    fault = _use(pickle.loads(_Line(_CONTROL).read_frame()))  # of our own process
    while True:
        kind, numbers, _, _ = socket.recv_fds(control, 1, 1)
        if not kind:
            return
        folder = tempfile.mkdtemp(prefix="mico_isolated_")
        worker = os.fork()
        if not worker:
            _work(_Line(numbers[0]), kind, folder, fault)
        os.close(numbers[0])
        os.waitpid(worker, 0)
        _kill_orphans()
        shutil.rmtree(folder, ignore_errors=True)
        if fault:
            return  # the next process may find it corrected
        control.send(b".")


def _work(line: _Line, kind: bytes, folder: str, fault: str) -> None:
    """Serve one request in a separate process; does not return."""
    _prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    path = ""
    try:
        if fault:
            line.say({"op": "failed", "what": fault[:1000]})
            os._exit(0)
        source = pickle.loads(line.read_frame())  # our own process wrote it
        nothing = os.open(os.devnull, os.O_RDWR)
        for number in (_CONTROL, 1, 2):  # discards what the attack prints
            os.dup2(nothing, number)
        path = source.get("path") or _unpacked(source, folder)
        _as_at_home(source) if "path" in source else _barred(folder)
        with imported_anew(Path(path).parent):
            solve = _about if kind == b"A" else _solve
            solve(line, path, source["function"])
    except KeyboardInterrupt:
        pass
    except BaseException as error:
        own = Path(path).parent if path else None
        line.say({"op": "failed", "what": described(error, own)[:1000]})
    finally:
        os._exit(0)


def _use(competition: InUse) -> str:
    """Use the calling process' competition and import its code; returns the fault, or "".

    Workers cannot read this code, so they inherit it imported.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # a worker would wait forever for threads started here
    try:
        competition.use()
        for dotted in current().code:
            resolve(dotted)
    except (ValueError, ImportError) as error:  # sentences
        return str(error).rstrip(".")
    except BaseException as error:
        return described(error)
    finally:
        torch.set_num_threads(threads)
    return ""


def _unpacked(source: dict[str, Any], folder: str) -> str:
    """Write the file of the attack and those beside it into the folder."""
    root = Path(folder, "attack")
    for name, text in source["files"].items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(text)
    return str(root / source["file"])


def _barred(folder: str) -> None:
    """Restrict this process to libraries and the folder, which is empty."""
    place = os.path.join(folder, "empty")
    os.mkdir(place)
    os.chdir(place)
    os.environ.update(HOME=place, TMPDIR=place)
    tempfile.tempdir = place
    if landlock.version():
        landlock.restrict(_libraries(), [folder, "/dev/null"])


def _as_at_home(source: dict[str, Any]) -> None:
    """Take over the folder, the environment and the search path of the calling process."""
    os.chdir(source["folder"])
    os.environ.clear()
    os.environ.update(source["environment"])
    sys.path[:] = [*dict.fromkeys([*source["search"], *sys.path])]


def _libraries() -> list[str]:
    """The folders of Python and its packages, but none with a user's data."""
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    scorer = os.path.dirname(os.path.abspath(scoring.__file__))
    prefixes = {sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix}
    found = [os.path.join(prefix, part) for prefix in prefixes for part in ("lib", "lib64")]
    found += ["/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache"]
    found += ["/dev/urandom", "/sys/devices/system/cpu", "/usr/share/zoneinfo"]
    found += [path for path in sys.path if os.path.basename(path).endswith("-packages")]
    return [package, scorer, *found]


def _function(path: str, function: str) -> Any:
    """Load the attack from its file."""
    module = types.ModuleType("stranger")
    module.__file__ = path
    sys.modules[module.__name__] = module
    with open(path, "rb") as file:
        exec(compile(file.read(), path, "exec"), module.__dict__)
    found = getattr(module, function, None)
    if not callable(found) and not isinstance(found, Attack):
        raise LookupError(f"there is no function {function}")
    check_takes_problem(found, os.path.basename(path), function)
    return found


def _about(line: _Line, path: str, function: str) -> None:
    """The attributes of the attack."""
    found = _function(path, function)
    lines = (found.title if isinstance(found, Attack) else found.__doc__ or "").strip()
    line.say(
        {
            "op": "about",
            "title": (lines.splitlines() or [""])[0][:200],
            "leaves_one_out": bool(getattr(found, "leaves_one_out", True)),
            "white_box": bool(getattr(found, "white_box", False)),
            "all_records": bool(getattr(found, "all_records", False)),
            "least_shadows": int(getattr(found, "least_shadows", 2)),
        }
    )


def _solve(line: _Line, path: str, function: str) -> None:
    """Read a problem, run the attack, and return its scores."""
    facts = pickle.loads(line.read_frame())
    problem = Problem(source=_Remote(line, facts.pop("fleet")), **facts)
    with undisturbed():
        found = _function(path, function)
        scores = plain((found.run if isinstance(found, Attack) else found)(problem))
    if scores.dtype.kind not in "fiub":
        raise TypeError(f"the attack gave {scores.dtype}, not real numbers")
    values = np.ascontiguousarray(scores, dtype="<f8")
    line.say({"op": "scores", "shape": list(values.shape)})
    line.write(values.tobytes())


class _Line:
    """The socket to the process with the signals."""

    def __init__(self, number: int) -> None:
        self._number = number

    def ask(self, request: dict[str, Any]) -> bytes:
        """Send a request, and read the answer; a refusal is a ValueError."""
        self.say(request)
        frame = self.read_frame()
        if frame[:1] == b"E":
            raise ValueError(frame[1:].decode())
        return frame[1:]

    def say(self, words: dict[str, Any]) -> None:
        """Send a line of JSON."""
        self.write(json.dumps(words).encode() + b"\n")

    def write(self, data: bytes) -> None:
        """Send all bytes."""
        view = memoryview(data)
        while view:
            view = view[os.write(self._number, view) :]

    def read_frame(self) -> bytes:
        """Read a frame: its length in eight bytes, then its content."""
        return self._read(struct.unpack(">Q", self._read(8))[0])

    def _read(self, count: int) -> bytes:
        parts = bytearray()
        while len(parts) < count:
            part = os.read(self._number, min(count - len(parts), 1 << 20))
            if not part:
                os._exit(1)  # the other end has closed
            parts += part
        return bytes(parts)


class _Remote:
    """A Source that requests signals from the other process."""

    def __init__(self, line: _Line, fleet: Any) -> None:
        self._line, self.fleet = line, fleet
        self._signals: dict[str, np.ndarray] = {}

    @cached_property
    def data(self) -> Any:
        """The dataset."""
        return pickle.loads(self._line.ask({"op": "data"}))

    def get(self, name: str) -> np.ndarray:
        """float[models, points], a signal of every model at every record."""
        if name not in self._signals:
            self._signals[name] = _array(self._line.ask({"op": "get", "name": name}))
        return self._signals[name]

    def logits(self, row: int) -> np.ndarray:
        """float32[points, classes] of one model."""
        return _array(self._line.ask({"op": "logits", "row": int(row)}))

    def load(self, row: int) -> Any:
        """One model, in eval mode, on the CPU."""
        return pickle.loads(self._line.ask({"op": "load", "row": int(row)}))


def _array(raw: bytes) -> np.ndarray:
    found: np.ndarray = np.load(io.BytesIO(raw), allow_pickle=False)
    found.setflags(write=False)
    return found


def _kill_orphans() -> None:
    """End processes that the worker left behind, which this process has adopted."""
    while True:
        for child in _children():
            os.kill(child, signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def _children() -> list[int]:
    found = []
    for name in os.listdir("/proc") if os.path.isdir("/proc") else ():
        if name.isdecimal():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    parent = file.read().rpartition(b")")[2].split()[1]
            except OSError:
                continue  # it has ended
            if int(parent) == os.getpid():
                found.append(int(name))
    return found


def _prctl(option: int, value: int) -> None:
    """For Linux only; elsewhere a worker outlives its parent, and its orphans are not adopted."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)
