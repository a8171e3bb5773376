"""Splits and ChallengeDataset: 2022's, bit for bit; what a missing seed hides stays hidden."""

import hashlib
import json

import pytest
import torch
from helpers_work import calls
from torch.utils.data import ConcatDataset, Subset, random_split

from mico_competition import ChallengeDataset
from mico_competition.competition.splits import Seeds
from mico_competition.competition.table import TASKS

SEEDS = (6230879983245502181, 1687448081092837719, 2966330672645457429)


def small(**changes):
    arguments = {
        "dataset": range(1000),
        "len_training": 600,
        "len_challenge": 100,
        "seed_challenge": SEEDS[0],
        "seed_training": SEEDS[1],
        "seed_membership": SEEDS[2],
    }
    return ChallengeDataset(**{**arguments, **changes})


def write_seeds(folder, seeds=SEEDS, names=("seed_challenge", "seed_training", "seed_membership")):
    folder.mkdir(parents=True, exist_ok=True)
    for name, seed in zip(names, seeds):
        (folder / name).write_text(f"{seed}\n")
    return folder


def sha256(values):
    return hashlib.sha256(",".join(map(str, values)).encode()).hexdigest()


@pytest.mark.parametrize("number", range(4))
def test_equal_to_the_real_torchcsprng(shared, number):
    cases = json.loads((shared / "data/splits/torchcsprng_splits.json").read_text())
    assert len(cases) == 4
    case = cases[number]
    splits = ChallengeDataset(
        range(case["len_dataset"]),
        case["len_training"],
        case["len_challenge"],
        case["seed_challenge"],
        case["seed_training"],
        case["seed_membership"],
    )
    assert list(splits.get_challenges())[:10] == case["challenge_head"]
    assert sha256(splits.get_challenges()) == case["challenge_sha256"]
    assert sha256(splits.member) == case["member_sha256"]
    assert sha256(splits.nonmember) == case["nonmember_sha256"]
    assert sha256(splits.get_train_dataset()) == case["train_sha256"]
    assert sha256(splits.get_eval_dataset()) == case["evaluation_sha256"]
    assert splits.get_solutions() == case["solution"]


# The same by a case that does not need ../shared: random_split is what 2022 called.
def test_equal_to_random_split():
    splits = small()

    def split(dataset, lengths, seed):
        return random_split(dataset, lengths, generator=torch.Generator().manual_seed(seed))

    challenge, rest = split(range(1000), [200, 800], SEEDS[0])
    training, evaluation = split(rest, [500, 300], SEEDS[1])
    nonmember, member = split(challenge, [100, 100], SEEDS[2])
    for name, part in {
        "challenge": challenge,
        "rest": rest,
        "training": training,
        "evaluation": evaluation,
        "nonmember": nonmember,
        "member": member,
    }.items():
        assert isinstance(getattr(splits, name), Subset)
        assert getattr(splits, name).indices == part.indices, name
        assert list(getattr(splits, name)) == list(part), name
    assert isinstance(splits.get_train_dataset(), ConcatDataset)
    assert list(splits.get_train_dataset()) == list(member) + list(training)


def test_index_arrays_agree_with_the_subsets():
    splits = small()
    assert splits.challenge_indices.tolist() == list(splits.challenge)
    assert splits.train_indices.tolist() == list(splits.get_train_dataset())
    assert splits.evaluation_indices.tolist() == list(splits.evaluation)
    used = set(splits.train_indices.tolist()) | set(splits.nonmember) | set(splits.evaluation)
    assert used == set(range(1000))


def test_only_the_low_32_bits_of_a_seed_count():
    """Why new competitions must not use this scheme: there are only 2^32 splits."""
    assert list(small().challenge) == list(small(seed_challenge=SEEDS[0] + 2**32).challenge)


@pytest.mark.parametrize(
    ("missing", "askers"),
    [
        (
            "seed_training",
            ["training", "evaluation", "train_indices", "get_train_dataset", "get_eval_dataset"],
        ),
        (
            "seed_membership",
            ["member", "nonmember", "train_indices", "get_train_dataset", "get_solutions"],
        ),
    ],
)
def test_what_a_missing_seed_hides_raises_the_documented_error(missing, askers):
    splits = small(**{missing: None})
    assert len(splits.get_challenges()) == 200
    for asker in askers:
        with pytest.raises(ValueError, match=f"{missing} was not disclosed"):
            value = getattr(splits, asker)
            value()


