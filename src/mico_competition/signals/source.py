"""What attacks read: signals, outputs and models, wherever they come from."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from mico_competition.signals.fleet import Fleet


class Source(Protocol):
    """A source of signals: `Signals` of a fleet, a class of `pool_source`, or arrays in tests.

    A source may have an attribute `base`: the model from which all were fine-tuned, or None.
    """

    fleet: Fleet

    @property
    def data(self) -> Any:
        """The dataset, as models take it."""
        ...

    def get(self, name: str) -> np.ndarray:
        """float[models, points], the signal `name` of every model at every record."""
        ...

    def logits(self, row: int) -> np.ndarray:
        """float32[points, classes] of one model."""
        ...

    def load(self, row: int) -> Any:
        """One model, in eval mode, on its device: for white-box attacks."""
        ...
