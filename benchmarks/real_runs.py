#!/usr/bin/env python3
"""Real runs on real (or, for Purchase-100, synthetic full-size) data: `make results`.

    python benchmarks/real_runs.py --work DIR [--shared ../shared] [demo purchase100 cifar10 sst2]

trains the models listed below with `mico train`, attacks them with the loss threshold, scores the
`train` phase, and writes one JSON a group to docs/results/.  A model that is already there is kept,
so a run goes on where it stopped.  Takes some 80 minutes; one thread a process.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Group:
    """Scenarios of one task, with the flags that make them fit the machine."""

    task: str
    data: str
    scenarios: dict[str, list[str]]
    models: int
    flags: list[str] = field(default_factory=list)


GROUPS = [
    Group(
        "purchase100",
        "synthetic, in Purchase-100's form and size (the real file cannot be fetched here)",
        {"purchase100_inf": [], "purchase100_hi": [], "purchase100_lo": []},
        models=5,
    ),
    Group(
        "cifar10",
        "12,000 real CIFAR-10 images (2,000 of each batch file), via JPEG",
        {
            "cifar10_inf": ["--learning_rate", "0.05"],
            "cifar10_lo": ["--batch_size", "200"],
        },
        models=3,
        flags=["--len_training", "1000", "--num_epochs", "30"],
    ),
    Group(
        "sst2",
        "real SST-2; RoBERTa of 2 layers x 128, not pretrained, its own tokenizer",
        {
            "sst2_inf": ["--learning_rate", "0.0005"],
            "sst2_lo": ["--learning_rate", "0.001", "--batch_size", "512", "--max_grad_norm", "1"],
        },
        models=3,
        flags=["--len_training", "8000", "--num_epochs", "4"],
    ),
]


def main() -> None:
    """Run the groups asked for, all by default."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("groups", nargs="*", help="default: all")
    parser.add_argument("--work", type=Path, required=True, help="folder for data and models")
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared")
    args = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if not args.groups or "demo" in args.groups:
        run_demo(args.work)
    for group in GROUPS:
        if not args.groups or group.task in args.groups:
            run(group, args.work, args.shared)


def run_demo(work: Path) -> None:
    """The demonstration as `make demo` runs it, and what it found."""
    from mico_competition import demo

    demo.run_demo(work / "demo")
    report = json.loads((work / "demo" / "summary.json").read_text())
    report = {"command": "make demo", "machine": f"{os.cpu_count()} cores", **report}
    (ROOT / "docs" / "results" / "demo.json").write_text(json.dumps(report, indent=2) + "\n")


def run(group: Group, work: Path, shared: Path) -> None:
    """Train, attack and score one group."""
    data, flags = MAKERS[group.task](work, shared)
    commands = []
    for model_id in range(group.models):
        for scenario, own in group.scenarios.items():
            command = ["mico", "train", "--scenario", scenario, "--model_id", str(model_id)]
            command += ["--split_seed", str(model_id), "--train_seed", str(model_id)]
            command += [*group.flags, *flags, *own, "--dataset_dir", str(data)]
            command += ["--output_dir", str(work / "trained")]
            if not (work / f"trained/{group.task}/{scenario}/train/model_{model_id}").exists():
                subprocess.run(
                    [sys.executable, "-m", "mico_competition.cli", *command[1:]], check=True
                )
            if model_id == 0:
                commands.append(" ".join(command))
    report = {"data": group.data, "machine": machine(), "commands": commands}
    report["scenarios"] = score(group, work, data)
    out = ROOT / "docs" / "results" / f"{group.task}.json"
    out.write_text(json.dumps(report, indent=2) + "\n")
    print(f"Wrote {out}")


def score(group: Group, work: Path, data: Path) -> dict:
    """Scores of the loss threshold attack, with what training wrote of each scenario."""
    from mico_competition.scoring import score as score_points

    from mico_competition.data.datasets import load_dataset
    from mico_competition.evaluation.predict import attack_challenge

    trained = work / "trained" / group.task
    attack_challenge(
        trained, lambda task: load_dataset(task, data), predictions=trained, phases=["train"]
    )
    rows = {}
    for scenario in group.scenarios:
        import numpy as np

        folders = sorted((trained / scenario / "train").glob("model_*"))
        read = [
            [np.loadtxt(f / n, delimiter=",") for f in folders]
            for n in ("solution.csv", "prediction.csv")
        ]
        values = score_points(np.concatenate(read[0]), np.concatenate(read[1]))
        metadata = [json.loads((f / "metadata.json").read_text()) for f in folders]
        rows[scenario] = {
            "models": len(folders),
            "points": sum(len(r) for r in read[0]),
            "n": metadata[0]["len_training"],
            "epsilon": metadata[0]["privacy"] and metadata[0]["privacy"]["epsilon"],
            "noise_multiplier": metadata[0]["privacy"]
            and metadata[0]["privacy"]["noise_multiplier"],
            "evaluation_accuracy": [round(m["results"]["accuracy"], 4) for m in metadata],
            "wall_time_seconds": [m["wall_time_seconds"] for m in metadata],
            "TPR_FPR_1000": values["TPR_FPR_1000"],
            "TPR_FPR_100": values["TPR_FPR_100"],
            "AUC": values["AUC"],
            "software": metadata[0]["software"],
        }
    return rows


def make_purchase(work: Path, shared: Path) -> tuple[Path, list[str]]:
    """The synthetic full-size file."""
    if not (work / "purchase100" / "dataset_purchase").exists():
        from mico_competition.data.synthetic import make_synthetic_purchase

        make_synthetic_purchase(work / "purchase100" / "dataset_purchase", 197_324, seed=0)
    return work, []


def make_cifar10(work: Path, shared: Path) -> tuple[Path, list[str]]:
    """The first 2,000 records of each batch file of the real images."""
    import numpy as np

    full, less = work / "full", work / "cifar10" / "cifar-10-batches-bin"
    if not less.exists():
        subprocess.run(
            [sys.executable, str(shared / "tools/make_cifar10.py"), str(full)], check=True
        )
        less.mkdir(parents=True)
        for file in (full / "cifar10" / "cifar-10-batches-bin").glob("*.bin"):
            np.fromfile(file, np.uint8)[: 2000 * 3073].tofile(less / file.name)
    return work, []


def make_sst2(work: Path, shared: Path) -> tuple[Path, list[str]]:
    """The small RoBERTa; the data are read where they are."""
    if not (work / "small_roberta").exists():
        from mico_competition.data.datasets import load_sst2
        from mico_competition.models.small_roberta import make_small_roberta

        make_small_roberta(work / "small_roberta", load_sst2(shared / "data").sentences)
    return shared / "data", ["--model_name", str(work / "small_roberta")]


MAKERS = {"purchase100": make_purchase, "cifar10": make_cifar10, "sst2": make_sst2}


def machine() -> str:
    """What the numbers were measured on."""
    threads = os.environ["OMP_NUM_THREADS"]
    return f"{platform.machine()}, {os.cpu_count()} cores, {threads} thread a run"


if __name__ == "__main__":
    main()
