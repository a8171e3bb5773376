"""A fleet of a competition of one's own on a real Ray cluster of two nodes on this machine."""

import sys

import pytest
from helpers_competition import write_own
from helpers_ray import copy_ledger, files_of, fleet

from mico_competition.cli import main

pytestmark = [
    pytest.mark.alone,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc"),
]


OWN_FORM = """
import torch
from mico_competition.data.arrays import ArrayDataset

def halved(records):
    return records / 2

def load_halves():
    records, labels = map(torch.from_numpy, load_blobs())
    return ArrayDataset(records, labels, halved)
"""


def test_a_competition_of_ones_own_gives_the_same_bits_on_a_cluster(nodes, tmp_path, capsys):
    """Its loader, its model and how it expands records are in a module beside its file."""
    scenarios = {
        "none": {"target_epsilon": float("inf")},
        "Two and a half": {"target_epsilon": 2.5},
    }
    file = write_own(tmp_path / "mine", scenarios, loader="my_competition:load_halves")
    with file.with_name("my_competition.py").open("a") as module:
        module.write(OWN_FORM)
    here, there = tmp_path / "here", tmp_path / "there"
    for scenario in scenarios:
        line = ["fleet", scenario, "--models", "0,5", "--threads", "1", "--competition", str(file)]
        assert main([*line, "--out", str(here), "--workers", "1"]) == 0
        copy_ledger(here, there, scenario)
        assert main([*line, "--out", str(there), "--ray", nodes.address]) == 0
        assert "2 of 2 models done, 0 failed" in capsys.readouterr().out
    assert files_of(here, "faces") == files_of(there, "faces")
    assert len(files_of(there, "faces")) == 2 * 2 * 5
    assert "my_competition" not in sys.modules and not nodes.left_on_nodes()
    # The cluster's processes that trained it train the package's own competition next.
    assert fleet(tmp_path / "digits", "--ray", nodes.address, models="0") == 0
