"""docs/ORGANISE.md: every command of the page runs, in its order, with fewer models."""

import re
import shlex
from pathlib import Path

from mico_competition.cli import main

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "ORGANISE.md").read_text(encoding="utf-8")


def commands():
    blocks = re.findall(r"```console\n(.*?)```", PAGE, flags=re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


def test_every_command_of_the_page_runs(tmp_path, monkeypatch, capsys):
    lines = commands()
    assert len(lines) >= 12 and all(line.startswith("mico ") for line in lines)
    monkeypatch.chdir(tmp_path)
    for line in lines:
        few = line.replace("0-199", "0-3,100,150").removeprefix("mico ")
        assert main(shlex.split(few)) == 0, f"{line}\n{capsys.readouterr()}"
    assert len(list(tmp_path.glob("released/digits/*/*/model_*"))) == 18


def test_the_worked_example_is_the_code_that_runs():
    """Lines that the page shows of the digits stand in the sources, but for their spacing."""

    def plain(text):
        return re.sub(r"[\s,]+", "", text)

    source = plain("".join((ROOT / "src/mico_competition" / name).read_text() for name in SOURCES))
    for line in SHOWN:
        assert line in PAGE
        assert plain(line) in source


SOURCES = ("tracks.py", "models.py")
SHOWN = (
    'Task("digits", "Digits (demonstration)", "digits_mlp", 1_797, 120, 100, 10, ("model.pt",)',
    'digits = Scenario("digits_inf", "digits", "digits", inf, delta, None, "adam", 0.002, 30, 60)',
    '"digits": replace(digits, max_grad_norm=1.0)',
    '"digits_mlp": lambda: MLP(64, 256, 10, gain=64.0)',
)
