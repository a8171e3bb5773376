#!/usr/bin/env python3
"""Speed and memory of private training against named rivals, as ratios in one run: `make bench`.

Every rival takes the same step (same model, batch, optimiser, Poisson semantics left out) in turn,
so that a noisy machine is noisy for all; figures are medians with the middle half of the
repeats in brackets.  Writes benchmarks/RESULTS.md, and the step times to
docs/results/step_times.json, which docs/PEERS.md shows too.  A quick look:
`bench.py --quick --models mlp`.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
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
    ratio,
    roberta,
    shown,
    standing_bytes,
    step_times,
    tokens,
    trainers,
)
from fastdp_rival import available
from gpu_page import gpu_section
from markdown_tables import table

from mico_competition.competition.splits import derive_seeds
from mico_competition.data.arrays import ArrayDataset, unpack_bits
from mico_competition.data.datasets import load_digits
from mico_competition.models.architectures import CNN, MLP
from mico_competition.support.memory import keep_freed_memory
from mico_competition.training.dpsgd import GRAD_SAMPLE_MODES
from mico_competition.training.poisson_draws import poisson_batches
from mico_competition.training.secure_random import SecureGenerator
from mico_competition.training.settings import resolve
from mico_competition.training.train import mechanism_of
from mico_competition.training.train_many import Run, train_many

HERE = Path(__file__).resolve().parent
STEPS = HERE.parent / "docs/results/step_times.json"
RIVAL = (
    "fastDP 2.0.0 is Amazon's book-keeping library. It is on no package index that we reach, so it "
    "was run from its source (`fastdp_rival.py`); its clipped sums are ours to 1e-6. "
    "private-vision is on none either, and was not run."
)
BOUNDS = (
    "What bounds an MLP's step: noise is 7 % of a plain one (MT19937 takes 2.8 ns for each of "
    "89,828 uniform numbers; one flat draw takes 305 instead of 311 microseconds, and numpy's "
    "ziggurat 660), norms of rows, clipping factors and the sums over parameters 5 %; the rest are "
    "some 90 small operations and Python, at least 270 microseconds. Of RoBERTa 2 x 768, noise for "
    "20,975,618 numbers takes 73 ms: 7 % of a plain step on one thread and 12 % on two, since a "
    "generator draws on one. In all columns glibc keeps "
    "memory that a step frees (`support.memory`), as training has it do. Without that, a private "
    "step of RoBERTa 2 x 128 had 27,650 page faults and took 321 ms, and with it none and 261 to "
    "278 ms. (AMD Zen 4, 27 and 28 November 2026.)"
)


CASES = [
    Case("mlp", "MLP 600-128-100", MLP, bits, 100, 512,
         torch.optim.Adam, 40),
    Case("cnn", "CNN", CNN, images, 10, 128, torch.optim.SGD, 5),
    Case("small", "RoBERTa 2 x 128", lambda: roberta(2, 128), tokens, 2, 64,
         torch.optim.AdamW, 9),
    Case("base", "RoBERTa 2 x 768", lambda: roberta(2, 768), tokens, 2, 16, torch.optim.AdamW, 5),
]  # fmt: skip


def logical_step(case: Case, mode: str, logical: int) -> tuple[float, float]:
    """Seconds and peak bytes of one step on a logical batch, by physical ones.

    The peak is over all tensors alive: weights, gradients, optimiser's state and activations.
    """
    trainer = trainers(case, [] if mode == "plain" else [mode], case.batch)[mode]
    batch = batch_of(case, logical)
    few = batch[0][: 2 * case.batch]
    trainer.step(few, *batch[1:])
    start = time.perf_counter()
    trainer.step(*batch)
    elapsed = time.perf_counter() - start
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        trainer.step(few, *batch[1:])  # two physical batches: more do not raise the peak
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        profile.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text())["traceEvents"]
    changes = [e for e in events if e.get("name") == "[memory]"]
    changes.sort(key=lambda event: event["ts"])
    live = peak = 0
    for event in changes:
        live += event["args"]["Bytes"]
        peak = max(peak, live)
    return elapsed, float(peak + standing_bytes(trainer))


def epoch_throughput(seconds: float = 6.0) -> dict[str, float]:
    """Purchase-100's shape: records a second of whole loops, sampling and data included.

    The seconds are those of the processor, since one thread does all.
    """
    n, rate = 150_000, 1 / 293
    generator = torch.Generator().manual_seed(0)
    packed = torch.randint(0, 256, (n, 75), dtype=torch.uint8, generator=generator)
    data = ArrayDataset(packed, torch.randint(100, (n,), generator=generator), unpack_bits)
    case = CASES[0]

    def run(step: Callable[[torch.Tensor], Any], batches: Any) -> float:
        count, start = 0, time.thread_time()
        for batch in batches:
            step(batch)
            count += len(batch[1]) if isinstance(batch, list) else len(batch)
            if time.thread_time() - start > seconds:
                break
        return count / (time.thread_time() - start)

    def poisson() -> Any:
        while True:  # epoch after epoch, as training draws them
            yield from poisson_batches(n, sample_rate=rate, num_steps=293, generator=generator)

    def loader() -> Any:
        return torch.utils.data.DataLoader(data, batch_size=512, shuffle=True)

    made = trainers(case, ["bookkeeping"], 4096)
    plain, private = made["plain"], made["bookkeeping"]
    one, inputs, labels = batch_of(case, 512)

    def on_arrays(trainer: Any) -> Callable[[torch.Tensor], Any]:
        return lambda batch: trainer.step(batch, data.inputs, data.labels)

    def on_items(batch: list) -> None:
        private.step(one[: len(batch[1])], lambda positions: batch[0][positions], batch[1])

    return {
        "bare plain step, one batch again and again": run(
            lambda batch: plain.step(batch, inputs, labels), iter(lambda: one, None)
        ),
        "plain, whole loop": run(on_arrays(plain), poisson()),
        "private, whole loop": run(on_arrays(private), poisson()),
        "private, items through a DataLoader": run(on_items, loader()),
    }


def time_steps(
    cases: list[Case], modes: list[str], quick: bool, by_threads: Sequence[int] = (1, 2)
) -> list[dict[str, Any]]:
    """Step times over a plain step, by one and two threads."""
    rows = []
    for threads in by_threads:
        torch.set_num_threads(threads)
        for case in cases:
            made, batch = trainers(case, modes, case.batch), batch_of(case, case.batch)
            times = step_times(made, batch, 2 if quick else case.repeats)
            row: dict[str, Any] = {
                "model": f"{case.title}, batch {case.batch}",
                "threads": threads,
                "plain ms": round(1e3 * statistics.median(times["plain"]), 1),
            }
            rows.append(row | {mode: ratio(times[mode], times["plain"]) for mode in modes})
            print(rows[-1], flush=True)
    return rows


def time_section(steps: list[dict[str, Any]]) -> str:
    """The table of step times."""
    modes = [name for name in steps[0] if name not in ("model", "threads", "plain ms")]
    rows = [
        [row["model"], str(row["threads"]), f"{row['plain ms']:.1f} ms"]
        + [shown(row[mode]) for mode in modes]
        for row in steps
    ]
    return table(["model", "threads", "plain step", *modes], rows)


def memory_section(cases: list[Case], modes: list[str]) -> str:
    """Time and peak memory at logical batch 512 (64 for the largest model)."""
    torch.set_num_threads(2)
    rows = []
    for case in cases:
        logical = 64 if case.name == "base" else 512
        seconds, bytes_ = logical_step(case, "plain", logical)
        row = [f"{case.title}, {logical}", f"{1e3 * seconds:.0f} ms, {bytes_ / 2**20:.0f} MB"]
        for mode in modes:
            found = logical_step(case, mode, logical)
            row.append(f"{found[0] / seconds:.2f}, {found[1] / bytes_:.2f}")
        rows.append(row)
        print(" | ".join(row), flush=True)
    return table(
        ["model, logical batch", "plain: time, peak", *(f"{m}: time, peak" for m in modes)], rows
    )


def epoch_section() -> str:
    """Whole loops."""
    torch.set_num_threads(1)
    rates = epoch_throughput()
    base = rates["bare plain step, one batch again and again"]
    rows = [[name, f"{rate:,.0f}", f"{rate / base:.2f}"] for name, rate in rates.items()]
    hours = [
        ["inf", f"{3600 / (30 * 150_000 / rates['plain, whole loop']):.0f}"],
        ["hi, lo", f"{3600 / (30 * 150_000 / rates['private, whole loop']):.0f}"],
    ]
    return (
        table(["Purchase-100's MLP", "records a second", "over the bare plain step"], rows)
        + "\n\nModels an hour of full-size Purchase-100 (n = 150,000, 30 epochs), "
        "from these rates:\n\n" + table(["scenario", "models an hour"], hours)
    )


def secure_section(quick: bool) -> str:
    """What --secure_mode costs: the same private MLP step, noise and a Poisson draw included."""
    torch.set_num_threads(1)
    case, batch = CASES[0], batch_of(CASES[0], 512)
    made = trainers(case, ["bookkeeping"], 512)
    generators: dict[str, Any] = {
        "private, torch.Generator": torch.Generator().manual_seed(0),
        "private, --secure_mode": SecureGenerator(),
    }
    steps: dict[str, Callable[[], Any]] = {"plain": lambda: made["plain"].step(*batch)}
    for name, generator in generators.items():
        trainer = trainers(case, ["bookkeeping"], 512)["bookkeeping"]
        trainer.optimizer.generator = generator
        steps[name] = partial(private_draw_and_step, trainer, generator, batch)
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(3 if quick else 40):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            times[name].append(time.perf_counter() - start)
    rows = [[name, cell(found, times["plain"])] for name, found in times.items()]
    return table(["MLP, batch 512 of n = 150,000, one thread", "over the plain step"], rows)


def private_draw_and_step(trainer: Any, generator: Any, batch: tuple) -> None:
    """One Poisson draw among 150,000, and one step on the fixed batch."""
    next(poisson_batches(150_000, sample_rate=1 / 293, num_steps=1, generator=generator))
    trainer.step(*batch)


def stack_section(quick: bool) -> str:
    """Processor seconds a model, trained in a stack over alone, whole runs on one thread."""
    torch.set_num_threads(1)
    rows = []
    generator = torch.Generator().manual_seed(0)
    packed = torch.randint(0, 256, (20_000, 75), dtype=torch.uint8, generator=generator)
    large = ArrayDataset(packed, torch.randint(100, (20_000,), generator=generator), unpack_bits)
    short = {"len_training": 15_000, "num_epochs": 5}
    for name, data, flags in [
        ("digits_inf", load_digits(), {}),
        ("digits_lo", load_digits(), {}),
        ("purchase100_inf", large, short),
        ("purchase100_lo", large, short),
    ]:
        settings = resolve({"scenario": name, **flags})
        mechanism_of(settings)
        seconds = {}
        for size in (1, 5, 10):
            with tempfile.TemporaryDirectory() as folder:
                count = 3 if size == 1 else size
                runs = [Run(derive_seeds(i), Path(folder) / str(i), i, i) for i in range(count)]
                start = time.process_time()
                list(train_many(settings, data, runs, stack=size, progress=False))
                seconds[size] = (time.process_time() - start) / count
        ratios = [f"{seconds[size] / seconds[1]:.2f}" for size in (5, 10)]
        rows.append(
            [name + (", n = 15,000, 5 epochs" if flags else ""), f"{seconds[1]:.2f} s", *ratios]
        )
        print(" | ".join(rows[-1]), flush=True)
    return table(["scenario", "alone", "stack of 5", "stack of 10"], rows)


def cpu() -> str:
    """The processor's name and number of cores."""
    name = platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next((line.split(": ")[1] for line in lines if line.startswith("model name")), name)
    return f"{name}, {torch.get_num_threads()} cores, no GPU"


