"""What a GPU computes is what a CPU computes; the whole way from training to attack runs on one."""

import copy

import numpy as np
import pytest
import torch
from helpers_models import batch as batch_of
from helpers_models import write_base
from torch import nn

import mico_competition as mico
from mico_competition.competition.splits import derive_seeds
from mico_competition.competition.table import TASKS
from mico_competition.models.architectures import MLP, new_model
from mico_competition.training.dpsgd import DPSGD, GRAD_SAMPLE_MODES
from mico_competition.training.secure_random import SecureGenerator
from mico_competition.training.settings import resolve
from mico_competition.training.stacked_model import stacked as stack_of
from mico_competition.training.stacked_model import unstack
from mico_competition.training.stacked_step import StackedDPSGD
from mico_competition.training.streams import Streams, seeded
from mico_competition.training.train import fit_records

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

N, CLASSES = 60, 3


@pytest.fixture(autouse=True)
def exact():
    """Products in full float32, so that a GPU's results can be held against a CPU's."""
    parts = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [part.allow_tf32 for part in parts]
    for part in parts:
        part.allow_tf32 = False
    yield
    for part, value in zip(parts, before):
        part.allow_tf32 = value


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, CLASSES))


def records():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(N, 4, generator=generator), torch.arange(N) % CLASSES


def to(inputs, device):
    if isinstance(inputs, dict):
        return {name: value.to(device) for name, value in inputs.items()}
    return inputs.to(device)


def rows(inputs, at):
    if isinstance(inputs, dict):
        return {name: value[at] for name, value in inputs.items()}
    return inputs[at]


def stepped(model, inputs, labels, mode, device, norm=0.5):
    """The model's change by a private step whose noise is negligible."""
    model = copy.deepcopy(model).to(device)
    before = [p.detach().clone() for p in model.parameters()]
    trainer = DPSGD(
        model,
        torch.optim.SGD(model.parameters(), lr=1.0),
        noise_multiplier=1e-10,
        max_grad_norm=norm,
        expected_batch_size=len(labels),
        max_physical_batch_size=5,
        grad_sample_mode=mode,
        noise_generator=torch.Generator(device).manual_seed(1),
    )
    inputs, labels = to(inputs, device), labels.to(device)
    trainer.step(torch.arange(len(labels), device=device), lambda at: rows(inputs, at), labels)
    return torch.cat([(n.detach() - o).flatten() for n, o in zip(model.parameters(), before)]).cpu()


@pytest.mark.parametrize("mode", GRAD_SAMPLE_MODES)
@pytest.mark.parametrize("task", sorted(TASKS))
def test_a_private_step_is_that_of_a_cpu(task, mode, tmp_path):
    base = write_base(tmp_path) if TASKS[task].text else None
    torch.manual_seed(0)
    model = new_model(TASKS[task], base_model=base)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    inputs = batch_of(task)
    inputs = inputs if isinstance(inputs, dict) else torch.cat([inputs] * 3)
    count = len(next(iter(inputs.values()))) if isinstance(inputs, dict) else len(inputs)
    labels = torch.arange(count) % 2
    cpu, gpu = (stepped(model, inputs, labels, mode, device) for device in ("cpu", "cuda"))
    assert 0 < float(cpu.norm()) <= 0.5 * 1.001
    torch.testing.assert_close(gpu, cpu, rtol=2e-3, atol=2e-5 * float(cpu.norm()))


@pytest.mark.parametrize("secure", [False, True])
def test_the_noise_of_a_gpu_has_the_deviation_that_is_claimed(secure):
    model = nn.Linear(400, 500, bias=False).cuda()
    before = model.weight.detach().clone()
    generator = SecureGenerator("cuda") if secure else torch.Generator("cuda").manual_seed(3)
    trainer = DPSGD(
        model,
        torch.optim.SGD(model.parameters(), lr=1.0),
        noise_multiplier=2.0,
        max_grad_norm=1.5,
        expected_batch_size=4,
        max_physical_batch_size=8,
        noise_generator=generator,
    )
    empty = torch.arange(0, device="cuda")
    inputs, labels = torch.randn(9, 400, device="cuda"), torch.zeros(9, dtype=int, device="cuda")
    trainer.step(empty, lambda at: inputs[at], labels)
    noise = (before - model.weight.detach()).flatten() * 4
    count = noise.numel()
    assert abs(float(noise.std()) / 3.0 - 1) < 5 / (2 * count) ** 0.5
    assert abs(float(noise.mean())) < 5 * 3.0 / count**0.5


