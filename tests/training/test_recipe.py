"""The fingerprint of training: another one after an edit of whatever decides what models learn."""

import os
import subprocess
import sys
from dataclasses import replace
from functools import partial

import pytest
import torch
from helpers_cases import one_in
from helpers_models import large_weights
from torch.nn.functional import cross_entropy

from mico_competition.competition import challenge
from mico_competition.competition.table import TASKS
from mico_competition.data.arrays import ArrayDataset, TextDataset, normalise_cifar10, unpack_bits
from mico_competition.models import architectures as models
from mico_competition.models.inputs import prepare
from mico_competition.models.small_roberta import make_small_roberta
from mico_competition.training import (
    dpsgd,
    losses,
    plain_trainer,
    secure_random,
    streams,
    train,
    train_stack,
)
from mico_competition.training import private_optimizer as optimiser
from mico_competition.training import stacked_step as stack
from mico_competition.training.recipe import training_fingerprint
from mico_competition.training.settings import resolve

SHAPES = {"cifar10": (3, 32, 32), "purchase100": (75,), "digits": (64,), "baskets": (30,)}


def records(task):
    """Records of a task's form and number, all zeros."""
    expand = {"cifar10": normalise_cifar10, "digits": torch.Tensor.float}.get(task, unpack_bits)
    length = TASKS[task].len_dataset
    storage = torch.zeros(1, *SHAPES[task], dtype=torch.uint8).expand(length, *SHAPES[task])
    return ArrayDataset(storage, torch.zeros(length), expand)


def of(scenario, **changes):
    settings = resolve({"scenario": scenario})
    return training_fingerprint(replace(settings, **changes), records(settings.task))


@pytest.fixture(scope="module")
def before():
    """Fingerprints of the code as it is, by scenario."""
    return {s: of(s) for s in ("digits_inf", "digits_hi")}


@pytest.mark.parametrize("scenario", ["digits_inf", "digits_hi", "baskets_lo", "purchase100_inf"])
def test_it_is_the_same_again_and_leaves_chance_alone(scenario):
    torch.manual_seed(3)
    state, threads = torch.random.get_rng_state(), torch.get_num_threads()
    found = of(scenario)
    torch.set_num_threads(2)
    torch.manual_seed(4)
    assert of(scenario) == found and len(found) == 64
    torch.set_num_threads(threads)
    torch.manual_seed(3)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert of(scenario, learning_rate=0.0123) != found
    assert of(scenario, precision="bfloat16") != found


@pytest.mark.slow
@pytest.mark.parametrize("scenario", ["cifar10_inf", "cifar10_lo"])
def test_images_have_one_too(scenario, no_excuse):
    assert len(of(scenario)) == 64


@pytest.fixture
def no_excuse(monkeypatch):
    """What is probed trains by records of formula: no error is hashed in the place of results."""

    def refuse(*args):
        raise AssertionError("The small run failed.")

    monkeypatch.setattr("mico_competition.training.recipe._facts_of_real_records", refuse)


@pytest.mark.parametrize("mode", dpsgd.GRAD_SAMPLE_MODES)
def test_every_mode_has_one(before, mode, no_excuse):
    found = of("digits_hi", grad_sample_mode=mode)
    assert (found == before["digits_hi"]) == (mode == "bookkeeping")


def smooth(logits, labels, part=0.5, **options):
    return cross_entropy(logits, labels, label_smoothing=part, **options)


def times_three(original):
    return lambda *args: 3 * original(*args)


def in_float32_only(logits, labels, **options):
    part = 0.1 if logits.dtype == torch.float32 else 0.0
    return cross_entropy(logits, labels, label_smoothing=part, **options)


def in_half_precision(original):
    def losses(*args):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return original(*args)

    return losses


