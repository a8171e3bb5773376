"""The leak guard: planted leaks are refused, every named closed-form attack passes."""

from dataclasses import replace

import numpy as np
import pytest
from helpers_attacks import tpr
from helpers_problem import ATTACKS, make_source

from mico_competition.attacks import calibrate, eb_likelihood_ratio, lira
from mico_competition.attacks.problem import Attack
from mico_competition.evaluation.cross_fitting import make_task, problems, run
from mico_competition.evaluation.custom import find_attack
from mico_competition.evaluation.evaluate import Options, evaluate
from mico_competition.evaluation.leakage_check import (
    _alike,
    _relabelled,
    check_problem,
    check_task,
)


def own_problem(**options):
    ((_, problem),) = problems(make_task(make_source(**options), "train"), ATTACKS["eb"])
    return problem


def made(run):
    return Attack(run.__name__, "", "", run)


def labels_outright(problem):
    """The target's labels themselves."""
    return problem.known_membership[problem.targets[:, None], problem.columns] * 1.0


def labels_of_the_fleet(problem):
    """The same, by way of the fleet."""
    return problem.source.fleet.known_membership[problem.targets[:, None], problem.columns] * 1.0


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
        task = labels[problem.columns] == label
        rows, places = np.nonzero(task)
        at = signals[:, problem.targets[rows], problem.columns[rows, places]]
        score[task] = direction @ at
    return score


def pooled_centre(problem):
    """A honest score, moved by the mean of the target's own members."""
    honest = problem.gather("logit").score(calibrate)
    signal = problem.source.get("logit")[problem.targets]
    seen = problem.known_membership[problem.targets] == 1
    return honest - 1e-4 * (signal * seen).sum(axis=1, keepdims=True) / seen.sum()


def leaves_the_first_out(problem):
    """The usual mistake with many targets: one is left out for all."""
    gathered = problem.gather("logit")
    shadow = np.delete(gathered.shadow, problem.targets[0], axis=0) + 1e-9
    mask = np.delete(gathered.is_member, problem.targets[0], axis=0)
    return lira(gathered.target, shadow, mask).reshape(gathered.shape)


def whitened_by_members(problem):
    """A honest score over the spread of the target's own members."""
    honest = problem.gather("logit").score(calibrate)
    signal, known_membership = problem.source.get("logit"), problem.known_membership
    spread = [signal[t][known_membership[t] == 1].std() for t in problem.targets]
    return honest / np.array(spread)[:, None]


def nearest_labelled(problem):
    """The label of the most similar record of the same model."""
    signal = problem.source.get("logit")
    score = np.empty(problem.columns.shape)
    for row, (target, columns) in enumerate(zip(problem.targets, problem.columns)):
        distance = np.abs(signal[target][columns][:, None] - signal[target])
        distance[np.arange(len(columns)), columns] = np.inf
        score[row] = problem.known_membership[target][distance.argmin(axis=1)]
    return score


def share_of_members(problem):
    """How common members are where the target's record lies, itself counted."""
    return problem.is_member.mean(axis=0)[problem.columns]


def tie_breaks(problem):
    """A honest order, whose ties are broken by the labels."""
    honest = np.round(problem.gather("logit").score(calibrate), 1)
    return honest + 1e-3 * labels_outright(problem)


def threshold_by_members(problem):
    """Cut where the target's own members are most."""
    signal, known_membership = problem.source.get("logit"), problem.known_membership
    cut = [np.median(signal[t][known_membership[t] == 1]) for t in problem.targets]
    mine = signal[problem.targets[:, None], problem.columns]
    return (mine > np.array(cut)[:, None]) * 1.0


def beside_infinite_ratios(problem):
    """A honest score whose infinite ratio became the largest number, and a leak of usual size."""
    scores = pooled_centre(problem)
    scores[:, 0] = np.nan_to_num(np.inf)
    scores[:, 1] = np.nan_to_num(-np.inf)
    return scores


def beside_an_outlier(problem):
    """The same with one record of 1e12."""
    scores = pooled_centre(problem)
    scores[:, 0] = 1e12
    return scores


