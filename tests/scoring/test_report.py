"""The report page as text: what it says, what it keeps to itself, and that it stands alone."""

import base64
import hashlib
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from mico_competition.scoring import generate_html, intervals_of, score, svg
from mico_competition.scoring.curve import RATES, SCORED, Curve, shown_curve
from mico_competition.scoring.program import score_scenarios
from mico_competition.scoring.svg import Axes

NAMES = ("cifar10_hi", "cifar10_inf", "cifar10_lo")
ROWS = ["TPR at 10% FPR"] + [f"TPR at {rate}% FPR" for rate in ("0.1", 1, 5, 15, 20)]
ROWS += ["AUC", "Advantage", "Balanced accuracy"]


def values_of(models=50, points=200, seed=7):
    """Truth and predictions of three scenarios, by model folder."""
    rng = np.random.default_rng(seed)
    truth = np.repeat([0, 1], points // 2)
    solutions, predictions = {}, {}
    for name, gap in zip(NAMES, (0.2, 2.0, 0.05), strict=True):
        for i in range(models):
            folder = f"cifar10/{name}/dev/model_{i}"
            solutions[folder] = rng.permutation(truth)
            predictions[folder] = gap * solutions[folder] + rng.normal(size=points)
    return solutions, predictions


@pytest.fixture(scope="module")
def scored():
    """`(scores, intervals)` of a competition of full size."""
    values = values_of()
    return score_scenarios(*values), intervals_of(*values, rates=RATES)


class Page(HTMLParser):
    """Checks that tags nest, and collects elements, text and the cells of tables."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.words, self.rows = [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("th", "td"):
            self.rows[-1].append("")
        if tag not in ("meta", "input", "wbr"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)
        if {"th", "td"} & set(self.open):
            self.rows[-1][-1] += data

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


# --- what it says


def test_the_page_shows_every_scenario_with_pictures_and_numbers(scored):
    scores, _ = scored
    text = generate_html(scores)
    page = Page(text)
    pictures = page.all("svg")
    assert len(pictures) == 2 * len(scores)
    names = [identity["id"] for tag in ("title", "desc") for identity in page.all(tag) if identity]
    for picture in pictures:
        assert picture["role"] == "img" and set(picture["aria-labelledby"].split()) <= set(names)
    assert len(names) == len(set(names)) == 2 * len(pictures)
    for name in scores:
        assert f"ROC curve of {name} on linear axes" in page.words
        assert f"ROC curve of {name} on logarithmic axes" in page.words
    for word in (*scores, *ROWS, "Average", "10% FPR"):
        assert word in page.words, word
    assert "prefers-color-scheme: dark" in text and "@media print" in text
    assert "95% interval" not in text.partition("<script>")[0]


def test_the_table_holds_each_number_with_its_interval(scored):
    scores, intervals = scored
    page = Page(generate_html(scores, intervals))
    keys = ["TPR_FPR_1000", *(f"TPR_FPR_{k}" for k in (10, 100, 500, 1500, 2000))]
    keys += ["AUC", "MIA", "accuracy"]
    assert page.rows[0] == ["Metric", *scores, "Average"]
    for row, title, key in zip(page.rows[1:], ROWS, keys, strict=False):
        assert row[0] == title
        for cell, name in zip(row[1:-1], scores, strict=True):
            low, high = intervals[name][key]
            assert cell == f"{scores[name][key]:.4f} {low:.3f} to {high:.3f}"
        average = f"{np.mean([result[key] for result in scores.values()]):.4f}"
        ends = " {:.3f} to {:.3f}".format(*intervals["average_TPR_FPR_1000"])
        assert row[-1] == average + ends * (key == "TPR_FPR_1000")
    assert "From 50 models with 5,000 members and 5,000 non-members." in "".join(page.words)


def test_a_drawn_band_is_the_intervals_of_the_table():
    curve = Curve([0.1, 0.2], [0.3, 0.4], [0.25, 0.2], [0.5, 0.45])
    line = svg._band(curve, Axes())[0].split('"M')[1].split("Z")[0]
    ends = [(0.1, 0.5), (0.2, 0.45), (1, 1), (0.2, 0.2), (0.1, 0.25)]
    for point, end in zip(line.split("L"), ends, strict=True):
        assert list(map(float, point.split())) == pytest.approx(Axes().xy(*end), abs=0.06)


def test_a_page_may_say_what_it_is_of_and_when_it_was_made(scored):
    text = generate_html(*scored, made="purchase100 & 2026")
    assert '<p class="note">purchase100 &amp; 2026</p>' in text


def test_the_curve_is_a_table_as_well(scored):
    scores, intervals = scored
    page = Page(generate_html(scores, intervals))
    start = 1 + len(ROWS)
    for name in scores:
        curve = shown_curve(scores[name], intervals[name])
        assert page.rows[start] == ["FPR", "TPR", "95% from", "to"]
        rows = page.rows[start + 1 : start + 1 + len(curve.fpr)]
        start += 1 + len(curve.fpr)
        assert [float(row[0][:-1]) / 100 for row in rows] == pytest.approx(curve.fpr)
        for row in rows:
            tpr, low, high = map(float, row[1:])
            assert low <= tpr + 5e-4 and tpr <= high + 5e-4
    assert start == len(page.rows)


def test_a_table_says_what_its_rows_and_columns_are(scored):
    page = Page(generate_html(*scored))
    assert {head["scope"] for head in page.all("th")} == {"row", "col"}
    assert len(page.all("caption")) == len(page.all("table")) == 4
    for slider, label, output in zip(*map(page.all, ("input", "label", "output")), strict=True):
        assert slider["id"] == label["for"] == output["for"] and output["aria-live"] == "polite"


def test_few_models_have_t_intervals_and_the_page_says_so():
    rng = np.random.default_rng(0)
    truth = np.tile([0, 1], 100)
    solutions = {f"digits/digits_{k}/dev/model_{i}": truth for k in ("hi", "lo") for i in range(3)}
    predictions = {folder: rng.normal(size=200) + truth for folder in solutions}
    scores = score_scenarios(solutions, predictions)
    known = intervals_of(solutions, predictions, rates=RATES)
    page = generate_html(scores, known)
    text = page.partition("<script>")[0]
    assert text.count("The intervals are Student's t over so few models.") == 2
    assert "fewer than six models" in text and "bootstrap" not in text
    assert text.count('class="band"') == 4  # also where some rates have no interval
    low, high = known["digits_hi"]["TPR_FPR_1000"]
    assert f"{low:.3f} to {high:.3f}" in text
    assert np.isnan(known["digits_hi"]["TPR_FPR_10"][0])
    assert "nan" not in "".join(Page(page).words).partition("use strict")[0]


def test_one_model_has_no_intervals_and_the_page_says_why():
    values = values_of(models=1)
    scores = score_scenarios(*values)
    text = generate_html(scores, intervals_of(*values, rates=RATES))
    page = Page(text)
    assert "nan" not in "".join(page.words).partition("use strict")[0]
    assert "an interval needs at least two models a scenario" in text
    assert page.rows[1][1] == f"{scores['cifar10_hi']['TPR_FPR_1000']:.4f}"
    assert not [path for path in page.all("path") if path.get("class") == "band"]


def test_names_on_the_page_are_escaped():
    name = '<script>alert("x")</script> & co'
    page = Page(generate_html({name: score([0, 1], [0.2, 0.9])}))
    assert len(page.all("script")) == 1  # the page's own
    assert name in page.words


# --- it stands alone


def test_the_page_stands_alone_and_is_small(scored):
    text = generate_html(*scored)
    page = Page(text)
    assert len(text.encode()) < 300_000
    for forbidden in ("link", "img", "iframe", "object", "embed", "form", "base", "a"):
        assert not page.all(forbidden)
    assert not re.search(r"https?:|url\(|@import|\bon\w+=|src=|href=|style=", text)
    for word in ("fetch", "XMLHttp", "localStorage", "cookie", "innerHTML", "eval", "import("):
        assert word not in text


def test_its_own_policy_allows_its_style_and_script_and_nothing_else(scored):
    text = generate_html(*scored)
    policy = re.search('Content-Security-Policy" content="([^"]*)"', text).group(1)
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    for tag, kind in (("style", "style-src"), ("script", "script-src")):
        (inside,) = re.findall(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert rules[kind] == f"'sha256-{digest}'"
    assert set(rules) == {"default-src", "base-uri", "form-action", "style-src", "script-src"}


# --- what it keeps to itself: see test_curve.py too


def test_the_band_is_rounded_outward_and_holds_the_curve(scored):
    scores, intervals = scored
    for name in scores:
        curve = shown_curve(scores[name], intervals[name])
        for rate, tpr, low, high in zip(curve.fpr, curve.tpr, curve.low, curve.high, strict=True):
            exact = intervals[name]["curve"][rate]
            assert 0 <= low <= min(tpr, exact[0]) and max(tpr, exact[1]) <= high <= 1
            if rate not in SCORED:
                assert all(abs(e - round(e, 3)) < 1e-9 for e in {low, high} - {tpr})
                assert all(round(1000 * e) % 5 == 0 for e in {low, high} - {tpr})
            else:
                key = f"TPR_FPR_{round(10_000 * rate)}"
                assert (low, high) == intervals[name][key]


def test_the_pictures_draw_no_more_than_the_shown_points(scored):
    page = Page(generate_html(*scored))
    paths = [path for path in page.all("path") if path.get("class") in ("curve", "band")]
    assert len(paths) == 12
    for path in paths:
        points = np.array([p.split() for p in path["d"].strip("MZ").split("L")], dtype=float)
        if path["class"] == "curve":
            assert len(points) <= len(RATES) + 2
            assert (np.diff(points[:, 0]) >= 0).all() and (np.diff(points[:, 1]) <= 0).all()
        else:
            assert len(points) <= 2 * len(RATES) + 1
