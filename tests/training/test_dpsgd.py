"""A private step is the mechanism it claims to be: held against loops over single examples."""

import math
import pickle
from dataclasses import replace

import pytest
import torch
from opacus.accountants import PRVAccountant
from opacus.accountants.analysis import rdp
from opacus.utils.uniform_sampler import UniformWithReplacementSampler
from scipy import stats
from torch import nn

from mico_competition.models.architectures import MLP
from mico_competition.training import accounting
from mico_competition.training.accounting import EPS_ERROR, Mechanism
from mico_competition.training.dpsgd import DPSGD, GRAD_SAMPLE_MODES
from mico_competition.training.poisson_draws import poisson_batches

TINY_NOISE = 1e-12
NORM = 2.5


def make(seed=0, batch=13):
    torch.manual_seed(seed)
    model = MLP(6, 8, 4).double()
    inputs = torch.randn(batch, 6, dtype=torch.float64) * 3
    return model, inputs, torch.randint(4, (batch,))


def trainer_of(model, *, lr=1.0, sigma=TINY_NOISE, norm=NORM, mode=GRAD_SAMPLE_MODES[0], **changes):
    arguments = {
        "noise_multiplier": sigma,
        "max_grad_norm": norm,
        "expected_batch_size": 10,
        "max_physical_batch_size": 5,
        "grad_sample_mode": mode,
        "noise_generator": torch.Generator().manual_seed(1),
    }
    return DPSGD(model, torch.optim.SGD(model.parameters(), lr=lr), **{**arguments, **changes})


def clipped_sum_by_loop(model, inputs, labels, norm):
    """sum_i g_i min(1, C / |g_i|), one example at a time (Abadi et al. 2016, Algorithm 1)."""
    total = [torch.zeros_like(p) for p in model.parameters()]
    clipped = 0
    for x, y in zip(inputs, labels):
        loss = nn.functional.cross_entropy(model(x[None]), y[None])
        grads = torch.autograd.grad(loss, list(model.parameters()))
        length = math.sqrt(sum(float((g**2).sum()) for g in grads))
        clipped += length > norm
        for part, grad in zip(total, grads):
            part += grad * min(1.0, norm / length)
    return total, clipped


@pytest.mark.parametrize("mode", GRAD_SAMPLE_MODES)
@pytest.mark.parametrize("batch", [1, 5, 13])
def test_a_step_subtracts_the_clipped_sum_over_the_expected_batch(mode, batch):
    model, inputs, labels = make(batch=batch)
    expected, clipped = clipped_sum_by_loop(model, inputs, labels, NORM)
    assert batch == 1 or 0 < clipped < batch, "the case must have clipped and unclipped examples"
    before = [p.detach().clone() for p in model.parameters()]
    trainer = trainer_of(model, mode=mode)
    trainer.step(torch.arange(batch), lambda i: inputs[i], labels)
    for old, new, part in zip(before, model.parameters(), expected):
        # Opacus divides by |g| + 1e-6 when it clips, hence the tolerance.
        torch.testing.assert_close(old - new, part / 10, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("mode", GRAD_SAMPLE_MODES)
def test_physical_batches_do_not_change_the_step(mode):
    results = []
    for size in (1, 4, 100):
        model, inputs, labels = make()
        trainer = trainer_of(model, mode=mode, max_physical_batch_size=size, sigma=0.5)
        trainer.step(torch.arange(13), inputs.__getitem__, labels)
        results.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    torch.testing.assert_close(results[0], results[1])
    torch.testing.assert_close(results[0], results[2])


@pytest.mark.parametrize("mode", GRAD_SAMPLE_MODES)
def test_noise_has_the_stated_deviation_once_a_logical_batch(mode):
    """Empty batches step by noise alone; so does a batch split into many physical ones."""
    sigma, norm, expected = 1.7, 0.4, 10
    model = MLP(40, 60, 10)
    trainer = trainer_of(model, mode=mode, sigma=sigma, norm=norm)
    nothing = torch.arange(0)
    moves = []
    for _ in range(30):
        before = torch.cat([p.detach().flatten() for p in model.parameters()])
        trainer.step(nothing, lambda i: torch.zeros(len(i), 40), torch.zeros(0, dtype=torch.int64))
        after = torch.cat([p.detach().flatten() for p in model.parameters()])
        moves.append(after - before)
    noise = torch.stack(moves)
    stated = sigma * norm / expected
    count = noise.numel()
    # Five standard errors of a normal sample's mean and deviation.
    assert abs(float(noise.mean())) < 5 * stated / math.sqrt(count)
    assert abs(float(noise.std()) / stated - 1) < 5 / math.sqrt(2 * count)


@pytest.mark.slow
@pytest.mark.parametrize("mode", GRAD_SAMPLE_MODES)
def test_noise_is_not_added_again_for_each_physical_batch(mode):
    sigma, norm = 2.0, 1e-9
    model, inputs, labels = make(batch=10)
    trainer = trainer_of(model, sigma=sigma, norm=norm, mode=mode, max_physical_batch_size=1)
    moves = []
    for _ in range(300):
        before = torch.cat([p.detach().flatten() for p in model.parameters()])
        trainer.step(torch.arange(10), lambda i: inputs[i], labels)
        moves.append(torch.cat([p.detach().flatten() for p in model.parameters()]) - before)
    # The clipped sum is the same in every step, so it does not count in the deviation.
    deviation = float(torch.stack(moves).std(dim=0).mean())
    assert abs(deviation / (sigma * norm / 10) - 1) < 0.03


@pytest.mark.parametrize("mode", GRAD_SAMPLE_MODES)
def test_the_noise_generator_alone_drives_the_noise(mode):
    results = []
    for global_seed, noise_seed in ((0, 1), (5, 1), (5, 2)):
        model, inputs, labels = make()
        trainer = trainer_of(
            model, sigma=1.0, mode=mode, noise_generator=torch.Generator().manual_seed(noise_seed)
        )
        torch.manual_seed(global_seed)
        trainer.step(torch.arange(13), inputs.__getitem__, labels)
        results.append(next(model.parameters()).detach().clone())
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[1], results[2])


