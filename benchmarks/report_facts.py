"""Sentences' numbers of the technical report that combine several results."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import mean

import attacks_glance as glance
import attacks_page as page
import report_figures as figures
import report_numbers as numbers
import report_tables as tables

WIDE = ("A_inf", "A_hi", "A_lo")


class Outdated(ValueError):
    """A sentence of the report that docs/results does not support any more."""


def holds(sentence: str, condition: bool) -> str:
    """Nothing, if what the text says in words is so; else `Outdated`, which names the sentence."""
    if not condition:
        raise Outdated(
            f"docs/results does not support this any more: {sentence}. Rewrite the paragraph in "
            "docs/results/report that says so."
        )
    return ""


def span(found: Sequence[float], digits: int = 1) -> str:
    """The least and the largest, as "a to b"."""
    low, high = f"{min(found):.{digits}f}", f"{max(found):.{digits}f}"
    return low if low == high else f"{low} to {high}"


def _which(fleet: str, which: str | None) -> str | None:
    return numbers.ours(fleet) if which == "ours" else which


def least_gains(which: str | None) -> str:
    """The gains that 50 models show, over the fleets of the figure."""
    return span([numbers.least_gain(f, _which(f, which)) for f in figures.POWER])


def least(which: str | None) -> float:
    """The least of these."""
    return min(numbers.least_gain(f, _which(f, which)) for f in figures.POWER)


def span_models(fleets: Sequence[str]) -> str:
    """The numbers of models attacked."""
    return span([numbers.models(fleet) for fleet in fleets], 0)


def fewer(which: str) -> str:
    """How many times fewer models a paired comparison needs."""
    counts = [numbers.needed(f) / numbers.needed(f, _which(f, which)) for f in figures.POWER]
    return span(counts)


def narrower(fleets: Sequence[str]) -> str:
    """How many times narrower a gain's interval is on all records."""
    pairs = [
        [numbers.gain(f, numbers.ours(f), points=points).half for points in ("challenge", "all")]
        for f in fleets
    ]
    return span([one / other for one, other in pairs], 0)


def average_half(bed: str, which: str) -> str:
    """Half the interval of the average over three independent scenarios, in points."""
    halves = [
        numbers.tpr(f"{bed}_{k}", which, points="challenge").half for k in ("inf", "hi", "lo")
    ]
    return f"{math.sqrt(sum(half**2 for half in halves)) / 3:.1f}"


def most_private(fleets: Sequence[str]) -> float:
    """The largest gain under privacy on all records, in points."""
    private = [fleet for fleet in fleets if not fleet.endswith("_inf")]
    return max(100 * numbers.gain(f, numbers.ours(f)).value for f in private)


def millions() -> str:
    """Records of 50 models of a scenario of 2022, in millions."""
    return span([50 * task.len_dataset / 1e6 for task in numbers.TASKS.values()][:3], 0)


def overlap(one: numbers.Rate, other: numbers.Rate) -> bool:
    """Whether two intervals have a part in common."""
    return one.low <= other.high and other.low <= one.high


def half_lost() -> bool:
    """Whether private digits and images have about half the accuracy of those without privacy."""
    digits = {row["scenario"]: row["accuracy"] for row in numbers.value("demo.json", "rows")}
    found = numbers.value("cifar10.json", "scenarios")
    images = [mean(found[f"cifar10_{k}"]["evaluation_accuracy"]) for k in ("inf", "lo")]
    return max(digits["digits_lo"] / digits["digits_inf"], images[1] / images[0]) < 0.5


def coverage(metric: str) -> str:
    """How often intervals over 12 models held, in the worlds without rare models."""
    rows = [
        row for row in numbers.value("interval_coverage.json", "rows") if row["models"] == 12
    ]  # fmt: skip
    return f"{span([100 * row[metric] for row in rows if 'far worse' not in row['world']])} %"


def worst_coverage(metric: str) -> float:
    """The least coverage where one model in five is far worse hit."""
    rows = numbers.value("interval_coverage.json", "rows")
    return min(row[metric] for row in rows if "far worse" in row["world"] and row["models"] > 5)


def most_black_box(fleet: str) -> str:
    """The largest gain of a formula on outputs at challenge points."""
    formulas = ("lira-online", "lira-online-global", "rmia", "quantile", "bavaria", "eb")
    found = [numbers.gain(fleet, name, points="challenge") for name in formulas]
    return max(found, key=lambda gain: gain.numbers["value"]).bare


def newer() -> str:
    """Gains of newer attacks over all levels of both tables."""
    names = ("rmia", "quantile", "bavaria")
    gains = [
        100 * numbers.gain(f, name, points="challenge").numbers["value"]
        for f in tables.COLUMNS
        for name in names
    ]
    return f"{min(gains):.1f} and +{max(gains):.1f}"


def few(fleet: str, shadows: int) -> str:
    """The gain of empirical Bayes with so many shadow models."""
    rows = numbers.value("attacks_few.json", fleet)
    row = next(row for row in rows if row["shadows"] == shadows)
    return page.cell({**row, "value": row["gain"]}, page.FIRST, gain=True)


def entry_counts(what: str) -> str:
    """`models` or `shadows` of the fleets of docs/results/entries_2023.json."""
    found = numbers.value("entries_2023.json", "fleets")
    return span([row[what] for row in found.values()], 0)


def entry_commits() -> str:
    """The commits of the code that measured these fleets."""
    found = numbers.value("entries_2023.json", "fleets").values()
    return " and ".join(sorted({row["commit"] for row in found}))


