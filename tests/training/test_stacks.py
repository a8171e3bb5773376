"""Stacks of models of any layers: what they compute, clip and refuse."""

from __future__ import annotations

import copy
import json
from dataclasses import replace

import pytest
import torch
from helpers_data import blobs
from safetensors.torch import load_file
from test_train_many import runs_in, settings_of, weights
from torch import nn
from torch.nn import functional

from mico_competition.data.arrays import ArrayDataset, TextDataset
from mico_competition.models import architectures
from mico_competition.models.architectures import CNN, MLP
from mico_competition.models.inputs import prepare
from mico_competition.models.small_roberta import make_small_roberta
from mico_competition.training import stacked_layers
from mico_competition.training.dpsgd import DPSGD
from mico_competition.training.layer_rule import Rule
from mico_competition.training.plain_trainer import PlainTrainer
from mico_competition.training.settings import resolve
from mico_competition.training.stacked_batches import stacked_batches
from mico_competition.training.stacked_model import (
    check_stacking,
    fault_of_stacking,
    stacked,
    unstack,
)
from mico_competition.training.stacked_step import StackedDPSGD, StackedPlainTrainer
from mico_competition.training.train import train_model
from mico_competition.training.train_many import train_many

IMAGE, TOKENS = (2, 6, 6), (5,)


class SmallCNN(nn.Module):
    """A network for the 8 x 8 images of the digits."""

    def __init__(self):
        super().__init__()
        self.cnn = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.Tanh(), nn.MaxPool2d(2), nn.Conv2d(8, 12, 3),
            nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(48, 10),
        )  # fmt: skip

    def forward(self, x):
        return self.cnn(x.view(-1, 1, 8, 8))


class Sentences(nn.Module):
    """Embeddings, normalisation and linear layers on all positions, as transformers have them."""

    def __init__(self):
        super().__init__()
        self.table, self.norm = nn.Embedding(7, 6, padding_idx=0), nn.LayerNorm(6)
        self.inner, self.head = nn.Linear(6, 8), nn.Linear(8, 4, bias=False)

    def forward(self, ids):
        x = self.norm(self.table(ids))
        weights = (x @ x.transpose(1, 2)).softmax(2)
        return self.head(torch.tanh(self.inner(weights @ x)).mean(1))


def convolutions(**options):
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, **options), nn.GroupNorm(2, 4), nn.Tanh(), nn.Flatten(), nn.LazyLinear(4)
    )


MODELS = {
    "MLP": (lambda: MLP(6, 5, 4, gain=2.0), (6,)),
    "in place": (lambda: nn.Sequential(
        nn.Linear(6, 5), nn.ReLU(inplace=True), nn.Linear(5, 5), nn.LayerNorm(5),
        nn.ReLU(inplace=True), nn.Linear(5, 4)), (6,)),
    "one layer": (lambda: nn.Linear(6, 4), (6,)),
    "convolution, padded": (lambda: convolutions(padding=1), IMAGE),
    "convolution, groups": (lambda: convolutions(groups=2, stride=2, bias=False), IMAGE),
    "convolution, dilation": (lambda: convolutions(dilation=(1, 2), padding=(0, 2)), IMAGE),
    "by pairs of pixels": (lambda: nn.Sequential(
        nn.Conv2d(8, 48, 3), nn.Tanh(), nn.Flatten(), nn.Linear(192, 4)), (8, 4, 4)),
    "sentences": (Sentences, TOKENS),
}  # fmt: skip


def made(name, count=3, dtype=torch.float64):
    """Different models, records [count, 8, ...] and labels."""
    torch.manual_seed(0)
    make, shape = MODELS[name]
    models = [make() for _ in range(count)]
    if shape == TOKENS:
        x = torch.randint(7, (count, 8, *shape))
    else:
        x = torch.randn(count, 8, *shape, dtype=dtype) * 3
        with torch.no_grad():
            for model in models:
                model(x[0, :2].float())  # lazy layers
    return [model.to(dtype) for model in models], x, torch.randint(4, (count, 8))


