"""Signals are what they say: against other formulas, loops, and autograd in double precision."""

import math
from dataclasses import replace
from decimal import Decimal, localcontext

import numpy as np
import pytest
import torch
from helpers_bookkeeping import gradients_by_loop, make, norms_of

from mico_competition.attacks.scores.transforms import stable_logit
from mico_competition.data.arrays import ArrayDataset, TokenDataset
from mico_competition.models.architectures import load_model, logits
from mico_competition.signals import Signals, losses, open_signals, read_fleet
from mico_competition.signals.forward import make_arrays
from mico_competition.signals.gradients import negative_log_norms
from mico_competition.signals.points import Points
from mico_competition.signals.scalars import direction, entropies, true_logit

SCENARIO = "digits_inf"
TASK = {"cnn": "cifar10", "mlp": "purchase100", "roberta, short": "sst2", "roberta, long": "sst2"}


@pytest.fixture(scope="module")
def signals(trained, data, tmp_path_factory):
    return open_signals(trained, SCENARIO, data, cache=tmp_path_factory.mktemp("cache"))


def plain(x):
    return x.clone()


def points_of(kind, inputs, labels):
    """Points of inputs as a model takes them."""
    if isinstance(inputs, torch.Tensor):
        dataset = ArrayDataset(inputs, labels, plain)
    else:
        mask = inputs["attention_mask"].to(torch.uint8)
        dataset = TokenDataset(inputs["input_ids"].int(), mask, labels)
    return Points.of(TASK[kind], dataset, np.arange(len(labels)))


def spread_logits():
    """Logits of outputs from hopeless to certain, and labels."""
    generator = torch.Generator().manual_seed(1)
    scales = torch.tensor([0.01, 1.0, 5.0, 30.0, 200.0, 3000.0]).repeat_interleave(20)
    z = torch.randn(len(scales), 7, generator=generator) * scales[:, None]
    labels = torch.randint(7, (len(z),), generator=generator)
    labels[::2] = z[::2].argmax(1)
    return z, labels


def by_decimals(z, label):
    """Logit, minus entropy, minus modified entropy of one output, with 400 digits."""
    with localcontext() as context:
        context.prec = 400
        odds = [Decimal(float(value)).exp() for value in z]
        total = sum(odds)
        p = [value / total for value in odds]
        rest = sum(value for i, value in enumerate(odds) if i != label)
        entropy = sum(value * value.ln() for value in p)
        # 1 - p of all the others' odds: nothing cancels
        misses = [sum(odds[:i] + odds[i + 1 :]) / total for i in range(len(p))]
        modified = misses[label] * p[label].ln()
        modified += sum(p[i] * misses[i].ln() for i in range(len(p)) if i != label)
        return [float(v) for v in ((odds[label] / rest).ln(), entropy, modified)]


def test_scalars_are_those_of_the_attacks():
    z, labels = spread_logits()
    z, labels = z[:60], labels[:60]
    values, classes = z.numpy(), labels.numpy()
    assert np.allclose(true_logit(z, labels), stable_logit(values, classes), rtol=1e-12, atol=0)


def test_scalars_keep_their_digits_where_probabilities_round():
    """Against 400 digits; the rounding of double precision would give 0, or infinity."""
    z = torch.tensor(
        [[40.0, 0, -1], [-40, 0, 1], [0, 90, 3], [20, -25, -30], [0.5, 0, 0], [300, -300, 0]]
    )
    labels = torch.tensor([0, 0, 0, 0, 1, 0])
    exact = np.array([by_decimals(row, int(y)) for row, y in zip(z, labels)]).T
    assert np.allclose(true_logit(z, labels), exact[0], rtol=1e-14, atol=0)
    assert np.allclose(entropies(z, labels), exact[1:], rtol=1e-12, atol=1e-13)
    sure = [0, 3, 5]  # and relatively where the true class is the certain one
    assert np.allclose(entropies(z, labels)[:, sure], exact[1:, sure], rtol=1e-12, atol=0)


