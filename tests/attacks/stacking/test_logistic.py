"""The ridge logistic regression: equal to scikit-learn's, its bad input refused."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from mico_competition.attacks.stacking.logistic import fit_logistic


def problem(rows=3000, k=5, share=0.75, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.random(rows) < share
    mixing = rng.normal(size=(k, k))
    features = (rng.normal(size=(rows, k)) + labels[:, None] * rng.normal(size=k)) @ mixing
    return features * [1, 100, 1e-3, 1, 7] + [0, 5, 1, -30, 2], labels


@pytest.mark.parametrize("inverse_penalty", [0.003, 1.0, 100.0])
def test_equals_scikit_learn(inverse_penalty):
    features, labels = problem()
    ours = fit_logistic(features, labels, inverse_penalty)
    standardised = (features - features.mean(axis=0)) / features.std(axis=0)
    theirs = LogisticRegression(
        C=inverse_penalty,
        class_weight="balanced",
        solver="newton-cholesky",
        tol=1e-10,
        max_iter=1000,
    ).fit(standardised, labels)
    np.testing.assert_allclose(ours.weights, theirs.coef_[0], atol=1e-5)
    np.testing.assert_allclose(ours.intercept, theirs.intercept_[0], atol=1e-5)
    np.testing.assert_allclose(
        ours.scores(features), theirs.decision_function(standardised), atol=1e-4
    )


def test_the_gradient_vanishes_at_the_minimum_also_where_classes_are_separable():
    features, _ = problem(500)
    labels = features[:, 1] > 5
    ours = fit_logistic(features, labels, 1e4)
    z = np.column_stack([(features - ours.mean) / ours.scale, np.ones(len(features))])
    beta = np.append(ours.weights, ours.intercept)
    weight = 1e4 * np.where(labels, 0.5 / labels.mean(), 0.5 / (1 - labels.mean()))
    residual = weight * (1 / (1 + np.exp(-z @ beta)) - labels)
    gradient = z.T @ residual + np.append(ours.weights, 0)
    assert np.abs(gradient).max() < 1e-5 * np.abs(ours.weights).max()
    assert ((ours.scores(features) > 0) == labels).all()


def test_scales_shifts_and_constant_features_change_nothing():
    features, labels = problem()
    plain = fit_logistic(features, labels)
    wide = np.column_stack([features * 1e6 - 3, np.full(len(features), 4.2)])
    moved = fit_logistic(wide, labels)
    assert moved.weights[-1] == 0
    np.testing.assert_allclose(moved.scores(wide), plain.scores(features), atol=1e-8)
    shaped = features[:6].reshape(2, 3, 5)
    np.testing.assert_array_equal(plain.scores(shaped).ravel(), plain.scores(features[:6]))


def test_classes_count_the_same_however_many_there_are():
    features, labels = problem()
    twice = np.concatenate([features, features[labels]])
    again = fit_logistic(twice, np.concatenate([labels, labels[labels]]), 1e6)
    once = fit_logistic(features, labels, 1e6)
    np.testing.assert_allclose(again.scores(features), once.scores(features), atol=1e-4)


def test_bad_input_is_refused():
    features, labels = problem(50)
    cases = [
        ((features[:, 0], labels), "features"),
        ((features, labels[:-1]), "one label a row"),
        ((features, np.ones(50, bool)), "one kind"),
        ((features, labels * 2), "True and False"),
        ((features, labels, 0.0), "inverse_penalty"),
        ((features, labels, np.nan), "inverse_penalty"),
    ]
    for arguments, words in cases:
        with pytest.raises(ValueError, match=words):
            fit_logistic(*arguments)
    spoilt = features.copy()
    spoilt[3, 1] = np.nan
    with pytest.raises(ValueError, match="finite"):
        fit_logistic(spoilt, labels)
    with pytest.raises(ValueError, match="finite"):
        fit_logistic(features, labels).scores(spoilt)
    with pytest.raises(ValueError, match="5 features"):
        fit_logistic(features, labels).scores(features[:, :4])
