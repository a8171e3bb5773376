"""Calibration, the prize winners' formulas by hand arithmetic, references, and the one map."""

import numpy as np
import pytest
from scipy import stats

from mico_competition.attacks import (
    WINNER_2023,
    calibrate,
    first_principles,
    out_reference,
    to_unit,
    winner_2023,
)

# Five shadows, three points: with 2, 1 and 0 OUT models.
SHADOW = np.array(
    [
        [0.9, 0.5, 0.2],
        [0.7, 0.7, 0.4],
        [0.8, 0.6, 0.6],
        [0.3, 0.8, 0.8],
        [0.5, 0.1, 1.0],
    ]
)
SEEN = np.array([[1, 1, 1], [1, 1, 1], [1, 1, 1], [0, 1, 1], [0, 0, 1]], dtype=bool)
TARGET = np.array([0.7, 0.9, 0.5])


@pytest.mark.parametrize(
    ("formula", "expected"),
    [
        # mu_in = 0.8, 0.65, 0.6
        ("in", [-0.1, 0.25, -0.1]),
        # mu_out = 0.4; one and no OUT model: IN in their place
        ("midpoint", [0.7 - 0.6, 0.9 - 0.65, 0.5 - 0.6]),
        # 1: mean 0.64, squares 0.232, over 4.  2: IN twice, squares 2 * 0.05, over 7.
        # 3: IN twice, squares 2 * 0.4, over 9.
        (
            "standardised",
            [0.06 / np.sqrt(0.232 / 4), 0.25 / np.sqrt(0.1 / 7), -0.1 / np.sqrt(0.8 / 9)],
        ),
    ],
)
def test_winner_by_hand(formula, expected):
    found = winner_2023(TARGET, SHADOW, SEEN, formula=formula)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_winner_where_his_program_gave_nan():
    none_in = winner_2023(TARGET, SHADOW, np.zeros_like(SEEN), formula="in")
    np.testing.assert_allclose(none_in, TARGET - SHADOW.mean(axis=0))
    flat = SHADOW.copy()
    flat[:, 0] = 0.5
    found = winner_2023(TARGET, flat, SEEN, formula="standardised")
    usual = np.median([np.sqrt(0.1 / 7), np.sqrt(0.8 / 9)])
    np.testing.assert_allclose(found[0], 0.2 / usual)
    with pytest.raises(ValueError, match="formula in"):
        winner_2023(TARGET, SHADOW, SEEN, formula="out")


def test_the_spread_that_a_point_lacks_is_lent_by_the_targets_own_shadows():
    """A target's score does not hang on who else is attacked."""
    rng = np.random.default_rng(0)
    shadow, seen = rng.normal(size=(8, 40)), rng.random((8, 40)) < 0.5
    shadow[:, :5] = 0.25
    shadow[3, :5], shadow[5] = 0.75, 100 * shadow[5]  # without 3 there is no spread in them
    options = {"formula": "standardised"}
    together = winner_2023(shadow, shadow, seen, target_index=np.arange(8), **options)
    for row in range(8):
        few = winner_2023(shadow[[row]], shadow, seen, target_index=np.array([row]), **options)
        np.testing.assert_allclose(together[row], few[0], rtol=1e-12)
    keep = np.arange(8) != 3
    alone = winner_2023(shadow[3], shadow[keep], seen[keep], **options)
    np.testing.assert_allclose(together[3], alone, rtol=1e-9)
    flat = np.full((8, 40), 0.25)
    flat[3] = shadow[3]  # all its own: the others do not vary
    with pytest.raises(ValueError, match="constant ones"):
        winner_2023(flat, flat, seen, target_index=np.arange(8), **options)


def test_winner_table_names_every_scenario_of_2022():
    tasks = ("cifar10", "purchase100", "sst2")
    assert set(WINNER_2023) == {f"{t}_{s}" for t in tasks for s in ("inf", "hi", "lo", "ddp")}


def test_calibrate_by_hand():
    # Shifts: point 1, 0.8 - 0.4 with weight 6/5; point 2, 0.65 - 0.1 with weight 4/5.
    shift = (0.4 * 6 / 5 + 0.55 * 4 / 5) / 2
    out = np.array([0.4, 0.1, 0.6 - shift])
    np.testing.assert_allclose(calibrate(TARGET, SHADOW, SEEN), TARGET - out)
    middle = TARGET - (np.array([0.8, 0.65, 0.6]) + out) / 2
    np.testing.assert_allclose(calibrate(TARGET, SHADOW, SEEN, centre="midpoint"), middle)
    everything = calibrate(TARGET, SHADOW, SEEN, centre="all")
    np.testing.assert_allclose(everything, TARGET - SHADOW.mean(axis=0))
    with pytest.raises(ValueError, match="centre"):
        calibrate(TARGET, SHADOW, SEEN, centre="inn")