def half_of_the_records(original):
    def batches(num_records, **options):
        for batch in original(num_records, **options):
            yield batch % (num_records // 2)

    return batches


def other_labels(original):
    def fit(settings, model, inputs, labels, *args, **options):
        return original(settings, model, inputs, labels.roll(1), *args, **options)

    return fit


def without_the_first(original):
    return lambda *args, **options: [b[1:] for b in original(*args, **options)]


def same_noise(original):
    def gaussian(tensors, std, generator):
        original(tensors, std, torch.Generator().manual_seed(0))

    return gaussian


class Decaying(torch.optim.Adam):
    def __init__(self, parameters, lr):
        super().__init__(parameters, lr, weight_decay=0.01)


def flipped(original):
    return lambda *args: original(*args).flip(0)


def one_stream(original):
    return lambda settings, seed, device: original(settings, 1, device)


BOTH, PLAIN, PRIVATE = ("digits_inf", "digits_hi"), ("digits_inf",), ("digits_hi",)
EDITS = {
    "smoothed labels": (losses, "cross_entropy", lambda _: smooth, BOTH),
    "hardly smoothed": (losses, "cross_entropy", lambda _: partial(smooth, part=0.01), BOTH),
    "smoothed in float32": (losses, "cross_entropy", lambda _: in_float32_only, BOTH),
    "three losses": (plain_trainer, "per_example_losses", times_three, PLAIN),
    "three losses, private": (dpsgd, "per_example_losses", times_three, PRIVATE),
    "three losses in stacks": (stack, "per_example_losses", times_three, PLAIN),
    "half precision": (plain_trainer, "per_example_losses", in_half_precision, PLAIN),
    "half precision, private": (dpsgd, "per_example_losses", in_half_precision, PRIVATE),
    "half precision in stacks": (stack, "per_example_losses", in_half_precision, PLAIN),
    "half of the records": (train, "shuffled_batches", half_of_the_records, PLAIN),
    "half of them, private": (train, "poisson_batches", half_of_the_records, PRIVATE),
    "short batches": (plain_trainer, "physical_batches", without_the_first, PLAIN),
    "short batches, private": (dpsgd, "physical_batches", without_the_first, PRIVATE),
    "labels rolled": (train, "fit", other_labels, BOTH),
    "labels rolled in stacks": (train_stack, "fit_stack", other_labels, BOTH),
    "splits reversed": (challenge, "permutation", flipped, BOTH),
    "one random stream of batches": (streams, "generator_of", one_stream, BOTH),
    "one random stream of noise": (train, "generator_of", one_stream, PRIVATE),
    "one random stream of noise in stacks": (train_stack, "generator_of", one_stream, PRIVATE),
    "clipped twice": (dpsgd, "clip_factors", lambda f: lambda *a: f(*a) ** 2, PRIVATE),
    "not clipped": (dpsgd, "clip_factors", lambda f: lambda n, c: torch.ones_like(n), PRIVATE),
    "less noise": (optimiser, "fill_gaussian", lambda f: lambda t, s, g: f(t, s / 2, g), PRIVATE),
    "same noise each step": (optimiser, "fill_gaussian", same_noise, PRIVATE),
    "noise shared in stacks": (stack, "fill_gaussian", same_noise, PRIVATE),
    "seeds that do not count": (
        streams.Streams,
        "of",
        lambda f: classmethod(lambda cls, seed, seeds: streams.Streams(seed, seed, seed)),
        BOTH,
    ),
}


@pytest.mark.parametrize("edit", one_in(5, EDITS))
def test_an_edit_of_training_shows(before, monkeypatch, edit):
    module, name, change, scenarios = EDITS[edit]
    monkeypatch.setattr(module, name, change(getattr(module, name)))
    for scenario in scenarios:
        assert of(scenario) != before[scenario], scenario


def test_an_edit_of_optimiser_schedule_or_first_weights_shows(before, monkeypatch):
    monkeypatch.setitem(train._OPTIMIZERS, "adam", Decaying)
    assert of("digits_inf") != before["digits_inf"]
    monkeypatch.undo()
    original = torch.optim.lr_scheduler.StepLR
    monkeypatch.setattr(
        torch.optim.lr_scheduler,
        "StepLR",
        lambda optimizer, step_size, gamma: original(optimizer, step_size, gamma * 0.99),
    )
    assert of("digits_inf") != before["digits_inf"]
    monkeypatch.undo()
    monkeypatch.setitem(models.ARCHITECTURES, "digits_mlp", large_weights)
    assert of("digits_inf") != before["digits_inf"]


def test_stacked_models_that_change_places_show(before, monkeypatch):
    original = train_stack.unstack
    monkeypatch.setattr(train_stack, "unstack", lambda whole, m: original(whole, m[::-1]))
    assert of("digits_inf") != before["digits_inf"]


def test_the_secure_generators_draws_count(monkeypatch):
    found = of("digits_hi", secure_mode=True)
    assert found == of("digits_hi", secure_mode=True)
    secure = "mico_competition.training.secure_random.SecureGenerator"
    original = secure_random.SecureGenerator.bernoulli
    monkeypatch.setattr(f"{secure}.bernoulli", lambda self, count, p: original(self, count, p / 2))
    assert of("digits_hi", secure_mode=True) != found


def test_a_network_that_cannot_be_trained_is_left_to_training(monkeypatch):
    def mixing():
        return torch.nn.Sequential(torch.nn.Linear(64, 10), torch.nn.BatchNorm1d(10))

    monkeypatch.setitem(models.ARCHITECTURES, "digits_mlp", mixing)
    assert len(of("digits_hi")) == 64


def test_text_models_have_one(tmp_path, monkeypatch, no_excuse):
    sentences = [f"a film of {word}" for word in ("joy", "mess", "plot", "fun")] * 10
    dataset = TextDataset(sentences, torch.arange(40) % 2, torch.arange(40))
    sizes = {"vocab_size": 262, "hidden_size": 16, "num_layers": 1, "num_heads": 2}
    base = make_small_roberta(tmp_path / "base", sentences, **sizes)
    tokens, _ = prepare("sst2", dataset, base)
    small = {"len_training": 20, "len_challenge": 5, "batch_size": 10, "model_name": str(base)}
    for scenario in ("sst2_inf", "sst2_hi"):
        settings = resolve({"scenario": scenario, **small})
        found = training_fingerprint(settings, tokens)
        assert training_fingerprint(settings, tokens) == found
        with monkeypatch.context() as patch:
            patch.setattr(losses, "cross_entropy", smooth)
            assert training_fingerprint(settings, tokens) != found


HASHED = """
import sys
import torch
from mico_competition.data.arrays import TextDataset
from mico_competition.models.inputs import prepare
from mico_competition.training.recipe import training_fingerprint
from mico_competition.training.settings import resolve
sentences = [f"a film of {word}" for word in ("joy", "mess", "plot", "fun")] * 10
data = TextDataset(sentences, torch.arange(40) % 2, torch.arange(40))
tokens, _ = prepare("sst2", data, sys.argv[1])
small = {"len_training": 20, "len_challenge": 5, "batch_size": 10, "model_name": sys.argv[1]}
print(training_fingerprint(resolve({"scenario": "sst2_inf", **small}), tokens))
"""


@pytest.mark.slow
def test_processors_agree_on_a_text_model(tmp_path):
    """The gradients of an attention's key bias are zero, and so rounding alone."""
    sentences = ["a film of joy", "a film of mess"]
    sizes = {"vocab_size": 262, "hidden_size": 16, "num_layers": 1, "num_heads": 2}
    base = str(make_small_roberta(tmp_path / "base", sentences, **sizes))
    found = {
        subprocess.run(
            [sys.executable, "-c", HASHED, base],
            env={**os.environ, "ATEN_CPU_CAPABILITY": kind},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for kind in ("default", "avx2", "avx512")
    }
    assert len(found) == 1 and len(found.pop().strip()) == 64