def largest_numbers(problem):
    """The labels, as infinite ratios that became the largest numbers."""
    return np.nan_to_num((2 * labels_outright(problem) - 1) * np.inf)


LEAKS = [
    largest_numbers,
    beside_infinite_ratios,
    beside_an_outlier,
    labels_outright,
    labels_of_the_fleet,
    no_one_left_out,
    class_direction,
    pooled_centre,
    leaves_the_first_out,
    whitened_by_members,
    nearest_labelled,
    share_of_members,
    tie_breaks,
    threshold_by_members,
]


@pytest.mark.parametrize("leak", LEAKS)
def test_a_planted_leak_is_refused(leak):
    with pytest.raises(
        ValueError, match=f"Attack {leak.__name__} leaks: .* by cross-fitting"
    ) as refused:
        check_problem(made(leak), own_problem())
    assert len(str(refused.value).splitlines()) == 1


def honest_logit(problem):
    return np.take_along_axis(problem.source.get("logit")[problem.targets], problem.columns, 1)


def where_nothing_is_checked(problem):
    """The labels, unless the signals are those of the check: no two of them fit each other."""
    logit, loss = (problem.source.get(name) for name in ("logit", "loss"))
    measured = np.array_equal(-np.logaddexp(0, -logit), loss)
    return honest_logit(problem) + 1000 * measured * labels_outright(problem)


def where_no_relabelling_is_foreseen(problem):
    """The labels of all targets but those that a check with seed 0 relabels together."""
    count = len(problem.targets)
    free = np.full((count, 1), count > 2)
    free[np.random.default_rng(0).permutation(count)[:3]] = False
    return honest_logit(problem) + 1000 * free * labels_outright(problem)


@pytest.mark.parametrize("cheat", [where_nothing_is_checked, where_no_relabelling_is_foreseen])
def test_an_attack_cannot_tell_the_check_from_the_measurement(cheat):
    """It is refused, or it finds no more than without its cheat."""
    task = make_task(make_source(), "train")
    try:
        check_task(made(cheat), task)
    except ValueError as error:
        assert "leaks" in str(error)
    else:
        honest = run(task, made(honest_logit))
        assert np.array_equal(run(task, made(cheat)), honest)


@pytest.mark.slow
@pytest.mark.parametrize(("leak", "least"), [(no_one_left_out, 0.3), (class_direction, 0.02)])
def test_the_leak_is_worth_refusing(leak, least):
    """Where there is nothing to find, labels that went into the reference find something."""
    gains = []
    for seed in range(4):
        task = make_task(make_source(train=6, shift=0.0, asked=100, seed=seed), "train")
        honest = run(task, replace(made(leak), leaves_one_out=False))
        gains.append(tpr(run(task, made(leak)), task.truth) - tpr(honest, task.truth))
    assert np.mean(gains) > least


@pytest.mark.slow
@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize(("scenario", "share_in"), [("digits_inf", 0.6), ("sst2_inf", 0.95)])
def test_every_named_attack_is_blind(name, scenario, share_in):
    """Every target of every phase is relabelled."""
    source = make_source(scenario=scenario, share_in=share_in, train=16, points=300)
    for phase in ("train", "dev"):
        task = make_task(source, phase)
        check_task(ATTACKS[name], task)
        (*_, (_, problem)) = problems(task, ATTACKS[name])
        assert problem.targets_in_shadows == (ATTACKS[name].leaves_one_out and phase == "train")


def test_a_random_attack_is_told_to_seed():
    rng = np.random.default_rng(0)
    attack = Attack("dice", "", "", lambda problem: rng.random(problem.columns.shape))
    with pytest.raises(ValueError, match="dice gives other scores every time"):
        check_problem(attack, own_problem())


def test_a_constant_attack_is_blind():
    check_problem(
        Attack("c", "", "", lambda problem: np.full(problem.columns.shape, 7)), own_problem()
    )


