"""Correct models pass the checks before the first step, which leave no trace of themselves."""

import pytest
import torch
from helpers_bookkeeping import make, rows
from helpers_correct_models import CORRECT, InPlace
from helpers_faults import Unchecked
from helpers_private_checks import Net, data, trainer_of, values

from mico_competition.training.dpsgd import GRAD_SAMPLE_MODES


@pytest.mark.slow
@pytest.mark.parametrize("mode", GRAD_SAMPLE_MODES)
@pytest.mark.parametrize("name", CORRECT)
def test_correct_models_are_trained_and_the_checks_change_nothing(name, mode):
    """Weights, the optimiser and all random streams are those of a run without checks."""
    ends = []
    for unchecked in (False, True):
        torch.manual_seed(1)
        model = CORRECT[name]()
        inputs, labels = data(model)
        trainer = trainer_of(model, mode, size=7, optimizer=torch.optim.Adam)
        if unchecked:
            trainer.checks = Unchecked()
        torch.manual_seed(2)
        for batch in (torch.arange(0), torch.arange(20), torch.tensor([3])):
            trainer.step(batch, inputs.__getitem__, labels)
        state = trainer.optimizer.original_optimizer.state
        moments = [v for entry in state.values() for v in entry.values()]
        draws = [torch.get_rng_state(), trainer.optimizer.generator.get_state()]
        ends.append([*values(model), *moments, *draws])
    assert len(ends[0]) == len(ends[1]) and all(map(torch.equal, *ends))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "seed"),
    [
        ("cnn", 0),
        ("cnn", 1),
        *(("mlp", s) for s in range(6)),
        *(("roberta, short", s) for s in (0, 1)),
    ],
)
def test_the_competitions_models_are_let_through(kind, seed, tmp_path):
    """Whatever the lengths of batches and the clipping norm."""
    torch.manual_seed(seed)
    count = int(torch.randint(1, 8, ()))
    model, inputs, labels = make(kind, tmp_path, batch=8)
    trainer = trainer_of(model, size=int(torch.randint(1, 10, ())), norm=10.0 ** (2 * seed - 3))
    trainer.step(torch.arange(count), lambda index: rows(inputs, index), labels)


def test_double_precision_is_let_through():
    torch.manual_seed(0)
    model = Net().double()
    inputs, labels = data(model)
    inputs = inputs.double()
    trainer_of(model).step(torch.arange(20), inputs.__getitem__, labels)


def test_layers_that_change_their_input_in_place_are_let_through():
    torch.manual_seed(0)
    model = InPlace()
    inputs, labels = data(model)
    trainer_of(model).step(torch.arange(20), inputs.__getitem__, labels)
