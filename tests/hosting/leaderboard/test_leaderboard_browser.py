"""What a real browser makes of the leaderboard's site."""

import json
import re
import time

import pytest
from helpers_leaderboard_site import HOSTILE, page_of


def test_what_a_narrow_screen_leaves_out_is_said_and_to_be_had(browser, site):
    """With and without scripts, and in words where a table is wider than the screen."""
    heads = "[...document.querySelectorAll('.board')].at(-1).querySelectorAll('thead th')"
    seen = f"[...{heads}].filter(h => h.getClientRects().length).map(h => h.textContent)"
    for width, hint in ((400, "most scores, dates, authors"), (800, "authors"), (1200, None)):
        for scripts in (True, False):
            browser.show(width, 800, scripts=scripts, touch=width < 500)
            browser.open(site / "index.html")
            browser.js("location.hash = '#ddp-dev'")
            wait_until(browser, f"{seen}.length > 0")
            few = browser.js(seen)
            said = browser.js("(p => p.clientHeight ? p.innerText : '')(lacking)")
            assert said == (
                f"This screen leaves out {hint} and links. The page of an entry has them all."
                if hint
                else ""
            )
            if hint:
                click(browser, "label[for=all]")
                assert browser.js("lacking.clientHeight") == 0
            assert "Authors" in browser.js(seen) and "Link" in browser.js(seen)
            assert len(few) == {400: 3, 800: 13, 1200: 15}[width] and len(browser.js(seen)) == 15
            assert browser.js("document.documentElement.scrollWidth") <= width
            if scripts:
                over = "document.querySelector('.here .scroll').classList.contains('over')"
                wait_until(browser, f"{over} === {json.dumps(width < 1000)}")
    browser.show(1200, 900)


def luminance(colour):
    digits = colour if len(colour) == 6 else "".join(c * 2 for c in colour)
    parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    parts = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


def test_text_stands_out_in_light_and_dark(site):
    """WCAG 2.1, 1.4.3: a contrast of 4.5 for text, on the page and on bands."""
    themes = re.findall(r":root \{([^}]*)\}", (site / "index.html").read_text())
    assert len(themes) == 2
    for theme in themes:
        colours = dict(re.findall(r"--(\w+): #([0-9a-f]+)", theme))
        for text in ("ink", "soft", "curve"):
            for ground in ("paper", "band"):
                pair = sorted((luminance(colours[text]), luminance(colours[ground])))
                assert (pair[1] + 0.05) / (pair[0] + 0.05) >= 4.5, (text, ground)


def click(browser, selector):
    """A real click, in the middle of the first such element."""
    x, y = browser.js(
        f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
        "e.scrollIntoView({block: 'center', inline: 'center'});"
        "const r = e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; })()"
    )
    browser.mouse("mousePressed", x, y)
    browser.mouse("mouseReleased", x, y)


def rows(browser):
    """Names of the rows to be seen, in order."""
    return browser.js(
        "[...document.querySelectorAll('.board.here tbody tr')]"
        ".filter(row => row.getClientRects().length)"
        ".map(row => row.cells[1].textContent)"
    )


def text_of(browser, selector):
    return browser.js(f"document.querySelector({json.dumps(selector)}).textContent")


@pytest.fixture
def index(browser, site):
    browser.show(1200, 900)
    browser.open(site / "index.html")
    yield browser
    assert browser.complaints() == []
    assert [u for u in browser.requests() if not u.endswith("/index.html")] == []


def test_challenge_and_phase_are_chosen_by_clicks(index):
    assert rows(index) == ["Finalist"]
    click(index, "input[name=phase][value=dev]")
    assert rows(index)[0] == "Alpha" and len(rows(index)) == 6
    assert index.js("location.hash") == "#cifar10-dev"
    click(index, "input[name=challenge][value=sst2]")
    assert rows(index) == ["Other"]
    assert index.js("document.querySelector('input[value=final]').disabled")
    click(index, "input[name=challenge][value=ddp]")
    assert sorted(rows(index)) == sorted(HOSTILE)
    index.js("location.hash = '#cifar10-final'")
    wait_until(index, "document.querySelector('.here').id === 'cifar10-final'")
    assert rows(index) == ["Finalist"]


def wait_until(browser, condition):
    deadline = time.monotonic() + 600
    while not browser.js(condition):
        assert time.monotonic() < deadline, condition
        time.sleep(0.02)


def test_columns_sort_by_clicks_and_keys(index):
    click(index, "input[name=phase][value=dev]")
    head = ".here th[data-col='1']"
    assert index.js(f"document.querySelector(`{head}`).hasAttribute('aria-sort')") is False
    click(index, f"{head} button")
    names = ["Alpha", "beta", "delta 9", "delta 10", "Gamma", "Resubmitted"]
    assert rows(index) == names  # by letters whatever their case, and by numbers in names
    assert index.js(f"document.querySelector(`{head}`).ariaSort") == "ascending"
    click(index, f"{head} button")
    assert rows(index) == names[::-1]
    assert index.js("document.querySelectorAll('.here [aria-sort]').length") == 1
    index.js("document.querySelector(`.here th[data-col='8'] button`).focus()")
    for kind in ("keyDown", "keyUp"):
        press = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13, "text": "\r"}
        index.call("Input.dispatchKeyEvent", type=kind, **press)
    assert rows(index)[0] == "Alpha"
    assert index.js("document.querySelector(`.here th[data-col='8']`).ariaSort") == "descending"
    assert index.js("document.activeElement.tagName") == "BUTTON"
    click(index, ".here th[data-col='10'] button")
    assert rows(index)[0] == "Resubmitted"  # the latest first


