"""The memory of a stack: the formula against what a process takes, and stacks that do not fit."""

import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from helpers_data import blobs
from test_stacks import SmallCNN
from test_train_many import runs_in, settings_of

from mico_competition.models.architectures import MLP
from mico_competition.training import stack_memory
from mico_competition.training.settings import resolve
from mico_competition.training.stack_memory import most_models, sizes_of, stack_bytes
from mico_competition.training.train_many import train_many

# Trains two steps of a stack, and prints by how much memory grew at most; a stack of two has run
# before, so that what torch loads at its first steps does not count.
MEASURE = """
import sys, torch
from mico_competition.data.arrays import ArrayDataset
from mico_competition.models.architectures import MLP
from mico_competition.support.memory_limits import PeakMemory
from mico_competition.training.accounting import Mechanism
from mico_competition.training.settings import resolve
from mico_competition.training.streams import Streams
from mico_competition.training.train_stack import fit_stack_records

torch.set_num_threads(1)
settings = resolve({"scenario": sys.argv[1], "len_training": 2000, "num_epochs": 1})
data = ArrayDataset(torch.rand(4000, 600), torch.arange(4000) % 100, torch.clone)
mechanism = None
if not settings.disable_dp:
    mechanism = Mechanism(1.0, settings.sample_rate, settings.num_steps)


class Enough(Exception):
    pass


class Two:
    steps = 0

    def start(self, optimizer):
        pass

    def before(self, batch):
        self.steps += 1
        if self.steps > 2:
            raise Enough


def train(count):
    models = [MLP() for _ in range(count)]
    rows = torch.stack([torch.randperm(4000)[:2000] for _ in models])
    streams = [Streams(i, i, i) for i in range(count)]
    options = {"observer": Two(), "mechanism": mechanism}
    try:
        fit_stack_records(settings, models, data, rows, streams, False, **options)
    except Enough:
        pass


train(2)
peak = PeakMemory()  # getrusage would give the peak of the process that started this one
train(int(sys.argv[2]))
print(peak.growth())
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("scenario", ["purchase100_inf", "purchase100_lo"])
def test_the_formula_is_within_a_factor_of_two_of_what_is_taken(scenario):
    stack = 40
    run = [sys.executable, "-c", MEASURE, scenario, str(stack)]
    measured = int(subprocess.run(run, check=True, capture_output=True, text=True).stdout)
    settings = resolve({"scenario": scenario, "len_training": 2000, "num_epochs": 1})
    formula = stack_bytes(settings, sizes_of(MLP(), torch.zeros(1, 600)), stack)
    assert formula / 2 < measured < formula * 1.25, (formula, measured)


def test_sizes_are_those_of_the_layers():
    sizes = sizes_of(MLP(6, 5, 4), torch.zeros(1, 6))
    assert (sizes.weights, sizes.inputs, sizes.outputs) == (6 * 5 + 5 + 5 * 4 + 4, 6, 5 + 5 + 4)
    assert (sizes.patches, sizes.work) == (0, 0)
    sizes = sizes_of(SmallCNN(), torch.zeros(1, 64))
    outputs = 2 * 8 * 64 + 8 * 16 + 2 * 12 * 4 + 48 + 10
    assert (sizes.inputs, sizes.outputs) == (64, outputs)
    assert (sizes.patches, sizes.work) == (9 * 64, 8 * 9 * 64)


def test_bytes_grow_with_each_part():
    sizes = sizes_of(MLP(6, 5, 4), torch.zeros(1, 6))
    settings = settings_of("digits_inf", optimizer="sgd", max_physical_batch_size=10)
    of_one = 4 * (59 * 4 + 10 * (2 * 6 + 4 * 14)) + 40 * 190
    assert [stack_bytes(settings, sizes, stack) for stack in (1, 7)] == [of_one, 7 * of_one]
    adam = replace(settings, optimizer="adam")
    assert stack_bytes(adam, sizes, 1) == of_one + 4 * 59 * 2
    private = replace(settings_of("digits_lo", optimizer="sgd"), max_physical_batch_size=10)
    assert stack_bytes(private, sizes, 1) == of_one + 4 * (59 + 10 * (3 * 6 + 2 * 14))
    assert [most_models(settings, sizes, free) for free in (of_one - 1, of_one, 5 * of_one)] == [
        0, 1, 5,
    ]  # fmt: skip


def test_a_stack_that_does_not_fit_is_refused_with_the_stack_that_does(tmp_path, monkeypatch):
    settings = settings_of("digits_inf", max_physical_batch_size=10)
    each = stack_bytes(settings, sizes_of(MLP(64, 256, 10), torch.zeros(1, 64)), 1)
    monkeypatch.setattr(stack_memory, "all_memory", lambda: 3 * each)
    list(train_many(settings, blobs(), runs_in(tmp_path / "a", 3), stack=3, progress=False))
    with pytest.raises(ValueError, match="stack of 4 models of task digits takes .* --stack 3 or"):
        list(train_many(settings, blobs(), runs_in(tmp_path / "b", 4), stack=4, progress=False))
