"""The figures of the technical report, and README's picture, from docs/results."""

from __future__ import annotations

from collections.abc import Sequence

import attacks_glance as glance
import report_numbers as numbers
from svg_drawing import RADIUS, Axis, Drawing

WIDTH, NARROW = 500, 440
NAMES = {
    "full": "Tables, full size",
    "bundles": "Tables, second generator",
    "C": "Baskets",
    "A": "Wide tables",
    "widebundles": "Wide tables, second",
    "images_real": "CIFAR-10 images, CNN",
    "images_wide": "CIFAR-10 images, wide head",
    "short": "SST-2 text, RoBERTa",
    "digits": "Digits",
    "cancer": "Breast cancer",
}
"""What a reader calls the fleets."""

PRIVACY = {"inf": "No privacy", "hi": "Epsilon 10", "lo": "Epsilon 4"}
SHAPES = {"tables": ("circle", "blue"), "images": ("square", "rust"), "text": ("triangle", "green")}
POWER = ("full_inf", "bundles_inf", "images_real_inf", "short_inf", "full_hi", "bundles_hi")
POWER += ("full_lo", "images_real_lo")
COMPARED = {
    "kit and entries of 2023": (
        *("threshold", "fleshman", "first-principles-sent", "first-principles", "winner-2023"),
    ),
    "later, black box": ("lira-online", "rmia", "bavaria", "eb", "stack", "query-stack"),
    "white box": ("trace", "joint", "best"),
}
"""What the figure of entries shows, by kind; the threshold is the starting kit's."""

PRIVATE = (
    *("full_inf", "bundles_inf", "C_inf", "images_real_inf", "short_inf"),
    *("full_hi", "bundles_hi", "widebundles_hi", "full_lo", "images_real_lo", "short_lo_known"),
)
HEADS = ("Training records found, of 100,", "if 10 of 100 other records may be accused")
PLAIN = {
    "Tables, full size": "Tables (synthetic)",
    "CIFAR-10 images, CNN": "Images (CIFAR-10)",
    "SST-2 text, RoBERTa": "Sentences (SST-2)",
}
FOUND = ("short_inf_known", "images_real_inf", "full_inf", "full_hi")
FOUND += ("short_lo_known", "images_real_lo", "full_lo")


def name_of(fleet: str) -> str:
    """A fleet's name for readers, without its privacy."""
    bed = fleet.removesuffix("_known").rsplit("_", 1)[0]
    return NAMES[bed.removesuffix("_lo")]


def privacy_of(fleet: str) -> str:
    """inf, hi or lo."""
    return fleet.removesuffix("_known").removesuffix("_ddp").rsplit("_", 1)[1]


def power() -> str:
    """How many models show a gain of one point."""
    kinds = (
        ("two teams, each with its own interval", "diamond", "ink", None),
        ("a white-box attack, paired with the winner's", "circle", "rust", "ours"),
        ("a similar formula (empirical Bayes), paired", "triangle", "blue", "eb"),
    )
    top, step = 106, 26
    bottom = top + step * len(POWER) + 30 * 3
    out = Drawing(
        WIDTH, bottom + 48, "Models of 200 challenge points that show a gain of one point, by fleet"
    )
    for row, (words, shape, colour, _) in enumerate(kinds):
        out.mark(14, 20 + 24 * row, colour, shape)
        out.text(28, 25 + 24 * row, words, "small")
    axis = Axis(20, 2000, 206, WIDTH - 26, logarithmic=True)
    axis.draw(out, (20, 50, 100, 200, 500, 1000), top - 16, bottom)
    x = axis.at(numbers.PUBLISHED)
    out.line(x, top - 16, x, bottom, "s-wall", 'stroke-width="2" stroke-dasharray="6 4"')
    out.text(x + 6, top - 4, "as many as 2022 had", "small wall")
    out.text(
        (206 + WIDTH - 26) / 2, bottom + 38, "models for a gain of 1 point", "small soft", "middle"
    )
    y, last = top, ""
    for fleet in POWER:
        kind = privacy_of(fleet)
        if kind != last:
            y, last = y + 30, kind
            out.text(8, y - 3, PRIVACY[kind], "small strong soft")
        y += step - 5
        out.text(8, y + 5, name_of(fleet))
        for _, shape, colour, which in kinds:
            attack = numbers.ours(fleet) if which == "ours" else which
            out.mark(axis.at(numbers.needed(fleet, attack)), y, colour, shape)
        y += 5
    return out.svg()