def drawn(num_records, rate, steps, seed=3):
    generator = torch.Generator().manual_seed(seed)
    batches = poisson_batches(num_records, sample_rate=rate, num_steps=steps, generator=generator)
    return [batch.tolist() for batch in batches]


@pytest.mark.parametrize(("num_records", "rate"), [(40, 0.02), (40, 0.5), (7, 0.97), (3000, 1e-4)])
def test_poisson_batches_are_independent_coins(num_records, rate):
    """Records' counts, neighbours' joint counts, and the lengths, within 5 standard errors."""
    steps = 4000
    batches = drawn(num_records, rate, steps)
    hits = torch.zeros(steps, num_records)
    for row, batch in zip(hits, batches):
        assert batch == sorted(set(batch)) and (
            not batch or 0 <= batch[0] <= batch[-1] < num_records
        )
        row[batch] = 1
    total = steps * num_records

    def near(mean, p, count):
        return abs(mean - p) < 5 * math.sqrt(p * (1 - p) / count) + 1e-12

    assert near(float(hits.mean()), rate, total)
    if num_records <= 40:
        assert all(near(float(column.mean()), rate, steps) for column in hits.T)
        both = hits[:, :-1] * hits[:, 1:]
        # Neighbouring pairs overlap, so they count as half as many trials.
        assert near(float(both.mean()), rate**2, steps * (num_records - 1) / 2)
    lengths = hits.sum(1)
    variance = num_records * rate * (1 - rate)
    kurtosis = 2 + (1 - 6 * rate * (1 - rate)) / variance
    assert abs(float(lengths.var()) - variance) < 5 * variance * math.sqrt(kurtosis / steps)


def test_poisson_batches_have_the_lengths_of_opacus():
    """Against Opacus' own sampler, by a two-sample Kolmogorov-Smirnov test."""
    theirs = UniformWithReplacementSampler(
        num_samples=2000, sample_rate=0.05, generator=torch.Generator().manual_seed(4), steps=2000
    )
    ours = drawn(2000, 0.05, 2000)
    test = stats.ks_2samp([len(b) for b in ours], [len(b) for b in theirs])
    assert test.pvalue > 1e-6


def test_a_sample_rate_of_one_is_every_record():
    assert drawn(5, 1.0, 3) == [[0, 1, 2, 3, 4]] * 3


