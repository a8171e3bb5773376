#!/usr/bin/env python3
"""Speed and memory of private training on a GPU: docs/results/gpu.json, which bench.py shows.

Run it on a machine with a CUDA device (a few minutes).  Every rival takes the same step in turn, as
in bench.py; whole runs are of MICO's shapes on made-up records, one epoch long.  The JSON is
written after each part, a part that fails leaves the others, and none begins when the time is over.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from bench_cases import (
    Case,
    batch_of,
    bits,
    cell,
    images,
    roberta,
    standing_bytes,
    step_times,
    table,
    tokens,
    trainers,
)

from mico_competition.competition.splits import derive_seeds
from mico_competition.data.arrays import ArrayDataset, normalise_cifar10, unpack_bits
from mico_competition.models.architectures import CNN, MLP
from mico_competition.models.precision import full_float32
from mico_competition.training.dpsgd import GRAD_SAMPLE_MODES
from mico_competition.training.settings import resolve
from mico_competition.training.streams import Streams
from mico_competition.training.train import PlainTrainer, fit_records, mechanism_of
from mico_competition.training.train_many import fit_stack_records

RESULT = Path(__file__).resolve().parents[1] / "docs" / "results" / "gpu.json"
CASES = [
    Case("mlp", "MLP 600-128-100", MLP, bits, 100, 512, torch.optim.Adam, 40),
    Case("cnn", "CNN", CNN, images, 10, 512, torch.optim.SGD, 20),
    Case("small", "RoBERTa 2 x 128", lambda: roberta(2, 128), tokens, 2, 512,
         torch.optim.AdamW, 20),
    Case("base", "RoBERTa 12 x 768", lambda: roberta(12, 768, 50_265), tokens, 2, 32,
         torch.optim.AdamW, 8),
]  # fmt: skip
STACKS = (1, 10, 50, 200)
RUNS = ("purchase100_inf", "purchase100_lo", "cifar10_inf", "cifar10_lo")
IN_FULL = "plain in float32"


@dataclass
class InFloat32:
    """A plain trainer whose products are computed in full, as those of private steps are."""

    plain: PlainTrainer

    def step(self, *batch: Any) -> torch.Tensor:
        """Take a step."""
        with full_float32(batch[2].device):
            return self.plain.step(*batch)


def measure_case(case: Case, modes: Sequence[str], device: str) -> dict[str, Any]:
    """Each rival's seconds of every repeat, and the most memory that its step needs."""
    batch = batch_of(case, case.batch, device)
    made = trainers(case, modes, case.batch, device)
    rivals = {"plain": made.pop("plain")}
    rivals[IN_FULL] = InFloat32(rivals["plain"])
    rivals |= made
    times = step_times(rivals, batch, case.repeats, warm_up=3)
    peaks = {}
    for mode, trainer in rivals.items() if device == "cuda" else ():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        trainer.step(*batch)
        owner = getattr(trainer, "plain", trainer)
        peaks[mode] = torch.cuda.max_memory_allocated() - before + standing_bytes(owner)
    return {"title": case.title, "batch": case.batch, "seconds": times, "peak_bytes": peaks}


def made_up(task: str, count: int, device: str) -> ArrayDataset:
    """`count` records of the shape of Purchase-100 or CIFAR-10."""
    generator = torch.Generator().manual_seed(0)
    shape = (75,) if task == "purchase100" else (3, 32, 32)
    storage = torch.randint(0, 256, (count, *shape), dtype=torch.uint8, generator=generator)
    labels = torch.randint(100 if task == "purchase100" else 10, (count,), generator=generator)
    expand = unpack_bits if task == "purchase100" else normalise_cifar10
    return ArrayDataset(storage, labels, expand).to(torch.device(device))


def measure_run(scenario: str, stack: int, device: str, n: int | None = None) -> dict[str, Any]:
    """Seconds of one epoch of a scenario at full size, for `stack` models trained together."""
    flags = {"len_training": n, "len_challenge": 100} if n else {}
    settings = resolve({"scenario": scenario, "num_epochs": 1, **flags})
    whole = resolve({"scenario": scenario, **flags})
    task = settings.task
    data = made_up(task, settings.len_training + 1000, device)
    mechanism = mechanism_of(settings)
    streams = [Streams.of(seed, derive_seeds(seed)) for seed in range(stack)]
    models = [(MLP if task == "purchase100" else CNN)().to(device) for _ in range(stack)]
    records = torch.arange(settings.len_training, device=device)
    start = time.perf_counter()
    if stack == 1:
        fit_records(settings, models[0], data, records, streams[0], False, mechanism=mechanism)
    else:
        rows = records.expand(stack, -1).contiguous()
        fit_stack_records(settings, models, data, rows, streams, False, mechanism=mechanism)
    if device == "cuda":
        torch.cuda.synchronize()
    seconds = time.perf_counter() - start
    return {
        "scenario": scenario,
        "stack": stack,
        "records": settings.len_training,
        "steps": settings.num_steps,
        "seconds": seconds,
        "models_an_hour": 3600 * stack / (seconds * whole.num_epochs),
    }


