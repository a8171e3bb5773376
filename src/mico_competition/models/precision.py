"""The precision of products: full float32 by default, TF32 or bfloat16 for passes that ask for it.

A precision of `PRECISIONS` is that of forward and backward passes.  Norms, clip factors, clipped
sums, noise and weights are float32 in all three.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch

from mico_competition.competition.table import PRECISIONS

FLOAT32, TF32, BFLOAT16 = PRECISIONS

_FULL = ("none", "ieee")  # "none" leaves it to `torch.backends.fp32_precision`


def _settings(device: torch.device) -> list[Any]:
    """What lets a device compute float32 products with fewer bits, by `fp32_precision`."""
    backends: Any = torch.backends
    if not hasattr(backends.cuda.matmul, "fp32_precision"):  # torch before 2.9
        return []
    parts = [backends.mkldnn.matmul, backends.mkldnn.conv, backends.mkldnn.rnn]
    if device.type == "cuda":
        parts += [backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn]
    return parts


def _legacy() -> tuple[str, bool] | None:
    """What torch's older interface says of the same; None where a process has used both."""
    try:
        return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    except RuntimeError:
        return None


def _set_legacy(matmul: str, cudnn: bool) -> None:
    torch.set_float32_matmul_precision(matmul)
    torch.backends.cudnn.allow_tf32 = cudnn


@contextmanager
def full_float32(device: torch.device) -> Iterator[None]:
    """Compute float32 products on `device` with all bits of their factors, in this block only.

    cuDNN's convolutions use TF32 by default, and whoever calls
    `torch.set_float32_matmul_precision` lets matrix products use TF32 or bfloat16.  TF32 keeps 10
    bits of each factor: logits differ from those of a CPU in the third digit, and so does the
    gradient of an example from that of the same example in another batch.
    """
    legacy, settings = _legacy(), _settings(device)
    matmul_only = legacy is not None and legacy[0] == "highest" and device.type == "cpu"
    full = all(part.fp32_precision in _FULL for part in settings)
    if (matmul_only or legacy == ("highest", False)) and full:
        yield
        return
    with _products(device, ("highest", False), "ieee"):
        yield


@contextmanager
def _products(device: torch.device, old: tuple[str, bool], new: str) -> Iterator[None]:
    """Set torch's older and newer interface to float32 products, in this block only."""
    legacy, settings = _legacy(), _settings(device)
    kept = [part.fp32_precision for part in settings]
    try:
        if legacy is not None:
            _set_legacy(*old)
        for part in settings:
            part.fp32_precision = new
        yield
    finally:
        if legacy is not None:
            _set_legacy(*legacy)
        for part, value in zip(settings, kept):
            part.fp32_precision = value


def forward_pass(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """The context of a forward pass and its losses, inside `full_float32` for a private step."""
    if precision == BFLOAT16:
        return torch.autocast(device.type, torch.bfloat16)
    return backward_pass(precision, device)


def backward_pass(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """The context of a backward pass, whose products have the types of the forward pass."""
    return _products(device, ("high", True), "tf32") if precision == TF32 else nullcontext()


def check_available(precision: str, device: torch.device) -> None:
    """Raise ValueError, with what to change, if a device does not have the precision."""
    if precision != TF32:
        return
    if device.type != "cuda":
        raise ValueError(
            f"precision tf32 is one of NVIDIA's GPUs, and this run is on {device.type}: choose "
            "float32 or bfloat16."
        )
    if torch.cuda.get_device_capability(device) < (8, 0):
        raise ValueError(
            f"{torch.cuda.get_device_name(device)} has no TF32, which begins with the A100: choose "
            "float32."
        )
