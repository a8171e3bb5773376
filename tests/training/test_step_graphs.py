"""Steps from recorded graphs are those without: on a CPU with a stand-in, on a GPU with CUDA's."""

import copy
import logging
import random

import pytest
import torch
from helpers_bookkeeping import make, rows
from helpers_precision import trainer_in
from helpers_private_checks import Net, data, net
from torch import nn

from mico_competition.models.architectures import MLP
from mico_competition.models.precision import BFLOAT16, FLOAT32
from mico_competition.training import step_graphs
from mico_competition.training.plain_trainer import PlainTrainer
from mico_competition.training.settings import resolve
from mico_competition.training.stacked_model import stacked
from mico_competition.training.stacked_step import StackedDPSGD, StackedPlainTrainer
from mico_competition.training.step_graphs import StepGraphs

GPU = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
WHERE = ["cpu", pytest.param("cuda", marks=GPU)]
EVERYWHERE = pytest.mark.parametrize("device", WHERE)
MODELS = pytest.mark.parametrize(
    "name", ["mlp", pytest.param("cnn", marks=pytest.mark.slow), "roberta, short"]
)
LENGTHS = [9, 4, 0, 9, 1, 23, 8]  # of batches, in physical ones of 8


class StandIn:
    """Records as CUDA does: outputs lie in fixed memory, and only a replay computes them."""

    def __init__(self):
        self.recorded = self.replayed = 0

    def __call__(self, run):
        self.recorded += 1
        outputs = [output.clone().fill_(float("nan")) for output in run()]

        def replay():
            self.replayed += 1
            for own, new in zip(outputs, run(), strict=True):
                own.copy_(new)

        return outputs, replay


def with_graphs(trainer, device="cpu"):
    """The trainer with graphs, and what records them."""
    record = StandIn() if device == "cpu" else step_graphs.Recorder()
    trainer.graphs = StepGraphs(trainer._sums, trainer.model, record)
    return trainer, record


def example(name, folder, device):
    model, inputs, labels = make(name, folder, batch=30)
    inputs = inputs if isinstance(inputs, dict) else inputs.to(device)
    if isinstance(inputs, dict):
        inputs = {key: value.to(device) for key, value in inputs.items()}
    return model.to(device), inputs, labels.to(device)


def fixed(precision, model, **options):
    return trainer_in(precision, model, size=8, fixed_shapes=True, **options)


def assert_same(ends, device):
    """The weights and losses without graphs, and with them."""
    for one, other in zip(*ends, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0 if device == "cpu" else 1e-6)


@EVERYWHERE
@pytest.mark.parametrize("precision", [FLOAT32, BFLOAT16])
@MODELS
def test_weights_are_those_of_steps_without(name, precision, device, tmp_path):
    """Dropout, noise, empty batches and batches of several physical ones included."""
    start, inputs, labels = example(name, tmp_path, device)
    ends = []
    for graphs in (False, True):
        model = copy.deepcopy(start)
        trainer = fixed(precision, model)
        if graphs:
            trainer, record = with_graphs(trainer, device)
        torch.manual_seed(7)
        losses = [
            trainer.step(torch.arange(n, device=device), lambda at: rows(inputs, at), labels)
            for n in LENGTHS
        ]
        ends.append([*[p.detach() for p in model.parameters()], *losses])
    assert_same(ends, device)
    assert len(trainer.graphs._graphs) == 1 and not trainer.graphs.off
    if device == "cpu":
        assert (record.recorded, record.replayed) == (1, 2 + 1 + 2 + 1 + 3 + 1)