def inputs_of(x):
    rows = torch.arange(len(x)).unsqueeze(1)
    return lambda positions: x[rows, positions].flatten(0, 1)


PRIVATE = {
    "noise_multiplier": 1e-12,
    "max_grad_norm": 2.0,
    "expected_batch_size": 4,
    "max_physical_batch_size": 2,
}


def sgd(model):
    return torch.optim.SGD(model.parameters(), lr=1.0)


@pytest.mark.parametrize("small", [10**9, 0], ids=["as one", "one by one"])
@pytest.mark.parametrize("private", [True, False], ids=["private", "plain"])
@pytest.mark.parametrize("name", MODELS)
def test_a_step_is_that_of_each_model_alone(name, private, small, monkeypatch):
    """In double precision, with batches of different lengths, in physical batches of two."""
    monkeypatch.setattr(stacked_layers, "SMALL_CONVOLUTION", small)
    models, x, labels = made(name)
    alone, whole = copy.deepcopy(models), stacked(models)
    if private:
        batches = [torch.tensor([0, 3, 5, 7]), torch.arange(0), torch.tensor([6])]
        generators = [torch.Generator().manual_seed(i) for i in range(3)]
        trainer = StackedDPSGD(whole, sgd(whole), noise_generators=generators, **PRIVATE)
    else:
        batches = [torch.tensor([0, 3, 5, 7]), torch.arange(3), torch.tensor([6])]
        trainer = StackedPlainTrainer(whole, sgd(whole), 2)
    totals = trainer.step(batches, inputs_of(x), labels)
    unstack(whole, models)
    for s, model in enumerate(alone):
        one = DPSGD(model, sgd(model), **PRIVATE) if private else PlainTrainer(model, sgd(model), 9)
        total = one.step(batches[s], x[s].__getitem__, labels[s])
        torch.testing.assert_close(totals[s], total, check_dtype=False)
        for mine, other in zip(models[s].parameters(), model.parameters(), strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", ["lo", "inf"])
@pytest.mark.parametrize(
    "large", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["digits", "cifar10"]
)
def test_cnns_together_as_alone(tmp_path, monkeypatch, kind, large):
    """The network of CIFAR-10, and a small one of the digits, by a fleet's own code."""
    if large:
        sizes = {"len_training": 12, "len_challenge": 3, "batch_size": 4, "num_epochs": 1}
        settings = resolve({"scenario": f"cifar10_{kind}", **sizes})
        images = torch.randn(40, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        data, count = ArrayDataset(images, torch.arange(40) % 10, torch.clone), 2
    else:
        monkeypatch.setitem(architectures.ARCHITECTURES, "digits_mlp", SmallCNN)
        settings, data, count = settings_of(f"digits_{kind}"), blobs(), 4
    settings = replace(settings, optimizer="sgd", learning_rate=0.1)
    runs = runs_in(tmp_path / "together", count)
    list(train_many(settings, data, runs, stack=count, progress=False))
    for run in runs:
        folder = tmp_path / "alone" / run.folder.name
        one = replace(settings, train_seed=run.train_seed)
        train_model(one, data, run.seeds, folder, progress=False)
        mine = weights(run.folder)
        for name, value in weights(folder).items():
            torch.testing.assert_close(mine[name], value, rtol=1e-5, atol=1e-5)


def test_norms_that_rounding_hides_are_computed_anew_in_a_stack(monkeypatch):
    """Two positions whose gradients cancel: the pairs' sum has no digits left."""

    class Difference(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(64, 64)

        def forward(self, x):
            y = self.inner(x)
            return (y[:, 0] - y[:, 1])[:, :4] * 100

    torch.manual_seed(0)
    models = [Difference() for _ in range(3)]
    x = torch.randn(3, 6, 1, 64).expand(3, 6, 2, 64) * 300
    x = x + torch.randn(3, 6, 2, 64) * torch.tensor([1e-3, 1.0]).repeat(3).view(1, 6, 1, 1)
    labels = torch.randint(4, (3, 6))
    apart = []
    real = Rule.set_apart

    def seen(self, at):
        apart.append(at)
        real(self, at)

    monkeypatch.setattr(Rule, "set_apart", seen)
    alone, whole = copy.deepcopy(models), stacked(models)
    options = {**PRIVATE, "max_physical_batch_size": 9}
    generators = [torch.Generator().manual_seed(i) for i in range(3)]
    trainer = StackedDPSGD(whole, sgd(whole), noise_generators=generators, **options)
    trainer.step([torch.arange(6)] * 3, inputs_of(x), labels)
    assert apart and all(len(at) for at in apart)
    for s, model in enumerate(alone):
        before = model.inner.weight.detach().clone()
        DPSGD(model, sgd(model), **options).step(torch.arange(6), x[s].__getitem__, labels[s])
        moved = before - model.inner.weight
        of_stack = before - whole.inner.weight[s]
        torch.testing.assert_close(of_stack, moved, rtol=1e-3, atol=1e-4)


# -- what does not stack -----------------------------------------------------------------------


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(6, 6)

    def forward(self, x):
        return self.a(torch.tanh(self.a(x)))


class OwnParameter(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.scale = nn.Linear(6, 4), nn.Parameter(torch.ones(4))

    def forward(self, x):
        return self.a(x) * self.scale


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 6)
        self.b.weight = self.a.weight

    def forward(self, x):
        return self.b(self.a(x))


@pytest.mark.parametrize(
    ("model", "fault"),
    [
        (nn.Sequential(nn.Conv2d(2, 2, 3), nn.BatchNorm2d(2)), r"layer 1 \(BatchNorm2d\)"),
        (nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4, affine=False)), r"layer 1 \(Batch"),
        (nn.Conv2d(2, 2, 3, padding="same"), r"layer model \(Conv2d\) has no form .* its padding"),
        (nn.Conv2d(2, 2, 3, padding=1, padding_mode="reflect"), "its padding is not by"),
        (nn.Embedding(3, 3, max_norm=1.0), "max_norm"),
        (nn.GRU(6, 4), r"layer model \(GRU\) has no form for stacks"),
        (OwnParameter(), r"layer model \(OwnParameter\)"),
        (Tied(), r"parameter b\.weight is shared with a\.weight"),
        (nn.utils.spectral_norm(nn.Linear(6, 4)), "has hooks"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_layers_without_a_form_for_stacks_are_named(model, fault):
    with pytest.raises(ValueError, match=rf"do not stack: .*{fault}"):
        stacked([model, copy.deepcopy(model)])
    assert fault_of_stacking(model)


def in_between(change):
    class Between(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 4)

        def forward(self, x):
            return self.b(change(self, self.a(x)))

    return Between()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda self, x: x - x.mean(0), "compute something else than alone"),
        (lambda self, x: functional.batch_norm(x, None, None, training=True), "something else"),
        (lambda self, x: x / len(x), "compute something else"),
        (lambda self, x: functional.dropout(x, 0.1), "draw random numbers"),
        (lambda self, x: x + self.a(torch.ones(3, 6)).mean(0), "compute something else"),
        (lambda self, x: x + self.a(torch.ones(1, 6)), "got 1 rows, which is no multiple"),
    ],
)
def test_code_that_a_stack_would_change_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        check_stacking(in_between(change), torch.randn(4, 6))


def test_layers_that_take_another_models_weights_are_found(monkeypatch):
    real = stacked_layers.StackedConv2d.forward

    def rolled(self, x):
        return real(self, self.by_model(x).roll(1, 0).flatten(0, 1))

    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten(), nn.Linear(48, 4))
    check_stacking(model, torch.randn(4, *IMAGE))
    monkeypatch.setattr(stacked_layers.StackedConv2d, "forward", rolled)
    with pytest.raises(ValueError, match="something else than alone"):
        check_stacking(model, torch.randn(4, *IMAGE))


