"""ROC curves of several attacks as a matplotlib figure, for a screen or for a paper."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import NoneType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mico_competition.audit.claims import PrivacyClaim
from mico_competition.audit.limits import DRAWN, max_tpr, tpr_limits
from mico_competition.audit.tradeoff import dp_tpr, gdp_tpr
from mico_competition.evaluation.measure import REPORTED, Measured
from mico_competition.support.files import PathLike, written_aside
from mico_competition.training.accounting import Mechanism

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Scale = Literal["both", "linear", "log"]
Curves = Mapping[str, tuple[Any, Any]]
Limits = Mechanism | PrivacyClaim | Curves

SCALES: Mapping[str, tuple[str, ...]] = {
    "both": ("linear", "log"),
    "linear": ("linear",),
    "log": ("log",),
}
WIDTHS = {"single": 3.5, "double": 7.16}
"""Inches of a paper's columns: one of two, and both."""

SCREEN = 9.0
NARROW = 5.0  # inches below which two pictures stand one above the other
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""The palette of Okabe and Ito, "Color Universal Design" (2008), without yellow, which is too pale
for lines, and without black, which is that of limits."""

STYLES: tuple[Any, ...] = ("-", "--", "-.", (0, (1, 1)), (0, (5, 1, 1, 1, 1, 1)))
LIMIT_STYLES = ("-", "--", ":", "-.")
RESOLVED = 5  # non-members
_SPACES = {"handlelength": 2.2, "handletextpad": 0.5, "columnspacing": 1.2}
"""Of the legend, in sizes of its type."""

SMALLEST_DECADE, LARGEST_DECADE = -6, -2


def limit_curves(
    limits: Limits | None = None,
    *,
    epsilon: float | None = None,
    delta: float = 1e-5,
    mu: float | None = None,
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The lines of limits: label -> (false positive rates, the largest TPR there).

    Raises:
        ValueError: on a number out of range, on curves of different lengths.
    """
    found: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    rates = np.union1d(np.geomspace(1e-6, DRAWN[0], 10), DRAWN)
    if isinstance(limits, PrivacyClaim):
        label, (fpr, tpr) = list(tpr_limits(limits, rates).items())[-1]
        found[f"limit at ε = {limits.epsilon:.3g} ({label})"] = fpr, tpr
    elif isinstance(limits, Mechanism):
        found["limit of the mechanism"] = rates, max_tpr(limits, rates)
    elif not isinstance(limits, (Mapping, NoneType)):
        raise ValueError(
            "Expected limits as a Mechanism, a PrivacyClaim, or label -> (false positive rates, "
            f"true positive rates), got {type(limits).__name__}: for an epsilon, pass epsilon=."
        )
    else:
        for label, (fpr, tpr) in (limits or {}).items():
            fpr, tpr = np.asarray(fpr, dtype=float), np.asarray(tpr, dtype=float)
            if fpr.ndim != 1 or fpr.shape != tpr.shape:
                raise ValueError(
                    f"Expected limits[{label!r}] to be two flat arrays of one length, false and "
                    f"true positive rates, got shapes {fpr.shape} and {tpr.shape}."
                )
            found[label] = fpr, tpr
    if epsilon is not None:
        turn = (1 - delta) / (1 + math.exp(min(epsilon, 700)))  # where the two lines meet
        rates = np.union1d(rates, turn)
        label = f"limit at ε = {epsilon:g}, δ = {_short(delta)}"
        found[label] = rates, dp_tpr(epsilon, delta, rates)
    if mu is not None:
        found[f"limit of {mu:g}-Gaussian DP"] = rates, gdp_tpr(mu, rates)
    return found


def _short(number: float) -> str:
    """A small number as a text: 1e-5, not 1e-05."""
    return f"{number:g}".replace("e-0", "e-")


def plot_roc(
    attacks: Mapping[str, Measured],
    *,
    ax: Axes | Sequence[Axes] | None = None,
    scale: Scale = "both",
    bands: bool = True,
    limits: Curves | None = None,
    width: str | float | None = None,
    file: PathLike | None = None,
) -> Figure:
    """Draw the ROC curves; see `Results.plot`."""
    if scale not in SCALES:
        raise ValueError(f"Expected scale={scale!r} to be one of {', '.join(SCALES)}.")
    plt = _pyplot()
    with plt.rc_context(_settings(width)):
        panels = _panels(plt, ax, len(SCALES[scale]), _inches(width))
        smallest = min(10.0 ** _decade(found) for found in attacks.values())
        for axes, kind in zip(panels, SCALES[scale]):
            start = smallest if kind == "log" else 0.0
            for place, (name, found) in enumerate(attacks.items()):
                _curve(axes, name, found, place, start, bands)
            _limits(axes, limits or {}, start)
            _frame(axes, start)
        figure: Figure = panels[0].get_figure(root=True)
        _legend(figure, panels, own=ax is None)
        if file is not None:
            with written_aside(file) as temporary:
                figure.savefig(temporary, format=_format(file), dpi=300)
    if ax is None and "inline" in plt.get_backend():
        plt.close(figure)  # a notebook shows the figure that a cell returns, and open ones again
    return figure


def _pyplot() -> Any:
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError("plot needs matplotlib: pip install matplotlib") from error
    return plt


def _format(file: PathLike) -> str:
    name = str(file)
    return name.rpartition(".")[2].lower() if "." in name.rpartition("/")[2] else "png"


def _inches(width: str | float | None) -> float:
    if width is None:
        return SCREEN
    if isinstance(width, str):
        if width not in WIDTHS:
            raise ValueError(
                f"Expected width={width!r} to be one of {', '.join(WIDTHS)}, or a number of inches."
            )
        return WIDTHS[width]
    if not 1 <= width <= 40:
        raise ValueError(f"Expected width={width} in [1, 40] inches.")
    return float(width)