def main() -> None:
    """The whole benchmark, or a part of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two repeats, nothing written")
    parser.add_argument("--models", nargs="*", default=[case.name for case in CASES])
    modes = [*GRAD_SAMPLE_MODES, *(["fastDP"] if available() else [])]
    parser.add_argument("--modes", nargs="*", default=modes)
    args = parser.parse_args()
    cases = [case for case in CASES if case.name in args.models]
    keep_freed_memory()  # as training does
    import opacus

    versions = (
        f"torch {torch.__version__}, opacus {opacus.__version__}, Python "
        f"{platform.python_version()}, {cpu()}."
    )
    steps = time_steps(cases, args.modes, args.quick)
    text = "\n\n".join(
        [
            "# Speed of private training",
            "Regenerated by `make bench`. Every figure is a ratio within one run: the rivals take "
            "the same step in turn. In brackets the middle half of the repeats. Times of one "
            "thread are those of its processor.",
            versions,
            RIVAL,
            "## A private step over a plain one (same optimiser)",
            time_section(steps),
            BOUNDS,
            "## Logical batches: time of one step and peak memory over plain (two threads)",
            memory_section(cases, [mode for mode in args.modes if mode != "fastDP"]),
            "## Whole epochs (one thread, seconds of its processor)",
            epoch_section(),
            "## Secure randomness",
            secure_section(args.quick),
            "## Stacks: processor time a model, over training alone (one thread)",
            stack_section(args.quick),
            gpu_section(),
        ]
    )
    print(text)
    if not args.quick:
        (HERE / "RESULTS.md").write_text(text + "\n", encoding="utf-8")
        report = {"versions": versions, "steps": steps}
        STEPS.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
