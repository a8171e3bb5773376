"""Numbers of docs/results in the words of the technical report; `report_page.py` uses them.

A template names a fleet, an attack or a file's keys, and gets text. Whatever is not in
docs/results raises `Missing`, whose sentence names the file, the key and what there is instead.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from statistics import NormalDist, mean
from typing import Any

import attacks_glance as glance
import attacks_page as page

from mico_competition.competition.table import SCENARIOS, TASKS

RESULTS = Path(__file__).resolve().parent.parent / "docs" / "results"
KEYS = {"10": "TPR_FPR_1000", "1": "TPR_FPR_100", "0.1": "TPR_FPR_10", "AUC": "AUC"}
LEVEL, POWER = 0.95, 0.8
PUBLISHED = 50  # models of a phase in 2022
Numbers = Mapping[str, Any]


class Missing(LookupError):
    """A number that the report names and docs/results does not have."""


class Rate:
    """A number with its interval: of a rate in percent, of an AUC as it is."""

    def __init__(self, numbers: Numbers, metric: str = KEYS["10"], gain: bool = False) -> None:
        self.numbers, self.metric, self.gain = numbers, metric, gain

    def __str__(self) -> str:
        text = page.cell(dict(self.numbers), self.metric, self.gain)
        return text if self.gain or self.metric == "AUC" else text.replace(" [", " % [")

    @property
    def bare(self) -> str:
        """Without the sign of percent, for a table's cell."""
        return page.cell(dict(self.numbers), self.metric, self.gain)

    @property
    def alone(self) -> str:
        """Without the interval."""
        return self.bare.split(" [")[0]

    @property
    def value(self) -> float:
        """As a number: of a rate, a share."""
        return float(self.numbers["value"])

    @property
    def low(self) -> float:
        """The interval's lower end."""
        return float(self.numbers["low"])

    @property
    def high(self) -> float:
        """The interval's upper end."""
        return float(self.numbers["high"])

    @property
    def half(self) -> float:
        """Half of the interval, in points."""
        return 100 * float(self.numbers["high"] - self.numbers["low"]) / 2


@cache
def read(name: str) -> Any:
    """A file of docs/results."""
    path = RESULTS / name
    if not path.is_file():
        raise Missing(f"The report reads docs/results/{name}, and there is no such file.")
    return json.loads(path.read_text(encoding="utf-8"))


def value(name: str, *keys: str | int) -> Any:
    """What a file of docs/results holds under these keys."""
    found = read(name)
    for place, key in enumerate(keys):
        try:
            found = found[key]
        except (KeyError, IndexError, TypeError):
            there = list(found) if isinstance(found, Mapping) else f"{len(found)} entries"
            before = " > ".join(map(str, keys[:place])) or "at its top"
            raise Missing(
                f"The report names {key!r} of docs/results/{name} ({before}); there: {there}."
            ) from None
    return found


@cache
def fleet(name: str, points: str = "all") -> dict[str, Any]:
    """All attacks of a fleet; its `points` are "all" records or the "challenge" points.

    The distinguisher's fleets have files of one kind only, and it is taken.
    """
    ending = "" if points == "challenge" or name.endswith("_ddp") else "_all"
    found = page.read(name, ending)
    if found is None:
        raise Missing(
            f"The report names the fleet {name!r} ({points} points), and docs/results/attacks has "
            f"no {name}{ending}-*.json."
        )
    return found


def attack(name: str, which: str, points: str = "all") -> dict[str, Any]:
    """The numbers of an attack on a fleet.

    Challenge points are those of the run on all records if that has them, else of a run of its own.
    """
    if points == "challenge":
        everywhere = page.read(name, "_all")
        one = page.attack_of(everywhere, which)
        if one is not None and "challenge_points" in one:
            return {**one, **one["challenge_points"]}
    found = fleet(name, points)
    one = page.attack_of(found, which)
    if one is None:
        names = [each["name"] for each in found["attacks"]]
        raise Missing(
            f"The report names the attack {which!r} on the fleet {name!r} ({points} points); "
            f"docs/results/attacks has: {names}."
        )
    return one


def tpr(name: str, which: str, at: str = "10", points: str = "all") -> Rate:
    """The TPR of an attack at a FPR in percent, or its AUC."""
    return Rate(attack(name, which, points)["metrics"][KEYS[at]], KEYS[at])


def gain(name: str, which: str, at: str = "10", points: str = "all") -> Rate:
    """The gain over the winner's best formula, paired over models, in points."""
    numbers = attack(name, which, points)["gain"]
    if not numbers:
        raise Missing(f"{which} on {name} has no gain: it is what gains are over.")
    return Rate(numbers[KEYS[at]], KEYS[at], gain=True)


def ours(name: str) -> str:
    """The attack of ours that fits the models of a fleet."""
    return next((s.attack for s in glance.SHOWN if s.fleet == name), "best")


