"""Losses of single examples are taken; those that mix examples, or reduce them, are refused."""

import pytest
import torch
from helpers_private_trainer import N, net, records, run, trainer_of, weights
from torch import nn

from mico_competition.training.losses import LOSSES


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
