"""Checks that files of weights and archives hold exactly what they must, to the last byte.

Weights are compared with the trained tensors, and with the bytes that a file of only these tensors
has; archives are compared with the bytes that an archive of the files of their phase has.  Faults
are sentences that quote no content.
"""

from __future__ import annotations

import json
import stat
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import torch

from mico_competition.competition.in_use import InUse
from mico_competition.competition.table import TASKS, Task
from mico_competition.models.architectures import new_model
from mico_competition.models.checkpoints import SAFETENSORS, check_state, find_file, read_state
from mico_competition.models.text_models import read_config

_BLOCK = 1 << 20
_EPOCH = (1980, 1, 1, 0, 0, 0)
State = Mapping[str, torch.Tensor]

_TENSORS = "does not hold exactly the finite tensors of its architecture"


class _Compared:
    """An output that compares the bytes that are written to it with those of an existing file.

    If bytes are written twice, as `zipfile` does with headers, the last ones count.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._place, self._end = file, 0, 0
        self._wrong: set[int] = set()

    def write(self, data: bytes) -> int:
        """Compare `data` with the file's bytes at the current position."""
        content = bytes(data)
        self._file.seek(self._place)
        same = self._file.read(len(content)) == content
        (self._wrong.discard if same else self._wrong.add)(self._place)
        self._place += len(content)
        self._end = max(self._end, self._place)
        return len(content)

    def seek(self, offset: int, whence: int = 0) -> int:
        """Change the current position, as in any file."""
        self._place = offset + (0, self._place, self._end)[whence]
        return self._place

    def tell(self) -> int:
        """The current position."""
        return self._place

    def flush(self) -> None:
        """Do nothing, as nothing is buffered."""

    def seekable(self) -> bool:
        """True; `zipfile` asks for it."""
        return True

    def same(self) -> bool:
        """Whether exactly the bytes of the file were written."""
        return not self._wrong and self._end == self._file.seek(0, 2)


def weights_faults(task: Task, path: Path, trained: Path | None = None) -> Iterator[str]:
    """Find what a file of weights holds besides the finite tensors of the task's architecture.

    Args:
        task: the task of the model.
        path: the released file.
        trained: the folder of the trained model, with which the tensors must agree bit for bit.
    """
    try:
        expected = _architecture(InUse.here(), task.name, _config_of(task, path.parent))
    except (ValueError, ImportError):
        yield "has an architecture that could not be built, so it was not checked"
        return
    try:
        state = read_state(path)
        check_state(state, expected, path, "")
    except ValueError:
        yield _TENSORS
        return
    state = {name: tensor.contiguous() for name, tensor in state.items()}
    written = _is_safetensors if path.suffix == SAFETENSORS else _is_torch
    if not written(path, {name: state[name].to(expected[name].dtype) for name in expected}):
        yield (
            "holds more than its tensors or has them in another order, or was not written by "
            f"torch {torch.__version__}"
        )
    if trained is not None and not _same_tensors(state, trained, task):
        yield "does not hold the weights of the trained model"


def _config_of(task: Task, folder: Path) -> str | None:
    if not task.text:
        return None
    return (folder / task.weights[0]).read_text(encoding="utf-8")


@lru_cache(maxsize=16)
def _architecture(competition: InUse, task: str, config: str | None) -> State:
    """The state dict of an untrained model of the competition in use, without values."""
    row = TASKS[task]
    if config is None:
        with torch.device("meta"):
            return new_model(row).state_dict()
    from transformers import AutoModelForSequenceClassification

    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / row.weights[0]).write_text(config, encoding="utf-8")
        with torch.device("meta"):
            model = AutoModelForSequenceClassification.from_config(read_config(row, folder))
    state: State = model.state_dict()
    return state


def _is_torch(path: Path, state: State) -> bool:
    """Whether a file is what `torch.save` writes for these tensors, each with its own storage."""
    alone = {name: tensor.clone() for name, tensor in state.items()}
    with path.open("rb") as file:
        compared = _Compared(file)
        torch.save(alone, cast(BinaryIO, compared))
        return compared.same()


def _is_safetensors(path: Path, state: State) -> bool:
    """Whether a file is what safetensors writes for these float32 tensors.

    That is a length, a JSON header padded with spaces to a multiple of 8 bytes, and the tensors in
    the order of their names, without gaps.
    """
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name in sorted(state):
        start, end = end, end + 4 * state[name].numel()
        shape = list(state[name].shape)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with path.open("rb") as file:
        compared = _Compared(file)
        compared.write(len(text).to_bytes(8, "little") + text)
        for name in sorted(state):
            compared.write(memoryview(state[name].numpy().reshape(-1)).cast("B"))  # type: ignore[arg-type]
        return compared.same()


def _same_tensors(state: State, trained: Path, task: Task) -> bool:
    """Whether the tensors have the bits of those that were trained, as float32."""
    try:
        source = read_state(find_file(trained, task.weights[-1]))
    except ValueError:
        return False

    def bits(tensor: torch.Tensor) -> np.ndarray:
        kind = torch.float32 if tensor.is_floating_point() else tensor.dtype
        return tensor.to(kind).contiguous().numpy().reshape(-1).view(np.uint8)

    return all(
        name in source and np.array_equal(bits(tensor), bits(source[name]))
        for name, tensor in state.items()
    )


def archive_faults(path: Path, root: Path, names: Sequence[str]) -> Iterator[str]:
    """The faults of a zip archive that must hold files `names` below `root`, and no more.

    It is compared with an archive that is written from these files.
    """
    with path.open("rb") as file:
        compared = _Compared(file)
        with zipfile.ZipFile(cast(BinaryIO, compared), "w") as archive:
            for name in sorted(names):
                info = zipfile.ZipInfo(name, _EPOCH)
                info.create_system, info.external_attr = 3, (stat.S_IFREG | 0o644) << 16
                info.file_size = (root / name).stat().st_size
                with (root / name).open("rb") as source, archive.open(info, "w") as member:
                    while block := source.read(_BLOCK):
                        member.write(block)
        if not compared.same():
            yield "is not exactly the archive of the files of its phase"
