"""docs/howto: the commands of the pages run; their Python runs in test_examples.py."""

import re
import shlex
import subprocess
import sys

import pytest
from helpers_pages import ROOT

from mico_competition.cli import build_parser, main

SMALL = (ROOT / "docs" / "howto" / "small-challenge.md").read_text(encoding="utf-8")
COMMANDS = re.search(r"```console\n(.*?)```", SMALL, re.DOTALL)[1].splitlines()


def test_the_parser_knows_the_commands():
    known = [line for line in COMMANDS if line.startswith("mico ")]
    assert len(known) == 4
    for line in known:
        build_parser().parse_args(shlex.split(line)[1:])


@pytest.mark.slow
def test_a_small_challenge_is_made_and_attacked(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for line in COMMANDS:
        few = line.replace("0-9,100-104", "0-3,100").replace("--num_epochs 20", "--num_epochs 2")
        few = few.replace("--records 6000", "--records 3000")
        if few.startswith("python"):
            subprocess.run([sys.executable, *shlex.split(few)[1:]], check=True)
        else:
            assert main(shlex.split(few)[1:]) == 0, f"{line}\n{capsys.readouterr()}"
    assert "eb" in capsys.readouterr().out
    assert len(list(tmp_path.rglob("prediction.csv"))) == 5
