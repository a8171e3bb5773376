"""What a newcomer does wrong with PrivateTrainer gets one sentence with the fix."""

import copy
import io
from typing import Any

import pytest
import torch
from helpers_private_trainer import N, Named, net, records, trainer_of
from torch import nn
from torch.nn.functional import one_hot

import mico_competition as mico

INPUTS, TARGETS = records()


def step(model=None, inputs=lambda x: x, targets=lambda y: y, **changes):
    trainer = trainer_of(model, **changes)
    before = [p.detach().clone() for p in trainer.model.parameters()]
    batch = next(trainer.batches())
    try:
        return trainer.step(inputs(INPUTS[batch]), targets(TARGETS[batch]))
    except Exception:
        assert trainer.steps_taken == 0
        assert all(map(torch.equal, before, trainer.model.parameters()))
        raise


# -- making the trainer -----------------------------------------------------------------------


def test_arguments_that_a_call_lacks_are_explained():
    make: Any = mico.PrivateTrainer
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    words = r"PrivateTrainer needs num_records \(the length n of your data, .*and max_grad_norm \("
    with pytest.raises(ValueError, match=words):
        make(model, optimizer)
    with pytest.raises(TypeError, match=r"needs optimizer \(a torch optimizer over"):
        make(model)
    with pytest.raises(ValueError, match="takes model and optimizer alone by position"):
        make(model, optimizer, 4, 1e-5)
    with pytest.raises(ValueError, match="no argument epoch: did you mean epochs"):
        trainer_of(epoch=2)
    step: Any = trainer_of().step
    with pytest.raises(ValueError, match=r"step needs targets \(the targets of the same"):
        step((INPUTS, TARGETS))


@pytest.mark.parametrize(
    ("model", "optimizer", "message"),
    [
        (
            net(),
            torch.optim.SGD,
            r"got the class SGD: pass one .* torch\.optim\.SGD\(model",
        ),
        (net(), lambda parameters: None, "torch optimizer, got function"),
        (net, torch.optim.SGD(net().parameters()), "torch module, got function"),
        (nn.Linear, torch.optim.SGD(net().parameters()), "got the class Linear"),
        (net(), torch.optim.SGD(net().parameters()), "make the optimizer of this model's"),
    ],
)
def test_what_is_no_model_or_optimizer(model, optimizer, message):
    with pytest.raises(ValueError, match=message):
        mico.PrivateTrainer(
            model,
            optimizer,
            noise_multiplier=1.0,
            num_records=N,
            batch_size=20,
            epochs=2,
            max_grad_norm=1.0,
        )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss": nn.CrossEntropyLoss}, "got the class CrossEntropyLoss: make an object"),
        ({"loss": lambda outputs: outputs}, r"loss\(outputs, targets\), got <lambda>\(outputs\)"),
        ({"num_records": INPUTS}, "num_records=Tensor to be a whole number"),
        ({"secure_mode": "yes", "seed": None}, "secure_mode to be True or False"),
        (
            {"noise_multiplier": None, "target_epsilon": -1, "target_delta": 1e-5},
            r"target_epsilon=-1 in \(0, 500\]: it is the budget",
        ),
    ],
)
def test_arguments_of_another_kind(changes, message):
    with pytest.raises(ValueError, match=message):
        trainer_of(**changes)


def test_a_compiled_model_is_refused_at_once():
    model = torch.compile(net(), backend="eager")
    with pytest.raises(ValueError, match=r"torch\.compile .* pass the model itself"):
        trainer_of(model)


# -- a step -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (lambda y: one_hot(y, 3), r"int64 \(60, 3\): if they are one-hot, pass targets\.argmax"),
        (lambda y: y.float(), r"got float32 .*targets\.long\(\), or give loss='squared_error'"),
        (lambda y: y[:, None], r"pass targets\[:, 0\]"),
        (lambda y: y + 1, r"targets in 0\.\.2, since the model has 3 outputs, got 1 to 3"),
        (lambda y: y - 1, r"got -1 to 1: count classes from 0"),
        (lambda y: y.tolist(), r"got list: pass torch\.tensor\(targets\)"),
        (lambda y: y.numpy().astype(str), "targets to hold numbers, got <U"),
    ],
)
def test_targets_that_are_no_classes(targets, message):
    with pytest.raises(ValueError, match=message):
        step(targets=targets)


@pytest.mark.parametrize(
    "change",
    [torch.Tensor.int, lambda y: y.numpy().astype("int32"), lambda y: one_hot(y, 3).float()],
)
def test_whole_numbers_of_any_type_and_probabilities_are_classes(change):
    assert torch.equal(step(targets=change), step())


