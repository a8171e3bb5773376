"""Secure randomness has the right laws, repeats nowhere, and is AES-256-CTR as it says.

The generator cannot be seeded.  Bounds are 6 standard errors, which chance exceeds about once in
5e8 checks; the Kolmogorov-Smirnov tests allow chance 1e-8.
"""

import copy
import math
import multiprocessing
import pickle
import sys

import numpy as np
import pytest
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from scipy import stats

from mico_competition.training import secure_random
from mico_competition.training.secure_random import PAIRS_AT_ONCE, WORDS_AT_ONCE, SecureGenerator

N = 300_000
ERRORS = 6.0
KEY = bytes(range(32))


def keystream(count):
    """CTR by hand: AES-256 of the numbers 0, 1, ... as blocks of 16 bytes, highest byte first."""
    counters = b"".join(i.to_bytes(16, "big") for i in range(count // 16 + 1))
    return Cipher(algorithms.AES256(KEY), modes.ECB()).encryptor().update(counters)[:count]


def known():
    return SecureGenerator._from_key(KEY)


def gaussians_by_hand(count):
    """Four Box-Muller pairs for two numbers, in numpy: the numbers, and what they are sums of."""
    pairs = (count + 1) // 2
    words = np.frombuffer(keystream(64 * pairs), dtype=np.int64).reshape(2, 4, pairs)
    uniforms = words[0] / 2.0**64 + (0.5 + 2.0**-53)
    angles = words[1] * (math.pi / 2.0**63)
    radius = np.sqrt(-2 * np.log(uniforms))
    parts = np.concatenate([radius * np.cos(angles), radius * np.sin(angles)], axis=1)
    return parts.sum(axis=0)[:count] / 2, parts


def test_the_keystream_is_aes_256_in_counter_mode():
    generator = known()
    sizes = (1, 15, 16, 0, 33, 8 * WORDS_AT_ONCE + 5)
    assert b"".join(generator.bytes(size) for size in sizes) == keystream(sum(sizes))
    assert [len(generator.bytes(size)) for size in sizes] == list(sizes)


@pytest.mark.parametrize("count", [1, 2, 7, 1000])
def test_numbers_are_sums_of_four_box_muller_gaussians_divided_by_2(count):
    expected, parts = gaussians_by_hand(count)
    actual = known().normal(count, 1.0, dtype=torch.float64)
    np.testing.assert_allclose(actual.numpy(), expected, rtol=1e-11, atol=1e-14)
    assert parts.shape[0] == 4


def test_the_four_gaussians_of_a_number_are_independent():
    # Of the two numbers of one pair, x + y = sqrt(2) r cos(t - pi/4) would be a single Gaussian.
    _, parts = gaussians_by_hand(40_000)
    correlations = np.corrcoef(np.concatenate([parts, parts**2]))
    off_diagonal = correlations[~np.eye(8, dtype=bool)]
    assert np.abs(off_diagonal).max() < ERRORS / math.sqrt(40_000)


def test_coins_are_words_below_a_threshold():
    words = np.frombuffer(keystream(8 * 1000), dtype=np.uint64)
    for probability in (0.3, 0.5, 1 - 2**-53, 2**-10):
        expected = [int(word) < int(probability * 2**64) for word in words]
        assert known().bernoulli(1000, probability).tolist() == expected


def moments_within_bounds(x):
    n = len(x)
    variances = {1: 1, 2: 2, 3: 15, 4: 96}  # of z, z^2, z^3, z^4
    means = {1: 0, 2: 1, 3: 0, 4: 3}
    return all(abs((x**k).mean() - means[k]) < ERRORS * math.sqrt(variances[k] / n) for k in means)


@pytest.mark.parametrize(("std", "dtype"), [(1.0, torch.float64), (2.5, torch.float32)])
def test_noise_is_gaussian(std, dtype):
    noise = SecureGenerator().normal(N, std, dtype=dtype)
    assert noise.dtype == dtype
    x = noise.double().numpy() / std
    assert moments_within_bounds(x)
    assert stats.kstest(x, "norm").pvalue > 1e-8


def test_numbers_are_independent_of_their_neighbours_and_partners():
    x = SecureGenerator().normal(20 * PAIRS_AT_ONCE, 1.0, dtype=torch.float64).numpy()
    for lag in (1, 2, PAIRS_AT_ONCE, 2 * PAIRS_AT_ONCE):  # PAIRS_AT_ONCE: same pairs, cos and sin
        for power in (1, 2):
            correlation = np.corrcoef(x[:-lag] ** power, x[lag:] ** power)[0, 1]
            assert abs(correlation) < ERRORS / math.sqrt(len(x) - lag)


@pytest.mark.parametrize("probability", [0.003, 0.25, 0.5, 0.99])
def test_coins_have_their_rate_and_ignore_the_calls_before(probability):
    generator = SecureGenerator()
    first, second = (generator.bernoulli(N, probability) for _ in range(2))
    assert first.dtype == torch.bool and first.shape == (N,)
    for coins, rate in (
        (first, probability),
        (second, probability),
        (first & second, probability**2),
        (first[1:] & first[:-1], probability**2),
    ):
        # Neighbouring coins share one: at most three times the variance of lone ones.
        error = math.sqrt(3 * rate * (1 - rate) / len(coins))
        assert abs(coins.double().mean().item() - rate) < ERRORS * error + 1 / N


def test_certain_and_all_but_impossible_coins():
    generator = SecureGenerator()
    assert generator.bernoulli(1000, 1.0).all() and generator.bernoulli(1000, 1).all()
    assert not generator.bernoulli(1000, 1e-300).any()
    assert generator.bernoulli(0, 0.5).shape == (0,)


@pytest.mark.parametrize("word", [-(2**63), -1, 0, 1, 2**63 - 1])
def test_extreme_words_give_finite_numbers(word, monkeypatch):
    generator = SecureGenerator()
    generator._words.fill_(word)
    monkeypatch.setattr(generator, "_keystream", lambda size: None)
    numbers = generator.normal(5, 1.0, dtype=torch.float64)
    assert numbers.isfinite().all()
    assert numbers.abs().max() <= 2 * math.sqrt(2 * 53 * math.log(2)) + 1e-9


@pytest.mark.parametrize(
    "shape",
    [0, 1, (), (0, 3), (3, 5, 7), torch.Size([4]), [2, 2]]
    + [2 * PAIRS_AT_ONCE + extra for extra in (-1, 0, 1)],
)
def test_any_shape(shape):
    noise = SecureGenerator().normal(shape, 1.0)
    assert noise.shape == torch.empty(shape).shape
    assert noise.dtype == torch.float32 and noise.is_contiguous()
    assert (noise != 0).all() and noise.unique().numel() >= 0.99 * noise.numel()


def test_no_noise():
    assert not SecureGenerator().normal(10, 0.0).any()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_results_are_on_the_device():
    generator = SecureGenerator("cuda")
    assert generator.normal(3, 1.0).is_cuda and generator.bernoulli(3, 0.5).is_cuda


def test_torchs_generators_are_left_alone():
    before = torch.get_rng_state()
    generator = SecureGenerator()
    generator.normal(10, 1.0)
    torch.manual_seed(0)
    first = generator.normal(10, 1.0)
    torch.manual_seed(0)
    assert not torch.equal(first, generator.normal(10, 1.0))
    torch.set_rng_state(before)


def test_instances_and_calls_do_not_repeat():
    generators = [SecureGenerator() for _ in range(20)]
    drawn = {generator.bytes(16) for generator in generators for _ in range(20)}
    assert len(drawn) == 400


def send_draw(generator, connection):
    connection.send((secure_random._forks, generator.bytes(32)))


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # 3.12: it may deadlock; not here
def test_forked_children_do_not_repeat_the_parent_or_each_other():
    context = multiprocessing.get_context("fork")
    generator = known()
    generator.bytes(32)
    drawn = []
    for _ in range(3):
        ours, theirs = context.Pipe(duplex=False)
        child = context.Process(target=send_draw, args=(generator, theirs))
        child.start()
        assert ours.poll(30)
        forks, draw = ours.recv()
        child.join()
        assert forks == secure_random._forks + 1  # so even a reused process id gives no repetition
        drawn.append(draw)
    drawn.append(generator.bytes(32))
    assert drawn[-1] == keystream(64)[32:]  # the parent goes on
    assert len(set(drawn)) == 4


def test_a_reused_process_id_gets_a_new_key(monkeypatch):
    generator = known()
    monkeypatch.setattr(secure_random, "_forks", secure_random._forks + 1)
    assert generator.bytes(32) != keystream(32)


def test_a_key_is_left_after_its_blocks(monkeypatch):
    monkeypatch.setattr(secure_random, "BLOCKS_PER_KEY", 4)
    generator = known()
    assert generator.bytes(48) + generator.bytes(16) == keystream(64)
    assert generator.bytes(32) != keystream(96)[64:]
    assert generator._bytes_left == 32


def test_the_key_is_not_shown():
    generator = SecureGenerator._from_key(KEY)
    assert repr(generator) == "SecureGenerator(device='cpu')" == str(generator)
    for value in vars(generator).values():
        assert KEY not in (value, getattr(value, "tobytes", bytes)())
        assert repr(KEY)[2:-1] not in repr(value) and KEY.hex() not in repr(value)


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickle.dumps])
def test_it_cannot_be_duplicated(duplicate):
    with pytest.raises(TypeError, match="cannot be copied or pickled"):
        duplicate(SecureGenerator())


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.ciphers", None)
    with pytest.raises(ImportError, match="pip install cryptography"):
        SecureGenerator()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda g: g.bernoulli(3, 0.0), "0 < probability=0.0 <= 1"),
        (lambda g: g.bernoulli(3, -0.1), "0 < probability=-0.1 <= 1"),
        (lambda g: g.bernoulli(3, 1.001), "0 < probability=1.001 <= 1"),
        (lambda g: g.bernoulli(3, math.nan), "0 < probability=nan <= 1"),
        (lambda g: g.bernoulli(-1, 0.5), "count=-1 >= 0"),
        (lambda g: g.bytes(-1), "count=-1 >= 0"),
        (lambda g: g.normal(3, -1.0), "0 <= std=-1.0 < inf"),
        (lambda g: g.normal(3, math.nan), "0 <= std=nan < inf"),
        (lambda g: g.normal(3, math.inf), "0 <= std=inf < inf"),
        (lambda g: g.normal((2, -1), 1.0), "no negative size"),
        (lambda g: g.normal(3, 1.0, dtype=torch.int64), "floating-point dtype, got torch.int64"),
    ],
)
def test_arguments_out_of_range_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(SecureGenerator())
