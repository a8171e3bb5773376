"""Which targets are attacked with which shadow models: no target is its own shadow."""

import copy

import numpy as np
import pytest
from helpers_problem import ATTACKS, Arrays, make_source

from mico_competition.attacks.problem import Attack
from mico_competition.evaluation.cross_fitting import (
    EXTRA,
    MaskedSource,
    make_task,
    problems,
    run,
    split,
)
from mico_competition.evaluation.evaluate import Options, evaluate
from mico_competition.signals import HIDDEN, Fleet

IN_FOLDS = Attack("a", "", "", lambda problem: problem.columns, leaves_one_out=False)
ONE_OUT = Attack("b", "", "", lambda problem: problem.columns)


def hidden_where_asked(problem):
    return (problem.known_membership[problem.targets[:, None], problem.columns] == HIDDEN).all()


@pytest.mark.parametrize("folds", [2, 5, 20, 99])
def test_folds_ask_for_each_target_once_and_never_among_its_shadows(folds):
    task = make_task(make_source(), "train")
    parts = list(problems(task, IN_FOLDS, folds=folds))
    assert len(parts) == min(folds, 20)
    targets = np.concatenate([task.targets[places] for places, _ in parts])
    assert sorted(targets) == list(range(20))
    for places, problem in parts:
        assert not set(problem.targets) & set(problem.shadows) and not problem.targets_in_shadows
        assert len(problem.targets) + len(problem.shadows) == 20
        np.testing.assert_array_equal(problem.columns, task.columns[places])
        assert (problem.known_membership[problem.targets] == HIDDEN).all()
        np.testing.assert_array_equal(
            problem.source.fleet.known_membership, problem.known_membership
        )
        np.testing.assert_array_equal(problem.source.get("logit"), task.source.get("logit"))


def test_an_attack_that_leaves_one_out_gets_all_at_once():
    task = make_task(make_source(), "train")
    ((places, problem),) = problems(task, ONE_OUT)
    assert problem.targets_in_shadows and list(problem.targets) == list(problem.shadows) == list(
        places
    )


def test_folds_follow_the_seed():
    assert all(np.array_equal(a, b) for a, b in zip(split(20, 5, 1), split(20, 5, 1)))
    assert any(not np.array_equal(a, b) for a, b in zip(split(20, 5, 1), split(20, 5, 2)))


@pytest.mark.parametrize("attack", [IN_FOLDS, ONE_OUT])
def test_dev_models_are_attacked_with_the_train_models(attack):
    task = make_task(make_source(), "dev")
    ((_, problem),) = problems(task, attack)
    assert list(problem.shadows) == list(range(20)) and list(problem.targets) == list(range(20, 26))
    assert (problem.known_membership[20:] == HIDDEN).all()
    assert task.truth.mean() == 0.5 and task.truth.shape == (6, 20)


@pytest.mark.parametrize("phase", ["train", "dev"])
def test_what_a_distinguisher_knows(phase):
    source = make_source(points=300)
    task = make_task(source, phase, known=True)
    for _, problem in problems(task, ONE_OUT):
        assert not problem.targets_in_shadows and hidden_where_asked(problem)
        known_membership = problem.known_membership[problem.targets]
        assert (known_membership == HIDDEN).sum() == problem.columns.size
        rest = known_membership != HIDDEN
        np.testing.assert_array_equal(
            known_membership[rest], source.fleet.known_membership[problem.targets][rest]
        )


def test_all_records_of_what_is_known_are_a_hidden_choice():
    source = make_source(train=4, dev=2, points=5000)
    task = make_task(source, "dev", records="all", known=True)
    assert task.columns.shape == (2, 20 + EXTRA)
    np.testing.assert_array_equal(task.columns[:, :20], source.fleet.challenge[4:])
    assert all(len(set(row)) == len(row) for row in task.columns)
    ((_, problem),) = problems(task, ONE_OUT)
    assert hidden_where_asked(problem) and (problem.known_membership[4:] != HIDDEN).sum() == 2 * (
        4980 - EXTRA
    )


