"""What is checked before a private trainer's first step: what is refused, and when."""

import copy

import pytest
import torch
from helpers_faults import Unchecked
from helpers_private_checks import (
    BACKWARD,
    BY_LENGTH,
    MIXING,
    UNCLIPPED,
    WRITING,
    Net,
    Tokens,
    TokensTwice,
    Unused,
    WithoutGradient,
    data,
    net,
    refused,
    stack_trainer,
    trainer_of,
    values,
)
from torch import nn

from mico_competition.models.architectures import MLP
from mico_competition.training import ghost_norms
from mico_competition.training.dpsgd import GRAD_SAMPLE_MODES
from mico_competition.training.stacked_layers import StackedLinearRule
from mico_competition.training.stacked_model import stacked as stack_of

# -- the forward pass -------------------------------------------------------------------------


@pytest.mark.parametrize("name", MIXING)
def test_a_model_that_mixes_examples_is_refused(name):
    torch.manual_seed(0)
    message = r"changes with the others of its batch, before layer b \(Linear\)"
    refused(net("Mixing", MIXING[name])(), "bookkeeping", message)


@pytest.mark.parametrize("mode", GRAD_SAMPLE_MODES)
def test_in_every_mode_and_in_physical_batches_of_two(mode):
    torch.manual_seed(0)
    refused(net("Mixing", MIXING["centred"])(), mode, "the others of its batch", size=2)
    refused(WRITING[0][0](), mode, WRITING[0][1])


@pytest.mark.parametrize("name", BY_LENGTH)
def test_a_loss_that_depends_on_the_length_of_the_batch_is_refused(name):
    torch.manual_seed(0)
    refused(net("Length", BY_LENGTH[name])(), "bookkeeping", "another loss in a batch of .* alone")


@pytest.mark.parametrize(
    ("kind", "message"), WRITING, ids=lambda value: getattr(value, "__name__", "")
)
def test_a_forward_pass_that_writes_is_refused(kind, message):
    torch.manual_seed(0)
    refused(kind(), "bookkeeping", message)


def test_a_layer_is_named_where_it_is_the_layer_that_mixes():
    class Mean(nn.Module):
        def forward(self, x):
            return x - x.mean(0)

    model = nn.Sequential(nn.Linear(6, 8), Mean(), nn.Linear(8, 4))
    refused(model, "bookkeeping", r"its batch, in layer 1 \(Mean\)")


