"""Processor time of a step of a model in a stack, over the same step of the same model alone.

    python benchmarks/stack_steps.py

One thread; both take the same batches in turn, and each number is a ratio of medians over all steps
but the first, which has checks.  The table is in docs/howto/gpu.md.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from mico_competition.models.architectures import CNN
from mico_competition.training.dpsgd import DPSGD
from mico_competition.training.plain_trainer import PlainTrainer
from mico_competition.training.stacked_model import stacked
from mico_competition.training.stacked_step import StackedDPSGD, StackedPlainTrainer

PRIVATE = {"noise_multiplier": 1.0, "max_grad_norm": 1.0, "max_physical_batch_size": 4096}


def digits_cnn() -> nn.Module:
    """6,090 weights, for images of 8 x 8."""
    layers = (nn.Conv2d(1, 16, 3, padding=1), nn.Tanh(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3))
    return nn.Sequential(*layers, nn.Tanh(), nn.Flatten(), nn.Linear(128, 10))


def narrow_cnn() -> nn.Module:
    """24 and 48 channels, for images of 32 x 32."""
    first = (nn.Conv2d(3, 24, 8, stride=2, padding=3), nn.Tanh(), nn.MaxPool2d(3, 1))
    second = (nn.Conv2d(24, 48, 3), nn.Tanh(), nn.Conv2d(48, 48, 3, padding=1), nn.Tanh())
    return nn.Sequential(*first, *second, nn.AvgPool2d(2, 2), nn.Flatten(), nn.Linear(1728, 10))


def roberta(width: int) -> nn.Module:
    """Two layers, without dropout."""
    from transformers import RobertaConfig, RobertaForSequenceClassification

    rates = dict.fromkeys(("hidden_dropout_prob", "attention_probs_dropout_prob"), 0.0)
    sizes = {"vocab_size": 2000, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = RobertaConfig(
        hidden_size=width, intermediate_size=4 * width, max_position_embeddings=70,
        type_vocab_size=1, **sizes, **rates,
    )  # fmt: skip
    return RobertaForSequenceClassification(config).train()


# Name, model, shape of a record, classes, batch, models, steps.
CASES: list[tuple[str, Callable[[], nn.Module], tuple[int, ...], int, int, int, int]] = [
    ("CNN of 6,090 weights on 8 x 8 images", digits_cnn, (1, 8, 8), 10, 12, 10, 30),
    ("the same", digits_cnn, (1, 8, 8), 10, 50, 10, 15),
    ("CNN of 48 channels on 32 x 32 images", narrow_cnn, (3, 32, 32), 10, 8, 10, 7),
    ("the same", narrow_cnn, (3, 32, 32), 10, 32, 10, 4),
    ("CNN of CIFAR-10", CNN, (3, 32, 32), 10, 16, 4, 3),
    ("RoBERTa, 2 layers of width 32", lambda: roberta(32), (16,), 2, 8, 5, 9),
    ("RoBERTa, 2 layers of width 128", lambda: roberta(128), (16,), 2, 32, 5, 4),
]


def ratio(case: Any, private: bool) -> float:
    """Seconds of a step in a stack, over those of the same models one after another."""
    _, make, shape, classes, batch, count, steps = case
    torch.manual_seed(0)
    n, text = 4 * batch, len(shape) == 1
    x = torch.randint(3, 2000, (count, n, *shape)) if text else torch.randn(count, n, *shape)
    labels = torch.randint(classes, (count, n))
    models = [make() for _ in range(count)]
    whole = stacked(models)
    noises = [[torch.Generator().manual_seed(i) for i in range(count)] for _ in range(2)]
    options = {"expected_batch_size": batch, **PRIVATE}
    sgd = [torch.optim.SGD(m.parameters(), lr=1e-3) for m in (*models, whole)]
    alone: list[Any]
    if private:
        together: Any = StackedDPSGD(whole, sgd[-1], noise_generators=noises[0], **options)
        alone = [
            DPSGD(m, o, noise_generator=g, **options) for m, o, g in zip(models, sgd, noises[1])
        ]
    else:
        together = StackedPlainTrainer(whole, sgd[-1], 4096)
        alone = [PlainTrainer(m, o, 4096) for m, o in zip(models, sgd)]
    rows = torch.arange(count).unsqueeze(1)

    def inputs(values: torch.Tensor) -> Any:
        mask = {"input_ids": values, "attention_mask": torch.ones_like(values)}
        return mask if text else values

    seconds: list[tuple[float, float]] = []
    for _ in range(steps + 1):
        batches = [torch.randperm(n)[:batch] for _ in range(count)]
        start = time.process_time()
        for trainer, at, own, wanted in zip(alone, batches, x, labels):
            trainer.step(at, lambda at, own=own: inputs(own[at]), wanted)
        between = time.process_time()
        together.step(batches, lambda at: inputs(x[rows, at].flatten(0, 1)), labels)
        seconds.append((time.process_time() - between, between - start))
    stack, single = (statistics.median(each) for each in zip(*seconds[1:]))
    return stack / single


def main() -> None:
    """Print the table."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    torch.set_num_threads(1)
    print("| model | batch | stack | plain | private |\n|---|---|---|---|---|")
    for case in CASES:
        plain, private = (ratio(case, private) for private in (False, True))
        print(f"| {case[0]} | {case[4]} | {case[5]} | {plain:.2f} | {private:.2f} |", flush=True)


if __name__ == "__main__":
    main()
