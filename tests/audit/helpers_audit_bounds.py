"""Mechanisms with a known epsilon, the best attack on them, and how often a bound fails."""

import itertools
import math

import numpy as np
from scipy import sparse
from scipy.optimize import linprog
from scipy.stats import binom

from mico_competition.audit.tradeoff import gdp_mu

ALARM = 0.05
RUNS = 250
ALLOWED = int(binom.ppf(0.999, RUNS, ALARM))  # 24: more would hardly be chance


def alarms(bound, simulate, epsilon, runs=RUNS, **options):
    """In how many runs the bound is above the true epsilon.  `simulate` is given a generator."""
    rng = np.random.default_rng(11)
    return sum(bound(*simulate(rng), **options).epsilon > epsilon for _ in range(runs))


def coins(rng, points, half=False):
    """Truth by a fair coin each, or just half of the points drawn."""
    if half:
        return rng.permutation(points) < points // 2
    return rng.random(points) < 0.5


def gaussian(rng, truth, epsilon, delta):
    """Scores of the Gaussian mechanism whose epsilon at delta is just this."""
    return rng.normal(size=truth.size) + gdp_mu(epsilon, delta) * truth


def randomised_response(rng, truth, epsilon, reveal=0.0):
    """The answer of each point, true with probability e^epsilon / (1 + e^epsilon).

    With probability `reveal` a point's truth is told, and that it is: then (epsilon, reveal).
    """
    honest = rng.random(truth.size) < 1 / (1 + np.exp(-epsilon))
    score = np.where(honest == truth, 1.0, -1.0)
    return np.where(rng.random(truth.size) < reveal, np.where(truth, 2.0, -2.0), score)


def two_faced(rng, truth, epsilon, often):
    """In `often` of all runs randomised response, in the others noise: points hang together."""
    if rng.random() < often:
        return randomised_response(rng, truth, epsilon) + 0.1 * rng.random(truth.size)
    return rng.random(truth.size)


def two_faced_tpr(fpr, epsilon, often):
    """The largest TPR that `two_faced` allows: rates are spent where they buy most."""
    q = 1 / (1 + np.exp(-epsilon))
    wrong = often * (1 - q)  # of FPR at e^epsilon each; then noise at 1; then the rest
    best = np.minimum(fpr, wrong) * np.exp(epsilon)
    noise = np.clip(fpr - wrong, 0, 1 - often)
    return best + noise + np.maximum(fpr - wrong - (1 - often), 0) * np.exp(-epsilon)


def least_fpr(epsilon, delta):
    """The inverse of `dp_tpr`."""
    grown = math.exp(epsilon)
    return lambda tpr: max(0.0, (tpr - delta) / grown, 1 - delta - grown * (1 - tpr))


def strongest(points, guesses, right, epsilon, delta):
    """How likely `right` or more right guesses can be at all under (epsilon, delta).

    The best over all mechanisms whose output is a choice of points guessed to be in and to be
    out, so many of both (a pair) or in all (a number), by linear programming: P(output | coins)
    for all coins, and for each pair of neighbours the mass that epsilon leaves over, which sums
    to delta at most.
    """
    flips = np.array(list(itertools.product([0, 1], repeat=points)))
    outputs = np.array(list(itertools.product([-1, 0, 1], repeat=points)))
    made = np.stack([(outputs == 1).sum(1), (outputs == -1).sum(1)], axis=1)
    fits = made.sum(1) == guesses if np.ndim(guesses) == 0 else (made == guesses).all(1)
    outputs = outputs[fits]
    hits = ((2 * flips - 1)[:, None] * outputs > 0).sum(axis=2)
    states, choices = hits.shape
    near = np.argwhere(np.abs(flips[:, None] - flips).sum(axis=2) == 1)
    pick = sparse.identity(states, format="csr")
    each = sparse.kron(pick[near[:, 0]] - np.exp(epsilon) * pick[near[:, 1]], np.eye(choices))
    total = np.ones((1, choices))
    over = sparse.bmat(
        [
            [each, -sparse.identity(len(near) * choices)],  # P - e^epsilon Q <= what is left over
            [None, sparse.kron(sparse.identity(len(near)), total)],
        ]
    )
    most = np.repeat([0.0, delta], [len(near) * choices, len(near)])
    unused = sparse.csr_matrix((states, len(near) * choices))
    sums = sparse.hstack([sparse.kron(pick, total), unused])
    gain = np.concatenate([(hits >= right).ravel() / -states, np.zeros(len(near) * choices)])
    return -linprog(gain, over, most, sums, np.ones(states), bounds=(0, 1)).fun