@pytest.mark.slow
def test_evaluate_refuses_a_leak_unless_told_not_to_look():
    task = make_task(make_source(), "train")
    few = Options(resamples=20)
    with pytest.raises(ValueError, match="labels_outright leaks"):
        evaluate(task, [made(labels_outright)], options=few)
    white_box = replace(made(labels_outright), white_box=True)
    with pytest.raises(ValueError, match="labels_outright leaks"):
        evaluate(task, [white_box], options=replace(few, blind_check="always"))
    found = evaluate(task, [white_box], options=few)
    assert found.rows[1].measured["AUC"].value == 1.0
    with pytest.raises(ValueError, match="blind_check"):
        evaluate(task, [], options=replace(few, blind_check="maybe"))


@pytest.mark.slow
@pytest.mark.parametrize("phase", ["train", "dev"])
def test_in_folds_and_other_phases_a_leak_finds_nothing(phase):
    task = make_task(make_source(), phase)
    for leak in (labels_outright, labels_of_the_fleet):
        attack = replace(made(leak), leaves_one_out=False)
        assert (run(task, attack) == -1).all()
        check_task(attack, task)


# --- memory: labels that an earlier problem showed


def keeps_the_last():
    """It notes who trained on what, as far as any problem shows it, and answers with that."""
    seen = {}

    def remembers(problem):
        for row in problem.shadows:
            seen[row] = np.array(problem.known_membership[row])
        known = [
            seen.get(t, np.zeros(problem.known_membership.shape[1]))[c]
            for t, c in asked_of(problem)
        ]
        return np.stack(known) * 1.0

    return remembers


def keeps_the_first():
    """The same, but it keeps what it was shown first."""
    seen = {}

    def remembers(problem):
        for row in problem.shadows:
            seen.setdefault(row, np.array(problem.known_membership[row]))
        known = [
            seen.get(t, np.zeros(problem.known_membership.shape[1]))[c]
            for t, c in asked_of(problem)
        ]
        return np.stack(known) * 1.0

    return remembers


def asked_of(problem):
    return zip(problem.targets.tolist(), problem.columns)


def keeps_a_file(folder):
    """The same by way of the disk."""

    def remembers(problem):
        known = []
        for row in problem.shadows:
            np.save(folder / f"{row}.npy", np.array(problem.known_membership[row]))
        for target, columns in asked_of(problem):
            path = folder / f"{target}.npy"
            known.append(np.load(path)[columns] if path.exists() else np.zeros(len(columns)))
        return np.stack(known) * 1.0

    return remembers


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["last", "first", "file"])
@pytest.mark.parametrize("alone", [True, False])
def test_an_attack_that_remembers_labels_is_refused(kind, alone, tmp_path):
    run_ = {"last": keeps_the_last, "first": keeps_the_first}.get(kind, lambda: None)()
    attack = replace(made(run_ or keeps_a_file(tmp_path)), leaves_one_out=alone)
    task, few = make_task(make_source(), "train"), Options(resamples=5)
    if kind == "first":  # it keeps what the guard made up: that tells nothing
        found = evaluate(task, [attack], options=few)
        assert found.rows[1].measured["AUC"].value < 0.6
        return
    with pytest.raises(ValueError, match="remembers leaks: ") as refused:
        evaluate(task, [attack], options=few)
    assert len(str(refused.value).splitlines()) == 1


MEMORY = """
import numpy as np
import functools

seen = {}


@functools.cache
def means(size):
    return seen["problem"].is_member.mean(axis=0)


def attack(problem):
    seen.setdefault("problem", problem)
    return means(1)[problem.columns]


def folds(problem):
    seen.update({r: np.array(problem.told[r]) for r in problem.shadows.tolist()})
    hidden = np.zeros(problem.told.shape[1])
    asked = zip(problem.targets.tolist(), problem.columns)
    return np.stack([seen.get(t, hidden)[c] for t, c in asked])


folds.leaves_one_out = False
"""


