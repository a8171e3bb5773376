"""What a competition sets for this program: `settings.json` beside score.py, if there is one.

    {"scenarios": {"digits_inf": "No DP", "digits_lo": "Low \u03b5 = 4"}, "steps": {"dev": 0.005}}

`scenarios` maps each scenario to what people call it, in the order for people.  `steps` maps a
phase to the step that its scores are rounded to; other phases get exact scores.  `mico bundle`
writes the file; without it whatever scenarios there are get exact scores under their own names.
"""

import json
import os
from typing import Any, Dict, NamedTuple

FILE = "settings.json"
MAX_SCENARIOS = 20


class Settings(NamedTuple):
    """See the head of this file; both are empty where nothing is set."""

    scenarios: Dict[str, str] = {}
    steps: Dict[str, float] = {}


def check_settings(values: Any) -> Settings:
    """The settings in `values`, which json read; ValueError if they are of another form.

    >>> check_settings({"steps": {"dev": 0.005}}).steps
    {'dev': 0.005}
    """
    if not isinstance(values, dict) or not set(values) <= set(Settings._fields):
        raise ValueError("Expected an object with the keys scenarios and steps alone.")
    settings = Settings(**values)
    if not all(isinstance(part, dict) for part in settings):
        raise ValueError("Expected scenarios and steps to be objects.")
    if len(settings.scenarios) > MAX_SCENARIOS:
        raise ValueError("Expected at most %d scenarios." % MAX_SCENARIOS)
    if not all(isinstance(label, str) and label for label in settings.scenarios.values()):
        raise ValueError("Expected each scenario's label as a text.")
    for phase, step in settings.steps.items():
        if isinstance(step, bool) or not isinstance(step, (int, float)) or not 1e-6 <= step <= 0.1:
            raise ValueError("Expected the step of %s from 0.000001 to 0.1." % phase)
    return settings


def read_settings(folder: str) -> Settings:
    """The settings in a folder: those of its file, or none if there is no such file.

    Raises:
        ValueError: if there is a file that cannot be read.  Scores would otherwise leave exact
            where they must not.
    """
    path = os.path.join(folder, FILE)
    if not os.path.lexists(path):
        return Settings()
    try:
        with open(path, encoding="utf-8") as file:
            values = json.load(file)
    except (OSError, ValueError):
        raise ValueError("It cannot be read as JSON.") from None
    return check_settings(values)
