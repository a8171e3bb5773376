"""The part of gpu.py that times single steps: private ones and their rivals, in turn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from bench_cases import (
    Case,
    batch_of,
    bits,
    images,
    roberta,
    standing_bytes,
    step_times,
    tokens,
    trainers,
)
from gpu_data import Asked, Tell

from mico_competition.models.architectures import CNN, MLP
from mico_competition.models.precision import full_float32
from mico_competition.training.plain_trainer import PlainTrainer

IN_FULL = "plain in float32"
RIVALS = ("bookkeeping", "hooks", "ghost")
ON_A_GPU = tuple(
    f"bookkeeping, {how}" for how in ("graphs", "bfloat16", "bfloat16, graphs", "tf32")
)
CASES = [
    Case("mlp", "MLP 600-128-100", MLP, bits, 100, 512, torch.optim.Adam, 40),
    Case("cnn", "CNN", CNN, images, 10, 512, torch.optim.SGD, 20),
    Case("base", "RoBERTa 12 x 768", lambda: roberta(12, 768, 50_265), tokens, 2, 32,
         torch.optim.AdamW, 8),
    Case("small", "RoBERTa 2 x 128", lambda: roberta(2, 128), tokens, 2, 512,
         torch.optim.AdamW, 20),
]  # fmt: skip
TINY_CASES = [
    Case("mlp", "MLP 600-128-100", MLP, bits, 100, 16, torch.optim.Adam, 2),
    Case("cnn", "CNN", CNN, images, 10, 4, torch.optim.SGD, 2),
    Case("small", "RoBERTa 1 x 64", lambda: roberta(1, 64), tokens, 2, 4, torch.optim.AdamW, 2),
]


@dataclass
class InFloat32:
    """A plain trainer whose products are computed in full, as those of private steps are."""

    plain: PlainTrainer

    def step(self, *batch: Any) -> torch.Tensor:
        """Take a step."""
        with full_float32(batch[2].device):
            return self.plain.step(*batch)


def steps(asked: Asked, tell: Tell) -> None:
    """Time a private step and its rivals, in turn, against a plain one."""
    modes = (*RIVALS, *(ON_A_GPU if asked.device.type == "cuda" else ON_A_GPU[:2]))
    for case in TINY_CASES if asked.tiny else CASES:
        tell(measure_case(case, modes, asked.device))


def measure_case(case: Case, modes: Sequence[str], device: torch.device) -> dict[str, Any]:
    """Each rival's seconds of every repeat, and the most memory that its step needs."""
    batch = batch_of(case, case.batch, device)
    made = trainers(case, modes, case.batch, device)
    rivals: dict[str, Any] = {"plain": made.pop("plain")}
    rivals[IN_FULL] = InFloat32(rivals["plain"])
    failed = {}
    for mode, trainer in made.items():
        try:
            trainer.step(*batch)
            rivals[mode] = trainer
        except (RuntimeError, ValueError) as error:  # the others still count
            failed[mode] = f"{type(error).__name__}: {error}"
    times = step_times(rivals, batch, case.repeats, warm_up=3)
    for mode in [each for each in rivals if "graphs" in each]:
        if why := without_graphs(rivals[mode]):  # it measured steps as they are without
            failed[mode] = why
            del rivals[mode], times[mode]
    peaks = {}
    for mode, trainer in rivals.items() if device.type == "cuda" else ():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        trainer.step(*batch)
        owner = getattr(trainer, "plain", trainer)
        peaks[mode] = torch.cuda.max_memory_allocated() - before + standing_bytes(owner)
    row = {"title": case.title, "batch": case.batch, "seconds": times, "peak_bytes": peaks}
    return row | ({"failed": failed} if failed else {})


def without_graphs(trainer: Any) -> str:
    """Why a trainer's steps ran without CUDA graphs; nothing if they ran with them."""
    if trainer.graphs is None:
        return f"no CUDA graphs on {trainer.device.type}"
    return f"no CUDA graphs: {trainer.graphs.off}" if trainer.graphs.off else ""


def profile(asked: Asked, tell: Tell) -> None:
    """The operations that take longest in five private steps, as torch's profiler prints them."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    if asked.device.type == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    for case in TINY_CASES[:1] if asked.tiny else CASES[:3]:
        trainer = trainers(case, ["bookkeeping"], case.batch, asked.device)["bookkeeping"]
        batch = batch_of(case, case.batch, asked.device)
        for _ in range(3):
            trainer.step(*batch)
        with torch.profiler.profile(activities=activities) as found:
            for _ in range(5):
                trainer.step(*batch)
        rows = found.key_averages()
        options: dict[str, Any] = {"row_limit": 15, "max_name_column_width": 50}
        orders = [f"self_{kind.name.lower()}_time_total" for kind in activities]
        tell({"title": case.title, "tables": [rows.table(sort_by=o, **options) for o in orders]})
