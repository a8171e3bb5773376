"""The black-box stack and what it is made of: a planted signal found, no label seen, the slope."""

import dataclasses

import numpy as np
import pytest
import torch
from helpers_learned import auc, planted, trained
from scipy.special import log_softmax

from mico_competition.attacks.registry import get_attack
from mico_competition.attacks.scores.empirical_bayes import eb_likelihood_ratio
from mico_competition.attacks.stacking.black_box import Features, stack, stack_features
from mico_competition.attacks.stacking.calibrator import Calibrator, standard_score
from mico_competition.attacks.stacking.outputs import kriging, output_gradients, read_outputs
from mico_competition.attacks.stacking.queries import (
    _resample_tokens,
    ask,
    gradient_covariance,
    resampled_logits,
    slopes,
)
from mico_competition.attacks.stacking.table import make_table, training_points
from mico_competition.data.arrays import TokenDataset

ATTACKS = [get_attack(name) for name in ("neural", "suri", "stack", "query-stack")]


def with_known_membership(problem, known_membership):
    source = problem.source
    fleet = dataclasses.replace(source.fleet, known_membership=known_membership)
    other = type(source)(fleet, source._signals, source._logits, source._models, source.data)
    return dataclasses.replace(problem, source=other, known_membership=known_membership)


def flipped(problem, row, columns):
    """The same problem, where the opposite is told of one shadow at columns."""
    known_membership = problem.known_membership.copy()
    known_membership[row, columns] = 1 - known_membership[row, columns]
    return with_known_membership(problem, known_membership)


def test_names_and_kinds():
    assert not any(attack.leaves_one_out for attack in ATTACKS)
    assert [attack.white_box for attack in ATTACKS] == [False, True, False, False]


def test_stack_finds_a_planted_signal_and_nothing_where_there_is_none():
    problem, truth = planted(shift=2.0)
    assert auc(stack(problem, queries=()), truth) > 0.85
    problem, truth = planted(shift=0.0, asked=150)
    assert abs(auc(stack(problem, queries=()), truth) - 0.5) < 0.08


def test_stack_with_all_queries_beats_chance_on_trained_models():
    problem, truth = trained()
    scores = stack(problem, queries=("resample", "slope"))
    assert scores.shape == truth.shape and scores.dtype == np.float64
    assert auc(scores, truth) > 0.65


def test_stack_is_the_same_for_a_seed():
    problem, _ = trained()
    first = stack(problem, seed=3)
    assert np.array_equal(first, stack(problem, seed=3))
    assert not np.array_equal(first, stack(problem, seed=4))


def test_features_of_a_pseudo_target_do_not_see_its_labels():
    problem, _ = trained()
    row = 2
    before = stack_features(problem, queries=("resample", "slope"))
    after = stack_features(flipped(problem, row, slice(None)), queries=("resample", "slope"))
    others = np.arange(len(before.table.rows)) != row
    moved = 0.0
    for name, column in before.columns.items():
        np.testing.assert_allclose(after.columns[name][row], column[row], rtol=1e-6, atol=1e-6)
        moved += np.abs(after.columns[name][others] - column[others]).max()
    assert moved > 0.01  # the flip does reach the other rows


def test_a_signal_that_is_the_shadows_label_is_no_use_on_targets():
    """A leak in a feature of shadows cannot raise the score of targets: they are not told."""
    problem, truth = planted(shift=0.0)
    features = stack_features(problem, queries=())
    table = features.table
    leak = np.zeros((len(table.rows), len(table.points)), np.float32)
    leak[: table.shadows] = table.is_member
    leaky = Features(table, {**features.columns, "leak": leak}).stacked()
    weights = leaky.fit().weights
    assert abs(weights[-1]) > 5 * np.abs(weights[:-1]).max()
    scores = np.take_along_axis(leaky.scores(), table.asked, axis=1)
    assert abs(auc(scores, truth) - 0.5) < 0.1


