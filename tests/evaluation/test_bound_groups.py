"""Models whose training sets tell each other's are left out together, so scores are not inflated.

In a mask of which each column holds exactly half of the models, the other models' members tell the
target's. An attack that never asks for them gains all the same: without a member, the mean of the
others is lower.
"""

import logging

import numpy as np
import pytest
from mico_competition.scoring import score

from mico_competition.attacks.registry import get_attack
from mico_competition.evaluation import front_door
from mico_competition.evaluation.cross_fitting import bound_groups, holdout, make_task, problems
from mico_competition.shadows.membership import balanced_membership
from mico_competition.signals.pool import ModelPool

MODELS, RECORDS = 8, 1500


def auc(truth, scores):
    return score(truth.ravel().astype(int), scores.ravel())["AUC"]


def outputs(rng, mask, effect):
    """(logits, labels) of records that differ in difficulty."""
    labels = np.arange(mask.shape[1]) % 4
    hard = 2 * np.random.default_rng(1).normal(size=mask.shape[1])
    logits = rng.normal(size=(*mask.shape, 4))
    logits[:, np.arange(mask.shape[1]), labels] += hard + effect * mask
    return logits, labels


def pool_of(rng, mask, effect):
    logits, labels = outputs(rng, mask, effect)
    return ModelPool.from_logits(logits, labels, mask)


def exactly_half(rng, models, records):
    """bool[models, records], balanced over all models, without pairs."""
    return rng.random((models, records)).argsort(axis=0).argsort(axis=0) < models // 2


ATTACKS = ["calibrate-loss-standardised", "quantile"]


@pytest.mark.slow
def test_paired_models_are_attacked_as_well_as_strangers_are(monkeypatch):
    rng = np.random.default_rng(0)
    mask = balanced_membership(MODELS, RECORDS, 0.5, seed=0)
    pool = pool_of(rng, mask, 2.0)
    fresh = rng.random((MODELS, RECORDS)) < 0.5
    strangers, _ = outputs(rng, fresh, 2.0)
    found = front_door.evaluate(pool, ATTACKS, leakage_check="never", resamples=20)
    for name in ATTACKS:
        honest = auc(fresh, front_door.attack(pool, name, target=strangers))
        assert found[name].auc.value < honest + 0.005  # it has two shadow models fewer
    monkeypatch.setattr("mico_competition.evaluation.cross_fitting.bound_groups", lambda _: None)
    inflated = front_door.evaluate(pool, ATTACKS[:1], leakage_check="never", resamples=20)
    honest = auc(fresh, front_door.attack(pool, ATTACKS[0], target=strangers))
    assert inflated[ATTACKS[0]].auc.value > honest + 0.02


def test_nothing_is_found_where_there_is_nothing():
    """Scores of fair coins; one standard error of the AUC is 0.005."""
    rng = np.random.default_rng(2)
    mask = balanced_membership(MODELS, RECORDS, 0.5, seed=1)
    pool = pool_of(rng, mask, 0.0)
    names = ["lira", "rmia", "eb", "bavaria", *ATTACKS]
    found = front_door.evaluate(pool, names, leakage_check="never", resamples=20)
    for name in found:
        assert abs(found[name].auc.value - 0.5) < 0.02, name


def test_balance_without_pairs_is_reported(caplog):
    rng = np.random.default_rng(0)
    mask = exactly_half(rng, 6, 100)
    pool = pool_of(rng, mask, 1.0)
    with caplog.at_level(logging.WARNING):
        front_door.evaluate(pool, "loss", resamples=20)
    assert "exactly 3 of the 6 models" in caplog.text
    caplog.clear()
    for other in (balanced_membership(6, 100, 0.5, seed=0), rng.random((6, 100)) < 0.5):
        front_door.evaluate(pool_of(rng, other, 1.0), "loss", resamples=20)
    assert not caplog.records


def test_groups():
    rng = np.random.default_rng(0)
    mask = (rng.random((6, 40)) < 0.5).astype(np.int8)
    assert bound_groups(mask) is None
    mask[3], mask[5] = 1 - mask[0], mask[1]
    assert bound_groups(mask).tolist() == [0, 1, 2, 0, 4, 1]
    mask[3, 7] = -1  # not known everywhere
    assert bound_groups(mask).tolist() == [0, 1, 2, 3, 4, 1]
    assert bound_groups(mask[:2]) is None
    assert bound_groups(np.stack([mask[0], 1 - mask[0]])) is None  # nothing would be left
    assert bound_groups(mask[:, :8]) is None


@pytest.mark.parametrize("name", ["lira", "neural"])
def test_no_model_is_attacked_with_its_partner(name):
    rng = np.random.default_rng(0)
    mask = balanced_membership(8, 60, 0.5, seed=0)
    pool = pool_of(rng, mask, 1.0)
    task = make_task(pool.source, "train", records="all")
    seen = []
    for places, problem in problems(task, get_attack(name), folds=3):
        assert not set(problem.targets // 2) & set(problem.shadows // 2)
        assert not problem.targets_in_shadows
        seen += places.tolist()
    assert sorted(seen) == list(range(8))
    _, half = holdout(task)
    assert not set(half.targets // 2) & set(half.shadows // 2)


def test_a_row_of_the_pool_is_attacked_without_its_partner(monkeypatch):
    rng = np.random.default_rng(0)
    mask = balanced_membership(8, 60, 0.5, seed=0)
    pool = pool_of(rng, mask, 1.0)
    seen, answer = [], front_door.answer

    def spy(attack, problem):
        seen.append(problem)
        return answer(attack, problem)

    monkeypatch.setattr(front_door, "answer", spy)
    front_door.attack(pool, "lira", target=5)
    assert seen[0].shadows.tolist() == [0, 1, 2, 3, 6, 7]
