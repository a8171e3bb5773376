"""docs/howto: the commands of the pages run; their Python runs in test_examples.py."""

import re
import shlex
import subprocess
import sys

import pytest
from helpers_pages import ROOT, run_block

from mico_competition.cli import build_parser, main

SMALL = (ROOT / "docs" / "howto" / "small-challenge.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(console|python)\n(.*?)```", SMALL, re.DOTALL)
RECIPES = {
    path.stem: path.read_text(encoding="utf-8")
    for path in (ROOT / "docs" / "howto").glob("*.md")
    if path.stem != "index"
}
SCREEN = 40  # lines


def commands(text):
    blocks = re.findall(r"```console\n(.*?)```", text, re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.startswith("mico ")]


def test_the_parser_knows_the_commands():
    known = [line for text in RECIPES.values() for line in commands(text)]
    assert len(known) >= 12
    for line in known:
        build_parser().parse_args(shlex.split(line)[1:])


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_a_recipe_is_short_and_shows_how(name):
    blocks = re.findall(
        r"^```(?:python|console)\n(.*?)^```", RECIPES[name], re.DOTALL | re.MULTILINE
    )
    assert blocks and max(block.count("\n") for block in blocks) <= SCREEN
    assert len(RECIPES[name].split("\n## ")) == 1


def test_every_recipe_is_in_the_list():
    index = (ROOT / "docs" / "howto" / "index.md").read_text(encoding="utf-8")
    assert set(re.findall(r"\]\((.*?)\.md\)", index)) == set(RECIPES)


@pytest.mark.slow
def test_small_challenges_of_the_real_tasks(tmp_path, monkeypatch, capsys):
    """The page's data are written and its commands run, with fewer models and epochs."""
    monkeypatch.chdir(tmp_path)
    assert [language for language, _ in BLOCKS] == ["console", "python", "console"]
    for language, block in BLOCKS:
        if language == "python":
            run_block(block, {})
        for line in block.splitlines() if language == "console" else ():
            few = line.replace("0-9,100-104", "0-3,100").replace("0-9", "0,1")
            few = re.sub(r"--num_epochs \d+", "--num_epochs 1", few.replace("6000", "3000"))
            if few.startswith("python"):
                subprocess.run([sys.executable, *shlex.split(few)[1:]], check=True)
            else:
                assert main(shlex.split(few)[1:]) == 0, f"{line}\n{capsys.readouterr()}"
    assert "eb" in capsys.readouterr().out
    assert len(list(tmp_path.rglob("prediction.csv"))) == 5
    assert len(list(tmp_path.glob("small/*/*/train/model_*/metadata.json"))) == 8
