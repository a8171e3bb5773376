"""The joint decode against dense algebra on few records."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from mico_competition.attacks.whitebox.mlp import features
from mico_competition.attacks.whitebox.mlp.distinguisher import interference, shares
from mico_competition.attacks.whitebox.mlp.features import FirstPass
from mico_competition.attacks.whitebox.mlp.joint import (
    Kernel,
    Solves,
    decode_with_prior,
    information_of,
    joint_decode,
    solve_shifted,
)
from mico_competition.attacks.whitebox.mlp.mlp_layers import unit_rows

N, D, H = 90, 24, 8
RIDGES = (0.1, 0.3, 1.0, 10.0)


@pytest.fixture
def kernel():
    generator = torch.Generator().manual_seed(0)
    white = torch.randn(N, D, generator=generator)
    white = white / white.square().sum(1).mean().sqrt()
    return Kernel(white, unit_rows(torch.randn(N, H, generator=generator)))


@pytest.fixture
def trace(kernel):
    """In the range of K, as traces are."""
    return kernel(torch.randn(N, generator=torch.Generator().manual_seed(1)))


def dense(kernel):
    white, directions = kernel.white.double().numpy(), kernel.directions.double().numpy()
    out = np.empty((N, N))
    for i in range(N):
        for j in range(N):
            out[i, j] = (white[i] @ white[j]) * (directions[i] @ directions[j])
    return out


def test_kernel_equals_the_explicit_matrix(kernel, trace):
    explicit = dense(kernel)
    np.testing.assert_allclose(kernel(trace), explicit @ trace.numpy(), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(kernel.diagonal, np.diag(explicit), rtol=1e-5)
    assert abs(np.diag(explicit).mean() - 1) < 1e-5
    spread = torch.rand(N, generator=torch.Generator().manual_seed(2))
    scaled = np.diag(spread) @ explicit @ np.diag(spread) @ trace.numpy()
    np.testing.assert_allclose(kernel.scaled(spread)(trace), scaled, rtol=1e-4, atol=1e-4)


def test_all_ridges_at_once_equal_dense_solves(kernel, trace):
    explicit = dense(kernel)
    solved = solve_shifted(kernel, trace, RIDGES, tolerance=1e-6, steps=200)
    for ridge, own in zip(RIDGES, solved):
        expected = np.linalg.solve(explicit + ridge * np.eye(N), trace.double().numpy())
        np.testing.assert_allclose(own, expected, atol=2e-4 * np.abs(expected).max())
    unordered = solve_shifted(kernel, trace, RIDGES[::-1], tolerance=1e-6, steps=200)
    torch.testing.assert_close(unordered.flip(0), solved, rtol=1e-3, atol=1e-4)


def test_the_default_tolerance_is_a_few_percent(kernel, trace):
    explicit = dense(kernel)
    for ridge, own in zip(RIDGES, joint_decode(kernel, trace, RIDGES)):
        expected = np.linalg.solve(explicit + ridge * np.eye(N), trace.double().numpy())
        assert np.linalg.norm(own.numpy() - expected) < 0.1 * np.linalg.norm(expected)


def test_nothing_to_solve_gives_zeros(kernel):
    assert not solve_shifted(kernel, torch.zeros(N), RIDGES).any()


def test_one_shift_in_double_precision_solves_or_says_that_it_cannot():
    torch.manual_seed(4)
    root, right = torch.randn(30, 30).double(), torch.randn(30).double()
    matrix = root @ root.T
    (got,) = solve_shifted(lambda x: matrix @ x, right, [1.0], 1e-10, 300, strict=True)
    expected = torch.linalg.solve(matrix + torch.eye(30), right)
    torch.testing.assert_close(got, expected, atol=1e-8, rtol=0)
    bad, ones = torch.logspace(-12, 3, 400).double(), torch.ones(400).double()
    with pytest.raises(ValueError, match="in 300 steps: take a larger ridge"):
        solve_shifted(lambda x: bad * x, ones, [1e-13], 1e-12, 300, strict=True)
    assert solve_shifted(lambda x: bad * x, ones, [1e-13], 1e-12, 300).isfinite().all()
    nothing = solve_shifted(lambda x: bad * x, 0 * ones, [1e-13], 1e-12, 300, strict=True)
    assert not nothing.any()


def test_a_hard_matrix_is_solved_for_all_ridges():
    """A spectrum that takes over 100 steps, more than 40; large ridges are solved long before."""
    spectrum = torch.logspace(-3, 4, 4000)
    generator = torch.Generator().manual_seed(6)
    right = torch.randn(4000, generator=generator) * spectrum.sqrt()
    ridges, solves = [0.1, 3.0, 1e5], Solves()
    solved = solve_shifted(lambda x: spectrum * x, right, ridges, solves=solves)
    assert 100 < solves.steps < 400 and solves.short == 0 and solved.isfinite().all()
    for ridge, own in zip(ridges, solved):
        residual = right - (spectrum + ridge) * own
        assert residual.norm() <= 0.032 * right.norm()


def test_solves_that_run_out_of_steps_are_warned_of_once(caplog):
    spectrum = torch.logspace(-6, 4, 300)
    solves = Solves()
    for _ in range(3):
        found = solve_shifted(
            lambda x: spectrum * x, torch.ones(300), [1e-5, 1e5], steps=5, solves=solves
        )
        assert found.isfinite().all()
    solve_shifted(lambda x: x, torch.ones(300), [1.0], solves=solves)
    assert (solves.count, solves.short, solves.ridge) == (4, 3, 1e-5)
    residual = (torch.ones(300) - (spectrum + 1e-5) * found[0]).norm() / 300**0.5
    assert solves.worst == pytest.approx(float(residual), rel=1e-3)
    solves.warn("The joint decode")
    (record,) = caplog.records
    assert record.getMessage().startswith(
        "The joint decode did not converge for 3 of 4 models: after 5 steps the relative residual "
    )
    Solves().warn("The joint decode")
    assert len(caplog.records) == 1


def test_the_decode_of_a_fleet_warns_when_it_falls_short(kernel, trace, monkeypatch, caplog):
    """As in a fleet whose kernel is too hard for the steps that are allowed."""

    def hurried(kernel, trace, ridges, solves, tolerance):
        return solve_shifted(kernel, trace, ridges, tolerance, steps=1, solves=solves)

    monkeypatch.setattr(features, "joint_decode", hurried)
    monkeypatch.setattr(FirstPass, "kernel", lambda self, row: kernel)
    traces = np.tile(trace.numpy(), (2, 1))
    own = SimpleNamespace(w1=torch.ones(N, 2))
    layers: Any = {0: own, 1: own}
    white = kernel.white
    first = FirstPass(layers, white, white, white, traces, traces, traces, traces, white, white)
    few, _ = features.JOINT
    assert tuple(first.joint) == few.ridges
    (record,) = caplog.records
    assert "The joint decode did not converge for 2 of 2 models" in record.getMessage()


@pytest.mark.parametrize("records", [N, 3 * N])
def test_many_records_are_solved_to_a_small_residual(records):
    """A loose one cost 1.4 points of TPR at full size, where records outnumber weights."""
    layers: Any = {0: SimpleNamespace(w1=torch.ones(N, 2))}
    x = torch.zeros(records, 2)
    signal = np.zeros((1, records), np.float32)
    first = FirstPass(layers, x, x, x, signal, signal, signal, signal, x, x)
    for efforts in (features.ADAMS_STEPS, features.BALANCE, features.BOTH_LAYERS):
        assert (first.effort(efforts).tolerance <= 0.03) == first.many == (records > 2 * N)


def test_decode_undoes_interference(kernel):
    """Traces made by known coefficients give them back, which the traces alone do not."""
    truth = (torch.rand(N, generator=torch.Generator().manual_seed(3)) < 0.3).float()
    decoded = joint_decode(kernel, kernel(truth), [1e-3])[0]
    noise = torch.linalg.eigvalsh(torch.as_tensor(dense(kernel))).min()
    assert noise > -1e-6
    assert (decoded - truth).norm() < 0.5 * (kernel(truth) - truth).norm()
    assert np.corrcoef(decoded, truth)[0, 1] > 0.95


def test_second_pass_equals_dense_algebra_without_the_records_own_prior(kernel, trace):
    """What comes out at i is the generalised least squares estimate of c_i under a flat prior."""
    generator = np.random.default_rng(4)
    mean, spread = generator.normal(size=N), generator.uniform(0.2, 1.5, N)
    ridge, explicit, right = 0.3, dense(kernel), trace.double().numpy()
    values, vectors = np.linalg.eigh(explicit)
    features = (vectors * np.sqrt(np.maximum(values, 0))).T  # [dimensions, N], K = F^T F
    observed = np.linalg.pinv(features.T) @ right  # what F^T y = T came from
    expected = np.empty(N)
    kappa = np.empty(N)
    for i in range(N):
        others = np.arange(N) != i
        f, rest = features[:, i], features[:, others]
        covariance = rest * spread[others] ** 2 @ rest.T + ridge * np.eye(N)
        solved = np.linalg.solve(covariance, np.stack([f, observed - rest @ mean[others]], 1))
        kappa[i] = f @ solved[:, 0]
        expected[i] = f @ solved[:, 1] / kappa[i]
    tensors = (torch.tensor(a, dtype=torch.float32) for a in (mean, spread))
    mean32, spread32 = tensors
    solved = solve_shifted(
        kernel.scaled(spread32), spread32 * (trace - kernel(mean32)), [ridge], 1e-6, 300
    )[0]
    exact = mean32 + solved * (spread32 + torch.tensor(1 / kappa).float() / spread32)
    np.testing.assert_allclose(exact, expected, atol=2e-3 * np.abs(expected).max())
    # With one number for the information on all records it is nearly so.
    per_ridge = information_of(kernel, spread32, [ridge])
    assert 0.7 < per_ridge[0] / np.mean(kappa / np.diag(explicit)) < 1.4
    ours = decode_with_prior(kernel, trace, mean32, spread32, [ridge], per_ridge)[0]
    assert np.corrcoef(ours, expected)[0, 1] > 0.97


def test_information_of_independent_records_is_one_over_the_ridge():
    alone = Kernel(torch.eye(N), torch.ones(N, 1))
    spread = torch.linspace(0.1, 2, N)
    assert information_of(alone, spread, [0.5]) == pytest.approx([2.0], rel=1e-3)


def test_own_prior_of_independent_records_drops_out():
    alone = Kernel(torch.eye(N), torch.ones(N, 1))
    trace = torch.linspace(-1, 1, N)
    for mean in (0.0, 5.0):
        for spread in (0.1, 3.0):
            out = decode_with_prior(
                alone, trace, torch.full((N,), mean), torch.full((N,), spread), [0.5]
            )
            torch.testing.assert_close(out[0], trace, atol=1e-4, rtol=1e-3)


def test_known_members_are_subtracted(kernel):
    """With every other record told, the decode of one is its trace less what they leave in it."""
    member = torch.rand(N, generator=torch.Generator().manual_seed(5)) < 0.5
    trace = kernel(member.float())
    known_membership = np.where(np.arange(N) == 7, -1, member.numpy().astype(np.int8))
    believed = np.full(N, 0.5, np.float32)
    share = shares(believed, known_membership)
    assert share[7] == 0.5 and np.array_equal(
        share[known_membership >= 0], member.numpy()[known_membership >= 0]
    )
    mean, spread = torch.as_tensor(share), torch.full((N,), 1e-3)
    spread[7] = 1.0
    out = decode_with_prior(kernel, trace, mean, spread, [0.05])[0]
    assert float(out[7]) == pytest.approx(float(member[7]), abs=0.01)


def test_interference_equals_a_loop(kernel):
    generator = np.random.default_rng(6)
    excess = torch.tensor(generator.normal(size=N), dtype=torch.float32)
    ours = interference(kernel, excess)
    explicit = dense(kernel)
    for i in range(N):
        expected = sum(float(excess[j]) * explicit[i, j] for j in range(N) if j != i)
        assert float(ours[i]) == pytest.approx(expected, abs=1e-4)
    moved = excess.clone()
    moved[3] += 100  # a record's own membership is not in its interference
    assert float(interference(kernel, moved)[3]) == pytest.approx(float(ours[3]), abs=1e-3)


def test_bad_input_is_refused(kernel, trace):
    with pytest.raises(ValueError, match="ridges > 0"):
        joint_decode(kernel, trace, [0.0])
    with pytest.raises(ValueError, match="ridges > 0"):
        joint_decode(kernel, trace, [])
    trace[0] = float("nan")
    with pytest.raises(ValueError, match="finite traces"):
        joint_decode(kernel, trace, [1.0])
    with pytest.raises(ValueError, match="spreads > 0"):
        decode_with_prior(kernel, torch.ones(N), torch.zeros(N), torch.zeros(N), [1.0])