def shadows_of(fleets: Sequence[str], attack: str = "winner-best") -> str:
    """Shadow models of fleets whose runs name the models they used."""
    found = [
        numbers.attack(fleet, attack)["models_used"] - numbers.models(fleet) for fleet in fleets
    ]
    return span(found, 0)


def times(one: float, other: float) -> str:
    """How many times as large, rounded."""
    return f"{one / other:.0f}"


def ratio_of(fleet: str) -> float:
    """Records to a weight, as a number."""
    return glance.testbed_of(fleet).ratio


def all_gain() -> bool:
    """Whether the white-box attack gains on every fleet of its table."""
    return all(numbers.gain(f, numbers.ours(f)).numbers["low"] > 0 for f in tables.WHITE_BOX)


def decode_cost(what: str) -> float:
    """CPU seconds a full-size model: of one decode, or of all that plain training takes."""
    rows = numbers.value("decode_cost.json", "rows")
    row = max(rows, key=lambda row: row["records"])
    parts = ("traces", "Adam's steps", "final gradients") if what == "plain" else (what,)
    return float(sum(row[part] for part in parts))


def memory() -> str:
    """Gigabytes of the largest decode."""
    return f"{max(row['memory_gb'] for row in numbers.value('decode_cost.json', 'rows')):.1f}"


def oracle(bed: str, key: str) -> float:
    """What a decode that knows more finds, in percent."""
    row = next((row for row in numbers.read("table_oracle.json") if row["bed"] == bed), None)
    if row is None or key not in row:
        raise numbers.Missing(f"docs/results/table_oracle.json has no {key!r} of {bed!r}.")
    return float(row[key])


def headroom(bed: str) -> float:
    """Points between the best detector and the outputs."""
    return oracle(bed, "start and trajectory known, outputs") - oracle(bed, "outputs")


def image_oracle() -> str:
    """The best ridge's TPR on a private CNN, in percent."""
    (row,) = numbers.read("image_oracle.json")
    return f"{100 * max(rate for key, rate in row.items() if key.startswith('joint')):.1f}"


def gap(fleet: str) -> str:
    """Points between the mechanism's limit and the best attack."""
    found = numbers.tpr(fleet, numbers.ours(fleet)).numbers["value"]
    most = numbers.value("tpr_limits.json", "fleets", fleet, "exact")
    return f"{100 * (most - found):.0f}"


def all_below_limits() -> bool:
    """Whether every attack's interval ends below the limit of the fleet's mechanism."""
    return all(
        numbers.tpr(f, numbers.ours(f)).numbers["high"]
        < numbers.value("tpr_limits.json", "fleets", f, "exact")
        for f in tables.LIMITED
    )


def removed(fleet: str, private: str) -> float:
    """The share that privacy removes of what the attack finds above guessing."""
    before, after = (
        numbers.tpr(f, numbers.ours(f)).numbers["value"] - 0.1 for f in (fleet, private)
    )
    return float(1 - after / before)


def accuracy_fall() -> str:
    """Points of accuracy that full-size tables lose from no privacy to epsilon 4."""
    scenarios = numbers.value("purchase100.json", "scenarios")
    public, private = (
        mean(scenarios[f"purchase100_{kind}"]["evaluation_accuracy"]) for kind in ("inf", "lo")
    )
    return f"{100 * (public - private):.1f}"


def wrong_labels() -> int:
    """Labels that the attacks on the scores had wrong."""
    rows = numbers.value("score_oracle.json", "attacks").values()
    return sum(row["wrong"] for row in rows)


def submissions(how: str) -> float:
    """Submissions until all labels are known."""
    return mean(numbers.value("score_oracle.json", "attacks", how, "submissions"))


def labels_after(how: str, count: str) -> str:
    """Labels known after so many submissions."""
    return f"{mean(numbers.value('score_oracle.json', 'attacks', how, 'known', count)):,.0f}"


def seed_hours() -> float:
    """Hours of one core for all seeds."""
    return 2**32 * numbers.value("entries_2023.json", "seeds", "microseconds") / 3.6e9


def least_joint() -> float:
    """The least distance of all models' splits together."""
    fleets = numbers.value("entries_2023.json", "fleets").values()
    return min(found["joint"] for row in fleets for found in row["search"].values())


def found_by(fleet: str, attack: str) -> float:
    """The probability that an attack's scores find a seed among all."""
    return float(numbers.value("entries_2023.json", "fleets", fleet, "search", attack, "found"))


def most_found(fleets: Sequence[str]) -> float:
    """The largest probability that scores of any attack find a seed among all."""
    searches = [numbers.value("entries_2023.json", "fleets", f, "search") for f in fleets]
    return max(row["found"] for found in searches for row in found.values())


def hostile() -> list[float]:
    """Hostile submissions: how many, how many as expected, and the slowest in seconds."""
    rows = numbers.read("hostile.json")
    return [len(rows), sum(r["as_expected"] for r in rows), max(r["seconds"] for r in rows)]


def missed() -> str:
    """The goals that were missed, in a sentence."""
    rows, count = [], 0
    for line in page.bars().splitlines():
        cells = [cell.strip() for cell in line.strip("| ").split(" | ")]
        if cells[-1] in ("yes", "**no**"):
            count += 1
            if cells[-1] != "yes":
                goal = cells[6].replace("+ ", "+").replace("above", "any gain")
                rows.append(f"`{cells[0]}` ({cells[5]}; the goal was {goal})")
    return f"Of {count}, {len(rows)} were missed: {', '.join(rows)}."
