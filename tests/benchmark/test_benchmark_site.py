"""The benchmark's site: ranked tables, charts, pages of attacks, and nothing from elsewhere."""

import json
import re
import shutil
from html.parser import HTMLParser

import pytest
from helpers_pages import ROOT
from helpers_scripts import script_of

from mico_competition.attacks.registry import TABLE
from mico_competition.benchmark.entry import (
    Entry,
    entry_text,
    held_ranks,
    read_tier,
    read_values,
)
from mico_competition.benchmark.methods import HEADINGS, SECTIONS, anchor_of
from mico_competition.benchmark.pictures import curve_of
from mico_competition.benchmark.ranking import board_lines, ranked
from mico_competition.benchmark.tiers import truth_of
from mico_competition.cli import main


class Links(HTMLParser):
    """The addresses of a page, and its ids."""

    def __init__(self, text):
        super().__init__()
        self.links, self.ids = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        for name, value in attrs:
            if name in ("href", "src"):
                self.links.append(value)
            elif name == "id":
                self.ids.append(value)


@pytest.fixture(scope="module")
def site(bench, tmp_path_factory):
    """The site of the tiny tier, with one's own entry marked."""
    folder = tmp_path_factory.mktemp("board")
    shutil.copytree(bench / "work/entries", folder / "entries")
    mine = bench / "work/entries/tiny/my-attack-attack.json"
    words = [str(folder / "entries"), "--with", str(mine), "--out", str(folder / "site")]
    assert main(["leaderboard", "build", *words]) == 0
    return folder / "site"


def test_every_link_leads_to_a_page_of_the_site(site):
    pages = [*site.rglob("*.html")]
    assert len(pages) == 3 + 6  # overview, tier, how to submit; six attacks
    for page in pages:
        found = Links(page.read_text(encoding="utf-8"))
        assert len(found.ids) == len(set(found.ids)), page
        for link in found.links:
            path, _, anchor = link.partition("#")
            if path.startswith(("http", "data:")):
                continue
            target = (page.parent / path) if path else page
            assert target.is_file(), (page.name, link)
            assert not anchor or anchor in Links(target.read_text(encoding="utf-8")).ids


def test_nothing_is_fetched_and_no_script_runs_but_the_sites_own(site):
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert "default-src 'none'" in text
        assert not re.search(r"<(img|link (?!rel=\"icon\")|iframe|script src)", text)


def test_the_table_of_a_tier_has_every_entry_in_the_order_of_gains(site, bench):
    text = (site / "tiny.html").read_text(encoding="utf-8")
    tables = re.findall(r'<table class="ranks">.*?</table>', text, re.DOTALL)
    assert len(tables) == 4  # the mean, and three scenarios
    entries = read_tier(bench / "work/entries", "tiny")
    for table, scenario in zip(tables, [None, "digits_inf", "digits_hi", "digits_lo"]):
        names = re.findall(r'<th scope="row"><a [^>]*>([^<]+)</a>', table)
        assert names == [one.entry.name for one in ranked(entries, scenario)]
        ranks = re.findall(r'class="num rank">([^<]+)<', table)
        assert ranks == [one.rank for one in ranked(entries, scenario)]
    assert text.count('class="mine"') == 4


def test_the_page_of_a_tier_names_the_attacks_without_an_entry(site):
    shown = (site / "tiny.html").read_text()
    missing = re.search("have no entry here: (.*)\\.</p>", shown)[1].split(", ")
    names = {row.name for row in TABLE}
    assert names - set(missing) == {"threshold", "winner-2023", "lira-online", "rmia", "eb"}


def test_the_page_of_an_attack_says_how_to_repeat_it(site):
    text = (site / "attacks/lira-online.html").read_text(encoding="utf-8")
    assert "mico benchmark --tier tiny --attack lira-online" in text
    own = (site / "attacks/my-attack-attack.html").read_text(encoding="utf-8")
    flags = "--access &#39;black box&#39; --name my_attack:attack"
    assert f"mico benchmark --tier tiny --attack my_attack.py:attack {flags}" in own
    assert "docs/METHODS.md, section 4.4: LiRA" in text and "arXiv 2112.03570" in text
    assert text.count('class="roc"') == 1


def test_sections_are_those_of_the_index_of_methods():
    page = (ROOT / "docs/METHODS.md").read_text(encoding="utf-8")
    for name, section in SECTIONS.items():
        assert re.search(rf"\| .*`{re.escape(name)}`.* \| {re.escape(section)} \|", page), name
    for section, heading in HEADINGS.items():
        assert f"\n### {section} {heading}\n" in page
    assert anchor_of("4.4") == "44-lira"


