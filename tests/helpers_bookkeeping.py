"""Models of every kind with data, and their per-example gradients by a loop."""

import copy

import torch
from helpers_models import write_base

from mico_competition.competition.table import TASKS
from mico_competition.models.architectures import CNN, MLP, new_model
from mico_competition.training.losses import per_example_losses

# Relative to the norm of what a loop in float64 gives.
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}
TINY_NOISE = 1e-12


def sentences(batch, length):
    """Tokens of 5..299 with padding at the end, more of it in later examples; one is full."""
    ids = torch.randint(5, 300, (batch, length))
    ids[:, 0] = 0
    for row in range(1, batch):
        ids[row, max(2, length - 2 * row) :] = 1
    return {"input_ids": ids, "attention_mask": (ids != 1).long()}


def make(kind, folder, batch=5):
    """A model, inputs and labels; gradients of the examples differ in length."""
    torch.manual_seed(3)
    scale = torch.linspace(0.1, 2, batch)
    if kind == "cnn":
        inputs = torch.randn(batch, 3, 32, 32) * scale.view(-1, 1, 1, 1)
        return CNN(), inputs, torch.randint(10, (batch,))
    if kind == "mlp":
        records = (torch.rand(batch, 600) < scale.view(-1, 1) / 4).float()
        return MLP(), records, torch.randint(100, (batch,))
    model = new_model(TASKS["sst2"], base_model=write_base(folder))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4)  # fresh weights are so small that all sentences look the same
    length = {"roberta, short": 7, "roberta, long": 40}[kind]
    return model, sentences(batch, length), torch.randint(2, (batch,))


KINDS = ["cnn", "mlp", "roberta, short", "roberta, long"]


def cast(inputs, dtype):
    return inputs.to(dtype) if isinstance(inputs, torch.Tensor) else inputs


def rows(inputs, index):
    if isinstance(inputs, torch.Tensor):
        return inputs[index]
    return {name: values[index] for name, values in inputs.items()}


def gradients_by_loop(model, inputs, labels, losses=per_example_losses):
    """float64, one list of gradients an example, by autograd on batches of one."""
    model = copy.deepcopy(model).double()
    parameters = list(model.parameters())
    found = []
    for i in range(len(labels)):
        one = slice(i, i + 1)
        loss = losses(model, rows(cast(inputs, torch.float64), one), labels[one])
        found.append(torch.autograd.grad(loss.sum(), parameters))
    return found


def norms_of(gradients):
    return torch.stack([torch.cat([g.flatten() for g in one]).norm() for one in gradients])


def weighted_sums(gradients, weights):
    columns = zip(*gradients, strict=True)
    return [sum(w * g for w, g in zip(weights, column, strict=True)) for column in columns]
