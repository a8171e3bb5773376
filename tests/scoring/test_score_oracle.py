"""Labels read off scores: what docs/HOST.md says was found is what the attack finds again."""

import json
from pathlib import Path

import numpy as np
import pytest
from helpers_scripts import script_of

from mico_competition.competition.table import get_phase
from mico_competition.hosting.codabench.options import Options

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def script():
    with script_of("score_oracle_page") as module:
        yield module


@pytest.fixture(scope="module")
def found():
    return json.loads((ROOT / "docs/results/score_oracle.json").read_text(encoding="utf-8"))


def test_the_page_is_what_its_script_writes(script, found):
    page = (ROOT / "docs/HOST.md").read_text(encoding="utf-8")
    assert script.filled(page, found) == page


def test_what_the_page_says_of_the_attack_is_what_it_found(found):
    """Of the sentences around the table: four times slower, 25 labels a submission, all certain."""
    rows = found["attacks"]
    assert sum(row["wrong"] for row in rows.values()) == 0
    exact, steps = (np.mean(rows[k]["known"]["100"]) for k in ("ten decimals", "steps of 0.005"))
    assert 3.5 < exact / steps < 5 and 22 < exact / 100 < 28
    assert steps < 1000 < exact
    by_step = [np.mean(rows[f"steps of {s}"]["known"]["100"]) for s in ("0.001", "0.005", "0.01")]
    assert by_step == sorted(by_step, reverse=True) and by_step[0] < 1.5 * by_step[-1]
    assert 0.5 < np.mean(found["guessed"]["right"]["100"]) < 0.6


def test_the_measured_step_and_limit_are_those_of_a_bundle(script, found):
    options = Options()
    assert get_phase("cifar10", "dev").step == found["guessed"]["step"] == script.USUAL
    assert str(options.limits.in_all) in found["attacks"]["steps of 0.005"]["known"]


@pytest.mark.slow
def test_the_attacks_find_the_same_again(script, found):
    for name, digits in script.EXACT.items():
        attack = script.exact_attack(0, digits, 100)
        check(attack, found["attacks"][name]["known"]["100"][0])
    for step in (0.005, 0.01):
        attack = script.edge_attack(0, step, 100)
        check(attack, found["attacks"][f"steps of {step:g}"]["known"]["100"][0])
    guessed = script.guess_all(0, 0.005, 100)
    assert guessed == pytest.approx(found["guessed"]["right"]["100"][0], abs=1e-3)


def check(attack, expected):
    known = attack.known >= 0
    assert known.sum() == expected and attack.oracle.asked == 100
    assert (attack.known == attack.oracle.truth)[known].all()


@pytest.mark.parametrize("k", [1, 2, 3, 4, 5])
def test_the_weighings_determine_all_labels(script, k):
    oracle = script.sys.modules["score_oracle"]
    table = oracle.weighings(k).astype(int)
    assert table.shape == (2**k - 1, k * 2 ** (k - 1))
    rng = np.random.default_rng(k)
    for _ in range(20):
        labels = rng.integers(0, 2, table.shape[1])
        assert np.array_equal(oracle.solve(k, table @ labels), labels)
