"""The page of an evaluation in a real browser: bands, legends and whole rows, on a phone too."""

import re

import pytest
from helpers_problem import ATTACKS, make_source

from mico_competition.evaluation import page
from mico_competition.evaluation.cross_fitting import make_task
from mico_competition.evaluation.evaluate import Options, evaluate
from mico_competition.evaluation.study import study

NAMES = ("threshold", "winner-2023", "lira-online-global", "rmia", "bavaria", "eb")
NAMES += ("calibrate-confidence-midpoint",)


@pytest.fixture(scope="module")
def html():
    """Two scenarios, one of 30 models and one of three, with a study."""
    pairs = []
    for dev, scenario in ((30, "digits_inf"), (3, "digits_lo")):
        source = make_source(train=20, dev=dev, asked=100, points=800, scenario=scenario)
        task = make_task(source, "dev")
        attacks = [ATTACKS[name] for name in NAMES]
        found = evaluate(task, attacks, options=Options(resamples=100, bands=True))
        pairs.append((found, study(task, ATTACKS["eb"], [4, 8, 16], resamples=50)))
    return page.to_html(pairs)


def each(browser, selector, expression):
    """A list of what `expression` gives of each element `e`."""
    found = f"Array.from(document.querySelectorAll({selector!r}), e => {expression})"
    return browser.js(f"JSON.stringify({found})")


@pytest.mark.parametrize("width", [400, 1200])
def test_rows_are_whole_and_nothing_sticks_out(html, browser, tmp_path, width):
    path = tmp_path / "e.html"
    path.write_text(html)
    browser.show(width, 900)
    browser.open(path)
    assert browser.complaints() == []
    wide = "e.scrollWidth <= e.clientWidth"
    assert "false" not in each(browser, ".wide", wide)
    assert browser.js("document.documentElement.scrollWidth <= window.innerWidth")
    # A number with its star is one line, and so is an interval.
    lines = (
        "(r => { if (e.firstChild) r.selectNodeContents(e.firstChild);"
        " return new Set(Array.from(r.getClientRects(), b => Math.round(b.top))).size; })"
        "(document.createRange())"
    )
    assert set(re.findall(r"\d+", each(browser, ".compared .range", lines))) <= {"0", "1"}
    assert set(re.findall(r"\d+", each(browser, ".compared td", lines))) == {"1"}


def test_one_legend_below_both_curves_with_every_attack(html, browser, tmp_path):
    path = tmp_path / "e.html"
    path.write_text(html)
    browser.show(1200, 900)
    browser.open(path)
    tops = "Math.round(e.getBoundingClientRect().top)"
    plots = each(browser, ".plots figure", tops)
    first = re.findall(r"-?\d+", plots)[:2]
    assert first[0] == first[1]  # side by side
    names = browser.js("document.querySelector('.legend').textContent")
    assert all(name in names for name in (*NAMES, "winner-best", "guessing"))
    assert browser.js(
        "document.querySelector('.legend').getBoundingClientRect().top >= "
        "document.querySelector('.plots').getBoundingClientRect().bottom"
    )
    assert browser.js("document.querySelectorAll('section').length") == 2


@pytest.mark.slow
def test_every_curve_has_a_band_and_zero_no_sign(html):
    section = html.split("<section>")[1]
    assert section.count('fill-opacity="0.13"') == 2 * (len(NAMES) + 1) + 1
    assert not re.search(r"[-+]0\.0+(?!\d)", html.partition("<script>")[0])
    assert html.count("Bands are 95% intervals") == 4
    assert "Student&#x27;s t over fewer than six models" in html
    assert "from a bootstrap over models" in html


@pytest.mark.slow
def test_without_bands_the_page_says_nothing_of_them():
    task = make_task(make_source(), "dev")
    found = evaluate(task, [ATTACKS["eb"]], options=Options(resamples=20))
    assert "Bands" not in page.to_html([(found, [])])
