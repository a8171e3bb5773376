"""Signals that are functions of a model's logits, in torch: the logit of p_y and the entropies.

The formulas are in docs/METHODS.md, sections 3.1 and 3.2.  They start from the odds of the other
classes, so they keep all digits where the probability p_y of the true class rounds to 1.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import softplus

from mico_competition.attacks.scores.transforms import sigmoid

_TINY, _HUGE = 1e-250, 1e250  # a sum of exponentials outside this range has lost digits


def true_logit(logits: Tensor, labels: Tensor) -> Tensor:
    """Compute the logit of p_y, log(p_y / (1 - p_y)), in float64 precision whatever its size.

    Args:
        logits: float32 or float64 [b, classes], two classes or more.
        labels: int64[b], the true classes.

    Returns:
        float64[b].  The values are those of `attacks.scores.transforms.stable_logit`, in a tenth
        of its time: this function neither searches for the largest logit nor checks its arguments.
    """
    true = labels[:, None]
    z_y = logits.gather(1, true)[:, 0].double()
    total = _odds(logits).scatter_(1, true, 0.0).sum(1)
    whole = (total > _TINY) & (total < _HUGE)
    if bool(whole.all()):
        return z_y - total.log_()
    return z_y - logits.double().scatter(1, true, -torch.inf).logsumexp(1)


def _odds(logits: Tensor) -> Tensor:
    """float64, the exponentials; on a CPU by numpy, which takes four fifths of torch's time."""
    if logits.device.type != "cpu" or logits.dtype == torch.bfloat16:  # unknown to numpy
        return logits.to(torch.float64, copy=True).exp_()
    with np.errstate(over="ignore"):
        return torch.from_numpy(np.exp(logits.detach().numpy(), dtype=np.float64))


def entropies(logits: Tensor, labels: Tensor) -> Tensor:
    """Compute minus the entropy and minus the modified entropy of each output.

    Both keep 12 digits even where they are far below the rounding of a probability near 1; where
    a wrong class is certain, the entropy has an absolute error below 1e-13.

    Args:
        logits: as in `true_logit`.
        labels: as in `true_logit`.

    Returns:
        float64[2, b].

    Sources: Song and Mittal, USENIX Security 2021 (arXiv 2003.10595), equation 7, for the modified
    entropy; the entropy by grouping (Shannon 1948, section 6):
    H(p) = H(p_y, 1 - p_y) + (1 - p_y) H(shares of the other classes).
    """
    true = labels[:, None]
    z = logits.double()
    depth = z.scatter(1, true, -torch.inf)
    top, where = depth.max(1, keepdim=True)
    odds = depth.sub_(top).exp().scatter_(1, where, 0.0)  # of all but the largest of the others
    small = odds.sum(1)
    total = 1 + small
    phi = (z.gather(1, true) - top)[:, 0] - total.log()
    loss, gain = _softplus(-phi), _softplus(phi)  # -log p_y, -log(1 - p_y)
    p, rest = (-loss).exp_(), (-gain).exp_()
    largest = rest / total
    rests = torch.logaddexp(-loss, (largest * small).log())  # of p_y and the other small ones
    log_rest = torch.where(largest < 0.5, torch.log1p(-largest), rests)
    depth.scatter_(1, true, 0.0)  # where 0 * -inf would be NaN
    spread = total.log() - depth.mul_(odds).sum(1) / total
    shares = odds.mul_(largest[:, None])
    modified = torch.log1p(-shares).mul_(shares).sum(1) + largest * log_rest - rest * loss
    return torch.stack([-p * loss - rest * (gain + spread), modified])


def direction(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the gradient of the cross-entropy with respect to the logits, in two factors.

    It is (1 - p_y) u, where u is -1 at the true class and elsewhere the distribution over the
    other classes.  The factor u keeps its digits where 1 - p_y underflows.

    Returns:
        float64[b], log(1 - p_y); and u, of the dtype and shape of `logits`.
    """
    true = labels[:, None]
    others = logits.double().scatter(1, true, -torch.inf)
    u = others.softmax(1).scatter_(1, true, -1.0)
    return -_softplus(true_logit(logits, labels)), u.to(logits.dtype)


def negative_loss(logit: np.ndarray) -> np.ndarray:
    """Minus the cross-entropy, log p_y, from the logit of p_y."""
    log_probability: np.ndarray = -np.logaddexp(0.0, -logit)
    return log_probability


def confidence(logit: np.ndarray) -> np.ndarray:
    """p_y in [0, 1] from its logit."""
    return sigmoid(logit)


def _softplus(x: Tensor) -> Tensor:
    return softplus(x, threshold=40)  # torch's own threshold of 20 leaves 9 digits
