"""Float32 products at their full precision, whatever a process allows for speed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

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
    kept = [part.fp32_precision for part in settings]
    matmul_only = legacy is not None and legacy[0] == "highest" and device.type == "cpu"
    if (matmul_only or legacy == ("highest", False)) and all(each in _FULL for each in kept):
        yield
        return
    try:
        if legacy is not None:
            _set_legacy("highest", False)
        for part in settings:
            part.fp32_precision = "ieee"
        yield
    finally:
        if legacy is not None:
            _set_legacy(*legacy)
        for part, value in zip(settings, kept):
            part.fp32_precision = value
