"""Unpacks and scores one submission in a process of its own, and says what that cost.

    python tests/scoring/hostile_child.py MEASURES IN OUT [ZIP]

With ZIP it is unpacked into IN/res first, as `mico` does it.  Faults go to stderr as the program
writes them; MEASURES gets the processor's seconds and the most memory ever held, as JSON.
"""

import codecs
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

from mico_competition.scoring import program

from mico_competition.competition.submission import unpack_submission

NOBODY = 65534


def main(measures, inputs, outputs, *zips):
    with open(measures, "w") as file:
        if os.environ.get("HOSTILE_NOBODY") and os.geteuid() == 0:
            codecs.lookup("utf-8-sig")  # loaded when first used, maybe from where nobody may read
            os.seteuid(NOBODY)  # root may read everything
        faulty = bool(zips) and unpack(zips[0], Path(inputs, "res"))
        code = 1 if faulty else program.main([inputs, outputs])
        status = Path("/proc/self/status").read_text()
        # Not getrusage: its peak is that of the parent, where the parent is the larger one.
        peak = int(re.search(r"VmHWM:\s+([0-9]+) kB", status)[1]) / 1024
        json.dump({"seconds": time.process_time(), "mb": peak}, file)
    return code


def unpack(path, folder):
    """Print the faults of a zip; whether there were any."""
    try:
        unpack_submission(path, folder)
    except ValueError as error:
        line = str(error).replace(path, Path(path).name)
        print(f"Not scored: the zip has faults.\n- {line}", file=sys.stderr)
        return True
    return False


def run_child(folder, *zips, case=None):
    """Score `in` (after unpacking a zip into it) by hostile_child.py, in that folder.

    Returns the exit code, stdout, stderr and a dict of processor's `seconds`, `wall` and `mb`.
    """
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    if case and "without rights" in case.name:
        environment["HOSTILE_NOBODY"] = "1"
        give_to_all(folder)
    started = time.perf_counter()
    command = [sys.executable, __file__, "measures.json", "in", "out", *zips]
    done = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        timeout=600,
        cwd=folder,
        env=environment,
    )
    found = json.loads((folder / "measures.json").read_text() or "null")
    assert found, f"the child died: {done.stderr}"
    found["wall"] = time.perf_counter() - started
    return done.returncode, done.stdout, done.stderr, found


def give_to_all(folder):
    """Let anybody enter a competition's folder and write its OUT."""
    folder.chmod(0o755)
    (folder / "out").mkdir(exist_ok=True)
    (folder / "out").chmod(0o777)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
