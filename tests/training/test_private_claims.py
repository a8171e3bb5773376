"""No claim covers weights that counted, private steps did not make, nor noise used twice."""

import copy
import logging
from functools import partial

import pytest
import torch
from test_private_trainer import net, records, run, trainer_of
from torch import nn

INPUTS, TARGETS = records()
ADAM = partial(torch.optim.Adam)


def plain_step(model):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    nn.functional.cross_entropy(model(INPUTS), TARGETS).backward()
    optimizer.step()
    optimizer.zero_grad()


# -- weights that something else made ---------------------------------------------------------


def test_plain_steps_before_the_first_private_one_are_refused():
    trainer = trainer_of()
    plain_step(trainer.model)
    for use in (partial(run, trainer), partial(trainer.epsilon, 1e-5)):
        with pytest.raises(ValueError, match=r"Tensor 0\.weight of the model was changed"):
            use()


def test_without_a_step_there_is_nothing_to_certify():
    with pytest.raises(ValueError, match="No step has been taken"):
        trainer_of().certificate(1e-5)


def test_epsilon_is_refused_after_a_plain_step():
    trainer = run(trainer_of(), 2)
    plain_step(trainer.model)
    with pytest.raises(ValueError, match="was changed since"):
        trainer.epsilon(1e-5)


@pytest.mark.parametrize("steps", [0, 2])
def test_writes_through_data_are_refused(steps):
    trainer = run(trainer_of(), steps) if steps else trainer_of()
    weight = trainer.model[2].weight
    kept = weight.data.clone()
    for changed in (kept + 1, -kept, kept.flip(0)):
        weight.data.copy_(changed) if steps else setattr(weight, "data", changed)
        for use in (partial(trainer.epsilon, 1e-5), partial(run, trainer), trainer.state_dict):
            with pytest.raises(ValueError, match=r"Tensor 2\.weight of the model was changed"):
                use()
    weight.data.copy_(kept)
    batch = next(iter(trainer.batches()))
    weight.data.add_(1)
    with pytest.raises(ValueError, match="was changed since"):
        trainer.step(INPUTS[batch], TARGETS[batch])
    assert trainer.steps_taken == steps


def test_another_module_with_trained_parameters_is_refused():
    first = run(trainer_of(), 1).model
    within = nn.Sequential(first, nn.Linear(3, 3))
    for module in (nn.Sequential(*first), within):
        with pytest.raises(ValueError, match="Another PrivateTrainer has trained this model"):
            run(trainer_of(module))
    first.requires_grad_(False)
    with pytest.raises(ValueError, match="Another PrivateTrainer has trained this model"):
        run(trainer_of(within))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_have_no_epsilon(value, monkeypatch):
    trainer = trainer_of()
    end = trainer._weights.end

    def broken():
        trainer.model[0].weight.data[1, 2] = value
        end()

    monkeypatch.setattr(trainer._weights, "end", broken)
    run(trainer, 1)
    for use in (trainer.epsilon, trainer.certificate):
        with pytest.raises(ValueError, match=r"Parameter 0\.weight is not finite"):
            use(1e-5)


def test_a_certificate_after_thawing_is_refused():
    model = net()
    model[0].requires_grad_(False)
    trainer = run(trainer_of(model), 1)
    model[0].requires_grad_(True)
    with pytest.raises(ValueError, match=r"0\.bias is frozen, or not, in another way"):
        trainer.certificate(1e-5)


# -- noise used twice -------------------------------------------------------------------------


def test_a_state_is_continued_once():
    trainer = run(trainer_of(lr=0.0, seed=101), 2)
    state = trainer.state_dict()
    model, moments = copy.deepcopy(trainer.model), copy.deepcopy(trainer.optimizer.state_dict())
    run(trainer, 2)
    with pytest.raises(ValueError, match="continued already in this process"):
        trainer.load_state_dict(state)
    assert trainer.steps_taken == 4
    other = trainer_of(model, lr=0.0, seed=102)
    other.optimizer.load_state_dict(moments)
    with pytest.raises(ValueError, match="continued already in this process"):
        other.load_state_dict(state)
    other.load_state_dict(state, discard_other_continuation=True)
    assert run(other, 1).steps_taken == 3


def test_two_trainers_from_one_state_do_not_both_go_on():
    trainer = run(trainer_of(seed=103), 2)
    state, model = trainer.state_dict(), copy.deepcopy(trainer.model)
    one, two = trainer_of(model), trainer_of(copy.deepcopy(model))
    one.load_state_dict(state)
    two.load_state_dict(state)
    run(one, 1)
    for late in (two, trainer):
        with pytest.raises(ValueError, match="continued already in this process"):
            run(late, 1)


def test_the_state_of_another_optimizer_state_is_refused():
    trainer = run(trainer_of(optimizer=ADAM, lr=0.0, seed=104), 3)
    state = trainer.state_dict()
    other = trainer_of(copy.deepcopy(trainer.model), optimizer=ADAM, lr=0.0)
    with pytest.raises(ValueError, match="another state of the optimizer"):
        other.load_state_dict(state)


def test_a_second_trainer_with_the_same_seed_is_warned_of(caplog):
    with caplog.at_level(logging.WARNING):
        run(trainer_of(seed=105), 1)
        assert "same seed" not in caplog.text
        run(trainer_of(seed=105), 1)
    assert "same seed" in caplog.text and "105" not in caplog.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: {}, "got a dict without 'privacy'"),
        (lambda state: None, "got NoneType"),
        (lambda state: {**state, "draws": {}}, "got a dict without 'used'"),
        (lambda state: {**state, "noise": None}, "no state of the noise"),
    ],
)
def test_a_damaged_state_is_refused(change, message):
    trainer = trainer_of()
    with pytest.raises(ValueError, match=message):
        trainer.load_state_dict(change(trainer.state_dict()))
