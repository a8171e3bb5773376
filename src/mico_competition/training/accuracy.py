"""The accuracy and the loss of a trained model."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from mico_competition.models.architectures import logits
from mico_competition.models.inputs import Data, sent
from mico_competition.training.sentence_order import OrderedRecords


def evaluate(
    model: nn.Module, data: Data, indices: torch.Tensor, *, batch_size: int = 1024
) -> dict[str, Any]:
    """The accuracy in [0, 1] and mean cross-entropy over the records at `indices`.

    Both are None if there are no records.
    """
    if not len(indices):
        return {"accuracy": None, "loss": None, "evaluation_records": 0}
    model.eval()
    indices = indices.to(data.labels.device)
    correct = torch.zeros((), dtype=torch.int64, device=indices.device)  # read once, at the end
    loss = torch.zeros((), dtype=torch.float64, device=indices.device)
    records = OrderedRecords(model, data, indices)
    # The host knows how long sentences are, but records that stay as they come are on the device.
    host = torch.device("cpu") if records.ordered else indices.device
    places = records.order(torch.arange(len(indices), device=host))
    with torch.no_grad():
        for at in places.split(batch_size):
            labels = data.labels[indices[sent(at, indices.device)]]
            outputs = logits(model, records.inputs(at))
            correct += (outputs.argmax(1) == labels).sum()
            loss += cross_entropy(outputs, labels, reduction="sum")
    n = len(indices)
    return {"accuracy": int(correct) / n, "loss": float(loss) / n, "evaluation_records": n}
