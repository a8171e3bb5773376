"""The power that a GPU draws, as nvidia-smi reads it."""

from __future__ import annotations

import subprocess
from contextlib import suppress

import torch

_SECONDS = 20.0  # nvidia-smi takes a second, or some where its daemon does not run


class PowerReading:
    """One reading of a GPU's power, taken while the GPU works.

    Args:
        gpu: the GPU as nvidia-smi names it, by its UUID; None for a device without a reading.
    """

    def __init__(self, gpu: str | None) -> None:
        self._gpu = gpu
        self._process: subprocess.Popen[str] | None = None

    @classmethod
    def of(cls, device: torch.device) -> PowerReading:
        """The reading of a device of torch."""
        if device.type != "cuda":
            return cls(None)
        uuid = getattr(torch.cuda.get_device_properties(device), "uuid", None)
        return cls(None if uuid is None else f"GPU-{uuid}")

    def begin(self) -> None:
        """Start the reading, if none was started, without waiting for it."""
        if self._gpu is None or self._process is not None:
            return
        command = ["nvidia-smi", "-i", self._gpu, "--query-gpu=power.draw"]
        with suppress(OSError):  # there is no nvidia-smi
            self._process = subprocess.Popen(
                [*command, "--format=csv,noheader,nounits"],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )

    def watts(self) -> float | None:
        """The power in watts; None if it was not read."""
        if self._process is None:
            return None
        try:
            return float(self._process.communicate(timeout=_SECONDS)[0])
        except ValueError:  # "[N/A]"
            return None
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
            return None
