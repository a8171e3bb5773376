"""The report page in a real Chromium: as it is read, touched, printed and listened to."""

import json
import re

import numpy as np
import pytest
from helpers_scoring import Competition
from mico_competition.scoring import generate_html, intervals_of, program
from mico_competition.scoring.curve import RATES
from mico_competition.scoring.program import score_scenarios
from test_report import values_of

KEYS = ["TPR_FPR_1000", *(f"TPR_FPR_{k}" for k in (10, 100, 500, 1500, 2000))]
KEYS += ["AUC", "MIA", "accuracy"]

CONTRASTS = """(() => {
  const parts = text => text.match(/[\\d.]+/g).map(Number);
  const light = text => { const [r, g, b] = parts(text).map(v => {
      v /= 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const behind = element => { for (; element; element = element.parentElement) {
      const colour = getComputedStyle(element).backgroundColor;
      if (parts(colour)[3] !== 0) return colour; }
    return "rgb(255, 255, 255)"; };
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), found = {};
  while (walk.nextNode()) {
    const element = walk.currentNode.parentElement, style = getComputedStyle(element);
    if (!walk.currentNode.textContent.trim() || !element.getClientRects().length) continue;
    const colour = element instanceof SVGElement ? style.fill : style.color;
    const [a, b] = [light(colour), light(behind(element))].sort((x, y) => y - x);
    found[colour + " on " + behind(element)] = (a + 0.05) / (b + 0.05); }
  return found; })()"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A page of full size."""
    values = values_of()
    path = tmp_path_factory.mktemp("page") / "detailed_results.html"
    scores = score_scenarios(*values)
    path.write_text(generate_html(scores, intervals_of(*values, rates=RATES)), encoding="utf-8")
    return path


def visible(browser, selector):
    """How many elements of this kind take up room."""
    return browser.js(
        f"[...document.querySelectorAll({selector!r})]"
        ".filter(e => e.getClientRects().length && e.checkVisibility()).length"
    )


def readout(browser, number=0):
    """What the page says of the curve: FPR in percent, TPR, and the ends of its interval."""
    text = browser.js(f"document.querySelectorAll('output')[{number}].textContent")
    form = r"At ([\d.]+)% FPR: TPR ([\d.]+), 95% interval ([\d.]+) to ([\d.]+)"
    return [float(part) for part in re.fullmatch(form, text).groups()]


def points(browser, number=0):
    """The rows of a curve's table."""
    table = f"document.querySelectorAll('.points')[{number}].tBodies[0].rows"
    cells = f"[...{table}].map(row => [...row.cells].map(cell => parseFloat(cell.textContent)))"
    return browser.js(cells)


def place_of(browser, kind, fpr, number=0):
    """Where on the window a rate is on the axes of a picture."""
    section = f"document.querySelectorAll('section.scenario')[{number}]"
    svg = f"{section}.querySelectorAll('svg.roc')[{kind}]"
    browser.js(f"{svg}.scrollIntoView({{block: 'center'}})")
    left, top, width, height = browser.js(
        f"(r => [r.left, r.top, r.width, r.height])({svg}.getBoundingClientRect())"
    )
    share = fpr if kind == 0 else 1 + np.log10(fpr) / 3
    return left + width * (58 + 320 * share) / 400, top + height / 2


# --- it renders, and the numbers are right


def test_the_programs_page_renders_in_silence_and_shows_the_scores(browser, tmp_path, capsys):
    competition = Competition(tmp_path)
    assert program.main([str(competition.inputs), str(competition.outputs)]) == 0
    file = competition.outputs / "detailed_results.html"
    browser.show()
    browser.open(file)
    assert browser.complaints() == []
    assert browser.requests() == [file.resolve().as_uri()]
    scores = json.loads((competition.outputs / "scores.json").read_text())
    rows = browser.js(
        "[...document.querySelector('.scores').tBodies[0].rows].map(row =>"
        " [...row.querySelectorAll('td')].map(cell => parseFloat(cell.textContent)))"
    )
    assert len(rows) == len(KEYS)
    for key, row in zip(KEYS, rows, strict=True):
        assert row[:3] == [round(scores[f"scenario{i}_{key}"], 4) for i in (1, 2, 3)]
    headline = float(browser.js("document.querySelector('.headline strong').textContent"))
    assert headline == rows[0][3] == round(scores["average_TPR_FPR_1000"], 4)
    size = "(b => [b.width, b.height])(document.querySelector('.curve').getBBox())"
    assert min(browser.js(size)) > 100
    assert file.stat().st_size < 300_000


def test_a_full_page_renders_in_silence(browser, page):
    browser.show()
    browser.open(page)
    assert browser.complaints() == [] and browser.requests() == [page.resolve().as_uri()]
    assert visible(browser, "svg.roc") == 6 and visible(browser, "output") == 3


