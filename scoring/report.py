"""Shows scores to people: a figure, a table, and a web page that needs nothing but itself.

The page is drawn in numpy and text, so that the platforms' program can write it; matplotlib and
pandas are imported only by the functions that return their objects.
"""

from html import escape
from typing import TYPE_CHECKING, Any, Mapping

import numpy as np

from .metrics import SCALARS
from .svg import MARK, Axes, draw_roc, log_axes

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

COLUMNS = {
    "accuracy": "Accuracy",
    "AUC": "AUC-ROC",
    "MIA": "MIA",
    "TPR_FPR_10": "TPR @ 0.001 FPR",
    "TPR_FPR_100": "TPR @ 0.01 FPR",
    "TPR_FPR_500": "TPR @ 0.05 FPR",
    "TPR_FPR_1000": "TPR @ 0.1 FPR",
    "TPR_FPR_1500": "TPR @ 0.15 FPR",
    "TPR_FPR_2000": "TPR @ 0.2 FPR",
}
"""Headings of the numbers of a score, in the order of the table."""

RANKED = "TPR_FPR_1000"

STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1c2024; --soft: #5b6470;
  --line: #d9dee4; --band: #f4f6f8; --curve: #1558b0; --mark: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --paper: #14171a; --ink: #e8eaed;
  --soft: #a6aeb8; --line: #333a41; --band: #1d2226; --curve: #8ab4f8; --mark: #f28b82; } }
body { margin: 0 auto; padding: 1.5rem 1rem 3rem; max-width: 62rem; background: var(--paper);
  color: var(--ink); font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .5rem; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .25rem; overflow-wrap: anywhere; }
p { margin: .5rem 0; max-width: 46rem; }
.table { overflow-x: auto; margin: 1.25rem 0; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--soft); padding-bottom: .4rem; }
th, td { padding: .4rem .6rem; text-align: right; border-bottom: 1px solid var(--line); }
thead th { vertical-align: bottom; background: var(--band); font-size: .85rem; text-wrap: balance; }
th:nth-child(-n+4) { white-space: nowrap; }
th:first-child { text-align: left; }
td.ranked { font-weight: 700; }
tr.average th, tr.average td { border-top: 2px solid var(--soft); }
.plots { display: flex; flex-wrap: wrap; gap: 1rem 1.5rem; }
figure { margin: .5rem 0; flex: 1 1 360px; max-width: 30rem; min-width: 0; }
figcaption { color: var(--soft); font-size: .9rem; }
svg { display: block; width: 100%; height: auto; }
svg text { fill: var(--soft); font: 12px system-ui, sans-serif; }
.grid { stroke: var(--line); fill: none; }
.chance { stroke: var(--soft); stroke-dasharray: 5 4; fill: none; }
.mark { stroke: var(--mark); stroke-dasharray: 1 3; stroke-width: 1.5; fill: none; }
.curve { stroke: var(--curve); stroke-width: 2; stroke-linejoin: round; fill: none; }
.dot { fill: var(--mark); stroke: var(--paper); stroke-width: 1.5; }
"""

LEGEND = """<p>Each scenario pools the predictions on all its models. A larger prediction means
a likelier member. The curve shows what share of members (true positive rate, TPR) is found when
a given share of non-members (false positive rate, FPR) is wrongly taken for members.</p>
<p>Solid line: the submission. Dashed line: guessing at random. Dotted line and dot: the TPR at
10% FPR, whose average over the scenarios ranks submissions.</p>"""


def _check_scores(scores: Mapping[str, Mapping[str, Any]]) -> None:
    """ValueError if `scores` is not a scenario's name -> what `score` returned for it."""
    if not isinstance(scores, Mapping) or not scores:
        raise ValueError("Expected scores as a dict {scenario: score(...)} of at least one.")
    for name, result in scores.items():
        keys = ("fpr", "tpr") + SCALARS
        missing = [k for k in keys if not isinstance(result, Mapping) or k not in result]
        if missing:
            raise ValueError(
                "Expected scores[%r] to be what score() returns, but it lacks %s: pass "
                "{scenario: score(...)}." % (name, ", ".join(missing))
            )


