"""The data and the model of a competition: put yours in their place.

Participants need this file too, so publish it with the models, and keep secrets out of it.
"""

from pathlib import Path

import numpy as np
from torch import Tensor, nn


def load_blobs(dataset_dir: Path | None = None) -> tuple[np.ndarray, np.ndarray]:
    """600 points around 4 centres, the same ones each time.

    Args:
        dataset_dir: the folder that --dataset_dir names; a loader of real data reads its files
            there.

    Returns:
        Records [N, ...] as numbers (bytes take the least memory), and labels [N] from 0.
    """
    rng = np.random.default_rng(0)
    labels = rng.integers(4, size=600)
    centres = rng.standard_normal((4, 32))
    records = centres[labels] + 2 * rng.standard_normal((600, 32))
    return records.astype(np.float32), labels


class BlobNet(nn.Module):
    """One hidden layer. Private training refuses layers that it cannot clip, such as BatchNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(32, 64), nn.Tanh(), nn.Linear(64, 4))

    def forward(self, x: Tensor) -> Tensor:
        """Logits [B, 4] of records [B, 32]."""
        logits: Tensor = self.layers(x)
        return logits
