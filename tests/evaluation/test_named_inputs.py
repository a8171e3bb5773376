"""Attacks on models that take arguments by name, without an attention mask."""

import pytest
import torch
from torch import nn

import mico_competition as mico

RECORDS, CLASSES = 60, 3


class OfTokens(nn.Module):
    """A bag of tokens; there is no padding, and so no mask."""

    def __init__(self):
        super().__init__()
        self.table, self.out = nn.Embedding(30, 8), nn.Linear(8, CLASSES)

    def forward(self, input_ids):
        return self.out(torch.tanh(self.table(input_ids)).mean(1))


class OfFeatures(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden, self.out = nn.Linear(5, 16), nn.Linear(16, CLASSES)

    def forward(self, x):
        return self.out(torch.tanh(self.hidden(x)))


def pool_of(kind):
    torch.manual_seed(0)
    if kind is OfTokens:
        inputs = {"input_ids": torch.randint(30, (RECORDS, 7))}
    else:
        inputs = {"x": torch.randn(RECORDS, 5)}
    models = [kind() for _ in range(6)]
    membership = torch.rand(6, RECORDS) < 0.5
    return mico.ModelPool.from_models(models, inputs, torch.arange(RECORDS) % CLASSES, membership)


@pytest.mark.parametrize("kind", [OfTokens, OfFeatures])
def test_stacks_and_white_box_attacks_run(kind):
    results = mico.evaluate(pool_of(kind), ["whitebox", "stack"])
    assert results.names == ["whitebox", "stack"]


@pytest.mark.parametrize("kind", [OfTokens, OfFeatures])
def test_what_cannot_run_says_so_in_a_sentence(kind):
    with pytest.raises(ValueError, match="Expected records as one tensor, or input_ids and atten"):
        mico.evaluate(pool_of(kind), "suri")
