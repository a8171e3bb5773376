r"""Formulas as MathML, which browsers draw themselves: no script, no font and no network.

docutils converts the TeX of the pages. A formula's `\tag{5}` becomes its number at the right.
"""

import re
from typing import Any

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.util import logging

logger = logging.getLogger(__name__)
TAG = re.compile(r"\\tag\{(.+?)\}")


def convert(node: Any, *, as_block: bool) -> str:
    """The MathML of a node's TeX without its number; a warning if it cannot be converted."""
    source = TAG.sub("", node.astext()).strip()
    try:
        return str(tex2mathml(source, as_block=as_block))
    except MathError as error:
        logger.warning("no MathML of %r: %s", source, error, location=node)
        return f"<code>{source}</code>"


def visit_inline(self: Any, node: nodes.math) -> None:
    """A formula within a line."""
    self.body.append(convert(node, as_block=False))
    raise nodes.SkipNode


def visit_block(self: Any, node: nodes.math_block) -> None:
    """A formula on lines of its own, which scrolls where it is too wide, and its number."""
    number = TAG.search(node.astext())
    anchor = f' id="formula-{number[1]}"' if number else ""
    self.body.append(f'<div class="formula"{anchor}><div>{convert(node, as_block=True)}</div>')
    self.body.append(f"<span>({number[1]})</span></div>" if number else "</div>")
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_block, None))
    app.config.html_math_renderer = "mathml"
    return {"parallel_read_safe": True, "parallel_write_safe": True}
