"""LiRA, RMIA, BaVarIA and the empirical-Bayes ratio: closed forms, plain loops, ROC."""

import itertools

import numpy as np
import pytest
from helpers_attacks import (
    fleet,
    naive_bavaria,
    naive_eb,
    naive_lira,
    naive_rmia,
    tpr,
    two_of_each,
)
from scipy import stats

from mico_competition.attacks import (
    bavaria,
    calibrate,
    eb_likelihood_ratio,
    lira,
    lira_multivariate,
    out_reference,
    rmia,
    winner_2023,
)
from mico_competition.attacks.scores import empirical_bayes
from mico_competition.attacks.scores.calibration import FORMULAS
from mico_competition.attacks.scores.common import masked_moments
from mico_competition.attacks.scores.groups import usual, usual_shift
from mico_competition.attacks.scores.rmia import choose_offline_a


@pytest.mark.parametrize("variance", ["point", "raw_global"])
@pytest.mark.parametrize("online", [True, False])
def test_lira_equals_naive_loop(online, variance):
    target, shadow, is_member = two_of_each(points=80, models=30)
    found = lira(target, shadow, is_member, online=online, variance=variance)
    expected = naive_lira(target, shadow, is_member, online, variance)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-10)


def test_lira_approaches_the_true_likelihood_ratio():
    """Known Gaussians, N(1, 1) IN and N(0, 1) OUT: the log ratio is s - 1/2."""
    rng = np.random.default_rng(0)
    is_member = np.arange(4000)[:, None] % 2 == np.zeros(40)
    shadow = rng.normal(size=(4000, 40)) + is_member
    target = np.linspace(-2, 3, 40)
    for found in (
        lira(target, shadow, is_member, variance="global"),
        bavaria(target, shadow, is_member),
        eb_likelihood_ratio(target, shadow, is_member),
    ):
        np.testing.assert_allclose(found, target - 0.5, atol=0.25)
    exact = lira(target, np.array([[0.0] * 40, [2.0] * 40, [1.0] * 40, [3.0] * 40]),
                 np.array([[False] * 40] * 2 + [[True] * 40] * 2))  # fmt: skip
    np.testing.assert_allclose(exact, target - 1.5, atol=1e-12)  # N(2, 1) against N(1, 1)


def test_pooled_and_global_variance_by_hand():
    shadow = np.array([[0.0, 0.0], [2.0, 4.0], [5.0, 5.0], [5.0, 7.0]])
    seen = np.array([[False] * 2] * 2 + [[True] * 2] * 2)
    target = np.array([2.0, 4.0])
    # Squares OUT 2 and 8, IN 0 and 2; one degree of freedom each.
    np.testing.assert_allclose(
        lira(target, shadow, seen, online=False, variance="global"),
        [1 / np.sqrt(5), 2 / np.sqrt(5)],
    )
    np.testing.assert_allclose(
        lira(target, shadow, seen, online=False, variance="pooled"), [1.0, 2 / np.sqrt(5)]
    )
    with pytest.raises(ValueError, match="raw_global"):
        lira(target, shadow, seen, variance="fixed")
    with pytest.raises(ValueError, match="shrinkage"):
        lira(target, shadow, seen, shrinkage=-1)


@pytest.mark.parametrize("attack", [lira, bavaria, eb_likelihood_ratio])
def test_affine_maps_change_nothing(attack):
    target, shadow, is_member = two_of_each(models=20, points=60)
    found = attack(7 * target - 3, 7 * shadow - 3, is_member)
    np.testing.assert_allclose(found, attack(target, shadow, is_member), rtol=1e-7, atol=1e-9)


def test_multivariate_with_one_augmentation_is_lira():
    target, shadow, is_member = two_of_each(models=20)
    for online in (True, False):
        found = lira_multivariate(
            target[:, None], shadow[..., None], is_member, online=online, shrinkage=0
        )
        np.testing.assert_allclose(
            found, lira(target, shadow, is_member, online=online), rtol=1e-5, atol=1e-5
        )