def entries() -> str:
    """Entries and later attacks beside the best of the winner's formulas, at two levels."""
    kinds = {
        "kit and entries of 2023": ("diamond", "rust"),
        "later, black box": ("triangle", "blue"),
    }
    kinds["white box"] = ("circle", "green")
    top, step = 74, 23
    rows = [(name, kind) for kind, names in COMPARED.items() for name in names]
    bottom = top + step * len(rows)
    out = Drawing(WIDTH, bottom + 48, "Gains of attacks over the best of the winner's formulas")
    for place, (words, (shape, colour)) in enumerate(kinds.items()):
        out.mark((14, 198, 346)[place], 18, colour, shape)
        out.text((26, 210, 358)[place], 23, words, "small")
    panels = (
        ("A_inf", "no privacy", Axis(-50, 30, 160, 316), (-40, -20, 0, 20)),
        ("A_hi", "epsilon 10", Axis(-10, 10, 336, WIDTH - 14), (-10, -5, 0, 5, 10)),
    )
    for fleet, words, axis, ticks in panels:
        out.text((axis.left + axis.right) / 2, top - 22, words, "small strong soft", "middle")
        axis.draw(out, ticks, top - 14, bottom)
        out.line(axis.at(0), top - 14, axis.at(0), bottom, "s-soft", 'stroke-width="1.5"')
        for row, (name, kind) in enumerate(rows):
            gain, y = numbers.gain(fleet, name, points="challenge"), top + step * (row + 0.5) - 4
            out.whisker(axis.at(100 * gain.low), axis.at(100 * gain.high), y, kinds[kind][1])
            out.mark(axis.at(100 * gain.value), y, *reversed(kinds[kind]))
    for row, (name, _) in enumerate(rows):
        out.text(8, top + step * (row + 0.5) + 1, name, "small")
    words = "gain in points of TPR at 10 % FPR (two scales)"
    out.text((160 + WIDTH - 14) / 2, bottom + 38, words, "small soft", "middle")
    return out.svg()


def weights() -> str:
    """The gain against the records for each weight."""
    left, right, top, bottom = 48, WIDTH - 20, 84, 420
    out = Drawing(WIDTH, bottom + 56, "Gain over the winner's formula against records to a weight")
    axis = Axis(3e-4, 6, left, right, logarithmic=True)
    for place, (modality, (shape, colour)) in enumerate(SHAPES.items()):
        out.mark(14 + 92 * place, 20, colour, shape)
        out.text(26 + 92 * place, 25, modality, "small")
    out.mark(306, 20, "ink", "circle", full=False)
    out.text(318, 25, "hollow: epsilon 10 or 4", "small")
    out.text(8, 52, "gain in points of TPR at 10 % FPR", "small soft")
    axis.draw(out, (0.001, 0.01, 0.1, 1), top, bottom)
    for points in range(0, 71, 10):
        y = _height(points, top, bottom)
        out.line(left, y, right, y, "grid")
        out.text(left - 8, y + 5, f"{points}", "small soft", "end")
    out.text(
        (left + right) / 2,
        bottom + 38,
        "records of the dataset for each weight of the model",
        "small soft",
        "middle",
    )
    for modality, (_, colour) in SHAPES.items():
        x = axis.at(glance.REAL[modality])
        out.line(x, top, x, bottom, f"s-{colour}", 'stroke-width="1.5" stroke-dasharray="5 4"')
        out.text(
            x + (4 if modality == "text" else -4),
            top - 6,
            f"2022's {modality}",
            f"small {colour}",
            "start" if modality == "text" else "end",
        )
    dots = []
    for shown in glance.SHOWN:
        if shown.fleet.endswith(("_ddp", "inf_known")):
            continue
        points = "challenge" if shown.fleet in ("cnn_inf", "text_inf") else "all"
        gain = numbers.gain(shown.fleet, shown.attack, points=points).numbers
        dots.append((shown, axis.at(shown.testbed.ratio), gain))
    for shown, x, gain in sorted(dots, key=lambda dot: dot[0].epsilon == "inf"):
        shape, colour = SHAPES[shown.modality]
        ends = [_height(100 * gain[end], top, bottom) for end in ("low", "high")]
        out.line(x, ends[0], x, ends[1], f"s-{colour}", 'stroke-width="2"')
        out.mark(
            x, _height(100 * gain["value"], top, bottom), colour, shape, shown.epsilon == "inf"
        )
    _labels(out, [dot for dot in dots if dot[0].epsilon == "inf"], top, bottom)
    return out.svg()


def _labels(out: Drawing, dots: Sequence[tuple], top: float, bottom: float) -> None:
    """Names beside the dots without privacy, left of the right-most and moved up off each other."""
    last = {True: bottom + 20, False: bottom + 20}
    for shown, x, gain in sorted(dots, key=lambda dot: dot[2]["value"]):
        far = shown.testbed.ratio > 1
        y = _height(100 * gain["value"], top, bottom) + 4
        if shown.modality == "tables":
            y = last[far] = min(y, last[far] - 14)
        name = shown.fleet.removesuffix("_inf")
        out.text(x + (-10 if far else 10), y, name, "small soft", "end" if far else "start")


