"""Whether a released file is exactly of its form, so that it has no room for anything else.

Seeds and solutions are matched to the last byte, JSON to its canonical text, weights to the bytes
that the tensors of the architecture alone give, archives to the bytes of the files they hold.
Each check gives sentences about what is wrong, and none quotes what it found.
"""

from __future__ import annotations

import json
import re
import struct
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mico_competition.models import new_model
from mico_competition.nets.checkpoints import SAFETENSORS, check_state, read_state, write_state
from mico_competition.nets.text_models import read_config
from mico_competition.tracks import SEED_FILES, SOLUTION_FILE, TASKS, Task

_SEED = re.compile(rb"(?:[0-9a-f]{32}|-?(?:0|[1-9][0-9]{0,19}))\n")
_SOLUTION = re.compile(rb"[01](?:,[01])*\n")
_PATH = re.compile(r"(?:/|~/?|[A-Za-z]:[\\/]|\\\\|file:)[^/\\ ]+|(?:.*[/\\])?\.\.[/\\]")
# Words, between underscores, of keys that would tell of one model or of the organiser's machine.
_TELLING = re.compile(
    r"(?:^|_)(?:seeds?|salt|solutions?|labels?|index|indices|accuracy|loss|results?|time|date|path"
    r"|dir|folder|host|machine|user)(?:_|$)"
)
_METADATA = {
    *("format", "scenario", "task", "len_dataset", "len_training", "len_challenge"),
    *("settings", "privacy", "sampler", "dataset_fingerprint", "architecture_fingerprint"),
}
_FINGERPRINT = re.compile(r"[0-9a-f]{64}")
_COMPARED = 1 << 20


def text_faults(name: str, content: bytes) -> Iterator[str]:
    """What is wrong with a small file of a model folder, by its name."""
    if name in SEED_FILES:
        if not _SEED.fullmatch(content):
            yield "is not exactly 32 hexadecimal digits or one decimal integer, and a line end"
    elif name == SOLUTION_FILE:
        if not _SOLUTION.fullmatch(content):
            yield "is not exactly a line of comma-separated zeros and ones"
    else:
        yield from json_faults(name, content)


def json_faults(name: str, content: bytes) -> Iterator[str]:
    """What is wrong with a JSON file: its text, what its keys tell, paths among its values."""
    try:
        value = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError):
        yield "is not JSON"
        return
    tokenizer = name.startswith("tokenizer")  # written by transformers, in a form of its own
    if not tokenizer and content != (json.dumps(value, indent=2) + "\n").encode():
        yield "is not JSON as it is always written: its spaces or keys may hide something"
    keys, texts = _walk(value)
    of_model = name in ("metadata.json", "config.json")
    if of_model and any(_TELLING.search(key.lower()) for key in keys):
        yield "has a key that tells of one model or of a machine"
    if name == "metadata.json" and not (isinstance(value, dict) and value.keys() <= _METADATA):
        yield "has a key that is not public metadata"
    if name == "metadata.json" and isinstance(value, dict):
        prints = [value[key] for key in value if key.endswith("_fingerprint")]
        if not all(isinstance(v, str) and _FINGERPRINT.fullmatch(v) for v in prints):
            yield "has a fingerprint that is not 64 hexadecimal digits"
    if name != "tokenizer.json" and any(_PATH.match(text) for text in (*keys, *texts)):
        yield "holds a path of some machine"


def _walk(value: Any) -> tuple[list[str], list[str]]:
    """All keys and all texts in a JSON value."""
    keys: list[str] = []
    texts: list[str] = []
    rest = [value]
    while rest:
        item = rest.pop()
        if isinstance(item, dict):
            keys += item.keys()
            rest += item.values()
        elif isinstance(item, list):
            rest += item
        elif isinstance(item, str):
            texts.append(item)
    return keys, texts


def weights_faults(task: Task, path: Path) -> Iterator[str]:
    """What a file of weights holds beside the finite tensors of the task's architecture."""
    try:
        expected = _architecture(task.name, _config_of(task, path.parent))
    except (ValueError, ImportError):
        yield "is of no architecture that could be built, so it was not checked"
        return
    if path.suffix == SAFETENSORS:
        yield from _safetensors_faults(path, expected)
        return
    try:
        state = read_state(path)
        check_state(state, expected, path, "")
    except ValueError:
        yield "does not hold exactly the finite tensors of its architecture"
        return
    if list(state) != list(expected):
        yield "holds its tensors in an order of its own"
    with tempfile.TemporaryDirectory() as folder:
        again = Path(folder) / path.name
        clones = {n: state[n].clone(memory_format=torch.contiguous_format) for n in expected}
        write_state(again, {n: tensor.to(expected[n].dtype) for n, tensor in clones.items()})
        if _size(path) != _size(again) or not _same_bytes(path, 0, again, _size(again)):
            yield (
                f"holds more than its tensors, or was written by another torch than "
                f"{torch.__version__}"
            )


def _config_of(task: Task, folder: Path) -> str | None:
    if not task.text:
        return None
    return (folder / task.weights[0]).read_text(encoding="utf-8")


@lru_cache(maxsize=16)
def _architecture(task: str, config: str | None) -> Mapping[str, torch.Tensor]:
    """State dict of an untrained model, without values."""
    row = TASKS[task]
    if config is None:
        with torch.device("meta"):
            return new_model(row).state_dict()
    from transformers import AutoModelForSequenceClassification

    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / row.weights[0]).write_text(config, encoding="utf-8")
        with torch.device("meta"):
            model = AutoModelForSequenceClassification.from_config(read_config(row, folder))
    return model.state_dict()


