"""Presents scores: as a figure, as a table, and as a self-contained web page.

The page is made with numpy and text only, so that the platforms' program can make it; matplotlib
and pandas are imported only by the functions that return their objects.  Result pages are public,
so they show only numbers of whole scenarios, and the part of the curve that `curve.py` allows.
"""

import math
from html import escape
from typing import TYPE_CHECKING, Any, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from .coarse import average, digits, step_of
from .curve import SCORED, Curve, shown_curve
from .intervals import MANY, interval_method
from .metrics import RANKED, SCALARS, TITLES, percent
from .page import document
from .svg import MARK, SHOWN_DECADE, Axes, Ceilings, ceiling_key, draw_roc, log_axes

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

Intervals = Optional[Mapping[str, Any]]

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
"""2022's headings of the numbers of a score, in its order."""

AVERAGE = "average_" + RANKED
TITLE = "Membership inference: detailed results"

LEGEND = """<p>Blue line: the submission%s. Grey dashed line: guessing at random. Red dotted line
and dot: the TPR at 10%% FPR, whose average over the scenarios ranks submissions.</p>"""

COARSE = """<p><b>In steps of %g.</b> While many submissions are allowed, scores are rounded, since
exact ones would reveal labels. Equal scores are ties. The curve goes through these scores, and
there are no intervals; predictions for models of phase train can be scored exactly, with the
package.</p>"""

GLOSSARY = """<section>
<h2>What the numbers mean</h2>
<dl>
<div><dt>TPR at 10%% FPR</dt><dd>What share of members (true positive rate) is found when fewer than
10%% of non-members (false positive rate) are wrongly taken for members. Guessing at random finds
10%%.</dd></div>
<div><dt>AUC</dt><dd>The area under the ROC curve: how often a member has a larger prediction than a
non-member; 0.5 by guessing.</dd></div>
<div><dt>Advantage</dt><dd>The largest difference of true and false positive rate; 0 by
guessing.</dd></div>
<div><dt>Balanced accuracy</dt><dd>The best share of right answers if members and non-members are
equally many; 0.5 by guessing.</dd></div>
%s</dl>
</section>"""

INTERVALS = """<div><dt>95%% interval</dt><dd>Another set of models of the same scenario would give
other numbers. %s</dd></div>
"""
KNOWN = """The interval is meant to hold, 95 times in 100, the number that very many models would
give. Where a score rests on few records it is no narrower than an exact binomial interval of them.
"""
BY_METHOD = {
    "bootstrap": """It comes from drawing the models anew, with replacement, 2,000 times (bootstrap
over models).""",
    "both": """With fewer than 20 models it is the wider of what comes from drawing the models anew,
with replacement, 2,000 times (bootstrap over models) and Student's t interval over the models.""",
    "t": """With fewer than six models in a scenario it is Student's t interval over the models,
which is wide. A TPR has one there only at a rate at which three non-members or more are
accepted.""",
    "none": "A scenario with a single model, or one much larger than all others, has none.",
}
UNKNOWN = "How much is not known here: an interval needs at least two models a scenario."