def _height(points: float, top: float, bottom: float, most: float = 70.0) -> float:
    return bottom - points / most * (bottom - top)


def epsilon() -> str:
    """What attacks find at each level of privacy, and what the mechanism permits."""
    return _found(PRIVATE, "Members that attacks find at 10 % FPR, by privacy, with the limits")


def readme() -> str:
    """README's picture: the fleets most like 2022's, in the words of a stranger."""
    return _found(FOUND, " ".join(HEADS), HEADS, plain=True)


def _found(
    fleets: Sequence[str], title: str, heads: Sequence[str] = (), plain: bool = False
) -> str:
    """Rows of fleets: the winner of 2023, ours, and the limit of the mechanism."""
    width = NARROW if plain else WIDTH
    left, right, step = 154 if plain else 206, width - 22, 28
    top = 70 + 26 * len(heads)
    kinds = len({privacy_of(fleet) for fleet in fleets})
    bottom = top + step * (len(fleets) + kinds) + 4
    out = Drawing(width, bottom + 30, title)
    for row, words in enumerate(heads):
        out.text(8, 24 + 22 * row, words, "large strong" if row == 0 else "soft")
    _key(out, top - 46)
    axis = Axis(0, 80, left, right)
    axis.draw(out, range(0, 81, 20), top - 4, bottom, "" if plain else " %")
    x = axis.at(10)
    out.line(x, top - 4, x, bottom, "s-soft", 'stroke-width="2" stroke-dasharray="3 3"')
    y, last = top - 12, ""
    for fleet in fleets:
        kind = privacy_of(fleet)
        if kind != last:
            y, last = y + step, kind
            out.text(8, y + 5, PRIVACY[kind], "strong soft")
        y += step
        name = name_of(fleet)
        out.text(8, y + 5, PLAIN.get(name, name) if plain else name)
        _row(out, axis, fleet, y, plain)
    return out.svg()


def _key(out: Drawing, y: float) -> None:
    """What the marks of `_found` mean, in two lines."""
    for x, shape, colour, words in (
        (14, "diamond", "rust", "winner of 2023"),
        (184, "circle", "blue", "best attack here"),
    ):
        out.mark(x, y, colour, shape)
        out.text(x + 12, y + 5, words, "small")
    out.line(14, y + 16, 14, y + 32, "s-wall", 'stroke-width="4"')
    out.text(26, y + 29, "most that privacy permits", "small")
    out.line(226, y + 17, 226, y + 31, "s-soft", 'stroke-width="2" stroke-dasharray="3 3"')
    out.text(238, y + 29, "guessing", "small")


def _row(out: Drawing, axis: Axis, fleet: str, y: float, counted: bool) -> None:
    """The marks of one fleet, with their numbers if wanted."""
    winner = numbers.tpr(fleet, "winner-best")
    found = numbers.tpr(fleet, numbers.ours(fleet))
    places = [axis.at(100 * one.value) for one in (winner, found)]
    # Marks that would cover each other stand at two heights.
    apart = 5 if places[1] - places[0] < 2 * RADIUS else 0
    out.line(places[0], y - apart, places[1], y + apart, "s-soft", 'stroke-width="2"')
    if privacy_of(fleet) != "inf":
        share = numbers.value("tpr_limits.json", "fleets", fleet, "exact")
        most = axis.at(100 * share)
        out.line(most, y - 10, most, y + 10, "s-wall", 'stroke-width="4"')
        if counted:
            out.text(most + 8, y + 5, f"{100 * share:.0f}", "small wall")
    for one, place, height, shape, colour in zip(
        (winner, found), places, (y - apart, y + apart), ("diamond", "circle"), ("rust", "blue")
    ):
        out.whisker(axis.at(100 * one.low), axis.at(100 * one.high), height, colour)
        out.mark(place, height, colour, shape)
    if counted:
        far = max(places[1] + RADIUS, axis.at(100 * found.high))
        out.text(far + 6, y + 5, f"{100 * found.value:.0f}", "small strong")
        left = min(places[0] - RADIUS, axis.at(100 * winner.low))
        out.text(left - 4, y + 5, f"{100 * winner.value:.0f}", "small halo", "end")


def alt(name: str) -> str:
    """The words that stand for a figure where it is not seen."""
    return FIGURES[name]().split("<title>")[1].split("</title>")[0]


FIGURES = {"power": power, "entries": entries, "weights": weights, "epsilon": epsilon}
