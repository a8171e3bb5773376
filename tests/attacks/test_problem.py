"""Signals as attacks take them: the arrays, and leaving one out."""

from dataclasses import replace

import numpy as np
import pytest
from helpers_problem import make_problem

from mico_competition.attacks import calibrate, eb_likelihood_ratio, lira
from mico_competition.attacks import problem as module


def without(problem, target):
    """The rows of the shadows, the target itself left out."""
    return problem.shadows[problem.shadows != target]


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("attack", [calibrate, lira, eb_likelihood_ratio])
def test_score_is_the_attack_target_by_target_over_all_points(attack, own):
    problem, _ = make_problem(targets_in_shadows=own)
    signal = problem.source.get("logit")
    found = problem.gather("logit").score(attack)
    for row, (target, columns) in enumerate(zip(problem.targets, problem.columns)):
        shadows = without(problem, target)
        expected = attack(signal[target], signal[shadows], problem.known_membership[shadows] == 1)[
            columns
        ]
        np.testing.assert_allclose(found[row], expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("own", [False, True])
def test_score_each_is_the_attack_on_the_points_asked_for(own):
    problem, _ = make_problem(targets_in_shadows=own)
    signal = problem.source.get("logit")
    found = problem.gather("logit").score_each(lira, variance="raw_global")
    for row, (target, columns) in enumerate(zip(problem.targets, problem.columns)):
        some = np.ix_(without(problem, target), columns)
        expected = lira(
            signal[target, columns],
            signal[some],
            problem.known_membership[some] == 1,
            variance="raw_global",
        )
        np.testing.assert_allclose(found[row], expected, rtol=1e-8, atol=1e-9)


def test_few_targets_at_a_time_give_the_same(monkeypatch):
    problem, _ = make_problem(targets_in_shadows=True)
    whole = problem.gather("logit").score(eb_likelihood_ratio)
    monkeypatch.setattr(module, "CELLS", 2 * problem.known_membership.shape[1])
    np.testing.assert_array_equal(problem.gather("logit").score(eb_likelihood_ratio), whole)


@pytest.mark.parametrize("own", [False, True])
def test_arrays_end_to_end(own):
    problem, _ = make_problem(targets_in_shadows=own)
    found, signal = problem.gather("logit"), problem.source.get("logit")
    assert found.shape == (6, 20)
    for k in (0, 19, 20, 77, 119):
        target, column = problem.targets[k // 20], problem.columns[k // 20, k % 20]
        assert found.target[k] == signal[target, column]
        np.testing.assert_array_equal(found.shadow[:, k], signal[problem.shadows, column])
        known_membership = problem.known_membership[problem.shadows, column]
        np.testing.assert_array_equal(found.is_member[:, k], known_membership == 1)
        if own:
            assert problem.shadows[found.target_index[k]] == target
    assert own or found.target_index is None
    flat = calibrate(
        found.target, found.shadow, found.is_member, target_index=found.target_index
    ).reshape(found.shape)
    np.testing.assert_allclose(flat, found.score(calibrate), rtol=1e-12, atol=1e-12)


def test_points_that_nobody_asks_for_may_be_unknown():
    problem, _ = make_problem()
    signal = np.array(problem.source.get("logit"))
    unasked = np.setdiff1d(np.arange(120), problem.columns)
    assert len(unasked)
    signal[:, unasked] = np.nan
    some = np.unique(problem.columns)
    expected = calibrate(
        signal[problem.targets][:, some],
        signal[:20][:, some],
        problem.known_membership[:20][:, some] == 1,
    )
    found = problem.gather_from(signal).score(calibrate)
    np.testing.assert_allclose(
        found, np.take_along_axis(expected, np.searchsorted(some, problem.columns), 1)
    )
    signal[3, problem.columns[0, 0]] = np.nan
    with pytest.raises(ValueError, match="finite signals, got NaN or infinite ones of model 3: "):
        problem.gather_from(signal).score(calibrate)


def test_a_signal_of_another_shape_is_refused():
    problem, _ = make_problem()
    with pytest.raises(ValueError, match=r"a signal of shape \(26, 120\)"):
        problem.gather_from(np.zeros((26, 5)))


def test_masks_that_are_not_of_these_models_are_refused():
    problem, _ = make_problem()
    with pytest.raises(ValueError, match="membership of the shadow models to be known"):
        replace(problem, shadows=np.arange(21))
    with pytest.raises(ValueError, match="a signal of shape"):
        replace(problem, known_membership=problem.known_membership[:, :-1]).gather("logit")


def test_a_target_among_its_own_shadows_is_refused():
    problem, _ = make_problem()
    with pytest.raises(ValueError, match="no target among the shadows"):
        replace(problem, targets=np.array([3]), columns=problem.columns[:1])


def test_the_same_model_twice_is_refused():
    problem, _ = make_problem()
    signal = np.array(problem.source.get("logit"))
    signal[20] = signal[4]
    with pytest.raises(
        ValueError, match="no target among its own shadows; target 0 equals shadow 4"
    ):
        problem.gather_from(signal).score(calibrate)
