"""The tables of the technical report, in Markdown, from docs/results."""

from __future__ import annotations

from statistics import mean
from typing import Any

import attacks_glance as glance
import attacks_page as page
import report_figures as figures
import report_numbers as numbers
from markdown_tables import table
from testbeds import TESTBEDS

FLEETS = ("full_inf", "bundles_inf", "C_inf", "A_inf", "widebundles_inf", "cancer_inf")
FLEETS += ("images_real_inf", "images_wide_inf", "cnn_inf", "short_inf", "text_inf", "digits_inf")
TITLES = {
    "full": "Purchase-shaped, 600 features",
    "bundles": "second generator, 240 features",
    "C": "baskets, 240 features",
    "A": "wide: Purchase-shaped, 600 features",
    "widebundles": "wide: second generator, 600 features",
    "cancer": "scikit-learn's breast cancer",
    "images_real": "CIFAR-10, narrow CNN",
    "images_wide": "CIFAR-10, narrow CNN, wide head",
    "cnn": "CIFAR-10, 2022's CNN",
    "short": "SST-2, RoBERTa 2 x 128",
    "text": "SST-2, RoBERTa 2 x 128",
    "digits": "scikit-learn's digits, MLP",
}
COLUMNS = ("A_inf", "A_hi", "A_lo", "C_inf", "C_hi")
ENTRIES = (
    *("winner-2023", "first-principles-sent", "first-principles", "fleshman", "threshold"),
    *("lira-online", "lira-online-global", "rmia", "quantile", "bavaria", "eb"),
    *("neural", "stack", "query-stack", "trace", "joint", "best"),
)
MEASURED = ("digits_inf", "digits_hi", "digits_lo", "bundles_inf", "bundles_hi")
WHITE_BOX = ("full_inf", "bundles_inf", "C_inf", "images_real_inf", "short_inf", "A_inf")
WHITE_BOX += ("widebundles_inf", "images_wide_inf", "cancer_inf")
LIMITED = ("full_hi", "bundles_hi", "widebundles_hi", "A_hi", "full_lo", "images_real_lo")
LIMITED += ("short_lo_known", "A_lo")
OF_2022 = ("cifar10_hi", "sst2_hi", "cifar10_lo", "sst2_lo")
ORACLE = ("outputs", "the attack's, outputs", "neither known, outputs", "start known, outputs")
ORACLE += ("trajectory known, outputs", "start and trajectory known, outputs")


def bold(fleet: str) -> str:
    """A fleet's name, in bold where its ratio is nearly that of 2022."""
    shown = next((s for s in glance.SHOWN if s.fleet == fleet), None)
    return f"**{fleet}**" if shown is not None and shown.as_real else fleet


def table_fleets() -> str:
    """What was trained and attacked."""
    rows = []
    for fleet in FLEETS:
        bed = glance.testbed_of(fleet)
        name = fleet.removesuffix("_inf")
        n = bed.title.split("n = ")[1].split()[0].rstrip(",:;.")
        found = numbers.fleet(fleet, "challenge" if fleet in ("cnn_inf", "text_inf") else "all")
        used = [one["models_used"] for one in found["attacks"] if "models_used" in one]
        shadows = max(used, default=0) - found["models"]
        apart = found["phase"] == "dev" and shadows > 0
        rows.append([
            f"{bold(fleet).replace('_inf', '')}", TITLES[name], f"{bed.size[0]:,}", n,
            f"{bed.size[1]:,}", numbers.ratio(fleet), "synthetic" if bed.synthetic else "real",
            str(found["models"]), str(shadows) if apart else _usual(fleet, found),
        ])  # fmt: skip
    heads = ["fleet", "records and model", "N", "n", "weights", "ratio", "data", "targets"]
    return table([*heads, "shadows"], rows)


