"""No claim covers weights that counted, private steps did not make, nor noise used twice."""

import copy
import logging
import pickle
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers_private_trainer import net, records, run, trainer_of
from torch import nn

import mico_competition as mico
from mico_competition.training.accounting import Mechanism
from mico_competition.training.accounting_check import pld_epsilon
from mico_competition.training.certificate import SLACK
from mico_competition.training.certificate import _second_opinion as second_opinion

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


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_numbers_that_change_places_or_shape_are_seen(dtype):
    """Copies of the weights show what a sum of them would not."""
    trainer = trainer_of(net().to(dtype))
    weight, before = trainer.model[0].weight, trainer.model[0].weight.detach().clone()
    for data in (before.flip(0), before[:, :3], before.half(), -before):
        weight.data = data
        with pytest.raises(ValueError, match=r"Tensor 0\.weight of the model was changed"):
            trainer.epsilon(1e-5)
    weight.data = before
    assert trainer.epsilon(1e-5) == 0


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


# -- what is trained, or mixed, unseen --------------------------------------------------------


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))

    def forward(self, outputs, targets):
        return nn.functional.cross_entropy(outputs * self.scale, targets, reduction="none")


def test_a_parameter_beside_the_model_is_refused():
    loss = Scaled()
    for given in (loss, loss.forward):
        with pytest.raises(ValueError, match=r"shape \[3\] that is not the model's"):
            trainer_of(loss=given)
    trainer = trainer_of(loss=lambda outputs, targets: loss(outputs, targets))
    with pytest.raises(ValueError, match=r"shape \[3\] that is not the model's"):
        run(trainer)
    assert trainer.steps_taken == 0
    run(trainer_of(loss=loss.requires_grad_(False)), 1)


class Taking(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x, more=None):
        return self.layer(x)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (lambda x: x.std(), "got a tensor of one number for"),
        (lambda x: [x], "got list for"),
        (lambda x: {"scale": 2.0}, r"got float for \['more'\]\['scale'\]"),
    ],
)
def test_inputs_without_a_row_an_example_are_refused(more, message):
    trainer = trainer_of(Taking())
    batch = next(iter(trainer.batches()))
    x = INPUTS[batch]
    with pytest.raises(ValueError, match=message):
        trainer.step({"x": x, "more": more(x)}, TARGETS[batch])
    trainer.step({"x": x, "more": None}, TARGETS[batch])


def test_a_trainer_is_not_copied():
    trainer = trainer_of()
    for use in (copy.copy, copy.deepcopy, pickle.dumps):
        for each in (trainer, trainer._engine.optimizer):
            with pytest.raises(TypeError, match=r"cannot be copied or pickled.*state_dict\(\)"):
                use(each)
    run(trainer_of(), 1)


def test_a_delta_that_permits_to_publish_a_record_is_warned_of():
    with pytest.warns(UserWarning, match="not below 1 / num_records"):
        trainer = trainer_of(target_delta=1 / 60)
    run(trainer, 1)
    with pytest.warns(UserWarning, match="not below 1 / num_records"):
        trainer.certificate(0.1)


def test_steps_under_autocast_or_with_a_changed_optimizer_are_refused():
    trainer = trainer_of()
    with (
        torch.autocast("cpu", torch.bfloat16),
        pytest.raises(ValueError, match=r"torch\.autocast are not supported"),
    ):
        run(trainer)
    trainer.optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(2))]})
    with pytest.raises(ValueError, match="optimizer got or lost parameters"):
        run(trainer)
    assert trainer.steps_taken == 0