def test_a_tenth_of_many_records_is_hidden():
    source = make_source(train=4, dev=2, points=30_000)
    task = make_task(source, "dev", records="all", known=True)
    assert task.columns.shape == (2, 20 + 3000)


def test_all_records_else_are_all():
    source = make_source()
    task = make_task(source, "train", records="all")
    assert (task.columns == np.arange(150)).all()
    np.testing.assert_array_equal(task.truth, source.fleet.known_membership[:20] == 1)


def test_scores_of_folds_come_back_in_order():
    task = make_task(make_source(), "train")
    mark = Attack("m", "", "", lambda p: p.targets[:, None] + 0.001 * p.columns, False)
    np.testing.assert_allclose(
        run(task, mark, folds=3), task.targets[:, None] + 0.001 * task.columns
    )


def test_a_participants_dev_models_can_be_attacked_but_not_scored():
    task = make_task(make_source(told_of_dev=False), "dev", scored=False)
    ((_, problem),) = problems(task, ONE_OUT)
    assert hidden_where_asked(problem)
    with pytest.raises(ValueError, match="membership is available"):
        task.truth  # noqa: B018


def test_mistakes_are_sentences():
    source = make_source(train=1)
    with pytest.raises(ValueError, match="no final models of digits_inf"):
        make_task(source, "final")
    with pytest.raises(ValueError, match="to be 'challenge' or 'all'"):
        make_task(source, "train", records="some")
    with pytest.raises(ValueError, match="at least 2 folds and 2 train models, got 5 and 1"):
        list(problems(make_task(source, "train"), IN_FOLDS))
    with pytest.raises(ValueError, match="at least 2 folds"):
        split(20, 1)
    with pytest.raises(ValueError, match="no train models of digits_inf"):
        list(problems(make_task(make_source(train=0), "dev"), ONE_OUT))
    fleet = source.fleet
    few = Fleet("digits_inf", fleet.folders, fleet.records, fleet.labels, -fleet.challenge, None)
    with pytest.raises(ValueError, match="signals of all challenge points"):
        make_task(Arrays(few, {}), "train")


def test_a_told_source_is_the_source_but_for_what_it_tells():
    source = make_source()
    masked = MaskedSource(source, np.zeros_like(source.fleet.known_membership))
    np.testing.assert_array_equal(masked.get("loss"), source.get("loss"))
    assert not masked.fleet.known_membership.any()
    assert copy.copy(masked).fleet is masked.fleet
    with pytest.raises(AttributeError):
        masked.nothing  # noqa: B018


@pytest.mark.parametrize("known", [False, True])
def test_one_run_on_more_records_measures_the_challenge_points_too(known):
    """They are the numbers of a run on the challenge points alone, at the formula compared with."""
    source, few = make_source(train=12, dev=6, points=3000, asked=40), Options(resamples=50)
    ours, base = ATTACKS["eb"], ATTACKS["calibrate-confidence-midpoint"]
    rows = {}
    for records in ("challenge", "all"):
        task = make_task(source, "dev", records=records, known=known)
        rows[records] = evaluate(task, [ours], against=base, options=few).rows
    for alone, among in zip(rows["challenge"], rows["all"]):
        assert alone.challenge is None and alone.challenge_gain is None
        assert among.challenge.members == alone.measured.members == 120
        assert among.measured.members > 1000
        for metric, expected in alone.measured.estimates.items():
            got = among.challenge[metric]
            assert (got.value, got.low, got.high) == (expected.value, expected.low, expected.high)
    gain, expected = rows["all"][1].challenge_gain, rows["challenge"][1].gain
    assert {m: (g.value, g.low) for m, g in gain.items()} == {
        m: (g.value, g.low) for m, g in expected.items()
    }
