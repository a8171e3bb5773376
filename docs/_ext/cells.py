"""Where lines of a table's cells break: not inside an interval [58.6, 62.8], but in a long path."""

import re
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform

SPACE = re.compile(r"(?<=\d) (?=%)|(?<=[,+]) (?=-?[\d.]+\])")
LONG = re.compile(r"\S{25}")


class BreakLines(SphinxPostTransform):
    """Keeps intervals together, and marks the cells that have words too long for a column."""

    default_priority = 800

    def run(self, **kwargs: Any) -> None:
        """Change the texts of all cells."""
        for entry in self.document.findall(nodes.entry):
            if LONG.search(entry.astext()):
                entry["classes"].append("long")
            for text in list(entry.findall(nodes.Text)):
                kept = SPACE.sub("\N{NO-BREAK SPACE}", text.astext())
                if kept != text.astext():
                    text.parent.replace(text, nodes.Text(kept))


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.add_post_transform(BreakLines)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
