"""Numbers of a user as a numpy array."""

from __future__ import annotations

from typing import Any

import numpy as np


def as_array(values: Any) -> np.ndarray:
    """An array of the same type; a tensor may be on any device and require a gradient.

    bfloat16, which numpy does not have, becomes float32.

    Raises:
        ValueError: for rows of several lengths.

    >>> as_array([1, 0]).dtype.kind
    'i'
    """
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        values = values.float() if str(values.dtype) == "torch.bfloat16" else values
    return np.asarray(values)