def _settings(width: str | float | None) -> dict[str, Any]:
    """Sizes of type and lines; text in vector files stays text."""
    size = 10 if width is None else 8
    return {
        "font.size": size,
        "axes.labelsize": size,
        "axes.titlesize": size,
        "xtick.labelsize": size - 1,
        "ytick.labelsize": size - 1,
        "legend.fontsize": size - 1,
        "axes.linewidth": 0.8 if width is None else 0.6,
        "lines.linewidth": 1.8 if width is None else 1.3,
        "pdf.fonttype": 42,
        "svg.fonttype": "none",
    }


def _panels(plt: Any, ax: Any, count: int, inches: float) -> list[Any]:
    """The axes to draw in: those given, or those of a new figure."""
    if ax is not None:
        given = list(np.ravel(np.asarray(ax, dtype=object)))
        if len(given) != count:
            raise ValueError(
                f"Expected ax to hold {count} matplotlib axes, one for each scale, got "
                f'{len(given)}: pass scale="linear" or scale="log" to draw in one.'
            )
        return given
    across = 1 if inches < NARROW else count
    down = count // across
    side = inches / max(across, 1)
    if count == 1 and inches >= NARROW:
        side = min(side, NARROW)
    size = (side * across, side * down * 0.96 + 0.45)
    _, axes = plt.subplots(down, across, figsize=size, layout="constrained", squeeze=False)
    return list(axes.ravel())


def _decade(found: Measured) -> int:
    """The decade at which logarithmic axes begin, near the share of one non-member."""
    share = math.floor(math.log10(1 / found.nonmembers) + 0.3)
    return min(max(share, SMALLEST_DECADE), LARGEST_DECADE)


def _curve(axes: Any, name: str, found: Measured, place: int, start: float, bands: bool) -> None:
    """One attack's curve with its band, from false positive rate `start` on."""
    colour, style = COLOURS[place % len(COLOURS)], STYLES[place % len(STYLES)]
    rates, low, high = band(found, start)
    if bands and rates.size:
        low, high = np.maximum(low, start), np.maximum(high, start)
        axes.fill_between(rates, low, high, color=colour, alpha=0.18, linewidth=0)
    first = int(np.searchsorted(found.fpr, start, side="right")) - 1 if start else 0
    axes.plot(
        np.maximum(found.fpr[first:], start),
        np.maximum(found.tpr[first:], start),
        color=colour,
        linestyle=style,
        drawstyle="steps-post" if start else "default",
        label=name,
        zorder=3,
    )


def band(found: Measured, start: float = 0.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rates from `start` on, and the ends of the TPR's interval at each.

    The ends are those of `AttackResult.tpr` and of the tables.  Each interval is computed by
    itself, so an end may fall where the TPR cannot.  A band begins where five non-members are
    accepted, or at the least rate of the tables that one non-member resolves.
    """
    one = 1 / found.nonmembers
    least = max(start, min([RESOLVED * one, *(rate for rate in REPORTED if rate >= one)]))
    known = sorted(
        (rate, *ends)
        for rate, ends in found.bands.items()
        if rate >= least and not math.isnan(ends[0])
    )
    rates, low, high = np.array([*known, (1.0, 1.0, 1.0)] if known else known).reshape(-1, 3).T
    return rates, low, high


def _limits(axes: Any, limits: Curves, start: float) -> None:
    """A line for each limit, and a shade above the lowest of them."""
    least = None
    for place, (label, (fpr, tpr)) in enumerate(limits.items()):
        fpr, tpr = np.asarray(fpr, dtype=float), np.asarray(tpr, dtype=float)
        shown = fpr >= start
        at, most = fpr[shown], np.maximum(tpr[shown], start)
        style = LIMIT_STYLES[place % len(LIMIT_STYLES)]
        axes.plot(at, most, color="black", linestyle=style, linewidth=1.1, label=label, zorder=4)
        least = (at, most) if least is None else least
    if least is not None and len(limits) == 1:
        axes.fill_between(*least, 1.0, color="black", alpha=0.06, linewidth=0, zorder=0)


def _frame(axes: Any, start: float) -> None:
    """Chance, the ranges and names of the axes, and a grid."""
    chance = np.geomspace(start, 1, 50) if start else np.array([0.0, 1.0])
    axes.plot(chance, chance, color="0.5", linewidth=1, linestyle=(0, (2, 2)), label="guessing")
    axes.set(xlabel="False positive rate", ylabel="True positive rate")
    if start:
        axes.set(xscale="log", yscale="log", xlim=(start, 1), ylim=(start, 1))
    else:
        axes.set(xlim=(0, 1), ylim=(0, 1))
    axes.set_aspect("equal")
    axes.grid(alpha=0.25, linewidth=0.5)


def _legend(figure: Any, panels: Sequence[Any], own: bool) -> None:
    """One legend: below the panels of a figure of ours, else in the first of the given axes."""
    handles, names = panels[0].get_legend_handles_labels()
    if not own:
        panels[0].legend(handles, names, frameon=False, loc="lower right")
        return
    size = float(panels[0].xaxis.label.get_size()) - 1
    # In points, of the longest name with its line, and the distance to the next.
    entry = size * (0.52 * max(map(len, names)) + sum(_SPACES.values()))
    columns = max(1, int(72 * figure.get_size_inches()[0] / entry))
    rows = math.ceil(len(names) / columns)
    columns = math.ceil(len(names) / rows)
    place = "outside lower center"
    figure.legend(handles, names, loc=place, ncols=columns, frameon=False, **_SPACES)
