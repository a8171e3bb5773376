"""The memory of a stack: the formula against what a process takes, and stacks that do not fit."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers_data import blobs
from test_stacks import SmallCNN
from test_train_many import runs_in, settings_of
from torch import nn

from mico_competition.models.architectures import MLP
from mico_competition.training import stack_memory
from mico_competition.training.stack_memory import (
    Sizes,
    check_memory,
    most_models,
    sizes_of,
    stack_bytes,
)
from mico_competition.training.stacked_layers import SMALL_CONVOLUTION
from mico_competition.training.train_many import train_many

HELPER = str(Path(__file__).with_name("helpers_stack_memory.py"))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("kind", "run", "stack", "physical"),
    [
        ("mlp", "private", 40, 4096),
        ("mlp", "private", 40, 32),
        ("mlp", "plain", 40, 4096),
        ("mlp", "plain", 40, 32),
        ("cnn", "private", 4, 32),
        ("cnn", "private", 6, 2),
        ("cnn", "plain", 6, 16),
        ("small_cnn", "private", 50, 128),
        ("small_cnn", "plain", 50, 128),
        ("norm_cnn", "private", 6, 32),
        ("text", "private", 12, 32),
        ("text", "plain", 12, 32),
        ("wide_text", "private", 3, 16),
        ("wide_text", "plain", 4, 32),
    ],
)
def test_the_formula_is_a_bound_within_a_factor_of_two_of_what_is_taken(kind, run, stack, physical):
    """In a process of its own, whose two steps take as many records as a batch may have."""
    if "text" in kind:
        pytest.importorskip("transformers")
    command = [sys.executable, HELPER, kind, run, str(stack), str(physical)]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    measured, formula = map(int, told.split())
    assert formula / 2 < measured < formula, (measured, formula)


def test_sizes_are_those_of_the_layers():
    """The loss of the trial is a logsumexp, which leaves its input and its output."""
    made = MLP(6, 5, 4), torch.zeros(1, 6)
    plain, private = (sizes_of(*made, private) for private in (False, True))
    for sizes in (plain, private):
        assert (sizes.weights, sizes.inputs) == (6 * 5 + 5 + 5 * 4 + 4, 6)
        assert (sizes.left, sizes.largest) == (5 + 4 + 1, 5)
    assert (plain.gradients, plain.kept, plain.norms) == (0, 0, 0)
    assert (private.gradients, private.kept) == (5 + 4, 6 + 5 + 5 + 4)
    assert 0 < private.norms < 10 and private.convolutions == ()


def test_sizes_of_convolutions():
    plain, private = (sizes_of(SmallCNN(), torch.zeros(1, 64), each) for each in (False, True))
    assert plain.inputs == private.inputs == 64
    assert private.largest == 8 * 64
    # Tanh's output, MaxPool's indices of 8 bytes, the next convolution's input, ReLU's output; as a
    # group of one convolution, that input is a copy, and the rule records what was copied.
    assert plain.left == 8 * 64 + 2 * 8 * 16 + 8 * 16 + 12 * 4 + 10 + 1
    assert private.left == plain.left + 8 * 16
    assert private.gradients == 8 * 64 + 12 * 4 + 10
    assert private.kept == 64 + 8 * 64 + 8 * 16 + 12 * 4 + 48 + 10
    assert [work for _, work in private.convolutions] == [8 * 9 * 64, 12 * 72 * 4]
    assert all(numbers > 0 for numbers, _ in private.convolutions)


def test_where_gradients_of_examples_are_more_than_what_they_follow_from_they_count():
    """A layer of 12 x 4 weights on 3 positions keeps 52 numbers for each example, not 3 * 16."""
    model = nn.Sequential(nn.Linear(12, 4), nn.Flatten(), nn.Linear(12, 2))
    sizes = sizes_of(model, torch.zeros(1, 3, 12), True)
    assert sizes.kept == max(3 * (12 + 4), 12 * 4 + 4) + 12 + 2


def test_a_large_convolution_computes_norms_for_one_model_at_a_time():
    sizes = Sizes(1, 1, left=0, largest=0, kept=10, convolutions=((100, SMALL_CONVOLUTION / 4),))
    assert sizes.made(7, 4) == 4 * (7 * 10 + 7 * 100)
    assert sizes.made(7, 5) == 5 * (7 * 10 + 100)


def test_bytes_grow_with_each_part():
    sizes = Sizes(weights=59, inputs=6, left=10, largest=5)
    settings = settings_of("digits_inf", optimizer="sgd", max_physical_batch_size=10)
    of_one = 4 * (59 * 5 + 10 * (3 * 6 + 2.4 * (10 + 5))) + 40 * 190
    assert [stack_bytes(settings, sizes, stack) - 16_000_000 for stack in (1, 7)] == [
        of_one, 7 * of_one,
    ]  # fmt: skip
    adam = replace(settings, optimizer="adam")
    assert stack_bytes(adam, sizes, 1) == 16_000_000 + of_one + 4 * 59 * 3
    free = [16_000_000 + part for part in (of_one - 1, of_one, 5 * of_one, 6 * of_one - 1)]
    assert [most_models(settings, sizes, each) for each in free] == [0, 1, 5, 5]


def test_a_private_run_takes_what_its_checks_or_its_steps_take():
    settings = replace(settings_of("digits_lo", optimizer="sgd"), max_physical_batch_size=10)
    small = Sizes(weights=59, inputs=6, left=10, largest=5, gradients=9, kept=15)
    rest = 16_000_000 + 40 * 190 + 4 * 10 * 8 * 6
    checks = 17 * 59 + 1.9 * 5 * (10 + 9 + 5)
    assert stack_bytes(settings, small, 1) == pytest.approx(rest + 4 * checks, abs=1)
    large = replace(small, left=1000)
    step = 6 * 59 + 1.9 * 10 * (1000 + 9 + 5)
    assert stack_bytes(settings, large, 1) == pytest.approx(rest + 4 * step, abs=1)
    norms = replace(small, kept=2000, norms=30)
    step = 6 * 59 + 1.9 * 10 * (2000 + 5 + 30)
    assert stack_bytes(settings, norms, 1) == pytest.approx(rest + 4 * step, abs=1)


def test_a_stack_that_does_not_fit_is_refused_with_the_stack_that_does(tmp_path, monkeypatch):
    settings = settings_of("digits_inf", max_physical_batch_size=10)
    sizes = sizes_of(MLP(64, 256, 10, gain=64.0), torch.zeros(1, 64), False)
    monkeypatch.setattr(stack_memory, "all_memory", lambda: stack_bytes(settings, sizes, 3))
    list(train_many(settings, blobs(), runs_in(tmp_path / "a", 3), stack=3, progress=False))
    with pytest.raises(ValueError, match="stack of 4 models of task digits takes .* --stack 3 or"):
        list(train_many(settings, blobs(), runs_in(tmp_path / "b", 4), stack=4, progress=False))


def test_the_count_leaves_the_model_and_the_random_numbers_as_they_were():
    model, state = MLP(6, 5, 4), torch.get_rng_state()
    before = [p.detach().clone() for p in model.parameters()]
    sizes_of(model, torch.zeros(1, 6), True)
    assert torch.equal(state, torch.get_rng_state())
    assert all(p.grad is None and torch.equal(p, b) for p, b in zip(model.parameters(), before))


def test_models_that_do_not_stack_are_left_to_the_check_that_says_why():
    settings = settings_of("digits_lo")
    model = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4))
    check_memory(settings, model, torch.zeros(1, 6), 10**9)
    with pytest.raises(ValueError, match="A stack of 1000000000 models"):
        check_memory(settings, nn.Linear(6, 4), torch.zeros(1, 6), 10**9)
