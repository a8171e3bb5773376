"""Norms of per-example gradients of the loss over all weights, of a trained model.

Activations and output gradients give the norms, without a gradient being written out:
docs/METHODS.md, sections 3.3 and 11.3.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from mico_competition.models.architectures import logits
from mico_competition.signals.points import Points
from mico_competition.signals.scalars import direction
from mico_competition.training.bookkeeping import BookKeeper


def negative_log_norms(model: nn.Module, points: Points) -> np.ndarray:
    """float64[points], minus the log of the L2 norm of the cross-entropy's gradient.

    Larger where the model fits a record better; no bound.  The gradient is linear in that of the
    logits, (1 - p_y) u: u goes through the model, and 1 - p_y, which float32 would round to 0 for
    a record that is fitted well, is put in as its logarithm.  Right to 1e-4 or better.

    Args:
        model: in eval mode, on the points' device; its layers must be known to
            `training.ghost_norms`.  It keeps hooks: use it for nothing else.
    """
    keeper = BookKeeper(model)
    parts = []
    for inputs, labels in points.batches(points.batch_size(gradients=True)):
        with keeper.recording():
            outputs = logits(model, inputs)
            log_rest, towards = direction(outputs.detach(), labels)
            norms = keeper.norms((outputs * towards).sum(1))
        parts.append(-(log_rest + norms.detach().double().log()))
    return torch.cat(parts).cpu().numpy()
