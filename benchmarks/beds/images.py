"""Test-beds of real CIFAR-10 images with narrow versions of 2022's CNN: loader and models.

The competition files `images.toml` and others of this folder name them. A narrow network on few
images keeps the ratios of real MICO: 60,000 images on a head of 6,400 inputs are 9.4 records an
input, and on 974,000 weights 0.06 records a weight.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from mico_competition.data.arrays import ArrayDataset, normalise_cifar10

RECORDS = 3_042
RECORD_BYTES = 1 + 3 * 32 * 32  # the label, then the pixels by channel


def images(folder: str) -> ArrayDataset:
    """The first 3,042 images of the official binary batch file 1, normalised as in 2022.

    Args:
        folder: holds `cifar10/cifar-10-batches-bin/data_batch_1.bin`.
    """
    file = Path(folder) / "cifar10" / "cifar-10-batches-bin" / "data_batch_1.bin"
    rows = np.fromfile(file, np.uint8, RECORDS * RECORD_BYTES).reshape(RECORDS, RECORD_BYTES)
    pixels, labels = rows[:, 1:].reshape(-1, 3, 32, 32), rows[:, 0].astype(np.int64)
    return ArrayDataset(torch.from_numpy(pixels), torch.from_numpy(labels), normalise_cifar10)


class NarrowCNN(nn.Module):
    """2022's CNN with fewer channels: 24 and 48, a coarser first pool, and a last map of 5 x 5."""

    def __init__(self, last: int, pooled: bool) -> None:
        super().__init__()
        self.cnn = nn.Sequential(
            nn.Conv2d(3, 24, kernel_size=8, stride=2, padding=3),
            nn.Tanh(),
            nn.MaxPool2d(kernel_size=3, stride=2),
            nn.Conv2d(24, 48, kernel_size=3),
            nn.Tanh(),
            nn.Conv2d(48, last, kernel_size=3, padding=1),
            nn.Tanh(),
            nn.AvgPool2d(kernel_size=2, stride=2) if pooled else nn.Identity(),
            nn.Flatten(),
            nn.Linear(last * (2 * 2 if pooled else 5 * 5), 10),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Logits [B, 10] of normalised images [B, 3, 32, 32]."""
        logits: Tensor = self.cnn(x)
        return logits


def narrow_head() -> NarrowCNN:
    """A head of 324 inputs (9.4 records each) and 53,415 weights (0.057 records each) in all."""
    return NarrowCNN(81, pooled=True)


def wide_head() -> NarrowCNN:
    """A head of 3,050 inputs: 1.0 records each."""
    return NarrowCNN(122, pooled=False)
