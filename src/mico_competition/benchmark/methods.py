"""Where docs/METHODS.md describes the attacks; a test compares this with its index."""

from __future__ import annotations

import re
from collections.abc import Mapping

from mico_competition.attacks.registry import TABLE

_BEGIN: Mapping[str, str] = {
    "threshold": "3.1",
    "entropy": "3.2",
    "modified-entropy": "3.2",
    "calibrate-": "4.2",
    "winner-2023": "4.2",
    "fleshman": "4.3",
    "lira-": "4.4",
    "first-principles": "4.5",
    "bavaria": "4.6",
    "rmia": "4.7",
    "quantile": "4.8",
    "eb": "4.9",
    "stack": "5.3",
    "query-stack": "5.4",
    "neural": "5.5",
    "suri": "5.6",
    "trace": "6.2",
    "joint": "6.4",
    "whitebox": "6.7",
    "layers": "6.8",
}
"""The beginning of a name -> the section."""

SECTIONS: Mapping[str, str] = {
    row.name: next(section for begin, section in _BEGIN.items() if row.name.startswith(begin))
    for row in TABLE
}
"""Name of an attack -> number of the section."""

HEADINGS: Mapping[str, str] = {
    "3.1": "Log-probability, confidence, logit",
    "3.2": "Entropies",
    "4.2": "Calibration, and the winner's formulas",
    "4.3": "One reference model",
    "4.4": "LiRA",
    "4.5": "First principles: the runner-up's LiRA",
    "4.6": "BaVarIA",
    "4.7": "RMIA",
    "4.8": "Quantile regression",
    "4.9": "The empirical-Bayes likelihood ratio",
    "5.3": "Features of the outputs: `stack`",
    "5.4": "Queries at changed records: `query-stack`",
    "5.5": "A neural network on outputs: `neural`",
    "5.6": "Features of the CIFAR-10 runner-up: `suri`",
    "6.2": "The trace: `trace`",
    "6.4": "The joint decode: `joint`",
    "6.7": "The whole attack: `whitebox`",
    "6.8": "Layers of any model: `layers`",
}
"""Number of a section -> its heading."""


def anchor_of(section: str) -> str:
    """The anchor of a section's heading, as GitHub makes it.

    >>> anchor_of("4.2")
    '42-calibration-and-the-winners-formulas'
    """
    words = re.sub(r"[^a-z0-9 -]", "", f"{section} {HEADINGS[section]}".lower())
    return words.replace(" ", "-")
