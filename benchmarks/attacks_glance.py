"""The opening of docs/ATTACKS.md: a table of gains, the nearest to real MICO first, and a picture.

The picture, docs/gains.svg, has the gain against the records for each weight of a model, a dot a
fleet, and marks where the datasets and models of 2022 lie.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from testbeds import TESTBEDS, Testbed

METRIC = "TPR_FPR_1000"


@dataclass(frozen=True)
class Shown:
    """One line of the table: a fleet, the attack of ours, and the modality of its data."""

    fleet: str
    attack: str
    modality: str
    epsilon: str

    @property
    def testbed(self) -> Testbed:
        """The test-bed of the fleet."""
        return testbed_of(self.fleet)

    @property
    def as_real(self) -> bool:
        """Whether there are as many records for each weight as in 2022."""
        return abs(math.log(self.testbed.ratio / REAL[self.modality])) < math.log(NEAR)


# Records of 2022's datasets for each weight of its models: 60,000 on 973,962; 197,324 on 89,828;
# 68,221 on 124,647,170.
REAL = {"images": 0.0616, "tables": 2.197, "text": 0.000547}
NEAR = 1.25  # factor within which a ratio counts as that of 2022
SHOWN = [
    Shown("full_inf", "best", "tables", "inf"),
    Shown("bundles_inf", "best", "tables", "inf"),
    Shown("C_inf", "best", "tables", "inf"),
    Shown("images_real_inf", "layers", "images", "inf"),
    Shown("short_inf_known", "layers", "text", "inf"),
    Shown("short_inf", "layers", "text", "inf"),
    Shown("A_inf", "best", "tables", "inf"),
    Shown("widebundles_inf", "best", "tables", "inf"),
    Shown("cancer_inf", "best", "tables", "inf"),
    Shown("images_wide_inf", "layers", "images", "inf"),
    Shown("cnn_inf", "layers", "images", "inf"),
    Shown("text_inf", "layers", "text", "inf"),
    Shown("full_hi", "best", "tables", "10"),
    Shown("full_lo", "best", "tables", "4"),
    Shown("full_lo_ddp", "best", "tables", "4"),
    Shown("bundles_hi", "best", "tables", "10"),
    Shown("widebundles_hi", "best", "tables", "10"),
    Shown("A_hi", "best", "tables", "10"),
    Shown("cancer_hi", "best", "tables", "10"),
    Shown("A_lo", "best", "tables", "4"),
    Shown("A_lo_ddp", "best", "tables", "4"),
    Shown("cancer_lo", "best", "tables", "4"),
    Shown("images_real_lo", "layers", "images", "4"),
    Shown("short_lo_known", "layers", "text", "4"),
]


def testbed_of(fleet: str) -> Testbed:
    """The test-bed whose name, the longest that fits, begins the fleet's."""
    names = [name for name in TESTBEDS if fleet == name or fleet.startswith(f"{name}_")]
    return TESTBEDS[max(names, key=len)]


def table(read: Callable, cell: Callable) -> tuple[str, list[tuple[Shown, float]]]:
    """The Markdown table, and the gain of each line on all records (or its points), in points.

    Args:
        read: (fleet, ending) -> the numbers of a fleet, or None.
        cell: (numbers, metric, gain) -> text.
    """
    lines = [
        "| fleet | data | records to a weight | epsilon | attack | winner's formula | ours | gain, "
        "all records | gain, challenge points | models; queries | models for 1 point | CPU s a "
        "model | code |",
        "|" + "---|" * 13,
    ]
    gains = []
    for shown in SHOWN:
        # With known members, some other records of each target are scored, too.
        ending = "" if shown.fleet.endswith("_ddp") else "_all"
        found = read(shown.fleet, ending)
        everywhere = _attack(found, shown.attack) is not None
        found = found if everywhere else read(shown.fleet, "")
        ours, base = _attack(found, shown.attack), _attack(found, "winner-best")
        if found is None or ours is None or base is None:
            continue
        gain = ours["gain"][METRIC]
        at_points = _at_challenge_points(read, shown, ours) if everywhere else gain
        cells = [
            f"**{shown.fleet}**" if shown.as_real else shown.fleet,
            "synthetic" if shown.testbed.synthetic else "real",
            f"{shown.testbed.ratio:.2g}",
            shown.epsilon,
            shown.attack,
            cell(base["metrics"][METRIC], METRIC),
            cell(ours["metrics"][METRIC], METRIC),
            cell(gain, METRIC, True) if everywhere else "",
            "" if at_points is None else cell(at_points, METRIC, True),
            f"{found['models']}; {found['members'] + found['nonmembers']:,}",
            "" if at_points is None else f"{_for_one_point(at_points, found['models']):,}",
            _cpu(ours),
            ours["commit"],
        ]
        lines.append(f"| {' | '.join(cells)} |")
        gains.append((shown, 100 * gain["value"]))
    return "\n".join(lines) + "\n", gains


