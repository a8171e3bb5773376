"""Attacks work on whole arrays, without a call for each record; LiRA against loops over records."""

import numpy as np
import pytest
from helpers_attacks import fleet, naive_lira
from helpers_work import calls
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

ATTACKS = {
    "calibrate": calibrate,
    "winner_2023": lambda *a: winner_2023(*a, formula="standardised"),
    "lira": lira,
    "offline lira": lambda *a: lira(*a, online=False, variance="raw_global", shrinkage=5),
    "rmia": rmia,
    "bavaria": bavaria,
    "eb": eb_likelihood_ratio,
    "out_reference": out_reference,
}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_there_is_no_call_for_each_record(attack):
    rng = np.random.default_rng(6)
    is_member = rng.random((100, 2000)) < 0.76
    shadow, target = rng.random((100, 2000)), rng.random(2000)

    def work(records):
        return calls(lambda: attack(target[:records], shadow[:, :records], is_member[:, :records]))

    work(200)  # what is imported or prepared once; an iterative attack may take more steps
    assert work(2000) < 5 * work(200)


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


def test_lira_is_the_runner_ups_loop():
    """Signals and index lists in, scores out; benchmarks/attack_speed.py has the times of both."""
    rng = np.random.default_rng(7)
    n_records, n_training, models, points = 500, 380, 100, 40
    training_sets = [rng.permutation(n_records)[:n_training].tolist() for _ in range(models)]
    shadow, signals = rng.normal(size=(models, points)), rng.normal(size=points)
    challenge = rng.permutation(n_records)[:points]
    seen = np.zeros((models, n_records), dtype=bool)
    for row, indices in zip(seen, training_sets):
        row[indices] = True
    ours = lira(signals, shadow, seen[:, challenge])
    loop = runner_up_loop(challenge.tolist(), signals, shadow, training_sets)
    np.testing.assert_allclose(ours, loop, rtol=1e-8, atol=1e-8)


def test_lira_is_a_loop_that_has_the_mask():
    f = fleet(models=100, points=300, targets=3)
    slow = naive_lira(f.target[0], f.shadow, f.is_member)
    np.testing.assert_allclose(lira(f.target, f.shadow, f.is_member)[0], slow, rtol=1e-9)
