"""Passes in TF32 or bfloat16: one record still moves the clipped sum by C at most."""

import copy

import pytest
import torch
from helpers_bookkeeping import make, rows
from helpers_precision import Tf32, contributions, flat, simulate_tf32, to_10_bits, trainer_in
from helpers_private_checks import MIXING, UNCLIPPED, Net, data, net
from test_cancellation import CASES, cancelling
from torch import nn

import mico_competition as mico
from mico_competition.models.precision import BFLOAT16, FLOAT32, TF32, forward_pass
from mico_competition.training import private_checks
from mico_competition.training.check_batches import Batch
from mico_competition.training.dpsgd import GRAD_SAMPLE_MODES
from mico_competition.training.example_rows import OneShape

SLACK = 1e-3  # one record's part of the sum is at most C (1 + SLACK)
GPU = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
WHERE = ["cpu", pytest.param("cuda", marks=GPU)]
KINDS = ["mlp", pytest.param("cnn", marks=pytest.mark.slow), "roberta, short", "roberta, long"]


@pytest.fixture(params=[TF32, BFLOAT16])
def kind(request):
    return request.param


def placed(device, kind, monkeypatch, *values):
    """Models and tensors on a device, which has TF32, or simulates it."""
    if device == "cpu" and kind == TF32:
        simulate_tf32(monkeypatch)
    return [
        {k: v.to(device) for k, v in each.items()} if isinstance(each, dict) else each.to(device)
        for each in values
    ]


def hard(inputs):
    """Real-valued records among which are zeros, tiny and huge ones; the last two overflow."""
    if isinstance(inputs, dict):
        return inputs
    shape = (-1, *[1] * (inputs.ndim - 1))
    factors = [1.0, 0.0, 1e-20, 1e-4, 30.0, 1e4, 1e8, 1e15, 1e30, 3e38]
    return inputs.repeat(2, *[1] * (inputs.ndim - 1)) * torch.tensor(factors).view(shape)


@pytest.mark.parametrize("device", WHERE)
@pytest.mark.parametrize("name", KINDS)
def test_no_record_moves_the_sum_by_more_than_the_norm(name, kind, device, tmp_path, monkeypatch):
    model, inputs, labels = make(name, tmp_path)
    inputs = hard(inputs)
    labels = labels if isinstance(inputs, dict) else labels.repeat(2)
    model, inputs, labels = placed(device, kind, monkeypatch, model, inputs, labels)
    for norm in (1e-3, 50.0):
        trainer = trainer_in(kind, model, norm=norm)
        parts, whole = contributions(trainer, inputs, labels, monkeypatch)
        lengths = parts.norm(dim=1)
        assert lengths.max() <= norm * (1 + SLACK)
        assert norm > 1 or lengths.max() >= norm * (1 - SLACK)
        assert (parts.sum(0) - whole).norm() <= SLACK * norm


@pytest.mark.parametrize("device", WHERE)
@pytest.mark.parametrize("name", KINDS)
def test_a_record_does_not_change_what_others_add(name, kind, device, tmp_path, monkeypatch):
    """Sums with and without a record, in batches of one length: the rounding is the same."""
    model, inputs, labels = make(name, tmp_path)
    model, inputs, labels = placed(device, kind, monkeypatch, model, inputs, labels)
    trainer = trainer_in(kind, model, norm=1e-2)
    parts, whole = contributions(trainer, inputs, labels, monkeypatch)
    for left_out in range(len(labels)):
        other = torch.arange(len(labels), device=labels.device)
        other[left_out] = (left_out + 1) % len(labels)  # another record takes its row
        batch = Batch(rows(inputs, other), labels[other])
        moved = whole - flat(trainer._clipped_sum(batch, trainer.max_grad_norm).sums)
        exact = parts[left_out] - parts[other[left_out]]
        assert (moved - exact).norm() <= SLACK * trainer.max_grad_norm


@pytest.mark.parametrize("device", WHERE)
@pytest.mark.parametrize("name", KINDS)
def test_gradients_are_those_of_plain_autograd_to_its_rounding(
    name, kind, device, tmp_path, monkeypatch
):
    """Without clipping, the sum is that of plain autograd in float32, to the factors' bits."""
    model, inputs, labels = make(name, tmp_path)
    model, inputs, labels = placed(device, kind, monkeypatch, model, inputs, labels)
    exact = flat(trainer_in(FLOAT32, model, norm=1e6)._clipped_sum(Batch(inputs, labels), 1e6).sums)
    found = flat(trainer_in(kind, model, norm=1e6)._clipped_sum(Batch(inputs, labels), 1e6).sums)
    off = float((found - exact).norm() / exact.norm())
    low, high = {TF32: (1e-6, 4e-3), BFLOAT16: (1e-4, 3e-2)}[kind]
    assert low < off < high  # not more, and not in float32 behind one's back


