"""The leaderboard's site: what is in its bytes, and what a real browser makes of it."""

import copy
import json
import re
import time
from datetime import timedelta
from pathlib import Path

import pytest
from helpers_leaderboard import FIRST, made_up

from mico_competition.hosting.leaderboard.build import build
from mico_competition.hosting.leaderboard.entries import read_entries, write_entry
from mico_competition.hosting.leaderboard.form import parse_time, time_text

OPENS = parse_time("2027-01-13T12:00:00Z")
BEFORE, AFTER = parse_time("2027-01-13T11:59:59Z"), parse_time("2027-01-13T12:00:00Z")
HOSTILE = (
    "<script>window.pwned=1</script>",
    '"><img src=x onerror=window.pwned=2>',
    "'onmouseover=window.pwned=3 x='",
    "</style></title><svg/onload=window.pwned=4>",
    "{{ 7 * 7 }}{% raw %}",
)
# Averages of phase dev, and with them names; scenario _lo turns the order round.
DEV = {"Alpha": 0.30, "beta": 0.25, "Gamma": 0.24, "delta 10": 0.16, "delta 9": 0.15}


def entry(name, score, **fields):
    """A made-up entry whose scenarios differ: _hi is the average, _inf above it, _lo against it."""
    values = copy.deepcopy(made_up(name, score, half=0.01, **fields))
    if fields.get("challenge", "cifar10") == "cifar10":
        for scenario, shift in (("cifar10_inf", score / 4), ("cifar10_lo", -score / 4)):
            result = copy.deepcopy(values["scenarios"]["cifar10_hi"])
            result["scores"]["TPR_FPR_1000"] = round(score + shift, 4)
            values["scenarios"][scenario] = result
    return values


@pytest.fixture(scope="module")
def entries(tmp_path_factory):
    folder = tmp_path_factory.mktemp("entries")
    for i, (name, score) in enumerate(DEV.items(), 1):
        write_entry(folder, entry(name, score, day=i, authors=[f"Author {name[0]}"]))
    for i, score in enumerate((0.12, 0.20, 0.14), 10):  # the latest is not the best
        write_entry(folder, entry("Resubmitted", score, day=i))
    write_entry(folder, entry("Finalist", 0.22, phase="final", day=12, authors=["Secret Person"]))
    write_entry(folder, entry("Other", 0.2, challenge="sst2", link="", authors=[], command=""))
    for i, text in enumerate(HOSTILE, 20):
        fields = {"authors": [text], "description": text, "command": text, "data_version": text}
        write_entry(folder, entry(text, 0.2, challenge="ddp", day=i, **fields))
    return folder


@pytest.fixture(scope="module")
def site(entries, tmp_path_factory):
    out = tmp_path_factory.mktemp("site") / "site"
    build(entries, out, final_opens=OPENS, now=AFTER)
    return out


