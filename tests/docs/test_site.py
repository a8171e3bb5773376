"""The documentation site builds without a warning; its links, names and widths are right."""

import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from helpers_pages import ROOT

import mico_competition

pytestmark = pytest.mark.slow
REMOTE = ("script", "link", "img", "iframe", "source", "video")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the built site; the build is the one of `make docs`."""
    folder = tmp_path_factory.mktemp("site")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    line = re.search(r"^\t\$\(VENV\)/bin/sphinx-build (.*) build/docs$", makefile, re.MULTILINE)
    flags = line[1].replace("$(ARGS) ", "").split()
    assert {"-W", "-E"} <= set(flags)
    command = [sys.executable, "-m", "sphinx", *flags, str(folder / "html")]
    offline = {
        **os.environ,
        "https_proxy": "http://127.0.0.1:9",
        "http_proxy": "http://127.0.0.1:9",
    }
    done = subprocess.run(command, cwd=ROOT, env=offline, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    shutil.rmtree(folder / "html" / ".doctrees", ignore_errors=True)
    return folder / "html"


class Page(HTMLParser):
    """The links, anchors and loaded files of a page."""

    def __init__(self, text):
        super().__init__()
        self.links, self.anchors, self.loads = [], set(), []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.anchors |= {values[name] for name in ("id", "name") if values.get(name)}
        for name in ("href", "src"):
            if values.get(name) is not None:
                canonical = values.get("rel") in ("canonical", "search")
                (self.loads if tag in REMOTE and not canonical else self.links).append(values[name])


@pytest.fixture(scope="module")
def pages(site):
    return {
        path.relative_to(site): Page(path.read_text(encoding="utf-8"))
        for path in site.rglob("*.html")
    }


def inside(page, link):
    """The page or file that a link of a page leads to, and the anchor there."""
    parts = urlsplit(link)
    path = os.path.normpath(page.parent / unquote(parts.path)) if parts.path else str(page)
    return path, unquote(parts.fragment)


def test_every_link_of_the_site_leads_somewhere(site, pages):
    by_name = {str(path): page for path, page in pages.items()}
    wrong = []
    for path, page in pages.items():
        for link in [*page.links, *page.loads]:
            if urlsplit(link).scheme in ("https", "data"):
                continue
            target, anchor = inside(path, link)
            anchors = by_name[target].anchors if target in by_name else {anchor}
            if not (site / target).exists() or (anchor and anchor not in anchors):
                wrong.append(f"{path}: {link}")
    assert not wrong


def test_nothing_is_loaded_from_elsewhere(pages):
    loads = [load for page in pages.values() for load in page.loads]
    assert loads and not [load for load in loads if urlsplit(load).scheme not in ("", "data")]


def test_every_page_can_be_reached_from_the_front_page(pages):
    reached, ahead = set(), ["docs/index.html"]
    by_name = {str(path): page for path, page in pages.items()}
    while ahead:
        name = ahead.pop()
        if name in by_name and name not in reached:
            reached.add(name)
            ahead += [inside(Path(name), link)[0] for link in by_name[name].links]
    generated = {"genindex.html", "py-modindex.html", "search.html", "index.html"}
    assert set(by_name) - reached <= generated
    assert len(reached) >= 35


def test_every_public_name_has_a_place(pages):
    anchors = set().union(*(page.anchors for page in pages.values()))
    assert {f"mico_competition.{name}" for name in mico_competition.__all__} <= anchors


def test_formulas_are_drawn_by_the_browser_itself(site):
    text = (site / "docs/METHODS.html").read_text(encoding="utf-8")
    source = (ROOT / "docs/METHODS.md").read_text(encoding="utf-8")
    assert text.count('class="formula"') == source.count("\\tag{")
    assert text.count("<math") > 500 and "\\tag" not in text


@pytest.mark.parametrize("width", [400, 1400])
@pytest.mark.parametrize("dark", [False, True])
def test_pages_can_be_read_on_phones_and_screens_by_day_and_night(
    site, pages, browser, width, dark
):
    checks = Path(__file__).with_name("site_checks.js").read_text(encoding="utf-8")
    browser.show(width, 900, dark=dark)
    for path in pages:
        if str(path) == "index.html":
            continue  # leads to the front page at once
        if path.parts[0] == "benchmark":
            continue  # copied as `mico leaderboard build` makes them, which has tests of its own
        browser.open(site / path)
        assert browser.js("document.documentElement.scrollWidth") <= width, path
        assert browser.js(checks) == [], path
        assert not browser.complaints(), path
        assert all(url.startswith(("file:", "data:")) for url in browser.requests()), path
