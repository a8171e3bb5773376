"""A tier of nine small models, and an attack of one's own measured on it by `mico benchmark`."""

from dataclasses import replace

import pytest

from mico_competition.benchmark import tiers
from mico_competition.cli import benchmark, main

ATTACK = '''
from mico_competition.attacks import calibrate

def attack(problem):
    """logit less its mean OUT"""
    return problem.gather("logit").score(calibrate, centre="out")
'''


@pytest.fixture(scope="session")
def tiny():
    """A tier of digits with six shadows and three targets."""
    patch = pytest.MonkeyPatch()
    tier = replace(tiers.TIERS["small"], name="tiny", shadows="0-5", targets="100-102")
    patch.setitem(tiers.TIERS, "tiny", tier)
    patch.setattr(benchmark, "TIER_NAMES", (*benchmark.TIER_NAMES, "tiny"))
    yield tier
    patch.undo()


@pytest.fixture(scope="session")
def bench(tiny, tmp_path_factory):
    """The folder in which `mico benchmark` ran, with the entry of an attack in my_attack.py."""
    folder = tmp_path_factory.mktemp("bench")
    (folder / "my_attack.py").write_text(ATTACK)
    words = [
        "--tier",
        "tiny",
        "--attack",
        f"{folder}/my_attack.py:attack",
        "--work",
        str(folder / "work"),
    ]
    assert main(["benchmark", *words, "--workers", "1", "--quiet"]) == 0
    return folder


@pytest.fixture
def mine(bench):
    """The file of the entry."""
    return bench / "work/entries/tiny/my-attack-attack.json"
