"""Small datasets in the form of the real ones, and a small competition trained on them."""

from __future__ import annotations

import numpy as np
import torch

from mico_competition.data.arrays import ArrayDataset, sixteenths


def blobs(num_records=600, features=64, classes=10, seed=0):
    """An ArrayDataset like digits: noisy class prototypes, bytes 0..16."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(classes, size=num_records)
    prototypes = rng.integers(0, 17, size=(classes, features))
    levels = np.clip(prototypes[labels] + rng.normal(0, 5, (num_records, features)), 0, 16)
    return ArrayDataset(
        torch.from_numpy(levels.astype(np.uint8)), torch.from_numpy(labels), sixteenths
    )
