"""Tiny fleets of real models for the decoders of any layer, and naive loops to hold them to."""

from __future__ import annotations

import numpy as np
import torch
from helpers_models import TINY
from helpers_problem import Arrays
from torch import nn
from torch.nn import functional
from transformers import RobertaConfig, RobertaForSequenceClassification

from mico_competition.attacks.problem import Problem
from mico_competition.data.arrays import ArrayDataset, TokenDataset
from mico_competition.models.architectures import logits
from mico_competition.signals import HIDDEN, Fleet


class TinyCNN(nn.Module):
    """Two convolutions, one strided, one without bias; and a head."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(2, 4, kernel_size=3, stride=2, padding=1)
        self.second = nn.Conv2d(4, 3, kernel_size=2, bias=False)
        self.head = nn.Linear(27, 3)

    def forward(self, x):
        return self.head(torch.tanh(self.second(torch.tanh(self.first(x)))).flatten(1))


def tiny_roberta():
    sizes = {**TINY, "vocab_size": 60, "hidden_size": 16, "intermediate_size": 24, "num_labels": 3}
    return RobertaForSequenceClassification(RobertaConfig(**sizes)).eval()


def halves(levels):
    return levels.float() / 2


def images(count=24, seed=0, classes=3):
    rng = torch.Generator().manual_seed(seed)
    levels = torch.randint(0, 5, (count, 2, 8, 8), generator=rng, dtype=torch.uint8)
    return ArrayDataset(levels, torch.arange(count) % classes, halves)


def sentences(count=24, length=9, seed=0, vocab=60, classes=3):
    """Every sentence holds a token of its own (from 5 on), then frequent ones and padding."""
    rng = torch.Generator().manual_seed(seed)
    ids = torch.randint(5 + count, vocab, (count, length), generator=rng, dtype=torch.int32)
    ids[:, 0], ids[:, 1] = 0, 5 + torch.arange(count)
    for row in range(count):
        ids[row, length - row % 4 :] = 1
    mask = (ids != 1).to(torch.uint8)
    return TokenDataset(ids, mask, torch.arange(count) % classes)


def naive_directions(model, layers, data, residual):
    """{layer: float64[N, H, D]}: autograd's gradient of residual . logits, a record at a time."""
    model = model.double()
    found = {name: [] for name in layers}
    for i in range(len(data)):
        inputs = data.inputs([i])
        inputs = inputs.double() if isinstance(inputs, torch.Tensor) else inputs
        value = (logits(model, inputs)[0] * residual[i].double()).sum()
        for name, layer in layers.items():
            own = [p for p in (layer.weight, layer.bias) if p is not None]
            gradients = torch.autograd.grad(value, own, retain_graph=True)
            flat = gradients[0].flatten(1)
            rows = [flat, gradients[1][:, None]] if len(own) == 2 else [flat]
            found[name].append(torch.cat(rows, 1))
    model.float()
    return {name: torch.stack(rows) for name, rows in found.items()}


def unit_residual(data, classes=3, seed=1):
    rng = torch.Generator().manual_seed(seed)
    probabilities = torch.rand(len(data), classes, generator=rng).softmax(1)
    return functional.normalize(functional.one_hot(data.labels, classes) - probabilities, dim=1)


def train(model, data, members, steps=30, rate=0.1, optimizer=torch.optim.SGD):
    """A few steps on all members at once."""
    stepper = optimizer(model.parameters(), lr=rate)
    for _ in range(steps):
        stepper.zero_grad()
        loss = functional.cross_entropy(logits(model, data.inputs(members)), data.labels[members])
        loss.backward()
        stepper.step()
    return model.eval()


def fleet_problem(
    models, data, is_member, shadows, *, columns=None, known_membership=None, **changes
):
    """The problem of attacking the models after the first `shadows` at all records."""
    total, points = is_member.shape
    outputs, signals = [], {}
    with torch.no_grad():
        for model in models:
            outputs.append(logits(model, data.inputs(torch.arange(points))).numpy())
    labels = data.labels.numpy()
    scores = np.stack(outputs).astype(np.float64)
    chosen = np.take_along_axis(scores, np.broadcast_to(labels[:, None], (total, points, 1)), 2)
    signals["loss"] = chosen[..., 0] - np.log(np.exp(scores).sum(2))
    p = np.exp(signals["loss"])
    signals["logit"] = np.log(p / (1 - p))
    if known_membership is None:
        known_membership = is_member.astype(np.int8)
        known_membership[shadows:] = HIDDEN
    rows = np.arange(shadows, total)
    challenge = np.tile(np.arange(4), (total, 1))
    fleet = Fleet("digits_inf", (), np.arange(points), labels, challenge, known_membership)
    source = Arrays(fleet, signals, outputs, models, data)
    rows = changes.pop("targets", rows)
    columns = np.tile(np.arange(points), (len(rows), 1)) if columns is None else columns
    given = {
        "shadows": np.arange(shadows),
        "targets": rows,
        "columns": columns,
        "known_membership": known_membership,
    }
    return Problem(source, **{**given, **changes})


def cnn_fleet(total=10, count=24, seed=0):
    """Trained from random starts, each on half of the images; a member mask bool[total, count]."""
    data, rng = images(count), np.random.default_rng(seed)
    is_member = np.stack([rng.permutation(count) < count // 2 for _ in range(total)])
    models = []
    for row in range(total):
        torch.manual_seed(row)
        models.append(train(TinyCNN(), data, np.flatnonzero(is_member[row]), steps=25, rate=0.2))
    return models, data, is_member


def text_fleet(total=10, count=24, seed=0):
    """Fine-tuned from one base by Adam, each on half of the sentences; and the base."""
    torch.manual_seed(seed)
    base, data, rng = tiny_roberta(), sentences(count), np.random.default_rng(seed)
    is_member = np.stack([rng.permutation(count) < count // 2 for _ in range(total)])
    models = []
    for row in range(total):
        model = tiny_roberta()
        model.load_state_dict(base.state_dict())
        members = np.flatnonzero(is_member[row])
        models.append(train(model, data, members, steps=8, rate=0.003, optimizer=torch.optim.Adam))
    return models, data, is_member, base
