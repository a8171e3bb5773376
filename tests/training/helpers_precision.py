"""TF32 on a CPU, by rounding the factors of products; and each record's part of a clipped sum."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from mico_competition.models import precision
from mico_competition.training import dpsgd
from mico_competition.training.check_batches import Batch
from mico_competition.training.dpsgd import DPSGD

aten = torch.ops.aten
PRODUCTS = {
    aten.mm.default,
    aten.addmm.default,
    aten.bmm.default,
    aten.baddbmm.default,
    aten.convolution.default,
    aten.convolution_backward.default,
    aten._scaled_dot_product_flash_attention_for_cpu.default,
    aten._scaled_dot_product_flash_attention_for_cpu_backward.default,
}


def to_10_bits(x):
    """The nearest TF32 numbers: 8 bits of exponent, 10 of mantissa."""
    if x.dtype != torch.float32:
        return x
    bits = x.contiguous().view(torch.int32)
    return ((bits + 0x1000) & ~0x1FFF).view(torch.float32)


class Tf32(TorchDispatchMode):
    """Rounds the factors of products as a GPU does that is allowed to use TF32.

    The terms that a product is added to, such as biases, are rounded too, which does no harm here.
    """

    used = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func in PRODUCTS:
            Tf32.used += 1
            args = tree_map_only(torch.Tensor, to_10_bits, args)
        return func(*args, **(kwargs or {}))


def simulate_tf32(monkeypatch):
    """Let a CPU have TF32 for the test; products of full float32 stay as they are."""
    real = precision._products

    def products(device, old, new):
        return Tf32() if new == "tf32" else real(device, old, new)

    monkeypatch.setattr(precision, "_products", products)
    monkeypatch.setattr(precision, "check_available", lambda *_: None)
    monkeypatch.setattr(dpsgd, "check_available", lambda *_: None)


def trainer_in(kind, model, *, norm=1.0, size=64, mode="bookkeeping", **options):
    """A private trainer whose passes have the precision `kind`."""
    return DPSGD(
        model.train(),
        torch.optim.SGD(model.parameters(), lr=0.1),
        noise_multiplier=1.0,
        max_grad_norm=norm,
        expected_batch_size=8,
        max_physical_batch_size=size,
        grad_sample_mode=mode,
        precision=kind,
        noise_generator=torch.Generator(next(model.parameters()).device).manual_seed(5),
        **options,
    )


def flat(sums):
    return torch.cat([part.detach().double().flatten() for part in sums])


def contributions(trainer, inputs, labels, monkeypatch):
    """What each record of a batch adds to the clipped sum, float64[b, numbers]; and the sum.

    Record i's is the sum of the same passes in which all other records have weight 0.
    """
    true, batch, found = dpsgd.clip_factors, Batch(inputs, labels), []
    norm = trainer.max_grad_norm
    for chosen in torch.eye(len(labels), device=labels.device):
        with monkeypatch.context() as patch:
            patch.setattr(dpsgd, "clip_factors", lambda n, c, chosen=chosen: true(n, c) * chosen)
            found.append(flat(trainer._clipped_sum(batch, norm).sums))
    return torch.stack(found), flat(trainer._clipped_sum(batch, norm).sums)
