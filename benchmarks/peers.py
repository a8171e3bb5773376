#!/usr/bin/env python3
"""Other packages on the same arrays: docs/results/peers.json; then peers_page.py writes the page.

    python benchmarks/peers.py [--work runs/peers] [--runs 200] [--seeds 5]

installs each peer from the package index into an environment of its own below --work, which sees
this environment's packages, so that torch is not installed again.  For each seed it trains 40 small
models on scikit-learn's digits, lets every peer attack eight of them with the others as shadow
models, and lets every auditor bound epsilon for mechanisms whose epsilon is known.  A bound above
the truth is a false alarm, of which 5 % are allowed.  It takes 20 minutes of CPU time and 2 GB of
disk (1 GB is TensorFlow).  Arrays and answers that are in --work are kept; remove the folder to
start again.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "docs/results/peers.json"
sys.path.insert(0, str(Path(__file__).resolve().parent))

from audit_false_alarms import gaussian, laplace, response  # noqa: E402
from peers_auditors import DELTA, LEVEL  # noqa: E402
from peers_install import PEERS, environment, install, last_line, usable  # noqa: E402

# Name -> scores of one run, epsilon, points.
MECHANISMS = {
    "no signal": (lambda rng, truth: rng.normal(size=truth.size), 0.0, 1000),
    "Gaussian, epsilon 1": (gaussian(1.0), 1.0, 1000),
    "Gaussian, epsilon 4": (gaussian(4.0), 4.0, 300),
    "Laplace, epsilon 2": (laplace(2.0), 2.0, 1000),
    "randomised response, epsilon 1": (response(1.0), 1.0, 1000),
}
TARGETS, SHADOWS = 8, 32


def fleet(seed: int) -> dict[str, np.ndarray]:
    """Outputs of 40 models for all 1,797 digits, and who was trained on what."""
    import torch

    from mico_competition import ChallengeDataset, load_digits, load_model
    from mico_competition.competition.splits import derive_seeds
    from mico_competition.competition.table import SCENARIOS
    from mico_competition.training.settings import resolve
    from mico_competition.training.train_many import Run, train_many

    data, settings = load_digits(), resolve({"scenario": "digits_inf"})
    task = SCENARIOS["digits_inf"].task
    torch.set_num_threads(1)
    everybody = data.inputs(range(len(data)))
    outputs, member = [], []
    with tempfile.TemporaryDirectory() as folder:
        count = TARGETS + SHADOWS
        seeds = [derive_seeds(1 + count * seed + i) for i in range(count)]
        runs = [Run(s, Path(folder, f"model_{i}"), i) for i, s in enumerate(seeds)]
        list(train_many(settings, data, runs, progress=False))
        for run in runs:
            n, m = settings.len_training, settings.len_challenge
            splits = ChallengeDataset(data, n, m, *vars(run.seeds).values())
            mask = np.zeros(len(data), dtype=bool)
            mask[splits.train_indices.numpy()] = True
            member.append(mask)
            with torch.no_grad():
                outputs.append(load_model(task, run.folder)(everybody).double().numpy())
    return arrays(np.array(outputs), np.array(member), data.labels.numpy())


def arrays(logits: np.ndarray, member: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """What every attack gets: targets first, records with two shadows of each kind or more."""
    shadows = member[TARGETS:].sum(axis=0)
    kept = (shadows >= 2) & (shadows <= SHADOWS - 2)
    logits, member, labels = logits[:, kept], member[:, kept], labels[kept]
    shifted = logits - logits.max(axis=2, keepdims=True)
    p = np.exp(shifted) / np.exp(shifted).sum(axis=2, keepdims=True)
    own = np.take_along_axis(p, labels[None, :, None], axis=2)[:, :, 0]
    others = np.where(np.arange(p.shape[2]) == labels[:, None], 0.0, p).sum(axis=2)
    scaled = np.log(own + 1e-45) - np.log(others + 1e-45)  # Carlini et al.'s stable logit
    found = {"labels": labels, "member": member[TARGETS:], "truth": member[:TARGETS]}
    for name, values in (("logit", scaled), ("p", own), ("outputs", p)):
        found |= {f"target_{name}": values[:TARGETS], f"shadow_{name}": values[TARGETS:]}
    return found


def audits(runs: int, seed: int) -> dict[str, np.ndarray]:
    """Truth and scores of so many runs of every mechanism."""
    found: dict[str, np.ndarray] = {"mechanisms": np.array(list(MECHANISMS))}
    rng = np.random.default_rng(seed)
    for name, (scores, _, points) in MECHANISMS.items():
        truth = rng.random((runs, points)) < 0.5
        found[f"{name}_truth"] = truth
        found[f"{name}_scores"] = np.array([scores(rng, row) for row in truth])
    return found


def ask(python: str, adapter: str, given: list[Path], work: Path) -> dict[str, Any]:
    """What one adapter finds, in its own process and environment."""
    out = work / f"{adapter}.json"
    if not out.exists():
        command = [python, ROOT / "benchmarks/peers_adapters.py", adapter, out, *given]
        done = subprocess.run(
            list(map(str, command)), env=environment(), stderr=subprocess.PIPE, text=True
        )
        if done.returncode:
            return {"error": last_line(done.stderr)}
    found: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    found["scores"] = {}
    for name, values in np.load(f"{out}.npz").items():
        seed, kind = name.split("/", 1)
        found["scores"].setdefault(kind, {})[int(seed)] = values
    return found


def measured(values: list[float] | np.ndarray) -> dict[str, Any]:
    """Mean, number and a 95 % interval by Student's t."""
    from scipy.stats import t

    mean, n = float(np.mean(values)), len(values)
    half = float(t.ppf(0.975, n - 1) * np.std(values, ddof=1) / np.sqrt(n))
    return {"n": n, "value": mean, "low": mean - half, "high": mean + half}


