"""Shadow models that are trained on a real Ray cluster of two nodes on this machine."""

import sys

import numpy as np
import pytest
import torch
from torch import nn

from mico_competition.shadows.train_shadows import train_shadows

pytestmark = [
    pytest.mark.alone,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc"),
]


def test_a_cluster_trains_the_shadow_models_of_this_process(nodes, tmp_path):
    """Functions of a notebook, which no module of the cluster's processes holds, included."""
    ray = pytest.importorskip("ray")
    rng = np.random.default_rng(0)
    dataset = rng.normal(size=(30, 5)).astype("float32"), rng.integers(0, 2, 30)

    def make_model():
        return nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 2))

    def train(model, subset):
        inputs, labels = map(torch.as_tensor, subset)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        for _ in range(5):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs), labels).backward()
            optimizer.step()

    options = {"count": 4, "seed": 3, "progress": False}
    here = train_shadows(make_model, train, dataset, **options)
    ray.init(address=nodes.address)
    try:
        there = train_shadows(
            make_model, train, dataset, executor="ray", folder=tmp_path / "kept", **options
        )
    finally:
        ray.shutdown()
    assert np.array_equal(here.membership, there.membership)
    assert np.array_equal(here.signal("loss"), there.signal("loss"))
    assert np.ptp(there.signal("loss").mean(axis=1)) > 0
    again = train_shadows(make_model, train, dataset, folder=tmp_path / "kept", **options)
    assert np.array_equal(again.signal("loss"), there.signal("loss"))  # none is trained twice