def test_a_stack_takes_the_steps_of_each_model_alone():
    torch.manual_seed(0)
    models = [MLP(6, 8, 4).cuda() for _ in range(3)]
    alone = [copy.deepcopy(model) for model in models]
    inputs, labels = torch.randn(20, 6).cuda(), (torch.arange(20) % 4).cuda()
    arguments = {
        "noise_multiplier": 1e-10,
        "max_grad_norm": 0.7,
        "expected_batch_size": 10,
        "max_physical_batch_size": 50,
    }
    stacked = stack_of(models)
    trainer = StackedDPSGD(
        stacked,
        torch.optim.SGD(stacked.parameters(), lr=1.0),
        noise_generators=[torch.Generator("cuda").manual_seed(s) for s in range(3)],
        **arguments,
    )
    batches = tuple(torch.arange(10, device="cuda") + 5 * s for s in range(3))
    trainer.step(batches, lambda at: inputs[at].flatten(0, 1), labels.expand(3, -1))
    unstack(stacked, models)
    for number, model in enumerate(alone):
        single = DPSGD(model, torch.optim.SGD(model.parameters(), lr=1.0), **arguments)
        single.step(batches[number], lambda at: inputs[at], labels)
        for one, other in zip(model.parameters(), models[number].parameters()):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def private_trainer(seed=7, **changes):
    model = net().cuda()
    return mico.PrivateTrainer(
        model,
        torch.optim.Adam(model.parameters(), lr=0.05),
        target_epsilon=4,
        target_delta=1e-5,
        num_records=N,
        batch_size=20,
        epochs=4,
        max_grad_norm=1.0,
        seed=seed,
        **changes,
    )


def run(trainer, steps=None):
    inputs, labels = (part.cuda() for part in records())
    for batch in trainer.batches(steps):
        at = batch.cuda()
        trainer.step(inputs[at], labels[at])
    return trainer


def test_a_private_run_repeats_and_goes_on_from_its_state():
    whole, again = run(private_trainer()), run(private_trainer())
    half = run(private_trainer(), 5)
    state = copy.deepcopy((half.model.state_dict(), half.optimizer.state_dict(), half.state_dict()))
    del half
    resumed = private_trainer()
    for part, saved in zip((resumed.model, resumed.optimizer, resumed), state):
        part.load_state_dict(saved)
    run(resumed)
    for other in (again, resumed):
        for one, two in zip(whole.model.parameters(), other.model.parameters()):
            assert one.is_cuda and torch.equal(one, two)
    assert resumed.certificate() == whole.certificate()
    assert 0 < whole.certificate()["epsilon"] <= 4


def make_model():
    return nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, CLASSES))


def train_on_gpu(model, subset):
    inputs, labels = (torch.as_tensor(part).cuda() for part in subset)
    model.cuda()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), labels).backward()
        optimizer.step()


def test_shadows_trained_on_a_gpu_repeat_and_are_attacked():
    inputs, labels = records()
    noisy = (labels + (torch.arange(N) % 5 == 0)) % CLASSES  # what is only to be learnt by heart
    options = {"count": 8, "seed": 3, "progress": False}
    data = (inputs.numpy(), noisy.numpy())
    pool = mico.train_shadows(make_model, train_on_gpu, data, **options)
    twice = mico.train_shadows(make_model, train_on_gpu, data, **options)
    np.testing.assert_array_equal(pool.signal("loss"), twice.signal("loss"))
    found = mico.evaluate(pool, ["loss", "lira-online-global", "whitebox"])
    assert list(found.to_frame().index) == ["loss", "lira-online-global", "whitebox"]


@pytest.mark.parametrize("name", ["loss", "logit", "entropy", "log_gradient_norm"])
def test_signals_of_a_pool_on_a_gpu_are_those_on_a_cpu(name):
    inputs, labels = records()
    torch.manual_seed(2)
    models = [make_model() for _ in range(4)]
    membership = torch.rand(4, N) < 0.5
    pools = [
        mico.ModelPool.from_models(models, inputs, labels, membership, device=device)
        for device in ("cpu", "cuda")
    ]
    cpu, gpu = (pool.signal(name) for pool in pools)
    np.testing.assert_allclose(gpu, cpu, rtol=1e-4, atol=1e-5)


def test_a_seed_gives_the_batches_and_so_the_plain_model_of_a_cpu(data):
    settings = resolve({"scenario": "digits_inf", "num_epochs": 3})
    streams, trained = Streams.of(5, derive_seeds(5)), []
    for device in ("cpu", "cuda"):
        with seeded(streams, deterministic=True):
            model = new_model(TASKS["digits"]).to(device)
        here = data.to(torch.device(device))
        fit_records(settings, model, here, torch.arange(settings.len_training), streams, False)
        trained.append(torch.cat([p.detach().flatten().cpu() for p in model.parameters()]))
    torch.testing.assert_close(trained[0], trained[1], rtol=1e-2, atol=1e-3)