def models(name: str, points: str = "all") -> int:
    """The number of models attacked."""
    return int(fleet(name, points)["models"])


def needed(name: str, which: str | None = None, points: float = 1.0) -> int:
    """Targets of 200 challenge points each that show a gain of so many points.

    With so many, a test at 5 % sees it with a probability of 80 %, if errors shrink with the square
    root of their number. `which` against the winner's formula, paired; without it, two scores
    that are compared by their own intervals.
    """
    if which is None:
        half = math.sqrt(2) * tpr(name, "winner-best", points="challenge").half
        count = models(name, _measured_at(name, "winner-best"))
    else:
        half = gain(name, which, points="challenge").half
        count = models(name, _measured_at(name, which))
    normal = NormalDist()
    sure = normal.inv_cdf((1 + LEVEL) / 2)
    return math.ceil(count * (half / sure * (sure + normal.inv_cdf(POWER)) / points) ** 2)


def _measured_at(name: str, which: str) -> str:
    """Which run has the attack's challenge points."""
    one = page.attack_of(page.read(name, "_all"), which)
    return "all" if one is not None and "challenge_points" in one else "challenge"


def least_gain(name: str, which: str | None = None, count: int = PUBLISHED) -> float:
    """The gain in points that so many targets show with a probability of 80 %."""
    return math.sqrt(needed(name, which) / count)


def ratio(name: str) -> str:
    """Records of a fleet's dataset for each weight of its models."""
    return f"{glance.testbed_of(name).ratio:.2g}"


def design(task: str) -> dict[str, Any]:
    """A row of 2022's table: records, training, challenge, and OUT models among 100."""
    row = TASKS.get(task)
    if row is None:
        raise Missing(f"The report names the task {task!r}; the competition has {list(TASKS)}.")
    out = 100 * (1 - row.len_training / row.len_dataset)
    return {
        "records": f"{row.len_dataset:,}",
        "training": f"{row.len_training:,}",
        "challenge": 2 * row.len_challenge,
        "share": f"{100 - out:.0f}",
        "out": f"{out:.1f}" if out < 10 else f"{out:.0f}",
    }


def private_settings(scenario: str) -> Any:
    """A row of the table of scenarios."""
    if scenario not in SCENARIOS:
        raise Missing(f"The report names the scenario {scenario!r}, which the competition lacks.")
    return SCENARIOS[scenario]


def limit(name: str, kind: str = "exact") -> str:
    """The largest TPR at 10 % FPR that a fleet's mechanism permits, in percent."""
    return f"{100 * value('tpr_limits.json', 'fleets', name, kind):.1f} %"


def entry(name: str, which: str, part: str = "attacks") -> Rate:
    """A number of docs/results/entries_2023.json: of `attacks`, `gains` or `costs`."""
    numbers = value("entries_2023.json", "fleets", name, part, which)
    return Rate(numbers, gain=part != "attacks")


def audit(name: str) -> dict[str, Any]:
    """An audit of docs/results/audits."""
    found = value(f"audits/{name}.json")
    return found[0] if isinstance(found, list) else found


def average(numbers: Sequence[float]) -> float:
    """The mean."""
    return mean(numbers)


def thousands(number: float) -> str:
    """An integer with commas."""
    return f"{number:,.0f}"


def percent(share: float, digits: int = 1) -> str:
    """A share in percent."""
    return f"{100 * share:.{digits}f} %"


def fixed(number: float, digits: int = 1) -> str:
    """So many decimals."""
    return f"{number + 0.0:.{digits}f}"


def bound(name: str, method: str) -> str:
    """A lower bound on epsilon of an audit; of a trainer's, from its gradient canaries."""
    found = audit(name)
    found = found.get("audits", [found])[0]
    bounds = [b for b in found["bounds"] if b["method"] == method and b.get("worst_case", True)]
    if not bounds:
        if method == "own curve":  # points in final models have none
            return "-"
        raise Missing(f"The audit {name!r} of docs/results/audits has no bound {method!r}.")
    return f"{bounds[0]['epsilon']:.2f}"


def replacing(name: str) -> str:
    """The epsilon of the audited models where a record is replaced by another."""
    return f"{audit(name)['promised']['replace_one']:.2f}"


def claimed(name: str) -> str:
    """The epsilon that the audited models, or the trainer, claim."""
    found = audit(name)
    return f"{found.get('audits', [found])[0]['promised']['epsilon']:.2f}"


def alarm(package: str, which: str, mechanism: str) -> str:
    """The false alarms of a package's bound."""
    for row in value("peers.json", "bounds"):
        if (row["package"], row["bound"]) == (package, which):
            share = row["mechanisms"][mechanism]["false alarms"]
            ends = [100 * share[key] for key in ("value", "low", "high")]
            return "{:.1f} % [{:.1f}, {:.1f}]".format(*ends)
    raise Missing(f"docs/results/peers.json has no bound {which!r} of {package!r}.")
