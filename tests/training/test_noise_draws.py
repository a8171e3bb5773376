"""Noise is drawn for each model from its own generator, at once on a GPU, alone and in a stack."""

import collections
import copy

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mico_competition.models.architectures import MLP
from mico_competition.training import private_optimizer, stacked_step
from mico_competition.training.dpsgd import DPSGD
from mico_competition.training.private_optimizer import gaussian_like, one_draw
from mico_competition.training.secure_random import SecureGenerator
from mico_competition.training.stacked_model import stacked, unstack
from mico_competition.training.stacked_step import StackedDPSGD

COUNT = 3
PRIVATE = {
    "noise_multiplier": 1.5,
    "max_grad_norm": 2.0,
    "expected_batch_size": 4,
    "max_physical_batch_size": 8,
}


class Counter(TorchDispatchMode):
    """Counts operations by name."""

    def __init__(self):
        super().__init__()
        self.seen = collections.Counter()

    def __torch_dispatch__(self, operation, types, arguments=(), named=None):
        self.seen[operation.overloadpacket.__name__] += 1
        return operation(*arguments, **(named or {}))


@pytest.fixture(params=[False, True], ids=["one by one", "at once"])
def at_once(request, monkeypatch):
    """Whether noise is drawn at once, as on a GPU."""
    for module in (private_optimizer, stacked_step):
        monkeypatch.setattr(module, "one_draw", lambda *_: request.param)
    return request.param


def models_on(device="cpu"):
    torch.manual_seed(0)
    return [MLP(6, 8, 4).to(device) for _ in range(COUNT)]


def seeded(number, device="cpu"):
    return torch.Generator(device).manual_seed(number)


def trainer_of(models, device="cpu"):
    """The models as one, and their trainer; model s has the noise of seed s."""
    whole = stacked(models)
    noise_generators = [seeded(number, device) for number in range(COUNT)]
    optimizer = torch.optim.SGD(whole.parameters(), lr=1.0)
    return whole, StackedDPSGD(whole, optimizer, noise_generators=noise_generators, **PRIVATE)


def assert_stack_is_alone(device="cpu"):
    """Two steps of a stack are those of its models alone, noise among them."""
    models = models_on(device)
    others = copy.deepcopy(models)
    inputs, labels = torch.randn(20, 6).to(device), (torch.arange(20) % 4).to(device)
    whole, trainer = trainer_of(models, device)
    steps = [[torch.arange(4, device=device) + 5 * s + t for s in range(COUNT)] for t in (0, 1)]
    for batches in steps:
        trainer.step(batches, lambda at: inputs[at].flatten(0, 1), labels.expand(COUNT, -1))
    unstack(whole, models)
    for number, model in enumerate(others):
        first = [parameter.detach().clone() for parameter in model.parameters()]
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        single = DPSGD(model, optimizer, noise_generator=seeded(number, device), **PRIVATE)
        for batches in steps:
            single.step(batches[number], lambda at: inputs[at], labels)
        for one, other, before in zip(model.parameters(), models[number].parameters(), first):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
            assert float((one.detach() - before).std()) > 0.3  # the noise is there


def test_the_noise_of_a_stack_is_that_of_its_models_alone(at_once):
    assert_stack_is_alone()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_noise_of_a_stack_on_a_gpu_is_that_of_its_models_alone():
    assert one_draw(list(MLP(6, 8, 4).cuda().parameters()), seeded(0, "cuda"))
    assert_stack_is_alone("cuda")


def test_a_step_draws_once_for_each_model_where_it_draws_at_once(at_once):
    models = models_on()
    _, trainer = trainer_of(models)
    labels = torch.zeros(COUNT, 9, dtype=torch.int64)
    with Counter() as counter:
        trainer.step([torch.arange(0)] * COUNT, lambda at: None, labels)
    parameters = len(list(models[0].parameters()))
    assert counter.seen["normal_"] == COUNT * (1 if at_once else parameters)


@pytest.mark.parametrize("secure", [False, True])
def test_all_of_a_stacks_noise_is_independent_and_of_the_claimed_deviation(at_once, secure):
    torch.manual_seed(0)
    models = [MLP(60, 80, 40) for _ in range(COUNT)]
    before = [torch.cat([p.detach().flatten() for p in model.parameters()]) for model in models]
    whole, trainer = trainer_of(models)
    if secure:
        trainer.optimizer.generators = [SecureGenerator() for _ in range(COUNT)]
    labels = torch.zeros(COUNT, 9, dtype=torch.int64)
    drawn = []
    for _ in range(2):
        trainer.step([torch.arange(0)] * COUNT, lambda at: None, labels)
        unstack(whole, models)
        after = [torch.cat([p.detach().flatten() for p in model.parameters()]) for model in models]
        drawn += [(old - new) * 4 for old, new in zip(before, after)]
        before = after
    noise = torch.stack(drawn)
    count = noise.numel()
    assert abs(float(noise.std()) / 3.0 - 1) < 5 / (2 * count) ** 0.5
    assert abs(float(noise.mean())) < 5 * 3.0 / count**0.5
    others = torch.corrcoef(noise).fill_diagonal_(0)
    assert float(others.abs().max()) < 5 / noise.shape[1] ** 0.5


def test_what_is_drawn_at_once_is_like_each_tensor(at_once):
    tensors = [torch.zeros(3, 5), torch.zeros(()), torch.zeros(0, 2), torch.zeros(7)]
    noise = gaussian_like(tensors, 2.0, seeded(1))
    assert [(n.shape, n.dtype) for n in noise] == [(t.shape, t.dtype) for t in tensors]
    flat = torch.cat([n.flatten() for n in noise])
    assert len(flat.unique()) == 23


def test_a_cpu_draws_in_the_order_of_opacus_and_unlike_tensors_are_drawn_one_by_one():
    like, unlike = [torch.zeros(2), torch.zeros(3)], [torch.zeros(2), torch.zeros(3).double()]
    assert not one_draw(like, seeded(0)) and not one_draw(like, None)
    assert one_draw(like, SecureGenerator()) and not one_draw(unlike, SecureGenerator())
    noise = gaussian_like(unlike, 1.0, SecureGenerator())
    assert [n.dtype for n in noise] == [torch.float32, torch.float64]