def test_calibration_undoes_difficulty_and_scales():
    np.testing.assert_allclose(
        calibrate(3 * TARGET + [5, 0, -2], 3 * SHADOW + [5, 0, -2], SEEN, centre="in"),
        3 * calibrate(TARGET, SHADOW, SEEN, centre="in"),
    )


def plain_first_principles(logit, shadow, seen, global_variance, scaling, online):
    """The runner-up's loop, as described: densities by scipy, point by point."""

    def signal(x):
        if scaling == "stable":
            return x
        p = 1 / (1 + np.exp(-x))
        return np.log(p / (1 - p + 10e-30)) if scaling == "logit" else p

    out = [signal(shadow[~seen[:, j], j]) for j in range(len(logit))]
    ins = [signal(shadow[seen[:, j], j]) for j in range(len(logit))]
    found = []
    for j, s in enumerate(signal(logit)):
        sd_out = np.std(np.concatenate(out)) if global_variance else np.std(out[j])
        sd_in = np.std(np.concatenate(ins)) if global_variance else np.std(ins[j])
        if online:
            density = stats.norm.pdf(s, np.mean(ins[j]), sd_in + 1e-30)
            found.append(density / stats.norm.pdf(s, np.mean(out[j]), sd_out + 1e-30))
        else:
            found.append(stats.norm.cdf(s, np.mean(out[j]), sd_out + 1e-30))
    return np.array(found)


@pytest.mark.parametrize("online", [False, True])
@pytest.mark.parametrize("scaling", ["none", "logit", "stable"])
@pytest.mark.parametrize("global_variance", [False, True])
def test_first_principles_equals_the_runner_up(global_variance, scaling, online):
    rng = np.random.default_rng(0)
    shadow, seen = rng.normal(size=(10, 25)), rng.random((10, 25)) < 0.5
    seen[:3], seen[3:6] = True, False
    logit = rng.normal(size=25)
    found = first_principles(
        logit,
        shadow,
        seen,
        global_variance=global_variance,
        logit_scaling=scaling == "logit",
        stable_logit_scaling=scaling == "stable",
        online_attack=online,
    )
    expected = plain_first_principles(logit, shadow, seen, global_variance, scaling, online)
    np.testing.assert_allclose(found, np.log(expected) if online else expected, atol=1e-6)
    if not online:
        assert ((found >= 0) & (found <= 1)).all()


def test_first_principles_by_hand():
    # Two OUT models of confidence 0.2 and 0.4: mean 0.3, sd 0.1; the target has 0.4: Phi(1).
    logit = np.log(np.array([[0.2], [0.4], [0.9]]) / (1 - np.array([[0.2], [0.4], [0.9]])))
    seen = np.array([[False], [False], [True]])
    found = first_principles(logit[1] + 0.0, logit, seen)
    np.testing.assert_allclose(found, [0.841344746], atol=1e-6)


def test_out_reference_takes_the_first_out_shadow():
    found = out_reference(TARGET, SHADOW, SEEN)
    lent = calibrate(TARGET, SHADOW, SEEN)[2]
    np.testing.assert_allclose(found, [0.7 - 0.3, 0.9 - 0.1, lent])
    both = out_reference(TARGET, SHADOW, SEEN, references=5)
    np.testing.assert_allclose(both, [0.7 - 0.4, 0.9 - 0.1, lent])


def test_to_unit_is_one_monotone_map():
    rng = np.random.default_rng(1)
    scores = [rng.normal(size=200) * 10**k for k in range(4)]
    scores[1][3] = np.inf
    for method in ("rank", "minmax"):
        if method == "minmax":
            scores[1][3] = 1e300
        unit = to_unit(scores, method)
        flat, mapped = np.concatenate(scores), np.concatenate(unit)
        assert [len(u) for u in unit] == [200] * 4
        assert mapped.min() == 0 and mapped.max() == 1
        assert (np.diff(mapped[np.argsort(flat)]) >= (1e-9 if method == "rank" else 0)).all()


def test_to_unit_edges():
    assert np.array_equal(to_unit([np.zeros(3)])[0], [0.5] * 3)
    assert np.array_equal(to_unit([np.zeros(3)], "minmax")[0], [0.5] * 3)
    tied = to_unit([np.array([1.0, 2.0]), np.array([2.0, 3.0])])
    assert tied[0][1] == tied[1][0] == 0.5
    for scores, method, message in [
        (np.zeros(3), "rank", "all models"),
        ([], "rank", "at least one model"),
        ([np.array([np.nan])], "rank", "NaN in those of model 0"),
        ([np.array([np.inf, 1])], "minmax", "finite"),
        ([np.zeros(3)], "logistic", "Expected method"),
    ]:
        with pytest.raises(ValueError, match=message):
            to_unit(scores, method)