def test_the_same_generator_draws_the_same_batches():
    assert drawn(500, 0.1, 5, seed=1) == drawn(500, 0.1, 5, seed=1) != drawn(500, 0.1, 5, seed=2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sigma": 0.0}, "noise_multiplier=0.0 > 0"),
        ({"sigma": float("nan")}, "noise_multiplier=nan > 0"),
        ({"norm": 0.0}, "max_grad_norm=0.0"),
        ({"norm": 1e-44}, "be at least 1e-30: float32 hardly holds smaller noise"),
        ({"norm": float("inf")}, "max_grad_norm=inf"),
        ({"mode": "ew2"}, "Unknown grad_sample_mode 'ew2'"),
    ],
)
def test_arguments_out_of_range_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        trainer_of(MLP(6, 8, 4), **changes)


def test_models_that_cannot_be_private_are_refused_by_name():
    with pytest.raises(ValueError, match="BatchNorm"):
        trainer_of(nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)))
    model = MLP(6, 8, 4)
    model.requires_grad_(False)
    with pytest.raises(ValueError, match="Every parameter of the model is frozen"):
        trainer_of(model)
    model = MLP(6, 8, 4)
    optimizer = torch.optim.SGD(model.mlp[0].parameters(), lr=0.1)
    with pytest.raises(ValueError, match=r"mlp\.2\.weight is not the optimizer's"):
        DPSGD(
            model,
            optimizer,
            noise_multiplier=1.0,
            max_grad_norm=1.0,
            expected_batch_size=1,
            max_physical_batch_size=1,
        )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("epsilon", "rate", "steps", "published"),
    [
        # sigma of 2022's Purchase-100 rows: shared/docs/attacks.md section 8, +- the tolerance
        # that an accountant with error 0.1 leaves.
        (10.0, 1 / 293, 8790, 0.541),
        (4.0, 1 / 293, 8790, 0.704),
    ],
)
def test_noise_for_a_target(epsilon, rate, steps, published):
    mechanism = Mechanism.for_target(
        target_epsilon=epsilon, target_delta=1e-5, sample_rate=rate, num_steps=steps
    )
    assert mechanism.noise_multiplier == pytest.approx(published, rel=0.01)
    spent = mechanism.epsilon(1e-5)
    assert epsilon - 2 * EPS_ERROR < spent <= epsilon


def test_a_bound_computes_each_renyi_divergence_once(monkeypatch):
    """Opacus alone computes each of them four times; the bound is the same to the last bit."""
    sigma, rate, steps = 1.0625, 0.125, 8
    alone = PRVAccountant()
    alone.history = [(sigma, rate, steps)]
    expected = alone.get_epsilon(delta=1e-5, eps_error=EPS_ERROR)
    orders, plain = [], rdp._compute_rdp

    def counted(q, noise, alpha):
        orders.append(alpha)
        return plain(q, noise, alpha)

    monkeypatch.setattr(rdp, "_compute_rdp", counted)
    assert next(Mechanism(sigma, rate, steps)._bounds(1e-5)) == (expected, EPS_ERROR)
    assert len(orders) == len(set(orders)) > 100
    assert rdp._compute_rdp is counted  # Opacus itself is as it was


def test_a_bound_goes_with_its_mechanism_into_another_process(monkeypatch):
    """There nothing is computed, the bound has the same bits, and it is no other mechanism's."""
    mechanism = Mechanism(1.0625, 0.125, 8)
    alone = PRVAccountant()
    alone.history = [(1.0625, 0.125, 8)]
    error = mechanism.eps_error(1e-5)
    expected = alone.get_epsilon(delta=1e-5, eps_error=error)
    assert mechanism.epsilon(1e-5) == expected
    content = pickle.dumps(mechanism)
    monkeypatch.setattr(accounting, "_prv_epsilon", lambda *_: math.nan)
    there = pickle.loads(content)
    assert there == mechanism and hash(there) == hash(mechanism) and str(there) == str(mechanism)
    assert (there.epsilon(1e-5), there.eps_error(1e-5)) == (expected, error)
    assert math.isnan(there.epsilon(1e-6)) or math.isinf(there.epsilon(1e-6))
    other = replace(there, noise_multiplier=0.5)
    assert other._computed == {} and other.epsilon(1e-5) != expected