def _usual(fleet: str, found: dict[str, Any]) -> str:
    """Shadow models where a run does not say: all train models, or four of five folds."""
    if found["phase"] == "train":
        return "others"
    first, last = (int(end) for end in TESTBEDS[fleet.removesuffix("_inf")].models.split("-"))
    return str(last - first + 1 - found["models"])


def table_power() -> str:
    """What 50 models show, and what there is to show."""
    rows = []
    for fleet in figures.POWER:
        ours = numbers.ours(fleet)
        least = [f"{numbers.least_gain(fleet, which):.1f}" for which in (None, ours, "eb")]
        found = [numbers.gain(fleet, ours, points=points).bare for points in ("challenge", "all")]
        rows.append([bold(fleet), *least, *found])
    heads = ["fleet", "two teams", "white box, paired", "similar formula, paired"]
    return table([*heads, "gain, challenge points", "gain, all records"], rows)


def table_entries() -> str:
    """Gains of entries and later attacks at challenge points."""
    rows = [["the best of his six formulas, TPR"]]
    rows[0] += [numbers.tpr(f, "winner-best", points="challenge").bare for f in COLUMNS]
    for name in ENTRIES:
        cells = []
        for fleet in COLUMNS:
            found = page.attack_of(numbers.fleet(fleet, "challenge"), name)
            cells.append(
                "-" if found is None else numbers.gain(fleet, name, points="challenge").bare
            )
        white = numbers.attack("A_inf", name, "challenge")["white_box"]
        rows.append([f"**{name}**" if white else name, *cells])
    return table(["attack", *(f"{fleet}" for fleet in COLUMNS)], rows)


def table_mistakes() -> str:
    """What mistakes cost, and entries beside the best formula."""
    mistakes = {
        "lookup by place": "records looked up in the wrong list",
        "formula": "winner's formula for the scenario, not the best",
        "scaling, fleshman": "scaled by model: difference of confidences",
        "scaling, winner-2023": "scaled by model: the winner's scores",
        "scaling, eb": "scaled by model: log likelihood ratios",
    }
    rows = [
        [words, *(numbers.entry(f, key, "costs").bare for f in MEASURED)]
        for key, words in mistakes.items()
    ]
    best = [
        numbers.entry(f, numbers.value("entries_2023.json", "fleets", f, "best formula")).bare
        for f in MEASURED
    ]
    rows.append(["*TPR of the best formula*", *best])
    names = ("first-principles-sent", "first-principles", "fleshman", "suri", "eb", "trace", "best")
    for name in names:
        rows.append([f"*gain of* {name}"])
        for fleet in MEASURED:  # of each, one white-box attack was run
            there = name in numbers.value("entries_2023.json", "fleets", fleet, "gains")
            optional = name in ("trace", "best") and not there
            rows[-1].append("-" if optional else numbers.entry(fleet, name, "gains").bare)
    return table(["mistake", *MEASURED], rows)


def table_white_box() -> str:
    """Gains without privacy."""
    rows = []
    for fleet in WHITE_BOX:
        ours = numbers.ours(fleet)
        rates = [numbers.tpr(fleet, name).bare for name in ("winner-best", ours)]
        more = [numbers.gain(fleet, ours).bare, numbers.gain(fleet, ours, "1").bare]
        rows.append([bold(fleet), numbers.ratio(fleet), *rates, *more])
    heads = ["fleet", "records to a weight", "winner's formula", "ours", "gain at 10 % FPR"]
    return table([*heads, "gain at 1 % FPR"], rows)


def table_oracle() -> str:
    """Decodes that know more than an attacker."""
    heads = ["scenario", "outputs", "the attack's kernel", "neither known", "start known"]
    heads += ["trajectory known", "both known"]
    rows = []
    for row in numbers.read("table_oracle.json"):
        if "outputs" in row:
            rows.append([row["bed"], *(f"{row[key]:.1f}" for key in ORACLE)])
    return table(heads, rows)


