"""Scoring of membership predictions: metrics, intervals, the report, the platform's program.

This folder has two lives.  It is the package `mico_competition.scoring`, and it is the folder
that CodaLab and Codabench run as `python3 score.py IN OUT`, in Pythons as old as 3.7 with
nothing but numpy.  So nothing here imports the rest of `mico_competition`, and pandas and
matplotlib are imported only inside the functions that return their objects.
"""

# The launcher score.py and the function `score` share a name.  Importing the module first, and
# the function after it, lets the function win for good: a submodule is bound to its package
# only once, when it is first loaded.
from . import score as _launcher  # noqa: F401  isort: skip
from .intervals import bootstrap, bootstrap_average, intervals_of
from .metrics import roc_curve, score, tpr_at_fpr, tpr_at_most_fpr
from .report import generate_html, generate_roc, generate_table

__all__ = [
    "bootstrap",
    "bootstrap_average",
    "generate_html",
    "generate_roc",
    "generate_table",
    "intervals_of",
    "roc_curve",
    "score",
    "tpr_at_fpr",
    "tpr_at_most_fpr",
]
