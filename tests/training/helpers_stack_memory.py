"""Measures what a stack takes: `python helpers_stack_memory.py KIND PRIVATE STACK PHYSICAL`.

It prints by how much the memory of this process grew at most in two steps, and the formula's
number, in bytes.  The steps take as many records as a batch may have; a stack of two has run
before, so that what torch loads at its first steps does not count.
"""

import ctypes
import sys
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from mico_competition.data.arrays import ArrayDataset, TokenDataset
from mico_competition.models.architectures import CNN, MLP
from mico_competition.support.memory_limits import PeakMemory
from mico_competition.training import stack_memory
from mico_competition.training.accounting import Mechanism
from mico_competition.training.fixed_shapes import fixed_length
from mico_competition.training.settings import resolve
from mico_competition.training.stack_memory import sizes_of, stack_bytes
from mico_competition.training.streams import Streams
from mico_competition.training.train_stack import fit_stack_records

TOKENS = 67


def roberta(width):
    """Two layers, without dropout."""
    from transformers import RobertaConfig, RobertaForSequenceClassification

    rates = dict.fromkeys(("hidden_dropout_prob", "attention_probs_dropout_prob"), 0.0)
    sizes = {"vocab_size": 2000, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = RobertaConfig(
        hidden_size=width, intermediate_size=4 * width, max_position_embeddings=TOKENS + 2,
        type_vocab_size=1, **sizes, **rates,
    )  # fmt: skip
    return RobertaForSequenceClassification(config).train()


def small_cnn():
    layers = (nn.Conv2d(1, 16, 3, padding=1), nn.Tanh(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3))
    return nn.Sequential(*layers, nn.Tanh(), nn.Flatten(), nn.Linear(128, 10))


def norm_cnn():
    first = (nn.Conv2d(3, 32, 3, padding=1), nn.GroupNorm(8, 32), nn.ReLU(), nn.MaxPool2d(2))
    second = (nn.Conv2d(32, 64, 3, padding=1), nn.GroupNorm(8, 64), nn.ReLU())
    return nn.Sequential(
        *first, *second, nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(1024, 10)
    )


# A model, the shape of a record, its scenarios, and the size of a batch.
KINDS: dict[str, tuple[Any, tuple[int, ...], str, int]] = {
    "mlp": (MLP, (600,), "purchase100", 512),
    "cnn": (CNN, (3, 32, 32), "cifar10", 128),
    "small_cnn": (small_cnn, (1, 8, 8), "cifar10", 128),
    "norm_cnn": (norm_cnn, (3, 32, 32), "cifar10", 128),
    "text": (lambda: roberta(32), (TOKENS,), "sst2", 128),
    "wide_text": (lambda: roberta(128), (TOKENS,), "sst2", 128),
}


def data_of(kind, records):
    shape = KINDS[kind][1]
    if "text" not in kind:
        return ArrayDataset(torch.rand(records, *shape), torch.arange(records) % 10, torch.clone)
    ids = torch.randint(3, 2000, (records, *shape), dtype=torch.int32)
    mask = torch.ones(records, *shape, dtype=torch.uint8)
    return TokenDataset(ids, mask, torch.arange(records) % 2)


def train(make, settings, data, count):
    mechanism, longest, n = None, settings.batch_size, settings.len_training
    if not settings.disable_dp:
        mechanism = Mechanism(1.0, settings.sample_rate, settings.num_steps)
        longest = fixed_length(settings.expected_batch_size, n)
    models = [make() for _ in range(count)]
    rows = torch.stack([torch.randperm(len(data))[:n] for _ in models])
    batch = torch.arange(min(longest, 2 * settings.max_physical_batch_size))
    options = {"epoch": lambda *_: iter([batch, batch]), "mechanism": mechanism}
    streams = [Streams(i, i, i) for i in range(count)]
    fit_stack_records(settings, models, data, rows, streams, False, **options)


def main(kind, private, stack, physical):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    make, _, task, batch = KINDS[kind]
    settings = resolve({
        "scenario": f"{task}_{'lo' if private else 'inf'}", "num_epochs": 1, "batch_size": batch,
        "len_training": 1000, "len_challenge": 100, "max_physical_batch_size": physical,
    })  # fmt: skip
    data = data_of(kind, 1100)
    formula = stack_bytes(settings, sizes_of(make(), data.inputs(torch.arange(1)), private), stack)
    stack_memory.memory_of = lambda device: None
    train(make, replace(settings, max_physical_batch_size=2), data, 2)
    ctypes.CDLL(None).malloc_trim(0)  # what is free would hide what is taken
    peak = PeakMemory()
    train(make, settings, data, stack)
    print(peak.growth(), formula)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2] == "private", int(sys.argv[3]), int(sys.argv[4]))
