"""Links of all pages lead to files and headings that there are; external ones have a sound form."""

from urllib.parse import urlsplit

import pytest
from helpers_pages import PAGES, ROOT, anchors_of, links_of


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    wrong = []
    for link in links_of(page):
        parts = urlsplit(link)
        if parts.scheme:
            if parts.scheme != "https" or "." not in parts.netloc:
                wrong.append(link)
            continue
        target = (page.parent / parts.path).resolve() if parts.path else page
        inside = target.is_relative_to(ROOT) and target.exists()
        named = target.suffix in (".md", ".ipynb") and parts.fragment
        if not inside or (named and parts.fragment not in anchors_of(target)):
            wrong.append(link)
    assert not wrong


def test_links_are_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        '# A `b` (c)\n\n[x](y.md) ![p](a/b.svg "t") `[no](no.md)`\n\n## A b c\n\n'
        "```python\n[no](no.md)\n```\n\n[two\nlines](#a-b-c-1)\n"
    )
    assert links_of(page) == ["y.md", "a/b.svg", "#a-b-c-1"]
    assert anchors_of(page) == {"a-b-c", "a-b-c-1"}


def test_pages_are_there():
    names = {str(page.relative_to(ROOT)) for page in PAGES}
    assert {"README.md", "CONTRIBUTING.md", "SECURITY.md", "docs/start.md"} <= names
    assert len(PAGES) >= 30