def _check_scores(scores: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise ValueError if `scores` does not map scenario names to results of `score`."""
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


def generate_roc(
    fpr: Any,
    tpr: Any,
    ceilings: Optional[Ceilings] = None,
    band: Optional[Mapping[float, Tuple[float, float]]] = None,
) -> "Figure":
    """Draw one ROC curve as a matplotlib figure, on linear and on logarithmic axes.

    Args:
        fpr, tpr: arrays of one length, in [0, 1], as in the result of `score`.
        ceilings: what privacy allows at most: name -> (false positive rates, TPRs); drawn too.
        band: false positive rate -> (low, high), the interval of the TPR there; the part "curve"
            of what `intervals_of(..., rates=...)` returns for the scenario.  Rates whose
            interval is not known (nan) are left out.

    Returns:
        A figure with two axes and one legend.  pyplot keeps it open, so `plt.show()` shows it;
        pass it to `plt.close` if you make many.

    Raises:
        ValueError: the two are not flat and of one length, or are empty.
        ImportError: matplotlib is not installed.

    >>> from mico_competition.scoring import roc_curve
    >>> figure = generate_roc(*roc_curve([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8]))
    >>> [axes.get_xscale() for axes in figure.axes]
    ['linear', 'log']
    >>> import matplotlib.pyplot as plt
    >>> plt.close(figure)
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
    known = sorted((rate, *ends) for rate, ends in (band or {}).items() if not np.isnan(ends[0]))
    rates, low, high = np.array(known, dtype=float).reshape(-1, 3).T
    figure, (linear, logarithmic) = plt.subplots(ncols=2, figsize=(9, 4.9), layout="constrained")
    for axes, start in ((linear, 0.0), (logarithmic, smallest)):
        chance = np.geomspace(smallest, 1, 50) if start else np.array([0.0, 1.0])
        axes.plot(np.maximum(fpr, start), np.maximum(tpr, start), linewidth=2, label="attack")
        if rates.size:
            shown = rates >= start
            axes.fill_between(
                rates[shown],
                np.maximum(low[shown], start),
                np.maximum(high[shown], start),
                alpha=0.25,
                linewidth=0,
                label="95% interval",
            )
        axes.plot(chance, chance, "--", color="gray", label="chance")
        for (name, (at, most)), style in zip((ceilings or {}).items(), (":", "--", "-")):
            shown = np.asarray(at) >= start
            axes.plot(
                np.asarray(at)[shown],
                np.asarray(most)[shown],
                style,
                color="#8a4b00",
                linewidth=1.5,
                label="at most, by " + name,
            )
        axes.axvline(MARK, linestyle=":", color="tab:red", label="10% FPR")
        axes.set(xlabel="False positive rate", ylabel="True positive rate", aspect="equal")
        axes.grid(alpha=0.3)
    logarithmic.set(xscale="log", yscale="log", xlim=(smallest, 1), ylim=(smallest, 1))
    linear.set(xlim=(0, 1), ylim=(0, 1))
    handles, names = linear.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=4, frameon=False)
    return figure


def generate_table(
    scores: Mapping[str, Mapping[str, Any]],
    intervals: Intervals = None,
    columns: Mapping[str, str] = COLUMNS,
) -> "pandas.DataFrame":
    """Make a pandas frame of all numbers: scenarios in rows, metrics in columns.

    Args:
        scores: scenario name -> the result of `score`.
        intervals: the result of `intervals_of` for the same scenarios.
        columns: key of a score -> its heading; by default those of 2022; `metrics.TITLES` has
            those of the page.

    Returns:
        A frame of floats, indexed by scenario in the given order.  With `intervals`, the column
        that determines the ranking is text: "0.1460 [0.131, 0.161]".

    Raises:
        ValueError: `scores` is empty, or not of this form.
        ImportError: pandas is not installed.

    >>> from mico_competition.scoring import score
    >>> table = generate_table({"hi": score([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])})
    >>> table.loc["hi", "AUC-ROC"].item()
    0.75
    """
    _check_scores(scores)
    try:
        import pandas as pd
    except ImportError as error:
        raise ImportError("generate_table needs pandas: pip install pandas") from error
    rows = [[float(result[key]) for key in columns] for result in scores.values()]
    table = pd.DataFrame(rows, index=list(scores), columns=list(columns.values()))
    if intervals is not None:
        ends = [intervals[name][RANKED] for name in scores]
        words = ["" if math.isnan(low) else " [%.3f, %.3f]" % (low, high) for low, high in ends]
        numbers = ["%.4f" % result[RANKED] for result in scores.values()]
        table[columns[RANKED]] = [number + word for number, word in zip(numbers, words)]
    return table


def _range(interval: Any) -> str:
    """An interval as text, empty if there is none."""
    if interval is None or math.isnan(interval[0]):
        return ""
    return "%.3f to %.3f" % tuple(interval)


def _number(value: float, step: float) -> str:
    """A score with four decimals, or with those of its step."""
    return "%.*f" % (digits(step) if step else 4, value)


def _cell(number: str, interval: Any = None) -> str:
    words = _range(interval)
    return "<td>%s%s</td>" % (number, words and ' <span class="range">%s</span>' % words)


def _broken(name: str) -> str:
    """The name where a narrow column breaks it: at underscores, and not within "epsilon = 10".

    Screen readers, which must not hear of that, get the name itself.
    """
    return name.replace("_", "_<wbr>").replace(" = ", "&nbsp;=&nbsp;")


