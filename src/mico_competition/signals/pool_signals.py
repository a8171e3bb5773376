"""The signals of a pool by their public names, each with the sign that its name says."""

from __future__ import annotations

import numpy as np

from mico_competition.signals.source import Source

# public name -> the engine's signal, and its sign there (the engine's grow with membership)
PUBLIC_SIGNALS = {
    "loss": ("loss", -1.0),
    "negative_loss": ("loss", 1.0),
    "confidence": ("confidence", 1.0),
    "logit": ("logit", 1.0),
    "entropy": ("entropy", -1.0),
    "modified_entropy": ("modified_entropy", -1.0),
    "log_gradient_norm": ("gradient_norm", -1.0),
}


def public_signal(source: Source, name: str) -> np.ndarray:
    """float64[models, records]; ValueError on an unknown name."""
    if name not in PUBLIC_SIGNALS:
        raise ValueError(f"Unknown signal {name!r}: choose one of {', '.join(PUBLIC_SIGNALS)}.")
    inner, sign = PUBLIC_SIGNALS[name]
    values: np.ndarray = source.get(inner) * sign
    return values
