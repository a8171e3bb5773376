"""Intervals of scores: each resample against plain scoring, and what few models allow."""

import hashlib
import os
import re
import subprocess

import numpy as np
import pytest
from helpers_intervals import competition, scenario, some_models
from helpers_scoring import image_python
from helpers_work import calls
from mico_competition.scoring import bootstrap, bootstrap_average, intervals_of, resampling, score
from mico_competition.scoring import intervals as module
from mico_competition.scoring.few_models import t_below, t_quantile
from mico_competition.scoring.few_records import _accepted, exact_interval
from mico_competition.scoring.intervals import describe_intervals, interval_method
from mico_competition.scoring.metrics import SCALARS
from mico_competition.scoring.resampling import draw_weights, resample_scores

RATES = (0.03, 0.25, 0.5, 0.77, 1.0)
TIES = (
    lambda rng, truth: rng.random(truth.size),
    lambda rng, truth: np.round(rng.random(truth.size), 1),
    lambda rng, truth: np.round(0.3 * truth + rng.random(truth.size), 2),
    lambda rng, truth: rng.integers(-3, 4, truth.size),
    lambda rng, truth: rng.integers(0, 2, truth.size),
    lambda rng, truth: np.arange(truth.size) // 2,
)


@pytest.mark.parametrize("kind", range(len(TIES)))
def test_a_resample_scores_as_its_models_written_out(kind):
    rng = np.random.default_rng(kind)
    compared = 0
    for case in range(25):
        sizes = rng.integers(1, 30, rng.integers(2, 7))
        solutions = [rng.integers(0, 2, size) for size in sizes]
        if kind == 5:  # a member and a non-member at each value: the listed points are few
            solutions = [np.arange(size) % 2 for size in sizes]
        predictions = [TIES[kind](rng, truth) for truth in solutions]
        if len(set(np.concatenate(solutions))) < 2:
            continue
        draws, curves = resample_scores(
            solutions, predictions, resamples=20, seed=case, rates=RATES
        )
        row = 0
        for weights in draw_weights(len(sizes), 20, case):
            drawn = np.repeat(np.arange(len(sizes)), weights.astype(int))
            truth = np.concatenate([solutions[i] for i in drawn])
            if len(set(truth)) < 2:
                continue
            expected = score(truth, np.concatenate([predictions[i] for i in drawn]))
            for key in SCALARS:
                if key.startswith("TPR"):
                    assert draws[key][row] == expected[key], (case, key)
                else:
                    assert draws[key][row] == pytest.approx(expected[key], abs=1e-12), (case, key)
            for j, rate in enumerate(RATES):
                assert curves[row, j] == expected["tpr"][expected["fpr"] < rate].max()
            row += 1
        assert row == len(curves) == len(draws["AUC"])
        compared += row
    assert compared > 300


def test_uneven_models_take_the_longer_way_to_the_same_advantage():
    rng = np.random.default_rng(0)
    solutions = [np.repeat([0, 1], (5, 15)), np.repeat([0, 1], (12, 8))]
    predictions = [rng.random(20), rng.random(20)]
    draws, _ = resample_scores(solutions, predictions, resamples=50)
    for weights, lead in zip(draw_weights(2, 50, 0).astype(int), draws["MIA"], strict=True):
        drawn = np.repeat([0, 1], weights)
        truth = np.concatenate([solutions[i] for i in drawn])
        expected = score(truth, np.concatenate([predictions[i] for i in drawn]))["MIA"]
        assert lead == pytest.approx(expected, abs=1e-12)


def test_weights_are_draws_with_replacement():
    weights = draw_weights(50, 4000, 3)
    assert (weights.sum(axis=1) == 50).all() and (weights == np.round(weights)).all()
    assert weights.mean(axis=0) == pytest.approx(np.ones(50), abs=0.08)
    assert weights.var() == pytest.approx(1 - 1 / 50, abs=0.02)  # that of a multinomial
    assert np.array_equal(weights, draw_weights(50, 4000, 3))
    assert not np.array_equal(weights, draw_weights(50, 4000, 4))


