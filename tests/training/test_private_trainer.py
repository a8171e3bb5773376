"""PrivateTrainer claims what its steps cost, and takes the steps that it claims."""

import copy
import io
import json

import pytest
import torch
from helpers_private_trainer import N, net, records, run, trainer_of, weights
from scipy import stats
from torch import nn

from mico_competition.training.accounting_check import pld_epsilon

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