def profile(case: Case, mode: str, device: str) -> str:
    """The operations that take longest in five steps, as torch's profiler prints them."""
    trainer = trainers(case, [] if mode == "plain" else [mode], case.batch, device)[mode]
    batch = batch_of(case, case.batch, device)
    for _ in range(3):
        trainer.step(*batch)
    activities = [torch.profiler.ProfilerActivity.CPU]
    if device == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as found:
        for _ in range(5):
            trainer.step(*batch)
    order = "self_cuda_time_total" if device == "cuda" else "self_cpu_time_total"
    rows = found.key_averages()
    by_cpu = rows.table(sort_by="self_cpu_time_total", row_limit=18, max_name_column_width=50)
    return by_cpu + rows.table(sort_by=order, row_limit=18, max_name_column_width=50)


def gpu_section() -> str:
    """The part of RESULTS.md about a GPU, from the committed measurement."""
    if not RESULT.exists():
        return "## On a GPU\n\nNot measured."
    found = json.loads(RESULT.read_text(encoding="utf-8"))
    modes = list(found["steps"][0]["seconds"])[1:]
    times, peaks = [], []
    for case in found["steps"]:
        title, seconds, peak = case["title"], case["seconds"], case["peak_bytes"]
        plain = 1e3 * statistics.median(seconds["plain"])
        ratios = [cell(seconds[mode], seconds["plain"]) for mode in modes]
        times.append([f"{title}, batch {case['batch']}", f"{plain:.2f} ms", *ratios])
        ratios = [f"{peak[mode] / peak['plain']:.2f}" for mode in modes]
        peaks.append([times[-1][0], f"{peak['plain'] / 2**20:,.0f} MB", *ratios])
    runs = [
        [
            run["scenario"],
            str(run["stack"]),
            f"{run['seconds']:.1f} s",
            f"{run['stack'] * run['records'] / run['seconds']:,.0f}",
            f"{run['models_an_hour']:,.0f}",
        ]
        for run in found["runs"]
    ]
    return "\n\n".join(
        [
            "## On a GPU",
            f"{found['device']}, torch {found['torch']}, opacus {found['opacus']}, Python "
            f"{found['python']}: `benchmarks/bench_gpu.py`, written to docs/results/gpu.json.",
            "A private step over a plain one. Private steps compute products in full float32, "
            "since TF32 would make an example's gradient depend on its batch; plain ones use TF32 "
            f"in convolutions, as torch does by default, except in the column *{IN_FULL}*.",
            table(["model", "plain step", *modes], times),
            "Peak memory of a step, over that of a plain one:",
            table(["model", "plain step", *modes], peaks),
            "Whole runs of MICO's size on made-up records, one epoch timed; models an hour follow "
            "from the epochs of the scenario:",
            table(["scenario", "stack", "one epoch", "records a second", "models an hour"], runs),
        ]
    )


Part = tuple[str, str, Callable[[], dict[str, Any]]]
"""A part's title, the list of the JSON that it belongs to, and what measures it."""


def measure_parts(parts: Sequence[Part], found: dict[str, Any], out: Path, seconds: float) -> None:
    """Measure one part after another for some seconds, and write `found` to `out` after each."""
    end = time.monotonic() + seconds
    for title, kind, measure in parts:
        if time.monotonic() > end:
            print(f"The time is over: {title} and what follows are left out.")
            break
        start = time.monotonic()
        try:
            found[kind].append(measure())
        except Exception as error:  # out of memory, say
            found["failed"][title] = f"{type(error).__name__}: {error}"
        out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        said = found["failed"].get(title, f"{time.monotonic() - start:.0f} s")
        print(f"{title}: {said}", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=RESULT, help="where to write the JSON")
    parser.add_argument("--models", nargs="*", default=[case.name for case in CASES])
    parser.add_argument("--modes", nargs="*", default=list(GRAD_SAMPLE_MODES))
    parser.add_argument("--runs", nargs="*", default=list(RUNS), help="scenarios of whole runs")
    parser.add_argument("--stacks", nargs="*", type=int, default=list(STACKS))
    parser.add_argument("--minutes", type=float, default=7.0, help="no part begins later")
    parser.add_argument("--records", type=int, help="n of the whole runs, to try the script")
    parser.add_argument("--device", default="cuda", help="cpu only tries the script")
    parser.add_argument("--profile", type=Path, help="write the profiles of the steps here")
    args = parser.parse_args(arguments)
    import opacus

    device = args.device
    name = torch.cuda.get_device_name() if device == "cuda" else platform.machine()
    found: dict[str, Any] = {
        "device": name,
        "torch": torch.__version__,
        "opacus": opacus.__version__,
        "python": platform.python_version(),
        "steps": [],
        "runs": [],
        "failed": {},
    }
    cases = [case for case in CASES if case.name in args.models]
    parts: list[Part] = [
        (f"steps of {case.title}", "steps", partial(measure_case, case, args.modes, device))
        for case in cases
    ]
    for scenario in args.runs:
        for stack in args.stacks if scenario.startswith("purchase100") else (1,):
            measure = partial(measure_run, scenario, stack, device, args.records)
            parts.append((f"{scenario}, stack {stack}", "runs", measure))
    measure_parts(parts, found, args.out, 60 * args.minutes)
    if args.profile:
        texts = [
            f"{case.name} {mode}\n{profile(case, mode, device)}"
            for case in cases
            for mode in ("plain", "bookkeeping")
        ]
        args.profile.write_text("\n\n".join(texts), encoding="utf-8")


if __name__ == "__main__":
    main()