def _table(
    scores: Mapping[str, Mapping[str, Any]],
    intervals: Mapping[str, Any],
    labels: Mapping[str, str],
) -> str:
    """All numbers as an HTML table: metrics in rows, scenarios and their average in columns."""
    names = [escape(labels.get(name, str(name))) for name in scores]
    heads = '<th scope="col">Metric</th>%s<th scope="col">Average</th>' % "".join(
        '<th scope="col" aria-label="%s">%s</th>' % (name, _broken(name)) for name in names
    )
    rows, step = [], step_of(scores)
    for key, title in TITLES.items():
        cells = [
            _cell(_number(result[key], step), intervals.get(name, {}).get(key))
            for name, result in scores.items()
        ]
        mean = _number(average(scores, key), step)
        cells.append(_cell(mean, intervals.get(AVERAGE) if key == RANKED else None))
        kind = ' class="ranked"' if key == RANKED else ""
        rows.append('<tr%s><th scope="row">%s</th>%s</tr>' % (kind, title, "".join(cells)))
    below = ", with the 95% interval below each" if intervals else ""
    return (
        '<div class="wide" tabindex="0" role="region" aria-label="All scores">\n'
        '<table class="scores">\n<caption>All scores%s. Larger is better; the first row ranks.'
        "</caption>\n<thead><tr>%s</tr></thead>\n<tbody>\n%s\n</tbody>\n</table>\n</div>"
        % (below, heads, "\n".join(rows))
    )


def _points(curve: Curve, name: str, step: float) -> str:
    """The shown points of a curve as a table, from which the script reads them."""
    heads = ["FPR", "TPR"] + (["95% from", "to"] if curve.low else [])
    rows = []
    for i, (fpr, tpr) in enumerate(zip(curve.fpr, curve.tpr)):
        cells = _cell(_number(tpr, step if fpr in SCORED else 0.001))
        if curve.low:
            cells += "<td>%.3f</td><td>%.3f</td>" % (curve.low[i], curve.high[i])
        rows.append('<tr><th scope="row">%s</th>%s</tr>' % (percent(fpr), cells))
    return (
        "<details>\n<summary>The curve of %s as a table</summary>\n"
        '<table class="points">\n<caption>Best TPR below each FPR; rounded, but for the scores.'
        "</caption>\n<thead><tr>%s</tr></thead>\n<tbody>\n%s\n</tbody>\n</table>\n</details>"
        % (
            escape(name),
            "".join('<th scope="col">%s</th>' % head for head in heads),
            "\n".join(rows),
        )
    )


def _sentences(result: Mapping[str, Any], known: Mapping[str, Any]) -> List[str]:
    """A scenario's main numbers, and how much data they come from, if that is known."""
    words = _range(known.get(RANKED))
    step = result.get("step", 0.0)
    tpr, auc = (_number(result[key], step) for key in (RANKED, "AUC"))
    found = "%.*f%% of members found at 10%% FPR" % (max(0, len(tpr) - 4), 100 * result[RANKED])
    found += " (TPR %s%s)" % (tpr, words and ", 95% interval " + words)
    sentences = ["%s; AUC %s." % (found, auc)]
    if "models" in known:
        sentences.append(
            "From {models:,} models with {members:,} members and {nonmembers:,} "
            "non-members.".format(**known)
        )
        if interval_method(known.get("effective_models", known["models"])) == "t":
            sentences.append("The intervals are Student's t over so few models.")
    return sentences


def _section(
    number: int,
    name: str,
    label: str,
    result: Mapping[str, Any],
    known: Mapping[str, Any],
    ceilings: Ceilings,
) -> str:
    """The section of a scenario: main numbers, and the curve on both axes and as a table."""
    curve = shown_curve(result, known)
    sentences = _sentences(result, known)
    figures = []
    for axes in (Axes(), Axes(SHOWN_DECADE)):
        title = "ROC curve of %s on %s axes" % (label, axes.kind)
        identity = "roc%d-%s" % (number, axes.kind)
        picture = draw_roc(curve, result[RANKED], axes, title, sentences[0], identity, ceilings)
        caption = "%s axes" % axes.kind.capitalize()
        figures.append("<figure>%s<figcaption>%s</figcaption></figure>" % (picture, caption))
    parts = [
        '<section class="scenario">\n<h2>%s</h2>' % _heading(name, label),
        "<p>%s</p>" % " ".join(sentences),
        '<div class="plots">%s</div>' % "\n".join(figures),
        *_allowed(ceilings),
        '<div class="read"><label for="fpr%d">Read the curve: move along it, or set the false '
        "positive rate</label>" % number,
        '<input id="fpr%d" type="range" min="0" max="1" step="1">' % number,
        '<output for="fpr%d" aria-live="polite"></output></div>' % number,
        _points(curve, label, result.get("step", 0.0)),
        "</section>",
    ]
    return "\n".join(parts)


