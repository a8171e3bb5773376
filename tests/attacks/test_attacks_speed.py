"""Processor time of attacks from cached signals, and LiRA against loops over points."""

import time

import numpy as np
from helpers_attacks import fleet, naive_lira
from scipy import stats

from mico_competition.attacks import (
    bavaria,
    calibrate,
    eb_likelihood_ratio,
    lira,
    out_reference,
    rmia,
    winner_2023,
)


def cpu(function):
    """The least processor time of three runs, in seconds, and the result."""
    times = []
    for _ in range(3):
        start = time.process_time()
        result = function()
        times.append(time.process_time() - start)
    return min(times), result


def test_speed_of_100_shadows_50_targets_200_points():
    rng = np.random.default_rng(6)
    is_member = rng.random((100, 10_000)) < 0.76
    shadow = rng.random((100, 10_000))
    target = rng.random(10_000)
    for attack in (
        calibrate,
        lambda *a: winner_2023(*a, formula="standardised"),
        lira,
        lambda *a: lira(*a, online=False, variance="raw_global", shrinkage=5),
        rmia,
        bavaria,
        eb_likelihood_ratio,
        out_reference,
    ):
        assert cpu(lambda attack=attack: attack(target, shadow, is_member))[0] < 0.3


def runner_up_loop(points, signals, shadow, training_sets):
    """As described of 2023's program: per point, IN and OUT by search in each model's index list.

    Signals are given; the original also took the softmax of all logits anew at each point.
    """
    scores = []
    for j, point in enumerate(points):
        models_out = [m for m, indices in enumerate(training_sets) if point not in indices]
        models_in = [m for m, indices in enumerate(training_sets) if point in indices]
        outside = np.array([shadow[m][j] for m in models_out])
        inside = np.array([shadow[m][j] for m in models_in])
        density = stats.norm.pdf(signals[j], np.mean(inside), np.std(inside))
        scores.append(density / stats.norm.pdf(signals[j], np.mean(outside), np.std(outside)))
    return np.log(scores)


def test_lira_is_1000_times_faster_than_the_runner_up():
    """Signals and index lists in, scores out; the size of A_inf (n = 15,000 of N = 19,732)."""
    rng = np.random.default_rng(7)
    n_records, n_training, models, points = 19_732, 15_000, 100, 10_000
    training_sets = [rng.permutation(n_records)[:n_training].tolist() for _ in range(models)]
    shadow, signals = rng.normal(size=(models, points)), rng.normal(size=points)
    challenge = rng.permutation(n_records)[:points]

    def ours():
        seen = np.zeros((models, n_records), dtype=bool)
        for row, indices in zip(seen, training_sets):
            row[indices] = True
        return lira(signals, shadow, seen[:, challenge])

    fast, found = cpu(ours)
    few = 20
    start = time.process_time()
    slow_scores = runner_up_loop(challenge[:few].tolist(), signals, shadow, training_sets)
    loop = (time.process_time() - start) / few * points
    np.testing.assert_allclose(found[:few], slow_scores, rtol=1e-8, atol=1e-8)
    assert loop > 1000 * fast, (loop, fast)


def test_lira_is_faster_than_a_loop_that_has_the_mask():
    """Without the search, scipy's normal point by point is what is left to win."""
    f = fleet(models=100, points=300, targets=50)
    start = time.process_time()
    slow = naive_lira(f.target[0], f.shadow, f.is_member)
    loop = 50 * (time.process_time() - start)  # it treats each target alike
    fast, found = cpu(lambda: lira(f.target, f.shadow, f.is_member))
    np.testing.assert_allclose(found[0], slow, rtol=1e-9)
    assert loop > 100 * fast, (loop, fast)
