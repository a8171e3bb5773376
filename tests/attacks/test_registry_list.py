"""`mico attacks`, and how early a wrong name is noticed."""

import json
import subprocess
import sys

import pytest

from mico_competition.attacks.registry import ROWS, check_name
from mico_competition.cli import main


def test_a_line_an_attack(capsys):
    assert main(["attacks", "--wide"]) == 0
    lines = capsys.readouterr().out.splitlines()
    table = lines[1 : lines.index("")]
    assert [line.split()[0] for line in table] == list(ROWS)
    for word in ("name", "access", "shadows", "cost", "source"):
        assert word in lines[0]
    (white,) = (line for line in table if line.startswith("whitebox "))
    assert "white box *" in white and "minutes" in white
    for alias, name in (("lira", "lira-online"), ("best", "whitebox")):
        (line,) = (line for line in table if line.startswith(f"{alias} "))
        assert line.endswith(f"the same as {name}")


@pytest.mark.parametrize("columns", [80, 100])
def test_the_list_fits_the_terminal(capsys, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    assert main(["attacks"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= columns
    named = [line.split()[0] for line in lines[1 : lines.index("")] if line[0] != " "]
    assert named == list(ROWS)


def test_json_and_some_names_only(capsys):
    assert main(["attacks", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["attacks"]
    assert [row["name"] for row in rows] == list(ROWS)
    assert {"title", "access", "cost", "source", "known_training_set"} <= set(rows[0])
    assert main(["attacks", "query-stack", "best", "--json"]) == 0
    queries, white = json.loads(capsys.readouterr().out)["attacks"]
    assert (queries["access"], white["alias_of"]) == ("queries", "whitebox")


@pytest.mark.parametrize(
    "verb", ["attack lria {}", "evaluate {} --attack lria", "audit {} --attack lria"]
)
def test_a_wrong_name_is_noticed_before_torch_is_imported(verb, tmp_path):
    program = (
        "import sys\n"
        "from mico_competition.cli import main\n"
        f"code = main({verb.format(tmp_path).split()!r})\n"
        "print(code, 'torch' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert found.stdout == "2 False\n"
    assert "did you mean lira?" in found.stderr


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [("white", "whitebox"), ("LIRA", "lira"), ("eb2", "eb"), ("quantile-regression", "quantile")],
)
def test_the_nearest_names_are_named(wrong, meant):
    with pytest.raises(ValueError, match=f"did you mean {meant}"):
        check_name(wrong)
