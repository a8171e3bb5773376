#!/usr/bin/env python3
"""Other packages on the same arrays: docs/results/peers.json (20 minutes; then peers_page.py).

    python benchmarks/peers.py [--work runs/peers] [--runs 400]

installs each peer from the package index into an environment of its own below --work, which sees
this environment's packages, so that torch is not installed again.  It trains 40 small models on
scikit-learn's digits, lets every peer attack eight of them with the others as shadow models, and
lets every auditor bound epsilon for mechanisms whose epsilon is known.  A bound above the truth is
a false alarm, of which 5 % are allowed.  Arrays and answers that are in --work are kept; remove the
folder to start again.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import sysconfig
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "docs/results/peers.json"
sys.path.insert(0, str(Path(__file__).resolve().parent))

from audit_false_alarms import gaussian, laplace, response  # noqa: E402
from peers_adapters import DELTA, LEVEL  # noqa: E402

# Name -> what pip installs, and the module whose import shows that it works.
PEERS = {
    "Opacus": ("opacus==1.6.0", "opacus"),
    "jax_privacy": ("jax-privacy==2.0.0", "jax_privacy.auditing"),
    "PrivacyGuard": ("privacyguard-platform==0.0.2 --no-deps", "privacy_guard.attacks.lira_attack"),
    "ART": (
        "adversarial-robustness-toolbox==1.20.1",
        "art.attacks.inference.membership_inference",
    ),
    "opake": ("opake-auditing==0.16.1", "opake.auditing"),
    "privacy-meter": ("privacy-meter==1.0.1 --no-deps", "privacy_meter.audit"),
    "TensorFlow Privacy": ("tensorflow-privacy==0.9.0 --no-deps", "tensorflow_privacy"),
    "LeakPro": ("leakpro==0.0.1", "leakpro.attacks"),
}
ASKED = {"jax_privacy": "jax_privacy", "opake": "opake", "PrivacyGuard": "privacyguard"}
ASKED |= {"ART": "art"}
# Name -> scores of one run, epsilon, points.
MECHANISMS = {
    "no signal": (lambda rng, truth: rng.normal(size=truth.size), 0.0, 1000),
    "Gaussian, epsilon 1": (gaussian(1.0), 1.0, 1000),
    "Gaussian, epsilon 4": (gaussian(4.0), 4.0, 300),
    "Laplace, epsilon 2": (laplace(2.0), 2.0, 1000),
    "randomised response, epsilon 1": (response(1.0), 1.0, 1000),
}
TARGETS, SHADOWS = 8, 32


def install(name: str, work: Path) -> tuple[str, str]:
    """Install a peer and import it: its interpreter, and why it cannot be used ("" if it can)."""
    requirement, module = PEERS[name]
    home = work / name.replace(" ", "-")
    python = home / "bin/python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", home], check=True)
        site = home / f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
        (site / "shared.pth").write_text(sysconfig.get_path("purelib") + "\n")
        command = [python, "-m", "pip", "install", "-q", "--no-cache-dir", *requirement.split()]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            return str(python), done.stderr.strip().splitlines()[-1]
    done = subprocess.run([python, "-c", f"import {module}"], capture_output=True, text=True)
    return str(python), done.stderr.strip().splitlines()[-1] if done.returncode else ""


def fleet() -> dict[str, np.ndarray]:
    """Outputs of 40 models for all 1,797 digits, and who was trained on what."""
    import torch

    from mico_competition import ChallengeDataset, load_digits, load_model
    from mico_competition.competition.splits import draw_seeds
    from mico_competition.competition.table import SCENARIOS
    from mico_competition.training.settings import resolve
    from mico_competition.training.train_many import Run, train_many

    data, settings = load_digits(), resolve({"scenario": "digits_inf"})
    task = SCENARIOS["digits_inf"].task
    torch.set_num_threads(1)
    everybody = data.inputs(range(len(data)))
    outputs, member = [], []
    with tempfile.TemporaryDirectory() as folder:
        runs = [Run(draw_seeds(), Path(folder, f"model_{i}"), i) for i in range(TARGETS + SHADOWS)]
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


def audits(runs: int) -> dict[str, np.ndarray]:
    """Truth and scores of so many runs of every mechanism."""
    found: dict[str, np.ndarray] = {"mechanisms": np.array(list(MECHANISMS))}
    rng = np.random.default_rng(0)
    for name, (scores, _, points) in MECHANISMS.items():
        truth = rng.random((runs, points)) < 0.5
        found[f"{name}_truth"] = truth
        found[f"{name}_scores"] = np.array([scores(rng, row) for row in truth])
    return found


def ask(python: str, adapter: str, given: Path, work: Path) -> dict[str, Any]:
    """What one adapter finds, in its own process and environment."""
    out = work / f"{adapter}.json"
    if not out.exists() and (fault := run(python, adapter, given, out)):
        return {"error": fault}
    found: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    found["scores"] = dict(np.load(f"{out}.npz"))
    return found


def run(python: str, adapter: str, given: Path, out: Path) -> str:
    """Run an adapter; why it failed, or ""."""
    command = [python, ROOT / "benchmarks/peers_adapters.py", adapter, given, out]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        list(map(str, command)), env=environment, stderr=subprocess.PIPE, text=True
    )
    return done.stderr.strip().splitlines()[-1] if done.returncode else ""


def rates(scores: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """TPR at 10 % and 1 % FPR over all targets, and the AUC."""
    from mico_competition.scoring import score

    found = score(truth.ravel().astype(int), scores.ravel())
    return {"TPR at 10 % FPR": found["TPR_FPR_1000"], "at 1 %": found["TPR_FPR_100"]} | {
        "AUC": found["AUC"]
    }


def compared(found: dict[str, Any], truth: np.ndarray) -> list[dict[str, Any]]:
    """A row for each attack of each package: its rates, and its distance from the formula."""
    rows = []
    formulas = found["paper"]["scores"]
    for name, one in found.items():
        for kind, scores in one.get("scores", {}).items():
            row: dict[str, Any] = {"package": name, "attack": kind, **rates(scores, truth)}
            if kind in formulas and name != "paper":
                formula = formulas[kind]
                distance = np.abs(scores - formula) / np.maximum(1, np.abs(formula))
                row["largest difference"] = float(distance.max())
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
                epsilon = np.array(values)
                row["mechanisms"][mechanism] = {
                    "runs": len(epsilon),
                    "false alarms": float(np.mean(epsilon > MECHANISMS[mechanism][1])),
                    "mean": float(np.mean(epsilon)),
                }
            row["seconds"] = one["seconds"][kind]
            rows.append(row)
    return rows


def main() -> None:
    """Install, ask and write the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=ROOT / "runs/peers")
    parser.add_argument("--runs", type=int, default=400, help="of each mechanism")
    args = parser.parse_args()
    work = args.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    installed = {name: install(name, work) for name in PEERS}
    if not (work / "fleet.npz").exists():
        np.savez(work / "fleet.npz", **fleet())
    if not (work / "arrays.npz").exists():
        given = {**np.load(work / "fleet.npz"), **audits(args.runs)}
        np.savez(work / "arrays.npz", **given, few=np.array(max(args.runs // 8, 2)))
    given = dict(np.load(work / "arrays.npz"))
    asked = {"paper": (sys.executable, "paper"), "mico_competition": (sys.executable, "ours")}
    asked |= {n: (installed[n][0], adapter) for n, adapter in ASKED.items() if not installed[n][1]}
    with ThreadPoolExecutor() as pool:
        answers = pool.map(lambda one: ask(*one, work / "arrays.npz", work), asked.values())
    found = dict(zip(asked, answers))
    report = {
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, one thread",
        "delta": DELTA,
        "level": LEVEL,
        "records": int(given["labels"].size),
        "peers": {
            name: {"requirement": requirement.split()[0], "fault": installed[name][1]}
            for name, (requirement, _) in PEERS.items()
        },
        "faults": {name: one["error"] for name, one in found.items() if "error" in one},
        "mechanisms": {name: [e, n] for name, (_, e, n) in MECHANISMS.items()},
        "attacks": compared(found, given["truth"]),
        "bounds": alarms(found),
    }
    OUT.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