def _for_one_point(gain: dict, models: int) -> int:
    """So many targets that half the interval of a gain at challenge points is 1 point."""
    half = 100 * (gain["high"] - gain["low"]) / 2
    return math.ceil(models * half**2)


def _attack(found: dict | None, name: str) -> dict | None:
    return next((a for a in found["attacks"] if a["name"] == name), None) if found else None


def _at_challenge_points(read: Callable, shown: Shown, ours: dict) -> dict | None:
    """The gain at the challenge points: of the same run, or of an older run on these alone."""
    points = ours.get("challenge_points")
    if points:
        return points["gain"][METRIC]
    if shown.fleet.endswith("_ddp"):
        return None
    alone = _attack(read(shown.fleet, ""), shown.attack)
    return alone["gain"][METRIC] if alone else None


def _cpu(attack: dict) -> str:
    """CPU seconds of an attack and its signals, for each shadow and target."""
    if "cpu_seconds" not in attack:
        return ""
    spent = attack["cpu_seconds"] + attack["signal_cpu_seconds"]
    return f"{spent / max(attack['models_used'], 1):.1f}"


WIDE, HIGH, LEFT, BOTTOM, TOP, RIGHT = 760, 380, 60, 60, 20, 110
COLOURS = {"tables": "#0b6e99", "images": "#b3541e", "text": "#4a7c2c"}
DECADES = (-4, 1)  # of records to a weight
MOST = 70.0  # points


def picture(gains: Sequence[tuple[Shown, float]]) -> str:
    """An SVG of the gains without privacy."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDE} {HIGH}" role="img" '
        'font-family="sans-serif" font-size="14">',
        "<title>Gain over the winner's best formula, without privacy, against records to a "
        "weight</title>",
        f'<rect width="{WIDE}" height="{HIGH}" fill="white"/>',
    ]
    for points in range(0, int(MOST) + 1, 10):
        y = _y(points)
        parts.append(f'<path d="M{LEFT} {y:.1f}H{WIDE - RIGHT}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 5:.1f}" text-anchor="end">{points}</text>')
    for power in range(DECADES[0], DECADES[1] + 1):
        x = _x(10.0**power)
        label = f"{10.0**power:g}"
        parts.append(f'<text x="{x:.1f}" y="{HIGH - 38}" text-anchor="middle">{label}</text>')
    parts.append(
        f'<text x="{(LEFT + WIDE - RIGHT) / 2:.0f}" y="{HIGH - 12}" text-anchor="middle">records '
        "for each weight of the model (dashed: real MICO)</text>"
    )
    parts.append(
        f'<text x="16" y="{(TOP + HIGH - BOTTOM) / 2:.0f}" text-anchor="middle" transform='
        f'"rotate(-90 16 {(TOP + HIGH - BOTTOM) / 2:.0f})">gain in points of TPR at 10 % FPR</text>'
    )
    for place, (modality, colour) in enumerate(COLOURS.items()):
        own = sorted(
            (shown.testbed.ratio, gain, shown.fleet.replace("_inf", ""))
            for shown, gain in gains
            if shown.modality == modality and shown.epsilon == "inf"
        )
        x = _x(REAL[modality])
        parts.append(
            f'<path d="M{x:.1f} {TOP}V{HIGH - BOTTOM}" stroke="{colour}" stroke-dasharray="5 4"/>'
        )
        parts += [
            f'<circle cx="{_x(ratio):.1f}" cy="{_y(gain):.1f}" r="4.5" fill="{colour}"/>'
            for ratio, gain, _ in own
        ]
        parts += _labels(own, colour)
        y = TOP + 20 + 24 * place
        parts.append(f'<text x="{WIDE - RIGHT + 16}" y="{y}" fill="{colour}">{modality}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _labels(own: Sequence[tuple[float, float, str]], colour: str) -> list[str]:
    """Names beside the dots of one modality, moved up where two would overlap."""
    parts, placed = [], []
    for ratio, gain, name in sorted(own, key=lambda dot: dot[1]):
        x, y = _x(ratio) + 8, _y(gain) + 4
        y = min([y, *(other - 13 for at, other in placed if abs(at - x) < 80 and other - y < 13)])
        placed.append((x, y))
        parts.append(f'<text x="{x:.1f}" y="{y:.1f}" font-size="12" fill="{colour}">{name}</text>')
    return parts


def _x(ratio: float) -> float:
    share = (math.log10(ratio) - DECADES[0]) / (DECADES[1] - DECADES[0])
    return LEFT + share * (WIDE - LEFT - RIGHT)


def _y(points: float) -> float:
    return HIGH - BOTTOM - points / MOST * (HIGH - BOTTOM - TOP)
