#!/usr/bin/env python3
"""Publishes and fetches 600 small models, as files and in archives: docs/results/hub.json.

    python benchmarks/hub.py

The Hub is the stand-in of the tests, on this machine; `mico publish` and `mico download` are
processes of their own, and each is timed from start to end.  The release has the shape of 2022's
CIFAR-10: three scenarios of 100, 50 and 50 models, 2,700 files.  docs/howto/publish.md states
what it found.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "hosting" / "hub")]

from helpers_hub import Hub, run_mico  # noqa: E402
from helpers_publish import write_made_up_release  # noqa: E402
from helpers_release import files_below  # noqa: E402
from hub_server import running_hub  # noqa: E402

from mico_competition.competition.layout import walk_challenge  # noqa: E402
from mico_competition.release.archive_names import archives_of  # noqa: E402
from mico_competition.release.release import write_archives  # noqa: E402

SCENARIOS = ("cifar10_inf", "cifar10_hi", "cifar10_lo")
PHASES = (("train", range(100)), ("dev", range(100, 150)), ("final", range(150, 200)))
WEIGHTS = 100_000  # bytes


def main() -> None:
    """Measure both forms, and write the report."""
    with tempfile.TemporaryDirectory() as work, running_hub() as hub:
        phases = [(phase, i) for phase, ids in PHASES for i in ids]
        folder = Path(work) / "released" / "cifar10"
        write_made_up_release(folder, WEIGHTS, SCENARIOS, phases)
        report: dict[str, Any] = {
            "machine": machine(),
            "models": 3 * len(phases),
            "files_of_models": len(files_below(folder)),
            "bytes": size_of(folder.parent),
        }
        for form in ("archives", "files"):
            report[form] = measure(hub, folder, form, Path(work))
        side = folder.parent / "cifar10.release"
        models = walk_challenge(folder)
        write_archives(side, folder, archives_of(models))
        report["bytes_with_zips"] = size_of(folder.parent)
    path = ROOT / "docs" / "results" / "hub.json"
    path.write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))


def measure(hub: Hub, folder: Path, form: str, work: Path) -> dict[str, Any]:
    """Seconds and requests of a publication, and of downloads of it."""
    repo, home = f"team/{form}", work / "home"
    get = ("download", "cifar10", "--repo", repo, "--to")
    few = ("--scenario", "cifar10_lo", "--phase", "train", "--models", "0-4")
    commands = {
        "publish": ("publish", folder, repo, "--form", form),
        "download": (*get, work / form),
        "download_five": (*get, work / f"{form}_five", *few),
    }
    found: dict[str, Any] = {}
    for name, command in commands.items():
        hub.log.clear()
        started = time.perf_counter()
        code, _, err = run_mico(hub.url, home, *command)
        assert code == 0, err
        storage = sum(request.path.startswith(("/cdn/", "/store/")) for request in hub.log)
        found[name] = {
            "seconds": round(time.perf_counter() - started, 1),
            "requests_hub": len(hub.log) - storage,
            "requests_storage": storage,
            "bytes_received": sum(request.sent for request in hub.log),
        }
    assert files_below(work / form / "cifar10") == files_below(folder)
    return found


def size_of(folder: Path) -> int:
    """The bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def machine() -> str:
    """What the numbers were taken on."""
    return (
        f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}, "
        f"huggingface_hub {version('huggingface_hub')}"
    )


if __name__ == "__main__":
    main()
