#!/usr/bin/env python3
"""The TPR that each private fleet's mechanism permits: docs/results/tpr_limits.json (two minutes).

    python benchmarks/tpr_limits.py

computes the three limits of docs/METHODS.md, sections 8.1 to 8.3, at 10 % FPR, from the noise,
sampling rate and number of steps with which `benchmarks/attack_fleets.py` trains.
"""

from __future__ import annotations

import json
import math
from importlib.metadata import version
from typing import Any

from testbeds import BEDS, ROOT, TESTBEDS

from mico_competition.audit.limits import gaussian_mu, max_tpr
from mico_competition.audit.tradeoff import dp_tpr, gdp_tpr
from mico_competition.competition.table import use
from mico_competition.support.progress import tracked
from mico_competition.training.accounting import Mechanism
from mico_competition.training.settings import resolve

OUT = ROOT / "docs/results/tpr_limits.json"
FPR = 0.1
# fleet: test-bed, scenario, and n where the fleet has another than the scenario
FLEETS: dict[str, tuple[str, str, int | None]] = {
    "full_hi": ("full", "purchase100_hi", None),
    "full_lo": ("full", "purchase100_lo", None),
    "A_hi": ("A", "purchase100_hi", 15_000),
    "A_lo": ("A", "purchase100_lo", 15_000),
    "bundles_hi": ("bundles", "bundles_hi", None),
    "widebundles_hi": ("widebundles", "widebundles_hi", None),
    "cancer_hi": ("cancer", "cancer_hi", None),
    "cancer_lo": ("cancer", "cancer_lo", None),
    "images_real_lo": ("images_real_lo", "images_real_lo", None),
    "short_lo_known": ("short", "short_lo", None),
    "digits_hi": ("digits", "digits_hi", None),
    "digits_lo": ("digits", "digits_lo", None),
    "cifar10_hi": ("", "cifar10_hi", None),
    "cifar10_lo": ("", "cifar10_lo", None),
    "sst2_hi": ("", "sst2_hi", None),
    "sst2_lo": ("", "sst2_lo", None),
}


def main() -> None:
    """Write the file."""
    rows = {name: limits(*where) for name, where in tracked(list(FLEETS.items()), "Limits", "row")}
    software = {name: version(name) for name in ("opacus", "dp_accounting")}
    found = {"fpr": FPR, "software": software, "fleets": rows}
    OUT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def limits(testbed: str, scenario: str, len_training: int | None) -> dict[str, Any]:
    """The mechanism of one fleet, its epsilon, and the TPR that each limit permits at `FPR`."""
    competition = TESTBEDS[testbed].competition if testbed else ""
    use(BEDS / competition if competition else None)
    settings = resolve({"scenario": scenario, "len_training": len_training})
    mechanism = Mechanism.for_target(
        target_epsilon=settings.target_epsilon,
        target_delta=settings.target_delta,
        sample_rate=settings.sample_rate,
        num_steps=settings.num_steps,
    )
    epsilon, delta = mechanism.epsilon(settings.target_delta), settings.target_delta
    return {
        "n": settings.len_training,
        "noise_multiplier": round(mechanism.noise_multiplier, 4),
        "sample_rate": mechanism.sample_rate,
        "num_steps": mechanism.num_steps,
        "epsilon": round(epsilon, 4),
        "pair": rounded_up(float(dp_tpr(epsilon, delta, FPR))),
        "gaussian": rounded_up(float(gdp_tpr(gaussian_mu(mechanism), FPR))),
        "exact": rounded_up(float(max_tpr(mechanism, FPR))),
    }


def rounded_up(rate: float) -> float:
    """Four decimals of an upper bound, still an upper bound."""
    return min(math.ceil(rate * 1e4) / 1e4, 1.0)


if __name__ == "__main__":
    main()
