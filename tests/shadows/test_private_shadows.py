"""Private shadow models: their epsilon, their noise, and the claim that the pool carries."""

from functools import partial

import numpy as np
import pytest
import torch
from helpers_shadows import make_data, weights
from torch import nn

import mico_competition as mico
from mico_competition.shadows.membership import balanced_membership

FIT = {
    "target_epsilon": 4.0,
    "target_delta": 1e-3,
    "optimizer": partial(torch.optim.SGD, lr=0.5),
    "epochs": 2,
    "batch_size": 10,
}


def linear():
    return nn.Linear(6, 3)


def private(**options):
    options = {"count": 4, "seed": 3, "progress": False, "dataset": make_data(42), **FIT, **options}
    return mico.train_shadows(linear, **options)


def of(pool):
    return np.stack([weights(pool.source.load(row)) for row in range(4)])


@pytest.fixture(scope="module")
def pool():
    return private()


def test_the_pool_carries_the_claim_of_every_model(pool):
    claim = pool.claim
    assert claim.target == 4.0 and claim.delta == 1e-3
    assert 3.0 < claim.epsilon <= 4.0
    # 21 members each, 3 steps an epoch; the noise is the one that the trainer itself finds.
    model = linear()
    trainer = mico.PrivateTrainer(
        model,
        torch.optim.SGD(model.parameters(), lr=0.5),
        target_epsilon=4.0,
        target_delta=1e-3,
        num_records=21,
        batch_size=10,
        epochs=2,
        max_grad_norm=1.0,
    )
    assert claim.mechanism == trainer.planned
    assert pool.select(models=[0, 1]).claim == claim
    result = mico.evaluate(pool, "loss", resamples=20)
    assert len(result.plot(limits=claim, scale="log").axes[0].lines) >= 2


def test_noise_and_batches_are_each_models_own_and_repeatable(pool):
    found = of(pool)
    assert np.array_equal(of(private()), found)
    assert len({values.tobytes() for values in found}) == 4
    # With all gradients clipped to nothing, only noise moves the weights.
    noise = of(private(max_grad_norm=1e-9, optimizer=partial(torch.optim.SGD, lr=1e9)))
    correlations = np.corrcoef(noise)[np.triu_indices(4, 1)]
    assert np.abs(correlations).max() < 0.9


def test_the_members_of_each_model_are_what_it_is_trained_on(pool):
    seen = []

    def loss(outputs, targets):
        seen.append(len(targets))
        return nn.functional.cross_entropy(outputs, targets, reduction="none")

    private(loss=loss, count=2)
    assert seen and max(seen) <= 21
    assert (pool.membership == balanced_membership(4, 42, 0.5, 3)).all()


def test_sizes_that_differ_give_the_larger_epsilon():
    pool = private(dataset=make_data(41))  # 20 and 21 members: 2 or 3 steps an epoch
    sizes = pool.membership.sum(axis=1)
    assert set(sizes) == {20, 21}
    model = linear()
    found = [
        mico.PrivateTrainer(
            model,
            torch.optim.SGD(model.parameters(), lr=0.5),
            target_epsilon=4.0,
            target_delta=1e-3,
            num_records=int(size),
            batch_size=10,
            epochs=2,
            max_grad_norm=1.0,
        ).planned.epsilon(1e-3)
        for size in (20, 21)
    ]
    assert pool.claim.epsilon == max(found)


def seeding_linear():
    torch.manual_seed(0)
    np.random.seed(0)
    return linear()


def test_a_make_model_that_seeds_torch_does_not_share_the_noise():
    # With all gradients clipped to nothing, only noise moves the weights.
    only_noise = {"max_grad_norm": 1e-9, "optimizer": partial(torch.optim.SGD, lr=1e9)}
    options = {"dataset": make_data(42), "count": 4, "seed": 3, "progress": False, **FIT}
    found = of(mico.train_shadows(seeding_linear, **options | only_noise))
    correlations = np.corrcoef(found)[np.triu_indices(4, 1)]
    assert np.abs(correlations).max() < 0.9
