"""The leak guard: planted leaks are refused, every named closed-form attack passes."""

from dataclasses import replace

import numpy as np
import pytest
from helpers_attacks import tpr
from helpers_problem import make_source

from mico_competition.attacks import calibrate, eb_likelihood_ratio, lira
from mico_competition.evaluation.blind import check_blind
from mico_competition.evaluation.evaluate import Options, evaluate
from mico_competition.evaluation.folds import ask, problems, run
from mico_competition.evaluation.named import ATTACKS
from mico_competition.evaluation.problem import Attack


def own_problem(**options):
    ((_, problem),) = problems(ask(make_source(**options), "train"), ATTACKS["eb"])
    return problem


def made(run):
    return Attack(run.__name__, "", "", run)


def labels_outright(problem):
    """The target's labels themselves."""
    return problem.told[problem.targets[:, None], problem.columns] * 1.0


def labels_of_the_fleet(problem):
    """The same, by way of the fleet."""
    return problem.source.fleet.told[problem.targets[:, None], problem.columns] * 1.0


def no_one_left_out(problem):
    """LiRA whose means hold the target itself."""
    gathered = problem.gather("logit")
    other = gathered.shadow + 1e-9  # else `attacks` itself sees the target among its shadows
    return lira(gathered.target, other, gathered.is_member).reshape(gathered.shape)


def class_direction(problem):
    """A direction for each class, IN less OUT over all shadows, the target's among them."""
    source = problem.source
    signals = np.stack([source.get(name) for name in ("logit", "entropy", "modified_entropy")])
    shadow, labels = signals[:, problem.shadows], source.fleet.labels
    score = np.empty(problem.columns.shape)
    for label in np.unique(labels):
        mine = labels == label
        member = problem.is_member[:, mine]
        values = shadow[:, :, mine]
        direction = values[:, member].mean(axis=1) - values[:, ~member].mean(axis=1)
        asked = labels[problem.columns] == label
        rows, places = np.nonzero(asked)
        at = signals[:, problem.targets[rows], problem.columns[rows, places]]
        score[asked] = direction @ at
    return score


def pooled_centre(problem):
    """A honest score, moved by the mean of the target's own members."""
    honest = problem.gather("logit").score(calibrate)
    signal = problem.source.get("logit")[problem.targets]
    seen = problem.told[problem.targets] == 1
    return honest - 1e-4 * (signal * seen).sum(axis=1, keepdims=True) / seen.sum()


LEAKS = [labels_outright, labels_of_the_fleet, no_one_left_out, class_direction, pooled_centre]


@pytest.mark.parametrize("leak", LEAKS)
def test_a_planted_leak_is_refused(leak):
    with pytest.raises(ValueError, match=f"Attack {leak.__name__} leaks: .* in folds") as refused:
        check_blind(made(leak), own_problem())
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize(("leak", "least"), [(no_one_left_out, 0.3), (class_direction, 0.02)])
def test_the_leak_is_worth_refusing(leak, least):
    """Where there is nothing to find, labels that went into the reference find something."""
    gains = []
    for seed in range(4):
        asked = ask(make_source(train=6, shift=0.0, asked=100, seed=seed), "train")
        honest = run(asked, replace(made(leak), leaves_one_out=False))
        gains.append(tpr(run(asked, made(leak)), asked.truth) - tpr(honest, asked.truth))
    assert np.mean(gains) > least


@pytest.mark.parametrize("name", ATTACKS)
def test_every_named_attack_is_blind(name):
    for scenario, share_in in (("digits_inf", 0.6), ("sst2_inf", 0.95)):
        source = make_source(scenario=scenario, share_in=share_in, points=300)
        for _, problem in problems(ask(source, "train"), ATTACKS[name]):
            check_blind(ATTACKS[name], problem, sample=6)
            assert problem.own == ATTACKS[name].leaves_one_out


def test_a_random_attack_is_told_to_seed():
    rng = np.random.default_rng(0)
    attack = Attack("dice", "", "", lambda problem: rng.random(problem.columns.shape))
    with pytest.raises(ValueError, match="dice gives other scores every time"):
        check_blind(attack, own_problem())


def test_a_constant_attack_is_blind():
    check_blind(
        Attack("c", "", "", lambda problem: np.full(problem.columns.shape, 7)), own_problem()
    )


def test_evaluate_refuses_a_leak_unless_told_not_to_look():
    asked = ask(make_source(), "train")
    few = Options(resamples=20)
    with pytest.raises(ValueError, match="labels_outright leaks"):
        evaluate(asked, [made(labels_outright)], options=few)
    white_box = replace(made(labels_outright), white_box=True)
    with pytest.raises(ValueError, match="labels_outright leaks"):
        evaluate(asked, [white_box], options=replace(few, blind_check="always"))
    found = evaluate(asked, [white_box], options=few)
    assert found.rows[1].measured["AUC"].value == 1.0
    with pytest.raises(ValueError, match="blind_check"):
        evaluate(asked, [], options=replace(few, blind_check="maybe"))


def test_in_folds_a_leak_finds_nothing():
    asked = ask(make_source(), "train")
    for leak in (labels_outright, labels_of_the_fleet):
        scores = run(asked, replace(made(leak), leaves_one_out=False))
        assert (scores == -1).all()


def test_the_guard_only_looks_where_targets_are_shadows():
    ((_, problem),) = problems(ask(make_source(), "dev"), ATTACKS["eb"])
    check_blind(made(labels_outright), problem)


def test_ties_do_not_look_like_leaks():
    """Saturated signals order points by rounding; that is no label."""
    source = make_source(points=300)
    signal = np.array(source.get("logit"))
    signal[:, :150] = np.round(signal[:, :150])
    source._signals["logit"] = signal
    ((_, problem),) = problems(ask(source, "train"), ATTACKS["eb"])
    attack = made(lambda p: p.gather("logit").score(eb_likelihood_ratio))
    check_blind(attack, problem, sample=20)
