"""Tables fit the terminal, and styles reach one with colours only."""

import io
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from mico_competition.support.output import PatientStream
from mico_competition.support.terminal import has_colours, styled, table, width

MICO = Path(sys.executable).with_name("mico")
ROWS = [["a", "1.5", "a few words that need more room than there is in a line of sixty columns"]]


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_the_last_column_is_wrapped_and_numbers_are_aligned_to_the_right(monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    rows = [*ROWS, ["long name", "20", "short"]]
    assert table(["name", "n", "what it is"], rows) == [
        "name         n  what it is",
        "a          1.5  a few words that need more room than there",
        "                is in a line of sixty columns",
        "long name   20  short",
    ]
    assert max(map(len, table(["name", "n", "what it is"], rows, wide=True))) > 80


def test_an_empty_table_is_its_header():
    assert table(["name", "n"], []) == ["name  n"]


@pytest.mark.parametrize(("given", "columns"), [("72", 72), ("10", 60), ("x", 100), ("", 100)])
def test_the_width_is_that_of_columns_or_of_a_file(monkeypatch, given, columns):
    monkeypatch.setenv("COLUMNS", given)
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert width() == columns


def test_a_style_is_for_terminals_with_colours(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert styled("x", "bold", Terminal()) == "\x1b[1mx\x1b[0m"
    assert styled("x", "bold", io.StringIO()) == styled("x", "", Terminal()) == "x"
    for name, value in (("NO_COLOR", "1"), ("TERM", "dumb")):
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            assert styled("x", "bold", Terminal()) == "x" and not has_colours(Terminal())


def test_only_styles_of_ours_pass_to_a_terminal(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for made, shown in ((Terminal(), "\x1b[1mx\x1b[0m"), (io.StringIO(), "\\x1b[1mx\\x1b[0m")):
        PatientStream(made, bars=False).write("\x1b[1mx\x1b[0m\x1b[2J\x1b[8m")
        assert made.getvalue() == shown + "\\x1b[2J\\x1b[8m"


@pytest.mark.parametrize(("more", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_a_command_on_a_terminal(more, coloured):
    reading, writing = pty.openpty()
    environment = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "COLUMNS")}
    environment.update({"TERM": "xterm", **more})
    subprocess.run([MICO, "attacks", "lira"], stdout=writing, env=environment, check=True)
    os.close(writing)
    shown = os.read(reading, 1 << 16).decode()
    os.close(reading)
    assert shown.startswith("\x1b[1mname" if coloured else "name")
    assert ("\x1b" in shown) == coloured and "\\x1b" not in shown