def bytes_of(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def page_of(site, challenge, start):
    return next(iter(sorted((site / challenge).glob(f"{start}*.html"), reverse=True)))


def test_the_same_entries_give_the_same_bytes_in_place_of_the_old_ones(entries, tmp_path):
    out = tmp_path / "site"
    assert build(entries, out, final_opens=OPENS, now=AFTER).entries == 15
    first = bytes_of(out)
    (out / "stale.html").write_text("of an entry that was taken back")
    build(entries, out, final_opens=OPENS, now=parse_time("2030-01-01T00:00:00Z"))
    assert bytes_of(out) == first and len(first) == 2 + 2 * 15
    assert [path.name for path in tmp_path.iterdir()] == ["site"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("mine")
    with pytest.raises(ValueError, match="holds other things"):
        build(entries, tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.tex").read_text() == "mine"


def test_a_faulty_entry_stops_the_build_and_leaves_the_old_site(tmp_path):
    write_entry(tmp_path / "entries", made_up("a"))
    build(tmp_path / "entries", tmp_path / "site")
    before = bytes_of(tmp_path / "site")
    (tmp_path / "entries" / "cifar10" / "bad.json").write_text("{")
    with pytest.raises(ValueError, match="cifar10/bad.json"):
        build(tmp_path / "entries", tmp_path / "site")
    assert bytes_of(tmp_path / "site") == before


@pytest.mark.parametrize("opens", [OPENS, None])
def test_nothing_of_the_final_phase_is_in_any_byte_before_its_time(entries, tmp_path, opens):
    out = tmp_path / "site"
    built = build(entries, out, final_opens=opens, now=BEFORE)
    assert (built.entries, built.hidden) == (14, 1)
    (final,) = (e for e in read_entries(entries) if e.phase == "final")
    everything = b"\n".join([*bytes_of(out).values(), *(n.encode() for n in bytes_of(out))])
    for secret in ("Finalist", "Secret Person", "0.2200", "cifar10-final", final.stem):
        assert secret.encode() not in everything, secret
    assert final.values["predictions_sha256"].encode() not in everything
    assert (b"Results of phase Final open on" in everything) == (opens is not None)
    assert build(entries, out, final_opens=OPENS, now=AFTER).hidden == 0
    assert b"Finalist" in (out / "index.html").read_bytes()


def test_no_entries_make_a_page_that_says_so(tmp_path):
    (tmp_path / "entries").mkdir()
    build(tmp_path / "entries", tmp_path / "site")
    text = (tmp_path / "site" / "index.html").read_text()
    assert "There are no entries yet" in text and "<script" not in text


def test_whatever_an_entry_holds_is_text(site):
    """In the bytes: no tag, attribute or address of an entry's making."""
    for name, content in bytes_of(site).items():
        if not name.endswith(".html"):
            continue
        text = content.decode()
        assert text.count("<script") == (name == "index.html"), name
        assert "<img" not in text and "<svg/" not in text
        assert not re.search(r"\son\w+\s*=\s*[\"'a-z]", re.sub(r">[^<]*<", "><", text)), name
        for link in re.findall(r'href="([^"]*)"', text):
            assert re.match(
                r"https?://|#|data:,|\.\./index\.html#|[a-z0-9./-]+\.(html|json)$", link
            )
        assert "default-src &#39;none&#39;" in text or "default-src 'none'" in text
    assert "{{ 7 * 7 }}{% raw %}" in (site / "index.html").read_text()


def test_tables_are_ranked_without_any_script(site):
    text = (site / "index.html").read_text()
    table = text.split('id="cifar10-dev"')[1].split("</table>")[0]
    rows = re.findall(
        r'rank" data-ranks="([^"]*)">([^<]*)</td><th scope="row"><a [^>]*>([^<]*)', table
    )
    assert [(shown, name) for _, shown, name in rows] == [
        ("1", "Alpha"),
        ("2=", "beta"),
        ("2=", "Gamma"),
        ("4=", "delta 10"),
        ("4=", "delta 9"),
        ("4=", "Resubmitted"),
    ]
    assert len(rows[0][0].split()) == 4
    assert "[0.290, 0.310]" in table and "0.3000" in table
    assert text.index('id="cifar10-final"') < text.index('id="cifar10-dev"')


def test_a_page_an_entry_with_its_history(site, entries):
    newest, middle, oldest = sorted((site / "cifar10").glob("resubmitted-dev-*.html"), reverse=True)
    text = newest.read_text()
    assert "rank <b>4=</b> of 6" in text and "does not count any more" not in text
    assert text.count('class="whisker"') == 3 and "3 submissions over time" in text
    for page in (middle, oldest):
        assert f'<a href="{newest.name}">a later one of' in page.read_text()
        assert page.name in text
    data = json.loads(newest.with_suffix(".json").read_text())
    assert data in [entry.values for entry in read_entries(entries)]
    for shown in (data["predictions_sha256"], data["commit"], data["versions"]["numpy"]):
        assert shown in text
    assert "mico leaderboard add SUBMISSION --truth DIR" in text
    alone = page_of(site, "sst2", "other").read_text()
    assert "<dt>Link" not in alone and 'class="history"' not in alone


@pytest.mark.slow
def test_a_thousand_entries(tmp_path, browser):
    challenges = ("cifar10", "purchase100", "sst2", "ddp")
    for i in range(1000):
        name = f"Team {i}" if i % 5 else "Keeps trying"
        score = 0.1 + (i * 7919 % 1000) / 5000
        phase = "final" if i % 3 == 0 else "dev"
        values = made_up(name, score, challenge=challenges[i % 4], phase=phase, day=i)
        write_entry(tmp_path / "entries", values)
    build(tmp_path / "entries", tmp_path / "site", final_opens=OPENS, now=AFTER)
    browser.open(tmp_path / "site" / "index.html")
    assert browser.js("document.querySelectorAll('tbody tr').length") > 700
    first = "document.querySelector('tbody tr').innerText"
    before = browser.js(first)
    for _ in range(2):  # in the order that they are in, then in the opposite one
        browser.js("document.querySelector('.here th button').click()")
    assert browser.js(first) != before


@pytest.mark.slow
def test_the_site_grows_as_its_entries_do(tmp_path):
    """Many of one name: no page holds all of them but one, which every page leads to."""
    sizes = {}
    for count in (60, 120):
        for hour in range(count):
            when = time_text(FIRST + timedelta(hours=hour))
            write_entry(tmp_path / str(count), made_up("One", 0.1 + hour / 500, submitted=when))
        build(tmp_path / str(count), tmp_path / "site")
        sizes[count] = sum(map(len, bytes_of(tmp_path / "site").values())) / count
    assert sizes[120] < 1.01 * sizes[60]
    (everyone,) = (tmp_path / "site" / "cifar10" / "all").iterdir()
    assert everyone.read_text().count("<tr><th") == 120 + 1
    pages = sorted((tmp_path / "site" / "cifar10").glob("*.html"))
    assert len(pages) == 120
    for page in (pages[0], pages[60], pages[-1], everyone):
        text = page.read_text()
        assert page is everyone or text.count('<th scope="row"><a') == 19
        assert page is everyone or f'href="all/{everyone.name}"' in text
        for address in re.findall(r'href="([^"#]+)[^"]*"', text):
            local = not address.startswith(("http", "data:"))
            assert not local or (page.parent / address).is_file(), address


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


def test_templates_are_installed_with_the_package():
    root = Path(__file__).resolve().parents[3]
    assert '"site/*"' in (root / "setup.py").read_text()