@pytest.mark.parametrize("count", [0, 0.35, 1, 7.5, 199, 200])
def test_exact_intervals_are_scipys(count):
    from scipy.stats import beta, binom

    low, high = exact_interval(count, 200, 0.95)
    assert low == pytest.approx(beta.ppf(0.025, count, 201 - count) if count else 0, abs=1e-11)
    expected = beta.ppf(0.975, count + 1, 200 - count) if count < 200 else 1
    assert high == pytest.approx(expected, abs=1e-11)
    for n, rate in [(100, 0.1), (300, 0.01), (2500, 0.001), (5000, 0.001), (7, 0.99), (9, 1.0)]:
        assert _accepted(n, rate, 0.95) == tuple(binom.ppf([0.025, 0.975], n, rate))


def test_a_perfect_score_is_not_certain():
    """No member below any non-member: the rule of three of the records, and no more."""
    for models in (2, 8, 30):
        members = 100 * models
        found = bootstrap([[0, 1] * 100] * models, [np.tile([0.0, 1.0], 100)] * models)
        for key in ("AUC", "TPR_FPR_1000"):
            low, high = found[key]
            assert high == 1 and low == pytest.approx(0.025 ** (1 / members), abs=1e-9)
        assert found["MIA"][0] < 1 - 3 / members and found["accuracy"][1] == 1
        worst = bootstrap([[1, 0] * 100] * models, [np.tile([0.0, 1.0], 100)] * models)
        assert worst["AUC"][0] == 0 and worst["AUC"][1] > 3 / members


def test_few_models_say_which_interval_they_have():
    found = [interval_method(n) for n in (1, 2, 5, 6, 19, 20, 50)]
    assert found == ["none", "t", "t", "both", "both", "bootstrap", "bootstrap"]
    assert describe_intervals({"a": 1}).startswith(
        "95% intervals are not known: they need at least"
    )
    words = describe_intervals({"a": 3, "b": 50, "c": 4}, 0.9)
    assert words.splitlines()[0].startswith("90% intervals of a, c are Student's t")
    assert words.splitlines()[1] == "90% intervals of b are from a bootstrap over models."


def test_models_that_agree_by_chance_are_no_certainty():
    """Two models with one and the same score: their records still tell how little is known."""
    rng = np.random.default_rng(0)
    solutions, predictions = some_models(rng, 1, 100)
    found = bootstrap(solutions * 2, predictions * 2)
    low, high = found["AUC"]
    value = score(np.concatenate(solutions * 2), np.concatenate(predictions * 2))["AUC"]
    assert low < value - 0.1 and high > value + 0.1
    constant = bootstrap([[0, 1] * 20] * 3, [[0.5] * 40] * 3)
    assert all(np.isnan(low) or 0 <= low <= high <= 1 for low, high in constant.values())


def test_rates_that_few_non_members_tell_have_no_interval():
    rng = np.random.default_rng(0)
    found = bootstrap(*some_models(rng, 3, 200))  # 300 non-members
    known = {key for key, (low, _) in found.items() if not np.isnan(low)}
    assert set(SCALARS) - known == {"TPR_FPR_10"}
    found = bootstrap(*some_models(rng, 2, 40))  # 40
    assert {k for k, (low, _) in found.items() if np.isnan(low)} >= {"TPR_FPR_100", "TPR_FPR_500"}


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 5, 9, 30])
def test_students_t(freedom):
    from scipy.stats import t

    for x in (0.0, 0.3, 1.0, 2.5, 12.0, 300.0):
        assert t_below(x, freedom) == pytest.approx(t.cdf(x, freedom), abs=1e-12)
        assert t_below(-x, freedom) == pytest.approx(t.cdf(-x, freedom), abs=1e-12)
    for probability in (0.5, 0.9, 0.975, 0.9995):
        expected = t.ppf(probability, freedom)
        assert t_quantile(probability, freedom) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_a_mean_of_scenarios_with_few_and_with_many_models():
    solutions, predictions = competition(12, 60)
    few = [f"cifar10/cifar10_inf/dev/model_{i}" for i in range(2, 12)]
    for folder in few:
        del solutions[folder], predictions[folder]
    found = intervals_of(solutions, predictions, resamples=200)
    low, high = found["average_TPR_FPR_1000"]
    each = [
        score(*map(np.concatenate, (scenario(solutions, n), scenario(predictions, n))))
        for n in ("cifar10_hi", "cifar10_inf", "cifar10_lo")
    ]
    mean = np.mean([one["TPR_FPR_1000"] for one in each])
    assert 0 <= low < mean < high <= 1 and high - low > 0.2


