"""`mico benchmark`: reference fleets, an attack measured on them, and its entry."""

import json
from dataclasses import replace

import numpy as np
import pytest

from mico_competition.benchmark.entry import read_values, truth_in
from mico_competition.benchmark.ranks import dense_ranks, pack, ranks_sha256, unpack
from mico_competition.benchmark.tiers import TIERS, get_tier, seeds_of, truth_of
from mico_competition.cli import main
from mico_competition.cli.benchmark import TIER_NAMES
from mico_competition.competition.challenge import ChallengeDataset
from mico_competition.competition.solutions import read_solution
from mico_competition.competition.splits import seed_text
from mico_competition.data.datasets import load_digits
from mico_competition.evaluation.measure import measure


def test_the_seeds_of_the_tiers_stay_what_they_are():
    """Of the package's tiers: other files may have added `tiny` before."""
    tiers = [tier for name, tier in TIERS.items() if name != "tiny"]
    names = {tier.name for tier in tiers}
    assert set(TIER_NAMES) == names, "the names that the command line offers"
    first = seeds_of(get_tier("small"), "digits_inf")[0]
    assert seed_text(first.seeds.membership) == "713c03b9aa08d7d67ae008be69541a9f"
    assert first.train_seed == 8744496291141610374
    full = seeds_of(get_tier("full"), "purchase100_lo")
    assert [one.model_id for one in full] == [*range(24), *range(100, 112)]
    every = [
        seed_text(one.seeds.membership)
        for tier in tiers
        for scenario in tier.scenarios
        if not tier.downloaded
        for one in seeds_of(tier, scenario)
    ]
    assert len(set(every)) == len(every)


@pytest.mark.parametrize("tier", [name for name, tier in TIERS.items() if not tier.downloaded])
def test_half_of_the_challenge_points_of_every_target_are_members(tier):
    for scenario in get_tier(tier).scenarios:
        truth = truth_of(tier, scenario)
        assert truth.shape == (len(get_tier(tier).target_ids), 200)
        assert (truth.sum(axis=1) == 100).all()


def test_ranks_give_the_numbers_of_the_scores():
    rng = np.random.default_rng(0)
    truth = rng.random((8, 50)) < 0.5
    scores = rng.normal(size=truth.shape).round(1) + truth
    ranks = dense_ranks(scores)
    packed = unpack(pack(ranks), ranks.shape)
    assert np.array_equal(packed, ranks) and ranks_sha256(packed) == ranks_sha256(ranks)
    by_scores, by_ranks = measure(truth, scores), measure(truth, packed)
    for metric, estimate in by_scores.estimates.items():
        other = by_ranks[metric]
        assert (estimate.value, estimate.low, estimate.high) == (other.value, other.low, other.high)


@pytest.mark.parametrize("text", ["", "AAAA", "?", pack(np.arange(10).reshape(2, 5))[:-8]])
def test_broken_ranks_are_refused(text):
    with pytest.raises(ValueError, match="ranks"):
        unpack(text, (2, 5))


def test_ranks_with_gaps_and_bombs_are_refused():
    with pytest.raises(ValueError, match="dense"):
        unpack(pack(np.arange(0, 20, 2).reshape(2, 5)), (2, 5))
    with pytest.raises(ValueError, match="2 x 5"):
        unpack(pack(np.zeros((4000, 4000))), (2, 5))


def test_the_entry_says_what_was_measured_and_how(bench, mine):
    values = read_values(mine)
    assert (values["tier"], values["name"]) == ("tiny", "my_attack:attack")
    assert values["title"] == "logit less its mean OUT" and values["access"] == "black box"
    command = "mico benchmark --tier tiny --attack my_attack.py:attack"
    assert values["command"] == command, "the folder stays private"
    assert values["file"]["name"] == "my_attack.py" and len(values["file"]["sha256"]) == 64
    assert {"processor", "system", "cpus", "threads"} == set(values["machine"])
    assert {"python", "numpy", "torch", "mico_competition"} <= set(values["versions"])
    parts = values["scenarios"]
    assert [*parts] == ["digits_inf", "digits_hi", "digits_lo"]
    assert [part["epsilon"] for part in parts.values()] == [None, 10, 4]
    for part in parts.values():
        assert (part["targets"], part["members"], part["nonmembers"]) == (3, 300, 300)
        assert set(part["metrics"]) == {"TPR_FPR_1000", "TPR_FPR_100", "TPR_FPR_10", "AUC"}
    assert parts["digits_inf"]["limit"] is None
    assert parts["digits_lo"]["limit"]["TPR_FPR_1000"] < parts["digits_hi"]["limit"]["TPR_FPR_1000"]
    mean = np.mean([part["metrics"]["AUC"][0] for part in parts.values()])
    assert values["average"]["metrics"]["AUC"][0] == pytest.approx(mean, abs=2e-6)


