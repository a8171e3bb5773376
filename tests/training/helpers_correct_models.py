"""Unusual models that can be trained privately all the same."""

from __future__ import annotations

import torch
from helpers_private_checks import Net, Tokens, net
from torch import Tensor, nn
from torch.nn import functional


# -- and models that can be ------------------------------------------------------------------
class Cached(Net):
    """Keeps what it saw last, for whoever wants to look; nothing depends on it."""

    last = None

    def between(self, x):
        self.last = x.detach()
        return x


class InPlace(nn.Module):
    records = (3, 8, 8)

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(144, 4)
        )

    def forward(self, x):
        return self.layers(x)


class DeepResidual(nn.Module):
    """Twenty layers whose outputs grow."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(6, 6) for _ in range(20))
        self.out = nn.Linear(6, 4)

    def forward(self, x):
        for layer in self.layers:
            x = x + functional.relu(layer(x))
        return self.out(30 * x)


class Attention(nn.Module):
    """Attention within a sequence, with dropout, padded by token 0."""

    records = "tokens"

    def __init__(self):
        super().__init__()
        self.table, self.qkv = nn.Embedding(10, 8), nn.Linear(8, 24)
        self.norm, self.out = nn.LayerNorm(8), nn.Linear(8, 4)

    def forward(self, ids):
        mask = ids != 0
        mask[:, 0] = True
        q, k, v = (part.unsqueeze(1) for part in self.qkv(self.table(ids)).chunk(3, -1))
        mixed = functional.scaled_dot_product_attention(
            q, k, v, attn_mask=mask[:, None, None], dropout_p=0.1 if self.training else 0.0
        )
        return self.out(self.norm(mixed[:, 0, 0]))


class Zero(Net):
    def __init__(self):
        super().__init__()
        for parameter in self.parameters():
            nn.init.zeros_(parameter)


class TableByLength(Net):
    """Makes a constant when a length is first asked for, and keeps it."""

    def __init__(self):
        super().__init__()
        self.ones: dict[int, Tensor] = {}

    def between(self, x):
        return x * self.ones.setdefault(len(x), torch.ones(len(x), 1))


class ScaleByFirstWeights(Net):
    scale: float | None = None

    def between(self, x):
        if self.scale is None:
            self.scale = float(self.a.weight.detach().norm())
        return x * self.scale


CORRECT = {
    "plain": Net,
    "dropout": net("Dropout", lambda x: functional.dropout(x, 0.3)),
    "noise": net("Noise", lambda x: x + 0.1 * torch.randn_like(x)),
    "draws that depend on data": net("RReLU", lambda x: functional.rrelu(x, training=True)),
    "a layer dropped": net("LayerDrop", lambda x: x if torch.rand([]) < 0.5 else 2 * x),
    "large": net("Large", lambda x: 1e4 * x),
    "saturated": net("Saturated", lambda x: 1e3 * torch.tanh(1e3 * x)),
    "rounded": net("Rounded", lambda x: x + (50 * x).round() / 50),
    "shifted by the largest": net("Shifted", lambda x: (x - x.max().detach()).softmax(1)),
    "cached": Cached,
    "a table by length": TableByLength,
    "scaled by its first weights": ScaleByFirstWeights,
    "zero": Zero,
    "deep": DeepResidual,
    "tokens": Tokens,
    "attention": Attention,
}
