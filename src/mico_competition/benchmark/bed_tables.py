"""Tables for test-beds of attacks: baskets from a second generator, and a real table.

The first generator (`mico_competition.data.synthetic`) draws every product by itself, from a
low-rank model of tastes, and labels are clusters.  Here products come in bundles, as recipes do;
the label is the kind of shopper, some labels are wrong, and the kinds differ in size.  An attack
that gains on one of the two only has learnt about the generator.
"""

from __future__ import annotations

import numpy as np
from torch import nn

RECORDS = 19_732  # a tenth of Purchase-100's
TAKEN = 0.6  # the probability of each product of a bundle that a shopper chose
WRONG = 0.08  # the share of labels that are drawn at random
IMPULSE = 4.0  # the mean number of products outside bundles


def make_bundles(
    records: int, seed: int, *, products: int, bundles: int, length: int, kinds: int
) -> tuple[np.ndarray, np.ndarray]:
    """Baskets made of bundles, bool[records, products], and labels int64[records].

    Args:
        records: the number of baskets.
        seed: the same seed gives the same baskets.
        products: the number of products.
        bundles: the number of bundles, from which each kind of shopper prefers some.
        length: the mean number of products in a bundle.
        kinds: the number of kinds of shopper; the largest has ten times as many as the smallest.
    """
    generator = np.random.default_rng(seed)
    popularity = 1 / np.arange(3, products + 3)
    generator.shuffle(popularity)
    popularity /= popularity.sum()
    holds = np.zeros((bundles, products))
    for own in holds:
        count = min(2 + generator.poisson(length - 2), products)
        own[generator.choice(products, count, replace=False, p=popularity)] = 1
    preferences = generator.dirichlet(np.full(bundles, 0.15), kinds)
    sizes = np.geomspace(10, 1, kinds)
    kind = generator.choice(kinds, records, p=sizes / sizes.sum())
    chosen = generator.multinomial(2 + generator.poisson(2.0, records), preferences[kind])
    missing = np.exp(chosen @ np.log1p(-TAKEN * holds)) * (1 - popularity) ** IMPULSE
    baskets = generator.random((records, products)) > missing
    wrong = generator.random(records) < WRONG
    labels = np.where(wrong, generator.integers(kinds, size=records), kind)
    return baskets, labels.astype(np.int64)


def load_bundles() -> tuple[np.ndarray, np.ndarray]:
    """240 products, 20 kinds: with 32 hidden units 2.57 records a weight, as Purchase-100 has."""
    return _as_bytes(make_bundles(RECORDS, 1, products=240, bundles=60, length=8, kinds=20))


def load_wide_bundles() -> tuple[np.ndarray, np.ndarray]:
    """600 products, 100 kinds: with 128 hidden units 0.26 records a weight."""
    return _as_bytes(make_bundles(RECORDS, 2, products=600, bundles=240, length=14, kinds=100))


def load_cancer() -> tuple[np.ndarray, np.ndarray]:
    """scikit-learn's breast cancer: 569 real records of 30 numbers, standardised; 2 classes."""
    from sklearn.datasets import load_breast_cancer

    records, labels = load_breast_cancer(return_X_y=True)
    records = (records - records.mean(axis=0)) / records.std(axis=0)
    return records.astype(np.float32), labels.astype(np.int64)


def _as_bytes(table: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    return table[0].astype(np.uint8), table[1]


def bundles_net() -> nn.Module:
    """240-32-20 with tanh."""
    return nn.Sequential(nn.Linear(240, 32), nn.Tanh(), nn.Linear(32, 20))


def wide_bundles_net() -> nn.Module:
    """2022's network for Purchase-100."""
    return nn.Sequential(nn.Linear(600, 128), nn.Tanh(), nn.Linear(128, 100))


def cancer_net() -> nn.Module:
    """30-64-2 with tanh."""
    return nn.Sequential(nn.Linear(30, 64), nn.Tanh(), nn.Linear(64, 2))