def test_calibration_of_shadows_is_that_of_a_fleet_without_the_row():
    problem, _ = planted()
    table = make_table(problem)
    values = table.values("logit")
    forms = (Calibrator.standard_score, Calibrator.log_ratio)
    u, ratio = (table.calibrated(form, values) for form in forms)
    s, row = table.shadows, 5
    kept = np.arange(s) != row
    shadow, seen = values[:s][kept], table.is_member[kept]
    alone = eb_likelihood_ratio(values[row], shadow, seen).clip(-12, 12)
    np.testing.assert_allclose(ratio[row], alone, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(u[row], standard_score(values[[row]], shadow, seen)[0], rtol=1e-4)
    expected = eb_likelihood_ratio(values[s:], values[:s], table.is_member).clip(-12, 12)
    np.testing.assert_allclose(ratio[s:], expected, rtol=1e-5)


@pytest.mark.parametrize("variance", ["median", "pooled"])
def test_shadows_that_follow_one_another_are_not_copied_and_give_the_same_bits(variance):
    rng = np.random.default_rng(0)
    signal, seen = rng.normal(size=(26, 77)).astype(np.float32), rng.random((21, 77)) < 0.5
    follow = Calibrator(np.arange(3, 24), seen, variance)
    # The same models with a row that nobody uses among them, which the shadows must skip.
    apart = Calibrator(np.delete(np.arange(3, 25), 7), seen, variance)
    wider, transposed = np.insert(signal, 10, 0.0, axis=0), np.asfortranarray(signal)
    for rows in (np.arange(3, 24), np.array([0, 25])):
        ((_, shadow, _), _) = next(follow.blocks(signal, rows))
        assert np.shares_memory(shadow, signal)
        for form in (Calibrator.standard_score, Calibrator.log_ratio):
            found = form(follow, signal, rows)
            assert np.array_equal(found, form(apart, wider, np.where(rows < 10, rows, rows + 1)))
            assert np.array_equal(found, form(follow, transposed, rows))


def test_standard_score_by_a_loop():
    rng = np.random.default_rng(0)
    shadow, seen = rng.normal(size=(9, 30)), rng.random((9, 30)) < 0.5
    seen[0], seen[1] = True, False
    target = rng.normal(size=(1, 30))
    squares = np.array(
        [
            sum(
                ((g - g.mean()) ** 2).sum() for g in (shadow[seen[:, j], j], shadow[~seen[:, j], j])
            )
            for j in range(30)
        ]
    )
    var = (squares + 20 * np.median(squares / 7)) / 27
    expected = (target - shadow.mean(axis=0)) / np.sqrt(var)
    np.testing.assert_allclose(standard_score(target, shadow, seen), expected)


def test_margin_top_and_mean_by_a_loop():
    problem, _ = planted(points=20, asked=12)
    table = make_table(problem)
    outputs = read_outputs(table, top=2)
    for place, row in enumerate(table.rows):
        logits = table.logits(row).astype(np.float64)
        for j, (z, y) in enumerate(zip(logits, table.labels)):
            assert outputs.margin[place, j] == pytest.approx(z[y] - np.delete(z, y).max(), abs=1e-5)
            best = np.sort(log_softmax(z))[::-1][:2]
            np.testing.assert_allclose(outputs.top[place, j], best, rtol=1e-5, atol=1e-5)
    p = np.mean([np.exp(log_softmax(table.logits(r), axis=1)) for r in problem.shadows], axis=0)
    np.testing.assert_allclose(outputs.mean, p, rtol=1e-4)
    assert read_outputs(table, top=99).top.shape[2] == 3  # all classes


def test_kriging_by_a_loop():
    problem, _ = planted(points=30, asked=20)
    table = make_table(problem)
    pull = output_gradients(table, read_outputs(table).mean)
    u = np.random.default_rng(0).normal(size=(len(table.rows), len(table.points)))
    found = kriging(table, u, pull, neighbours=5)
    x = problem.source.data.inputs(table.places).numpy()
    x = x - x.mean(axis=0)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    for i in range(len(x)):
        like = np.array([(x[i] @ x[j]) * (pull[i] @ pull[j]) for j in range(len(x))])
        like[i] = 0
        near = np.argsort(-like)[:5]
        weight = np.maximum(like[near], 0)
        expected = u[:, near] @ weight / (weight.sum() + 0.1)
        np.testing.assert_allclose(found[:, i], expected, rtol=1e-3, atol=1e-5)


def test_slope_is_the_derivative_along_the_whitened_record():
    problem, _ = trained()
    table = make_table(problem)
    pull = output_gradients(table, read_outputs(table).mean)
    chosen = np.arange(len(table.points))
    (found,) = slopes(table, pull, ridges=(0.5,), step=0.01)
    x = problem.source.data.inputs(table.places)
    gradients = []
    for row in table.rows:
        model = problem.source.load(row)
        moved = x.clone().requires_grad_()
        (model(moved) * torch.from_numpy(pull)).sum().backward()
        gradients.append(moved.grad.numpy().astype(np.float64))
    gradients = np.stack(gradients)
    shadows = gradients[: table.shadows]
    centred = (shadows - shadows.mean(axis=0)).reshape(-1, x.shape[1])
    covariance = centred.T @ centred / len(centred)
    np.testing.assert_allclose(gradient_covariance(table, pull, chosen), covariance, rtol=1e-4)
    whitener = np.linalg.inv(covariance / np.trace(covariance) * len(covariance) + 0.5 * np.eye(8))
    along = (x - x.mean(dim=0)).numpy() @ whitener
    expected = (gradients * along).sum(axis=2)
    np.testing.assert_allclose(found, expected, atol=2e-3 * np.abs(expected).max())


def test_resampling_nothing_changes_nothing_and_all_gives_other_records():
    problem, _ = trained()
    table = make_table(problem)
    few = resampled_logits(table, share=1e-9, draws=2)
    np.testing.assert_allclose(few, table.values("logit"), rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="share"):
        resampled_logits(table, share=0.0)


def test_resampled_tokens_come_from_other_sentences_and_ends_stay():
    ids = torch.tensor([[0, 5, 6, 7, 2, 1], [0, 8, 9, 2, 1, 1]], dtype=torch.int32)
    mask = torch.tensor([[1, 1, 1, 1, 1, 0], [1, 1, 1, 1, 0, 0]], dtype=torch.uint8)
    data = TokenDataset(ids, mask, torch.tensor([0, 1]))
    rng = np.random.default_rng(0)
    changed = _resample_tokens(data, np.array([0, 1]), np.array([1, 1]), 1.0, rng)["input_ids"]
    assert set(changed[0, 1:4].tolist()) <= {8, 9} and set(changed[1, 1:3].tolist()) <= {8, 9}
    assert changed[0, [0, 4, 5]].tolist() == [0, 2, 1]
    assert changed[1, [0, 3, 4, 5]].tolist() == [0, 2, 1, 1]


def test_ask_goes_through_all_batches(monkeypatch):
    problem, _ = trained()
    monkeypatch.setattr("mico_competition.attacks.stacking.queries.BATCH", 7)
    x = problem.source.data.inputs(range(20))
    model = problem.source.load(0)
    np.testing.assert_allclose(ask(model, x), model(x).detach().numpy(), rtol=1e-5, atol=1e-6)


def test_training_rows_are_the_shadows_own():
    problem, _ = planted()
    table = make_table(problem)
    chosen = training_points(table, 160, seed=1)
    assert chosen.shape == (16, 10) and all(len(set(row)) == 10 for row in chosen)
    values = np.arange(len(table.rows))[:, None] * 1000 + np.arange(len(table.points))
    stacked = table.stack(chosen, table.asked)
    stacked.add(values[:16], values[16:])
    x = stacked.shadow_features()
    assert (x[:, 0] // 1000 == np.repeat(np.arange(16), 10)).all()
    expected = problem.is_member[:, table.points][np.arange(16)[:, None], chosen]
    assert (stacked.labels == expected.ravel()).all()
    places = stacked.target_features()[..., 0] % 1000
    assert (table.points[places] == problem.columns).all()


def test_refusals():
    problem, _ = planted()
    own = dataclasses.replace(
        problem, targets=problem.shadows[:2], columns=problem.columns[:2], targets_in_shadows=True
    )
    with pytest.raises(ValueError, match="not among the shadows"):
        stack(own)
    with pytest.raises(ValueError, match="queries among"):
        stack(problem, queries=("gradient",))
    known_membership = problem.known_membership.copy()
    known_membership[problem.shadows] = 1
    with pytest.raises(ValueError, match="one kind only"):
        stack(with_known_membership(problem, known_membership), queries=())
    few = dataclasses.replace(problem, shadows=problem.shadows[:3])
    for attack in ATTACKS:
        with pytest.raises(ValueError, match=f"at least {attack.least_shadows} shadow"):
            attack.run(few)
    assert np.isfinite(
        stack(dataclasses.replace(few, shadows=problem.shadows[:4]), queries=())
    ).all()
    problem.source._signals["logit"][0] = np.nan
    with pytest.raises(ValueError, match="logit"):
        stack(problem, queries=())


def test_text_has_no_slope():
    problem, _ = planted()
    points = len(problem.source.fleet.records)
    ids = torch.ones(points, 4, dtype=torch.int32)
    problem.source.data = TokenDataset(
        ids, ids.to(torch.uint8), torch.zeros(points, dtype=torch.int64)
    )
    with pytest.raises(ValueError, match="got text"):
        stack(problem, queries=("slope",))
