"""The technical report: its numbers and figures are those of docs/results, and none is typed."""

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from helpers_scripts import script_of

ROOT = Path(__file__).resolve().parents[2]
TEMPLATES = sorted((ROOT / "docs/results/report").glob("*.md"))
PAGE = ROOT / "docs/report/index.md"
SVG = "{http://www.w3.org/2000/svg}"

# Numbers that are no measurements of ours: rates and levels that are asked for, the competition's
# design, what its organisers reported, settings, arithmetic on these, and formulas.
GIVEN = {
    *("10 %", "1 %", "0.1 %", "5 %", "80 %", "95 %"),  # rates, levels, power
    *("2,400", "10,000", "5,000", "1,000", "500", "509", "199", "201"),  # design and entries
    *("0.005", "0.5", "99.5"),  # a step of scores, percentiles
    *("6.3",),  # of METHODS.md, section 12.2
}


@pytest.fixture(scope="module")
def script():
    with script_of("report_page") as module:
        yield module


def test_the_page_and_its_pictures_are_what_the_script_writes(script):
    files = script.written()
    assert {path.name for path in files} >= {"index.md", "found.svg", "power.svg", "epsilon.svg"}
    for path, text in files.items():
        assert path.read_text(encoding="utf-8") == text, f"{path}: run benchmarks/report_page.py"
    script.main(["--check"])


def test_a_page_that_is_not_up_to_date_ends_the_build(script, monkeypatch, tmp_path):
    assert "report_page.py --check" in (ROOT / "Makefile").read_text().split("\ndocs:")[1][:200]
    monkeypatch.setattr(script, "ROOT", tmp_path)
    monkeypatch.setattr(script, "OUT", tmp_path / "report")
    monkeypatch.setattr(script, "PICTURE", tmp_path / "found.svg")
    with pytest.raises(SystemExit, match=r"index.md.*run benchmarks/report_page.py"):
        script.main(["--check"])
    script.main([])
    script.main(["--check"])


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ('tpr("ful_inf", "best")', "'ful_inf'.*no ful_inf_all-"),
        ('tpr("full_inf", "bets")', "'bets' on the fleet 'full_inf'.*'best'"),
        ('gain("full_inf", "winner-best")', "winner-best on full_inf has no gain"),
        ('value("score_oracle.json", "atacks")', "'atacks' of docs/results/score_oracle.json"),
        ('value("score_oracles.json", "attacks")', "score_oracles.json, and there is no such file"),
        ('limit("full_la")', "'full_la' of docs/results/tpr_limits.json"),
        ('audit("digits_la")', "audits/digits_la.json, and there is no such file"),
        ('bound("digits_lo", "two-run")', "no bound 'two-run'"),
        ('oracle("bundles_hi", "everything")', "no 'everything' of 'bundles_hi'"),
        ('gian("full_inf", "best")', "'gian' is undefined"),
    ],
)
def test_a_result_that_is_missing_or_renamed_has_a_clear_sentence(
    script, tmp_path, monkeypatch, named, message
):
    (tmp_path / "1-section.md").write_text(f"It gains {{{{ {named} }}}} points.\n")
    monkeypatch.setattr(script, "TEMPLATES", tmp_path)
    with pytest.raises(SystemExit, match=message):
        script.main([])


def test_a_sentence_that_results_refute_ends_the_script(script, tmp_path, monkeypatch):
    sentence = '{{ holds("the attack loses", gain("full_inf", "best").value < 0) }}'
    (tmp_path / "1-section.md").write_text(sentence)
    monkeypatch.setattr(script, "TEMPLATES", tmp_path)
    with pytest.raises(SystemExit, match=r"does not support this any more: the attack loses"):
        script.main([])


def prose(path):
    """A template without what is filled in, code, links, tables of commands and references."""
    text = path.read_text(encoding="utf-8").split("## 8. How to reproduce")[0]
    text = re.sub(r"\{\{.*?\}\}", "", text, flags=re.DOTALL)
    text = re.sub(r"\]\([^)]*\)", "]", text)
    return re.sub(r"`[^`]*`", "", text)


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_no_measurement_is_typed(path):
    """No decimal, percentage, number of four digits or more, or exponent beside those given."""
    found = re.findall(
        r"(?<![\w.,])\d+(?:[.,]\d+)*(?: %)?", re.sub(r"[Ss]ection \d+\.\d", "", prose(path))
    )
    found = [one for one in found if not re.fullmatch(r"(?:19|20)\d\d", one)]
    headings = re.findall(r"^#+ (\d(?:\.\d)?)", path.read_text("utf-8"), re.MULTILINE)
    typed = [
        one
        for one in found
        if re.search(r"[.,%]|\d{4}", one) and one not in GIVEN and one not in headings
    ]
    assert not typed, "name the result in {{ }} instead, or add it to GIVEN with its reason"


