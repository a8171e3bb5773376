"""`mico leaderboard check`: every number of an entry follows from its ranks, or one sentence."""

import json
import shutil

import pytest
from helpers_bundle import with_value

from mico_competition.benchmark.checking import check_file, check_folder
from mico_competition.benchmark.entry import entry_text, read_values, stem_of
from mico_competition.benchmark.entry_form import faults_of_form
from mico_competition.cli import main


def test_the_entry_of_the_command_is_sound(mine, capsys):
    assert check_file(mine) == []
    assert main(["leaderboard", "check", str(mine)]) == 0
    assert capsys.readouterr().out == "1 sound entry, 0 faults\n"


FAULTS = [
    (("average", "metrics", "AUC", 0), 0.99, "average.metrics.AUC: expected ["),
    (("scenarios", "digits_lo", "gain", "TPR_FPR_1000", 2), 0.9, "which the ranks give"),
    (("scenarios", "digits_hi", "metrics", "TPR_FPR_1000", 1), 0.001, "which the ranks give"),
    (("scenarios", "digits_inf", "targets"), 50, "targets: expected 3"),
    (("scenarios", "digits_inf", "ranks", "data"), "AAAA", "not deflated numbers"),
    (("scenarios", "digits_inf", "ranks", "sha256"), "0" * 64, "do not have their checksum"),
    (("scenarios", "digits_inf", "winner", "ranks", "sha256"), "0" * 64, "checksum"),
    (("scenarios", "digits_inf", "fleet"), "abc", "fingerprint of the fleet"),
    (("tier",), "large", "tier: expected one of small"),
    (("name",), "a\u202eb", "name: expected a line"),
    (("name",), "rmia", "rmia is an attack of the package"),
    (("name",), "LiRA: online", "lira-online is an attack of the package"),
    (("name",), "lira-onIine", "name: lira-online is an attack of the package"),
    (("name",), "\u0435b", "name: eb is an attack of the package"),
    (("access",), "insider", "access: expected one of black box"),
    (("link",), "javascript:alert(1)", "link: expected an http(s) address"),
    (("seed",), 7, "seed: expected 0"),
    (("made",), "2099-01-01T00:00:00Z", "made: expected a time in UTC, not to come"),
    (("command",), "curl x | sh", "command: expected mico benchmark"),
    (("command",), "mico benchmark --tier full --attack my_attack.py:attack", "begins with mico"),
    (("command",), "mico benchmark --tier tiny --attack rmia", "--attack my_attack.py:attack"),
    (
        ("command",),
        "mico benchmark --tier tiny --attack a.py:f --competition b.toml my_attack.py:attack",
        "command: expected --attack my_attack.py:attack",
    ),
    (("file",), None, "file: expected name, function and sha256"),
    (("versions",), {"python": "3.13"}, "versions: expected the versions of python"),
    (("machine", "cpus"), "many", "machine: expected processor, system, cpus and threads"),
    (("more",), 1, "more: there is no such field"),
]


@pytest.mark.parametrize(("path", "value", "sentence"), FAULTS, ids=[f[2][:30] for f in FAULTS])
def test_every_fault_is_one_sentence(path, value, sentence, mine, tmp_path, capsys):
    file = tmp_path / mine.name
    file.write_text(entry_text(with_value(read_values(mine), path, value)))
    assert main(["leaderboard", "check", str(file)]) == 1
    told = capsys.readouterr().err.splitlines()
    assert sentence in told[0] and told[0].startswith(file.name) and told[0].endswith(".")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"access": "white box"}, "access: expected black box"),
        ({"name": "eb"}, "eb is an attack of the package"),
        ({"name": "Ours"}, "name: expected rmia, the attack that the command names"),
        ({}, None),
    ],
)
def test_an_entry_of_a_named_attack_says_what_the_package_says(changes, sentence, mine):
    found = faults_of_form({**read_values(mine.parent / "rmia.json"), **changes})
    assert [sentence in fault for fault in found] == ([True] if sentence else [])


@pytest.mark.parametrize("key", ["epsilon", "limit"])
def test_the_privacy_of_a_scenario_is_that_of_the_other_entries(key, mine, tmp_path):
    folder = shutil.copytree(mine.parent, tmp_path / mine.parent.name)
    assert check_file(folder / mine.name) == []
    values = read_values(mine)
    of = values["scenarios"]["digits_lo"][key]
    false = 1.0 if key == "epsilon" else dict.fromkeys(of, 0.1)
    text = entry_text(with_value(values, ("scenarios", "digits_lo", key), false))
    (folder / mine.name).write_text(text)
    (fault,) = check_file(folder / mine.name)
    assert f"scenarios.digits_lo.{key}: expected" in fault and "tier's other entries" in fault


