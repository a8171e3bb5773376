"""benchmarks/entries_2023.py: its splits are those of 2022, and its measures say what they name."""

import numpy as np
import pytest
from helpers_scripts import script_of

from mico_competition.competition.splits import permutation


@pytest.fixture(scope="module")
def script():
    with script_of("entries_2023") as module:
        yield module


def test_splits_are_those_of_the_seeds_of_2022(script):
    members, seconds = script.splits_of_2022(20)
    assert members.sum(axis=1).tolist() == [100] * 20 and seconds >= 0
    for seed in (0, 7, 19):
        assert set(np.flatnonzero(members[seed])) == set(permutation(200, seed)[100:].tolist())


def test_a_perfect_attack_finds_the_true_split_and_guesses_do_not(script):
    splits, _ = script.splits_of_2022(2000)
    rng = np.random.default_rng(0)
    truth = np.stack([rng.permutation(np.repeat([False, True], 100)) for _ in range(30)])
    perfect = script.search(truth + rng.normal(0, 0.1, truth.shape), truth, splits)
    assert perfect["first"] == perfect["found"] == 1.0 and perfect["z"][1] > 10
    assert perfect["joint"] == pytest.approx(perfect["z"][0] * 30**0.5, rel=0.01)
    guesses = script.search(rng.normal(size=truth.shape), truth, splits)
    assert guesses["first"] == guesses["found"] == 0.0 and abs(guesses["z"][0]) < 0.6
    assert abs(guesses["joint"]) < 3.5


def test_the_distance_is_in_units_of_random_halves(script):
    """Of random halves in place of the truth, distances have a standard deviation of 1."""
    splits, _ = script.splits_of_2022(3000)
    scores = np.random.default_rng(1).standard_t(4, size=(1, 200)).repeat(3000, axis=0)
    found = script.search(scores, splits, splits[:50])
    assert -4.5 < found["z"][1] < -2.8 and 2.8 < found["z"][2] < 4.5


def test_scaling_by_model_keeps_each_models_order_and_loses_their_common_scale(script):
    scores = np.array([[0.0, 1.0, 3.0], [10.0, 20.0, 1000.0]])
    scaled = script.by_model(scores)
    assert (np.argsort(scaled) == np.argsort(scores)).all()
    assert scaled[0, 1] > scaled[1, 1] and scaled.max() == 1 and scaled.min() == 0
