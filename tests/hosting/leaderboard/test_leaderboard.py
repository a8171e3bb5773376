"""Leaderboard entries as files: their form, every fault named, and who ranks where."""

import copy
import json

import numpy as np
import pytest
from helpers_leaderboard import made_up

from mico_competition.hosting.leaderboard.entries import (
    Entry,
    check_entries,
    entry_text,
    latest,
    ranked,
    read_entries,
    write_entry,
)
from mico_competition.hosting.leaderboard.form import check_values, is_link, parse_time


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("format", 2, "expected 1"),
        ("format", True, "expected 1"),
        ("challenge", "mnist", "one of cifar10"),
        ("challenge", ["cifar10"], "one of cifar10"),
        ("phase", "train", "one of dev, final"),
        ("phase", {}, "one of dev, final"),
        ("name", "", "1 to 80"),
        ("name", "x" * 81, "1 to 80"),
        ("name", " padded", "printable"),
        ("name", "new\nline", "printable"),
        ("name", "\u202egnp.exe", "printable"),  # would turn the rest of the line round
        ("name", "\u200b\u200b", "printable"),
        ("name", "\u200d", "1 to 80"),
        ("authors", "Ada", "list of at most 20"),
        ("authors", ["x"] * 21, "list of at most 20"),
        ("link", "javascript:alert(1)", "https://"),
        ("link", "http://a b", "https://"),
        ("link", 'https://a/"onclick="x', "https://"),
        ("description", "x" * 1001, "at most 1000"),
        ("commit", "main", "hexadecimal"),
        ("versions", {"python": "3"}, "versions of python"),
        ("submitted", "2027-13-01T00:00:00Z", "time in UTC"),
        ("submitted", "2027-01-01", "time in UTC"),
        ("predictions_sha256", "ABC", "64 hexadecimal"),
        ("submission_sha256", 5, "64 hexadecimal"),
        ("average", {"score": 1.5, "interval": None}, "from 0 to 1"),
        ("average", {"score": float("nan"), "interval": None}, "from 0 to 1"),
        ("average", {"score": 0.2, "interval": [0.3, 0.1]}, "lower first"),
        ("average", {"score": 0.3, "interval": [0.1, 0.4]}, "the mean of the scenarios'"),
        ("average", 5, "an object with score"),
        ("scenarios", {}, "expected cifar10_hi, cifar10_inf, cifar10_lo"),
        ("scenarios", [], "the challenge's scenarios"),
        ("rank", 1, "there is no such field"),
    ],
)
def test_a_fault_names_its_field(field, value, said):
    faults = check_values({**made_up("x"), field: value})
    assert any(fault.startswith(field) and said in fault for fault in faults), faults
    assert all(len(fault) < 250 for fault in faults)


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("models", 0, "above 0"),
        ("scores.AUC", -0.1, "from 0 to 1"),
        ("scores.AUC", "0.5", "from 0 to 1"),
        ("intervals.MIA", [0.1], "two numbers"),
        ("roc.tpr", [0.5, 0.4], "never fall"),
        ("roc.fpr", [0.1, 0.2], "as many fpr as tpr"),
        ("roc.fpr", [k / 100 for k in range(61)], "2 to 60"),
        ("extra", 1, "no such field"),
    ],
)
def test_a_fault_of_a_scenario_names_its_place(path, value, said):
    values = copy.deepcopy(made_up("x"))
    place = values["scenarios"]["cifar10_lo"] = copy.deepcopy(values["scenarios"]["cifar10_lo"])
    *parents, last = path.split(".")
    for parent in parents:
        place = place[parent]
    place[last] = value
    faults = check_values(values)
    assert any("scenarios.cifar10_lo." in fault and said in fault for fault in faults), faults


def test_all_faults_of_an_entry_at_once():
    values = {**made_up("x"), "phase": "train", "commit": "main"}
    del values["name"]
    faults = check_values(values)
    assert [fault.split(":")[0] for fault in faults] == ["phase", "name", "commit"]
    assert check_values([]) == ["expected an object"]
    assert check_values({}) and check_values({"scenarios": {"cifar10_hi": 5}})


def test_links_of_other_kinds_are_no_links():
    assert is_link("https://arxiv.org/abs/2112.03570") and is_link("http://[::1]:80/?a=b#c")
    for text in (
        "",
        "ftp://a",
        "//a",
        "a.org",
        "data:text/html,x",
        "https://",
        "http://[",
        "HTTP:/a",
    ):
        assert not is_link(text), text


HOSTILE = {
    "nan": b'{"average": NaN}',
    "twice": b'{"name": "a", "name": "b"}',
    "deep": b"[" * 60_000,
    "large": b'"' + b"x" * 70_000 + b'"',
    "bytes": b'"\xff"',
    "digits": b"1" * 5_000,
    "list": b"[]",
    "Upper": b"{}",
}


