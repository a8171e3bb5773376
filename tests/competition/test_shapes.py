"""Competitions of other shapes than 2022's, from `mico fleet` to the leaderboard and the Hub."""

import json
from math import inf
from pathlib import Path

import pytest
from helpers_bundle import read_zip, spec_of
from helpers_competition import TASK, competition_text

from mico_competition.cli import main

DATES = [
    *("--dev_start", "2036-01-01 00:00:00", "--final_start", "2036-02-01 00:00:00"),
    *("--end", "2036-03-01 00:00:00"),
]
SMALL = {"num_epochs": 1, "batch_size": 30, "target_epsilon": inf}


def phases(train, dev, final):
    """Phases of so many models, without gaps between their ids."""
    ends = [train, train + dev, train + dev + final]
    ranges = zip(("train", "dev", "final"), [0, *ends], ends)
    return {name: {"models": [first, end - 1]} for name, first, end in ranges}


def of_one_challenge(challenge, counts):
    """Rows of a challenge's own phases."""
    rows = phases(*counts).items()
    return "".join(f"[challenge.{challenge}.phase.{k}]\nmodels = {v['models']}\n" for k, v in rows)


def write(file, scenarios, counts, challenge_points, others=""):
    """The file of scenarios name -> challenge with so many models a phase."""
    rows = {name: {**SMALL, "challenge": challenge} for name, challenge in scenarios.items()}
    task = {**TASK, "training": 60, "challenge": challenge_points}
    file.write_text(competition_text(rows, task, phases(*counts)) + others, encoding="utf-8")


def mico(*words):
    """Run a verb on the competition in this folder; it must end well."""
    line = [*map(str, words), "--competition", "competition.toml"]
    assert main(line) == 0, line


def through_all_verbs(challenge):
    """From trained models to entries and a page on the Hub; each verb must end well."""
    released, zipped = f"released/{challenge}", f"sent_{challenge}/team.zip"
    mico("release", "trained", "--challenge", challenge, "--to", "released")
    mico("verify", released)
    mico("attack", "threshold", released, "--quiet")
    mico("score", released, "--quiet")
    mico("submit", released, "--zip", zipped)
    mico("check", released, "--zip", zipped)
    here = ("bundle", "trained", "--challenge", challenge, "--out")
    mico(*here, f"{challenge}.zip", *DATES)
    mico(*here, "final.zip", "--final_reference", "--replace")
    mico("rehearse", f"{challenge}.zip", zipped, "--final_reference", "final.zip")
    for phase in ("dev", "final"):
        words = ("--truth", "trained", "--phase", phase, "--out", "entries")
        mico("score-all", f"sent_{challenge}", *words, "--resamples", "20")
    mico("publish", released, f"me/{challenge}", "--dry_run")
    mico("release", "trained", "--challenge", challenge, "--to", "released", "--reveal", "dev")
    mico("verify", released)


def check(challenge, scenarios, counts, challenge_points):
    """The counts that the release, the bundle and the entries state."""
    names = [name for name, its in scenarios.items() if its == challenge]
    stated = json.loads(Path(f"released/{challenge}.release/release.json").read_text())
    by_phase = dict(zip(("train", "dev", "final"), counts))
    assert {name: row["phases"] for name, row in stated["scenarios"].items()} == dict.fromkeys(
        names, by_phase
    )
    for name in names:
        folder = Path(f"released/{challenge}/{name}")
        found = {p.name: sorted(int(m.name[6:]) for m in p.iterdir()) for p in folder.iterdir()}
        ids = phases(*counts).items()
        assert found == {k: list(range(v["models"][0], v["models"][1] + 1)) for k, v in ids}
        text = (folder / "train" / "model_0" / "solution.csv").read_text()
        solution = text.strip().split(",")
        assert len(solution) == 2 * challenge_points and solution.count("1") == challenge_points
    files = read_zip(f"{challenge}.zip")
    spec = spec_of(files)
    for phase, name, count in zip(spec["phases"], ("dev", "final"), counts[1:]):
        assert phase["description"] == f"Scored on the {count * len(names)} {name} models"
    assert len(spec["leaderboards"][0]["columns"]) == 1 + 6 * len(names)
    pages = "".join(v.decode() for k, v in files.items() if k.startswith("pages/"))
    assert f"single line of {2 * challenge_points} numbers" in pages
    assert f"{counts[1] * 2 * challenge_points:,}" in pages


FLEETS = 5
ONE = {"only": "faces"}
FIVE = {"a": "faces", "b": "faces", "c": "faces", "d": "few", "e": "few"}
TWENTY = {f"s{i}": "faces" for i in range(20)}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scenarios", "counts", "challenge_points"),
    [
        (ONE, {"faces": (20, 10, 10)}, 7),
        (ONE, {"faces": (150, 50, 50)}, 40),
        (FIVE, {"faces": (4, 2, 2), "few": (3, 1, 2)}, 7),
        (TWENTY, {"faces": (2, 1, 1)}, 7),
    ],
    ids=["one scenario of 40 models", "250 models", "two challenges", "twenty scenarios"],
)
def test_a_shape_goes_through_all_verbs(tmp_path, monkeypatch, scenarios, counts, challenge_points):
    monkeypatch.chdir(tmp_path)
    own = {name: count for name, count in counts.items() if name != "faces"}
    others = "".join(of_one_challenge(name, count) for name, count in own.items())
    write(Path("competition.toml"), scenarios, counts["faces"], challenge_points, others)
    for name in scenarios:
        if name in list(scenarios)[:FLEETS]:
            mico("fleet", name, "--out", "trained", "--workers", "1", "--quiet")
        else:  # a fleet takes seconds to begin
            ids = f"0-{sum(counts[scenarios[name]]) - 1}"
            words = ("--model_id", ids, "--output_dir", "trained", "--quiet")
            mico("train", "--scenario", name, *words)
    mico("fleet", "status", "trained")
    for challenge, count in counts.items():
        through_all_verbs(challenge)
        check(challenge, scenarios, count, challenge_points)
    mico("leaks", "released", "--trained", "trained", "--revealed", "dev")
    mico("leaderboard", "build", "entries", "--out", "site")
