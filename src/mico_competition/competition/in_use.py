"""The competition in use, for other processes, which read its file again and must find the same.

Somebody may edit the file in between. A process with another table would train with other lengths,
or score other models, without an error.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from mico_competition.competition.table import current, use


@dataclass(frozen=True)
class InUse:
    """A competition: its file, None for the package's own, and the SHA-256 of the text read."""

    path: Path | None
    sha256: str

    @classmethod
    def here(cls) -> InUse:
        """The competition that this process uses."""
        table = current()
        return cls(table.path, _sha256(table.text))

    def use(self) -> None:
        """Use the competition in this process, instead of its present one.

        Raises:
            ValueError: if the file is not here, or does not hold the same text.
        """
        node = os.uname().nodename
        fix = "leave it as it is while a command runs, and have the same on every machine"
        if self.path is not None and not self.path.is_file():
            raise ValueError(f"There is no competition file {self.path} on {node}: {fix}.")
        try:
            same = _sha256(use(self.path).text) == self.sha256
        except (OSError, ValueError):  # the text that was read had no faults
            same = False
        if not same:
            raise ValueError(
                f"The competition file {self.path} on {node} is not as the command read it: {fix}."
            )


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