def test_the_truth_of_the_tier_is_that_of_the_trained_models(bench, tiny):
    data = load_digits()
    for scenario in tiny.scenarios:
        truth = truth_of("tiny", scenario)
        for row, model_id in zip(truth, tiny.target_ids, strict=True):
            path = bench / f"work/tiny/digits/{scenario}/dev/model_{model_id}"
            assert row.tolist() == read_solution(path).astype(bool).tolist()
            assert ChallengeDataset.from_path(path, data).get_solutions() == row.tolist()


def test_named_attacks_are_not_measured_twice(bench, capsys):
    before = {p: p.stat().st_mtime_ns for p in (bench / "work/entries").rglob("*.json")}
    assert main(["benchmark", "--tier", "tiny", "--work", str(bench / "work"), "--quiet"]) == 0
    shown = capsys.readouterr().out
    assert {p: p.stat().st_mtime_ns for p in (bench / "work/entries").rglob("*.json")} == before
    assert all(name in shown for name in ("threshold", "winner-2023", "lira-online", "rmia", "eb"))


def test_an_entry_of_another_name_is_not_overwritten(bench, mine, tmp_path, capsys):
    (tmp_path / "my-attack.py").write_text("def attack(problem):\n    return None\n")
    flags = ["--work", str(bench / "work"), "--attack", f"{tmp_path}/my-attack.py:attack"]
    before = mine.read_text()
    for text in (before, "[1]"):
        mine.write_text(text)
        assert main(["benchmark", "--tier", "tiny", *flags, "--quiet"]) == 1
        assert f"{mine} is no entry of my-attack:attack: move it" in capsys.readouterr().err
        assert mine.read_text() == text
    mine.write_text(before)


def test_an_attack_that_tells_points_not_apart_is_remarked_upon(bench, tmp_path, caplog):
    file = tmp_path / "flat.py"
    file.write_text(
        "def attack(problem):\n    return 0 * problem.gather('loss').score(first)\n"
        "def first(target, *others, target_index):\n    return target\n"
    )
    command = ["benchmark", "--tier", "tiny", "--work", str(bench / "work"), "--quiet"]
    assert main([*command, "--out", str(tmp_path), "--attack", f"{file}:attack"]) == 0
    assert f"The scores of {file}:attack on digits_lo are tied" in caplog.text


GRADIENTS = "problem.gather('gradient_norm')"
LOADS = "problem.source.load(int(problem.shadows[0]))"


@pytest.mark.parametrize(
    ("reads", "flags", "access", "warning"),
    [
        (GRADIENTS, (), "white box", "it reads the signal gradient_norm"),
        (GRADIENTS, ("--access", "queries"), "white box", "says white box, not queries"),
        (LOADS, ("--access", "black box"), "white box", "measure it with --access queries"),
        (LOADS, ("--access", "queries"), "queries", ""),
        ("problem.source.logits(0)", (), "black box", ""),
        ("__import__('pickle').dumps(problem.source)", (), "white box", "to other processes"),
    ],
)
def test_an_entry_states_the_access_that_its_attack_used(
    bench, tmp_path, caplog, reads, flags, access, warning
):
    (tmp_path / "deep.py").write_text(
        f"def attack(problem):\n    {reads}\n"
        "    return problem.gather('loss').score(lambda target, *others, target_index: target)\n"
    )
    command = ["--attack", f"{tmp_path}/deep.py:attack", *flags, "--out", str(tmp_path)]
    command = ["benchmark", "--tier", "tiny", "--work", str(bench / "work"), "--quiet", *command]
    assert main(command) == 0
    assert read_values(tmp_path / "tiny/deep-attack.json")["access"] == access
    said = [r.getMessage() for r in caplog.records if r.getMessage().startswith("The entry of")]
    assert [warning in text for text in said] == [True] * bool(warning)