def test_hostile_files_are_faults_and_no_more(tmp_path):
    (tmp_path / "cifar10").mkdir()
    for name, content in HOSTILE.items():
        (tmp_path / "cifar10" / f"{name}.json").write_bytes(content)
    good = write_entry(tmp_path, made_up("good"))
    (tmp_path / "sst2").mkdir()
    (tmp_path / "sst2" / good.name).write_bytes(good.read_bytes())
    (tmp_path / "faults").mkdir()
    (tmp_path / "faults" / "x.json").write_text("not ours")
    entries, faults = check_entries(tmp_path)
    assert [entry.stem for entry in entries] == [good.stem]
    for name in HOSTILE:
        assert any(fault.startswith(f"cifar10/{name}.json: ") for fault in faults), name
    assert f"sst2/{good.name}: expected in folder cifar10" in faults
    with pytest.raises(ValueError, match="faults:"):
        read_entries(tmp_path)
    with pytest.raises(ValueError, match="There is no folder"):
        check_entries(tmp_path / "none")


def test_an_entry_is_read_as_it_was_written(tmp_path):
    values = made_up("Ünïcode [ 1, 2 ] <b>", description="[\\n 1,  2 ]")
    path = write_entry(tmp_path, values)
    assert json.loads(path.read_text()) == values == dict(read_entries(tmp_path)[0].values)
    assert path.read_text() == entry_text(values) and path.stat().st_size < 10_000
    assert write_entry(tmp_path, values) == path  # again is no harm
    with pytest.raises(ValueError, match="exists already"):
        write_entry(tmp_path, {**values, "link": ""})
    with pytest.raises(ValueError, match="not sound"):
        write_entry(tmp_path, {**values, "name": ""})
    for name in ("../../etc", "中文", "CON", "."):
        assert write_entry(tmp_path, made_up(name)).parent == tmp_path / "cifar10"
    assert check_entries(tmp_path)[1] == []


def test_two_of_one_name_and_time_are_a_fault(tmp_path):
    write_entry(tmp_path, made_up("A", 0.2))
    write_entry(tmp_path, made_up("a", 0.3))
    assert "has the name and time of" in check_entries(tmp_path)[1][0]


def entries_of(*rows):
    return [
        Entry(str(i), made_up(name, value, half=half, day=i))
        for i, (name, value, half) in enumerate(rows, 1)
    ]


def test_ranks_are_shared_where_intervals_reach_the_leaders():
    rows = [("a", 0.30, 0.02), ("b", 0.27, 0.015), ("c", 0.20, 0.01), ("d", 0.185, 0.01)]
    found = ranked(entries_of(*rows, ("e", 0.1, 0.001)))
    assert [(e.values["name"], str(rank)) for rank, e in found] == [
        ("a", "1="),
        ("b", "1="),
        ("c", "3="),
        ("d", "3="),
        ("e", "5"),
    ]
    # A wide interval of an entry that leads is the group's; one of an entry below is not.
    found = ranked(entries_of(("a", 0.3, 0.01), ("b", 0.25, 0.045), ("c", 0.24, 0.01)))
    assert [str(rank) for rank, _ in found] == ["1=", "1=", "3"]
    assert ranked([]) == []


def test_ranks_never_fall_and_count_the_entries_above():
    rng = np.random.default_rng(0)
    for _ in range(50):
        rows = [(f"n{i}", round(rng.uniform(0.1, 0.3), 4), rng.uniform(0, 0.05)) for i in range(20)]
        found = ranked(entries_of(*rows))
        numbers = [rank.number for rank, _ in found]
        assert numbers == sorted(numbers)
        for place, (rank, entry) in enumerate(found):
            leader = found[rank.number - 1][1].measure()
            assert entry.measure().high >= leader.low
            assert rank.tied == (numbers.count(rank.number) > 1)
            if rank.number == place + 1 and place:
                before = found[found[place - 1][0].number - 1][1].measure()
                assert entry.measure().high < before.low


def test_of_equal_scores_the_earlier_comes_first():
    found = ranked(entries_of(("late", 0.2, 0), ("early", 0.2, 0))[::-1])
    assert [entry.values["name"] for _, entry in found] == ["late", "early"]  # days 1 and 2


def test_the_latest_submission_of_a_name_counts():
    entries = entries_of(
        ("Team A", 0.3, 0), ("team  a", 0.2, 0), ("Ｔeam A", 0.1, 0), ("B", 0.2, 0)
    )
    other = Entry("other", made_up("Team A", 0.4, phase="final", day=0))
    found = {(e.phase, e.values["name"]) for e in latest([*entries[::-1], other])}
    assert found == {("dev", "Ｔeam A"), ("dev", "B"), ("final", "Team A")}


def test_times_are_told_with_their_offset():
    assert parse_time("2027-01-13T14:00:00+02:00") == parse_time("2027-01-13T12:00:00Z")
    for text in ("2027-01-13T12:00:00", "soon", ""):
        with pytest.raises(ValueError, match="Expected a time such as"):
            parse_time(text)