def test_multivariate_equals_scipy_and_leaves_the_target_out():
    rng = np.random.default_rng(3)
    shadow, is_member = rng.normal(size=(40, 6, 3)), np.arange(40)[:, None] % 2 == np.zeros(6)
    target = rng.normal(size=(6, 3))
    found = lira_multivariate(target, shadow, is_member, shrinkage=0)
    for j in range(6):
        expected = 0.0
        for sign, group in ((1, is_member[:, j]), (-1, ~is_member[:, j])):
            x = shadow[group, j]
            cov = np.cov(x.T, bias=True)
            expected += sign * stats.multivariate_normal.logpdf(target[j], x.mean(axis=0), cov)
        np.testing.assert_allclose(found[j], expected, rtol=1e-6)
    left_out = lira_multivariate(shadow[4], shadow, is_member, target_index=4)
    keep = np.arange(40) != 4
    removed = lira_multivariate(shadow[4], shadow[keep], is_member[keep])
    np.testing.assert_allclose(left_out, removed)


def test_multivariate_with_few_shadows_and_equal_augmentations():
    rng = np.random.default_rng(4)
    shadow = np.repeat(rng.normal(size=(8, 50, 1)), 4, axis=2)
    is_member = rng.random((8, 50)) < 0.8
    is_member[:, 0] = True
    for online in (True, False):
        assert np.isfinite(lira_multivariate(shadow[0] + 1, shadow, is_member, online=online)).all()
    with pytest.raises(ValueError, match="augmentations"):
        lira_multivariate(shadow[0, :, 0], shadow, is_member)
    with pytest.raises(ValueError, match="constant"):
        lira_multivariate(np.ones((50, 4)), np.zeros((8, 50, 4)), is_member)


def test_bavaria_equals_naive_loop():
    target, shadow, is_member = two_of_each(models=15, points=40)
    moments = masked_moments(shadow, is_member)
    common, shift = usual(moments), usual_shift(moments)
    expected = naive_bavaria(
        target, shadow, is_member, 12.0, 0.7, common.var_in[0], common.var_out[0], shift[0]
    )
    found = bavaria(target, shadow, is_member, nu0=12.0, kappa0=0.7)
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10)


def test_bavaria_normal_is_the_limit_of_t():
    target, shadow, is_member = two_of_each(models=15)
    t = bavaria(target, shadow, is_member, nu0=1e9)
    normal = bavaria(target, shadow, is_member, nu0=1e9, predictive="normal")
    np.testing.assert_allclose(t, normal, atol=1e-5)
    with pytest.raises(ValueError, match="nu0 > 0"):
        bavaria(target, shadow, is_member, nu0=0)
    with pytest.raises(ValueError, match="predictive"):
        bavaria(target, shadow, is_member, predictive="cauchy")


@pytest.mark.parametrize("online", [True, False])
@pytest.mark.parametrize("gamma", [1.0, 1.5])
def test_rmia_equals_naive_loop(online, gamma):
    rng = np.random.default_rng(5)
    shadow, is_member = rng.random((10, 40)), rng.random((10, 40)) < 0.5
    is_member[:2], is_member[2:4] = True, False
    target, target_z, shadow_z = rng.random(40), rng.random(70), rng.random((10, 70))
    found = rmia(
        target, shadow, is_member, population=(target_z, shadow_z, None), gamma=gamma,
        online=online, offline_a=0.3,
    )  # fmt: skip
    expected = naive_rmia(target, shadow, is_member, target_z, shadow_z, gamma, 0.3, online)
    np.testing.assert_allclose(found, expected, atol=1e-10)


