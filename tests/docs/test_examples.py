"""All Python on the pages runs, and gives the output that stands below it."""

import re
from unittest import mock

import pytest
from helpers_pages import PAGES, ROOT, differences, run_block, runnable_blocks, text_of

from mico_competition.training import ghost_norms


def marked(page):
    """A page as a parameter; recipes and the front page train models for seconds each."""
    trains = page.parent.name == "howto" or page.name == "index.md"
    marks = [pytest.mark.slow] if trains else []
    return pytest.param(page, marks=marks, id=str(page.relative_to(ROOT)))


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is dep:FutureWarning")  # by peft
@pytest.mark.parametrize("page", [marked(p) for p in PAGES if runnable_blocks(p)])
def test_examples_give_what_the_page_says(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "__page__"}
    with mock.patch.dict(ghost_norms.RULES):  # a page adds one
        for block in runnable_blocks(page):
            printed = run_block(block.code, names)
            if block.output is not None:
                assert not differences(block.output, printed), (
                    f"{page.name}, line {block.line}:\n{printed}"
                )


def test_all_python_on_the_pages_runs():
    """Other tests put what is not marked into files: test_attacks_page and test_organise_page."""
    left = {}
    for page in PAGES:
        blocks = re.findall(r"^```(?:python|py|pycon)$", text_of(page), re.MULTILINE)
        if len(blocks) != len(runnable_blocks(page)):
            left[page.name] = len(blocks) - len(runnable_blocks(page))
    assert left == {"ATTACKS.md": 2, "ORGANISE.md": 1}


def test_output_is_the_printed_text_and_the_last_value():
    assert run_block("print('a')\n1 + 1\n2 + 2", {}) == "a\n4\n"
    assert run_block("x = 3\n", {}) == ""


def test_differences_are_found():
    assert not differences("AUC 0.712 [0.70, 0.72]", "AUC  0.713 [0.70, 0.72]\n")
    assert not differences("AUC 0.712", "AUC 0.730")
    assert differences("AUC 0.712", "AUC 0.740")
    assert differences("AUC 0.712", "auc 0.712")
    assert not differences("+0.12* [0.10, 0.16]", "+0.15 [0.07, 0.19]")
    assert not differences("0.12 [-0.02, 0.16]", "+0.12* [0.06, 0.16]")
    assert differences("0.12 [0.10, 0.16]", "0.16 [0.10, 0.16]")
    assert differences("0.12 [0.10, 0.16]", "0.12 [0.10, 0.20]")
    assert differences("AUC 0.712", "AUC -0.712")
    assert differences("3 models", "4 models")
    assert not differences("first ... last 1", "first 17 and 18 last 1")
    assert not differences("AUC  seconds\n0.7  1.5\n\n3.5", "AUC  seconds\n0.7  9.9\n\n3.5")
    assert differences("AUC  seconds\n0.7  1.5\n\n3.5", "AUC  seconds\n0.7  1.5\n\n9.9")