def test_scalars_do_not_overflow():
    z, labels = spread_logits()
    assert z.abs().max() > 2000
    assert np.allclose(true_logit(z, labels), stable_logit(z.numpy(), labels.numpy()), rtol=1e-12)
    assert torch.isfinite(entropies(z, labels)).all()


def test_the_logit_of_bfloat16_outputs_is_that_of_the_same_numbers():
    z = torch.randn(20, 5, generator=torch.Generator().manual_seed(0)).bfloat16()
    labels = torch.arange(20) % 5
    torch.testing.assert_close(true_logit(z, labels), true_logit(z.float(), labels))


def test_direction_is_the_gradient_by_the_logits():
    z, labels = spread_logits()
    z, labels = z[:60], labels[:60]
    doubled = z.double().requires_grad_()
    torch.nn.functional.cross_entropy(doubled, labels, reduction="sum").backward()
    log_rest, u = direction(z.double(), labels)
    assert torch.allclose(u * log_rest.exp()[:, None], doubled.grad, atol=1e-12)
    certain, u = direction(torch.tensor([[500.0, 0, 0]]), torch.tensor([0]))
    assert certain.item() == pytest.approx(math.log(2) - 500)
    assert u.tolist() == [[-1, 0.5, 0.5]]


@pytest.mark.parametrize("kind", TASK)
def test_gradient_norms_are_those_of_a_loop(kind, tmp_path):
    model, inputs, labels = make(kind, tmp_path)
    model.eval()
    naive = norms_of(gradients_by_loop(model, inputs, labels))
    found = negative_log_norms(model, points_of(kind, inputs, labels))
    assert found.dtype == np.float64
    assert np.allclose(np.exp(-found), naive.numpy(), rtol=1e-4, atol=0)
    assert len(set(found.round(3))) > 1


def test_gradient_norms_of_records_that_are_fitted_perfectly(tmp_path):
    """1 - p_y is 0 in float32; the logarithm of the norm is finite, and right."""
    model, inputs, _ = make("mlp", tmp_path)
    with torch.no_grad():
        for parameter in model.eval().parameters():
            parameter.mul_(30)
    labels = logits(model, inputs).argmax(1)
    naive = norms_of(gradients_by_loop(model, inputs, labels)).log()
    found = negative_log_norms(model, points_of("mlp", inputs, labels))
    assert found.max() > 17  # float32 has 1 - p_y = 0 from 16.6 on
    assert np.allclose(-found, naive.numpy(), atol=1e-3)


def test_signals_are_of_the_models_and_records(signals, trained, data):
    fleet = signals.fleet
    where = torch.from_numpy(fleet.records)
    assert signals.data is data
    for row, folder in enumerate(fleet.folders):
        model = load_model("digits", folder.path)
        with torch.inference_mode():
            z = logits(model, data.inputs(where))
        assert np.allclose(signals.logits(row), z.numpy(), atol=1e-4)
        assert np.allclose(signals.get("loss")[row], -losses(model, data, where), rtol=1e-4)
    assert signals.get("loss").shape == (4, len(fleet.records))


def test_names_agree_with_each_other(signals):
    loss, p, logit = (signals.get(name) for name in ("loss", "confidence", "logit"))
    assert np.allclose(np.exp(loss), p)
    assert np.allclose(np.log(p) - np.log1p(-p), logit, atol=1e-6)
    labels = signals.fleet.labels
    for row in range(4):
        z = np.array(signals.logits(row), np.float64)
        assert np.allclose(logit[row], stable_logit(z, labels), rtol=1e-12)
        entropy, modified = entropies(torch.from_numpy(z), torch.from_numpy(labels)).numpy()
        assert np.allclose(signals.get("entropy")[row], entropy, atol=1e-12)
        assert np.allclose(signals.get("modified_entropy")[row], modified, atol=1e-12)


def test_gradient_norms_of_a_fleet_are_minus_the_logarithm(signals, data):
    found = signals.get("gradient_norm")
    model = signals.load(2).double().cpu()
    record = int(signals.fleet.records[7])
    z = logits(model, data.inputs([record]).double())
    loss = torch.nn.functional.cross_entropy(z, data.labels[[record]])
    naive = norms_of([torch.autograd.grad(loss, list(model.parameters()))])
    assert found[2, 7] == pytest.approx(-math.log(naive.item()), abs=1e-4)


