"""Seeds and permutations: keyed by 128 bits for what is new, 2022's for what is 2022's."""

import hashlib

import numpy as np
import pytest
import torch
from scipy.stats import chi2

from mico_competition import ChallengeDataset
from mico_competition.competition.splits import (
    Seeds,
    derive_seeds,
    draw_seeds,
    parse_seed,
    permutation,
    seed_text,
)

KEY = bytes(range(16))


def keyed(number):
    """A different key for every number, the same in every run."""
    return hashlib.sha256(number.to_bytes(8, "big")).digest()[:16]


def test_golden_permutations():
    """Never to change: every competition that was ever drawn hangs on them."""
    assert permutation(12, KEY).tolist() == [2, 5, 0, 3, 4, 11, 10, 1, 8, 6, 9, 7]
    assert permutation(12, bytes(16)).tolist() == [3, 1, 6, 0, 9, 8, 4, 11, 5, 2, 7, 10]
    order = permutation(197_324, KEY).numpy().astype("<i8").tobytes()
    assert (
        hashlib.sha256(order).hexdigest()
        == "649dd97e611cddc7f7a50445629e5dbbdade2a84270041b56b6deeeadd0c2768"
    )


def test_golden_splits():
    splits = ChallengeDataset(range(60), 30, 5, keyed(0), keyed(1), keyed(2))
    assert list(splits.challenge) == [51, 17, 39, 54, 35, 6, 1, 49, 27, 21]
    assert splits.get_solutions() == [1, 0, 1, 1, 1, 0, 0, 1, 0, 0]
    assert splits.train_indices.tolist() == [
        35,
        49,
        54,
        51,
        39,
        12,
        16,
        36,
        3,
        59,
        31,
        57,
        53,
        18,
        45,
        26,
        25,
        48,
        0,
        41,
        32,
        43,
        11,
        46,
        29,
        47,
        9,
        2,
        58,
        10,
    ]


def test_the_definition_by_hand():
    """The stable argsort of 64-bit little-endian words of SHAKE-256(seed)."""
    digest = hashlib.shake_256(KEY).digest(8 * 1000)
    words = [int.from_bytes(digest[8 * i : 8 * i + 8], "little") for i in range(1000)]
    assert permutation(1000, KEY).tolist() == sorted(range(1000), key=words.__getitem__)


def test_ties_keep_their_order(monkeypatch):
    class Tied:
        def digest(self, length):
            return (np.arange(length // 8, dtype="<u8") // 50).tobytes()

    monkeypatch.setattr(hashlib, "shake_256", lambda seed: Tied())
    assert permutation(1000, KEY).tolist() == list(range(1000))


@pytest.mark.parametrize("length", [0, 1, 2, 257])
def test_a_permutation_holds_every_index_once(length):
    order = permutation(length, KEY)
    assert order.dtype == torch.int64
    assert sorted(order.tolist()) == list(range(length))


def test_every_bit_of_a_key_counts():
    """Unlike 2022's scheme, where the upper 32 do not."""
    orders = {tuple(permutation(40, KEY).tolist())}
    for bit in range(128):
        flipped = (int.from_bytes(KEY, "big") ^ (1 << bit)).to_bytes(16, "big")
        orders.add(tuple(permutation(40, flipped).tolist()))
    assert len(orders) == 129


def test_permutations_are_uniform():
    """Chi-square over 24,000 keys: each of the 24 orders of 4 as often as the others."""
    counts = {}
    for number in range(24_000):
        order = tuple(permutation(4, keyed(number)).tolist())
        counts[order] = counts.get(order, 0) + 1
    assert len(counts) == 24
    statistic = sum((count - 1000) ** 2 / 1000 for count in counts.values())
    assert chi2.ppf(1e-4, 23) < statistic < chi2.ppf(1 - 1e-4, 23)


def test_records_are_members_equally_often_and_independently():
    """Chi-square over 4,000 models: how often each record is trained on, and each pair."""
    models, length = 4000, 40
    member = np.zeros((models, length))
    for number in range(models):
        splits = ChallengeDataset(
            range(length), 20, 5, keyed(3 * number), keyed(3 * number + 1), keyed(3 * number + 2)
        )
        member[number, splits.train_indices.numpy()] = 1
    # Half of the records, without replacement: the counts' sum is fixed, one freedom less.
    variance = models * 0.25 * length / (length - 1)
    statistic = ((member.sum(0) - models / 2) ** 2).sum() / variance
    assert chi2.ppf(1e-4, length - 1) < statistic < chi2.ppf(1 - 1e-4, length - 1)
    pairs = (member.T @ member)[np.triu_indices(length, 1)] / models
    expected = 0.5 * 19 / 39  # both among the 20 of 40
    assert np.abs(pairs - expected).max() < 5 * np.sqrt(expected * (1 - expected) / models)


def test_parts_have_their_sizes_and_do_not_meet():
    for number in range(200):
        n, m = 10 + number % 50, 1 + number % 10
        seeds = draw_seeds()
        splits = ChallengeDataset(
            range(100), n, m, seeds.challenge, seeds.training, seeds.membership
        )
        parts = [splits.member, splits.nonmember, splits.training, splits.evaluation]
        assert [len(part) for part in parts] == [m, m, n - m, 100 - n - m]
        assert sorted(i for part in parts for i in part) == list(range(100))
        assert sum(splits.get_solutions()) == m


def test_fresh_seeds_are_128_bits_and_those_of_2022_when_asked_for():
    fresh = [seed for _ in range(50) for seed in vars(draw_seeds()).values()]
    assert len(set(fresh)) == 150
    assert {len(seed) for seed in fresh} == {16}
    old = [seed for _ in range(50) for seed in vars(draw_seeds(scheme_of_2022=True)).values()]
    assert len(set(old)) == 150
    assert all(0 <= seed < 2**63 for seed in old)
    assert draw_seeds().keyed and not draw_seeds(scheme_of_2022=True).keyed


def test_derived_seeds_are_those_of_2022():
    assert derive_seeds(7) == derive_seeds(7) != derive_seeds(8)
    # The first words of 2022's generator for the same split seed.
    words = torch.empty(3, dtype=torch.int64)
    words.random_(0, to=None, generator=torch.Generator().manual_seed(7))
    assert list(vars(derive_seeds(7)).values()) == words.tolist()


@pytest.mark.parametrize("seed", [0, -5, 2**64 - 1, bytes(16), KEY])
def test_a_seed_survives_its_file(seed):
    assert parse_seed("seed", f" {seed_text(seed)}\n") == seed


def test_digits_alone_are_told_apart_by_their_number():
    """32 decimal digits are a key; 2022's integers have at most 20."""
    assert parse_seed("seed", "1" * 32) == bytes.fromhex("1" * 32)
    assert parse_seed("seed", "1" * 19) == int("1" * 19)
    for text in ("1" * 31, "A" * 32, "1" * 33, "0x" + "1" * 30):
        with pytest.raises(ValueError, match="seed") as error:
            parse_seed("seed", text)
        assert text not in str(error.value)


@pytest.mark.parametrize("seed", [b"short", 1.5, True, 2**64, "7"])
def test_what_is_no_seed_is_refused_and_not_quoted(seed):
    with pytest.raises(ValueError, match="seed_training") as error:
        Seeds(1, training=seed)
    assert repr(seed) not in str(error.value)


def test_the_schemes_do_not_mix():
    with pytest.raises(ValueError, match="of one scheme"):
        Seeds(KEY, training=5)


def test_seeds_are_not_in_their_repr():
    assert KEY.hex() not in repr(Seeds(KEY)) and "x01" not in repr(Seeds(KEY))
