"""What a real browser makes of the benchmark's site, of the committed entries."""

import json
from itertools import pairwise

import pytest

from mico_competition.benchmark.site import build_site

PAGES = ("index.html", "small.html", "attacks/whitebox.html", "submit.html")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    out = tmp_path_factory.mktemp("board") / "site"
    assert build_site(None, out) >= 30
    return out


@pytest.mark.parametrize("width", [400, 1000, 1600])
def test_no_page_is_wider_than_the_screen_in_light_and_dark(browser, site, width):
    for page in PAGES:
        for dark in (False, True):
            browser.show(width, 800, dark=dark, touch=width < 500)
            browser.open(site / page)
            assert browser.js("document.documentElement.scrollWidth") <= width, page
            assert browser.complaints() == []
            assert all(url.startswith("file:") for url in browser.requests())
    if width > 500:  # nor does a table need to be scrolled
        browser.open(site / "small.html")
        frames = "[...document.querySelectorAll('.scroll')]"
        assert browser.js(f"{frames}.every(f => f.scrollWidth <= f.clientWidth)")


def test_rows_are_filtered_by_access_and_tables_by_privacy(browser, site):
    browser.show(1200, 900)
    browser.open(site / "small.html")
    shown = "[...document.querySelectorAll('.board:not([hidden]) tbody tr:not([hidden])')]"
    everything = browser.js(f"{shown}.length")
    browser.js("document.querySelector('input[value=\"4\"]').click()")
    assert browser.js(f"{shown}.length") == everything / 4
    browser.js("document.querySelector('input[value=\"black box\"]').click()")
    kinds = browser.js(f"[...new Set({shown}.map(r => r.dataset.access))]")
    assert sorted(kinds) == ["queries", "white box"]
    count = browser.js(f"{shown}.length")
    said = f"Showing {count} of {int(everything / 4)} rows."
    assert browser.js("document.getElementById('count').textContent") == said


def test_without_scripts_all_tables_are_there(browser, site):
    browser.show(1200, 900, scripts=False)
    browser.open(site / "small.html")
    seen = "[...document.querySelectorAll('.board')].filter(b => b.getClientRects().length).length"
    assert browser.js(seen) == 4
    assert browser.js("document.getElementById('controls').getClientRects().length") == 0
    browser.show(1200, 900)


def test_a_screen_reader_finds_names_and_places(browser, site):
    browser.show(1200, 900)
    for page in PAGES:
        browser.open(site / page)
        assert browser.js("document.documentElement.lang") == "en"
        assert browser.js("document.querySelectorAll('h1').length") == 1
        pictures = "[...document.querySelectorAll('svg')]"
        named = f"{pictures}.every(s => s.getAttribute('aria-hidden') || s.querySelector('title'))"
        assert browser.js(named), page
        heads = "[...document.querySelectorAll('thead th')].every(h => h.scope)"
        assert browser.js(heads)
        levels = json.loads(
            browser.js(
                "JSON.stringify([...document.querySelectorAll('h1,h2,h3')].map(h => +h.tagName[1]))"
            )
        )
        assert all(later - level <= 1 for level, later in pairwise(levels))


def test_it_prints(browser, site):
    for page in PAGES:
        browser.open(site / page)
        assert browser.pdf().startswith(b"%PDF")
