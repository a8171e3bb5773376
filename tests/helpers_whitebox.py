"""A small fleet of real MLPs, trained together in a second, as a Source and as a Problem."""

from functools import cache

import numpy as np
import torch
from helpers_problem import Arrays

from mico_competition.attacks.problem import Problem
from mico_competition.attacks.scores.transforms import confidence, negative_loss, stable_logit
from mico_competition.models.architectures import MLP
from mico_competition.signals import HIDDEN, Fleet


class Records:
    """A dataset in memory: `inputs`, `labels` and a length."""

    def __init__(self, x, y):
        self.x, self.labels = x, y

    def __len__(self):
        return len(self.x)

    def inputs(self, indices):
        return self.x[indices]


def make_records(records=300, features=60, classes=5, seed=0):
    """Sparse 0/1 baskets around one prototype for each class."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, records)
    rates = generator.beta(0.5, 1.5, (classes, features))
    baskets = generator.random((records, features)) < 0.6 * rates[labels] + 0.08
    return Records(torch.tensor(baskets, dtype=torch.float32), torch.tensor(labels))


def train_mlps(records, is_member, hidden=16, epochs=60, seed=0):
    """One MLP for each row of the mask, all in one stack: Adam, batches of 32."""
    torch.manual_seed(seed)
    models = [
        MLP(records.x.shape[1], hidden, int(records.labels.max()) + 1)
        for _ in range(len(is_member))
    ]
    weights = [
        torch.stack([dict(model.named_parameters())[name].detach() for model in models])
        for name in ("mlp.0.weight", "mlp.0.bias", "mlp.2.weight", "mlp.2.bias")
    ]
    w1, b1, w2, b2 = (part.requires_grad_() for part in weights)
    optimiser = torch.optim.Adam([w1, b1, w2, b2], lr=0.01)
    places = [torch.tensor(np.flatnonzero(row)) for row in is_member]
    count = len(places[0])
    assert all(len(own) == count for own in places), "stacked models have as many members each"
    for _ in range(epochs):
        order = torch.stack([own[torch.randperm(count)] for own in places])
        for batch in order.split(32, dim=1):
            x = records.x[batch]
            h = torch.tanh(x @ w1.mT + b1[:, None])
            logits = h @ w2.mT + b2[:, None]
            optimiser.zero_grad()
            labels = records.labels[batch].flatten()
            losses = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels)
            (losses * len(models)).backward()
            optimiser.step()
    for index, model in enumerate(models):
        state = {name: part.detach()[index] for name, part in zip(model.state_dict(), weights)}
        model.load_state_dict(state)
        model.eval()
    return models


def signals_of(models, records):
    """What `Signals` gives of them, and logits float32[models, N, C]."""
    with torch.no_grad():
        logits = np.stack([model(records.x).numpy() for model in models])
    labels = records.labels.numpy()
    norms = np.stack([_gradient_norms(model, records) for model in models])
    return {
        "logit": stable_logit(logits, labels),
        "loss": negative_loss(logits, labels),
        "confidence": confidence(logits, labels),
        "gradient_norm": -np.log(norms),
    }, logits


def _gradient_norms(model, records):
    with torch.no_grad():
        h = model.mlp[1](model.mlp[0](records.x))
        residual = torch.softmax(model.mlp[2](h), 1)
        residual[torch.arange(len(h)), records.labels] -= 1
        back = (1 - h**2) * (residual @ model.mlp[2].weight)
        first = (back**2).sum(1) * ((records.x**2).sum(1) + 1)
        return (first + (residual**2).sum(1) * ((h**2).sum(1) + 1)).sqrt().numpy()


@cache
def trained(models=36, records=300, members=150, challenge=20, seed=0):
    """(data, MLPs, is_member bool[models, N], challenge int64[models, 2 challenge])."""
    generator = np.random.default_rng(seed)
    data = make_records(records, seed=seed)
    order = np.stack([generator.permutation(records) for _ in range(models)])
    is_member = np.zeros((models, records), bool)
    np.put_along_axis(is_member, order[:, :members], True, axis=1)
    points = np.concatenate([order[:, :challenge], order[:, members : members + challenge]], axis=1)
    return data, train_mlps(data, is_member, seed=seed), is_member, points


def whitebox_problem(targets=12, known=False, **options):
    """(problem, truth bool[targets, k]); with `known` the targets' other records are told."""
    data, models, is_member, points = trained(**options)
    known_membership = is_member.astype(np.int8)
    rows = np.arange(len(models) - targets, len(models))
    for row in rows:
        known_membership[row, points[row] if known else slice(None)] = HIDDEN
    labels = data.labels.numpy()
    fleet = Fleet("digits_inf", (), np.arange(len(data)), labels, points, known_membership)
    signals, logits = signals_of(models, data)
    source = Arrays(fleet, signals, logits, models, data)
    shadows = np.arange(len(models) - targets)
    problem = Problem(source, shadows, rows, points[rows], known_membership)
    return problem, np.take_along_axis(is_member[rows], points[rows], axis=1)
