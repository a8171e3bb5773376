"""Scoring of membership predictions: metrics, intervals, reports, and the platforms' program.

This folder is both the package `mico_competition.scoring` and the folder that CodaLab and Codabench
run as `python3 score.py IN OUT`, in Python 3.7 or later with only numpy.  So no module here imports
the rest of `mico_competition`, and pandas and matplotlib are imported only inside the functions
that return their objects.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

# The launcher score.py and the function `score` share a name.  A submodule is bound to its
# package only once, when it is first loaded: so it is loaded here, and the name set free.
from . import score as _launcher  # noqa: F401

del score  # noqa: F821

if TYPE_CHECKING:
    from .intervals import bootstrap, bootstrap_average, intervals_of
    from .metrics import roc_curve, tpr_at_fpr, tpr_at_most_fpr
    from .metrics import score as score
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

# Each is imported at first use, so that `printable` works without numpy.
_HOME = {
    "bootstrap": "intervals",
    "bootstrap_average": "intervals",
    "generate_html": "report",
    "generate_roc": "report",
    "generate_table": "report",
    "intervals_of": "intervals",
    "roc_curve": "metrics",
    "score": "metrics",
    "tpr_at_fpr": "metrics",
    "tpr_at_most_fpr": "metrics",
}


if not TYPE_CHECKING:  # which knows the names from above, and reports any other

    def __getattr__(name: str) -> Any:
        if name not in _HOME:
            raise AttributeError("module %r has no attribute %r" % (__name__, name))
        value = getattr(import_module(__name__ + "." + _HOME[name]), name)
        globals()[name] = value
        return value