def test_rmia_bad_input():
    target, shadow, is_member = two_of_each()
    with pytest.raises(ValueError, match="probabilities"):
        rmia(target, shadow, is_member)
    p, q = np.full(30, 0.5), np.full(shadow.shape, 0.5)
    assert (rmia(p, q, is_member) == 1.0).all()  # all equal: each reaches all others
    assert np.isfinite(rmia(p * 0, q * 0, is_member)).all()
    with pytest.raises(ValueError, match="gamma"):
        rmia(p, q, is_member, gamma=0)
    with pytest.raises(ValueError, match="same 12 shadow"):
        rmia(p, q, is_member, population=(p, q[:3], None))


def probabilities(gain, seed=0, models=24, points=3000, targets=20):
    """Confidences whose OUT mean p becomes gain(p) in members, with noise of each model."""
    rng = np.random.default_rng(seed)
    p_out = rng.uniform(0.05, 0.9, points)
    members = rng.random((models + targets, points)) < 0.5
    centre = np.where(members, gain(p_out), p_out)
    values = np.clip(centre * np.exp(0.3 * rng.normal(size=members.shape)), 1e-6, 1)
    return values, members


@pytest.mark.parametrize(
    ("gain", "low", "high"),
    [(lambda p: np.minimum(1.2 * p, 1), 0.9, 1.0), (lambda p: 0.3 * p + 0.7, 0.1, 0.6)],
)
def test_rmia_offline_chooses_a_on_the_shadows(gain, low, high):
    """Near 1 where training hardly changes a probability, as under DP; a where p_in says so."""
    values, members = probabilities(gain)
    args = values[24:], values[:24], members[:24]
    chosen = choose_offline_a(values[:24], members[:24])
    assert low <= chosen <= high
    found = rmia(*args, online=False)
    np.testing.assert_array_equal(found, rmia(*args, online=False, offline_a=chosen))
    worth = [tpr(rmia(*args, online=False, offline_a=a / 10), members[24:]) for a in range(11)]
    assert tpr(found, members[24:]) > max(worth) - 0.01


def test_rmia_offline_chooses_without_the_target():
    """A target among the shadows is left out of the choice: its labels move nothing of its own."""
    values, members = probabilities(lambda p: 0.5 * p + 0.5, models=6, points=200, targets=0)
    found = rmia(values, values, members, online=False, target_index=np.arange(6))
    for row in range(6):
        rest = np.delete(np.arange(6), row)
        alone = rmia(values[row], values[rest], members[rest], online=False)
        np.testing.assert_allclose(found[row], alone, atol=1e-12)
        relabelled = members.copy()
        relabelled[row] = ~relabelled[row]
        index = np.arange(6)
        other = rmia(values, values, relabelled, online=False, target_index=index)[row]
        np.testing.assert_array_equal(found[row], other)
    end_to_end = rmia(
        values[np.arange(200) % 6, np.arange(200)],
        values,
        members,
        online=False,
        target_index=np.arange(200) % 6,
    )
    assert np.isfinite(end_to_end).all()
    with_others = rmia(
        values[0, :100], values[:, :100], members[:, :100],
        population=(values[0, 100:], values[:, 100:], members[:, 100:]),
        online=False, target_index=0,
    )  # fmt: skip
    assert with_others.shape == (100,)


def test_rmia_offline_where_nothing_can_be_chosen():
    """One shadow model, or such that saw all points or none: the usual a."""
    p = np.random.default_rng(0).random((3, 50))
    for members in (np.zeros((2, 50), bool), np.ones((2, 50), bool)):
        assert choose_offline_a(p[1:], members) == 0.3
        assert np.isfinite(rmia(p[0], p[1:], members, online=False)).all()
    assert choose_offline_a(p[1:2], np.arange(50)[None] % 2 == 0) == 0.3
    with pytest.raises(ValueError, match="0 <= offline_a <= 1"):
        rmia(p[0], p[1:], np.zeros((2, 50), bool), online=False, offline_a=1.1)