def test_a_trial_of_a_stack_leaves_the_model_and_the_random_numbers_as_they_were():
    model, state = CNN(), torch.get_rng_state()
    before = copy.deepcopy(model.state_dict())
    check_stacking(model, torch.randn(4, 3, 32, 32, generator=torch.Generator()))
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_a_layer_that_is_called_twice_is_refused_in_private_stacks():
    models = [Twice() for _ in range(2)]
    whole = stacked(models)
    generators = [torch.Generator() for _ in models]
    trainer = StackedDPSGD(whole, sgd(whole), noise_generators=generators, **PRIVATE)
    with pytest.raises(ValueError, match="Layer a is called twice in one forward pass"):
        x = torch.randn(2, 5, 6)
        trainer.step([torch.arange(3)] * 2, inputs_of(x), torch.zeros(2, 5, dtype=torch.long))


def test_a_fleet_of_what_does_not_stack_is_refused_with_the_reason(tmp_path):
    settings = settings_of("digits_lo", grad_sample_mode="hooks")
    with pytest.raises(ValueError, match="digits do not stack, so .* grad_sample_mode hooks"):
        list(train_many(settings, blobs(), runs_in(tmp_path), stack=2))


def text_settings(folder, sentences, dropout):
    sizes = {"vocab_size": 290, "hidden_size": 16, "num_layers": 1, "num_heads": 2}
    base = make_small_roberta(folder / f"base{dropout}", sentences, **sizes)
    config = json.loads((base / "config.json").read_text())
    rates = ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout")
    config.update(dict.fromkeys(rates, dropout))
    (base / "config.json").write_text(json.dumps(config))
    small = {"len_training": 40, "len_challenge": 10, "batch_size": 10, "num_epochs": 1}
    return base, resolve({"scenario": "sst2_lo", "model_name": str(base), **small})