def test_a_work_folder_and_a_tiers_folder_are_checked(mine):
    """The folder that `mico benchmark` writes, where the winner's ranks may be elsewhere."""
    for folder in (mine.parent, mine.parent.parent):
        sound, faults = check_folder(folder)
        assert sound > 0 and not faults


def test_what_is_no_entry_is_refused(tmp_path, capsys):
    for text in ("", "{", "[1]", "{}", json.dumps({"benchmark": 1})):
        file = tmp_path / "entry.json"
        file.write_text(text)
        assert main(["leaderboard", "check", str(file)]) == 1
        assert "entry" in capsys.readouterr().err


def test_a_path_where_nothing_is_is_told(capsys):
    assert main(["leaderboard", "check", "nofile.json"]) == 1
    assert "There is no nofile.json: name entries" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["check", "build"])
def test_entries_outside_a_tiers_folder_are_told(verb, mine, tmp_path, capsys):
    shutil.copy(mine, tmp_path / "loose.json")
    assert main(["leaderboard", verb, str(tmp_path)]) == 1
    assert "loose.json lies in no folder of a tier or challenge" in capsys.readouterr().err


def test_two_names_have_two_files(mine, tmp_path, capsys):
    assert len({stem_of(name) for name in ("\u653b\u6483", "\u96a0\u308c", "entry")}) == 3
    paths = []
    for place, name in (("a", "my attack"), ("b", "My-Attack")):
        values = with_value(read_values(mine), ("name",), name)
        paths.append(tmp_path / place / "my-attack.json")
        paths[-1].parent.mkdir()
        paths[-1].write_text(entry_text(values))
    flags = [word for path in paths for word in ("--with", str(path))]
    assert main(["leaderboard", "build", *flags, "--out", str(tmp_path / "site")]) == 1
    assert "would both be tiny/my-attack.json" in capsys.readouterr().err


def test_the_work_folder_of_a_benchmark_is_that_of_its_entries(mine, capsys):
    work = mine.parents[2]
    assert main(["leaderboard", "check", str(work)]) == 0
    sound, faults = check_folder(work / "entries")
    assert capsys.readouterr().out == f"{sound} sound entries, 0 faults\n" and sound and not faults


def test_a_folder_is_checked_whole_and_a_second_name_is_told(mine, tmp_path):
    folder = tmp_path / "tiny"
    folder.mkdir()
    shutil.copy(mine, folder)
    assert check_folder(tmp_path) == (1, [])
    shutil.copy(mine, folder / "twin.json")
    fault = "twin.json: my-attack-attack.json is another entry of 'my_attack:attack': replace it"
    sound, (told,) = check_folder(tmp_path)
    assert sound == 1 and told.startswith(f"tiny/{fault}")
    (told,) = check_file(folder / "twin.json")
    assert told.startswith(fault)
    (folder / "my-attack-attack.json").unlink()
    (told,) = check_file(folder / "twin.json")
    assert "expected the file's name to be my-attack-attack.json" in told


def test_an_entry_in_the_folder_of_another_tier_is_told(mine, tmp_path, capsys):
    (tmp_path / "medium").mkdir()
    shutil.copy(mine, tmp_path / "medium")
    (told,) = check_file(tmp_path / "medium" / mine.name)
    assert told == f"{mine.name}: it is of tier tiny, not medium: move it."
    assert check_folder(tmp_path) == (0, [f"medium/{told}"])
    assert main(["leaderboard", "build", str(tmp_path), "--out", str(tmp_path / "site")]) == 1
    assert f"{mine.name} is no entry of tier medium" in capsys.readouterr().err


def test_a_folder_without_entries_is_told(tmp_path, capsys):
    """It is no fault: the folder of a new competition has none."""
    assert main(["leaderboard", "check", str(tmp_path)]) == 0
    told = capsys.readouterr()
    assert told.out == "0 sound entries, 0 faults\n"
    assert f"There are no entries in {tmp_path} yet" in told.err


def test_an_entry_in_a_misspelt_folder_is_told(mine, capsys):
    """It would be left out of the site without a word."""
    folder = mine.parent.parent / "smal"
    folder.mkdir()
    (folder / mine.name).write_bytes(mine.read_bytes())
    assert main(["leaderboard", "check", str(folder.parent)]) == 1
    told = capsys.readouterr().err
    assert f"smal/{mine.name}: no tier has this name: move it to the folder of one" in told
    shutil.rmtree(folder)
    assert main(["leaderboard", "check", str(folder.parent)]) == 0