def test_arrays_cannot_be_changed_by_an_attack(signals):
    for name in ("loss", "logit", "entropy", "gradient_norm"):
        with pytest.raises(ValueError, match="read-only"):
            signals.get(name)[0, 0] = 1
    with pytest.raises(ValueError, match="read-only"):
        signals.logits(0)[0, 0] = 1


def test_a_loaded_model_is_ready_for_white_box_attacks(signals):
    model = signals.load(1)
    assert not model.training
    assert next(model.parameters()).device.type == signals.device.type
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_unknown_signals_are_listed(signals):
    with pytest.raises(ValueError, match="'phi': choose one of loss, confidence, logit, entropy"):
        signals.get("phi")
    with pytest.raises(ValueError, match="'phi': choose one of logits, loss"):
        signals.compute(["logits", "phi"])


def test_data_of_another_kind_are_refused(signals, data, tmp_path):
    fleet = signals.fleet
    tokens = TokenDataset(torch.zeros(1797, 3), torch.zeros(1797, 3), data.labels)
    with pytest.raises(ValueError, match="Expected a ArrayDataset for task digits, got TokenD"):
        Signals(fleet, tokens, tmp_path)
    fewer = ArrayDataset(data.storage[:300], data.labels[:300], data.expand)
    with pytest.raises(ValueError, match=r"records to be indices into the dataset, 0\.\.299"):
        Signals(fleet, fewer, tmp_path)
    swapped = ArrayDataset(data.storage, data.labels.flip(0), data.expand)
    with pytest.raises(ValueError, match="labels of the data differ from those that the fleet"):
        Signals(fleet, swapped, tmp_path)
    more = ArrayDataset(data.storage, data.labels + 1, data.expand)
    with pytest.raises(ValueError, match=r"labels of digits in 0\.\.9, got 1\.\.10"):
        Signals(replace(fleet, labels=fleet.labels + 1), more, tmp_path)


def test_outputs_that_overflow_are_refused(data):
    """Weights may be finite, and what they give not."""
    points = Points.of("digits", data, np.arange(50))
    model = torch.nn.Linear(64, 10)
    with torch.no_grad():
        model.weight.fill_(3e38)
    with pytest.raises(ValueError, match="digits_inf/train/model_0 gives values that are not fin"):
        make_arrays(model, points, ["logits"], "digits_inf/train/model_0")


def test_products_of_signals_are_exact_whatever_the_process_allows(data):
    seen = []
    points, model = Points.of("digits", data, np.arange(50)), torch.nn.Linear(64, 10)
    model.register_forward_pre_hook(lambda *_: seen.append(torch.get_float32_matmul_precision()))
    torch.set_float32_matmul_precision("medium")
    try:
        make_arrays(model, points, ["logits", "gradient_norm"], "model_0")
        losses(model, data, torch.arange(5))
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")
    assert seen == ["highest"] * 3


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpus_signals_are_those_of_a_cpu():
    from helpers_models import batch

    from mico_competition.competition.table import TASKS
    from mico_competition.models.architectures import new_model

    inputs = torch.cat([batch("cifar10") for _ in range(20)])
    model = new_model(TASKS["cifar10"]).eval()
    points = points_of("cnn", inputs, torch.arange(40) % 10)
    cpu = make_arrays(model, points, ["logits"], "model_0")["logits"]
    device = torch.device("cuda")
    gpu = make_arrays(model.to(device), points.to(device), ["logits"], "model_0")["logits"]
    np.testing.assert_allclose(np.concatenate(gpu), np.concatenate(cpu), atol=2e-5)


def test_records_of_read_fleet_may_be_all(trained, data, tmp_path):
    fleet = read_fleet(trained, SCENARIO, data, records="all", models=[0, 1])
    assert Signals(fleet, data, tmp_path).get("loss").shape == (2, 1797)
