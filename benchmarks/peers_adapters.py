"""What each peer is asked, in the environment in which it is installed (see peers.py).

    python benchmarks/peers_adapters.py NAME FOUND.json ARRAYS.npz [ARRAYS.npz ...]

reads the arrays that every peer gets, one file a seed, and writes scores of attacks, lower bounds
on epsilon, and the seconds of CPU time that they took.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from typing import Any

import numpy as np
import peers_attacks
import peers_auditors
from peers_auditors import Arrays

ADAPTERS = {
    f.__name__: f
    for f in (
        peers_auditors.ours,
        peers_auditors.jax_privacy,
        peers_auditors.opake,
        peers_attacks.paper,
        peers_attacks.privacyguard,
        peers_attacks.art,
        peers_attacks.tensorflow_privacy,
        peers_attacks.privacy_meter,
    )
}
SHARES = {
    ("jax_privacy", "one-run f-DP"): 0.2,
    ("opake", "one-run f-DP"): 0.06,
    ("privacyguard", "threshold (Clopper-Pearson)"): 0.2,
}
"""Slow bounds get this share of the runs, but for those of `CLOSE`."""
CLOSE = {("privacyguard", "threshold (Clopper-Pearson)"): "Laplace, epsilon 2"}
"""Where the false alarms are so near what is allowed that a share of the runs cannot tell."""


def holds(bound: str, mechanism: str) -> bool:
    """Whether a bound says anything of a mechanism: some assume a family."""
    if bound in ("Gaussian", "one-run f-DP"):
        return mechanism.startswith(("no", "Gauss"))
    return bound != "threshold, pure epsilon" or not mechanism.startswith("Gauss")


def bounds_of(name: str, kind: str, bound: Any, a: Arrays) -> tuple[dict[str, Any], list[float]]:
    """Bounds by mechanism, and the seconds of each call."""
    found: dict[str, list[float]] = {}
    taken = []
    for mechanism in map(str, a["mechanisms"]):
        if not holds(kind, mechanism):
            continue
        rows = list(zip(a[f"{mechanism}_truth"], a[f"{mechanism}_scores"]))
        if CLOSE.get((name, kind)) != mechanism:
            rows = rows[: max(2, round(len(rows) * SHARES.get((name, kind), 1)))]
        found[mechanism] = []
        for truth, values in rows:
            start = time.process_time()
            found[mechanism].append(bound(truth, values.astype(float)))
            taken.append(time.process_time() - start)
    return found, taken


def main(name: str, out: str, *files: str) -> None:
    """Ask one peer everything that it can do, seed by seed."""
    warnings.simplefilter("ignore")
    scores: dict[str, np.ndarray] = {}
    seconds: dict[str, list[float]] = {}
    epsilons: dict[str, dict[str, list[float]]] = {}
    for index, file in enumerate(files):
        a = dict(np.load(file))
        attacks, bounds = ADAPTERS[name](a)
        for kind, attack in attacks.items():
            start = time.process_time()
            found = attack()
            seconds.setdefault(kind, []).append(time.process_time() - start)
            scores |= {f"{index}/{one}": values for one, values in found.items()}
        for kind, bound in bounds.items():
            by_mechanism, taken = bounds_of(name, kind, bound, a)
            seconds.setdefault(kind, []).extend(taken)
            for mechanism, values in by_mechanism.items():
                epsilons.setdefault(kind, {}).setdefault(mechanism, []).extend(values)
        print(f"{name}: {file}", flush=True)
    np.savez(f"{out}.npz", **scores)
    medians = {kind: float(np.median(taken)) for kind, taken in seconds.items()}
    with open(out, "w", encoding="utf-8") as stream:
        json.dump({"seconds": medians, "epsilons": epsilons}, stream)


if __name__ == "__main__":
    main(*sys.argv[1:])
