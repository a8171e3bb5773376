#!/usr/bin/env python3
"""What a GPU does with this package, in under 8 minutes: docs/results/gpu.json, and a table.

    python benchmarks/gpu.py --out gpu.json

It needs this package, torch, and no network; docs/howto/gpu.md lists what else, and how it is
installed.  Each part runs in a process of
its own with a time box, and the JSON is written after each row, so a part that fails or is cut
leaves what the others measured.  Without a GPU a tiny version runs, which only tries the script.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import platform
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import gpu_page
import gpu_parts
import gpu_steps
import torch
from gpu_data import Asked, Tell
from testbeds import commit

from mico_competition.models.inputs import default_device

_LEFT_FOR_NEXT = 1.0  # seconds, under which no part begins


@dataclass(frozen=True)
class Part:
    """A part of the measurement, and its time box on a GPU in seconds."""

    measure: Callable[[Asked, Tell], None]
    seconds: float


PARTS = {
    "tests": Part(gpu_parts.tests, 60.0),
    "steps": Part(gpu_steps.steps, 70.0),
    "tables": Part(gpu_parts.tables, 60.0),
    "pictures": Part(gpu_parts.pictures, 50.0),
    "text": Part(gpu_parts.text, 80.0),
    "signals": Part(gpu_parts.signals, 15.0),
    "profile": Part(gpu_steps.profile, 15.0),
    "models": Part(gpu_parts.models, 480.0),
}


def run_part(
    name: str, asked: Asked, found: dict[str, Any], out: Path, measure: Callable[..., None]
) -> None:
    """Run a part in a process for at most `asked.seconds`, and write `found` after each row."""
    rows = found.setdefault(name, [])
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["mico_competition.fleets.trial"])
    reader, writer = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(measure, asked, writer))
    started = time.monotonic()
    process.start()
    writer.close()
    try:
        while (left := started + asked.seconds - time.monotonic()) > 0:
            if not reader.poll(left):
                break
            kind, value = reader.recv()
            if kind == "failed":
                found["failed"][name] = value
            else:
                _add(rows, value)
            write(found, out)
        if process.is_alive() and not reader.poll(0):
            found["cut"][name] = asked.seconds
            process.kill()
    except EOFError:  # it has ended
        process.join()
        if process.exitcode and name not in found["failed"]:
            found["failed"][name] = f"its process ended with code {process.exitcode}"
    process.join()
    found["seconds"][name] = time.monotonic() - started
    write(found, out)


def _add(rows: list[dict[str, Any]], row: dict[str, Any]) -> None:
    """Add a row; one of the same model, which was further away from its end, is replaced."""
    last = rows[-1] if rows else {}
    if "part" in last and "accuracy" not in last and last["scenario"] == row["scenario"]:
        rows.pop()
    rows.append(row)


def _child(measure: Callable[[Asked, Tell], None], asked: Asked, writer: Connection) -> None:
    """A part's own process; a tiny one has one thread, which a busy machine does not slow."""
    if asked.tiny:
        torch.set_num_threads(1)
    try:
        measure(asked, lambda row: writer.send(("row", row)))
    except Exception as error:  # out of memory, say
        writer.send(("failed", f"{type(error).__name__}: {error}"))
    finally:
        writer.close()


def write(found: dict[str, Any], out: Path) -> None:
    """Write what was found so far."""
    out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def run_parts(parts: dict[str, Part], asked: Asked, found: dict[str, Any], out: Path) -> None:
    """Run the parts one after another in `asked.seconds`; what there is no time for is left out.

    A CPU takes as long as it takes, so parts of a tiny version have no time boxes of their own.
    """
    end = time.monotonic() + asked.seconds
    for name, part in parts.items():
        left = end - time.monotonic()
        if left < _LEFT_FOR_NEXT:
            print(f"{name}: left out, since the time is over", flush=True)
            continue
        box = replace(asked, seconds=left if asked.tiny else min(part.seconds, left))
        run_part(name, box, found, out, part.measure)
        said = f"{found['seconds'][name]:.0f} s, rows: {len(found[name])}"
        if name in found["failed"]:
            said += f"; failed: {found['failed'][name]}"
        elif name in found["cut"]:
            said += "; cut at the end of its time box"
        print(f"{name}: {said}", flush=True)


def about(asked: Asked, code: str | None = None) -> dict[str, Any]:
    """Machine, code and software of a measurement; `code` is the commit, if somebody said it."""
    try:
        code = code or commit()
    except (OSError, subprocess.CalledProcessError):  # no git, or a copy without history
        code = "not known"
    cuda = asked.device.type == "cuda"
    versions = {}
    for name in ("torch", "opacus", "transformers"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "not installed"
    return {
        "device": torch.cuda.get_device_name() if cuda else f"{platform.machine()}, no GPU",
        "tiny": asked.tiny,
        "code": code,
        **versions,
        "python": platform.python_version(),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, write the JSON, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=gpu_page.RESULT, help="where to write the JSON")
    parser.add_argument(
        "--minutes", type=float, help="for all parts together (default: 7.5, or 60 without a GPU)"
    )
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=list(PARTS))
    parser.add_argument("--data", type=Path, help="a folder with the real CIFAR-10")
    parser.add_argument("--tiny", action="store_true", help="only try the script")
    parser.add_argument("--device", type=torch.device, default=default_device())
    parser.add_argument("--tests", nargs="*", default=(), help="files (default: with gpu tests)")
    parser.add_argument("--commit", help="of the code, where a copy of it has no .git to ask")
    args = parser.parse_args(arguments)
    tiny = args.tiny or args.device.type != "cuda"
    if tiny and args.out == gpu_page.RESULT:
        parser.error("a tiny version measures nothing: give another --out than the page's")
    seconds = 60 * (args.minutes or (60.0 if tiny else 7.5))
    asked = Asked(args.device, tiny, seconds, args.data, tuple(args.tests))
    found: dict[str, Any] = {**about(asked, args.commit), "seconds": {}, "failed": {}, "cut": {}}
    write(found, args.out)
    run_parts({name: PARTS[name] for name in args.parts}, asked, found, args.out)
    print("\n" + gpu_page.page(found, args.out))


if __name__ == "__main__":
    main()