def _safetensors_faults(path: Path, expected: Mapping[str, torch.Tensor]) -> Iterator[str]:
    """The form is a length, a JSON header padded with spaces, and tensors without gaps."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        text = file.read(length) if length < 1 << 24 else b""
    try:
        header = json.loads(text)
        places = {name: header[name]["data_offsets"] for name in expected}
        shapes = {name: (header[name]["dtype"], header[name]["shape"]) for name in expected}
    except (ValueError, KeyError, TypeError):
        yield "does not hold exactly the finite tensors of its architecture"
        return
    if text.rstrip(b" ") != json.dumps(header, separators=(",", ":")).encode() or (
        len(text) - len(text.rstrip(b" ")) > 7
    ):
        yield "has a header that is not as it is always written"
    if header.pop("__metadata__", {"format": "pt"}) != {"format": "pt"}:
        yield "has metadata of its own"
    wanted = {name: ("F32", list(tensor.shape)) for name, tensor in expected.items()}
    if header.keys() != expected.keys() or shapes != wanted:
        yield "does not hold exactly the finite tensors of its architecture"
        return
    end = 0
    for name, (start, stop) in sorted(places.items(), key=lambda item: item[1]):
        if (start, stop) != (end, end + 4 * expected[name].numel()):
            yield "has room between its tensors"
            return
        end = stop
    if _size(path) != 8 + length + end:
        yield "goes on after its last tensor"
    values = np.memmap(path, "<f4", "r", offset=8 + length, shape=(end // 4,))
    if not all(
        np.isfinite(values[i : i + _COMPARED]).all() for i in range(0, len(values), _COMPARED)
    ):
        yield "does not hold exactly the finite tensors of its architecture"


def archive_faults(path: Path, root: Path, names: Sequence[str]) -> Iterator[str]:
    """What a zip archive tells beside files `names` below `root`, each stored as it is.

    Between members, before them and after the directory there is no byte that is not checked.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if [member.filename for member in members] != sorted(names):
                yield "does not hold exactly the files of its phase, in the order of their names"
                return
            if len({member.date_time for member in members}) > 1:
                yield "has members of different times"
            if archive.comment or any(map(_odd, members)) or not _tight(path, archive):
                yield "has comments, extra fields or bytes that are not of its files"
            starts = [_content_start(path, member) for member in members]
    except (zipfile.BadZipFile, struct.error, OSError, NotImplementedError, RuntimeError):
        yield "is not a zip archive that can be read"
        return
    for member, start in zip(members, starts):
        file = root / member.filename
        if member.file_size != _size(file) or not _same_bytes(path, start, file, _size(file)):
            yield "holds a file whose content is not that of the tree"
            return


_LOCAL = struct.Struct("<4s5H3I2H")


def _odd(member: zipfile.ZipInfo) -> bool:
    """Whether a directory entry differs from a plain stored file's."""
    extra, sizes = member.extra, (member.file_size, member.compress_size, member.header_offset)
    if extra:  # zip64: sizes and place of a member that do not fit into 32 bits, again
        kind, length = struct.unpack_from("<HH", extra)
        numbers = struct.unpack_from(f"<{length // 8}Q", extra, 4)
        odd_extra = (
            kind != 1 or len(extra) != 4 + length or length % 8 or not set(numbers) <= {*sizes}
        )
    else:
        odd_extra = False
    return bool(
        odd_extra
        or member.comment
        or member.flag_bits
        or member.compress_type != zipfile.ZIP_STORED
        or member.external_attr != 0o100644 << 16
        or (member.internal_attr, member.volume, member.reserved) != (0, 0, 0)
        or (member.create_system, member.create_version) not in ((3, 20), (3, 45))
    )


def _tight(path: Path, archive: zipfile.ZipFile) -> bool:
    """Whether local headers repeat the directory, and member follows member without a gap."""
    end = 0
    for member in archive.infolist():
        if member.header_offset != end:
            return False
        start = _content_start(path, member)
        with path.open("rb") as file:
            file.seek(end)
            local = _LOCAL.unpack(file.read(_LOCAL.size))
            name, extra = file.read(local[9]), file.read(local[10])
        year, month, day, hour, minute, second = member.date_time
        date, time = (year - 1980) << 9 | month << 5 | day, hour << 11 | minute << 5 | second // 2
        zip64 = struct.pack("<HHQQ", 1, 16, member.file_size, member.compress_size)
        sizes = (member.compress_size, member.file_size)
        if (
            local[1] not in (20, 45)
            or local[2:7] != (0, 0, time, date, member.CRC)
            or name != member.filename.encode()
            or (local[7:9], extra) not in ((sizes, b""), ((2**32 - 1,) * 2, zip64))
        ):
            return False
        end = start + member.compress_size
    directory = sum(46 + len(m.filename.encode()) + len(m.extra) for m in archive.infolist())
    after = _size(path) - archive.start_dir - directory
    return archive.start_dir == end and after in (22, 22 + 20 + 56)


def _content_start(path: Path, member: zipfile.ZipInfo) -> int:
    """Where the bytes of a member start."""
    with path.open("rb") as file:
        file.seek(member.header_offset)
        local = _LOCAL.unpack(file.read(_LOCAL.size))
    return member.header_offset + _LOCAL.size + local[9] + local[10]


def _same_bytes(path: Path, start: int, other: Path, size: int) -> bool:
    """Whether `size` bytes of `path` from `start` on are those that `other` begins with."""
    with path.open("rb") as left, other.open("rb") as right:
        left.seek(start)
        while size > 0:
            wanted = right.read(min(size, _COMPARED))
            if not wanted or left.read(len(wanted)) != wanted:
                return False
            size -= len(wanted)
    return True


def _size(path: Path) -> int:
    return path.stat().st_size
