"""Made-up models whose attack works differently well, for tests of intervals."""

import numpy as np


def some_models(rng, count, points=40, gap=0.8, spread=0.0):
    """Truth and predictions of models whose attack works differently well, the more so by `spread`.

    How well it works is drawn from a scaled beta distribution, and where its scores lie from a
    normal one, once a model: both make the points of a model alike.
    """
    truth = np.repeat([0, 1], points // 2)
    gaps = gap * (1 + spread * (2 * rng.beta(2, 2, count) - 1))
    shifts = 0.5 * spread * rng.normal(size=count)
    values = rng.normal(size=(count, points)) + gaps[:, None] * truth + shifts[:, None]
    return [truth] * count, list(values)


def competition(count=50, points=200, seed=0):
    rng = np.random.default_rng(seed)
    solutions, predictions = {}, {}
    for name, gap in (("hi", 0.2), ("inf", 2.0), ("lo", 0.05)):
        truths, values = some_models(rng, count, points, gap, spread=1)
        for i in range(count):
            folder = f"cifar10/cifar10_{name}/dev/model_{i}"
            solutions[folder], predictions[folder] = truths[i], values[i]
    return solutions, predictions


def scenario(values, name):
    return [array for folder, array in values.items() if f"/{name}/" in folder]
