"""A fleet's rows, columns, and what is told of it: exactly what the scenario discloses."""

import shutil

import numpy as np
import pytest

from mico_competition.competition.challenge import ChallengeDataset
from mico_competition.signals import HIDDEN, MEMBER, NONMEMBER, read_fleet, truth

SCENARIO = "digits_inf"


@pytest.fixture
def copied(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "digits")


def splits_of(fleet, row, data):
    return ChallengeDataset.from_path(fleet.folders[row].path, data)


def members(fleet, row, data):
    """int8[points], by sets rather than masks."""
    trained_on = set(splits_of(fleet, row, data).train_indices.tolist())
    return np.array([int(r) in trained_on for r in fleet.records], np.int8)


def test_rows_are_train_then_dev_then_final(trained, data):
    fleet = read_fleet(trained, SCENARIO, data)
    assert [folder.relative_path for folder in fleet.folders] == [
        f"{SCENARIO}/{phase}/model_{i}"
        for phase, i in (("train", 0), ("train", 1), ("dev", 100), ("final", 150))
    ]
    assert len(fleet) == 4
    assert fleet.rows("dev", "final").tolist() == [2, 3]
    assert (fleet.known_membership[:2] != HIDDEN).all() and (
        fleet.known_membership[2:] == HIDDEN
    ).any(axis=1).all()


def test_columns_are_the_union_of_challenge_points_in_each_models_order(trained, data):
    fleet = read_fleet(trained, SCENARIO, data)
    points = [splits_of(fleet, row, data).challenge_indices.numpy() for row in range(4)]
    assert fleet.records.tolist() == sorted(set(np.concatenate(points).tolist()))
    assert (fleet.labels == data.labels.numpy()[fleet.records]).all()
    for row in range(4):
        assert (fleet.records[fleet.challenge[row]] == points[row]).all()


def test_told_as_in_a_standard_scenario(trained, data):
    """Nothing of dev and final, although an organiser's folders have their seeds."""
    fleet = read_fleet(trained, SCENARIO, data)
    assert (trained / SCENARIO / "dev/model_100/seed_membership").is_file()
    for row in (0, 1):
        assert (fleet.known_membership[row] == members(fleet, row, data)).all()
    assert (fleet.known_membership[2:] == HIDDEN).all()


def test_told_as_in_the_distinguisher(trained, data):
    """Of dev and final everything but the membership of the challenge points."""
    fleet = read_fleet(trained, SCENARIO, data, records="all", knowledge="distinguisher")
    for row in (2, 3):
        hidden = np.zeros(len(data), bool)
        hidden[fleet.challenge[row]] = True
        assert ((fleet.known_membership[row] == HIDDEN) == hidden).all()
        assert (fleet.known_membership[row][~hidden] == members(fleet, row, data)[~hidden]).all()
        assert (fleet.known_membership[row] == MEMBER).sum() == 20  # n - m
        assert (fleet.known_membership[row] == NONMEMBER).sum() == 1797 - 200 - 20
    assert (fleet.known_membership[:2] != HIDDEN).all()


def test_truth_is_every_models_membership(trained, data):
    fleet = read_fleet(trained, SCENARIO, data, records="all")
    known = truth(fleet, np.array([0, 2, 3]), data)
    assert known.dtype == bool
    assert known.sum(1).tolist() == [120, 120, 120]
    for row, own in zip((0, 2, 3), known):
        assert (own == members(fleet, row, data)).all()
        assert own[fleet.challenge[row]].sum() == 100
        solution = splits_of(fleet, row, data).get_solutions()
        assert own[fleet.challenge[row]].astype(int).tolist() == solution


def test_truth_of_a_participants_dev_model_is_refused(copied, data):
    (copied / SCENARIO / "dev/model_100/seed_membership").unlink()
    fleet = read_fleet(copied, SCENARIO, data)
    with pytest.raises(ValueError, match=r"dev/model_100 has no seed_membership.*train phase"):
        truth(fleet, np.array([2]), data)


def test_a_train_model_without_its_seed_is_refused(copied, data):
    (copied / SCENARIO / "train/model_1/seed_training").unlink()
    with pytest.raises(ValueError, match=r"train/model_1 has no seed_training"):
        read_fleet(copied, SCENARIO, data)


def test_a_seed_that_is_not_disclosed_need_not_be_there(copied, data):
    for name in ("seed_training", "seed_membership"):
        (copied / SCENARIO / "dev/model_100" / name).unlink()
    assert (read_fleet(copied, SCENARIO, data).known_membership[2] == HIDDEN).all()
    with pytest.raises(ValueError, match=r"dev/model_100 has no seed_training"):
        read_fleet(copied, SCENARIO, data, knowledge="distinguisher")


def test_records_may_be_chosen(trained, data):
    everything = read_fleet(trained, SCENARIO, data, records="all")
    assert everything.records.tolist() == list(range(1797))
    own = splits_of(everything, 0, data).challenge_indices.numpy()
    chosen = read_fleet(trained, SCENARIO, data, records=own[[5, 3, 3]])
    assert chosen.records.tolist() == sorted(own[[5, 3]].tolist())
    assert (np.flatnonzero(chosen.challenge[0] >= 0) == [3, 5]).all()
    assert (chosen.records[chosen.challenge[0][[3, 5]]] == own[[3, 5]]).all()


@pytest.mark.parametrize("records", [[-1], [0, 1797], [], "some"])
def test_records_out_of_range_are_refused(trained, data, records):
    chosen = records if isinstance(records, str) else np.array(records, int)
    with pytest.raises(ValueError, match=r"Expected records"):
        read_fleet(trained, SCENARIO, data, records=chosen)


def test_phases_and_models_may_be_chosen(trained, data):
    fleet = read_fleet(trained, SCENARIO, data, phases=("train", "dev"), models=(1, 100))
    assert [folder.model_id for folder in fleet.folders] == [1, 100]


def test_another_number_of_challenge_points_is_refused(copied, data):
    path = copied / SCENARIO / "dev/model_100/metadata.json"
    path.write_text(path.read_text().replace('"len_challenge": 100', '"len_challenge": 60'))
    (path.parent / "solution.csv").unlink()
    words = r"dev/model_100 has 120 challenge points, but \S*train/model_0 has 200: all models of"
    with pytest.raises(ValueError, match=words):
        read_fleet(copied, SCENARIO, data)
    assert len(read_fleet(copied, SCENARIO, data, phases=("dev",)).challenge[0]) == 120


@pytest.mark.parametrize("scenario", ["digits_inf", "purchase100_inf"])
def test_no_models_are_a_sentence(tmp_path, data, scenario):
    with pytest.raises(ValueError, match=rf"There are no models of {scenario} in .*train/model_0"):
        read_fleet(tmp_path, scenario, data)


def test_unknown_knowledge_is_a_sentence(trained, data):
    with pytest.raises(ValueError, match="'all' to be one of standard, distinguisher"):
        read_fleet(trained, SCENARIO, data, knowledge="all")