def table_limits() -> str:
    """Attacks and the limits of their mechanisms."""
    heads = ["fleet", "winner's formula", "ours", "limit of the mechanism", "Gaussian DP"]
    rows = []
    for fleet in LIMITED:
        rates = [numbers.tpr(fleet, name).bare for name in ("winner-best", numbers.ours(fleet))]
        rows.append([bold(fleet), *rates, *_limits(fleet)])
    rows += [[f"*{scenario} of 2022*", "-", "-", *_limits(scenario)] for scenario in OF_2022]
    return table([*heads, "epsilon, delta"], rows)


def _limits(fleet: str) -> list[str]:
    return [numbers.limit(fleet, kind).removesuffix(" %") for kind in ("exact", "gaussian", "pair")]


def table_accuracy() -> str:
    """Accuracy by privacy."""
    rows = []
    for task, title in {
        "purchase100": "Tables, Purchase-shaped",
        "cifar10": "CIFAR-10, 2022's CNN",
        "sst2": "SST-2, RoBERTa 2 x 128, not pretrained",
    }.items():
        scenarios = numbers.value(f"{task}.json", "scenarios")
        cells = []
        for kind in ("inf", "hi", "lo"):
            found = scenarios.get(f"{task}_{kind}")
            cells.append("-" if found is None else f"{mean(found['evaluation_accuracy']):.3f}")
        count = scenarios[f"{task}_inf"]
        rows.append([title, f"{count['n']:,}", *cells, str(count["models"])])
    demo = numbers.value("demo.json", "rows")
    rows.append(["Digits, MLP", "120", *(f"{row['accuracy']:.3f}" for row in demo)])
    rows[-1].append(str(numbers.value("demo.json", "models")))
    return table(["data and model", "n", "no privacy", "epsilon 10", "epsilon 4", "models"], rows)


def table_audits() -> str:
    """Lower bounds on epsilon from points and from canaries."""
    rows = []
    for name in ("purchase100_lo", "cifar10_lo", "sst2_lo", "digits_lo", "digits_hi"):
        found = numbers.audit(name)
        what = f"{found['points']:,} points, {found['models']} models, `{found['attack']}`"
        rows.append([name, what, *_bounds(name)])
    for name in ("train_purchase100_lo", "train_purchase100_hi", "train_digits_lo"):
        found = numbers.audit(name)
        found = found.get("audits", [found])[0]
        canaries = f"{found['gradient_canaries']['all']:,} gradient canaries"
        rows.append([found["scenario"], canaries, *_bounds(name)])
    heads = ["scenario", "scores", "one-run", "one-run f-DP", "own curve", "claimed"]
    return table(heads, rows)


def _bounds(name: str) -> list[str]:
    methods = ("one-run", "one-run f-DP", "own curve")
    return [*(numbers.bound(name, method) for method in methods), numbers.claimed(name)]


def table_score_oracle() -> str:
    """Labels that submissions reveal."""
    rows = []
    for name, row in numbers.value("score_oracle.json", "attacks").items():
        cells = [f"{mean(row['known'][count]):,.0f}" for count in ("100", "1000")]
        rows.append([name, *cells, f"{mean(row['submissions']):,.0f}"])
    return table(["scores shown with", "after 100", "after 1,000", "submissions for all"], rows)


def table_seeds() -> str:
    """How well scores single out the true split."""
    rows = []
    for fleet in MEASURED:
        for name, found in numbers.value("entries_2023.json", "fleets", fleet, "search").items():
            middle, low, high = found["z"]
            shares = [f"{100 * found[key]:.0f} %" for key in ("first", "found")]
            rows.append([fleet, name, f"{middle:.1f} ({low:.1f} to {high:.1f})", *shares])
            rows[-1].append(f"{found['joint']:.0f}")
    heads = ["fleet", "scores of", "distance", "first of those tried", "first of 2^32"]
    return table([*heads, "all models together"], rows)