def test_intervals_lie_around_the_score_and_shrink_with_models():
    rng = np.random.default_rng(0)
    solutions, predictions = some_models(rng, 200, spread=1)
    widths = []
    for count in (8, 50, 200):
        part = solutions[:count], predictions[:count]
        found, result = bootstrap(*part), score(*map(np.concatenate, part))
        assert list(found) == list(SCALARS)
        for key in SCALARS:
            low, high = found[key]
            assert type(low) is float and 0 <= low <= result[key] <= high <= 1
        widths.append(found["AUC"][1] - found["AUC"][0])
    assert widths[0] > 1.8 * widths[1] > 2.5 * widths[2]
    wide, narrow = (bootstrap(*part, level=level)["AUC"] for level in (0.99, 0.5))
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


def test_all_intervals_at_once_are_those_of_each_scenario():
    solutions, predictions = competition(6, 20)
    found = intervals_of(solutions, predictions, resamples=300)
    names = ["cifar10_hi", "cifar10_inf", "cifar10_lo"]
    assert list(found) == [*names, "average_TPR_FPR_1000"]
    parts = {name: (scenario(solutions, name), scenario(predictions, name)) for name in names}
    for i, name in enumerate(names):
        assert found[name] == bootstrap(*parts[name], resamples=300, seed=i)
    assert found["average_TPR_FPR_1000"] == bootstrap_average(parts, resamples=300)
    with_curve = intervals_of(solutions, predictions, resamples=300, rates=(0.1, 0.5))
    for name in names:
        extra = {key: with_curve[name].pop(key) for key in set(with_curve[name]) - set(SCALARS)}
        assert with_curve[name] == found[name]
        assert list(extra.pop("curve")) == [0.1, 0.5]
        assert extra == {"models": 6, "members": 60, "nonmembers": 60}


def test_one_model_has_no_interval():
    found = bootstrap([[0, 1, 0, 1]], [[0.1, 0.2, 0.3, 0.4]])
    assert all(np.isnan(end) for interval in found.values() for end in interval)
    solutions, predictions = competition(2, 20)
    del solutions["cifar10/cifar10_lo/dev/model_1"]
    found = intervals_of(solutions, predictions)
    assert np.isnan(found["average_TPR_FPR_1000"]).all() and np.isnan(found["cifar10_lo"]["AUC"][0])
    assert not np.isnan(found["cifar10_hi"]["AUC"][0])


def test_models_of_one_kind_only_are_no_obstacle():
    found = bootstrap([[0, 0], [1, 1], [0, 1]], [[0.1, 0.3], [0.2, 0.6], [0.5, 0.4]])
    assert 0 <= found["AUC"][0] <= found["AUC"][1] <= 1


@pytest.mark.parametrize(
    ("solutions", "predictions", "options", "words"),
    [
        ([], [], {}, "one array a model"),
        ([[0, 1]], [[0.1, 0.2]] * 2, {}, "got 1 and 2"),
        ([[0, 1], [0, 1]], [[0.1, 0.2], [0.3]], {}, "model number 1, got shapes (1,) and (2,)"),
        ([[0, 1]] * 2, [[0.1, float("nan")]] * 2, {}, "2 NaN or infinite"),
        ([[0, 2]] * 2, [[0.1, 0.2]] * 2, {}, "0 (non-member) or 1"),
        ([[1, 1]] * 2, [[0.1, 0.2]] * 2, {}, "both members"),
        ([[0, 1]] * 2, [[0.1, 0.2]] * 2, {"level": 95}, "level=95 in (0, 1)"),
        ([[0, 1]] * 2, [[0.1, 0.2]] * 2, {"level": 0}, "level=0 in (0, 1)"),
        ([[0, 1]] * 2, [[0.1, 0.2]] * 2, {"resamples": 0}, "resamples=0"),
    ],
)
def test_what_cannot_be_resampled_is_refused_in_one_sentence(
    solutions, predictions, options, words
):
    with pytest.raises(ValueError, match=re.escape(words)) as caught:
        bootstrap(solutions, predictions, **options)
    assert "\n" not in str(caught.value) and str(caught.value).endswith(".")


