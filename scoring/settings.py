"""Reads the settings of a competition from `settings.json` beside score.py, if there is one.

    {"scenarios": {"digits_inf": "No DP", "digits_lo": "Low \u03b5 = 4"}, "steps": {"dev": 0.005}}

`scenarios` maps each scenario to its label, in the order of display.  `steps` maps a phase, dev or
final, to the step to which its scores are rounded; a phase of another name counts as dev, and one
without a step gets exact scores.  `mico bundle` writes the file, and the same steps into
bundled.py.  If the two disagree, scores are rounded to the coarsest known step.  Outside a bundle
the file is optional: without it, all scenarios get exact scores under their own names.
"""

import json
import os
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

FILE = "settings.json"
MAX_SCENARIOS = 20
PHASES = ("dev", "final")
USUAL_STEPS = {"dev": 0.005}


class Settings(NamedTuple):
    """The settings (see the module's docstring); both are empty if nothing is set."""

    scenarios: Dict[str, str] = {}
    steps: Dict[str, float] = {}

    def step_of(self, phase: str) -> float:
        """The step of a phase, 0 for exact scores; a phase of another name has that of dev."""
        return self.steps.get("final" if phase == "final" else "dev", 0.0)


def check_settings(values: Any) -> Settings:
    """Check settings that were read from JSON; ValueError if they have another form.

    >>> check_settings({"steps": {"dev": 0.005}}).steps
    {'dev': 0.005}
    """
    if not isinstance(values, dict) or not set(values) <= set(Settings._fields):
        raise ValueError("Expected an object with the keys scenarios and steps alone.")
    if "steps" not in values:
        raise ValueError("Expected steps; {} where all scores are exact.")
    settings = Settings(**values)
    if not all(isinstance(part, dict) for part in settings):
        raise ValueError("Expected scenarios and steps to be objects.")
    if len(settings.scenarios) > MAX_SCENARIOS:
        raise ValueError("Expected at most %d scenarios." % MAX_SCENARIOS)
    if not all(isinstance(label, str) and label for label in settings.scenarios.values()):
        raise ValueError("Expected each scenario's label as a text.")
    for phase, step in settings.steps.items():
        if phase not in PHASES:
            raise ValueError("Expected steps of %s, got one of %r." % (" and ".join(PHASES), phase))
        if isinstance(step, bool) or not isinstance(step, (int, float)) or not 1e-6 <= step <= 0.1:
            raise ValueError("Expected the step of %s from 0.000001 to 0.1." % phase)
    return settings


def parse_settings(text: str) -> Settings:
    """Parse the text of a settings.json; ValueError if it is damaged or has another form.

    >>> parse_settings('{"steps": {"dev": 0.005}, "steps": {}}')
    Traceback (most recent call last):
    ValueError: Expected each key once, got 'steps' twice.
    """
    try:
        values = json.loads(text, object_pairs_hook=_each_once)
    except json.JSONDecodeError:
        raise ValueError("It cannot be read as JSON.") from None
    except RecursionError:
        raise ValueError("It is nested too deeply.") from None
    return check_settings(values)


def _each_once(pairs: List[Tuple[str, Any]]) -> Dict[str, Any]:
    """A JSON object; ValueError for a repeated key, of which json would use the last."""
    found: Dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError("Expected each key once, got %r twice." % key)
        found[key] = value
    return found


def read_settings(folder: str) -> Settings:
    """Read the settings in a folder; empty if there is no such file.

    Raises:
        ValueError: if the file cannot be read, because otherwise scores would be exact by mistake.
    """
    path = os.path.join(folder, FILE)
    if not os.path.lexists(path):
        return Settings()
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except (OSError, ValueError):
        raise ValueError("It cannot be read as text.") from None
    return parse_settings(text)


def settings_in_force(
    folder: str, bundled: Optional[Dict[str, float]]
) -> Tuple[Settings, Optional[str]]:
    """The settings to score with, and what is wrong with a bundle's file, if anything.

    Args:
        folder: the folder of settings.json.
        bundled: the steps in bundled.py; None outside a bundle.

    Raises:
        ValueError: outside a bundle, if there is a file that cannot be read.
    """
    if bundled is None:
        return read_settings(folder), None
    found, wrong = Settings(), "is missing"
    if os.path.lexists(os.path.join(folder, FILE)):
        try:
            found, wrong = read_settings(folder), "does not agree with bundled.py"
            if found.steps == bundled:
                return found, None
        except ValueError:
            wrong = "is damaged"
    known = (USUAL_STEPS, bundled, found.steps)
    steps = {phase: max(part.get(phase, 0.0) for part in known) for phase in PHASES}
    note = "%s of this competition %s, so scores are rounded. Please tell the organisers."
    return found._replace(steps=steps), note % (FILE, wrong)