def generate_roc(fpr: Any, tpr: Any) -> "Figure":
    """A matplotlib figure of one ROC curve, on linear and on logarithmic axes.

    Args:
        fpr, tpr: arrays of one length, in [0, 1], as in the result of `score`.

    Returns:
        A figure with two axes.  pyplot keeps it open, so `plt.show()` shows it; pass it to
        `plt.close` if you make many.

    Raises:
        ValueError: the two are not flat and of one length, or are empty.
        ImportError: matplotlib is not installed.
    """
    fpr, tpr = np.asarray(fpr, dtype=float), np.asarray(tpr, dtype=float)
    if fpr.ndim != 1 or fpr.shape != tpr.shape or not fpr.size:
        raise ValueError(
            "Expected fpr and tpr to be flat arrays of one length, got shapes %s and %s: pass "
            "score(...)['fpr'] and score(...)['tpr']." % (fpr.shape, tpr.shape)
        )
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError("generate_roc needs matplotlib: pip install matplotlib") from error
    smallest = 10.0 ** log_axes(fpr).decade
    figure, (linear, logarithmic) = plt.subplots(ncols=2, figsize=(9, 4.5))
    for axes, start in ((linear, 0.0), (logarithmic, smallest)):
        chance = np.geomspace(smallest, 1, 50) if start else np.array([0.0, 1.0])
        axes.plot(np.maximum(fpr, start), np.maximum(tpr, start), linewidth=2, label="attack")
        axes.plot(chance, chance, "--", color="gray", label="chance")
        axes.axvline(MARK, linestyle=":", color="tab:red", label="10% FPR")
        axes.set(xlabel="False positive rate", ylabel="True positive rate", aspect="equal")
        axes.grid(alpha=0.3)
    logarithmic.set(xscale="log", yscale="log", xlim=(smallest, 1), ylim=(smallest, 1))
    linear.set(xlim=(0, 1), ylim=(0, 1))
    linear.legend(loc="lower right")
    figure.tight_layout()
    return figure


def generate_table(scores: Mapping[str, Mapping[str, Any]]) -> "pandas.DataFrame":
    """A pandas frame of all numbers: a row a scenario, a column a metric.

    Args:
        scores: scenario name -> what `score` returned for it.

    Returns:
        A frame of floats, indexed by scenario in the order given, with 2022's column names.

    Raises:
        ValueError: `scores` is empty, or not of this form.
        ImportError: pandas is not installed.
    """
    _check_scores(scores)
    try:
        import pandas as pd
    except ImportError as error:
        raise ImportError("generate_table needs pandas: pip install pandas") from error
    rows = [[float(result[key]) for key in COLUMNS] for result in scores.values()]
    return pd.DataFrame(rows, index=list(scores), columns=list(COLUMNS.values()))


def _row(name: str, numbers: Mapping[str, float], kind: str = "") -> str:
    cells = "".join(
        "<td%s>%.4f</td>" % (' class="ranked"' if key == RANKED else "", numbers[key])
        for key in COLUMNS
    )
    return '<tr%s><th scope="row">%s</th>%s</tr>' % (kind, escape(name), cells)


def _table(scores: Mapping[str, Mapping[str, Any]]) -> str:
    """The numbers as an HTML table, with a last row of averages."""
    average = {key: float(np.mean([s[key] for s in scores.values()])) for key in COLUMNS}
    heads = "".join('<th scope="col">%s</th>' % title for title in COLUMNS.values())
    rows = [_row(str(name), result) for name, result in scores.items()]
    rows.append(_row("Average", average, ' class="average"'))
    return (
        '<div class="table" tabindex="0" role="region" aria-label="All scores"><table>\n'
        "<caption>All scores. Larger is better; in bold, the one that ranks.</caption>\n"
        '<thead><tr><th scope="col">Scenario</th>%s</tr></thead>\n<tbody>\n%s\n</tbody>\n'
        "</table></div>" % (heads, "\n".join(rows))
    )


def _section(name: str, result: Mapping[str, Any]) -> str:
    """One scenario: a sentence with its main numbers, and its curve on both kinds of axes."""
    fpr, tpr = np.asarray(result["fpr"], dtype=float), np.asarray(result["tpr"], dtype=float)
    numbers = "%.2f%% of members found at 10%% FPR; area under the curve %.4f" % (
        100 * result[RANKED],
        result["AUC"],
    )
    figures = []
    for kind, axes in (("linear", Axes()), ("logarithmic", log_axes(fpr))):
        title = "ROC curve of %s on %s axes: %s" % (name, kind, numbers)
        picture = draw_roc(fpr, tpr, result[RANKED], axes, title)
        caption = "%s axes" % kind.capitalize()
        figures.append("<figure>%s<figcaption>%s</figcaption></figure>" % (picture, caption))
    return '<section>\n<h2>%s</h2>\n<p>%s.</p>\n<div class="plots">%s</div>\n</section>' % (
        escape(name),
        numbers,
        "\n".join(figures),
    )


def generate_html(scores: Mapping[str, Mapping[str, Any]]) -> str:
    """A web page of all scores: a table of the numbers, and each scenario's ROC curve.

    Args:
        scores: scenario name -> what `score` returned for it.  Names are escaped.

    Returns:
        The whole page as text.  It has no scripts and fetches nothing, follows the reader's
        light or dark setting, and stays below 300 kB for the three scenarios of a challenge.

    Raises:
        ValueError: `scores` is empty, or not of this form.
    """
    _check_scores(scores)
    sections = [_section(str(name), result) for name, result in scores.items()]
    return "\n".join(
        [
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            "<title>Membership inference: detailed results</title>",
            "<style>%s</style>\n</head>\n<body>\n<main>" % STYLE,
            "<h1>Membership inference: detailed results</h1>",
            LEGEND,
            _table(scores),
            *sections,
            "</main>\n</body>\n</html>\n",
        ]
    )
