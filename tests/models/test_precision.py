"""Private steps and signals use float32 at its full precision, and leave the process as it was."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from mico_competition.models.precision import full_float32
from mico_competition.training.dpsgd import DPSGD

DEVICES = [torch.device("cpu"), torch.device("cuda")]  # settings exist without a CUDA device, too


@pytest.fixture
def fast():
    """A process that lets matrix products use bfloat16."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    yield
    torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("device", DEVICES, ids=str)
def test_products_are_exact_inside_and_as_before_outside(fast, device):
    with pytest.raises(KeyError), full_float32(device):
        assert torch.get_float32_matmul_precision() == "highest"
        assert not torch.backends.cuda.matmul.allow_tf32 or device.type == "cpu"
        assert not torch.backends.cudnn.allow_tf32 or device.type == "cpu"
        raise KeyError
    assert torch.get_float32_matmul_precision() == "medium"
    assert torch.backends.cudnn.allow_tf32


class Watch(nn.Linear):
    """Keeps what the process allows when it runs."""

    def __init__(self):
        super().__init__(4, 3)
        self.seen = set()

    def forward(self, x):
        self.seen.add(torch.get_float32_matmul_precision())
        return super().forward(x)


def test_a_private_step_is_exact(fast):
    model = Watch()
    trainer = DPSGD(
        model,
        torch.optim.SGD(model.parameters(), lr=0.1),
        noise_multiplier=1.0,
        max_grad_norm=1.0,
        expected_batch_size=4,
        max_physical_batch_size=4,
    )
    inputs, labels = torch.randn(4, 4), torch.arange(4) % 3
    for _ in range(2):
        trainer.step(torch.arange(4), lambda at: inputs[at], labels)
    assert model.seen == {"highest"}
    assert torch.get_float32_matmul_precision() == "medium"


@pytest.mark.skipif(
    not hasattr(torch.backends.cuda.matmul, "fp32_precision"), reason="torch before 2.9"
)
def test_a_process_that_mixes_torchs_two_interfaces_is_left_as_it_was():
    code = """
import torch
from mico_competition.models.precision import full_float32
b = torch.backends
parts = [b.cuda.matmul, b.cudnn.conv, b.cudnn.rnn, b.mkldnn.matmul, b.mkldnn.conv, b.mkldnn.rnn]
b.cuda.matmul.fp32_precision = "tf32"  # reading allow_tf32 raises from here on
b.cudnn.conv.fp32_precision = "ieee"
b.mkldnn.matmul.fp32_precision = "bf16"
before = [part.fp32_precision for part in parts]
with full_float32(torch.device("cuda")):
    assert {part.fp32_precision for part in parts} == {"ieee"}
assert [part.fp32_precision for part in parts] == before != ["none"] * 6
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