def test_a_target_out_of_range_is_named():
    trainer = trainer_of()
    batch = next(iter(trainer.batches()))
    with pytest.raises(ValueError, match="targets are below the number of the model's outputs"):
        trainer.step(INPUTS[batch], TARGETS[batch] + 3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"noise_multiplier": float("inf")}, "noise_multiplier=inf to be finite"),
        ({"noise_multiplier": "1"}, "noise_multiplier to be a number, got '1'"),
        ({"max_grad_norm": "1"}, "max_grad_norm to be a number, got '1'"),
        ({"seed": 1.5}, "seed to be a whole number or None, got float"),
        ({"seed": "a"}, "seed to be a whole number or None, got str"),
        ({"model": nn.Sequential(nn.LazyLinear(3))}, "has no shape yet"),
        ({"optimizer": torch.optim.LBFGS}, "LBFGS computes gradients several times"),
    ],
)
def test_arguments_of_a_wrong_kind_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        trainer_of(**changes)


def test_a_model_or_optimizer_of_another_kind_is_named():
    arguments = {"num_records": 60, "batch_size": 20, "epochs": 1, "max_grad_norm": 1.0}
    optimizer = torch.optim.SGD(net().parameters(), lr=0.1)
    for given, message in [
        ((None, optimizer), "model to be a torch module, got NoneType"),
        ((net(), None), "optimizer to be a torch optimizer, got NoneType"),
        ((nn.ReLU(), optimizer), "ReLU has no parameters"),
    ]:
        with pytest.raises(ValueError, match=message):
            mico.PrivateTrainer(*given, noise_multiplier=1.0, **arguments)
    assert trainer_of(num_records=np.int64(60)).steps_per_epoch == 3


# -- what changes after the first batch was checked -------------------------------------------


def replace_activation(model):
    model[1] = nn.BatchNorm1d(8, affine=False, track_running_stats=False)


def hook_that_mixes(model):
    model[1].register_forward_hook(lambda module, inputs, outputs: outputs + outputs.mean(0))


def forward_that_mixes(model):
    plain = model.forward
    model.forward = lambda x: plain(x - x.mean(0))


@pytest.mark.parametrize("change", [replace_activation, hook_that_mixes, forward_that_mixes])
def test_a_model_that_mixes_examples_later_is_refused(change):
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    trainer = run(trainer_of(model), 2)
    change(model)
    with pytest.raises(ValueError, match="The loss of an example changes with the others"):
        run(trainer, 1)


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [
        ("draws", "used", 0),
        ("draws", "waiting", torch.arange(3)),
        (None, "moment", "another"),
        (None, "noise", torch.Generator().manual_seed(3).get_state()),
    ],
)
def test_a_state_that_was_edited_is_refused(part, name, value):
    trainer = run(trainer_of(), 2)
    state = copy.deepcopy(trainer.state_dict())
    (state[part] if part else state)[name] = value
    with pytest.raises(ValueError, match="was changed or damaged after state_dict gave it"):
        trainer.load_state_dict(state)


@pytest.mark.parametrize("name", ["model", "optimizer", "max_grad_norm", "num_records", "planned"])
def test_a_trainer_keeps_what_it_was_made_with(name):
    trainer = trainer_of()
    with pytest.raises(AttributeError, match=f"{name} of a PrivateTrainer cannot be set"):
        setattr(trainer, name, None)


def test_a_batch_that_the_caller_changes_is_saved_as_it_was_drawn():
    trainer = trainer_of()
    batch = next(trainer.batches(progress=False))
    drawn = batch.clone()
    batch.zero_()
    assert torch.equal(trainer.state_dict()["draws"]["waiting"], drawn)


def test_the_second_accountant_takes_a_finer_grid_before_it_disputes():
    """Over 100,000 steps, its usual grid gives more than the first accountant."""
    run_of = Mechanism(4.0, 1e-3, 100_000)
    trainer = SimpleNamespace(spent=lambda: run_of, steps_taken=run_of.num_steps)
    epsilon = run_of.epsilon(1e-5)
    most = epsilon + SLACK * (1 + epsilon)
    assert pld_epsilon(run_of, 1e-5) > most
    assert second_opinion(trainer, epsilon, 1e-5) <= most