def test_text_models_together_as_alone_unless_they_have_dropout(tmp_path):
    words = "a the film plot is was good bad dull charming slow funny".split()
    sentences = [" ".join(words[i % 7 : i % 7 + 2 + i % 5]) for i in range(120)]
    dataset = TextDataset(sentences, torch.arange(120) % 2, torch.arange(120))
    base, settings = text_settings(tmp_path, sentences, 0.1)
    runs = runs_in(tmp_path / "together", 2)
    with pytest.raises(ValueError, match="sst2 do not stack.*draw random numbers .dropout"):
        list(train_many(settings, prepare("sst2", dataset, base)[0], runs, stack=2))
    base, settings = text_settings(tmp_path, sentences, 0.0)
    settings = replace(settings, optimizer="sgd", learning_rate=0.1)
    tokens, tokenizer = prepare("sst2", dataset, base)
    options = {"tokenizer": tokenizer, "progress": False}
    told = list(train_many(settings, tokens, runs, stack=2, **options))
    for run, metadata in zip(runs, told):
        folder = tmp_path / "alone" / run.folder.name
        one = replace(settings, train_seed=run.train_seed)
        alone = train_model(one, tokens, run.seeds, folder, **options)
        assert metadata["architecture_fingerprint"] == alone["architecture_fingerprint"]
        assert {p.name for p in folder.iterdir()} == {p.name for p in run.folder.iterdir()}
        mine = load_file(run.folder / "model.safetensors")
        for name, value in load_file(folder / "model.safetensors").items():
            torch.testing.assert_close(mine[name], value, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("lengths", [[[3, 0], [0, 2], [5, 1]], [[0, 0], [0, 0]]])
def test_the_batches_of_an_epoch_of_a_stack_are_those_that_were_drawn(lengths):
    steps = [[torch.arange(length) + 7 * length for length in step] for step in lengths]
    made = list(stacked_batches(steps, torch.device("cpu")))
    assert [[len(batch) for batch in batches] for batches in made] == lengths
    assert [[batch.tolist() for batch in batches] for batches in made] == [
        [batch.tolist() for batch in step] for step in steps
    ]
    assert all(batches.lengths.tolist() == step for batches, step in zip(made, lengths))
    longest = max(map(max, lengths))
    assert all(batches.positions.shape == (2, longest) for batches in made)
