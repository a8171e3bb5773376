"""The reference has every public name, each with an example, and every verb of the command line."""

import doctest
import re
import sys
from importlib import import_module

import pytest
from helpers_pages import ROOT

sys.path.insert(0, str(ROOT / "docs" / "_ext"))
from public_names import names_of
from verbs import subcommands

import mico_competition
from mico_competition.cli import build_parser

REFERENCE = ROOT / "docs" / "reference"
LISTED = re.compile(r"^\.\. public-names:: ([\w.]+)\n(?:   :homes: (.*)\n)?", re.MULTILINE)
PACKAGES = ["mico_competition.attacks", "mico_competition.audit", "mico_competition.scoring"]
# Their examples need data or models that a download brings, so they are shown and not run.
NEED_FILES = {"load_cifar10", "load_purchase100", "load_sst2", "tpr_limits_of"}
OLD = {"ceilings_of"}  # another name of a function


def listed():
    """(module, name) of everything that the pages list."""
    for page in sorted(REFERENCE.glob("*.md")):
        for module, homes in LISTED.findall(page.read_text(encoding="utf-8")):
            for name in names_of(module, homes):
                yield module, name


def test_every_public_name_is_in_the_reference_once():
    names = [name for module, name in listed() if module == "mico_competition"]
    assert sorted(names) == sorted(mico_competition.__all__)
    for package in PACKAGES:
        found = [name for module, name in listed() if module == package]
        assert sorted(found) == sorted(import_module(package).__all__)


@pytest.mark.parametrize(("module", "name"), list(listed()))
def test_every_public_name_has_an_example(module, name):
    value = getattr(import_module(module), name)
    if not callable(value) or name in OLD:
        assert value  # a table; its docstring is in its module
        return
    text = value.__doc__ or ""
    examples = doctest.DocTestParser().get_examples(text)
    assert examples, f"{module}.{name} has no example"
    runs = [one for one in examples if not one.options.get(doctest.SKIP)]
    assert runs or name in NEED_FILES, f"the example of {module}.{name} does not run"


def test_every_verb_has_a_description():
    verbs = dict(subcommands(build_parser()))
    assert len(verbs) >= 20
    for name, parser in verbs.items():
        assert parser.description, name
