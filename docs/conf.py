"""The documentation site: `make docs` builds it from the repository's root into build/docs.

The root is the source folder, so that a link between two files, such as `../CONTRIBUTING.md`, leads
to the same place on the site as in the repository. Nothing is fetched, neither when the site is
built nor when it is read.
"""

import sys
from pathlib import Path

from pygments.lexers import BashLexer
from sphinx.application import Sphinx

from mico_competition import __version__
from mico_competition.benchmark.site import build_site

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))

project = "mico_competition"
author = "the mico_competition authors"
copyright = author  # the name that Sphinx reads
version = release = __version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "cells",
    "mathml",
    "public_names",
    "verbs",
]

root_doc = "docs/index"
include_patterns = [
    "*.md",
    "docs/*.md",
    "docs/howto/**",
    "docs/reference/**",
    "docs/report/*.md",
    "docs/tutorials/**",
    "benchmarks/*.md",
    "leaderboard/README.md",
    "starting-kit/*.ipynb",
]
exclude_patterns = [".*", "build", "demo", "src", "tests", "**/.ipynb_checkpoints"]

# Notebooks show the outputs that they were committed with; tests execute them.
nb_execution_mode = "off"
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 4  # the anchors that GitHub gives

smartquotes_action = "D"  # a dash between spaces, and quotes as they are written
default_role = "literal"  # what stands in `backticks` in docstrings
nitpicky = True
nitpick_ignore_regex = [("py:(class|exc)", r".*")]  # most types in signatures have no page

toc_object_entries_show_parents = "hide"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True  # attributes as one list

html_theme = "furo"
html_title = project
html_static_path = ["_static"]
html_css_files = ["site.css", ("print.css", {"media": "print"})]
html_extra_path = ["_extra"]  # index.html at the top, which leads to docs/index.html
html_copy_source = False
html_show_copyright = False
pygments_style = "a11y-high-contrast-light"
pygments_dark_style = "a11y-high-contrast-dark"
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True


def setup(app: Sphinx) -> None:
    """Called by Sphinx: blocks of commands have no prompts, so they are read as a script."""
    app.add_lexer("console", BashLexer)
    app.connect("build-finished", build_board)


def build_board(app: Sphinx, error: Exception | None) -> None:
    """The benchmark's site beside the pages, in benchmark/."""
    if error is None and app.builder.name == "html":
        build_site(None, Path(app.outdir) / "benchmark", docs="../docs/")
