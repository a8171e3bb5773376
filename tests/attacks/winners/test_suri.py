"""Suri's features, each against a loop or a closed form on a tiny model; and the attack."""

import copy

import numpy as np
import pytest
import torch
from helpers_learned import auc, trained
from helpers_models import SENTENCES, write_base
from test_stacking import flipped
from torch import nn

from mico_competition.attacks.whitebox.record_gradients import (
    alignments,
    gradients,
    outer_gradients,
)
from mico_competition.attacks.winners.suri import suri, suri_features
from mico_competition.attacks.winners.suri_features import (
    Settings,
    Space,
    boundary_walk,
    class_scaled_logit,
    input_descent,
    neighbourhood,
    one_step,
    space_of,
    summarise,
)
from mico_competition.competition.table import TASKS
from mico_competition.models.architectures import CNN, MLP, logits, new_model

SMALL = Settings(neighbours=4, moves=3, directions=2, strides=8)
loss_of = nn.functional.cross_entropy


@pytest.fixture
def batch():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = MLP(5, 4, 3).eval()
        return model, torch.randn(6, 5), torch.tensor([0, 1, 2, 0, 1, 2])


def naive_gradients(model, x, y):
    """By backward(), record by record: weights only."""
    rows = []
    for i in range(len(x)):
        model.zero_grad()
        loss_of(model(x[i : i + 1]), y[i : i + 1]).backward()
        rows.append([p.grad.flatten().clone() for p in model.parameters() if p.ndim > 1])
    model.zero_grad()
    return [torch.stack(layer) for layer in zip(*rows)]


def test_class_scaled_logit():
    outputs = torch.tensor([[3.0, 1.0, 2.0], [3.0, 1.0, 2.0]])
    assert class_scaled_logit(outputs, torch.tensor([0, 2])).tolist() == [1.0, -1.0]


def test_gradients_are_those_of_single_records(batch):
    model, x, y = batch
    for found, expected in zip(gradients(model, x, y, 4), naive_gradients(model, x, y)):
        torch.testing.assert_close(found, expected)
    assert [g.shape[1] for g in gradients(model, x, y, 1)] == [12]  # the last layer only


def test_gradients_of_a_cnn_too():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, x, y = CNN().eval(), torch.randn(2, 3, 32, 32), torch.tensor([3, 4])
    found, expected = gradients(model, x, y, 4), naive_gradients(model, x, y)
    assert len(found) == 4
    assert outer_gradients(model, x, y, 4) is None  # convolutions have no such factors
    for g, e in zip(found, expected):
        torch.testing.assert_close(g, e, rtol=1e-3, atol=1e-5)


def test_one_step_is_that_of_sgd_on_the_weights(batch):
    model, x, y = batch
    found = one_step(model, x, y, gradients(model, x, y, 4), Settings(rate=0.3))
    kept = copy.deepcopy(model.state_dict())
    for i in range(len(x)):
        stepped = copy.deepcopy(model)
        weights = [p for p in stepped.parameters() if p.ndim > 1]
        before = loss_of(stepped(x[i : i + 1]), y[i : i + 1])
        before.backward()
        norms = [0.3 * p.grad.norm().item() for p in weights]  # lr times the gradient's norm
        torch.optim.SGD(weights, lr=0.3).step()
        moved = [
            (p - q).norm().item()
            for p, q in zip(weights, (kept["mlp.0.weight"], kept["mlp.2.weight"]))
        ]
        fall = (before - loss_of(stepped(x[i : i + 1]), y[i : i + 1])).item()
        assert norms == pytest.approx(moved, rel=1e-3)
        assert found[i].tolist() == pytest.approx([*moved, fall], rel=1e-3, abs=1e-6)
    assert all(torch.equal(v, kept[n]) for n, v in model.state_dict().items())


