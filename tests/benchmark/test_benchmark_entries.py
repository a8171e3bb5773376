"""The committed entries: their numbers follow from their ranks, and they are on one fleet."""

import pytest

from mico_competition.benchmark.checking import check_folder
from mico_competition.benchmark.entry import ENTRIES, read_tier

TIERS = ("small", "medium", "full")


@pytest.fixture(scope="module")
def checked():
    return check_folder(ENTRIES)


def test_every_number_follows_from_the_stored_ranks(checked):
    sound, faults = checked
    assert faults == []
    assert sound == sum(1 for _ in ENTRIES.glob("*/*.json"))


@pytest.mark.parametrize("tier", TIERS)
def test_the_entries_of_the_package_are_on_one_fleet(tier):
    ours = [entry for entry in read_tier(ENTRIES, tier) if entry.values["file"] is None]
    assert len({entry.fleet for entry in ours}) <= 1
