"""Attacks on one model alone, and the signals: transforms, quantile regression."""

import math
import sys

import numpy as np
import pytest
from helpers_attacks import tpr

from mico_competition import attacks
from mico_competition.attacks import quantile_regression
from mico_competition.attacks.scores.transforms import (
    confidence,
    logit_scaled,
    negative_loss,
    stable_logit,
)


@pytest.fixture
def logits():
    return 3 * np.random.default_rng(0).normal(size=(4, 30, 7))


@pytest.fixture
def labels():
    return np.random.default_rng(1).integers(0, 7, 30)


def probabilities(logits):
    p = np.exp(logits)
    return p / p.sum(axis=-1, keepdims=True)


def test_transforms_equal_their_definitions(logits, labels):
    p = np.take_along_axis(
        probabilities(logits), np.broadcast_to(labels, (4, 30))[..., None], axis=-1
    )[..., 0]
    np.testing.assert_allclose(confidence(logits, labels), p, rtol=1e-12)
    np.testing.assert_allclose(negative_loss(logits, labels), np.log(p), rtol=1e-10)
    np.testing.assert_allclose(stable_logit(logits, labels), np.log(p / (1 - p)), rtol=1e-8)
    np.testing.assert_allclose(logit_scaled(p), np.log(p / (1 - p)), rtol=1e-8, atol=1e-10)


def test_stable_where_probabilities_round(labels):
    far = np.zeros((30, 7), dtype=np.float32)
    far[np.arange(30), labels] = 500
    np.testing.assert_allclose(stable_logit(far, labels), 500 - math.log(6))
    np.testing.assert_allclose(stable_logit(-far, labels), -500 - math.log(6))
    assert (confidence(far, labels) == 1).all() and (negative_loss(-far, labels) < -500).all()
    np.testing.assert_allclose(logit_scaled([0.0, 1.0]), [math.log(1e-29), -math.log(1e-29)])


def test_bad_signals_are_named(logits, labels):
    for call, message in [
        (lambda: stable_logit(logits, labels[:3]), "one label"),
        (lambda: stable_logit(logits, labels + 1), "0..6"),
        (lambda: stable_logit(logits, labels / 1), "ints"),
        (lambda: stable_logit(logits[..., :1], labels), "classes"),
        (lambda: stable_logit(logits * np.nan, labels), "NaN"),
        (lambda: logit_scaled([1.2]), r"in \[0, 1\]"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()


def heteroscedastic(seed, n):
    rng = np.random.default_rng(seed)
    x = rng.uniform(0, 1, size=(n, 2))
    return x, 3 * x[:, 0] + (0.2 + x[:, 1]) * rng.normal(size=n)


def test_linear_quantiles_equal_scikit_learns():
    from sklearn.linear_model import QuantileRegressor

    from mico_competition.attacks.scores.quantile import _linear

    x, y = heteroscedastic(0, 300)
    for level in (0.5, 0.9):
        exact = QuantileRegressor(quantile=level, alpha=0, solver="highs").fit(x, y).predict(x)

        def pinball(fit, level=level):
            return np.mean(np.maximum(level * (y - fit), (level - 1) * (y - fit)))

        assert pinball(_linear(x, y, level, x)) < pinball(exact) * (1 + 1e-4)


def test_quantile_regression_holds_its_false_positive_rate_and_beats_the_threshold():
    x_out, y_out = heteroscedastic(0, 2000)
    x, y = heteroscedastic(1, 2000)
    is_member = np.arange(2000) % 2 == 0
    signal = y + 0.8 * is_member
    score = quantile_regression(signal, x, y_out, x_out)
    assert 0.06 < (score[~is_member] > 1).mean() < 0.16
    assert tpr(score, is_member) > tpr(signal, is_member) + 0.05


def test_quantile_regression_bad_input():
    x, y = heteroscedastic(0, 50)
    for args, kwargs, message in [
        ((y[:3], x, y, x), {}, "features"),
        ((y, x[:, :1], y, x), {}, "same features"),
        ((y, x, y[:5], x[:5]), {}, "at least 10"),
        ((y, x, y * 0, x), {}, "constant"),
        ((y, x, y * np.nan, x), {}, "NaN or infinite in outside"),
        ((y, x, y, x), {"high": 0.4}, "high"),
    ]:
        with pytest.raises(ValueError, match=message):
            quantile_regression(*args, **kwargs)
    constant = np.ones((50, 3))  # features that say nothing
    assert np.isfinite(quantile_regression(y, constant, y, constant)).all()


def test_importing_attacks_loads_neither_torch_nor_scipy():
    import subprocess

    code = (
        "import sys; import mico_competition.attacks; "
        "print([m for m in ('torch', 'scipy', 'sklearn') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_exported_attacks_are_sorted_and_say_their_shapes():
    assert attacks.__all__ == sorted(attacks.__all__)
    for name in set(attacks.__all__) - {"WINNER_2023"}:
        text = getattr(attacks, name).__doc__
        assert "float[" in text and ("Returns" in text or ">>>" in text)
