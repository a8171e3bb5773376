"""2022's module `score_html`, kept so that code which imports from it runs unchanged."""

from .report import generate_html, generate_roc, generate_table

__all__ = ["generate_html", "generate_roc", "generate_table"]
