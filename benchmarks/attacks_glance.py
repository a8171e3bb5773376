"""The opening of docs/ATTACKS.md: a table of gains, the nearest to real MICO first."""

from __future__ import annotations

import math
from collections.abc import Callable
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


def table(read: Callable, cell: Callable) -> str:
    """The Markdown table.

    Args:
        read: (fleet, ending) -> the numbers of a fleet, or None.
        cell: (numbers, metric, gain) -> text.
    """
    lines = [
        "| fleet | data | records to a weight | epsilon | attack | winner's formula | ours | gain, "
        "all records | gain, challenge points | models; queries | models for ±1 point | CPU s a "
        "model | code |",
        "|" + "---|" * 13,
    ]
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
    return "\n".join(lines) + "\n"


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