def test_every_number_given_is_used():
    text = "".join(map(prose, TEMPLATES))
    assert not [one for one in GIVEN if one not in text]


def test_figures_have_captions_and_words_for_those_who_do_not_see_them():
    text = PAGE.read_text(encoding="utf-8")
    figures = re.findall(
        r"!\[([^\]]+)\]\((\w+\.svg)\)\n\n\*\*Figure (\d)\.\*\* \*(.*?)\*\n", text, re.DOTALL
    )
    assert [int(number) for _, _, number, _ in figures] == [1, 2, 3, 4]
    assert text.count("](") > 20 and text.count(".svg)") == len(figures)
    for words, file, _, caption in figures:
        assert ET.parse(PAGE.parent / file).getroot().find(f"{SVG}title").text == words
        assert re.search(r"\d+( to \d+)? models", " ".join(caption.split())), caption
        assert "95 % interval" in " ".join(caption.split())


def test_tables_are_numbered_and_each_has_a_caption():
    text = PAGE.read_text(encoding="utf-8").split("## 8. ")[0]
    tables = re.findall(r"(?:^\|.*\n)+\n(\*Table \d+\.)?", text, re.MULTILINE)
    assert tables == [f"*Table {place}." for place in range(1, len(tables) + 1)]
    for number in set(re.findall(r"Tables? (\d+)", text)):
        assert 1 <= int(number) <= len(tables)


def test_every_reference_is_cited_or_named():
    text = PAGE.read_text(encoding="utf-8")
    body, references = text.split("## References")
    count = len(re.findall(r"^\d+\. ", references, re.MULTILINE))
    cited = {
        int(n) for group in re.findall(r"\[(\d+(?:, \d+)*)\]", body) for n in group.split(", ")
    }
    assert cited - {0} == set(range(1, count + 1))  # 0 of the range [0, 1]


@pytest.mark.parametrize(
    "name", ["found.svg", *(f"report/{n}.svg" for n in ("power", "entries", "weights", "epsilon"))]
)
def test_pictures_follow_the_readers_light_and_stay_inside(name):
    text = (ROOT / "docs" / name).read_text(encoding="utf-8")
    root = ET.fromstring(text)
    assert "prefers-color-scheme:dark" in text and root.find(f"{SVG}rect") is not None
    width, height = (float(root.get(side)) for side in ("width", "height"))
    assert width <= 600, "letters would be too small on a phone"
    used = set(re.findall(r"var\((--\w+)\)", text))
    assert used <= set(re.findall(r"(--\w+):#", text))
    for element in root.iter(f"{SVG}text"):
        x, y, length = float(element.get("x")), float(element.get("y")), 8.0 * len(element.text)
        start = {"middle": x - length / 2, "end": x - length}.get(element.get("text-anchor"), x)
        assert 0 <= y <= height and start > -8 and start + length < width + 40, element.text


def test_models_needed_are_those_that_simulations_need(script, monkeypatch):
    """A gain of 1 point is found in four of five simulated comparisons of as many models."""
    numbers = script.numbers
    spread = 5.0  # of a gain between models, in points
    half = 1.96 * spread / np.sqrt(40) / 100
    rate = {"value": 0.01, "low": 0.01 - half, "high": 0.01 + half}
    found = {"models": 40, "attacks": [{"name": "eb", "gain": {"TPR_FPR_1000": rate}}]}
    monkeypatch.setattr(numbers.page, "read", lambda fleet, ending="": found)
    numbers.fleet.cache_clear()
    count = numbers.needed("invented_inf", "eb")
    numbers.fleet.cache_clear()
    gains = np.random.default_rng(0).normal(1.0, spread / np.sqrt(count), 20_000)
    assert np.mean(gains > 1.96 * spread / np.sqrt(count)) == pytest.approx(0.8, abs=0.01)