@pytest.mark.parametrize("sandbox", ["allow-scripts", ""])
def test_it_works_in_a_sandboxed_frame(browser, page, sandbox):
    frame = page.with_name("frame.html")
    frame.write_text(f'<!DOCTYPE html><iframe sandbox="{sandbox}" src="{page.name}"></iframe>')
    browser.show()
    browser.open(frame)
    (child,) = browser.call("Page.getFrameTree")["frameTree"]["childFrames"]
    world = browser.call("Page.createIsolatedWorld", frameId=child["frame"]["id"])
    answer = browser.call(
        "Runtime.evaluate",
        expression="[document.querySelectorAll('svg.roc').length, document.body.className]",
        contextId=world["executionContextId"],
        returnByValue=True,
    )
    assert answer["result"]["value"] == [6, "live" if sandbox else ""]
    # Chromium itself tells of scripts that a frame forbids.
    assert len(browser.complaints()) == (0 if sandbox else 1)


# --- it can be read along the curve


def test_keys_read_the_curve(browser, page):
    browser.show()
    browser.open(page)
    rows = points(browser, 1)
    here = [row[0] for row in rows].index(10)
    assert readout(browser, 1) == [10, round(rows[here][1], 3), *rows[here][2:]]
    assert visible(browser, ".reading") == 0
    browser.js("document.querySelectorAll('input')[1].focus()")
    for key, row in (("ArrowRight", rows[here + 1]), ("ArrowLeft", rows[here]), ("Home", rows[0])):
        browser.key(key)
        assert readout(browser, 1) == [row[0], pytest.approx(row[1], abs=6e-4), *row[2:]]
    name = "document.querySelectorAll('input')[1].getAttribute('aria-valuetext')"
    assert browser.js(name) == "0.1% FPR"
    browser.key("End")
    assert readout(browser, 1) == [100, 1, 1, 1]
    assert visible(browser, ".reading") == 2  # in both pictures of this scenario, and no other
    assert browser.complaints() == []


@pytest.mark.parametrize("kind", [0, 1], ids=["linear", "logarithmic"])
@pytest.mark.parametrize("fpr", [0.03, 0.1, 0.27, 0.85])
def test_the_pointer_reads_any_rate_on_either_axes(browser, page, kind, fpr):
    browser.show()
    browser.open(page)
    browser.mouse("mouseMoved", *place_of(browser, kind, fpr))
    rows = np.array([*points(browser), [100, 1, 1, 1]]).T
    found = readout(browser)
    assert found[0] == pytest.approx(100 * fpr, rel=0.02, abs=0.3)  # to a pixel
    for value, column in zip(found[1:], rows[1:], strict=True):
        assert value == pytest.approx(np.interp(found[0], rows[0], column), abs=2e-3)
    # The marker is where the pointer is, on the curve, in both pictures.
    marks = browser.js(
        "[...document.querySelectorAll('.reading.on circle')].map(c =>"
        " [Number(c.getAttribute('cx')), Number(c.getAttribute('cy'))])"
    )
    scales = [lambda rate: rate, lambda rate: 1 + np.log10(max(rate, 1e-3)) / 3]
    for (x, y), scale in zip(marks, scales, strict=True):
        assert x == pytest.approx(58 + 320 * scale(found[0] / 100), abs=1)
        assert y == pytest.approx(14 + 320 * (1 - scale(found[1])), abs=1)


def test_a_tap_reads_too_and_beyond_the_axes_is_their_end(browser, page):
    browser.show(360, 700, touch=True)
    browser.open(page)
    x, y = place_of(browser, 0, 0.5)
    browser.mouse("mousePressed", x, y)
    assert readout(browser)[0] == pytest.approx(50, abs=1)
    browser.mouse("mouseMoved", *place_of(browser, 0, -0.1))
    assert readout(browser)[0] == 0.1
    browser.mouse("mouseMoved", *place_of(browser, 0, 1.04))
    assert readout(browser)[:2] == [100, 1]


# --- it works with what privacy allows drawn over the curves


@pytest.fixture(scope="module")
def limited(tmp_path_factory):
    """A page on which the first and the last scenario have limits, and the second has none."""
    rates = np.linspace(0, 1, 50)
    curves = {
        "epsilon, delta": (rates, np.minimum(1, 3000 * rates + 1e-5)),
        "Gaussian DP": (rates, rates**0.5),
        "exact": (rates, rates**0.7),
    }
    values = values_of(models=5, points=60)
    text = generate_html(
        score_scenarios(*values),
        intervals_of(*values, rates=RATES),
        {"cifar10_hi": curves, "cifar10_lo": curves},
    )
    path = tmp_path_factory.mktemp("limited") / "report.html"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("width", [400, 1200])
def test_limits_leave_the_page_alive(browser, limited, width):
    browser.show(width, 800, touch=width < 500)
    browser.open(limited)
    assert browser.complaints() == []
    assert browser.js("document.documentElement.scrollWidth") <= width
    for number in range(3):  # the sections after one with limits start too
        rows = points(browser, number)
        browser.js(f"document.querySelectorAll('input')[{number}].focus()")
        browser.key("Home")
        assert readout(browser, number)[0] == rows[0][0]
        browser.key("ArrowRight")
        assert readout(browser, number)[0] == rows[1][0]
        browser.mouse("mouseMoved", *place_of(browser, 0, 0.5, number))
        assert readout(browser, number)[0] == pytest.approx(50, abs=1.5)
    assert browser.complaints() == []


