"""The rule of an embedding and a linear layer that share their weight, as in language models.

The gradient of an example is the sum of both layers' gradients, E + L.  Row v of E is the sum of
the output gradients g_t of the embedding over the positions t with token v; L is the sum of h_s x_s
over the positions s of the linear layer.  So |E + L|^2 = |E|^2 + |L|^2 + 2 <E, L>, and
<E, L> is the sum over t and s of h_s[token t] <g_t, x_s>: no matrix of the weight's size is built.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mico_competition.training.ghost_norms import EmbeddingRule, LinearRule
from mico_competition.training.layer_rule import add_to, doubt_of, not_negative


class TiedRule:
    """Joins the rules of the two layers.

    Args:
        embedding, linear: the rules, which record the layers' calls.
    """

    def __init__(self, embedding: EmbeddingRule, linear: LinearRule) -> None:
        self.embedding, self.linear = embedding, linear
        linear.may_keep = False  # its records are needed with those of the embedding

    def forget(self) -> None:
        """Drop what was recorded of a batch."""
        self.embedding.forget()
        self.linear.forget()

    def squared_norms(self, batch: torch.Size) -> Tensor:
        """The squared norms of the per-example gradients, float[batch]."""
        alone = self.embedding.squared_norms(batch) + self.linear.squared_norms(batch)
        both = torch.zeros_like(alone)
        for tokens, g in self.embedding.recorded(batch):
            tokens = tokens.reshape(len(tokens), -1)
            g = self.embedding.counted(tokens, g.reshape(*tokens.shape, -1))
            for x, h in self.linear.recorded(batch):
                x, h = (values.reshape(len(tokens), -1, values.shape[-1]) for values in (x, h))
                near = torch.bmm(x, g.transpose(1, 2))
                at_tokens = h.gather(2, tokens.unsqueeze(1).expand(-1, h.shape[1], -1))
                both += (near * at_tokens).flatten(1).sum(1)
        return not_negative(alone + 2 * both)

    def doubt(self, batch: torch.Size) -> Tensor | None:
        """Rounding may hide squared norms below this, float[batch]."""
        size = self.embedding.size(batch) + self.linear.size(batch)
        return doubt_of(2 * size, of_pairs=True)  # the two layers may cancel, too

    def set_apart(self, at: Tensor) -> None:
        """Take the examples at int64[k] out of the weighted sum; `alone` has their gradients."""
        self.embedding.set_apart(at)
        self.linear.set_apart(at)

    def alone(self, example: int) -> dict[nn.Parameter, Tensor]:
        """The gradient of an example that was set apart, by parameter."""
        total = self.linear.alone(example)
        for parameter, row in self.embedding.alone(example).items():
            add_to(total, parameter, row)
        return total

    def drop(self, dropped: Tensor) -> None:
        """Make the gradients of the examples that `dropped`, bool[batch], marks zero."""
        self.embedding.drop(dropped)
        self.linear.drop(dropped)

    def write_weighted_sum(self, weights: Tensor) -> None:
        """Write sum_i weights_i * gradient_i into the `grad` of the layers' parameters."""
        self.embedding.write_weighted_sum(weights)
        weight = self.embedding.module.weight
        first = weight.grad
        self.linear.write_weighted_sum(weights)
        weight.grad = weight.grad + first
