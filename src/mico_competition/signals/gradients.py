"""The norm of the loss gradient at each record, over all weights of a trained model.

`training.bookkeeping` derives the norms from activations and output gradients, and never builds a
per-example gradient: docs/METHODS.md, sections 3.3 and 11.3.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mico_competition.models.architectures import logits
from mico_competition.signals.points import Points
from mico_competition.signals.scalars import direction
from mico_competition.training.bookkeeping import BookKeeper


def negative_log_norms(model: nn.Module, points: Points) -> np.ndarray:
    """Compute minus the log of the L2 norm of the cross-entropy's gradient at each record.

    The gradient is linear in that of the logits, (1 - p_y) d_z.  Only d_z goes backward through the
    model; log(1 - p_y) is added afterwards, because float32 would round 1 - p_y to 0 for a record
    that the model fits well.  The error is 1e-4 or less.

    Args:
        model: in eval mode, on the points' device, with layers that `training.ghost_norms`
            supports.  Hooks stay in it, so do not use it for anything else afterwards.
        points: the records.

    Returns:
        float64[points], unbounded; larger where the model fits a record better.
    """
    keeper = BookKeeper(model)

    def run(inputs: Any, labels: Tensor) -> Tensor:
        with keeper.recording():
            outputs = logits(model, inputs)
            log_rest, towards = direction(outputs.detach(), labels)
            norms = keeper.norms((outputs * towards).sum(1))
        return -(log_rest + norms.detach().double().log())

    parts = points.outputs(model, run, points.batch_size(gradients=True))
    return torch.cat(parts).cpu().numpy()