def test_the_key_shows_each_line_as_it_is_drawn(browser, limited):
    browser.show()
    browser.open(limited)
    style = "(path => (s => [s.stroke, s.strokeDasharray, s.strokeWidth])(getComputedStyle(path)))"
    looks = {}
    for number in (0, 2):
        section = f"document.querySelectorAll('section.scenario')[{number}]"
        for i in range(3):
            drawn, sample = (
                browser.js(f"{style}({section}.querySelector('{place} .ceiling{i}'))")
                for place in ("svg.roc", ".key")
            )
            assert drawn == sample
            looks[i] = sample
        assert browser.js(f"{section}.querySelectorAll('.key li').length") == 3
    assert len({str(look) for look in looks.values()}) == 3
    assert browser.js("document.querySelectorAll('.key').length") == 2


# --- it can be read by everybody


@pytest.mark.parametrize("width", [320, 360, 768, 1400])
def test_nothing_sticks_out_sideways(browser, page, width):
    browser.show(width, 700, touch=width < 500)
    browser.open(page)
    assert browser.js("document.documentElement.scrollWidth") <= width
    assert browser.js("innerWidth") == width
    if width >= 360:  # even the wide table fits, without scrolling in it
        assert (
            browser.js("(t => t.scrollWidth - t.clientWidth)(document.querySelector('.wide'))") <= 0
        )


def test_long_names_and_many_scenarios_do_not_stick_out(browser, tmp_path):
    values = values_of(models=3, points=20)
    result = next(iter(score_scenarios(*values).values()))
    file = tmp_path / "long.html"
    file.write_text(generate_html({"a" * 90 + str(i): result for i in range(9)}), encoding="utf-8")
    browser.show(360, 700, touch=True)
    browser.open(file)
    assert browser.js("document.documentElement.scrollWidth") <= 360
    assert browser.complaints() == []


@pytest.mark.parametrize("look", [{}, {"dark": True}, {"media": "print"}, {"touch": True}])
def test_text_stands_out_from_what_is_behind_it(browser, page, look):
    browser.show(**look)
    browser.open(page)
    browser.js("document.querySelector('details').open = true")
    contrasts = browser.js(CONTRASTS)
    assert len(contrasts) >= 4 and min(contrasts.values()) >= 4.5, contrasts
    paper = browser.js("getComputedStyle(document.body).backgroundColor")
    assert paper == ("rgb(20, 23, 26)" if look.get("dark") else "rgb(255, 255, 255)")


def test_printing_is_light_and_leaves_nothing_out_that_can_be_read(browser, page):
    browser.show(dark=True, media="print", width=720)
    browser.open(page)
    browser.js("document.querySelector('input').dispatchEvent(new Event('input'))")
    assert browser.js("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    for selector in ("input", "output", "summary", ".reading"):
        assert visible(browser, selector) == 0, selector
    assert visible(browser, "svg.roc") == 6 and visible(browser, "td") == 36
    assert browser.js("document.documentElement.scrollWidth") <= 720
    browser.show()
    assert 2 <= len(re.findall(rb"/Type\s*/Page\b", browser.pdf())) <= 4


def test_without_scripts_all_is_there_but_the_reading(browser, page):
    browser.show(scripts=False)
    browser.open(page)
    assert visible(browser, "input") == 0 and visible(browser, "svg.roc") == 6
    assert visible(browser, "td") == 36 and visible(browser, "summary") == 3
    browser.show()


def test_a_screen_reader_finds_names_headings_and_tables(browser, page):
    browser.show()
    browser.open(page)
    nodes = browser.call("Accessibility.getFullAXTree")["nodes"]
    named: dict = {}
    for node in nodes:
        if not node.get("ignored"):
            name = node.get("name", {}).get("value", "")
            named.setdefault(node["role"]["value"], []).append(name)
    scenarios = ("cifar10_hi", "cifar10_inf", "cifar10_lo")
    pictures = [
        f"ROC curve of {s} on {k} axes" for s in scenarios for k in ("linear", "logarithmic")
    ]
    assert named["image"] == pictures
    assert named["slider"] == ["Read the curve: move along it, or set the false positive rate"] * 3
    assert {"TPR at 10% FPR", "Balanced accuracy"} <= set(named["rowheader"])
    assert {"Metric", *scenarios, "Average"} <= set(named["columnheader"])
    assert named["heading"][1:4] == list(scenarios)
    assert browser.js("document.documentElement.lang") == "en"


def test_the_keyboard_reaches_every_part_and_shows_where_it_is(browser, page):
    browser.show()
    browser.open(page)
    reached = []
    for _ in range(7):
        browser.key("Tab")
        reached.append(browser.js("document.activeElement.tagName"))
        outline = "(s => [s.outlineStyle, parseFloat(s.outlineWidth)])"
        style, width = browser.js(f"{outline}(getComputedStyle(document.activeElement))")
        assert style != "none" and width >= 2
    assert reached == ["DIV", *["INPUT", "SUMMARY"] * 3]