def test_alignment_is_the_inner_product_and_its_summary(batch):
    model, x, y = batch
    with torch.random.fork_rng():
        torch.manual_seed(1)
        others = [MLP(5, 4, 3).eval() for _ in range(3)]
    mine = gradients(model, x, y, 4)
    products = torch.stack([alignments(mine, gradients(o, x, y, 4)) for o in others])
    for r, other in enumerate(others):
        a, b = naive_gradients(model, x, y)[1], naive_gradients(other, x, y)[1]
        for i in range(len(x)):
            cosine = torch.cosine_similarity(a[i], b[i], dim=0)
            expected = cosine * a[i].norm() * b[i].norm()
            torch.testing.assert_close(products[r, i, 1], expected)
        factors = [outer_gradients(m, x, y, 4) for m in (model, other)]
        torch.testing.assert_close(alignments(*factors), products[r])
    p = products[:, 0, 0].tolist()
    summary = summarise(products)[0, [0, 2, 4, 6]].tolist()
    assert summary == pytest.approx([max(p) - min(p), sum(map(abs, p)), min(p), max(p)])


def test_descent_by_a_loop_and_one_step_in_closed_form():
    """Of a linear model the first step's gradient is W^T (p - e_y)."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        linear, x, y = nn.Linear(4, 3), torch.randn(5, 4), torch.tensor([0, 1, 2, 1, 0])
    space = space_of(linear, x)
    p = linear(x).softmax(1)
    slope = (p - nn.functional.one_hot(y, 3)) @ linear.weight
    found = input_descent(space, y, 0.2, 1)
    torch.testing.assert_close(found[:, 1], 0.2 * slope.norm(dim=1))
    losses = loss_of(linear(x), y, reduction="none")
    moved = loss_of(linear(x - 0.2 * slope), y, reduction="none")
    torch.testing.assert_close(found[:, 0], losses - moved)
    assert (found[:, 0] > 0).all()
    assert (input_descent(space, y, -0.2, 1)[:, 0] < 0).all()  # uphill the loss grows
    path = x.clone()
    for _ in range(3):
        p = linear(path).softmax(1)
        path = path - 0.2 * (p - nn.functional.one_hot(y, 3)) @ linear.weight
    torch.testing.assert_close(input_descent(space, y, 0.2, 3)[:, 1], (path - x).norm(dim=1))


def test_neighbourhood_by_a_loop(batch):
    model, x, y = batch
    settings = Settings(neighbours=7, noise=2.0)
    found = neighbourhood(space_of(model, x), y, settings, torch.Generator().manual_seed(3))
    generator = torch.Generator().manual_seed(3)
    noise = [torch.randn(x.shape, generator=generator) for _ in range(7)]
    for i in range(len(x)):
        base = loss_of(model(x[i : i + 1]), y[i : i + 1])
        changes = [loss_of(model(x[i : i + 1] + 2 * n[i]), y[i : i + 1]) - base for n in noise]
        expected = max(0.0, np.log(np.linalg.norm([c.item() for c in changes]) / base.item()))
        assert found[i].item() == pytest.approx(expected, abs=1e-4)


def test_walk_on_a_linear_classifier_stops_at_the_known_distance():
    """Two classes, logits w.x and 0: the answer flips at stride ceil(w.x / -w.noise)."""
    w = torch.tensor([1.0, -2.0, 0.5])
    x = torch.tensor([[3.0, 0.0, 0.0], [0.2, -0.2, 0.0], [9.0, -9.0, 9.0]])
    labels = torch.zeros(3, dtype=torch.int64)
    space = Space(x, 1.0, lambda x, who: torch.stack([x @ w, torch.zeros(len(x))], dim=1))
    settings = Settings(directions=3, stride=0.5, strides=40)
    found = boundary_walk(space, labels, settings, torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(0)
    counts = []
    for _ in range(3):
        drift = (0.5 * torch.randn(x.shape, generator=generator)) @ w
        distance = torch.ceil((x @ w) / -drift)
        counts.append(torch.where(drift < 0, distance, torch.full_like(distance, torch.inf)))
    expected = torch.stack(counts).clamp(1, 40).mean(dim=0)
    torch.testing.assert_close(found, expected)
    assert found[2] > found[1] >= 1


def test_a_wrong_answer_that_stays_wrong_counts_one_stride():
    space = Space(
        torch.ones(2, 3), 1.0, lambda x, who: torch.tensor([[0.0, 1.0]]).expand(len(x), 2)
    )
    walk = boundary_walk(space, torch.tensor([0, 1]), SMALL, torch.Generator())
    assert walk.tolist() == [1.0, 8.0]


@pytest.fixture
def text(tmp_path):
    """A tiny RoBERTa, two sentences and their labels."""
    pytest.importorskip("transformers")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = new_model(TASKS["sst2"], base_model=write_base(tmp_path)).eval()
    return model, SENTENCES, torch.tensor([0, 1])


def test_text_is_moved_among_embeddings(text):
    model, inputs, labels = text
    space = space_of(model, inputs)
    who = torch.tensor([1, 0, 1])
    torch.testing.assert_close(space.answer(space.x[who], who), logits(model, inputs)[who])
    tokens = model.get_input_embeddings()(inputs["input_ids"])[inputs["attention_mask"].bool()]
    assert space.unit == pytest.approx(tokens.std().item())
    walk = boundary_walk(space, labels, SMALL, torch.Generator().manual_seed(0))
    assert ((walk >= 1) & (walk <= 8)).all()
    assert (input_descent(space, labels, 0.1, 2)[:, 0] > 0).all()


def test_gradients_and_step_of_text(text):
    model, inputs, labels = text
    settings = Settings(layers=2, rate=0.1)
    found = gradients(model, inputs, labels, 2)
    step = one_step(model, inputs, labels, found, settings)
    names = [n for n, p in model.named_parameters() if p.ndim > 1][-2:]
    for i in range(2):
        one = {name: value[i : i + 1] for name, value in inputs.items()}
        stepped = copy.deepcopy(model)
        before = loss_of(logits(stepped, one), labels[i : i + 1])
        before.backward()
        mine = [p for n, p in stepped.named_parameters() if n in names]
        for g, p in zip(found, mine):
            torch.testing.assert_close(g[i], p.grad.flatten())
        torch.optim.SGD(mine, lr=0.1).step()
        fall = before - loss_of(logits(stepped, one), labels[i : i + 1])
        assert step[i, 2].item() == pytest.approx(fall.item(), rel=1e-2, abs=1e-6)


def test_batches_do_not_matter(monkeypatch):
    problem, _ = trained()
    others = [problem.source.load(row) for row in (1, 2)]
    settings = Settings(neighbours=1, noise=1e-6, directions=1, stride=1e-6, strides=2)
    columns = problem.columns[0]
    found = suri_features(problem, 0, columns, others, settings)
    # Margin, neighbourhood, 2 descents of 2, walk; a step's layers and fall; 4 of each alignment.
    assert found.shape == (len(columns), 7 + (2 + 1) + 4 * 2)
    monkeypatch.setattr("mico_competition.attacks.winners.suri.HELD", 7 * (16 * 8 + 16 * 3))
    again = suri_features(problem, 0, columns, others, settings)
    sure = np.delete(np.arange(found.shape[1]), [1, 6])  # noise goes on from batch to batch
    np.testing.assert_allclose(found[:, sure], again[:, sure], rtol=1e-4, atol=1e-6)


def test_suri_beats_chance_and_is_the_same_for_a_seed():
    problem, truth = trained(asked=80)
    options = {"references": 2, "points": 80, "settings": SMALL}
    first = suri(problem, **options)
    assert first.shape == truth.shape and auc(first, truth) > 0.6
    assert np.array_equal(first, suri(problem, **options))


@pytest.mark.slow
def test_suri_with_a_forest():
    pytest.importorskip("sklearn")
    problem, truth = trained(shadows=8, points=90, asked=80)
    scores = suri(problem, references=2, points=80, meta="forest", settings=SMALL)
    assert np.isfinite(scores).all() and auc(scores, truth) > 0.55


def test_features_know_no_membership():
    problem, _ = trained()
    others = [problem.source.load(1)]
    known_membership = flipped(problem, 0, slice(None))
    found = [suri_features(p, 0, p.columns[0], others, SMALL) for p in (problem, known_membership)]
    assert np.array_equal(*found)


def test_refusals():
    problem, _ = trained(shadows=4, steps=1)
    with pytest.raises(ValueError, match="meta in"):
        suri(problem, meta="boost")
    with pytest.raises(ValueError, match="counts of 1 or more"):
        Settings(neighbours=0)
    with torch.no_grad():
        problem.source.load(0).mlp[0].weight.fill_(torch.nan)
    with pytest.raises(ValueError, match="NaN"):
        suri(problem, references=1, points=20, settings=SMALL)
