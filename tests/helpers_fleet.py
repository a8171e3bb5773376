"""Running `mico fleet` as a process that can be killed, and reading what it left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

SCENARIO = "digits_inf"  # without privacy: no noise to search for in every worker


class Fleet:
    """One out folder and the command that fills it."""

    def __init__(self, out: Path, *flags: str, models: str = "0-11") -> None:
        self.out = out
        self.folder = out / "fleet" / SCENARIO
        self.flags = [SCENARIO, "--models", models, "--out", str(out), "--threads", "1", *flags]

    def start(self) -> subprocess.Popen[str]:
        """The command, in a process group of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "mico_competition.cli", "fleet", *self.flags],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self) -> subprocess.CompletedProcess[str]:
        """The command, to its end."""
        process = self.start()
        out, err = process.communicate(timeout=600)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def models(self) -> list[Path]:
        """Folders of models that are done."""
        return sorted(self.out.glob(f"digits/{SCENARIO}/*/model_*"))

    def leftovers(self) -> list[Path]:
        """What somebody was writing when killed."""
        return [path for path in self.out.rglob(".*") if path.name not in (".", "..")]

    def events(self, kind: str) -> list[dict]:
        """Lines of events.jsonl of one kind; a line that a kill cut short is left out."""
        found = []
        path = self.folder / "events.jsonl"
        for line in path.read_text().splitlines() if path.exists() else []:
            try:
                found.append(json.loads(line))
            except ValueError:
                continue
        return [event for event in found if event["event"] == kind]

    def stamps(self) -> dict[str, tuple[int, int, int]]:
        """Inode, time and size of every file of the models that are done."""
        files = [file for model in self.models() for file in [model, *model.iterdir()]]
        return {
            str(f.relative_to(self.out)): (s.st_ino, s.st_mtime_ns, s.st_size)
            for f in files
            for s in [f.stat()]
        }

    def workers(self) -> list[int]:
        """Ids of the processes that hold the workers' lock or have its dataset mapped."""
        found = []
        for maps in Path("/proc").glob("[0-9]*/maps"):
            try:
                if f"{self.folder}/dataset.pt" in maps.read_text():
                    found.append(int(maps.parent.name))
            except OSError:
                continue
        return [pid for pid in found if pid != os.getpid()]


def wait_for(condition: Callable[[], object], seconds: float = 600.0) -> object:
    """What `condition` gives once it is true."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.002)
    raise TimeoutError(f"{condition} did not come true in {seconds} s")
