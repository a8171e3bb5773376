"""The request that gpu.py gives to each of its parts, and the settings and records they train on.

Records are made up, in the shapes of Purchase-100, CIFAR-10 and SST-2; only the part `models`
takes the real CIFAR-10, if gpu.py is given its folder.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mico_competition.competition.table import get_scenario, get_task
from mico_competition.data.arrays import ArrayDataset, TokenDataset, normalise_cifar10, unpack_bits
from mico_competition.data.datasets import load_dataset
from mico_competition.models.inputs import Data, prepare
from mico_competition.training.settings import Settings, resolve

PRECISIONS = ("float32", "bfloat16", "tf32")
RECORDS = 40  # n of a tiny run
BASE: dict[str, Any] = {
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
TINY: dict[str, Any] = {
    **BASE,
    "vocab_size": 300,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}
# The words of SST-2's training sentences at 0, 5, ..., 100 % of them.  RoBERTa's tokenizer gives
# some 15 % more tokens, and two at the ends.
WORDS = (1, 1, 2, 2, 3, 3, 4, 4, 5, 6, 7, 8, 9, 10, 12, 13, 15, 18, 21, 26, 52)


Tell = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Asked:
    """What a part is to do.

    Attributes:
        device: where it runs.
        tiny: whether it only tries the script, with few records and small models.
        seconds: its time box.
        data: a folder with the real CIFAR-10; without one its images are made up.
        tests: the files whose tests marked gpu run.
    """

    device: torch.device
    tiny: bool
    seconds: float
    data: Path | None = None
    tests: Sequence[str] = ()

    def precisions(self) -> tuple[str, ...]:
        """The precisions of passes to measure: those of the device, or one to try the script."""
        if self.tiny:
            return PRECISIONS[:1]
        return PRECISIONS if self.device.type == "cuda" else PRECISIONS[:2]


@contextmanager
def settings_for(
    scenario: str, *, tiny: bool, base: Mapping[str, Any], **flags: Any
) -> Iterator[Settings]:
    """The settings of a scenario of 2022; the base of a text model is a folder in this block."""
    task = get_task(get_scenario(scenario).task)
    if tiny:
        flags |= {"len_training": RECORDS, "len_challenge": 10, "batch_size": RECORDS // 4}
        flags |= {"num_epochs": 1}
    with tempfile.TemporaryDirectory() as folder:
        if task.text:
            (Path(folder) / "config.json").write_text(json.dumps(base), encoding="utf-8")
            flags["model_name"] = folder
        yield resolve({"scenario": scenario, **flags})


def dataset_for(
    settings: Settings, base: Mapping[str, Any], folder: Path | None
) -> tuple[Data, str]:
    """Records for a scenario, and whether they are real or made up.

    Args:
        settings: of the scenario.
        base: the configuration of a text model.
        folder: holds the real dataset; None for records that are made up.
    """
    task = get_task(settings.task)
    if folder is not None:
        return prepare(settings.task, load_dataset(settings.task, folder), None)[0], "real"
    tiny = settings.len_training == RECORDS
    count = 2 * RECORDS if tiny else task.len_dataset
    if task.text:
        return sentences(count, task.max_length or 67, base["vocab_size"]), "made up"
    return made_up(task.name, count, task.num_classes), "made up"


def made_up(task: str, count: int, classes: int) -> ArrayDataset:
    """`count` records of the shape of Purchase-100 or CIFAR-10, each like others of its class."""
    generator = torch.Generator().manual_seed(0)
    shape = (75,) if task == "purchase100" else (3, 32, 32)
    labels = torch.randint(classes, (count,), generator=generator)
    means = torch.randint(0, 256, (classes, *shape), dtype=torch.uint8, generator=generator)
    storage = torch.randint(0, 256, (count, *shape), dtype=torch.uint8, generator=generator)
    if task == "purchase100":
        return ArrayDataset(storage, labels, unpack_bits)
    storage = storage // 2 + means[labels] // 2
    return ArrayDataset(storage, labels, normalise_cifar10)


def sentences(count: int, length: int, vocabulary: int) -> TokenDataset:
    """`count` sentences of random tokens, whose lengths are distributed as those of SST-2."""
    generator = torch.Generator().manual_seed(0)
    words = torch.tensor(WORDS)[torch.randint(len(WORDS), (count,), generator=generator)]
    lengths = (2 + (1.15 * words).long()).clamp_max(length)
    mask = (torch.arange(length) < lengths[:, None]).to(torch.uint8)
    ids = torch.randint(4, vocabulary, mask.shape, generator=generator, dtype=torch.int32)
    labels = torch.randint(2, (count,), generator=generator)
    return TokenDataset(ids.where(mask > 0, 1), mask, labels)