def test_a_fleet_of_other_seeds_is_refused(bench, tmp_path, capsys):
    ledger = bench / "work/tiny/fleet/digits_inf/ledger.jsonl"
    folder = tmp_path / "tiny/fleet/digits_inf"
    folder.mkdir(parents=True)
    (folder / "settings.json").write_text((ledger.parent / "settings.json").read_text())
    rows = [json.loads(line) for line in ledger.read_text().splitlines()]
    rows[0]["train_seed"] += 1
    (folder / "ledger.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    assert main(["benchmark", "--tier", "tiny", "--work", str(tmp_path), "--quiet"]) == 1
    assert "has other seeds than tier tiny" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--attack", "lria"], "did you mean lira"),
        (["--attack", "none.py:attack"], "There is no file none.py"),
        (["--attack", "rmia", "--access", "white box"], "--access is for an attack of file.py"),
        (["--name", "Mine"], "--name is for an attack of file.py:function"),
        (["--attack", "rmia", "--name", "Mine"], "--name is for an attack of file.py:function"),
        (["--attack", "rmia", "--author", "a\tb"], "entry: authors: expected a list of at most 20"),
        (["--attack", "rmia", "--link", "ftp://x"], "entry: link: expected an http(s) address"),
    ],
)
def test_bad_flags_are_refused_before_anything_is_trained(words, sentence, tmp_path, capsys):
    code = None
    try:
        code = main(["benchmark", "--work", str(tmp_path / "work"), *words])
    except SystemExit as leave:
        code = leave.code
    assert code and sentence in capsys.readouterr().err
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("mine", "def attack():\n    pass", "called as attack(problem), got attack()"),
        ("mine", "def attack(p):\n    '" + "long " * 70 + "'", "entry: title: expected"),
        ("a+b", "def attack(p):\n    pass", "entry: command: expected mico benchmark"),
        ("lira", "def online(p):\n    pass", "name: lira-online is an attack of the package"),
        ("m" * 90, "def attack(p):\n    pass", "entry: name: expected a line of 1 to 80"),
    ],
)
def test_a_file_that_gives_no_entry_is_refused_before_training(
    name, text, sentence, tmp_path, capsys
):
    (tmp_path / f"{name}.py").write_text(text)
    function = text[4 : text.index("(")]
    words = ["--attack", f"{tmp_path}/{name}.py:{function}", "--work", str(tmp_path / "work")]
    assert main(["benchmark", *words]) == 1
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "work").exists()


def test_two_attacks_of_one_entry_are_refused_before_training(tmp_path, capsys):
    words = ["--work", str(tmp_path / "work")]
    for name in ("a.b.py", "a-b.py"):
        (tmp_path / name).write_text("def attack(p):\n    pass")
        words += ["--attack", f"{tmp_path}/{name}:attack"]
    assert main(["benchmark", *words]) == 1
    assert "a.b:attack and a-b:attack would be one entry" in capsys.readouterr().err
    assert not (tmp_path / "work").exists()


def test_downloaded_train_models_are_attacked_by_leaving_models_out(bench, tmp_path, monkeypatch):
    """The tiny tier's train models stand in for those of 2022."""
    tier = replace(TIERS["mico2022"], scenarios=("cifar10_inf", "digits_inf", "digits_lo"))
    monkeypatch.setitem(TIERS, "mico2022", tier)
    words = ["--tier", "mico2022", "--downloads", str(bench / "work/tiny"), "--quiet"]
    assert main(["benchmark", *words, "--attack", "rmia", "--work", str(tmp_path)]) == 0
    file = tmp_path / "entries/mico2022/rmia.json"
    values = read_values(file)
    assert [*values["scenarios"]] == ["digits_inf", "digits_lo"]  # those that are there
    assert values["scenarios"]["digits_lo"]["targets"] == 6
    solutions = [
        read_solution(bench / f"work/tiny/digits/digits_lo/train/model_{i}") for i in range(6)
    ]
    assert np.array_equal(truth_in(values, "digits_lo"), np.array(solutions, bool))
    assert main(["leaderboard", "check", str(file)]) == 0
    assert main(["leaderboard", "build", str(file.parents[1]), "--out", str(tmp_path / "s")]) == 0


def test_without_downloads_the_command_to_get_them_is_shown(tmp_path, capsys):
    assert main(["benchmark", "--tier", "mico2022", "--downloads", str(tmp_path), "--quiet"]) == 1
    assert "mico download purchase100 --phase train" in capsys.readouterr().err