def test_a_model_that_needs_two_examples_is_refused():
    def between(x):
        if len(x) < 2:
            raise ValueError("Expected more than 1 value per channel")
        return x

    refused(net("Pairs", between)(), "bookkeeping", "cannot take a batch of one example")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4, affine=False)), r"layer 1 \(BatchNorm1d"),
        (
            nn.Sequential(
                nn.Linear(6, 4), nn.BatchNorm1d(4, affine=False, track_running_stats=False)
            ),
            r"layer 1 \(BatchNorm1d\): batch normalisation",
        ),
        (
            nn.Sequential(nn.Linear(6, 4), nn.InstanceNorm1d(4, track_running_stats=True)),
            r"layer 1 \(InstanceNorm1d\): running statistics",
        ),
        (Tokens(max_norm=1.0), r"layer table \(Embedding\): max_norm"),
        (Tokens(scale_grad_by_freq=True), r"layer table \(Embedding\): scale_grad_by_freq"),
        (nn.Sequential(nn.EmbeddingBag(3, 3, max_norm=1.0)), r"layer 0 \(EmbeddingBag\)"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize("mode", GRAD_SAMPLE_MODES)
def test_layers_that_are_known_are_refused_by_name_before_any_data(model, message, mode):
    with pytest.raises(ValueError, match=message):
        trainer_of(copy.deepcopy(model), mode)


def test_a_model_in_eval_mode_is_refused():
    with pytest.raises(ValueError, match=r"call model\.train"):
        trainer_of(Net().eval())


def test_a_loss_that_is_not_finite_is_refused():
    refused(
        net("Infinite", lambda x: x * float("nan"))(), "bookkeeping", "first batch is not finite"
    )


# -- the clipped sum --------------------------------------------------------------------------


@pytest.mark.parametrize("mode", GRAD_SAMPLE_MODES)
@pytest.mark.parametrize("kind", UNCLIPPED, ids=lambda kind: kind.__name__)
def test_a_weight_that_the_mode_gets_wrong_is_refused_by_name(kind, mode):
    torch.manual_seed(0)
    refused(kind(), mode, f"Parameter {UNCLIPPED[kind]} cannot be clipped in .* {mode}")


@pytest.mark.parametrize("mode", GRAD_SAMPLE_MODES)
@pytest.mark.parametrize("name", BACKWARD)
def test_a_backward_pass_that_mixes_examples_is_refused(name, mode):
    torch.manual_seed(0)
    refused(net("Backward", BACKWARD[name])(), mode, r"(Parameter|by parameter) a\.(weight|bias)")


@pytest.mark.parametrize("mode", GRAD_SAMPLE_MODES)
@pytest.mark.parametrize("kind", [Unused, WithoutGradient])
def test_a_parameter_without_gradient_is_refused_by_name(kind, mode):
    refused(kind(), mode, r"Parameter [ac]\.weight takes no part in the loss")


@pytest.mark.parametrize("mode", GRAD_SAMPLE_MODES)
def test_options_of_functions_are_seen_by_what_they_do(mode):
    torch.manual_seed(0)
    # max_norm so large that nothing has to be changed yet: it is the writing that counts.
    refused(TokensTwice(max_norm=100.0), mode, r"Parameter table\.weight is changed")
    refused(TokensTwice(scale_grad_by_freq=True), mode, r"table\.weight cannot be clipped")


@pytest.mark.parametrize("mode", ["hooks", "ghost"])
def test_padding_that_opacus_trains_is_refused(mode):
    """Its hooks give the padding's row a gradient, which autograd does not."""
    torch.manual_seed(0)
    refused(Tokens(padding_idx=0), mode, r"Parameter table\.weight cannot be clipped")


@pytest.mark.parametrize("mode", ["hooks", "functorch", "ghost"])
def test_a_weight_that_no_layer_applies_is_refused(mode):
    model = Net()
    model.forward = lambda x: model.b(torch.tanh(x @ model.a.weight.T + model.a.bias))
    refused(model, mode, r"Parameter a\.weight has no per-example gradient in grad_sample_mode")


def test_what_opacus_cannot_wrap_is_a_sentence():
    model = Net()
    model.a = nn.utils.parametrizations.spectral_norm(model.a)
    with pytest.raises(ValueError, match=r"grad_sample_mode hooks cannot train this model \(.*buf"):
        trainer_of(model, "hooks")


# -- when -------------------------------------------------------------------------------------


def test_empty_batches_come_before_the_check_and_move_by_noise_alone():
    torch.manual_seed(0)
    model = net("Mixing", MIXING["centred"])()
    inputs, labels = data(model)
    trainer = trainer_of(model)
    for _ in range(3):
        trainer.step(torch.arange(0), inputs.__getitem__, labels)
    before = values(model)
    with pytest.raises(ValueError, match="the others of its batch"):
        trainer.step(torch.arange(20), inputs.__getitem__, labels)
    assert all(map(torch.equal, before, values(model)))


def test_one_example_is_enough_to_see_that_others_would_count():
    torch.manual_seed(0)
    for name in ("centred", "attention", "neighbours"):
        refused(net("Mixing", MIXING[name])(), "bookkeeping", "the others of its batch", batch=1)


def test_writing_that_starts_later_stops_the_run():
    class Later(Net):
        writes = False

        def between(self, x):
            if self.writes:
                with torch.no_grad():
                    self.b.bias.add_(0.0)
            return x

    model = Later()
    inputs, labels = data(model)
    trainer = trainer_of(model)
    trainer.step(torch.arange(9), inputs.__getitem__, labels)
    model.writes = True
    before = values(model)
    with pytest.raises(ValueError, match=r"Parameter b\.bias is changed by the forward pass"):
        trainer.step(torch.arange(9), inputs.__getitem__, labels)
    assert all(map(torch.equal, before, values(model)))


def test_layers_switched_to_train_mode_are_checked_again():
    class Switch(nn.Module):
        def forward(self, x):
            return x - x.mean(0) if self.training else x

    model = nn.Sequential(nn.Linear(6, 8), Switch().eval(), nn.Linear(8, 4))
    inputs, labels = data(model)
    trainer = trainer_of(model)
    trainer.step(torch.arange(9), inputs.__getitem__, labels)
    model.train()
    with pytest.raises(ValueError, match=r"in layer 1 \(Switch\)"):
        trainer.step(torch.arange(9), inputs.__getitem__, labels)


# -- stacks -----------------------------------------------------------------------------------


def stack_step(change=None, generator=None):
    torch.manual_seed(0)
    stacked = stack_of([MLP(6, 5, 3) for _ in range(3)])
    if change:
        change(stacked)
    trainer, inputs, labels = stack_trainer(stacked)
    batches = [torch.tensor([0, 3, 5, 7]), torch.arange(0), torch.tensor([6])]
    before = values(stacked)
    try:
        for batch in ([torch.arange(0)] * 3, batches):
            before = values(stacked)
            trainer.step(batch, inputs, labels)
    except ValueError:
        assert all(map(torch.equal, before, values(stacked)))
        raise
    return values(stacked)


class _BetweenExamples(nn.Module):
    def forward(self, x):
        return torch.tanh(x) - x.view(3, -1, 5).mean(1).repeat_interleave(len(x) // 3, 0)


class _BetweenModels(nn.Module):
    def forward(self, x):
        return torch.tanh(x) + 0.1 * x.view(3, -1, 5).mean(0).repeat(3, 1)


@pytest.mark.parametrize("layer", [_BetweenExamples, _BetweenModels])
def test_a_stack_that_mixes_examples_or_models_is_refused(layer):
    def change(stacked):
        stacked.mlp[1] = layer()

    with pytest.raises(ValueError, match="the others of its batch"):
        stack_step(change)


def test_a_stack_that_is_clipped_wrongly_is_refused_by_name(monkeypatch):
    def without_bias(self, a, g):
        return torch.linalg.vecdot(g, g) * torch.linalg.vecdot(a, a)

    monkeypatch.setattr(StackedLinearRule, "norms_from", without_bias)
    with pytest.raises(ValueError, match=r"Parameter mlp\.\d\.\w+ cannot be clipped"):
        stack_step()


def test_a_rule_that_sums_wrongly_is_refused_by_name(monkeypatch):
    def halved(self, a, g, weights):
        self.module.weight.grad = (g * weights.unsqueeze(1)).T @ a / 2
        self.module.bias.grad = (g * weights.unsqueeze(1)).sum(0)

    monkeypatch.setattr(ghost_norms.LinearRule, "sums_into_grad", halved)
    refused(Net(), "bookkeeping", r"Parameter [ab]\.weight cannot be clipped")


def test_the_checks_change_nothing_of_a_stack(monkeypatch):
    checked = stack_step()
    monkeypatch.setattr(
        "mico_competition.training.dpsgd.PrivacyChecks", lambda *args, **named: Unchecked()
    )
    assert all(map(torch.equal, checked, stack_step()))
