"""Who is attacked with which shadows: no target is its own, nothing is told that is asked."""

import copy

import numpy as np
import pytest
from helpers_problem import Arrays, make_source

from mico_competition.attacks.problem import Attack
from mico_competition.evaluation.cross_fitting import EXTRA, Told, ask, problems, run, split
from mico_competition.signals import HIDDEN, Fleet

IN_FOLDS = Attack("a", "", "", lambda problem: problem.columns, leaves_one_out=False)
ONE_OUT = Attack("b", "", "", lambda problem: problem.columns)


def hidden_where_asked(problem):
    return (problem.told[problem.targets[:, None], problem.columns] == HIDDEN).all()


@pytest.mark.parametrize("folds", [2, 5, 20, 99])
def test_folds_ask_for_each_target_once_and_never_among_its_shadows(folds):
    asked = ask(make_source(), "train")
    parts = list(problems(asked, IN_FOLDS, folds=folds))
    assert len(parts) == min(folds, 20)
    targets = np.concatenate([asked.targets[places] for places, _ in parts])
    assert sorted(targets) == list(range(20))
    for places, problem in parts:
        assert not set(problem.targets) & set(problem.shadows) and not problem.own
        assert len(problem.targets) + len(problem.shadows) == 20
        np.testing.assert_array_equal(problem.columns, asked.columns[places])
        assert (problem.told[problem.targets] == HIDDEN).all()
        np.testing.assert_array_equal(problem.source.fleet.told, problem.told)
        np.testing.assert_array_equal(problem.source.get("logit"), asked.source.get("logit"))


def test_an_attack_that_leaves_one_out_gets_all_at_once():
    asked = ask(make_source(), "train")
    ((places, problem),) = problems(asked, ONE_OUT)
    assert problem.own and list(problem.targets) == list(problem.shadows) == list(places)


def test_folds_follow_the_seed():
    assert all(np.array_equal(a, b) for a, b in zip(split(20, 5, 1), split(20, 5, 1)))
    assert any(not np.array_equal(a, b) for a, b in zip(split(20, 5, 1), split(20, 5, 2)))


@pytest.mark.parametrize("attack", [IN_FOLDS, ONE_OUT])
def test_dev_models_are_attacked_with_the_train_models(attack):
    asked = ask(make_source(), "dev")
    ((_, problem),) = problems(asked, attack)
    assert list(problem.shadows) == list(range(20)) and list(problem.targets) == list(range(20, 26))
    assert (problem.told[20:] == HIDDEN).all()
    assert asked.truth.mean() == 0.5 and asked.truth.shape == (6, 20)


@pytest.mark.parametrize("phase", ["train", "dev"])
def test_what_a_distinguisher_knows(phase):
    source = make_source(points=300)
    asked = ask(source, phase, known=True)
    for _, problem in problems(asked, ONE_OUT):
        assert not problem.own and hidden_where_asked(problem)
        told = problem.told[problem.targets]
        assert (told == HIDDEN).sum() == problem.columns.size
        rest = told != HIDDEN
        np.testing.assert_array_equal(told[rest], source.fleet.told[problem.targets][rest])


def test_all_records_of_what_is_known_are_a_hidden_choice():
    source = make_source(train=4, dev=2, points=5000)
    asked = ask(source, "dev", records="all", known=True)
    assert asked.columns.shape == (2, 20 + EXTRA)
    np.testing.assert_array_equal(asked.columns[:, :20], source.fleet.challenge[4:])
    assert all(len(set(row)) == len(row) for row in asked.columns)
    ((_, problem),) = problems(asked, ONE_OUT)
    assert hidden_where_asked(problem) and (problem.told[4:] != HIDDEN).sum() == 2 * (4980 - EXTRA)


def test_all_records_else_are_all():
    source = make_source()
    asked = ask(source, "train", records="all")
    assert (asked.columns == np.arange(150)).all()
    np.testing.assert_array_equal(asked.truth, source.fleet.told[:20] == 1)


def test_scores_of_folds_come_back_in_order():
    asked = ask(make_source(), "train")
    mark = Attack("m", "", "", lambda p: p.targets[:, None] + 0.001 * p.columns, False)
    np.testing.assert_allclose(
        run(asked, mark, folds=3), asked.targets[:, None] + 0.001 * asked.columns
    )


def test_a_participants_dev_models_can_be_attacked_but_not_scored():
    asked = ask(make_source(told_of_dev=False), "dev", scored=False)
    ((_, problem),) = problems(asked, ONE_OUT)
    assert hidden_where_asked(problem)
    with pytest.raises(ValueError, match="membership is known, to be scored"):
        asked.truth  # noqa: B018


def test_mistakes_are_sentences():
    source = make_source(train=1)
    with pytest.raises(ValueError, match="no final models of digits_inf"):
        ask(source, "final")
    with pytest.raises(ValueError, match="to be 'challenge' or 'all'"):
        ask(source, "train", records="some")
    with pytest.raises(ValueError, match="at least 2 folds and 2 train models, got 5 and 1"):
        list(problems(ask(source, "train"), IN_FOLDS))
    with pytest.raises(ValueError, match="at least 2 folds"):
        split(20, 1)
    with pytest.raises(ValueError, match="no train models of digits_inf"):
        list(problems(ask(make_source(train=0), "dev"), ONE_OUT))
    fleet = source.fleet
    few = Fleet("digits_inf", fleet.folders, fleet.records, fleet.labels, -fleet.challenge, None)
    with pytest.raises(ValueError, match="signals of all challenge points"):
        ask(Arrays(few, {}), "train")


def test_a_told_source_is_the_source_but_for_what_it_tells():
    source = make_source()
    told = Told(source, np.zeros_like(source.fleet.told))
    np.testing.assert_array_equal(told.get("loss"), source.get("loss"))
    assert not told.fleet.told.any()
    assert copy.copy(told).fleet is told.fleet
    with pytest.raises(AttributeError):
        told.nothing  # noqa: B018