def test_what_is_on_all_records_is_that_of_the_results():
    with script_of("leaderboard_entries") as module:
        results = module.all_records()
    kept = json.loads((ROOT / "src/mico_competition/benchmark/all_records.json").read_text())
    assert kept == results, "run benchmarks/leaderboard_entries.py --copy"
    assert "bundles_inf" in kept and "purchase100_inf" in kept


def test_the_page_shows_how_far_scores_move_between_machines():
    found = json.loads((ROOT / "docs/results/benchmark_machines.json").read_text())
    with script_of("benchmark_machines") as module:
        lines = module.rows(found)
        assert [*found["settings"]] == [*module.SETTINGS]
    assert "\n".join(lines) in (ROOT / "docs/LEADERBOARD.md").read_text(encoding="utf-8")


def test_the_curve_of_ranks_reaches_the_scored_rate(mine):
    entry = Entry(mine, read_values(mine))
    from mico_competition.benchmark.board import ranks_in

    held = held_ranks(read_tier(mine.parents[1], "tiny"))
    truth, ranks, _ = ranks_in(entry, "digits_inf", held)
    assert truth is truth_of("tiny", "digits_inf")
    curve = curve_of(truth, ranks)
    tpr = dict(zip(curve.fpr, curve.tpr))[0.1]
    assert tpr == pytest.approx(entry.metric("digits_inf")[0], abs=0.02)


def changed(entry, name, gain):
    """An entry with another name, and another mean gain at 10 % FPR."""
    values = {**entry.values, "name": name, "average": {**entry.values["average"]}}
    values["average"]["gain"] = {**values["average"]["gain"], "TPR_FPR_1000": gain}
    return Entry(entry.path, values)


def test_brackets_in_a_text_of_an_entry_stay(mine, tmp_path):
    values = {**read_values(mine), "title": "[ 1,  2 ]", "authors": ["[ a ]"]}
    file = tmp_path / "entry.json"
    file.write_text(entry_text(values))
    assert read_values(file) == values


def test_overlapping_paired_intervals_are_ties(mine):
    entry = Entry(mine, read_values(mine))
    gains = {"a": [0.1, 0.08, 0.12], "b": [0.07, 0.05, 0.09], "c": [0.06, 0.04, 0.07]}
    some = [changed(entry, name, gain) for name, gain in gains.items()]
    placed = ranked(some[::-1])
    assert [(one.rank, one.entry.name) for one in placed] == [("1=", "a"), ("1=", "b"), ("3", "c")]


def test_the_terminal_marks_mine_and_other_fleets(mine):
    entry = Entry(mine, read_values(mine))
    other = changed(entry, "other", [0.5, 0.4, 0.6])
    parts = {n: {**p, "fleet": "0" * 64} for n, p in entry.values["scenarios"].items()}
    other = Entry(other.path, {**other.values, "scenarios": parts})
    lines = board_lines([entry, other], [entry], ["digits_inf"])
    assert lines[1].startswith("~") and "other" in lines[1]
    assert lines[2].startswith(">") and "my_attack:attack" in lines[2]
    assert "another machine" in lines[-1]


def test_texts_of_an_entry_stay_text(mine, tmp_path):
    hostile = '<script>alert("x")</script>'
    values = {**read_values(mine), "name": "Hostile", "title": hostile, "source": hostile}
    file = tmp_path / "tiny/hostile.json"
    file.parent.mkdir()
    file.write_text(entry_text({**values, "authors": [hostile]}))
    shutil.copy(mine, file.parent)
    for other in mine.parent.glob("calibrate-*.json"):
        shutil.copy(other, file.parent)
    assert main(["leaderboard", "build", str(tmp_path), "--out", str(tmp_path / "site")]) == 0
    text = (tmp_path / "site/attacks/hostile.html").read_text()
    assert hostile not in text and "&lt;script&gt;" in text


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--final_opens", "2027-01-13T12:00:00Z"], "--final_opens is for a competition"),
        (["--with", "nothing.json"], "There is no file nothing.json to show"),
        (["nothing"], "There is no nothing: name entries"),
        ([__file__], "is a file: name its folder"),
    ],
)
def test_flags_that_do_not_fit_are_refused(words, sentence, tmp_path, capsys):
    code = None
    try:
        code = main(["leaderboard", "build", *words, "--out", str(tmp_path / "site")])
    except SystemExit as leave:
        code = leave.code
    assert code and sentence in capsys.readouterr().err