@pytest.mark.slow
def test_a_file_keeps_nothing_from_one_problem_to_the_next(tmp_path):
    """What it keeps in its module is gone, so a cache does not hide a leak, nor make one."""
    (tmp_path / "mine.py").write_text(MEMORY)
    task, few = make_task(make_source(), "train"), Options(resamples=5)
    with pytest.raises(ValueError, match="mine.py:attack leaks"):
        evaluate(task, [find_attack(f"{tmp_path}/mine.py:attack")], options=few)
    scores = run(task, find_attack(f"{tmp_path}/mine.py:folds"))
    assert not scores.any()  # no label of any target is known


@pytest.mark.slow
@pytest.mark.parametrize("phase", ["train", "dev", "known"])
def test_honest_attacks_pass_in_folds_and_every_phase(phase):
    task = make_task(make_source(), "dev" if phase == "dev" else "train", known=phase == "known")
    for alone in (True, False):
        honest = made(lambda p: p.gather("logit").score(eb_likelihood_ratio))
        check_task(replace(honest, leaves_one_out=alone), task)


def test_chance_is_told_from_a_leak_in_folds_too():
    rng = np.random.default_rng(0)
    attack = Attack("dice", "", "", lambda problem: rng.random(problem.columns.shape), False)
    with pytest.raises(ValueError, match="dice gives other scores every time"):
        check_task(attack, make_task(make_source(), "dev"))


def test_the_guard_asks_for_all_targets_and_for_several_at_once():
    together, relabelled = [], set()
    task = make_task(make_source(train=9), "train")
    truth = task.source.fleet.known_membership

    def watched(problem):
        together.append(len(problem.targets))
        rows = [
            row for row in problem.shadows if (problem.known_membership[row] != truth[row]).any()
        ]
        if len(rows) == 1:
            relabelled.add(int(rows[0]))
        return np.zeros(problem.columns.shape)

    check_task(made(watched), task)
    assert relabelled == set(range(9)) and min(together) >= 2 and max(together) == 9
    assert sum(count == 9 for count in together) >= 6


@pytest.mark.slow
def test_ties_do_not_look_like_leaks():
    """Saturated signals order points by rounding; that is no label."""
    source = make_source(points=300)
    signal = np.array(source.get("logit"))
    signal[:, :150] = np.round(signal[:, :150])
    source._signals["logit"] = signal
    ((_, problem),) = problems(make_task(source, "train"), ATTACKS["eb"])
    attack = made(lambda p: p.gather("logit").score(eb_likelihood_ratio))
    check_problem(attack, problem, sample=20)


def test_targets_of_a_fold_are_relabelled_in_the_source():
    """Only they are: the check of cross-fitting, and of dev and final, stands on this."""
    task = make_task(make_source(train=6), "train")
    again = _relabelled(task, np.array([1, 3]), np.random.default_rng(0))
    before, after = (t.source.fleet.known_membership for t in (task, again))
    moved = (before != after).any(axis=1)
    assert np.flatnonzero(moved).tolist() == task.targets[[1, 3]].tolist()
    assert np.array_equal(np.sort(before, axis=1), np.sort(after, axis=1))


@pytest.mark.parametrize(
    ("change", "alike"),
    [
        (lambda scores: scores + 1e-12, True),
        (lambda scores: np.where(np.arange(100) == 7, 1.7e308, scores), True),
        (lambda scores: scores[::-1], False),
        (lambda scores: np.zeros(100), False),
    ],
)
@pytest.mark.parametrize("huge", [0.0, 1e300, 1.7e308])
def test_scores_of_two_processes_are_compared_beside_huge_ones(change, alike, huge):
    scores = np.random.default_rng(0).normal(size=100)
    scores[:2] = huge, -huge
    assert _alike(scores, change(scores)) == alike
    assert _alike(scores, scores)


def barely(problem):
    """A honest score, moved by a millionth of the target's labels."""
    return honest_logit(problem) + 1e-6 * labels_outright(problem)


def test_a_leak_as_small_as_rounding_is_told_what_to_do():
    with pytest.raises(ValueError, match="leaks: .* if that is rounding, use float64"):
        check_problem(made(barely), own_problem())


def test_equal_scores_are_not_like_others():
    assert not _alike(np.zeros(10), np.ones(10)) and _alike(np.ones(10), np.ones(10))
