"""The scoring program of a bundle: the files of `scoring/` with the competition's settings."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from mico_competition import scoring
from mico_competition.scoring.settings import FILE, Settings, check_settings

STEPS_FILE = "bundled.py"


def program_files(
    labels: Mapping[str, str], steps: Mapping[str, float] | None = None
) -> dict[str, bytes]:
    """The content of every file of the program's folder, by name.

    Args:
        labels: the label of each scenario, in the order of display.
        steps: phase -> the step to which its scores are rounded; other phases get exact scores.

    Raises:
        ValueError: if the program would refuse these settings.
    """
    settings = check_settings(Settings(dict(labels), dict(steps or {}))._asdict())
    text = json.dumps(settings._asdict(), indent=1, ensure_ascii=False)
    own = own_files()
    stated = own[STEPS_FILE].replace(b"= None\n", f"= {settings.steps!r}\n".encode())
    return {**own, STEPS_FILE: stated, FILE: f"{text}\n".encode()}


def own_files() -> dict[str, bytes]:
    """The files in `scoring/`, without caches and hidden files."""
    folder = Path(scoring.__file__).parent
    found: dict[str, bytes] = {}
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if path.is_file() and not any(p.startswith((".", "__pycache__", "tests")) for p in parts):
            found["/".join(parts)] = path.read_bytes()
    return found
