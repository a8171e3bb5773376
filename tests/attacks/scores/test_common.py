"""Moments with and without the target, checked inputs, and what is borrowed where shadows lack."""

from collections.abc import Callable

import numpy as np
import pytest
from helpers_attacks import two_of_each

from mico_competition import attacks
from mico_competition.attacks.scores import common
from mico_competition.attacks.scores.common import Moments, check_inputs, masked_moments, moments_of
from mico_competition.attacks.scores.groups import shrunk, usual, usual_shift

NAMES = list(Moments.__dataclass_fields__)


def plain_moments(shadow, is_member):
    """Point by point."""
    rows = []
    for column, mask in zip(shadow.T, is_member.T):
        row = []
        for x in (column[mask], column[~mask]):
            row.append((len(x), x.mean() if len(x) else 0.0, x.var() * len(x) if len(x) else 0.0))
        rows.append([value for pair in zip(*row) for value in pair])
    return np.array(rows).T


@pytest.mark.parametrize("block", [1 << 20, 30])
def test_moments_equal_plain_loop(block, monkeypatch):
    monkeypatch.setattr(common, "BLOCK", block)
    rng = np.random.default_rng(1)
    shadow = 1e6 + rng.normal(size=(9, 50))  # a large offset costs no digits
    is_member = rng.random((9, 50)) < 0.3
    is_member[:, 0], is_member[:, 1] = True, False
    found = masked_moments(shadow, is_member)
    for name, expected in zip(NAMES, plain_moments(shadow, is_member)):
        np.testing.assert_allclose(getattr(found, name), expected, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(found.mean_all, shadow.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(found.ss_all, shadow.var(axis=0) * 9, rtol=1e-7)


def test_leave_one_out_equals_removal():
    rng = np.random.default_rng(2)
    shadow = rng.normal(size=(7, 40))
    shadow[3, 5], shadow[2, 6] = 1e9, -1e12  # outliers: plain subtraction would lose all digits
    shadow[:, 7] = 0.25
    is_member = rng.random((7, 40)) < 0.5
    is_member[:, 8], is_member[0, 8] = False, True  # the target is the only IN model
    is_member[:, 9] = True
    found = moments_of(check_inputs(shadow, shadow, is_member, np.arange(7)))
    for row in range(7):
        keep = np.arange(7) != row
        expected = plain_moments(shadow[keep], is_member[keep])
        for name, value in zip(NAMES, expected):
            np.testing.assert_allclose(
                getattr(found, name)[row], value, rtol=1e-9, atol=1e-12, err_msg=name
            )


ATTACKS: dict[str, Callable[..., np.ndarray]] = {
    "calibrate": attacks.calibrate,
    "calibrate_midpoint": lambda *a, **k: attacks.calibrate(*a, centre="midpoint", **k),
    "winner_in": lambda *a, **k: attacks.winner_2023(*a, formula="in", **k),
    "winner_midpoint": lambda *a, **k: attacks.winner_2023(*a, formula="midpoint", **k),
    "winner_standardised": lambda *a, **k: attacks.winner_2023(*a, formula="standardised", **k),
    "lira": attacks.lira,
    "lira_offline": lambda *a, **k: attacks.lira(*a, online=False, **k),
    "lira_pooled": lambda *a, **k: attacks.lira(*a, variance="pooled", shrinkage=3, **k),
    "lira_global": lambda *a, **k: attacks.lira(*a, variance="global", **k),
    "lira_raw_global": lambda *a, **k: attacks.lira(*a, variance="raw_global", **k),
    "first_principles": lambda *a, **k: attacks.first_principles(*a, global_variance=True, **k),
    "bavaria": attacks.bavaria,
    "bavaria_normal": lambda *a, **k: attacks.bavaria(*a, predictive="normal", kappa0=1, **k),
    "eb_likelihood_ratio": attacks.eb_likelihood_ratio,
    "out_reference": lambda *a, **k: attacks.out_reference(*a, references=2, **k),
    "rmia": lambda t, s, m, **k: attacks.rmia(squeezed(t), squeezed(s), m, **k),
}


def squeezed(x):
    """Any signal as a probability."""
    return 1 / (1 + np.exp(-np.asarray(x)))


@pytest.fixture(params=ATTACKS)
def attack(request):
    return ATTACKS[request.param]


def test_target_left_out_equals_explicit_removal(attack):
    _, shadow, is_member = two_of_each(models=14, points=60)
    together = attack(shadow, shadow, is_member, target_index=np.arange(14))
    for row in (0, 3, 13):
        keep = np.arange(14) != row
        alone = attack(shadow[row], shadow[keep], is_member[keep])
        np.testing.assert_allclose(together[row], alone, rtol=1e-9, atol=1e-9)
        same = attack(shadow[row], shadow, is_member, target_index=row)
        np.testing.assert_allclose(same, alone, rtol=1e-9, atol=1e-9)


def test_own_label_is_not_an_input(attack):
    """Flipping what the mask says of the target itself changes nothing."""
    _, shadow, is_member = two_of_each(models=14, points=60)
    flipped = is_member.copy()
    flipped[5] = ~flipped[5]
    before, after = (attack(shadow[5], shadow, m, target_index=5) for m in (is_member, flipped))
    np.testing.assert_allclose(before, after, rtol=1e-9, atol=1e-9)


def test_many_targets_equal_one_by_one(attack):
    _, shadow, is_member = two_of_each(points=40)
    targets = np.random.default_rng(3).normal(size=(3, 40))
    together = attack(targets, shadow, is_member)
    assert together.shape == targets.shape
    for row in range(3):
        np.testing.assert_allclose(together[row], attack(targets[row], shadow, is_member))


@pytest.mark.parametrize("name", sorted(set(ATTACKS) - {"out_reference"}))  # takes the first
def test_order_of_shadows_does_not_matter(name):
    attack = ATTACKS[name]
    target, shadow, is_member = two_of_each(points=50)
    order = np.random.default_rng(4).permutation(len(shadow))
    found = attack(target, shadow[order], is_member[order])
    np.testing.assert_allclose(found, attack(target, shadow, is_member), rtol=1e-9, atol=1e-9)


def test_few_or_no_shadows_of_a_kind_give_numbers(attack):
    """As in SST-2: about 1.3 OUT models a point, often none."""
    rng = np.random.default_rng(5)
    is_member = rng.random((100, 300)) > 0.013
    assert (is_member.all(axis=0)).sum() > 50
    shadow = rng.normal(size=(100, 300)) + is_member
    targets = rng.normal(size=(4, 300)) + 1
    with np.errstate(all="raise", under="ignore"):
        for mask in (is_member, ~is_member):
            assert np.isfinite(attack(targets, shadow, mask)).all()
            assert np.isfinite(attack(shadow, shadow, mask, target_index=np.arange(100))).all()


@pytest.mark.parametrize("name", sorted(set(ATTACKS) - {"bavaria"}))  # a Student t turns back
def test_larger_signal_is_never_less_likely(name):
    """Where variances are equal every attack grows with the signal."""
    attack = ATTACKS[name]
    rng = np.random.default_rng(6)
    is_member = np.arange(40)[:, None] % 2 == np.zeros(30)
    noise = np.repeat(rng.normal(size=(20, 30)), 2, axis=0)  # the same for IN and OUT
    shadow = noise + is_member
    scores = attack(np.linspace(-2, 3, 11)[:, None] + np.zeros(30), shadow, is_member)
    assert (np.diff(scores, axis=0) >= -1e-9).all()


def test_shrinkage_goes_from_own_to_usual():
    _, shadow, is_member = two_of_each()
    moments = masked_moments(shadow, is_member)
    common_, shift = usual(moments), usual_shift(moments)
    own, all_ = shrunk(moments), shrunk(moments, prior_weight=1e12)
    np.testing.assert_allclose(own.var_out, moments.ss_out / moments.n_out)
    np.testing.assert_allclose(all_.var_out, np.full(30, common_.var_out[0]), rtol=1e-6)
    np.testing.assert_allclose(all_.mean_in, moments.mean_out + shift, rtol=1e-6)


def bad(message, **change):
    target, shadow, is_member = two_of_each(points=20)
    values = {"target": target, "shadow": shadow, "is_member": is_member, "target_index": None}
    for name, value in change.items():
        values[name] = value(values[name]) if callable(value) else value
    with pytest.raises(ValueError, match=message):
        check_inputs(**values)


def test_bad_input_is_named():
    def with_nan(x):
        x = x.copy()
        x[..., 3] = np.nan
        return x

    bad("target of shape", target=lambda x: x[:5])
    bad("is_member of shape", is_member=lambda x: x[:5])
    bad("is_member of shape", is_member=lambda x: x.T)
    bad("True and False", is_member=lambda x: x + 1.5)
    bad("at least one each", shadow=lambda x: x[:0])
    bad("NaN or infinite in target, first at", target=with_nan)
    bad("NaN or infinite in shadow", shadow=with_nan)
    bad("real numbers", target=lambda x: x.astype(str))
    bad("target_index in 0..11", target_index=12)
    bad("signals differ", target_index=1)
    _, shadow, is_member = two_of_each(points=20)
    with pytest.raises(ValueError, match="one a target"):
        check_inputs(shadow[:3], shadow, is_member, np.arange(2))
    with pytest.raises(ValueError, match="beside the target"):
        check_inputs(shadow[0], shadow[:1], is_member[:1], 0)


def test_target_among_its_shadows_is_refused(attack):
    _, shadow, is_member = two_of_each(points=200)
    with pytest.raises(ValueError, match="equals shadow 7"):
        attack(shadow[7], shadow, is_member)
    with pytest.raises(ValueError, match="target 1 equals shadow 2"):
        attack(np.stack([shadow[0] + 1, shadow[2]]), shadow, is_member)


@pytest.mark.parametrize("digits", [np.float32, np.float16])
def test_a_target_among_its_shadows_is_found_with_fewer_digits(digits):
    _, shadow, is_member = two_of_each(points=200)
    shadow[0, 0] = 1e300  # infinite in fewer digits, and no warning
    with np.errstate(over="ignore"):
        few = shadow.astype(digits)
    few[0, 0] = 1
    with pytest.raises(ValueError, match="equals shadow 7"):
        check_inputs(few[7], shadow, is_member)
    with pytest.raises(ValueError, match="target 1 equals shadow 2"):
        check_inputs(np.stack([shadow[0] + 1, shadow[2]]), few, is_member)
    found = check_inputs(shadow[7] + 0.01, few, is_member)  # near is not equal
    assert found.target.dtype == np.float64


def test_saturated_signals_are_no_leak():
    _, shadow, is_member = two_of_each(points=200)
    shadow[:, :150] = 1.0
    attacks.calibrate(np.ones(200), shadow, is_member)
    one = np.where(np.arange(200) < 150, 1.0, shadow[:1])  # one reference, saturated
    attacks.calibrate(one[0] + (np.arange(200) >= 150), one, is_member[2:3])
    attacks.calibrate(np.ones(200), np.ones((1, 200)), is_member[2:3])


def test_constant_signals_and_missing_kinds_are_refused():
    target, shadow, is_member = two_of_each(points=20)
    for name, attack in ATTACKS.items():
        if name in ("rmia", "out_reference", "first_principles") or name.startswith("calib"):
            continue  # a difference of means needs no spread; sigmoid(3) rounds in the other
        if name in ("winner_in", "winner_midpoint"):
            continue
        with pytest.raises(ValueError, match="constant"):
            attack(target, np.full_like(shadow, 3.1), is_member)
    for name in ("lira", "bavaria", "eb_likelihood_ratio", "calibrate", "out_reference"):
        with pytest.raises(ValueError, match="both IN and OUT"):
            ATTACKS[name](target, shadow, np.ones_like(is_member))
    offline = attacks.lira(target, shadow, is_member & False, online=False)
    np.testing.assert_allclose(offline, (target - shadow.mean(0)) / shadow.std(0))