def _heading(name: str, label: str) -> str:
    """A scenario's label, followed by the name of its folder if that differs."""
    folder = "" if label == name else " <small>%s</small>" % escape(name)
    return escape(label) + folder


def _allowed(ceilings: Ceilings) -> List[str]:
    """An explanation of the lines above the curve, if there are any."""
    if not ceilings:
        return []
    words = "What differential privacy allows an attack at most, whatever else it knows:"
    return ["<p>%s</p>\n%s" % (words, ceiling_key(ceilings))]


def _note(scores: Mapping[str, Any], known: Mapping[str, Any], certain: bool) -> str:
    """How the intervals were made, or why there are none."""
    if not certain:
        return INTERVALS % UNKNOWN
    found = [known[name] for name in scores if name in known]
    counts = [one.get("effective_models", one.get("models", MANY)) for one in found]
    methods = {interval_method(count) for count in counts}
    return INTERVALS % (KNOWN + " ".join(BY_METHOD[key] for key in BY_METHOD if key in methods))


def _headline(scores: Mapping[str, Mapping[str, Any]], intervals: Mapping[str, Any]) -> str:
    """The number that determines the ranking, in a sentence."""
    number = _number(average(scores, RANKED), step_of(scores))
    words = _range(intervals.get(AVERAGE))
    return (
        '<p class="headline"><strong>%s</strong> <span>average TPR at 10%% FPR%s</span> '
        '<span class="note">(0.1 by guessing)</span></p>'
        % (number, words and ", 95% interval " + words)
    )


def generate_html(
    scores: Mapping[str, Mapping[str, Any]],
    intervals: Intervals = None,
    ceilings: Optional[Mapping[str, Ceilings]] = None,
    labels: Optional[Mapping[str, str]] = None,
    made: str = "",
) -> str:
    """Make a web page of all scores: a table of the numbers, and each scenario's ROC curve.

    Args:
        scores: scenario name -> the result of `score`, in the order of the page.  Names are
            escaped.
        intervals: the result of `intervals_of` for the same scenarios, at its default level and
            with `rates=curve.RATES`.  Without it the page has no intervals, and curves with fewer
            points, since the number of records is not known.  Coarse scores need none.
        ceilings: scenario name -> the limits that its privacy sets: name of the limit -> (false
            positive rates, TPRs), up to three; they are drawn over the scenario's curve.
        labels: scenario name -> its label; by default its name.  Labels are escaped.
        made: a line for the end of the page, such as the challenge, the date and versions; escaped.

    Returns:
        The page as text.  It fetches nothing, works without its script, follows the reader's
        light or dark setting, and stays below 300 kB for the three scenarios of a challenge.  It
        shows the exact or coarse scores that are given (coarse.py), and the part of the curve that
        `curve.py` allows.

    Raises:
        ValueError: `scores` is empty, or not of this form.

    >>> from mico_competition.scoring import score
    >>> page = generate_html({"hi": score([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])})
    >>> page[:15]
    '<!DOCTYPE html>'
    """
    _check_scores(scores)
    # Intervals come from the exact data, and would reveal what the steps of coarse scores hide.
    known: Mapping[str, Any] = {} if step_of(scores) else intervals or {}
    words = labels or {}
    certain = any(_range(known.get(name, {}).get(RANKED)) for name in scores)
    note = _note(scores, known, certain) if known else ""
    body = ["<h1>%s</h1>" % TITLE, _headline(scores, known), _table(scores, known, words)]
    if step_of(scores):
        body.append(COARSE % step_of(scores))
    body.append(LEGEND % (", in a band of 95% intervals, one at each FPR" if certain else ""))
    for number, (name, result) in enumerate(scores.items(), start=1):
        allowed = (ceilings or {}).get(name, {})
        label = words.get(name, str(name))
        body.append(_section(number, str(name), label, result, known.get(name, {}), allowed))
    body.append(GLOSSARY % note)
    return document(TITLE, "\n".join(body), made)


def generate_refusal(heading: str, faults: Sequence[str] = ()) -> str:
    """Make a web page that says why there are no scores; all text is escaped."""
    items = "\n".join("<li>%s</li>" % escape(fault) for fault in faults)
    body = ["<h1>Not scored</h1>", "<p>%s</p>" % escape(heading)]
    return document("Not scored", "\n".join(body + ["<ul>\n%s\n</ul>" % items] * bool(faults)))