def test_rmia_online_with_points_that_no_shadow_trained_on_chooses_too():
    values, members = probabilities(lambda p: np.minimum(1.2 * p, 1), targets=1)
    members[:, :1500] = False
    args = values[24], values[:24], members[:24]
    chosen = choose_offline_a(values[:24], members[:24])
    assert chosen >= 0.9
    np.testing.assert_array_equal(rmia(*args), rmia(*args, offline_a=chosen))


def test_empirical_bayes_equals_naive_loop():
    simulated = fleet(models=40, points=150, targets=1)
    target, shadow, is_member = simulated.target[0], simulated.shadow, simulated.is_member
    found = eb_likelihood_ratio(target, shadow, is_member, bins=3)
    np.testing.assert_allclose(found, naive_eb(target, shadow, is_member, 3), atol=1e-10)


def test_empirical_bayes_limits():
    """Equal shifts: the order of (s - mean_all) / sd; wild shifts: that of online LiRA."""
    same = fleet(models=60, points=2000, targets=1, shift=0.3, shift_sd=0, noise_sd=0)
    args = same.target[0], same.shadow, same.is_member
    standardised = winner_2023(*args, formula="standardised")
    assert stats.spearmanr(eb_likelihood_ratio(*args), standardised)[0] > 0.97
    wild = fleet(models=60, points=2000, targets=1, shift=3, shift_sd=3)
    args = wild.target[0], wild.shadow, wild.is_member
    found = stats.spearmanr(eb_likelihood_ratio(*args), lira(*args, variance="pooled"))[0]
    assert found > 0.97
    with pytest.raises(ValueError, match="at least 3 shadow"):
        eb_likelihood_ratio(args[0], args[1][:2], args[2][:2])
    with pytest.raises(ValueError, match="bins"):
        eb_likelihood_ratio(*args, bins=0)


@pytest.mark.parametrize("models", [10, 30, 100])
@pytest.mark.parametrize(("shift", "shift_sd"), [(0.3, 0.0), (0.6, 0.1)])
def test_empirical_bayes_does_not_lose_to_the_winner_with_few_members(models, shift, shift_sd):
    """As under DP on digits: one in fifteen shadows is IN, so two of 30, and shifts are alike."""
    f = fleet(
        seed=models,
        models=models,
        targets=300,
        points=600,
        share_in=0.067,
        shift=shift,
        shift_sd=shift_sd,
    )
    args = f.target, f.shadow, f.is_member
    winner = max(tpr(winner_2023(*args, formula=name), f.solution) for name in FORMULAS)
    assert tpr(eb_likelihood_ratio(*args), f.solution) > winner - 0.01


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "shift"), [(1, 0.3), (1, 0.6), (2, 0.45)])
def test_empirical_bayes_with_ten_shadows_and_equal_shifts_is_the_winners_order(seed, shift):
    """Ten shadows, half of them IN: noise in shifts must not pass for a spread of shifts."""
    f = fleet(seed=seed, models=10, targets=300, points=2000, shift=shift, shift_sd=0.0)
    args = f.target, f.shadow, f.is_member
    winner = max(tpr(winner_2023(*args, formula=name), f.solution) for name in FORMULAS)
    assert tpr(eb_likelihood_ratio(*args), f.solution) > winner - 0.0025


@pytest.mark.parametrize(
    ("models", "share_in", "true", "low", "high"),
    [
        (10, 0.5, 0.0, 0, 0.02),
        (10, 0.76, 0.0, 0, 0.02),
        (30, 0.067, 0.0, 0, 0.02),
        (10, 0.5, 0.25, 0.22, 0.29),
        (30, 0.5, 0.25, 0.22, 0.27),
    ],
)
def test_the_spread_of_shifts_is_not_biased_by_few_shadows(models, share_in, true, low, high):
    """A point's variance is estimated too, so its noise in squared deviations is not 1."""
    rng = np.random.default_rng(0)
    is_member = rng.random((models, 4000)) < share_in
    shadow = rng.normal(size=(models, 4000)) + is_member * rng.normal(1, true**0.5, 4000)
    m = masked_moments(shadow + 3 * rng.normal(size=4000), is_member)
    learnt = empirical_bayes._learn(m, 30, empirical_bayes.NU0)
    both = (m.n_in > 0) & (m.n_out > 0)
    noise = 1 / m.n_in[both] + 1 / m.n_out[both]
    assert low <= np.mean(1 / (1 / learnt.shift_var[both] - 1 / noise)) < high


