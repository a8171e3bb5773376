"""The leaderboard's site: what is in its bytes."""

import json
import re
from datetime import timedelta
from pathlib import Path

import pytest
from helpers_leaderboard import FIRST, made_up
from helpers_leaderboard_site import AFTER, BEFORE, OPENS, page_of

from mico_competition.hosting.leaderboard.build import build
from mico_competition.hosting.leaderboard.entries import read_entries, write_entry
from mico_competition.hosting.leaderboard.form import parse_time, time_text


def bytes_of(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


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


def test_templates_are_installed_with_the_package():
    root = Path(__file__).resolve().parents[3]
    assert '"site/*"' in (root / "setup.py").read_text()
