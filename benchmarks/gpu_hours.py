#!/usr/bin/env python3
"""GPU hours of all 2,400 models of 2022, from trials: docs/results/gpu_hours.json.

    PYTHONPATH=src python benchmarks/gpu_hours.py     # on a machine with a GPU, 8 minutes

A scenario's models train for some seconds by the fleet's own code (`fleets.trial`), at full size on
made-up records; the steps of a whole run, the evaluation and the files follow.  No network and no
data are needed; besides torch: opacus, transformers, dp-accounting and what setup.py requires.
A run that is cut leaves what it has measured.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from bench_cases import table
from bench_gpu import made_up

from mico_competition.competition.table import SCENARIOS, get_scenario, get_task, phases_of
from mico_competition.data.arrays import TokenDataset
from mico_competition.fleets.cost import cost
from mico_competition.fleets.trial import trial
from mico_competition.models.inputs import Data, default_device
from mico_competition.training.settings import resolve
from mico_competition.training.train_many import mlp_of

RESULT = Path(__file__).resolve().parents[1] / "docs" / "results" / "gpu_hours.json"
# Scenarios in an order that tells most if the time runs out: one of each task first.
KINDS = ("lo", "inf", "hi", "ddp")
TASKS = ("purchase100", "cifar10", "sst2")
BASE = {
    "model_type": "roberta",
    "vocab_size": 50_265,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "max_position_embeddings": 514,
    "type_vocab_size": 1,
    "layer_norm_eps": 1e-5,
    "pad_token_id": 1,
}
# The words of SST-2's training sentences at 0, 5, ..., 100 % of them.  RoBERTa's tokenizer gives
# some 15 % more tokens, and two at the ends.
WORDS = (1, 1, 2, 2, 3, 3, 4, 4, 5, 6, 7, 8, 9, 10, 12, 13, 15, 18, 21, 26, 52)


def scenarios() -> list[str]:
    """The names of 2022's twelve scenarios, in the order in which they are measured."""
    return [f"{task}_{kind}" for kind in KINDS for task in TASKS if f"{task}_{kind}" in SCENARIOS]


def sentences(count: int, length: int, vocabulary: int) -> TokenDataset:
    """`count` sentences of random tokens, whose lengths are distributed as those of SST-2."""
    generator = torch.Generator().manual_seed(0)
    words = torch.tensor(WORDS)[torch.randint(len(WORDS), (count,), generator=generator)]
    lengths = (2 + (1.15 * words).long()).clamp_max(length)
    mask = (torch.arange(length) < lengths[:, None]).to(torch.uint8)
    ids = torch.randint(4, vocabulary, mask.shape, generator=generator, dtype=torch.int32)
    labels = torch.randint(2, (count,), generator=generator)
    return TokenDataset(ids.where(mask > 0, 1), mask, labels)


def measure(
    name: str,
    device: torch.device,
    *,
    seconds: float,
    stack: int,
    base: dict[str, Any],
    records: int | None = None,
) -> dict[str, Any]:
    """What a trial of one scenario found, and what its models will take.

    Args:
        name: the scenario.
        device: where it trains.
        seconds: of the trial's steps.
        stack: MLPs to train together.
        base: the configuration of text models.
        records: n, to try the script; by default that of the scenario.
    """
    task = get_task(get_scenario(name).task)
    small: dict[str, Any] = {}
    if records is not None:
        small = {"len_training": records, "len_challenge": 10, "batch_size": records // 4}
    with tempfile.TemporaryDirectory() as folder:
        if task.text:
            (Path(folder) / "config.json").write_text(json.dumps(base), encoding="utf-8")
            small["model_name"] = folder
        settings = resolve({"scenario": name, **small})
        count = task.len_dataset if records is None else 2 * records
        data: Data
        if task.text:
            data = sentences(count, task.max_length or 67, base["vocab_size"])
        else:
            data = made_up(task.name, count, "cpu")
        together = stack if mlp_of(settings) is not None else 1
        found = trial(settings, data, stack=together, device=device, seconds=seconds)
    ids = [i for phase in phases_of(get_scenario(name).challenge).values() for i in phase.model_ids]
    whole = cost(settings, found, ids)
    return {
        "scenario": name,
        "models": len(ids),
        "stack": together,
        "records": settings.len_training,
        "steps": settings.num_steps,
        "trial_steps": found.steps,
        "step_seconds": found.step_seconds,
        "begin_seconds": found.begin_seconds,
        "hours": whole.worker_seconds / 3600,
        "kilowatt_hours": whole.kilowatt_hours,
        "memory": found.memory,
    }


def _known(energy: float | None) -> str:
    return "not read" if energy is None else f"{energy:.2f}"


def summary(found: dict[str, Any]) -> str:
    """A table of all scenarios with the sum of their hours."""
    rows = [
        [
            row["scenario"],
            str(row["stack"]),
            f"{1e3 * row['step_seconds']:.1f} ms",
            f"{3600 * row['hours'] / row['models']:.1f} s",
            f"{row['hours']:.2f}",
            _known(row["kilowatt_hours"]),
            f"{row['memory'] / 2**30:.1f} GB",
        ]
        for row in found["scenarios"]
    ]
    models = sum(row["models"] for row in found["scenarios"])
    hours = sum(row["hours"] for row in found["scenarios"])
    energy = [row["kilowatt_hours"] for row in found["scenarios"]]
    rows.append(
        ["sum", "", "", "", f"{hours:.1f}", _known(None if None in energy else sum(energy)), ""]
    )
    head = ["scenario", "stack", "a step", "a model", "hours of 200 models", "kWh", "peak memory"]
    return "\n\n".join(
        [
            f"{found['device']}, torch {found['torch']}, Python {found['python']}: "
            f"`benchmarks/gpu_hours.py`, a trial of each scenario at full size on made-up records.",
            table(head, rows),
            f"{models:,} of 2,400 models take {hours:.1f} hours, one process after another.",
        ]
    )


def hours_section() -> str:
    """The part of RESULTS.md about all models, from the committed measurement."""
    if not RESULT.exists():
        return "The GPU hours of all 2,400 models were not measured: `benchmarks/gpu_hours.py`."
    return summary(json.loads(RESULT.read_text(encoding="utf-8")))


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure scenario after scenario, and write the JSON after each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=RESULT, help="where to write the JSON")
    parser.add_argument("--scenarios", nargs="*", default=scenarios())
    parser.add_argument("--minutes", type=float, default=7.0, help="no trial begins later")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each trial's steps")
    parser.add_argument("--stack", type=int, default=50, help="MLPs to train together")
    parser.add_argument("--device", type=torch.device, default=default_device())
    parser.add_argument("--records", type=int, help="n, to try the script")
    parser.add_argument("--base", type=json.loads, default={}, help="JSON: another base model")
    args = parser.parse_args(arguments)
    cuda = args.device.type == "cuda"
    found: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if cuda else platform.machine(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "scenarios": [],
        "failed": {},
    }
    end = time.monotonic() + 60 * args.minutes
    options = {"seconds": args.seconds, "stack": args.stack, "base": {**BASE, **args.base}}
    for name in args.scenarios:
        if time.monotonic() > end:
            print(f"{args.minutes:g} minutes are over: {name} and what follows are left out.")
            break
        try:
            row = measure(name, args.device, records=args.records, **options)
            found["scenarios"].append(row)
        except Exception as error:  # the other scenarios still count
            found["failed"][name] = f"{type(error).__name__}: {error}"
            print(name, found["failed"][name], flush=True)
        args.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(summary(found))


if __name__ == "__main__":
    main()
