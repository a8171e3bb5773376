"""The folder of shadow models: each is renamed into it when it is whole, so a run can resume."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from mico_competition.shadows.code_facts import code_digest
from mico_competition.shadows.one_shadow import Job
from mico_competition.support.files import PRIVATE, make_folder, write_bytes, write_text
from mico_competition.support.scratch import folder_lock

_FACTS = "shadows.json"
_WORDS = {
    "form": "another version of mico_competition",
    "records": "another dataset: its inputs, its labels or their order differ",
    "make_model": "another make_model",
    "train": "another train, or other settings that it uses",
}


def facts_of(job: Job, settings: dict[str, Any]) -> dict[str, Any]:
    """What must be the same for a run to resume: the arguments, and hashes of data and code."""
    model = job.fresh()
    parameters = (
        "".join(
            f"{name} {tuple(value.shape)} {value.dtype};"
            for name, value in model.state_dict().items()
        )
        if isinstance(model, nn.Module)
        else repr(model)
    )
    return {
        "form": 1,
        **settings,
        "records": job.records.digest(),
        "membership": hashlib.sha256(np.packbits(job.membership).tobytes()).hexdigest(),
        "make_model": _digest(f"{type(model).__qualname__} {parameters}", job.make_model),
        "train": _digest("", job.train),
    }


def _digest(text: str, function: Any) -> str:
    return hashlib.sha256(f"{text} {code_digest(function)}".encode()).hexdigest()


class ShadowFolder:
    """Shadow models on disk.  Use `opened`, which compares the folder with the job."""

    def __init__(self, path: Path, job: Job) -> None:
        self._path, self._job = path, job

    @classmethod
    @contextmanager
    def opened(cls, path: Path, job: Job, settings: dict[str, Any]) -> Iterator[ShadowFolder]:
        """Lock the folder for the block; it is created if it does not exist.

        Raises:
            ValueError: if the folder holds shadow models of other arguments, or something else.
        """
        make_folder(path, PRIVATE)
        with folder_lock(path, "another train_shadows"):
            facts = facts_of(job, settings)
            _compare(path, facts)
            yield cls(path, job)

    def read(self, index: int) -> Any:
        """Shadow model `index`, or None if it is not there yet.

        Raises:
            ValueError: if the file is damaged.
        """
        path = self._file(index)
        if not path.exists():
            return None
        content = path.read_bytes()
        digest, _, rest = content.partition(b"\n")
        if hashlib.sha256(rest).hexdigest().encode() != digest:
            raise ValueError(f"{path} is damaged: remove it, and run again to train it anew.")
        return self._job.decode(rest)

    def write(self, index: int, content: bytes) -> None:
        """Keep shadow model `index`."""
        digest = hashlib.sha256(content).hexdigest().encode()
        write_bytes(self._file(index), digest + b"\n" + content, access=PRIVATE)

    def _file(self, index: int) -> Path:
        return self._path / f"shadow_{index:04d}.model"


def _compare(folder: Path, facts: dict[str, Any]) -> None:
    """Raise ValueError if `folder` holds shadow models of other facts; write them if it is new."""
    path = folder / _FACTS
    if not path.exists():
        others = [entry.name for entry in folder.iterdir() if not entry.name.startswith(".")]
        if others:
            raise ValueError(
                f"Expected folder={str(folder)!r} to be empty or to hold shadow models, found "
                f"{sorted(others)[0]!r}: name another folder."
            )
        write_text(path, json.dumps(facts, indent=2) + "\n", access=PRIVATE)
        return
    try:
        there = json.loads(path.read_text(encoding="utf-8"))
        there[_FACTS] = None
    except (ValueError, TypeError):
        raise ValueError(f"{path} is damaged: remove the folder, or name another one.") from None
    for name, value in facts.items():
        if there.get(name) != value:
            short = name in _WORDS or name == "membership"
            was = _WORDS.get(name, "other splits") if short else f"{name}={there.get(name)!r}"
            now = "" if short else f", and this call has {name}={value!r}"
            raise ValueError(
                f"The shadow models in folder={str(folder)!r} were trained with {was}{now}: give "
                "the earlier arguments, or another folder."
            )