@pytest.mark.parametrize(
    ("model", "inputs", "message"),
    [
        (
            None,
            torch.Tensor.long,
            r"does not take the inputs, here inputs int64.*pass inputs\.float",
        ),
        (None, torch.Tensor.double, r"weights are torch\.float32, so pass inputs\.to\(torch\.fl"),
        (None, lambda x: x[:, :3], r"does not take the inputs, here inputs float32 \(60, 3\)"),
        (None, lambda x: {"x": x}, r"Sequential\.forward takes input: leave out x"),
        (Named(), lambda x: {"values": x}, r"takes values, scale: add scale"),
        (Named(), lambda x: {"values": x, "scal": x}, "takes values, scale: rename scal"),
        (Named(), lambda x: {"values": x, "scale": x, "mask": x}, "leave out mask"),
        (Named(), lambda x: x, "takes values, scale, so pass a dict of these"),
        (nn.Embedding(9, 3), lambda x: x[:, 0].long() + 9, "index out of range"),
    ],
)
def test_inputs_that_the_model_does_not_take(model, inputs, message):
    with pytest.raises(ValueError, match=message):
        step(model, inputs)


@pytest.mark.parametrize(
    ("outputs", "loss", "targets", "message"),
    [
        (3, "tokens", None, "a loss of tokens, got outputs float32 .*loss='cross_entropy'"),
        (3, "next_token", None, "a loss of tokens"),
        (3, "multi_label", lambda y: 5 * one_hot(y, 3), "targets of 0 and 1 .*got 0 to 5"),
        (3, lambda o, t: nn.functional.cross_entropy(t, o), None, "loss fails on outputs float32"),
        (1, "cross_entropy", None, r"targets in 0\.\.0, since the model has 1 output, got"),
    ],
)
def test_losses_that_do_not_fit(outputs, loss, targets, message):
    with pytest.raises(ValueError, match=message):
        step(net(outputs), targets=targets or (lambda y: y), loss=loss)


def test_outputs_that_are_no_logits_of_classes():
    for model, message in [
        (nn.Sequential(net(1), nn.Flatten(0)), "loss='squared_error' for numbers"),
        (nn.Sequential(net(3), nn.Unflatten(1, (1, 3))), "loss='tokens'"),
    ]:
        with pytest.raises(ValueError, match=message):
            step(model)


def test_backward_on_the_loss_of_a_step():
    loss = step()
    with pytest.raises(ValueError, match=r"leave out loss\.backward\(\)"):
        loss.backward()
    assert type(loss + 1) is type(loss.detach()) is type(torch.stack([loss])) is torch.Tensor
    assert repr(loss).startswith("tensor(") and f"{loss:.2f}" == f"{loss.item():.2f}"
    assert copy.deepcopy(loss) == loss and float(loss) == loss.numpy() == loss.tolist()
    file = io.BytesIO()
    torch.save({"loss": loss}, file)
    file.seek(0)
    assert torch.equal(torch.load(file, weights_only=True)["loss"], loss)


def test_a_step_without_gradients_and_a_delta_that_is_missing():
    with pytest.raises(ValueError, match=r"call step outside of torch\.no_grad"), torch.no_grad():
        step()
    trainer = trainer_of()
    with pytest.raises(ValueError, match=r"such as epsilon\(delta=1e-5\)"):
        trainer.epsilon()
    with pytest.raises(ValueError, match="delta to be a number, got 'a'"):
        trainer.epsilon("a")
    with pytest.raises(ValueError, match="steps=-1 to be a whole number"):
        next(trainer.batches(-1))


def test_a_corrected_step_is_taken_after_a_refused_one():
    """The checks of the refused one shook the weights, and put them back."""
    trainer = trainer_of()
    batch = next(trainer.batches())
    wrong = torch.randn(len(batch), INPUTS.shape[1] + 2)
    for _ in range(2):
        with pytest.raises(ValueError, match="shapes cannot be multiplied"):
            trainer.step(wrong, TARGETS[batch])
    trainer.step(INPUTS[batch], TARGETS[batch])
    assert trainer.steps_taken == 1


@pytest.mark.parametrize("through_data", [False, True])
def test_weights_that_are_changed_after_a_refused_step_are_still_found(through_data):
    trainer = trainer_of()
    batch = next(trainer.batches())
    with pytest.raises(ValueError, match="shapes cannot be multiplied"):
        trainer.step(torch.randn(len(batch), INPUTS.shape[1] + 2), TARGETS[batch])
    weight = next(trainer.model.parameters())
    with torch.no_grad():
        (weight.data if through_data else weight).add_(1.0)
    with pytest.raises(ValueError, match="was changed since the trainer was made"):
        trainer.step(INPUTS[batch], TARGETS[batch])
