"""A tiny model, its training, and a dataset, for tests of shadow models."""

import random

import numpy as np
import torch
from torch import nn

RECORDS, FEATURES, CLASSES = 40, 6, 3


def make_data(records=RECORDS, seed=0):
    """(inputs float32[records, features], labels int64[records])."""
    generator = np.random.default_rng(seed)
    inputs = generator.normal(size=(records, FEATURES)).astype(np.float32)
    return inputs, generator.integers(0, CLASSES, records)


def make_model():
    return nn.Sequential(nn.Linear(FEATURES, 8), nn.Tanh(), nn.Dropout(0.1), nn.Linear(8, CLASSES))


def fit(model, inputs, labels, steps=5):
    """Steps of SGD on random halves, with the generators of all three libraries."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for _ in range(steps):
        batch = torch.randperm(len(labels))[: len(labels) // 2]
        scale = 1 + 0.01 * random.random() + 0.01 * np.random.rand()
        loss = scale * nn.functional.cross_entropy(model(inputs[batch]), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def train(model, subset):
    inputs, labels = (torch.as_tensor(part) for part in subset)
    fit(model, inputs, labels)


def weights(model):
    """All parameters as one array."""
    return torch.cat([value.flatten() for value in model.state_dict().values()]).cpu().numpy()