def test_no_scenarios_are_refused():
    for call in (lambda: bootstrap_average({}), lambda: intervals_of({}, {})):
        with pytest.raises(ValueError, match="at least one scenario"):
            call()


@pytest.mark.parametrize("count", [10, 3])
def test_python_3_7_gives_the_same_intervals(tmp_path, count):
    solutions, predictions = competition(count, 60)
    found = intervals_of(solutions, predictions, rates=(0.1, 0.35))
    np.savez(
        tmp_path / "values.npz", truth=list(solutions.values()), scores=list(predictions.values())
    )
    code = (
        "import sys, types, hashlib, numpy as np\n"
        "package = types.ModuleType('scoring'); package.__path__ = [sys.argv[1]]\n"
        "sys.modules['scoring'] = package\n"
        "from scoring.intervals import intervals_of\n"
        "values, names = np.load(sys.argv[2]), sys.argv[3].split()\n"
        "found = intervals_of(dict(zip(names, values['truth'])),"
        " dict(zip(names, values['scores'])), rates=(0.1, 0.35))\n"
        "print(hashlib.sha256(repr(found).encode()).hexdigest())\n"
    )
    folder = os.path.dirname(module.__file__)
    arguments = [
        image_python("3.7"),
        "-B",
        "-c",
        code,
        folder,
        tmp_path / "values.npz",
        " ".join(solutions),
    ]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=600)
    assert done.stdout.strip() == hashlib.sha256(repr(found).encode()).hexdigest(), done.stderr


def test_few_calls_for_each_of_ten_thousand_resamples():
    solutions, predictions = competition()
    part = scenario(solutions, "cifar10_hi"), scenario(predictions, "cifar10_hi")
    assert calls(lambda: bootstrap(*part, resamples=10_000)) < 10 * 10_000


def test_hostile_ties_do_not_hold_it_up():
    """One value for all points, few values, and a tie of both kinds at each value."""
    rng = np.random.default_rng(0)
    truth = np.tile([0, 1], 100)
    ordinary = calls(lambda: bootstrap([truth] * 50, [rng.permutation(200) / 200] * 50))
    for values in (np.zeros(200), rng.integers(0, 3, 200), np.arange(200) // 2):
        work = calls(lambda: bootstrap([truth] * 50, [values] * 50))  # noqa: B023
        assert work < 5 * ordinary


def test_the_average_of_one_scenario_is_the_scenarios_own():
    """One number has one interval, by whichever method: the page shows both side by side."""
    rng = np.random.default_rng(0)
    for models in (3, 8, 25):
        truth = [rng.permutation([0, 1] * 40) for _ in range(models)]
        values = [part + rng.normal(size=80) for part in truth]
        folders = [f"a/one/dev/model_{i}" for i in range(models)]
        found = intervals_of(dict(zip(folders, truth)), dict(zip(folders, values)), resamples=200)
        assert found["average_TPR_FPR_1000"] == found["one"]["TPR_FPR_1000"]
        assert not np.isnan(found["one"]["TPR_FPR_1000"]).any()


@pytest.mark.parametrize("values", [2, 7, 1000, None])  # distinct predictions: None for no ties
@pytest.mark.parametrize("even", [True, False])
def test_many_models_are_scored_from_points_with_equal_results(values, even, monkeypatch):
    rng = np.random.default_rng(values)
    sizes = [20] * 30 if even else [3, 40, 1, 20, 7] * 6
    truth = [
        rng.permutation(np.arange(size) % 2) if even else (rng.random(size) < 0.4).astype(int)
        for size in sizes
    ]
    guesses = [rng.normal(size=len(part)) + part for part in truth]
    if values is not None:
        guesses = [np.round(part * values / 8) for part in guesses]
    options = {"resamples": 60, "seed": 3, "rates": (0.002, 0.05, 0.35, 1.0)}
    scores, curves = resample_scores(truth, guesses, **options)
    monkeypatch.setattr(resampling, "points_are_faster", lambda *_: True)
    again, same = resample_scores(truth, guesses, **options)
    assert np.array_equal(curves, same)
    for key, draws in scores.items():
        assert np.array_equal(draws, again[key]), key
