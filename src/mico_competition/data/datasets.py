"""Loads the datasets of the tasks: finds or downloads the files, checks them, reads them to memory.

There is one function for each task, and `LOADERS` maps the package's tasks to them.  The loader of
a dataset of your own is beside the competition's file (docs/ORGANISE.md).  Files of other lengths
in the same form can be loaded too (synthetic and reduced datasets); lengths are compared with the
table only where a scenario is used.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch

from mico_competition.competition.table import TASKS, Task, current
from mico_competition.data.arrays import (
    ArrayDataset,
    TextDataset,
    normalise_cifar10,
    sixteenths,
    unpack_bits,
)
from mico_competition.data.cifar10_files import read_cifar10
from mico_competition.data.own_loader import load_by
from mico_competition.data.purchase100_files import read_purchase100
from mico_competition.data.sst2_files import read_sst2
from mico_competition.data.synthetic import make_baskets
from mico_competition.scoring.printable import printable
from mico_competition.support.files import PathLike
from mico_competition.support.progress import stage


def load_cifar10(dataset_dir: PathLike = ".", download: bool = True) -> ArrayDataset:
    """Load CIFAR-10: 50,000 training images, then 10,000 test images, in the official order.

    Args:
        dataset_dir: the folder that holds `cifar10/cifar-10-batches-bin` (or `-py`, or one of
            the official archives), with or without the `cifar10/`.
        download: fetch the official archive (170 MB) to `<dataset_dir>/cifar10` if there is none.

    Returns:
        Items (float32 [3, 32, 32], int 0..9); pixels over 255, minus the mean and over the
        standard deviation of their channel.

    Raises:
        FileNotFoundError: if there is no copy and `download` is false, or a file of it lacks.
        OSError: if the download fails.
        ValueError: if a file is damaged, or is a pickle of more than plain arrays.
            (The errors above are ValueErrors too.)

    >>> dataset = load_cifar10("data", download=True)  # doctest: +SKIP
    """
    pixels, labels = read_cifar10(dataset_dir, download)
    return ArrayDataset(_tensor(pixels), _tensor(labels), normalise_cifar10)


def load_purchase100(dataset_dir: PathLike = ".", download: bool = False) -> ArrayDataset:
    """Load Purchase-100: which of 600 products 197,324 shoppers bought, in 100 clusters.

    Args:
        dataset_dir: the folder that holds `purchase100/dataset_purchase` (or
            `dataset_purchase.tgz`), with or without the `purchase100/`.
        download: fetch the official archive to `<dataset_dir>/purchase100` if there is none.

    Returns:
        Items (float32 [600] of zeros and ones, int 0..99).

    Raises:
        FileNotFoundError: if there is no copy and `download` is false.
        OSError: if the download fails.
        ValueError: if the file is damaged or of another form; the message names the line.
            (The errors above are ValueErrors too.)

    >>> dataset = load_purchase100("data")  # doctest: +SKIP
    """
    bits, labels = read_purchase100(dataset_dir, download)
    return ArrayDataset(_tensor(bits), _tensor(labels), unpack_bits)


def load_sst2(dataset_dir: PathLike | None = None, download: bool = False) -> TextDataset:
    """Load SST-2: 67,349 training and then 872 validation sentences of film reviews.

    Args:
        dataset_dir: the folder that holds GLUE's `train.tsv` and `dev.tsv` or Hugging Face's
            parquet files, itself or in `SST-2` or `sst2`.  None: the copy of Hugging Face,
            downloaded unless it is in their cache.
        download: load the copy of Hugging Face if `dataset_dir` holds none.

    Returns:
        Items dict of `sentence` (str), `label` (0 negative, 1 positive) and `idx` (int, from 0
        in each of the two splits).

    Raises:
        FileNotFoundError: if there is no copy in `dataset_dir` and `download` is false.
        OSError: if the copy of Hugging Face cannot be loaded.
        ValueError: if a file is damaged; the message names the line.  (The errors above are
            ValueErrors too.)

    >>> dataset = load_sst2("data")  # doctest: +SKIP
    """
    sentences, labels, idx = read_sst2(dataset_dir, download)
    return TextDataset(sentences, torch.tensor(labels), torch.tensor(idx))


def load_digits(dataset_dir: PathLike | None = None, download: bool = False) -> ArrayDataset:
    """Load scikit-learn's 1,797 handwritten digits, the dataset of the demonstration.

    The digits come with scikit-learn, so both arguments are ignored.

    Returns:
        Items (float32 [64], grey levels in 0..1, int 0..9), in scikit-learn's order.

    >>> dataset = load_digits()
    >>> record, label = dataset[0]
    >>> len(dataset), record.shape, label
    (1797, torch.Size([64]), 0)
    """
    from sklearn.datasets import load_digits as bundled

    levels, labels = bundled(return_X_y=True)
    return ArrayDataset(_tensor(levels.astype(np.uint8)), _tensor(labels), sixteenths)


def load_baskets(dataset_dir: PathLike | None = None, download: bool = False) -> ArrayDataset:
    """Make 19,732 synthetic shopping baskets of 240 products in 20 clusters, to test attacks on.

    They are drawn from a fixed seed in a second or two, so both arguments are ignored.

    Returns:
        Items (float32 [240] of zeros and ones, int 0..19).
    """
    packed, labels = make_baskets(19_732, 0, 20, features=240, prototype_scale=0.7)
    return ArrayDataset(_tensor(packed), _tensor(labels), unpack_bits)


# `loader(dataset_dir)` never downloads; `loader(dataset_dir, download=True)` may.  The exception
# is SST-2 without a folder, which comes from Hugging Face.
LOADERS: dict[str, Callable[..., Any]] = {
    "cifar10": partial(load_cifar10, download=False),
    "purchase100": load_purchase100,
    "sst2": load_sst2,
    "digits": load_digits,
    "baskets": load_baskets,
}


def load_dataset(task: str, dataset_dir: PathLike | None = ".", download: bool = False) -> Any:
    """Load the dataset of `task` by its loader in `LOADERS`.

    Args:
        task: the name of a task.
        dataset_dir: the folder with the data; see the task's loader.
        download: download the data if the folder does not hold them.

    Raises:
        ValueError: if no loader is known for `task`, as the loader does, or if a loader of your
            own gives another number of records, or other labels, than the competition's file says.
    """
    row = TASKS.get(task)
    name = row.loader if row and row.loader else task
    if ":" in name:
        data = load_by(name, dataset_dir, download)
        if row:
            _hold_against(row, data)
        return data
    if name not in LOADERS:
        raise ValueError(
            f"No loader {name!r} for task {task!r}: choose one of {', '.join(LOADERS)}, or name "
            "your own in the competition's file."
        )
    loader = LOADERS[name]
    with stage(f"Reading the dataset of {task}"):
        return loader(dataset_dir, download=True) if download else loader(dataset_dir)


def _hold_against(row: Task, data: ArrayDataset | TextDataset) -> None:
    """Raise ValueError if a dataset of one's own is not what its task says."""
    fix = f"correct the loader, or [task.{row.name}] in {printable(current().path)}"
    if len(data) != row.len_dataset:
        raise ValueError(
            f"{row.loader} gives {len(data)} records where records = {row.len_dataset}: {fix}."
        )
    if row.text != isinstance(data, TextDataset):
        needs = "a TextDataset, since the task has" if row.text else "an array, since it has no"
        raise ValueError(
            f"{row.loader} gives {type(data).__name__}, not {needs} max_length: {fix}."
        )
    least, most = int(data.labels.min()), int(data.labels.max())
    if least < 0 or most >= row.num_classes:
        raise ValueError(
            f"{row.loader} gives labels from {least} to {most} where classes = {row.num_classes} "
            f"has those from 0 to {row.num_classes - 1}: {fix}."
        )


def _tensor(values: np.ndarray) -> torch.Tensor:
    """A tensor of `values`, which shares their memory if possible."""
    return torch.from_numpy(np.require(values, requirements=["C", "W"]))