@pytest.mark.parametrize("case", CASES)
def test_a_record_whose_positions_cancel(case, kind, monkeypatch):
    build, positions = CASES[case]
    torch.manual_seed(0)
    model, shaped, weight_of = build()
    placed("cpu", kind, monkeypatch, model)
    generator = torch.Generator().manual_seed(1)
    for _ in range(5):
        record = cancelling(torch.float32, weight_of(model).detach(), positions, generator)
        rounded = [record, record.bfloat16().float(), to_10_bits(record)]
        opposite = torch.zeros_like(record)
        opposite[0], opposite[1] = record[0].bfloat16().float(), -record[0].bfloat16().float()
        x = torch.stack([shaped(each) for each in (*rounded, opposite)])
        labels = torch.arange(len(x)) % 3
        parts, _ = contributions(trainer_in(kind, copy.deepcopy(model)), x, labels, monkeypatch)
        assert parts.norm(dim=1).max() <= 1 + SLACK


class Own(nn.Module):
    """A layer without a formula, whose per-example gradients are built; called once or twice."""

    def __init__(self, calls):
        super().__init__()
        self.calls, self.weight = calls, nn.Parameter(torch.randn(6, 6))
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x):
        return torch.tanh(x @ self.weight) * self.scale


class WithOwn(nn.Module):
    def __init__(self, calls=1, layer=Own):
        super().__init__()
        self.calls, self.own, self.out = calls, layer(calls), nn.Linear(6, 4)

    def forward(self, x):
        for _ in range(self.calls):
            x = self.own(x)
        return self.out(x)


@pytest.mark.parametrize("layer", [Own, lambda calls: nn.Linear(6, 6)], ids=["own", "linear"])
@pytest.mark.parametrize("calls", [1, 2])
def test_layers_without_a_formula_and_layers_called_twice(calls, layer, kind, monkeypatch):
    torch.manual_seed(0)
    model = WithOwn(calls, layer)
    placed("cpu", kind, monkeypatch, model)
    x, labels = data(model, 10)
    trainer = trainer_in(kind, model, norm=0.3)
    trainer.step(torch.arange(10), x.__getitem__, labels)  # the checks let it through
    parts, _ = contributions(
        trainer, x * 10.0 ** torch.arange(-4, 6).view(-1, 1), labels, monkeypatch
    )
    assert 0.3 * (1 - SLACK) <= parts.norm(dim=1).max() <= 0.3 * (1 + SLACK)


def test_only_passes_are_in_tf32(monkeypatch):
    """Norms and the weighted sum have all bits of their factors; passes use the simulation."""
    simulate_tf32(monkeypatch)
    torch.manual_seed(0)
    model = Net()
    x, labels = data(model, 8)
    trainer = trainer_in(TF32, model)
    keeper, before = trainer.keeper, Tf32.used
    with keeper.recording(8):
        losses = trainer._losses(x, labels)
        forward = Tf32.used
        keeper.norms(losses)
    norms = Tf32.used
    keeper.write_weighted_sum(torch.ones(8))
    assert before < forward == norms == Tf32.used  # the backward pass is given its own context
    trainer._backward(x, labels)
    assert Tf32.used > norms + (forward - before)


@pytest.mark.parametrize("build", UNCLIPPED)
def test_checks_in_low_precision_alone_refuse_a_wrong_layer(build, kind, monkeypatch):
    """Although their tolerance is wider; the checks in float32, which go first, are left out."""
    refuses(build, kind, monkeypatch)


@pytest.mark.parametrize("name", MIXING)
def test_checks_in_low_precision_alone_refuse_mixing(name, kind, monkeypatch):
    refuses(net("Mixing", MIXING[name]), kind, monkeypatch)


def refuses(build, kind, monkeypatch):
    torch.manual_seed(0)
    model = build()
    placed("cpu", kind, monkeypatch, model)
    x, labels = data(model)
    trainer = trainer_in(kind, model)
    check = trainer.checks._check
    monkeypatch.setattr(
        trainer.checks, "_check", lambda *args: check(*args) if len(args) > 2 else None
    )
    with pytest.raises(ValueError, match=f"not in {kind}, so choose precision float32"):
        trainer.step(torch.arange(20), x.__getitem__, labels)


def test_a_model_that_mixes_under_autocast_only_is_refused():
    def between(x):
        return x - x.mean(0) if torch.is_autocast_enabled("cpu") else x

    torch.manual_seed(0)
    model = net("Sly", between)()
    x, labels = data(model)
    trainer_in(FLOAT32, copy.deepcopy(model)).step(torch.arange(20), x.__getitem__, labels)
    with pytest.raises(ValueError, match="others of its batch.* not in bfloat16"):
        trainer_in(BFLOAT16, model).step(torch.arange(20), x.__getitem__, labels)


@pytest.mark.parametrize("mode", GRAD_SAMPLE_MODES[1:])
def test_opacus_modes_refuse_low_precision(mode, kind):
    with pytest.raises(ValueError, match=f"precision {kind} does not work with Opacus' mode"):
        trainer_in(kind, Net(), mode=mode)