def test_empirical_bayes_where_one_point_has_both_kinds_of_shadow():
    """One estimate of a shift says nothing of how shifts differ; scores are finite all the same."""
    rng = np.random.default_rng(0)
    is_member = np.zeros((6, 25), bool)
    is_member[:3, 0] = True
    found = eb_likelihood_ratio(rng.normal(size=25), rng.normal(size=(6, 25)), is_member)
    assert np.isfinite(found).all()


@pytest.mark.parametrize(("members", "true", "low", "high"), [(2, 1, 0.9, 1.1), (40, 4, 2.4, 4)])
def test_the_ratio_of_variances_is_not_biased_by_few_members(members, true, low, high):
    """Two IN models whose variance is that of the 28 OUT; and many that vary twice as much."""
    rng = np.random.default_rng(0)
    is_member = np.zeros((members + 28, 5000), bool)
    is_member[:members] = True
    shadow = rng.normal(size=is_member.shape) * np.where(is_member, true**0.5, 1.0)
    parts = np.array_split(np.arange(5000), 10)
    found = empirical_bayes._variance_ratios(masked_moments(shadow, is_member), parts)
    assert low < np.median(found) < high


def test_empirical_bayes_without_members_in_a_bin():
    """Points that no shadow trained on take what is usual, and give finite scores."""
    f = fleet(seed=3, models=12, targets=20, points=900, share_in=0.1, shift=1.0)
    is_member = f.is_member.copy()
    order = np.argsort(f.shadow.mean(axis=0))
    is_member[:, order[:120]] = False
    found = eb_likelihood_ratio(f.target, f.shadow, is_member)
    assert np.isfinite(found).all()
    assert np.corrcoef(found[:, order[:120]].ravel(), f.target[:, order[:120]].ravel())[0, 1] > 0


def test_order_of_attacks_on_simulated_fleets():
    """Shifts that differ between points: each attack that knows more finds more."""
    f = fleet(seed=1, models=100, targets=50, points=1000, shift=1.5, shift_sd=1.0)
    args = f.target, f.shadow, f.is_member
    found = {
        "threshold": tpr(f.target, f.solution),
        "one reference": tpr(out_reference(*args), f.solution),
        "calibration": tpr(calibrate(*args), f.solution),
        "offline": tpr(lira(*args, online=False), f.solution),
        "online": tpr(lira(*args), f.solution),
        "bavaria": tpr(bavaria(*args), f.solution),
        "eb": tpr(eb_likelihood_ratio(*args), f.solution),
    }
    names = ["threshold", "one reference", "calibration", "offline", "online"]
    for worse, better in itertools.pairwise(names):
        assert found[worse] < found[better] - 0.005, found
    assert found["bavaria"] > found["online"] - 0.003, found
    assert found["eb"] > found["online"] - 0.003, found


def test_few_shadows_and_small_shifts_need_shrinkage():
    """As under DP: the empirical-Bayes ratio beats plain LiRA, and the priors help."""
    f = fleet(seed=2, models=30, targets=60, points=2000, shift=0.35, shift_sd=0.05, share_in=0.76)
    args = f.target, f.shadow, f.is_member
    plain, eb = tpr(lira(*args), f.solution), tpr(eb_likelihood_ratio(*args), f.solution)
    assert plain < tpr(bavaria(*args), f.solution) < eb
    assert plain < tpr(lira(*args, shrinkage=30), f.solution) <= eb + 0.005
