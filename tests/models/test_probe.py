"""What a probe sees of a network's code."""

from functools import partial

import pytest
import torch
from torch import nn

from mico_competition.models.probe import behaviour, longer_rows, probe_rows


def halved(rows, when):
    """`rows` [B, n], those where `when` is true with half of their values."""
    return torch.where(torch.as_tensor(when), rows * 0.5, rows)


def autocast(model, x):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return model.f(x).to(x.dtype)


def rounded_to_half(model, x):
    return model.f(x.half().to(x.dtype)) if x.dtype == torch.float32 else model.f(x)


FORWARDS = {
    "half precision": autocast,
    "float32 only": lambda m, x: halved(m.f(x), x.dtype == torch.float32),
    "float32, a little": lambda m, x: m.f(x) * (1.002 if x.dtype == torch.float32 else 1),
    "float32 rounded to half": rounded_to_half,
    "float64 only": lambda m, x: halved(m.f(x), x.dtype == torch.float64),
    "more than 4 rows": lambda m, x: halved(m.f(x), len(x) > 4),
    "more than 64 rows": lambda m, x: halved(m.f(x), len(x) > 64),
    "one row": lambda m, x: halved(m.f(x), len(x) == 1),
    "no negative inputs": lambda m, x: halved(m.f(x), (x >= 0).all(1, keepdim=True)),
    "zeros": lambda m, x: halved(m.f(x), (x == 0).all(1, keepdim=True)),
    "gradients in evaluation": lambda m, x: halved(
        m.f(x), torch.is_grad_enabled() and not m.training
    ),
    "no gradients": lambda m, x: halved(m.f(x), not torch.is_grad_enabled()),
    "inference mode": lambda m, x: halved(m.f(x), torch.is_inference_mode_enabled()),
    "clamped at 30": lambda m, x: m.f(x.clamp(-30, 30)),
    "clamped at 100": lambda m, x: m.f(x.clamp(-100, 100)),
    "mixed with the batch": lambda m, x: m.f(x) + (m.f(x).mean(0) if len(x) > 5 else 0),
}


@pytest.mark.parametrize("forward", FORWARDS)
def test_code_that_acts_for_some_inputs_only_shows(forward):
    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(64, 32), nn.Linear(32, 10)

        def f(self, x):
            return self.b(torch.tanh(self.a(x)))

        def forward(self, x):
            return self.f(x)

    class Changed(Plain):
        def forward(self, x):
            return FORWARDS[forward](self, x)

    rows, longer = probe_rows((64,), torch.float32), longer_rows((64,), torch.float32)
    found = [behaviour(b, lambda m, x: m(x), rows, longer) for b in (Plain, Plain, Changed)]
    assert found[0] == found[1] != found[2]


def test_a_network_of_one_precision_is_probed_in_it():
    class Half(nn.Module):
        def __init__(self, factor):
            super().__init__()
            self.layer, self.factor = nn.Linear(5, 3), factor

        def forward(self, x):
            return self.layer((x * self.factor).float())

    rows = probe_rows((5,), torch.float32)
    first, again, other = (
        behaviour(partial(Half, factor), lambda m, x: m(x), rows, rows)
        for factor in (1.0, 1.0, 1.1)
    )
    assert first == again != other