def records_of_three(device):
    """Inputs by position, and labels, of a stack of three."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(3, 30, 6, generator=generator).to(device)
    labels = torch.randint(3, (3, 30), generator=generator).to(device)

    def inputs(positions):
        return x.gather(1, positions.unsqueeze(2).expand(-1, -1, 6)).flatten(0, 1)

    return inputs, labels


@EVERYWHERE
def test_a_stack_takes_the_same_steps_by_graphs(device):
    ends = []
    for graphs in (False, True):
        torch.manual_seed(0)
        model = stacked([MLP(6, 5, 3) for _ in range(3)]).to(device)
        trainer = StackedDPSGD(
            model,
            torch.optim.SGD(model.parameters(), lr=1.0),
            noise_multiplier=1.0,
            max_grad_norm=1.0,
            expected_batch_size=4,
            max_physical_batch_size=8,
            fixed_shapes=True,
            noise_generators=[torch.Generator(device).manual_seed(i) for i in range(3)],
        )
        if graphs:
            trainer, _ = with_graphs(trainer, device)
        inputs, labels = records_of_three(device)
        losses = []
        for lengths in ((9, 4, 0), (1, 8, 2), (0, 0, 0), (5, 5, 5)):
            batches = [torch.arange(n, device=device) for n in lengths]
            losses.append(trainer.step(batches, inputs, labels))
        ends.append([*[p.detach() for p in model.parameters()], *losses])
    assert_same(ends, device)
    assert trainer.graphs._graphs and not trainer.graphs.off


def released(trainer, inputs, labels, steps=3):
    """The noisy gradients of steps on one batch, none of which moves the weights."""
    seen = []
    trainer.optimizer.original_optimizer.param_groups[0]["lr"] = 0.0
    trainer.optimizer.attach_step_hook(
        lambda _: seen.append(torch.cat([p.grad.flatten() for p in trainer.model.parameters()]))
    )
    for _ in range(steps):
        at = torch.arange(8, device=labels.device)
        trainer.step(at, lambda index: rows(inputs, index), labels)
    return torch.stack(seen).double()


def check_noise(noisy):
    """The noise of no two steps is the same, or resembles the other."""
    for i in range(len(noisy)):
        for j in range(i):
            apart = (noisy[i] - noisy[j]).std()
            assert 0.9 * 2**0.5 / 8 < apart < 1.1 * 2**0.5 / 8  # sigma C over the batch's length


@EVERYWHERE
def test_each_step_has_noise_of_its_own(device, tmp_path):
    model, inputs, labels = example("mlp", tmp_path, device)
    trainer, _ = with_graphs(fixed(FLOAT32, model), device)
    check_noise(released(trainer, inputs, labels))


def test_noise_that_repeats_would_be_found(tmp_path):
    """As if the noise were a part of the graph, and a replay drew the same."""
    model, inputs, labels = example("mlp", tmp_path, "cpu")
    trainer, _ = with_graphs(fixed(FLOAT32, model))
    own = trainer.optimizer.add_noise

    def again():
        trainer.optimizer.generator.manual_seed(3)
        own()

    trainer.optimizer.add_noise = again
    noisy = released(trainer, inputs, labels)
    with pytest.raises(AssertionError):
        check_noise(noisy)


@EVERYWHERE
def test_each_replay_has_dropout_of_its_own(device):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 64), nn.Dropout(0.5), nn.Linear(64, 4)).to(device)
    x, labels = (each.to(device) for each in data(model, 8))
    trainer, _ = with_graphs(fixed(FLOAT32, model), device)
    trainer.optimizer.original_optimizer.param_groups[0]["lr"] = 0.0
    at = torch.arange(8, device=device)
    losses = {float(trainer.step(at, x.__getitem__, labels)) for _ in range(5)}
    assert len(losses) == 5


def steps(trainer, x, labels, *lengths):
    for n in lengths:
        trainer.step(torch.arange(n), x.__getitem__, labels)


def test_a_graph_is_recorded_anew_where_it_would_be_wrong():
    """Weights that lie elsewhere, a layer that was switched or hooked."""
    torch.manual_seed(0)
    model = net("Dropped", lambda x: x)()
    model.dropout = nn.Dropout(0.1)
    x, labels = data(model)
    trainer, record = with_graphs(fixed(FLOAT32, model))
    steps(trainer, x, labels, 8, 5)
    assert record.recorded == 1
    model.a.weight.data = model.a.weight.data.clone()
    steps(trainer, x, labels, 8, 5)
    assert record.recorded == 2
    model.dropout.eval()
    steps(trainer, x, labels, 8)
    assert record.recorded == 3
    model.a.register_forward_hook(lambda module, inputs, output: None)
    steps(trainer, x, labels, 8)
    assert record.recorded == 4


def test_each_shape_has_a_graph_up_to_a_number(caplog):
    """Others run without; the outputs are those of the function in both cases."""
    record = StandIn()
    model = nn.Linear(2, 2)
    graphs = StepGraphs(lambda inputs, scale: [inputs["x"].sum(0) * scale], model, record)
    for _ in range(2):
        for n in range(1, step_graphs.MOST + 3):
            x = torch.randn(n, 3)
            (found,) = graphs({"x": x}, 2.0)
            assert torch.equal(found, x.sum(0) * 2)
    assert record.recorded == step_graphs.MOST
    assert record.replayed == 2 * step_graphs.MOST
    assert any("others run without CUDA graphs" in line for line in caplog.messages)
    (found,) = StepGraphs(lambda x, scale: [x * scale], model, record)(torch.ones(3), 3.0)
    assert torch.equal(found, 3 * torch.ones(3))


def test_outputs_are_not_overwritten_by_the_next_replay():
    graphs = StepGraphs(lambda x: [x + 1], nn.Linear(2, 2), StandIn())
    one = graphs(torch.zeros(3))[0]
    graphs(torch.ones(3))
    assert torch.equal(one, torch.ones(3))


def failing(run):
    raise RuntimeError("operation not permitted when stream is capturing\nmore lines")


def drawing_on_the_host(x):
    return x if random.random() < 2 else 2 * x


@pytest.mark.parametrize(
    ("between", "record", "reason"),
    [
        (lambda x: x, failing, "operation not permitted when stream is capturing"),
        (drawing_on_the_host, StandIn(), "the model draws random numbers on the host"),
    ],
)
def test_what_cannot_be_recorded_runs_without_and_says_so_once(between, record, reason, caplog):
    torch.manual_seed(0)
    start = net("Between", between)()
    x, labels = data(start)
    ends = []
    for graphs in (False, True):
        model = copy.deepcopy(start)
        trainer = fixed(FLOAT32, model)
        if graphs:
            trainer.graphs = StepGraphs(trainer._sums, model, record)
        with caplog.at_level(logging.WARNING):
            steps(trainer, x, labels, 8, 20, 3)
        ends.append([p.detach() for p in model.parameters()])
    assert all(map(torch.equal, *ends))
    assert caplog.messages == [f"Steps run without CUDA graphs: {reason}."]


def test_a_cpu_has_none_and_says_so(caplog):
    torch.manual_seed(0)
    trainer = trainer_in(FLOAT32, Net(), cuda_graphs=True)
    assert trainer.graphs is None
    assert caplog.messages == ["Steps run without CUDA graphs: the model is on cpu."]


def test_the_setting_is_for_our_own_steps_and_is_not_published():
    assert not resolve({"scenario": "digits_lo"}).cuda_graphs
    for scenario in ("digits_lo", "digits_inf"):
        settings = resolve({"scenario": scenario, "cuda_graphs": True})
        assert settings.cuda_graphs and "cuda_graphs" not in settings.public()
    with pytest.raises(ValueError, match="--cuda_graphs does not work in grad_sample_mode hooks"):
        resolve({"scenario": "digits_lo", "grad_sample_mode": "hooks", "cuda_graphs": True})


def recorded(trainer, device):
    """The plain trainer with graphs, and what records them."""
    record = StandIn() if device == "cpu" else step_graphs.Recorder()
    trainer.graphs = StepGraphs(trainer._recorded, trainer.model, record)
    return record


@EVERYWHERE
@pytest.mark.parametrize("precision", [FLOAT32, BFLOAT16])
@MODELS
def test_plain_weights_are_those_of_steps_without(name, precision, device, tmp_path):
    """Dropout, and batches of several physical ones of which the last is shorter, included."""
    start, inputs, labels = example(name, tmp_path, device)
    ends = []
    for graphs in (False, True):
        model = copy.deepcopy(start).train()
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        trainer = PlainTrainer(model, optimizer, 8, precision)
        record = recorded(trainer, device) if graphs else None
        torch.manual_seed(7)
        losses = [
            trainer.step(torch.arange(n, device=device), lambda at: rows(inputs, at), labels)
            for n in (20, 20, 8, 20)
        ]
        ends.append([*[p.detach() for p in model.parameters()], *losses])
    assert_same(ends, device)
    assert trainer.graphs and not trainer.graphs.off
    if device == "cpu":
        assert record
        assert (record.recorded, record.replayed) == (3, 3 + 3 + 1 + 3)  # 8 and 4 of 20, 8 of 8


@EVERYWHERE
def test_a_plain_stack_takes_the_same_steps_by_graphs(device):
    ends = []
    for graphs in (False, True):
        torch.manual_seed(0)
        model = stacked([MLP(6, 5, 3) for _ in range(3)]).to(device)
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0, momentum=0.9)
        trainer = StackedPlainTrainer(model, optimizer, 4)
        record = recorded(trainer, device) if graphs else None
        inputs, labels = records_of_three(device)
        losses = []
        for length in (6, 6, 3, 6):
            batches = [torch.arange(length, device=device) + 5 * s for s in range(3)]
            losses.append(trainer.step(batches, inputs, labels))
        ends.append([*[p.detach() for p in model.parameters()], *losses])
    assert_same(ends, device)
    assert trainer.graphs and not trainer.graphs.off
    if device == "cpu":
        assert record and (record.recorded, record.replayed) == (3, 2 + 2 + 1 + 2)


def test_a_parameter_that_the_loss_does_not_use_keeps_no_gradient():
    torch.manual_seed(0)
    model = Net()
    model.unused = nn.Parameter(torch.ones(3))
    x, labels = data(model)
    trainer = PlainTrainer(model, torch.optim.AdamW(model.parameters(), weight_decay=0.5), 8)
    recorded(trainer, "cpu")
    for _ in range(2):
        trainer.step(torch.arange(8), x.__getitem__, labels)
    assert model.unused.grad is None and torch.equal(model.unused.detach(), torch.ones(3))


def test_plain_steps_that_cannot_be_recorded_run_without(caplog):
    torch.manual_seed(0)
    start = Net()
    x, labels = data(start)
    ends = []
    for graphs in (False, True):
        model = copy.deepcopy(start)
        trainer = PlainTrainer(model, torch.optim.SGD(model.parameters(), lr=0.1), 8)
        if graphs:
            trainer.graphs = StepGraphs(trainer._recorded, model, failing)
        steps(trainer, x, labels, 20, 8)
        ends.append([p.detach() for p in model.parameters()])
    assert all(map(torch.equal, *ends))
    assert len(caplog.messages) == 1 and "Steps run without CUDA graphs" in caplog.text
