"""Faults planted by monkeypatching in the code that fleets run.  Never to train with.

Each is a function of pytest's monkeypatch (or anything with `setattr`), which changes the package's
own functions, so that it is in models trained alone and in stacks alike.
"""

from __future__ import annotations

from helpers_planted_batches import BATCHES
from helpers_planted_clipping import CLIPPING
from helpers_planted_noise import NOISE
from helpers_planted_steps import WEIGHTS

ALL = {**NOISE, **CLIPPING, **WEIGHTS, **BATCHES}