def test_search_leaves_what_has_all_words(index):
    click(index, "input[name=phase][value=dev]")
    click(index, "#search")
    index.call("Input.insertText", text="DELTA  author")
    assert sorted(rows(index)) == ["delta 10", "delta 9"]
    assert text_of(index, "#count") == "Showing 2 of 6."
    index.call("Input.insertText", text=" <b>")
    assert rows(index) == []
    assert text_of(index, "#count") == "No entry of 6 has “DELTA  author <b>”."
    click(index, "input[name=phase][value=final]")
    assert text_of(index, "#count").startswith("No entry of 1")


def test_a_scenario_alone_has_its_own_ranks_and_columns(index):
    click(index, "input[name=phase][value=dev]")
    assert index.js("[...document.querySelector('#scenario').options].map(o => o.text)") == [
        "Average",
        "No DP",
        "High ε = 10",
        "Low ε = 4",
    ]
    index.js(
        "(() => { const s = document.querySelector('#scenario'); s.value = '1';"
        "s.dispatchEvent(new Event('change')); })()"
    )
    shown = (
        "[...document.querySelectorAll('.here thead th')].filter(h => h.getClientRects().length)"
    )
    heads = index.js(f"{shown}.map(h => h.textContent)")
    assert "No DP" in heads and "High ε = 10" not in heads
    ranks = "[...document.querySelectorAll('.here tbody tr')].map(r => r.cells[0].textContent)"
    # Intervals of scenarios are those of the average here, and scores a quarter more.
    assert index.js(ranks) == ["1", "2=", "2=", "4=", "4=", "4="]
    assert rows(index)[0] == "Alpha"
    assert index.js("document.querySelector(`.here th[data-col='4']`).ariaSort") == "descending"
    click(index, "input[name=phase][value=final]")
    click(index, "input[name=phase][value=dev]")
    assert index.js("document.querySelector('#scenario').value") == "1"


def test_hostile_entries_are_text_in_the_browser_too(browser, site):
    browser.show(1200, 900)
    pages = [site / "index.html", *sorted((site / "ddp").glob("*.html"))]
    assert len(pages) == 6
    for page in pages:
        browser.open(page)
        assert browser.js("window.pwned === undefined && document.images.length === 0"), page
        assert browser.js("document.scripts.length") == (page.name == "index.html")
        assert browser.complaints() == [] and len(browser.requests()) == 1
    names = {text_of(browser, "h1") for page in pages[1:] for _ in [browser.open(page)]}
    assert names == set(HOSTILE)
    # Even markup that got in by some mistake would do nothing.
    browser.js(
        "document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=window.pwned=1>')"
    )
    wait_until(browser, "document.images[0].complete")
    assert browser.js("window.pwned === undefined")


@pytest.mark.parametrize("width", [320, 360, 768, 1200])
def test_no_page_is_wider_than_the_screen(browser, site, width):
    pages = [site / "index.html", page_of(site, "cifar10", "resubmitted"), page_of(site, "ddp", "")]
    for scripts in (True, False):
        for page in pages:
            browser.show(width, 800, scripts=scripts, touch=width < 500)
            browser.open(page)
            assert browser.js("document.documentElement.scrollWidth") <= width, page
            tables = "[...document.querySelectorAll('.scroll')].filter(s => s.clientWidth)"
            over = browser.js(f"Math.max(...{tables}.map(s => s.scrollWidth - s.clientWidth))")
            assert over <= 0 or width in (320, 768), (page, over)
    browser.show(1200, 900)


def test_without_scripts_every_table_is_there(browser, site):
    browser.show(1200, 900, scripts=False)
    browser.open(site / "index.html")
    seen = browser.js(
        "[...document.querySelectorAll('.board')].filter(b => b.clientHeight).map(b => b.id)"
    )
    assert seen == ["cifar10-final", "cifar10-dev", "sst2-dev", "ddp-dev"]
    assert browser.js("document.querySelector('#controls').clientHeight") == 0
    assert browser.js("document.querySelectorAll('nav.boards a').length") == 4
    browser.show(1200, 900)


def test_a_screen_reader_finds_names_and_places(browser, site):
    """What Chromium's accessibility tree says of both kinds of page."""
    for page in (site / "index.html", page_of(site, "cifar10", "resubmitted")):
        browser.show(1200, 900)
        browser.open(page)
        nodes = browser.call("Accessibility.getFullAXTree")["nodes"]
        named = [
            (node["role"]["value"], node.get("name", {}).get("value", ""))
            for node in nodes
            if not node.get("ignored")
        ]
        needs = {"button", "link", "image", "img", "radio", "searchbox", "combobox", "columnheader"}
        assert [role for role, name in named if role in needs and not name.strip()] == []
        roles = {role for role, _ in named}
        assert {"main", "heading", "table", "rowheader", "columnheader"} <= roles
        if page.name == "index.html":
            assert ("button", "TPR at 10% FPR, No DP") in named and "status" in roles
        else:
            assert any(r in ("image", "img") and "ROC curve of No DP" in n for r, n in named)
        assert browser.js("document.documentElement.lang") == "en"


def test_it_prints(browser, site):
    browser.show(1200, 900)
    browser.open(site / "index.html")
    assert browser.pdf().startswith(b"%PDF")
    browser.show(800, 900, media="print")
    assert browser.js("document.querySelector('#controls').clientHeight") == 0
    browser.show(1200, 900)
