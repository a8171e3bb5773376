"""A tiny model, its records, and a private trainer of them."""

import torch
from torch import nn

import mico_competition as mico

N = 60


def net(outputs=3):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, outputs))


def records():
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(N, 4, generator=generator)
    return inputs, torch.randint(3, (N,), generator=generator)


def trainer_of(model=None, optimizer=torch.optim.SGD, lr=0.1, **changes):
    model = net() if model is None else model
    arguments = {
        "noise_multiplier": 1.0,
        "num_records": N,
        "batch_size": 20,
        "epochs": 2,
        "max_grad_norm": 1.0,
        "seed": 7,
        **changes,
    }
    trained = [p for p in model.parameters() if p.requires_grad]
    return mico.PrivateTrainer(model, optimizer(trained, lr=lr), **arguments)


def run(trainer, steps=None):
    inputs, targets = records()
    for batch in trainer.batches(steps):
        trainer.step(inputs[batch], targets[batch])
    return trainer


def weights(trainer):
    return [p.detach().clone() for p in trainer.model.parameters()]


class Named(nn.Module):
    """Takes two arguments by name."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, values, scale):
        return self.layer(values * scale)
