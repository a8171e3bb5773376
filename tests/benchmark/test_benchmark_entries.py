"""The committed entries: their numbers follow from their ranks, and they are on one fleet."""

import pytest
from helpers_scripts import script_of

from mico_competition.benchmark.board import ranks_in
from mico_competition.benchmark.checking import check_file, check_folder
from mico_competition.benchmark.entry import ENTRIES, held_ranks, read_tier
from mico_competition.benchmark.ranks import ranks_sha256
from mico_competition.cli import main
from mico_competition.evaluation.measure import measure

TIERS = ("small", "medium", "full")


@pytest.mark.slow  # every interval, 9 seconds
def test_every_number_follows_from_the_stored_ranks():
    sound, faults = check_folder(ENTRIES)
    assert faults == []
    assert sound == sum(1 for _ in ENTRIES.glob("*/*.json"))


@pytest.mark.parametrize("tier", TIERS)
def test_every_score_follows_from_the_stored_ranks(tier):
    """The same of the scores alone; of one entry also the intervals."""
    entries = read_tier(ENTRIES, tier)
    held = held_ranks(entries)
    for entry in entries:
        for name, part in entry.values["scenarios"].items():
            truth, ranks, winner = ranks_in(entry, name, held)
            assert ranks_sha256(ranks) == part["ranks"]["sha256"]
            assert ranks_sha256(winner) == part["winner"]["ranks"]["sha256"]
            found = measure(truth, ranks, resamples=1)
            for metric, (value, _, _) in part["metrics"].items():
                assert found[metric].value == pytest.approx(value, abs=1e-6)
    assert [fault for entry in entries[:1] for fault in check_file(entry.path)] == []


@pytest.mark.parametrize("tier", TIERS)
def test_the_entries_of_the_package_are_on_one_fleet(tier):
    ours = [entry for entry in read_tier(ENTRIES, tier) if entry.values["file"] is None]
    assert len({entry.fleet for entry in ours}) == 1


@pytest.mark.parametrize("tier", TIERS)
def test_every_attack_has_an_entry(tier):
    with script_of("leaderboard_entries") as script:
        names = script.names_of()
    ours = [e.name for e in read_tier(ENTRIES, tier) if e.values["file"] is None]
    assert sorted(names) == sorted(ours)


@pytest.mark.slow  # trains 450 small models
def test_a_newcomer_gets_the_committed_numbers_of_the_small_tier(tmp_path, capsys):
    """On the entries' own fleets to the last rank; on those of another machine nearly so."""
    assert main(["benchmark", "--work", str(tmp_path), "--quiet"]) == 0
    table = capsys.readouterr().out
    committed = {entry.name: entry for entry in read_tier(ENTRIES, "small")}
    for mine in read_tier(tmp_path / "entries", "small"):
        assert mine.name in table
        theirs = committed[mine.name]
        for name, part in mine.values["scenarios"].items():
            if mine.fleet == theirs.fleet:
                assert part["ranks"] == theirs.values["scenarios"][name]["ranks"]
            gains = mine.gain(scenario=name)[0], theirs.gain(scenario=name)[0]
            assert gains[0] == pytest.approx(gains[1], abs=0.06)