def share(hits: np.ndarray) -> dict[str, Any]:
    """The share of hits, their number and the 95 % interval of Clopper and Pearson."""
    from scipy.stats import binomtest

    k, n = int(hits.sum()), len(hits)
    low, high = binomtest(k, n).proportion_ci(0.95)
    return {"n": n, "value": k / n, "low": float(low), "high": float(high)}


def rates(scores: dict[int, np.ndarray], truth: list[np.ndarray]) -> dict[str, Any]:
    """TPR at 10 % and 1 % FPR over all targets of a seed, and the AUC: over seeds."""
    from mico_competition.scoring import score

    found = [score(truth[i].ravel().astype(int), s.ravel()) for i, s in scores.items()]
    names = {"TPR at 10 % FPR": "TPR_FPR_1000", "at 1 %": "TPR_FPR_100", "AUC": "AUC"}
    return {name: measured([one[key] for one in found]) for name, key in names.items()}


def compared(found: dict[str, Any], truth: list[np.ndarray]) -> list[dict[str, Any]]:
    """A row for each attack of each package: its rates, and its distance from the formula."""
    rows = []
    formulas = found["paper"]["scores"]
    for name, one in found.items():
        for kind, scores in one.get("scores", {}).items():
            row: dict[str, Any] = {"package": name, "attack": kind, **rates(scores, truth)}
            if kind in formulas and name != "paper":
                row["largest difference"] = max(
                    float(np.max(np.abs(scores[i] - f) / np.maximum(1, np.abs(f))))
                    for i, f in formulas[kind].items()
                )
            row["seconds"] = one["seconds"].get(kind)
            rows.append(row)
    return rows


def alarms(found: dict[str, Any]) -> list[dict[str, Any]]:
    """A row for each bound of each package: false alarms and mean, by mechanism."""
    rows = []
    for name, one in found.items():
        for kind, by_mechanism in one.get("epsilons", {}).items():
            row: dict[str, Any] = {"package": name, "bound": kind, "mechanisms": {}}
            for mechanism, values in by_mechanism.items():
                epsilon = np.maximum(values, 0)
                row["mechanisms"][mechanism] = {
                    "false alarms": share(epsilon > MECHANISMS[mechanism][1]),
                    "mean": measured(epsilon),
                }
            row["seconds"] = one["seconds"][kind]
            rows.append(row)
    return rows


def main() -> None:
    """Install, ask and write the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=ROOT / "runs/peers")
    parser.add_argument("--runs", type=int, default=200, help="of each mechanism, for each seed")
    parser.add_argument("--seeds", type=int, default=5, help="sets of arrays")
    parser.add_argument("--processes", type=int, default=2, help="peers asked at the same time")
    args = parser.parse_args()
    work = args.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    files = [work / f"arrays_{seed}.npz" for seed in range(args.seeds)]
    for seed, file in enumerate(files):
        if not file.exists():
            np.savez(file, **fleet(seed), **audits(args.runs, seed))
    installed = {name: install(name, work) for name in PEERS}
    asked = {"paper": (sys.executable, "paper"), "mico_competition": (sys.executable, "ours")}
    asked |= {n: (installed[n][0], p.adapter) for n, p in PEERS.items() if usable(n, installed)}
    with ThreadPoolExecutor(args.processes) as pool:
        answers = pool.map(lambda one: ask(*one, files, work), asked.values())
    found = dict(zip(asked, answers))
    given = [np.load(file) for file in files]
    report = {
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, one thread",
        "delta": DELTA,
        "level": LEVEL,
        "seeds": args.seeds,
        "targets": TARGETS,
        "shadows": SHADOWS,
        "records": [int(one["labels"].size) for one in given],
        "peers": {
            name: {"requirement": peer.requirement, "fault": installed[name][1]}
            | {"beside": peer.beside.split()}
            for name, peer in PEERS.items()
        },
        "faults": {name: one["error"] for name, one in found.items() if "error" in one},
        "mechanisms": {
            name: {"epsilon": e, "points": n, "runs": args.runs * args.seeds}
            for name, (_, e, n) in MECHANISMS.items()
        },
        "attacks": compared(found, [one["truth"] for one in given]),
        "bounds": alarms(found),
    }
    OUT.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
