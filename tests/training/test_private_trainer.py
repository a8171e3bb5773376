"""PrivateTrainer claims what its steps cost, and refuses whatever would make the claim wrong."""

import copy
import io
import json

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

import mico_competition as mico
from mico_competition.training import private_trainer
from mico_competition.training.accounting_check import pld_epsilon
from mico_competition.training.losses import LOSSES

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


# -- the claim --------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_target_finds_the_least_noise_and_epsilon_counts_the_steps_taken():
    trainer = trainer_of(noise_multiplier=None, target_epsilon=4, target_delta=1e-5)
    assert trainer.epsilon() == 0
    run(trainer, 3)
    after_three = trainer.epsilon()
    run(trainer)
    assert 0 < after_three < trainer.epsilon() <= 4
    assert trainer.epsilon() > 3.95
    assert trainer.epsilon(1e-3) < trainer.epsilon(1e-5)
    # Google's accountant, which rounds up only, says the same of the same mechanism.
    other = pld_epsilon(trainer.spent(), 1e-5)
    assert trainer.epsilon() - 0.21 <= other <= trainer.epsilon() + 1e-3


def test_the_sampling_rate_and_the_steps_are_those_of_the_table():
    trainer = trainer_of(num_records=N, batch_size=25, epochs=4)
    assert (trainer.steps_per_epoch, trainer.num_steps) == (3, 12)
    assert trainer.sample_rate == 1 / 3


def test_the_certificate_says_what_was_done_and_is_json():
    trainer = run(trainer_of(target_delta=1e-5), 2)
    told = json.loads(json.dumps(trainer.certificate()))
    assert told["epsilon"] == trainer.epsilon()
    assert (told["steps"], told["planned_steps"], told["delta"]) == (2, 6, 1e-5)
    assert told["epsilon"] - 0.21 <= told["second_accountant_epsilon"] <= told["epsilon"] + 0.01
    assert told["trained_parameters"] == 4 * 8 + 8 + 8 * 3 + 3
    assert told["neighbouring_relation"] == "add or remove one record"
    assert told["versions"]["torch"] == torch.__version__.partition("+")[0] or (
        told["versions"]["torch"] == torch.__version__
    )


def test_there_is_no_certificate_that_a_second_accountant_disputes(monkeypatch):
    trainer = run(trainer_of(target_delta=1e-5), 2)
    with monkeypatch.context() as patch:
        patch.setattr(type(trainer), "epsilon", lambda trainer, delta: 0.5)
        with pytest.raises(ValueError, match="Two accountants disagree"):
            trainer.certificate()
    with pytest.raises(ValueError, match="no finite epsilon"):
        run(trainer_of(noise_multiplier=0.01), 1).certificate(1e-5)


# -- a step -----------------------------------------------------------------------------------


def test_a_step_is_the_clipped_sum_of_a_loop_with_noise_of_the_claimed_size():
    """Over many seeds, the step minus the loop's clipped mean is Gaussian of sigma C / L."""
    inputs, targets = records()
    left_over = []
    for seed in range(12):
        model = net()
        trainer = trainer_of(model, lr=1.0, seed=seed, max_grad_norm=0.5, max_physical_batch_size=7)
        before = copy.deepcopy(model)
        batch = next(iter(trainer.batches(1)))
        trainer.step(inputs[batch], targets[batch])
        total = [torch.zeros_like(p) for p in before.parameters()]
        for at in batch:
            loss = nn.functional.cross_entropy(before(inputs[at][None]), targets[at][None])
            found = torch.autograd.grad(loss, list(before.parameters()))
            norm = torch.cat([g.flatten() for g in found]).norm()
            total = [t + g * min(1.0, 0.5 / float(norm)) for t, g in zip(total, found)]
        for p, q, t in zip(model.parameters(), before.parameters(), total):
            left_over.append(((q - p) * 20 - t).detach().flatten())
    noise = torch.cat(left_over).numpy() / 0.5
    assert stats.kstest(noise, "norm").pvalue > 1e-3
    assert abs(noise.std() - 1) < 0.1


def test_the_loss_is_the_mean_over_the_batch_and_has_no_graph():
    inputs, targets = records()
    trainer = trainer_of()
    batch = next(iter(trainer.batches()))
    expected = nn.functional.cross_entropy(trainer.model(inputs[batch]), targets[batch])
    loss = trainer.step(inputs[batch].numpy(), targets[batch].numpy())
    torch.testing.assert_close(loss, expected.detach())
    assert not loss.requires_grad


def test_empty_batches_are_steps_with_noise():
    trainer = trainer_of(batch_size=1, epochs=1)
    inputs, targets = records()
    empty = 0
    for batch in trainer.batches(20):
        before = weights(trainer)
        loss = trainer.step(inputs[batch], targets[batch])
        empty += not len(batch)
        assert not any(map(torch.equal, before, weights(trainer)))
        assert len(batch) or loss == 0
    assert empty and trainer.steps_taken == 20


