"""White-box attacks on a small fleet of real models: they win, stay blind, and refuse."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from helpers_problem import Arrays
from helpers_whitebox import trained, whitebox_problem

from mico_competition.attacks import calibrate, eb_likelihood_ratio
from mico_competition.attacks.problem import Problem
from mico_competition.attacks.registry import get_attack
from mico_competition.attacks.stacking.stacking import Stack
from mico_competition.attacks.whitebox.mlp.evidence import calibrator
from mico_competition.attacks.whitebox.mlp.features import first_pass
from mico_competition.attacks.whitebox.mlp.pipeline import (
    add_both,
    area,
    best,
    best_ridge,
    evidence,
    joint_decoder,
    trace,
)
from mico_competition.attacks.whitebox.mlp.prior import coefficients
from mico_competition.models.architectures import CNN, MLP
from mico_competition.signals import HIDDEN

ATTACKS = [get_attack(name) for name in ("trace", "joint", "best")]

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@cache
def answers(known=False):
    """(problem, truth, scores of each attack by name), worked out once."""
    problem, truth = whitebox_problem(known=known)
    return problem, truth, {attack.name: attack.run(problem) for attack in ATTACKS}


@pytest.mark.slow
def test_white_box_beats_what_it_starts_from():
    problem, truth, scores = answers()
    loss = area(problem.gather("loss").target, truth)
    midpoint = area(problem.gather("confidence").score(calibrate, centre="midpoint"), truth)
    ours = {name: area(score, truth) for name, score in scores.items()}
    assert ours["trace"] > loss + 0.05
    assert min(ours["joint"], ours["best"]) > max(midpoint, loss) + 0.05
    assert all(attack.white_box and not attack.leaves_one_out for attack in ATTACKS)


def test_scores_are_finite_deterministic_and_of_the_right_shape():
    _, truth, scores = answers()
    assert list(scores) == ["trace", "joint", "best"]
    for score in scores.values():
        assert score.shape == truth.shape and score.dtype == np.float64
        assert np.isfinite(score).all()
    again, _ = whitebox_problem()
    np.testing.assert_array_equal(scores["joint"], joint_decoder(again))


@pytest.mark.slow
def test_what_is_told_of_targets_is_used():
    _, truth, scores = answers()
    _, _, knowing_scores = answers(known=True)
    np.testing.assert_array_equal(scores["joint"], knowing_scores["joint"])
    assert not np.allclose(scores["best"], knowing_scores["best"])
    assert area(knowing_scores["best"], truth) > 0.85


def with_known_membership(problem, known_membership):
    fleet = replace(problem.source.fleet, known_membership=known_membership)
    source = problem.source
    twin = Arrays(fleet, source._signals, source._logits, source._models, source.data)
    return Problem(twin, problem.shadows, problem.targets, problem.columns, known_membership)


@pytest.mark.slow
@pytest.mark.parametrize("known", [False, True])
def test_a_shadow_in_a_targets_place_has_not_seen_its_own_labels(known, monkeypatch):
    """Shuffle what is told of one shadow where it learns: its own signals stay as they are.

    So do its features of the first pass; those of other shadows, whose reference it is, change.
    (This is the trap of 4.5.  In the second pass others' signals are its reference, and they
    have used its labels as reference in their turn.)
    """
    problem, _ = whitebox_problem(known=known)
    stacks, signals = [], []

    def scores(self):
        stacks.append(self)
        return np.zeros(1)

    monkeypatch.setattr(Stack, "scores", scores)
    add_signal = Stack.add_signal

    def noted(self, signal, *kinds):
        signals.append(signal)
        add_signal(self, signal, *kinds)

    monkeypatch.setattr(Stack, "add_signal", noted)
    # What little stacks say must not differ between the two runs: their weights see all labels.
    monkeypatch.setattr(
        "mico_competition.attacks.whitebox.mlp.pipeline.fit_logistic", lambda *_: Sum()
    )
    monkeypatch.setattr(
        "mico_competition.attacks.whitebox.mlp.pipeline.best_ridge", always_the_ridge_1
    )
    monkeypatch.setattr("mico_competition.attacks.whitebox.mlp.pipeline.converged", lambda *_: True)
    best(problem)
    row = 5
    known_membership = problem.known_membership.copy()
    columns = stacks[0].columns[row]
    known_membership[row, columns] = np.random.default_rng(0).permutation(
        known_membership[row, columns]
    )
    best(with_known_membership(problem, known_membership))
    old_signals, new_signals = np.split(np.array(signals), 2)
    # 4 black-box, 4 traces, 6, 3 and 3 decodes, 3 decodes again, 2 pushes
    assert len(old_signals) == 25
    for old, new in zip(old_signals, new_signals):
        np.testing.assert_allclose(new[row], old[row], atol=2e-3 * np.abs(old[row]).max())
    others = np.setdiff1d(problem.shadows, row)
    assert np.abs(new_signals - old_signals)[20:, others].max() > 0.01

    before, after = stacks
    shape = before.columns.shape
    for old, new in list(zip(before._shadow, after._shadow))[:40]:
        old, new = old.reshape(shape), new.reshape(shape)
        np.testing.assert_allclose(new[row], old[row], atol=2e-3)
        assert np.abs(old - new)[others].max() > 0.01


def always_the_ridge_1(problem, decodes, beside, stack):
    added = {ridge: add_both(problem, stack, signal) for ridge, signal in decodes.items()}
    return 0.5, 1.0, added[1.0]


class Sum:
    """A stack of no training, in the place of the fitted one."""

    def scores(self, features):
        return features.sum(axis=-1)


def test_first_pass_reads_no_labels_of_membership():
    problem, _ = whitebox_problem()
    first = first_pass(problem)
    known_membership = problem.known_membership.copy()
    known_membership[problem.shadows] = 1 - known_membership[problem.shadows]
    other = first_pass(with_known_membership(problem, known_membership))
    assert other is not first
    for name in ("trace", "whiter_trace", "second", "whiter_second"):
        np.testing.assert_array_equal(getattr(other, name), getattr(first, name))
    np.testing.assert_array_equal(other.joint[0.3], first.joint[0.3])


def test_the_first_pass_is_kept_for_folds_of_the_same_models():
    problem, _ = whitebox_problem()
    first = first_pass(problem)
    rows = np.union1d(problem.shadows, problem.targets)
    known_membership = trained()[2].astype(np.int8)
    known_membership[:6] = HIDDEN
    fold = Problem(
        problem.source,
        rows[6:],
        rows[:6],
        problem.source.fleet.challenge[rows[:6]],
        known_membership,
    )
    assert first_pass(fold) is first
    fewer = Problem(
        problem.source,
        rows[6:-1],
        rows[:6],
        problem.source.fleet.challenge[rows[:6]],
        known_membership,
    )
    assert first_pass(fewer) is not first


def test_evidence_is_that_of_the_array_attack_with_the_model_left_out():
    problem, _ = whitebox_problem()
    signal = problem.source.get("logit")
    ours = calibrator(problem).log_ratio(signal, problem.shadows)
    for row in (0, 7):
        others = problem.shadows[problem.shadows != row]
        expected = eb_likelihood_ratio(
            signal[row], signal[others], problem.known_membership[others] == 1
        )
        np.testing.assert_allclose(ours[row], np.clip(expected, -12, 12), atol=1e-4)
    u = calibrator(problem).standard_score(signal, problem.targets)
    row = problem.targets[0]
    centred = signal[row] - signal[problem.shadows].mean(axis=0)
    assert np.corrcoef(u[0], centred)[0, 1] > 0.8
    with pytest.raises(ValueError, match="shadows, or none"):
        calibrator(problem).log_ratio(signal, np.arange(len(signal)))


def test_the_ridge_is_chosen_on_shadows_alone():
    problem, _ = whitebox_problem()
    first = first_pass(problem)
    logit = evidence(problem, problem.source.get("logit"))
    worth, ridge, _ = best_ridge(problem, first.joint, logit)
    areas = {
        tried: area(evidence(problem, signal).shadow + logit.shadow, problem.is_member)
        for tried, signal in first.joint.items()
    }
    assert areas[ridge] == worth == max(areas.values())


def test_coefficients_are_shrunk_and_leave_the_model_out():
    problem, _ = whitebox_problem()
    signal = first_pass(problem).joint[1.0]
    ours = coefficients(problem, signal, problem.shadows)
    known_membership = problem.known_membership.copy()
    known_membership[3] = 1 - known_membership[3]
    other = coefficients(with_known_membership(problem, known_membership), signal, problem.shadows)
    np.testing.assert_allclose(other.shift[3], ours.shift[3], rtol=1e-4)
    np.testing.assert_allclose(other.out[3], ours.out[3], rtol=1e-3, atol=1e-5)
    assert (ours.shift > 0).all()
    shadows, member = signal[problem.shadows], problem.is_member
    raw = np.array([x[m].mean() - x[~m].mean() for x, m in zip(shadows.T, member.T)])
    target = coefficients(problem, signal, problem.targets)
    np.testing.assert_allclose(target.shift[0], target.shift[1])
    assert 0 < target.shift[0].std() < raw.std()
    assert np.corrcoef(target.shift[0], raw)[0, 1] > 0.9


def refused(problem, words, **changes):
    source = problem.source
    kept = {
        "fleet": source.fleet,
        "signals": source._signals,
        "logits": source._logits,
        "models": source._models,
        "data": source.data,
    }
    twin = Arrays(**{**kept, **changes})
    for attack in (trace, joint_decoder, best):
        with pytest.raises(ValueError, match=words):
            attack(replace(problem, source=twin))


def test_what_cannot_be_decoded_is_refused():
    problem, _ = whitebox_problem()
    models = list(problem.source._models)
    width, classes = models[0].mlp[0].in_features, models[0].mlp[2].out_features

    def swapped(model):
        return [*models[:2], model, *models[3:]]

    refused(problem, "or this package's MLP., but model 2 is a CNN", models=swapped(CNN()))
    refused(problem, "one shape, but model 2", models=swapped(MLP(width, 9, classes)))
    refused(problem, "one shape, but model 2", models=swapped(MLP(width, 16, classes, gain=2.0)))
    broken = MLP(width, 16, classes)
    torch.nn.init.constant_(broken.mlp[2].bias, float("nan"))
    refused(problem, "finite weights, but model 2", models=swapped(broken))
    refused(problem, "same weights", models=[models[0]] * len(models))
    logits = problem.source._logits.copy()
    logits[1, 0, 0] = np.nan
    refused(problem, "finite logits", logits=logits)
    fleet = problem.source.fleet
    refused(problem, "dataset of this scenario", fleet=replace(fleet, labels=fleet.labels + 9))


def test_problems_of_the_wrong_kind_are_refused():
    problem, _ = whitebox_problem()
    rows = np.arange(3)
    own = Problem(
        problem.source,
        problem.shadows,
        rows,
        problem.columns[:3],
        problem.known_membership,
        targets_in_shadows=True,
    )
    alone = Problem(
        problem.source,
        problem.shadows[:1],
        problem.targets,
        problem.columns,
        problem.known_membership,
    )
    keep = np.arange(100)
    fleet = replace(
        problem.source.fleet,
        records=keep,
        labels=problem.source.fleet.labels[:100],
        known_membership=problem.known_membership[:, :100],
    )
    part = Arrays(fleet, {}, None, problem.source._models, problem.source.data)
    few = Problem(
        part, problem.shadows, problem.targets, problem.columns % 100, fleet.known_membership
    )
    for attack in (trace, joint_decoder, best):
        for asked, words in (
            (own, "folds of models"),
            (alone, "at least 2 shadow models"),
            (few, "records='all'"),
        ):
            with pytest.raises(ValueError, match=words):
                attack(asked)


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_each_attack_works_with_as_few_shadows_as_it_says(attack):
    problem, truth = whitebox_problem(targets=2)
    few = replace(problem, shadows=problem.shadows[: attack.least_shadows])
    assert attack.run(few).shape == truth.shape
    with pytest.raises(ValueError, match="shadow models"):
        attack.run(replace(few, shadows=few.shadows[:-1]))