@pytest.mark.parametrize(
    ("missing", "hidden", "visible"),
    [
        (
            "seed_training",
            ["training", "evaluation", "train_indices", "evaluation_indices"],
            ["member", "nonmember", "challenge", "rest"],
        ),
        (
            "seed_membership",
            ["member", "nonmember", "train_indices"],
            ["training", "evaluation", "evaluation_indices", "challenge", "rest"],
        ),
    ],
)
def test_hasattr_tells_which_parts_are_known_as_in_2022(missing, hidden, visible):
    splits = small(**{missing: None})
    assert [name for name in hidden if hasattr(splits, name)] == []
    assert [name for name in visible if not hasattr(splits, name)] == []
    assert getattr(splits, hidden[0], None) is None


@pytest.mark.parametrize("names", [1, 2, 3])
def test_from_path_reads_the_seeds_that_are_there(tmp_path, names):
    kept = ("seed_challenge", "seed_training", "seed_membership")[:names]
    folder = write_seeds(tmp_path / "model_0", names=kept)
    splits = ChallengeDataset.from_path(folder, range(1000), 600)
    assert list(splits.challenge) == list(small().challenge)
    assert (splits.seeds.membership is None) == (names < 3)


def test_from_path_knows_n_by_the_scenarios_name(tmp_path):
    folder = write_seeds(tmp_path / "purchase100" / "purchase100_lo" / "dev" / "model_100")
    splits = ChallengeDataset.from_path(folder, range(197_324))
    assert (splits.len_training, splits.len_challenge) == (150_000, 100)
    # A slip that a prize winner of 2023 made: CIFAR-10's n on Purchase-100's models.
    with pytest.raises(ValueError, match="50000 is that of CIFAR-10.*150000"):
        ChallengeDataset.from_path(folder, range(197_324), 50_000)
    for length in (1000, 160_000):
        with pytest.raises(ValueError, match=r"197324 records of Purchase-100"):
            ChallengeDataset.from_path(folder, range(length))
        with pytest.raises(ValueError, match=r"197324 records of Purchase-100"):
            ChallengeDataset.from_path(folder, range(length), 150_000)
    with pytest.raises(ValueError, match="give len_training"):
        ChallengeDataset.from_path(write_seeds(tmp_path / "elsewhere"), range(1000))


def test_from_path_believes_the_metadata(tmp_path):
    folder = write_seeds(tmp_path / "cifar10" / "cifar10_lo" / "train" / "model_0")
    (folder / "metadata.json").write_text('{"len_training": 600, "len_challenge": 50}')
    splits = ChallengeDataset.from_path(folder, range(1000))
    assert (splits.len_training, splits.len_challenge) == (600, 50)
    with pytest.raises(ValueError, match="len_training=700.*metadata says 600"):
        ChallengeDataset.from_path(folder, range(1000), 700)
    with pytest.raises(ValueError, match="len_challenge=100.*metadata says 50"):
        ChallengeDataset.from_path(folder, range(1000), len_challenge=100)
    (folder / "metadata.json").write_text('{"len_dataset": 900, "len_training": 600}')
    with pytest.raises(ValueError, match="Expected the 900 records of CIFAR-10"):
        ChallengeDataset.from_path(folder, range(1000))
    (folder / "metadata.json").write_text('{"len_training": "600"}')
    with pytest.raises(ValueError, match="no whole numbers"):
        ChallengeDataset.from_path(folder, range(1000))
    (folder / "metadata.json").write_text("{")
    with pytest.raises(ValueError, match="metadata.json is not a JSON object"):
        ChallengeDataset.from_path(folder, range(1000))


@pytest.mark.parametrize("text", ["", "abc", "1.5", "1 2", str(2**70)])
def test_a_broken_seed_file_is_named_and_not_quoted(tmp_path, text):
    folder = write_seeds(tmp_path / "model_0")
    (folder / "seed_membership").write_text(text)
    with pytest.raises(ValueError, match="seed_membership") as error:
        ChallengeDataset.from_path(folder, range(1000), 600)
    assert not text or text not in str(error.value).replace(str(folder), "")


def test_a_folder_without_seeds_is_named(tmp_path):
    with pytest.raises(ValueError, match=f"no file seed_challenge in {tmp_path}"):
        ChallengeDataset.from_path(tmp_path, range(1000), 600)


def test_seeds_are_not_in_their_repr():
    assert "6230879983245502181" not in repr(Seeds(*SEEDS))


def test_challenge_points_are_the_only_records_read(tmp_path):
    """However long the dataset is, and with a few hundred calls."""

    class Counted:
        read = 0

        def __len__(self):
            return TASKS["purchase100"].len_dataset

        def __getitem__(self, index):
            self.read += 1
            return index

    folder = write_seeds(tmp_path / "purchase100_lo" / "dev" / "model_100")
    dataset = Counted()
    opened = []
    work = calls(lambda: opened.append(ChallengeDataset.from_path(folder, dataset)))
    points = opened[0].get_challenges()
    assert dataset.read == 0 and work < len(dataset) / 10
    assert len([points[i] for i in range(len(points))]) == dataset.read == 200