def test_a_seed_repeats_a_run_and_no_seed_does_not():
    one, two, three = (run(trainer_of(seed=seed)) for seed in (3, 3, None))
    assert all(map(torch.equal, weights(one), weights(two)))
    assert not any(map(torch.equal, weights(one), weights(three)))


def test_secure_mode_trains_and_cannot_be_repeated():
    one, two = (run(trainer_of(seed=None, secure_mode=True)) for _ in range(2))
    assert not any(map(torch.equal, weights(one), weights(two)))
    with pytest.raises(ValueError, match="leave out seed"):
        trainer_of(secure_mode=True)


# -- losses -----------------------------------------------------------------------------------


def absolute(outputs, targets):
    return (outputs.squeeze(1) - targets).abs()


SEEDED = torch.Generator().manual_seed(0)


@pytest.mark.parametrize(
    ("loss", "outputs", "targets"),
    [
        ("squared_error", 1, torch.randn(N, generator=SEEDED)),
        ("squared_error", 3, torch.randn(N, 3, generator=SEEDED)),
        ("multi_label", 3, torch.randint(2, (N, 3), generator=SEEDED)),
        (absolute, 1, torch.randn(N, generator=SEEDED)),
        (
            nn.CrossEntropyLoss(reduction="none", label_smoothing=0.1),
            3,
            torch.randint(3, (N,), generator=SEEDED),
        ),
    ],
    ids=["squared", "squared of three", "multi-label", "own", "module"],
)
def test_losses_of_single_examples(loss, outputs, targets):
    inputs, _ = records()
    trainer = trainer_of(net(outputs), loss=loss)
    function = LOSSES[loss] if isinstance(loss, str) else loss
    for batch in trainer.batches(2):
        expected = function(trainer.model(inputs[batch]), targets[batch]).mean()
        torch.testing.assert_close(trainer.step(inputs[batch], targets[batch]), expected.detach())


def test_losses_of_tokens():
    logits, targets = torch.randn(2, 4, 5), torch.tensor([[1, -100, 2, -100], [-100] * 4])
    found = LOSSES["tokens"](logits, targets)
    expected = nn.functional.cross_entropy(logits[0, [0, 2]], targets[0, [0, 2]])
    torch.testing.assert_close(found, torch.stack([expected, torch.tensor(0.0)]))
    shifted = LOSSES["next_token"](logits, targets)
    torch.testing.assert_close(
        shifted[0], nn.functional.cross_entropy(logits[0, 1:2], targets[0, 2:3])
    )


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (nn.CrossEntropyLoss(), r"returned shape \[\] for .* examples.*reduction='none'"),
        (lambda o, t: o, r"returned shape \[.*, 3\] for .* examples: return one value an example"),
        (lambda o, t: 1.0, "Expected loss to return a tensor, got float"),
        (
            lambda o, t: nn.functional.cross_entropy(o, t, reduction="none") / len(t),
            "another loss in a batch of .* than alone",
        ),
        (
            lambda o, t: nn.functional.cross_entropy(o - o.mean(0), t, reduction="none"),
            "changes with the others of its batch",
        ),
    ],
)
def test_losses_that_are_not_of_single_examples_are_refused(loss, message):
    trainer = trainer_of(loss=loss)
    before = weights(trainer)
    with pytest.raises(ValueError, match=message):
        run(trainer)
    assert trainer.steps_taken == 0 and all(map(torch.equal, before, weights(trainer)))


# -- what would make the claim wrong ----------------------------------------------------------


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
    monkeypatch.setattr(private_trainer, "find_spec", lambda name: None)
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


# -- going on ---------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.AdamW])
def test_a_run_that_goes_on_is_the_run_that_was_not_interrupted(optimizer):
    whole = run(trainer_of(optimizer=optimizer))
    half = run(trainer_of(optimizer=optimizer), 3)
    file = io.BytesIO()
    torch.save([half.model.state_dict(), half.optimizer.state_dict(), half.state_dict()], file)
    file.seek(0)
    model, moments, state = torch.load(file, weights_only=True)
    other = trainer_of(optimizer=optimizer, seed=99)
    with pytest.raises(ValueError, match="other weights than the model has now"):
        other.load_state_dict(state)
    other.model.load_state_dict(model)
    other.optimizer.load_state_dict(moments)
    other.load_state_dict(state)
    assert other.steps_taken == 3
    run(other)
    assert all(map(torch.equal, weights(whole), weights(other)))
    assert other.epsilon(1e-5) == whole.epsilon(1e-5)


def test_a_state_of_another_mechanism_is_refused():
    state = trainer_of(noise_multiplier=2.0).state_dict()
    with pytest.raises(ValueError, match=r"Expected noise_multiplier=1\.0"):
        trainer_of().load_state_dict(state)


# -- frozen parameters and layers ------------------------------------------------------------


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
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, values, scale):
            return self.layer(values * scale)

    inputs, targets = records()
    trainer = trainer_of(Named())
    for batch in trainer.batches(2):
        values = {"values": inputs[batch].numpy(), "scale": np.ones((len(batch), 1), np.float32)}
        trainer.step(values, targets[batch])
    assert trainer.steps_taken == 2
