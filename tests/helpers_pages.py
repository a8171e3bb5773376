"""Pages of the repository: their examples, their links, and the anchors of their headings."""

import ast
import contextlib
import io
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted(
    path
    for path in [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/*.md"),
        *ROOT.glob("docs/*/*.md"),
        *ROOT.glob("benchmarks/*.md"),
        *ROOT.glob("leaderboard/README.md"),
        *ROOT.glob("docs/tutorials/*.ipynb"),
        *ROOT.glob("docs/howto/*.ipynb"),
        *ROOT.glob("starting-kit/*.ipynb"),
    ]
    if path.parent.name != "results"  # parts of pages that scripts write
)


@dataclass(frozen=True)
class Block:
    """Code of a page, the output that the page shows below it (None: nothing), and its line.

    What the page does not show (in the comment above the block) is part of the code.
    """

    code: str
    output: str | None
    line: int


RUN = re.compile(
    r"^<!-- run(?: -->|\n((?:(?!-->).)*)^-->)\n```python\n(.*?)^```$(?:\n\n```text\n(.*?)^```$)?",
    re.DOTALL | re.MULTILINE,
)


def text_of(path: Path) -> str:
    """The Markdown of a page; of a notebook, that of its cells of text."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".ipynb":
        return text
    cells = [c for c in json.loads(text)["cells"] if c["cell_type"] == "markdown"]
    return "\n\n".join("".join(cell["source"]) for cell in cells)


def runnable_blocks(path: Path) -> list[Block]:
    """The blocks below a comment `<!-- run -->`, in the order of the page.

    A comment of several lines holds code that runs first, and that readers do not need to see.
    """
    text = text_of(path)
    return [
        Block((found[1] or "") + found[2], found[3], text[: found.start()].count("\n") + 1)
        for found in RUN.finditer(text)
    ]


def run_block(code: str, names: dict[str, Any]) -> str:
    """What the code prints, and the value of its last line, as a notebook shows them."""
    tree = ast.parse(code)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, "<page>", "exec"), names)
        if last is not None:
            value = eval(compile(ast.Expression(last.value), "<page>", "eval"), names)
            if value is not None:
                print(repr(value))
    return printed.getvalue()


NUMBER = re.compile(r"[-+]?\d+\.\d+")
INTERVAL = re.compile(rf"({NUMBER.pattern})\s+\[({NUMBER.pattern}), ({NUMBER.pattern})\]")
STAR = re.compile(r"(?<=\d)\*")


def without_seconds(text: str) -> str:
    """A text without the last column of tables in which it is headed "seconds"."""
    kept, dropping = [], False
    for line in text.splitlines():
        dropping = bool(line.strip()) and (dropping or line.endswith(" seconds"))
        kept.append(line.rsplit(maxsplit=1)[0] if dropping else line)
    return "\n".join(kept)


def differences(expected: str, got: str) -> bool:
    """Whether numbers differ by more than `_tolerances` allows, or anything else does.

    Spaces may differ, and the stars of significance. "..." stands for any text, and columns of
    seconds are not compared.
    """
    expected, got = (STAR.sub("", without_seconds(text)).strip() for text in (expected, got))
    # Each decimal becomes a group of its own, and everything else must be the same.
    pattern = ""
    for part in re.split(rf"({NUMBER.pattern}|\.\.\.|\s+)", expected):
        if NUMBER.fullmatch(part):
            pattern += f"({NUMBER.pattern})"
        elif part == "...":
            pattern += r".*?"
        else:
            pattern += r"\s+" if part.isspace() else re.escape(part)
    found = re.fullmatch(pattern, got, re.DOTALL)
    if found is None:
        return True
    stated = (float(number) for number in NUMBER.findall(expected))
    return any(
        abs(one - float(other)) > most
        for one, other, most in zip(stated, found.groups(), _tolerances(expected), strict=True)
    )


def _tolerances(text: str) -> list[float]:
    """By how much each decimal may differ: 2 units of the last digit, or 3 %.

    Other processors round otherwise, and training makes more of it: so a number with an interval,
    and its ends, may differ by half the interval's width, too.
    """
    found = {}
    for number in NUMBER.finditer(text):
        unit = 10.0 ** -len(number[0].partition(".")[2])
        found[number.start()] = max(2.01 * unit, 0.03 * abs(float(number[0])))
    for interval in INTERVAL.finditer(text):
        half = (float(interval[3]) - float(interval[2])) / 2
        for group in (1, 2, 3):
            found[interval.start(group)] = max(half, found[interval.start(group)])
    return list(found.values())


def skeleton(text: str) -> str:
    """A text without its numbers, stars and runs of spaces: what stays if a run is repeated."""
    words = re.sub(r"[-+]?\d+(?:,\d{3})*(?:\.\d+)?(?:e[-+]?\d+)?", "#", text).replace("*", "")
    return " ".join(words.split())


LINK = re.compile(r"!?\[(?:[^\[\]]|\[[^\]]*\])*\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\)")
FENCE = re.compile(r"^(`{3,}|:{3,})(.*?)\n(.*?)^\1\s*$", re.DOTALL | re.MULTILINE)


def links_of(path: Path) -> list[str]:
    """The targets of a page's links and pictures, outside code."""
    text = FENCE.sub("", text_of(path))
    return LINK.findall(re.sub(r"`[^`\n]*`", lambda code: "x" * len(code[0]), text))


def anchors_of(path: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    found: dict[str, int] = {}
    anchors = set()
    for heading in re.findall(r"^#{1,6} +(.+?)\s*#*$", FENCE.sub("", text_of(path)), re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
        slug = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        count = found.get(slug, 0)
        found[slug] = count + 1
        anchors.add(f"{slug}-{count}" if count else slug)
    return anchors
