"""The parts of a trainer's audit: canaries are what they claim, and every sum is right."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers_data import blobs
from helpers_models import write_base
from scipy import stats

from mico_competition.audit.claims import PrivacyClaim
from mico_competition.audit.trainer.canaries import (
    BLANK,
    LARGE,
    LENGTH,
    MISLABELLED,
    AuditSet,
    make_record_canaries,
)
from mico_competition.audit.trainer.canary_models import (
    ORDINARY,
    CanaryModel,
)
from mico_competition.audit.trainer.canary_run import audit_set_of, run
from mico_competition.audit.trainer.checks import PASS
from mico_competition.audit.trainer.independence import exact_checks
from mico_competition.audit.trainer.layer_replay import WHOLE, LayerReplay
from mico_competition.audit.trainer.mechanism_tests import check_parameter_noise
from mico_competition.audit.trainer.observed import DiracSeen, Participation, log_ratio
from mico_competition.audit.trainer.runner import AuditSettings
from mico_competition.data.arrays import TokenDataset
from mico_competition.models.architectures import MLP
from mico_competition.training.accounting import Mechanism
from mico_competition.training.dpsgd import DPSGD, GRAD_SAMPLE_MODES
from mico_competition.training.losses import per_example_losses
from mico_competition.training.settings import resolve
from mico_competition.training.stacked_model import stacked

NORM = 0.7


def settings_of(**flags):
    return resolve({"scenario": "digits_lo", "num_epochs": 10, **flags})


def small_set(records=5, dirac=4, seed=0):
    """Six real records; the coins let every other canary in."""
    data = blobs()
    generator = torch.Generator().manual_seed(seed)
    made = make_record_canaries(data, torch.arange(100, 200), records, 10, generator)
    coins = [torch.arange(n) % 2 == 0 for n in (records, dirac)]
    return AuditSet(data, torch.arange(6), made, *coins)


def canary_model(inner, dirac):
    return CanaryModel(inner, torch.full((dirac,), LENGTH), 10, NORM)


def step_of(audit_set, model, batch, sigma=1e-9, **flags):
    """The noisy gradient, over C and times the divisor, of one step of the real trainer."""
    model = canary_model(model, len(audit_set.dirac_in))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    seen = {}

    def look(*_):
        seen.update({n: p.grad.detach().clone() * 10 / NORM for n, p in model.named_parameters()})

    optimizer.register_step_pre_hook(look)
    trainer = DPSGD(
        model,
        optimizer,
        noise_multiplier=sigma,
        max_grad_norm=NORM,
        expected_batch_size=10,
        max_physical_batch_size=3,
        noise_generator=torch.Generator().manual_seed(1),
        **flags,
    )
    trainer.step(batch, audit_set.inputs, audit_set.labels)
    return model, seen


@pytest.mark.parametrize("mode", GRAD_SAMPLE_MODES)
def test_a_dirac_canary_moves_its_own_coordinate_by_the_norm_and_no_other(mode):
    audit_set = small_set()
    first = len(audit_set) - 2  # canaries 0 and 2 are in
    _, seen = step_of(
        audit_set, MLP(64, 8, 10), torch.tensor([first, first + 1]), grad_sample_mode=mode
    )
    weights = seen.pop("weights.weight").flatten()
    torch.testing.assert_close(weights, torch.tensor([1.0, 0, 1, 0, 0]), atol=1e-6, rtol=1e-6)
    for name, rest in seen.items():
        assert float(rest.abs().max()) < 1e-6, name


def test_a_dirac_canarys_gradient_by_autograd():
    """Before clipping: 1000 C at its own weight, and exactly zero elsewhere."""
    model = canary_model(MLP(64, 8, 10), 3)
    inputs = {"records": torch.randn(1, 64), "canary": torch.tensor([1])}
    loss = per_example_losses(model, inputs, torch.tensor([1])).sum()
    loss.backward()
    assert model.weights.weight.grad.flatten().tolist() == pytest.approx([0, 1000 * NORM, 0, 0])
    assert all(not p.grad.any() for p in model.model.parameters())


def test_other_records_have_the_models_own_logits():
    inner = MLP(64, 8, 10)
    model = canary_model(inner, 3)
    with torch.no_grad():
        model.weights.weight[:3] = 5.0  # even where a canary's weight is not 0
    records = torch.randn(4, 64)
    found = model(records, torch.tensor([ORDINARY, ORDINARY, 0, ORDINARY])).logits
    assert torch.equal(found[[0, 1, 3]], inner(records)[[0, 1, 3]])
    model.reset()
    assert not model(records, torch.tensor([0, 1, 2, 3])).logits.any()  # 3 is a null record


def test_canaries_of_a_stack_are_those_of_each_model():
    """The same logits, and the same gradients."""
    torch.manual_seed(0)
    lengths = torch.tensor([0.0, 0.5, 1000.0])
    models = [CanaryModel(MLP(64, 8, 10), lengths, 10, NORM) for _ in range(2)]
    records = torch.randn(2, 5, 64)
    canary = torch.tensor([[ORDINARY, 0, 1, 2, 3], [2, ORDINARY, 3, 3, 1]])
    inputs = {"records": records.flatten(0, 1), "canary": canary.flatten()}
    whole: Any = stacked(models)
    with torch.no_grad():
        for model, first in zip(models, (1.0, 4.0)):
            model.weights.weight[:3, 0] = torch.arange(3) + first
        whole.weights.weight[:, :3, 0] = torch.tensor([[1.0, 2, 3], [4, 5, 6]])
    found = whole(**inputs).logits.view(2, 5, 10)
    for s, model in enumerate(models):
        torch.testing.assert_close(found[s], model(records[s], canary[s]).logits)
    whole.reset()
    losses = per_example_losses(whole, inputs, torch.ones(10).long())
    for row, length in ((1, 0.0), (2, 0.5), (3, 1000.0)):
        (own,) = torch.autograd.grad(losses[row], whole.weights.weight, retain_graph=True)
        assert float(own.norm()) == float(own[0].norm()) == pytest.approx(length * NORM, rel=1e-5)
        assert float(whole.clipped[row - 1]) == min(1.0, length)
    parameters = list(whole.parameters())
    of_null = torch.autograd.grad(losses[4], parameters, allow_unused=True)
    assert not any(each.any() for each in of_null if each is not None)


def test_inputs_and_labels_of_a_batch_go_together_in_any_order():
    audit_set = small_set()
    # Positions 0-5 are real, 6-8 record canaries 0, 2, 4 and 9-10 Dirac canaries 0, 2.
    assert len(audit_set) == 11
    batch = torch.tensor([10, 7, 3, 0, 9, 8])
    found = audit_set.inputs(batch)
    assert found["canary"].tolist() == [2, -1, -1, -1, 0, -1]
    expected = torch.stack(
        [
            audit_set.records.inputs[2],
            *audit_set.data.inputs([3, 0]),
            audit_set.records.inputs[4],
        ]
    )
    torch.testing.assert_close(found["records"][[1, 2, 3, 5]], expected)
    labels = audit_set.labels[batch]
    assert labels[[0, 4]].tolist() == [1, 1]
    assert labels[[2, 3]].tolist() == audit_set.data.labels[[3, 0]].tolist()
    assert labels[[1, 5]].tolist() == audit_set.records.labels[[2, 4]].tolist()
    assert audit_set.of_model(batch).tolist() == [7, 3, 0, 8]
    assert audit_set.dirac_of(batch).tolist() == [2, 0]
    arguments = audit_set.records, audit_set.records_in, audit_set.dirac_in
    padded = AuditSet(audit_set.data, torch.arange(6), *arguments, length=15)
    assert len(padded) == 15 and padded.labels[11:].tolist() == [1] * 4
    assert padded.canary_at[9:].tolist() == [0, 2, 4, 4, 4, 4]  # number 4 is no canary: null
    assert padded.dirac_of(torch.arange(15)).tolist() == [0, 2]
    assert padded.of_model(torch.arange(15)).tolist() == list(range(9))


def test_record_canaries_are_mislabelled_blank_or_large():
    data, generator = blobs(), torch.Generator().manual_seed(0)
    candidates = torch.arange(300, 310)
    made = make_record_canaries(data, candidates, 90, 10, generator)
    assert {kind: made.kinds.count(kind) for kind in made.kinds} == {
        MISLABELLED: 30,
        BLANK: 30,
        LARGE: 30,
    }
    real = data.inputs(candidates)
    for row, label, kind in zip(made.inputs, made.labels.tolist(), made.kinds):
        assert 0 <= label < 10
        if kind == BLANK:
            assert int(row.count_nonzero()) == 1 and float(row.max()) == 1
            continue
        factors = row.max() / real.max(1).values
        alike = [i for i, f in enumerate(factors) if torch.allclose(row, f * real[i], rtol=1e-4)]
        assert alike, f"{kind} is none of the candidates"
        factor = float(factors[alike[0]])
        assert factor == pytest.approx(1) if kind == MISLABELLED else 1 <= factor <= 1000
        assert label != int(data.labels[candidates[alike[0]]])
    assert len(make_record_canaries(data, candidates, 0, 10, generator)) == 0


def test_coins_are_fair_and_of_their_own():
    sets = [
        audit_set_of(settings_of(), blobs(), dirac=4000, records=4, real=50, seed=seed)
        for seed in (1, 2)
    ]
    for found in sets:
        assert abs(float(found.dirac_in.float().mean()) - 0.5) < 5 * 0.5 / math.sqrt(4000)
    agree = float((sets[0].dirac_in == sets[1].dirac_in).float().mean())
    assert abs(agree - 0.5) < 5 * 0.5 / math.sqrt(4000)


def test_canaries_leave_the_mechanism_as_it_is():
    settings = settings_of()
    found = AuditSettings.of(settings, 777)
    assert found.len_training == 777
    for name in ("sample_rate", "num_steps", "steps_per_epoch", "expected_batch_size"):
        assert getattr(found, name) == getattr(settings, name), name


@pytest.mark.parametrize("q", [0.2, 1.0])
def test_scores_are_log_likelihood_ratios(q):
    told = Mechanism(1.3, q, 1)
    x, length = np.linspace(-4, 6, 7), 0.6
    inside = (1 - q) * stats.norm.pdf(x, 0, 1.3) + q * stats.norm.pdf(x, length, 1.3)
    # <x, g> for a gradient g of norm `length` is `length` times the coordinate along it.
    found = log_ratio(length * x, told, length)
    np.testing.assert_allclose(found, np.log(inside / stats.norm.pdf(x, 0, 1.3)), rtol=1e-12)


def test_what_is_written_down_of_dirac_canaries():
    """Against the whole table of observations."""
    rng = np.random.default_rng(0)
    told, let_in = Mechanism(2.0, 0.3, 6), np.array([True, False, True, True, False])
    table = rng.normal(size=(6, 5))
    batches = [np.flatnonzero(let_in & (rng.random(5) < 0.5)) for _ in table]
    seen = DiracSeen(let_in, told)
    for number, (values, batch) in enumerate(zip(table, batches), start=1):
        seen.see(values, batch)
        if number % 3 == 0:
            seen.end_epoch()
    np.testing.assert_allclose(seen.scores, log_ratio(table, told).sum(0))
    np.testing.assert_allclose(seen.unused_squares, (table[:, ~let_in] ** 2).sum(1))
    assert seen.unused == 2
    assert seen.touched == sum(map(len, batches))
    assert seen.touched_sum == pytest.approx(sum(v[b].sum() for v, b in zip(table, batches)))
    sums = table[:, let_in].reshape(2, 3, 3).sum(1)
    assert seen.epochs == 6
    assert seen.epoch_squares == pytest.approx(((sums - 0.9) ** 2).sum())


def test_how_often_records_were_in_batches():
    seen = Participation(4)
    for batch in ([0, 1], [1], [], [1, 1, 3], [2], [0]):
        seen.see([np.array(batch, dtype=np.int64)])
        if len(seen.lengths) % 3 == 0:
            seen.end_epoch()
    assert seen.lengths == [2, 1, 0, 3, 1, 1]
    # First epoch: 1, 2, 0, 0 times; second: 1, 2, 1, 1.
    assert seen.histogram.tolist() == [2, 4, 2]
    assert seen.repeated == 1 and seen.epochs == 2 and seen.epoch_steps == 3
    several = Participation(4, 2)
    several.see([np.array([0, 1]), np.array([1])])
    several.end_epoch()
    assert several.histogram.tolist() == [5, 3] and several.lengths == [2, 1]
    assert several.epochs == several.epoch_steps == 1
    assert [len(batches) for batches in several.drawn] == [1, 1]


def test_a_replay_is_the_step_by_loops():
    """Sums and scores, layer by layer, against one example at a time."""
    torch.manual_seed(0)
    audit_set, inner, told = small_set(), MLP(64, 8, 10), Mechanism(0.5, 0.3, 9)
    batch = torch.tensor([0, 7, 2, 9, 6, 10])
    replay = LayerReplay(inner, audit_set, told, NORM)
    model, noisy = step_of(audit_set, inner, batch, sigma=0.5)
    values = dict(model.model.named_parameters())
    flat = torch.cat([noisy[f"model.{name}"].flatten() for name in values])
    found = replay.see(torch.cat([batch, batch[:2]]), values, flat)  # twice counts once
    assert torch.equal(found, LayerReplay(inner, audit_set, told, NORM).see(batch, values, flat))

    def clipped(row, label):
        loss = per_example_losses(inner, row[None], label[None]).sum()
        grads = torch.autograd.grad(loss, list(inner.parameters()))
        norm = math.sqrt(sum(float((g**2).sum()) for g in grads))
        scale = min(1.0, NORM / norm) / NORM
        first, second = (torch.cat([g.flatten() for g in grads[i : i + 2]]) for i in (0, 2))
        return {"mlp.0": scale * first, "mlp.2": scale * second}

    real = [clipped(audit_set.data.inputs([i])[0], audit_set.data.labels[i]) for i in (0, 2)]
    canaries = [
        clipped(row, label)
        for row, label in zip(audit_set.records.inputs, audit_set.records.labels)
    ]
    whole = np.zeros((2, 5))
    for layer in ("mlp.0", "mlp.2"):
        names = [f"model.{layer}.weight", f"model.{layer}.bias"]
        x = torch.cat([noisy[name].flatten() for name in names])
        of_real = sum(part[layer] for part in real)
        s = of_real + canaries[2][layer] + canaries[0][layer]
        torch.testing.assert_close(found[replay.layers[layer]], s, rtol=1e-3, atol=1e-5)
        assert replay.along[layer] == pytest.approx(float(x @ s), rel=1e-4)
        assert replay.length[layer] == pytest.approx(float(s @ s), rel=1e-4)
        expected = []
        for i, own in enumerate(canaries):
            others = sum(c[layer] for j, c in enumerate(canaries) if j != i)
            shift = float((x - of_real - 0.15 * others) @ own[layer])
            square = float(own[layer] @ own[layer])
            whole[:, i] += shift, square
            expected.append(log_ratio(np.array(shift), told, math.sqrt(square)))
        np.testing.assert_allclose(replay.scores[layer], expected, rtol=1e-3, atol=1e-5)
    total = log_ratio(whole[0], told, np.sqrt(whole[1]))
    np.testing.assert_allclose(replay.scores[WHOLE], total, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_a_text_model_is_audited_with_its_dropout_off(tmp_path, monkeypatch):
    """Replayed without vmap, which transformers' masks do not allow."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(4, 300, (90, 9), generator=generator).int()
    labels = torch.randint(2, (90,), generator=generator)
    mask = (torch.arange(9) < torch.randint(3, 10, (90, 1), generator=generator)).to(torch.uint8)
    base = Path(write_base(tmp_path))
    config = json.loads((base / "config.json").read_text())
    config |= {"hidden_dropout_prob": 0.1, "num_hidden_layers": 1}
    (base / "config.json").write_text(json.dumps(config))
    lengths = {"len_training": 40, "len_challenge": 10, "batch_size": 10, "num_epochs": 3}
    settings = resolve({"scenario": "sst2_lo", "model_name": str(base), **lengths})
    data, told = TokenDataset(ids, mask, labels), Mechanism(1.0, 0.25, 12)
    monkeypatch.setattr("mico_competition.training.train.mechanism_of", lambda _: told)
    audit_set = audit_set_of(settings, data, dirac=200, records=6, real=40, seed=1)
    assert set(audit_set.records.kinds) == {MISLABELLED, BLANK}
    assert audit_set.records.inputs["attention_mask"][1].tolist() == [1, 1] + [0] * 7
    seen = run(settings, audit_set, told, seed=1, replay_steps=3)
    assert seen.replayed == 3 and 3 <= len(seen.rows) <= 6
    for name in seen.shapes:
        noise = check_parameter_noise(seen, name, PrivacyClaim(4.0, 1e-5, told), 0.9999)
        assert noise.verdict == PASS, noise.says
    failed = [check for check in exact_checks(seen) if check.verdict != PASS]
    assert not failed, failed


@pytest.mark.slow
def test_a_record_canary_is_found_by_its_layers_and_its_loss():
    """Where there is next to no noise, the right canaries have the larger scores."""
    settings, told = settings_of(), Mechanism(0.05, 0.25, 40)
    audit_set = audit_set_of(settings, blobs(), dirac=100, records=90, real=20, seed=2)
    seen = run(settings, audit_set, told, seed=2)
    let_in = audit_set.records_in.numpy()
    for scores in (*seen.scores().values(), seen.black_box):
        ranks = stats.rankdata(scores)
        auc = (ranks[let_in].mean() - (let_in.sum() + 1) / 2) / (~let_in).sum()
        assert auc > 0.8