def test_unknown_and_unavailable_precisions_are_refused():
    with pytest.raises(ValueError, match="Unknown precision 'float16': choose one of float32"):
        trainer_in("float16", Net())
    with pytest.raises(ValueError, match="tf32 is one of NVIDIA's GPUs, and this run is on cpu"):
        trainer_in(TF32, Net())


def test_physical_batches_have_one_length(kind, monkeypatch):
    """Whose rounding the presence of a record cannot change."""
    torch.manual_seed(0)
    model = Net()
    placed("cpu", kind, monkeypatch, model)
    x, labels = data(model)
    trainer = trainer_in(kind, model, size=7)
    trainer.step(torch.arange(20), x.__getitem__, labels)
    lengths = []
    model.a.register_forward_hook(lambda module, inputs, output: lengths.append(len(inputs[0])))
    trainer.checks.checked = [private_checks._computes(m) for m in trainer.model.modules()]
    for batch in (torch.arange(20), torch.arange(3), torch.arange(7)):
        trainer.step(batch, x.__getitem__, labels)
    assert lengths == [7] * 5
    with pytest.raises(ValueError, match=f"precision {kind} needs fixed shapes"):
        trainer_in(kind, Net(), fixed_shapes=False)


def test_weights_noise_and_moments_stay_float32():
    torch.manual_seed(0)
    model = Net()
    x, labels = data(model)
    seen = []
    model.b.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    trainer = trainer_in(BFLOAT16, model)
    trainer.step(torch.arange(20), x.__getitem__, labels)
    assert seen[-1] == torch.bfloat16
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert not torch.is_autocast_enabled("cpu")


def front_door(model, precision):
    return mico.PrivateTrainer(
        model,
        torch.optim.SGD(model.parameters(), lr=1.0),
        noise_multiplier=1.0,
        num_records=60,
        batch_size=20,
        epochs=1,
        max_grad_norm=1.0,
        precision=precision,
    )


def test_the_front_door_trains_in_bfloat16():
    torch.manual_seed(0)
    model = Net()
    x, labels = data(model)
    trainer = front_door(model, "bfloat16")
    kinds = []
    model.a.register_forward_hook(lambda module, inputs, output: kinds.append(output.dtype))
    for batch in trainer.batches():
        trainer.step(x[batch], labels[batch])
    assert kinds[-1] == torch.bfloat16
    assert trainer.certificate(delta=1e-5)["precision"] == "bfloat16"


def sentences_of(width):
    return {"input_ids": torch.randint(5, 50, (60, width)), "attention_mask": None}


class Sentences(nn.Module):
    """Takes sentences of any length."""

    def __init__(self):
        super().__init__()
        self.embedding, self.out = nn.Embedding(50, 6), nn.Linear(6, 2)

    def forward(self, input_ids, attention_mask=None):
        return self.out(self.embedding(input_ids).mean(1))


@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
def test_the_front_door_refuses_another_length_in_low_precision(precision):
    """One longer sentence would change the shape, and so the rounding, of its whole batch."""
    model = Sentences()
    trainer = front_door(model, precision)
    labels = torch.arange(60) % 2
    for width, batch in zip((9, 9, 12), trainer.batches()):
        before = [p.detach().clone() for p in model.parameters()]
        inputs = {name: v if v is None else v[batch] for name, v in sentences_of(width).items()}
        if precision == "float32" or width == 9:
            trainer.step(inputs, labels[batch])
            continue
        with pytest.raises(ValueError, match=r"Expected inputs of shape .*\[9\].* got .*\[12\]"):
            trainer.step(inputs, labels[batch])
        assert all(torch.equal(p, old) for p, old in zip(model.parameters(), before))
        inputs["input_ids"] = inputs["input_ids"][:, :9]
        trainer.step(inputs, labels[batch])  # the batch waits for its step
    assert trainer.steps_taken == 3


def test_shapes_are_those_of_steps_that_were_taken():
    """Empty batches, and those that the model refused, do not say what shape the others have."""
    shapes = OneShape()
    targets, none = torch.zeros(3, dtype=torch.long), torch.zeros(0, dtype=torch.long)
    shapes.keep(shapes.check(torch.empty(0), none, "bfloat16"))
    shapes.check(torch.empty(3, 5), targets, "bfloat16")  # refused by the model, say
    shapes.keep(shapes.check(torch.empty(3, 4), targets, "bfloat16"))
    shapes.check(torch.empty(0, 7), none, "bfloat16")
    with pytest.raises(ValueError, match=r"Expected inputs of shape \[4\] .* got \[5\]: in tf32"):
        shapes.check(torch.empty(3, 5), targets, "tf32")
    with pytest.raises(ValueError, match=r"Expected targets of shape \[\] .* got \[6\]"):
        shapes.check(torch.empty(3, 4), torch.empty(3, 6), "bfloat16")


def test_float32_is_what_it_was():
    """No autocast, and nothing is rounded."""
    assert not torch.is_autocast_enabled("cpu")
    with forward_pass(FLOAT32, torch.device("cpu")):
        assert not torch.is_autocast_enabled("cpu")
