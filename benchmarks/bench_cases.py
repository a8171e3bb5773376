"""Models, batches and trainers whose steps are timed by bench.py (CPU) and gpu.py (GPU)."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from fastdp_rival import FastDPTrainer
from torch import nn

from mico_competition.training.dpsgd import DPSGD
from mico_competition.training.plain_trainer import PlainTrainer


@dataclass(frozen=True)
class Case:
    """A model with a batch of made-up records; `batch` examples go through at once."""

    name: str
    title: str
    make: Callable[[], nn.Module]
    inputs: Callable[[int], Any]
    classes: int
    batch: int
    optimizer: type[torch.optim.Optimizer]
    repeats: int


def roberta(layers: int, width: int, vocabulary: int = 8000) -> nn.Module:
    """A text classifier from a configuration, in train mode with dropout, as it is trained."""
    from transformers import RobertaConfig, RobertaForSequenceClassification

    config = RobertaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        intermediate_size=4 * width,
        max_position_embeddings=80,
        type_vocab_size=1,
    )
    return RobertaForSequenceClassification(config)


def tokens(count: int) -> dict[str, torch.Tensor]:
    """SST-2's shape: 67 places, some 15 of them words."""
    ids = torch.randint(5, 8000, (count, 67))
    mask = torch.arange(67) < torch.randint(8, 25, (count, 1))
    return {"input_ids": ids.where(mask, 1), "attention_mask": mask.long()}


def bits(count: int) -> torch.Tensor:
    """Purchase-100's shape."""
    return torch.rand(count, 600).round()


def images(count: int) -> torch.Tensor:
    """CIFAR-10's shape."""
    return torch.randn(count, 3, 32, 32)


def trainers(
    case: Case, modes: Sequence[str], physical: int, device: torch.device | str = "cpu"
) -> dict[str, Any]:
    """The plain step and the private ones, each with a model of its own from the same seed.

    A mode of Opacus or ours may be followed by a precision, `graphs`, or both, after commas.
    """
    made: dict[str, Any] = {}
    for mode in ["plain", *modes]:
        torch.manual_seed(0)
        model = case.make().train().to(device)
        optimizer = case.optimizer(model.parameters(), lr=1e-4)
        if mode == "plain":
            made[mode] = PlainTrainer(model, optimizer, physical)
        elif mode == "fastDP":
            made[mode] = FastDPTrainer(model, optimizer, case.batch)
        else:
            name, *how = mode.split(", ")
            made[mode] = DPSGD(
                model,
                optimizer,
                noise_multiplier=1.0,
                max_grad_norm=1.0,
                expected_batch_size=case.batch,
                max_physical_batch_size=physical,
                grad_sample_mode=name,
                precision=next((each for each in how if each != "graphs"), "float32"),
                cuda_graphs="graphs" in how,
                noise_generator=torch.Generator(device).manual_seed(0),
            )
    return made


def batch_of(
    case: Case, count: int, device: torch.device | str = "cpu"
) -> tuple[torch.Tensor, Callable, torch.Tensor]:
    """Positions, the function that gives their inputs, and labels."""
    torch.manual_seed(1)
    whole, labels = case.inputs(count), torch.randint(case.classes, (count,)).to(device)
    if isinstance(whole, dict):
        whole = {name: value.to(device) for name, value in whole.items()}
    else:
        whole = whole.to(device)

    def inputs(positions: torch.Tensor) -> Any:
        if isinstance(whole, dict):
            return {name: value[positions] for name, value in whole.items()}
        return whole[positions]

    return torch.arange(count, device=device), inputs, labels


def step_times(
    made: dict[str, Any], batch: tuple, repeats: int, warm_up: int = 1
) -> dict[str, list[float]]:
    """Seconds of each repeat, rivals in turn; the first rounds warm up and are not counted.

    With one thread of a CPU they are of its processor, which other programs change little.
    """
    times: dict[str, list[float]] = {mode: [] for mode in made}
    wait = torch.cuda.synchronize if batch[2].is_cuda else lambda: None
    alone = torch.get_num_threads() == 1 and not batch[2].is_cuda
    clock = time.thread_time if alone else time.perf_counter
    for repeat in range(repeats + warm_up):
        for mode, trainer in made.items():
            wait()
            start = clock()
            trainer.step(*batch)
            wait()
            if repeat >= warm_up:
                times[mode].append(clock() - start)
    return times


def standing_bytes(trainer: Any) -> int:
    """What a trainer holds between steps: weights and the optimiser's state."""
    standing = sum(p.nbytes for p in trainer.model.parameters())
    optimizer = getattr(trainer.optimizer, "original_optimizer", trainer.optimizer)
    for state in optimizer.state.values():
        standing += sum(v.nbytes for v in state.values() if isinstance(v, torch.Tensor))
    return standing


def ratio(times: Sequence[float], base: Sequence[float]) -> list[float]:
    """The ratio of medians, and the middle half of the ratios by repeat."""
    ratios = sorted(t / b for t, b in zip(times, base))
    low, high = ratios[len(ratios) // 4], ratios[(3 * len(ratios)) // 4]
    middle = statistics.median(times) / statistics.median(base)
    return [round(value, 2) for value in (middle, low, high)]


def shown(found: list[float]) -> str:
    """A ratio with its middle half."""
    return "{:.2f} ({:.2f}-{:.2f})".format(*found)


def cell(times: Sequence[float], base: Sequence[float]) -> str:
    """The ratio of two columns of seconds, with its middle half."""
    return shown(ratio(times, base))
