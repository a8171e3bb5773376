"""PrivateTrainer refuses whatever would make its claim wrong."""

import copy

import pytest
import torch
from helpers_private_trainer import net, records, run, trainer_of
from torch import nn

import mico_competition as mico
from mico_competition.training import private_plan


def test_a_step_needs_a_drawn_batch_each_only_once():
    inputs, targets = records()
    trainer = trainer_of()
    with pytest.raises(ValueError, match=r"No batch waits.*trainer\.batches"):
        trainer.step(inputs[:20], targets[:20])
    batch = next(iter(trainer.batches()))
    with pytest.raises(ValueError, match=f"Expected the {len(batch)} examples"):
        trainer.step(inputs, targets)
    trainer.step(inputs[batch], targets[batch])
    with pytest.raises(ValueError, match="No batch waits"):
        trainer.step(inputs[batch], targets[batch])
    assert trainer.steps_taken == 1


def test_a_batch_that_is_left_out_is_refused_and_one_after_a_break_comes_again():
    trainer = trainer_of()
    batches = trainer.batches()
    first = next(batches)
    with pytest.raises(ValueError, match="Batch 1 was drawn, but trainer.step was called on it 0"):
        next(batches)
    assert torch.equal(next(trainer.batches()), first)
    run(trainer)
    assert trainer.steps_taken == trainer.num_steps


def test_more_steps_than_planned_are_refused():
    trainer = run(trainer_of())
    with pytest.raises(ValueError, match="All 6 planned steps have been taken"):
        run(trainer)


def test_weights_that_others_change_are_refused():
    trainer = run(trainer_of(), 2)
    with torch.no_grad():
        trainer.model[0].weight.add_(1)
    for use in (lambda: run(trainer), trainer.certificate, trainer.state_dict):
        with pytest.raises(ValueError, match=r"Tensor 0\.weight of the model was changed"):
            use()


def test_a_model_that_another_trainer_has_trained_is_refused():
    """As when a cell of a notebook that makes the trainer runs twice."""
    first = run(trainer_of(), 1)
    second = trainer_of(first.model)
    with pytest.raises(ValueError, match="Another PrivateTrainer has trained this model"):
        run(second)
    second.load_state_dict(first.state_dict())
    run(second)
    assert second.steps_taken == second.num_steps
    run(trainer_of(copy.deepcopy(second.model)))


def test_a_step_that_fails_before_the_noise_can_be_repeated():
    inputs, targets = records()
    trainer = run(trainer_of(), 1)
    for batch in trainer.batches():
        with pytest.raises((ValueError, RuntimeError)):
            trainer.step(torch.randn(len(batch), 5), targets[batch])
        before = trainer.steps_taken
        trainer.step(inputs[batch], targets[batch])
        assert trainer.steps_taken == before + 1
    assert trainer.steps_taken == 6


def test_a_step_that_fails_after_the_noise_counts_and_ends_the_run():
    trainer = run(trainer_of(), 1)

    def fails(*_, **__):
        raise KeyboardInterrupt

    trainer.optimizer.step = fails
    with pytest.raises(KeyboardInterrupt):
        run(trainer)
    assert trainer.steps_taken == 2
    with pytest.raises(ValueError, match="The last step failed while it changed weights"):
        run(trainer)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"target_epsilon": 3}, "one of target_epsilon and noise_multiplier"),
        ({"noise_multiplier": None}, "one of target_epsilon and noise_multiplier"),
        ({"noise_multiplier": None, "target_epsilon": 3}, "needs target_delta"),
        ({"noise_multiplier": 0}, "no privacy without noise"),
        ({"target_delta": 1}, r"target_delta=1 in \(0, 1\)"),
        ({"batch_size": 61}, "batch_size=61 <= num_records=60"),
        ({"epochs": 0}, "epochs=0"),
        ({"num_records": 60.0}, "num_records=60.0 to be a whole number"),
        ({"max_grad_norm": 0}, "max_grad_norm=0"),
        ({"loss": "mse"}, "Unknown loss 'mse'.*squared_error"),
    ],
)
def test_arguments_out_of_range_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        trainer_of(**changes)


def test_without_opacus_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr(private_plan, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="needs the package opacus: pip install"):
        trainer_of()


def test_an_optimizer_of_other_parameters_is_refused():
    model, other = net(), nn.Linear(2, 2)
    with pytest.raises(ValueError, match="holds a parameter that is not the model's"):
        mico.PrivateTrainer(
            model,
            torch.optim.SGD([*model.parameters(), *other.parameters()], lr=1),
            noise_multiplier=1.0,
            num_records=9,
            batch_size=3,
            epochs=1,
            max_grad_norm=1.0,
        )
