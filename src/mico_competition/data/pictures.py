"""Shows records in a notebook: as pictures, as rows of zeros and ones, or as sentences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from mico_competition.data.arrays import TextDataset


def show_points(
    dataset: Any, indices: torch.Tensor, *, most: int = 20, class_names: Sequence[str] = ()
) -> Any:
    """Show the first `most` of the records at `indices`, in a form that suits the dataset.

    Args:
        dataset: an ArrayDataset or a TextDataset, as a loader returns it.
        indices: int64[points], indices into the dataset.
        most: how many to show.
        class_names: the names of classes, by label (`Task.class_names`); a class without a name
            is shown as a number.

    Returns:
        A pandas frame (sentence, label) for text; else a matplotlib figure: one tile a record
        for images, one row a record for records of zeros and ones.
    """
    indices = indices[:most]
    if isinstance(dataset, TextDataset):
        import pandas as pd

        items = [dataset[int(i)] for i in indices]
        labels = _captions([int(item["label"]) for item in items], class_names)
        return pd.DataFrame({"sentence": [item["sentence"] for item in items], "label": labels})
    storage = dataset.storage[indices]
    labels = _captions(dataset.labels[indices].tolist(), class_names)
    if storage.ndim == 4:
        return _tiles(storage.permute(0, 2, 3, 1).numpy(), labels)
    return _rows(dataset.inputs(indices).numpy(), labels)


def _captions(labels: list[int], class_names: Sequence[str]) -> list[str]:
    """The name of each label's class, or `class 4` where it has none."""
    return [
        class_names[label] if label < len(class_names) else f"class {label}" for label in labels
    ]


def _tiles(pixels: Any, labels: list[str]) -> Any:
    from matplotlib.figure import Figure

    columns = min(10, len(labels))
    rows = -(-len(labels) // columns)
    figure = Figure(figsize=(columns * 0.95, rows * 1.15), layout="tight")
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for axis in axes:
        axis.axis("off")
    for axis, image, label in zip(axes, pixels, labels):
        axis.imshow(image)
        axis.set_title(label, fontsize=8)
    return figure


def _rows(records: Any, labels: list[str]) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 0.6 + 0.16 * len(labels)), layout="tight")
    axis = figure.subplots()
    axis.imshow(records, aspect="auto", cmap="Greys", interpolation="nearest")
    axis.set_yticks(range(len(labels)), labels, fontsize=6)
    axis.set_xlabel("feature")
    return figure
