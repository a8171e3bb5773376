"""docs/METHODS.md: its formulas are numbered, and what code and page say of each other is there."""

import re
from pathlib import Path

from mico_competition.attacks.registry import ROWS
from mico_competition.audit.bounds import METHODS
from mico_competition.audit.limits import NAMES
from mico_competition.audit.mechanism_curve import METHOD
from mico_competition.audit.verdict import OF_PAIRS

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "METHODS.md").read_text(encoding="utf-8")
PACKAGE = ROOT / "src" / "mico_competition"
LIST = r"\d+(?:\.\d+)?(?:(?:,| and| to) \d+(?:\.\d+)?)*"
CITED = re.compile(
    rf"METHODS(?:\.md)?[,#\s]+sections? ({LIST})(?:[^()]{{0,40}}\(formulas? ({LIST})\))?"
)
"""`docs/METHODS.md, section 4.9 (formulas 24 to 31)`, also broken over two lines of a docstring."""


def sections():
    """Number of each section -> its text, without that of the sections in it."""
    parts = re.split(r"^#{2,3} (\d+(?:\.\d+)?)\.? ", PAGE, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2]))


def formulas(text):
    return [int(number) for number in re.findall(r"\\tag\{(\d+)\}", text)]


def files():
    """All that may cite the page."""
    for folder, pattern in (
        ("src", "*.py"),
        ("scoring", "*.py"),
        ("tests", "*.py"),
        ("training", "*.py"),
        ("benchmarks", "*.py"),
        ("docs", "*.md"),
        ("starting-kit", "*.ipynb"),
    ):
        for path in sorted((ROOT / folder).rglob(pattern)):
            if path.resolve() != Path(__file__).resolve() and path.name != "METHODS.md":
                yield path
    yield ROOT / "README.md"


def listed(text, known):
    """What "3", "3 and 5" or "3 to 5" means, of all that are known, in order."""
    found = re.findall(r"[\d.]*\d", text)
    assert set(found) <= set(known), text
    if " to " not in text:
        return found
    return known[known.index(found[0]) : known.index(found[-1]) + 1]


def citations():
    """(path, sections, formulas) of each time that the page is cited."""
    known = list(sections()), list(map(str, formulas(PAGE)))
    for path in files():
        # A comment's or docstring's line break, with what begins the next line.
        text = re.sub(r"\s*\n\s*#?\s*", " ", path.read_text(encoding="utf-8"))
        for cited in CITED.findall(text):
            yield path.relative_to(ROOT), *map(listed, cited, known)


def test_sections_are_numbered_in_order():
    top, below = 0, 0
    for number in sections():
        _, _, second = number.partition(".")
        top, below = (top, below + 1) if second else (top + 1, 0)
        assert number == (f"{top}.{below}" if second else str(top))
    assert top >= 10


def test_every_formula_is_numbered_once_and_in_order():
    found = formulas(PAGE)
    assert found == list(range(1, len(found) + 1)) and len(found) > 80
    displayed = re.findall(r"^\$\$.*$", PAGE, flags=re.MULTILINE)
    assert len(displayed) == len(found)
    for line in displayed:
        assert re.fullmatch(r"\$\$ .+ \\tag\{\d+\} \$\$", line), line


def test_formulas_survive_github():
    """Markdown takes the backslash before a punctuation mark for itself, inside formulas too."""
    for number, line in enumerate(PAGE.splitlines(), start=1):
        inside = "".join(re.findall(r"\$+([^$]+)\$+", line))
        assert not re.search(r"\\[^a-zA-Z]", inside), f"line {number}"
        assert line.count("$") % 2 == 0, f"line {number} breaks a formula"


def test_the_page_cites_its_own_formulas_and_sections():
    known = sections()
    of_papers = r"\*\*Source\.\*\*.*?(?=\*\*Code\.|\n- |\n\n)"
    prose = re.sub(r"\$[^$]*\$", "", re.sub(of_papers, "", PAGE, flags=re.DOTALL))
    for number in re.findall(r"[Ss]ections?\s(\d+(?:\.\d+)?)", prose):
        assert number in known, number
    for number in re.findall(r"\((\d{1,3})\)", prose):
        assert 1 <= int(number) <= len(formulas(PAGE)), number


def test_code_cites_sections_and_formulas_that_exist():
    known, cited = sections(), list(citations())
    for path, names, numbers in cited:
        inside = [
            text
            for name, text in known.items()
            for cited_name in names
            if f"{name}.".startswith(f"{cited_name}.")
        ]
        there = set(map(str, formulas("".join(inside))))
        assert set(numbers) <= there, f"{path}: section {names} has no formula {numbers}"
    assert len({path for path, *_ in cited}) >= 20


def test_code_does_not_cite_pages_that_are_not_published():
    for path in (ROOT / "src").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"\b(the|our) findings\b|attacks\.md", text), path


def test_every_module_that_is_named_exists():
    named = set(re.findall(r"`([\w/]+\.py)`", PAGE))
    assert len(named) > 50
    for name in sorted(named):
        base = ROOT if name.startswith(("scoring/", "tests/")) else PACKAGE
        assert (base / name).is_file(), name


def test_every_attack_and_every_bound_has_a_section():
    table = re.search(r"<!-- index: begin -->\n(.*?)<!-- index: end -->", PAGE, flags=re.DOTALL)
    assert table is not None
    known, listed = sections(), {}
    for kind, names, section in re.findall(
        r"^\| (bound |limit |)(`.*`) \| ([\d.]+) \|$", table[1], flags=re.MULTILINE
    ):
        for name in re.findall(r"`([^`]+)`", names):
            assert section in known, section
            listed.setdefault(kind.strip() or "attack", []).append(name)
    assert sorted(listed["attack"]) == sorted(ROWS)
    assert sorted(listed["bound"]) == sorted({*METHODS, METHOD, OF_PAIRS})
    assert sorted(listed["limit"]) == sorted(NAMES)
