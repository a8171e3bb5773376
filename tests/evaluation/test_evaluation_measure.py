"""Measures against naive computations, paired intervals, the low-noise estimate, tables."""

import csv
import io
import json

import numpy as np
import pytest
from helpers_problem import ATTACKS, make_source
from mico_competition.scoring import bootstrap, tpr_at_fpr
from mico_competition.scoring.resampling import draw_weights

from mico_competition.attacks.registry import WINNERS_FORMULAS
from mico_competition.evaluation import evaluate as evaluating
from mico_competition.evaluation import measure as module
from mico_competition.evaluation import page, table
from mico_competition.evaluation.cross_fitting import make_task
from mico_competition.evaluation.evaluate import Options, evaluate
from mico_competition.evaluation.measure import METRICS, Estimate, compare, measure
from mico_competition.evaluation.study import study

RATES = {"TPR_FPR_1000": 0.1, "TPR_FPR_100": 0.01, "TPR_FPR_10": 0.001}


def simulated(models=10, points=300, shift=1.0, seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.random((models, points)) < 0.5
    noise = rng.normal(size=truth.shape)
    return truth, noise + shift * truth * rng.uniform(0.5, 1.5, (models, 1)), noise


def naive(truth, scores):
    """Each metric by its definition: thresholds one by one, pairs of points one by one."""
    members, others = scores[truth], scores[~truth]
    found = {}
    for metric, rate in RATES.items():
        allowed = [t for t in [*others, others.max() + 1] if (others >= t).mean() < rate]
        found[metric] = max(((members >= t).mean() for t in allowed), default=0.0)
        # Between two non-members the best threshold is just above the lower one.
        for t in np.sort(others):
            if (others > t).mean() < rate:
                found[metric] = max(found[metric], (members > t).mean())
                break
    found["AUC"] = (members[:, None] > others).mean() + (members[:, None] == others).mean() / 2
    return found


def naive_draws(truth, scores, resamples, seed):
    """Metrics of resampled models, written out as often as drawn."""
    rows = []
    for weights in draw_weights(len(truth), resamples, seed).astype(int):
        drawn = np.repeat(np.arange(len(truth)), weights)
        rows.append(naive(truth[drawn], scores[drawn]))
    return {metric: np.array([row[metric] for row in rows]) for metric in METRICS}


def test_values_and_intervals_equal_the_naive_ones():
    truth, scores, _ = simulated(points=100)
    found = measure(truth, scores, resamples=40, seed=3)
    values, draws = naive(truth, scores), naive_draws(truth, scores, 40, 3)
    for metric in METRICS:
        assert found[metric].value == pytest.approx(values[metric], abs=1e-12)
        np.testing.assert_allclose(found[metric].draws, draws[metric], atol=1e-12)
        expected = bootstrap(list(truth.astype(int)), list(scores), resamples=40, seed=3)[metric]
        assert (found[metric].low, found[metric].high) == pytest.approx(expected, abs=1e-12)
    assert (found.models, found.members + found.nonmembers) == (10, 1000)


@pytest.mark.slow
def test_a_comparison_is_paired():
    """What models have in common drops out: the interval is shorter than of independent ones."""
    rng = np.random.default_rng(1)
    truth = rng.random((30, 400)) < 0.5
    luck = rng.uniform(0.2, 2.5, (30, 1))  # some models leak more, to either attack
    base = rng.normal(size=truth.shape) + luck * truth
    better = base + 0.25 * truth
    one, other = measure(truth, better, resamples=300), measure(truth, base, resamples=300)
    gain = compare(one, other)["TPR_FPR_1000"]
    assert gain.low > 0 and gain.low <= gain.value <= gain.high
    apart = one["TPR_FPR_1000"].high - one["TPR_FPR_1000"].low
    assert gain.high - gain.low < 0.5 * apart
    draws = naive_draws(truth[:, :60], better[:, :60], 20, 0)["AUC"]
    draws -= naive_draws(truth[:, :60], base[:, :60], 20, 0)["AUC"]
    small = [measure(truth[:, :60], s[:, :60], resamples=20) for s in (better, base)]
    np.testing.assert_allclose(compare(*small)["AUC"].draws, draws, atol=1e-12)


@pytest.mark.slow
def test_the_interval_of_no_gain_holds_zero_as_often_as_it_says():
    """Two equally good attacks, many times over."""
    held = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        truth = rng.random((25, 80)) < 0.5
        shared = rng.normal(size=truth.shape) + truth
        pair = [measure(truth, shared + rng.normal(size=truth.shape), resamples=200) for _ in "ab"]
        gain = compare(*pair)["AUC"]
        held += gain.low <= 0 <= gain.high
    assert held >= 53  # of 60, at 95 %


def test_comparing_what_does_not_belong_together():
    truth, scores, _ = simulated()
    with pytest.raises(ValueError, match="same models and resamples"):
        compare(measure(truth, scores, resamples=10), measure(truth, scores, resamples=20))


def test_levels_stand_for_all_scores(monkeypatch):
    """The low-noise estimate's counts give the draws that all scores give."""
    truth, scores, _ = simulated(models=12, points=4000)
    exact = measure(truth, scores, resamples=60)
    monkeypatch.setattr(module, "FEW", 1000)
    rough = measure(truth, scores, resamples=60)
    for metric, tolerance in zip(METRICS, (0.002, 0.004, 0.01, 1e-4)):
        assert rough[metric].value == exact[metric].value
        np.testing.assert_allclose(rough[metric].draws, exact[metric].draws, atol=tolerance)


@pytest.mark.slow
def test_a_million_points():
    truth, scores, _ = simulated(models=50, points=19_732)
    found = measure(truth, scores, resamples=1000)
    assert found["TPR_FPR_1000"].value == tpr_at_fpr(truth.ravel() * 1, scores.ravel(), 0.1)
    middle = (found["TPR_FPR_1000"].low + found["TPR_FPR_1000"].high) / 2
    assert middle == pytest.approx(found["TPR_FPR_1000"].value, abs=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("models", [2, 3, 5])
def test_few_models_have_t_intervals_and_paired_ones(models):
    """A gain's interval is wide, and holds 0 for two attacks that are alike."""
    held = 0
    for seed in range(40):
        truth, scores, _ = simulated(models=models, points=200, seed=seed)
        rng = np.random.default_rng(seed)
        pair = [measure(truth, scores + 0.5 * rng.normal(size=truth.shape)) for _ in "ab"]
        gain = compare(*pair)["AUC"]
        assert pair[0].method == "t" and -1 <= gain.low <= gain.value <= gain.high <= 1
        held += gain.low <= 0 <= gain.high
    assert held >= 36
    expected = bootstrap(list(truth.astype(int)), list(scores))
    found = measure(truth, scores)
    for metric in METRICS:
        ends = (found[metric].low, found[metric].high)
        np.testing.assert_array_equal(ends, expected[metric])
    assert np.isnan(found["TPR_FPR_10"].low) and np.isnan(compare(found, found)["TPR_FPR_10"].low)
    same = compare(found, found)["AUC"]
    assert (same.value, same.low, same.high) == (0, 0, 0)
    better = measure(truth, scores + 3.0 * truth)
    assert compare(better, found)["AUC"].value > 0
    mean = module.mean_of([found, better], "AUC")
    assert 0 <= mean.low <= mean.value <= mean.high <= 1


@pytest.mark.parametrize("models", [3, 10, 25])
def test_gains_of_perfect_attacks_are_not_certain(models):
    """Every resample says 1: what few records tell is there in gains and in means all the same."""
    truth = np.tile(np.arange(100) % 2 == 1, (models, 1))
    nearly = truth * 1.0
    nearly[0, 1] = -1  # one member lies below all others
    one, other = measure(truth, truth * 1.0, resamples=50), measure(truth, nearly, resamples=50)
    for metric in ("AUC", "TPR_FPR_1000"):
        gain, mean = compare(one, other)[metric], module.mean_of([one, other], metric)
        assert gain.low < 0 < gain.value < gain.high <= 1
        assert mean.low < 1 - 1.5 / (50 * models) and mean.high > 1 - 0.5 / (50 * models)


def test_bands_are_the_intervals_at_their_rates():
    for models in (3, 10):
        truth, scores, _ = simulated(models=models)
        found = measure(truth, scores, resamples=50, rates=(0.1, 0.5))
        assert list(found.bands) == [0.1, 0.5]
        assert found.bands[0.1] == (found["TPR_FPR_1000"].low, found["TPR_FPR_1000"].high)
    truth, scores, _ = simulated(models=1)
    assert np.isnan(measure(truth, scores, rates=(0.1,)).bands[0.1]).all()


def test_zero_has_no_sign_and_a_star_agrees_with_what_is_shown():
    none = np.zeros(0)
    tiny = Estimate(-0.0001, -0.0123, 0.0002, none)
    assert table.cell("AUC", tiny, gain=True) == "0.000 [-0.012, 0.000]"
    assert table.cell("TPR_FPR_100", Estimate(0.0001, -0.0002, 0.0003, none), True) == (
        "0.0 [0.0, 0.0]"
    )
    assert not table.starred("AUC", Estimate(-0.02, -0.03, -0.0001, none))  # shown as 0.000
    assert (
        table.cell("AUC", Estimate(-0.02, -0.03, -0.01, none), True) == "-0.020* [-0.030, -0.010]"
    )


def test_one_model_has_no_interval():
    truth, scores, _ = simulated(models=1)
    found = measure(truth, scores)
    assert np.isnan(found["AUC"].low) and 0.5 < found["AUC"].value < 1
    assert table.cell("AUC", found["AUC"]).count("[") == 0


def test_mistakes_are_sentences():
    truth, scores, _ = simulated()
    with pytest.raises(ValueError, match="resamples=0"):
        measure(truth, scores, resamples=0)
    with pytest.raises(ValueError, match=r"\[models, points\]"):
        measure(truth, scores[:, :5])
    with pytest.raises(ValueError, match="finite"):
        measure(truth, np.where(truth, np.nan, scores))
    with pytest.raises(ValueError, match="members"):
        measure(truth | True, scores)


@pytest.fixture(scope="module")
def evaluated():
    task = make_task(make_source(train=24, dev=12, asked=60, shift=2.0), "dev")
    names = ("threshold", "eb", "winner-2023")
    found = evaluate(task, [ATTACKS[n] for n in names], options=Options(resamples=200))
    steps = study(task, ATTACKS["eb"], [4, 24, 8], resamples=50, repeats=2)
    return task, found, steps


@pytest.mark.slow
def test_the_winners_best_formula_is_what_is_compared_with(evaluated):
    task, found, _ = evaluated
    assert found.rows[0].name == found.against == "winner-best"
    options = Options(resamples=2)
    single = evaluate(task, [ATTACKS[n] for n in WINNERS_FORMULAS], options=options)
    values = {row.name: row.measured["TPR_FPR_1000"].value for row in single.rows[1:]}
    assert found.rows[0].measured["TPR_FPR_1000"].value == max(values.values())
    assert values[found.rows[0].title] == max(values.values())
    eb = found.rows[2]
    for metric in METRICS:
        difference = eb.measured[metric].value - found.rows[0].measured[metric].value
        assert eb.gain[metric].value == pytest.approx(difference)


def test_a_formula_of_the_winner_is_run_once(evaluated, monkeypatch):
    """It is one of those that the others are compared with, and a row of its own."""
    seen = []
    monkeypatch.setattr(evaluating, "guard", lambda task, attack, options: seen.append(attack.name))
    wanted = [ATTACKS["threshold"], ATTACKS[WINNERS_FORMULAS[0]]]
    found = evaluate(evaluated[0], wanted, options=Options(resamples=2))
    assert [row.name for row in found.rows[1:]] == ["threshold", WINNERS_FORMULAS[0]]
    assert sorted(seen) == sorted(["threshold", *WINNERS_FORMULAS])


def test_another_attack_to_compare_with(evaluated):
    task = evaluated[0]
    few = Options(resamples=20)
    found = evaluate(
        task, [ATTACKS["eb"], ATTACKS["threshold"]], against=ATTACKS["eb"], options=few
    )
    assert [row.name for row in found.rows] == ["eb", "threshold"]
    assert found.rows[0].gain is None and found.rows[1].gain["AUC"].value < 0


def test_a_study_of_the_number_of_shadows(evaluated):
    task, found, steps = evaluated
    assert [(s.shadows, s.repeats) for s in steps] == [(4, 2), (8, 2), (24, 1)]
    auc = [step.estimates["AUC"].value for step in steps]
    assert auc[0] < auc[1] < auc[2] == found.rows[2].measured["AUC"].value
    assert steps[0].spread["AUC"] > 0 == steps[2].spread["AUC"]
    again = study(task, ATTACKS["eb"], [4], resamples=50, repeats=2)
    assert again[0].estimates["AUC"].value == auc[0]
    for counts in ([25], [2], []):
        with pytest.raises(ValueError, match="numbers of shadow models from 3 to 24 to study.* eb"):
            study(task, ATTACKS["eb"], counts)
    with pytest.raises(ValueError, match="from 2 to 24"):
        study(task, ATTACKS["threshold"], [1])
    with pytest.raises(ValueError, match="1 repeat or more"):
        study(task, ATTACKS["eb"], [3], repeats=0)


@pytest.mark.slow
def test_a_study_of_train_models_is_in_folds():
    task = make_task(make_source(train=20), "train")
    steps = study(task, ATTACKS["eb"], [6, 16], resamples=10, repeats=2)
    assert [s.shadows for s in steps] == [6, 16]
    with pytest.raises(ValueError, match="from 3 to 16"):
        study(task, ATTACKS["eb"], [17])


def test_tables_hold_the_numbers(evaluated):
    _, found, steps = evaluated
    words = table.text(found) + table.study_text(steps)
    auc = found.rows[2].measured["AUC"]
    assert f"{auc.value:.3f} [{auc.low:.3f}, {auc.high:.3f}]" in words
    assert "digits_inf, dev: 12 models, 360 members and 360 non-members" in words
    assert f"winner-best ({found.rows[0].title})" in words and "eb, 8 shadows" in words
    rows = list(csv.DictReader(io.StringIO(table.to_csv(table.records(found, steps)))))
    assert len(rows) == 4 * (4 + 3 + 3) and list(rows[0]) == list(table.COLUMNS)
    (mine,) = (r for r in rows if (r["attack"], r["kind"], r["metric"]) == ("eb", "gain", "AUC"))
    assert float(mine["value"]) == found.rows[2].gain["AUC"].value
    assert mine["against"] == "winner-best"
    (nested,) = json.loads(table.to_json([(found, steps)]))
    assert nested["attacks"][2]["metrics"]["AUC"]["value"] == auc.value
    assert [step["shadows"] for step in nested["study"]] == [4, 8, 24]


def test_the_page_holds_itself(evaluated):
    _, found, steps = evaluated
    html = page.to_html([(found, steps)])
    assert html.count("<svg role") == 3 and "http" not in html.replace("http-equiv", "")
    assert html.count("</table>") == 4 and "12 models" in html
    assert html.count('class="legend"') == 2  # one for both curves, one for the study
    # One line an attack and picture, one for chance; chance is in the legend too.
    assert html.count('class="chance"') == 3
    auc = found.rows[2].measured["AUC"]
    interval = f'<span class="range">[{auc.low:.3f}, {auc.high:.3f}]</span>'
    assert f"<td>{auc.value:.3f} {interval}</td>" in html
    assert len(html) < 300_000
    with pytest.raises(ValueError, match="at least one evaluation"):
        page.to_html([])
