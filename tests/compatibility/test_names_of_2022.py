"""docs/COMPATIBILITY.md: each name of 2022 is there with its arguments, and each row is checked."""

import ast
import importlib
import inspect
import re
from pathlib import Path

import pytest
from helpers_compatibility import CHECKED, COMMANDS, FILES, NAMES, found


def test_every_row_is_checked_and_every_check_has_a_row():
    for path in Path(__file__).parent.glob("test_*.py"):
        importlib.import_module(path.stem)
    rows = {**NAMES, **FILES, **COMMANDS}
    assert {row[2] for row in rows.values()} == {"kept", "changed", "gone"}
    generic = {name for name, row in NAMES.items() if row[2] == "gone" or "module with" in row[1]}
    assert CHECKED | generic == set(rows)


@pytest.mark.parametrize("name", [name for name, row in NAMES.items() if "(" in row[0]])
def test_a_call_of_2022_is_one_of_today(name):
    call, _, today, _ = NAMES[name]
    if today == "gone":
        with pytest.raises((AttributeError, ModuleNotFoundError)):
            found(name)
        return
    arguments = ast.parse(f"def f({call.partition('(')[2]}: pass").body[0].args
    names = [argument.arg for argument in arguments.args]
    defaults = [ast.literal_eval(value) for value in arguments.defaults]
    parameters = inspect.signature(found(name)).parameters
    assert list(parameters)[: len(names)] == names
    for added in list(parameters)[len(names) :]:
        assert parameters[added].default is not inspect.Parameter.empty
    for argument, default in zip(reversed(names), reversed(defaults)):
        assert parameters[argument].default in (default, None)


@pytest.mark.parametrize("name", [n for n, row in NAMES.items() if "module with" in row[1]])
def test_a_module_of_2022_has_its_names(name):
    module = importlib.import_module(name)
    names = re.findall(r"`(\w+)`", NAMES[name][1])
    assert len(names) >= 3
    for inner in names:
        assert getattr(module, inner) is not None
    with pytest.raises(AttributeError):
        module.no_such_name  # noqa: B018


def test_constants_of_2022():
    from mico_competition.scoring.score import FPR_THRESHOLD, FPR_THRESHOLD_LIST

    from mico_competition.mico import LEN_CHALLENGE

    assert LEN_CHALLENGE == 100 and FPR_THRESHOLD == 0.1
    assert FPR_THRESHOLD_LIST == [0.001, 0.01, 0.05, 0.1, 0.15, 0.2]
