"""A small fleet whose folders name its data and its code, for the tests of fingerprints."""

import shutil

import pytest
from helpers_fingerprints import SCENARIO, seeds_of

from mico_competition.competition.layout import model_path
from mico_competition.competition.table import SCENARIOS
from mico_competition.training.settings import resolve
from mico_competition.training.train_many import Run, train_many


@pytest.fixture(scope="module")
def fleet(tmp_path_factory, data):
    """Four trained models of digits_inf; read-only."""
    root = tmp_path_factory.mktemp("fleet")
    settings = resolve({"scenario": SCENARIO, "num_epochs": 30})
    runs = [
        Run(seeds_of(i), model_path(root, SCENARIOS[SCENARIO], phase, i), i, i)
        for i, phase in ((0, "train"), (1, "train"), (2, "train"), (100, "dev"))
    ]
    list(train_many(settings, data, runs, progress=False))
    return root / "digits"


@pytest.fixture
def own(fleet, tmp_path):
    """A copy of the fleet."""
    return shutil.copytree(fleet, tmp_path / "digits")
