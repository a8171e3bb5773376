"""Which layers, frozen parameters and forward passes PrivateTrainer takes."""

import numpy as np
import pytest
import torch
from helpers_private_trainer import Named, net, records, run, trainer_of
from torch import nn


def test_frozen_parameters_stay_and_cost_nothing():
    model = net()
    model[0].requires_grad_(False)
    before = model[0].weight.clone()
    trainer = run(trainer_of(model))
    assert torch.equal(before, model[0].weight)
    assert list(trainer.layers()) == ["2"]
    assert trainer.certificate(1e-5)["frozen_parameters"] == 40
    model[0].requires_grad_(True)
    trainer.epsilon(1e-5)


def test_a_parameter_that_is_thawed_later_is_refused():
    model = net()
    model[0].requires_grad_(False)
    trainer = run(trainer_of(model), 1)
    model[0].weight.requires_grad_(True)
    with pytest.raises(ValueError, match=r"0\.weight is frozen, or not, in another way"):
        run(trainer)


def test_batch_normalisation_is_refused_in_train_mode_and_works_frozen_in_eval_mode():
    def model():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 3))

    with pytest.raises(ValueError, match="BatchNorm.*eval mode"):
        trainer_of(model())
    frozen = model()
    frozen[:2].eval().requires_grad_(False)
    run(trainer_of(frozen))


class InPlace(nn.Module):
    """Changes a layer's input, output or their sum in place."""

    def __init__(self, way):
        super().__init__()
        self.one, self.two, self.head = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.way = way

    def forward(self, x):
        x = self.one(x)
        if self.way == "relu":
            x = nn.functional.relu_(x)
        y = self.two(x)
        if self.way == "input":
            x.mul_(2)
        if self.way == "residual":
            y += x
        return self.head(nn.functional.relu(y, inplace=self.way == "output"))


@pytest.mark.parametrize("way", ["relu", "residual", "output"])
def test_operations_in_place_that_autograd_allows_work(way):
    run(trainer_of(InPlace(way)), 2)


def test_an_input_changed_in_place_is_refused_in_a_sentence():
    with pytest.raises(ValueError, match=r"two.*in place|in place.*two|inplace"):
        run(trainer_of(InPlace("input")), 2)


def test_dictionaries_of_arrays_become_named_arguments():
    inputs, targets = records()
    trainer = trainer_of(Named())
    for batch in trainer.batches(2):
        values = {"values": inputs[batch].numpy(), "scale": np.ones((len(batch), 1), np.float32)}
        trainer.step(values, targets[batch])
    assert trainer.steps_taken == 2
