"""Pages and picture of a bundle: true numbers, commands that exist, whole HTML."""

import re
import shlex
from html.parser import HTMLParser
from pathlib import Path

import pytest
from helpers_bundle import DATES, LENGTHS, MODELS, make_bundle, read_zip

from mico_competition.cli import build_parser
from mico_competition.competition.table import CHALLENGES
from mico_competition.hosting.codabench.html import as_html

ROOT = Path(__file__).resolve().parents[3]
PAGES = ("overview", "evaluation", "data", "terms")


def test_numbers_on_the_pages_are_those_of_the_models(tmp_path):
    path, _ = make_bundle(tmp_path, "purchase100", repo="someone/mico-purchase100")
    pages = {p: read_zip(path)[f"pages/{p}.md"].decode() for p in PAGES}
    assert not any("$" in text or "None" in text for text in pages.values())
    assert f"You get {3 * 2 * MODELS} trained models, in 3 scenarios" in pages["overview"]
    assert "| `purchase100_inf` | No DP | Purchase-100 | none |  | 2 | 2 |" in pages["overview"]
    assert "| `purchase100_lo` | Low ε = 4 | Purchase-100 | 3.99 | 1e-05 | 2 |" in pages["overview"]
    assert f"| Final | {DATES[1]} | {DATES[2]} | 6 models |" in pages["overview"]
    assert f"line of {2 * LENGTHS['len_challenge']} numbers" in pages["evaluation"]
    assert "40 predictions in Development" in pages["evaluation"]
    assert "purchase100/purchase100_hi/final/model_150/prediction.csv" in pages["evaluation"]
    assert "strictly below 0.1" in pages["evaluation"]
    assert "| Purchase-100 | `load_purchase100` | 1,234 | 321 | 10 |" in pages["data"]
    assert "mico download purchase100 --repo someone/mico-purchase100" in pages["data"]
    assert "no guarantee" in pages["terms"].lower()
    assert f"from {DATES[0]} to {DATES[2]} (UTC)" in pages["terms"]


def test_pages_tell_what_is_disclosed(bundles):
    ddp = read_zip(bundles("ddp"))["pages/data.md"].decode()
    plain = read_zip(bundles("cifar10"))["pages/data.md"].decode()
    assert "| CIFAR-10 | `dev` | `model.pt`, `seed_challenge`, `seed_training`, `metadata" in ddp
    assert "| CIFAR-10 | `dev` | `model.pt`, `seed_challenge`, `metadata.json` |" in plain
    assert "also know all other records" in read_zip(bundles("ddp"))["pages/overview.md"].decode()
    assert "No DP" not in read_zip(bundles("ddp"))["pages/overview.md"].decode()
    assert "szanella/MICO-CIFAR10" in plain


def commands(text):
    """Command lines of a page, those that go on in the next line joined."""
    blocks = "\n".join(re.findall(r"```\w*\n(.*?)```", text, flags=re.DOTALL))
    return re.findall(r"^mico (.+)$", blocks.replace("\\\n", " "), flags=re.MULTILINE)


@pytest.mark.slow
@pytest.mark.parametrize("challenge", CHALLENGES)
def test_commands_on_the_pages_are_commands_that_exist(bundles, challenge):
    files = read_zip(bundles(challenge))
    found = commands("\n".join(files[f"pages/{page}.md"].decode() for page in PAGES))
    assert len(found) >= 5
    for command in found:
        build_parser().parse_args(shlex.split(command, comments=True))


def test_commands_on_the_host_page_are_commands_that_exist():
    found = commands((ROOT / "docs" / "HOST.md").read_text(encoding="utf-8"))
    assert len(found) >= 6
    for command in found:
        build_parser().parse_args(shlex.split(command, comments=True))


class Balanced(HTMLParser):
    """Fails where a tag is closed that is not open."""

    def __init__(self):
        super().__init__()
        self.open, self.seen = [], set()

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        self.seen.add(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.mark.parametrize("page", PAGES)
def test_html_pages_are_whole(bundles, page):
    text = read_zip(bundles("ddp", "codalab"))[f"pages/{page}.html"].decode()
    parser = Balanced()
    parser.feed(text)
    assert not parser.open and {"h1", "h2", "p"} <= parser.seen
    assert "**" not in text and "```" not in text and "| " not in text


def test_html_of_what_our_pages_use():
    text = "# A <b>\n\nan *x* of **y z** and `a*b*c <d>`\n\n- one\n  more\n- [t](https://e.org)\n"
    assert as_html(text) == (
        "<h1>A &lt;b&gt;</h1>\n"
        "<p>an <em>x</em> of <strong>y z</strong> and <code>a*b*c &lt;d&gt;</code></p>\n"
        '<ul>\n<li>one more</li>\n<li><a href="https://e.org">t</a></li>\n</ul>\n'
    )
    assert as_html("```\na < b\n\nc\n```\n") == "<pre><code>a &lt; b\n\nc</code></pre>\n"
    table = as_html("| a | b |\n| --- | --- |\n| 1 | `2` |\n")
    assert "<th>b</th>" in table and "<td>1</td><td><code>2</code></td>" in table
