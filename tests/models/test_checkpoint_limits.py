"""Files of weights that cost much are refused before torch or safetensors see them."""

import io
import json
import os
import pickle
import struct
import zipfile
from collections import Counter

import pytest
import torch

from mico_competition.competition.table import TASKS
from mico_competition.models import checkpoint_limits
from mico_competition.models.architectures import MLP, load_model
from mico_competition.models.checkpoints import read_state

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 12345\n"


@pytest.fixture
def unseen(monkeypatch):
    """Fails a test in which torch or safetensors is given a file."""

    def refuse(*_, **__):
        pytest.fail("the file was loaded")

    monkeypatch.setattr(torch, "load", refuse)
    monkeypatch.setattr("safetensors.torch.load_file", refuse)


class Asks:
    """Pickles to a call."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def members(data):
    """The files of a zip by name."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def written(state, **options):
    buffer = io.BytesIO()
    torch.save(state, buffer, **options)
    return buffer.getvalue()


def zipped(files, method=zipfile.ZIP_STORED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


SOUND = written(MLP(64, 8, 10).state_dict())
PICKLE = next(name for name in members(SOUND) if name.endswith("data.pkl"))


def with_pickle(content):
    return zipped({**members(SOUND), PICKLE: content})


def sharing(count):
    """A zip whose directory names one member's data `count` times."""
    data = zipped({"archive/data.pkl": b"\x80\x02}.", "archive/data/0": bytes(1 << 20)})
    end = struct.unpack("<4s4H2LH", data[-22:])
    directory = data[end[6] : end[6] + end[5]]
    entry = directory[directory.rindex(b"PK\1\2") :]
    more = b"".join(entry.replace(b"data/0", b"data/%d" % (i % 10)) for i in range(count))
    numbers = (end[3] + count, end[4] + count, end[5] + len(more), end[6], 0)
    return data[: end[6]] + directory + more + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, *numbers)


def crowded(count):
    """A zip with so many members, made without `zipfile`, which is slow."""
    entry = struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, 20, *[0] * 7, 1, *[0] * 6) + b"x"
    end = struct.pack(
        "<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, len(entry) * count, 4
    )
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, 4 + len(entry) * count, 1)
    last = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, *[0xFFFF] * 2, *[0xFFFFFFFF] * 2, 0)
    return b"PK\3\4" + entry * count + end + locator + last


BYTEARRAY = Asks(bytearray, 10**11)
CASES = {
    "a bytearray in a zip": (with_pickle(pickle.dumps({"a": BYTEARRAY}, 2)), "bytearray"),
    "a bytearray": (pickle.dumps(BYTEARRAY, 2), "bytearray"),
    "a bytearray in the old format": (
        written({"a": BYTEARRAY}, _use_new_zipfile_serialization=False),
        "bytearray",
    ),
    "a counter": (
        with_pickle(pickle.dumps({"a": Asks(Counter)}, 2)),
        "Co",
    ),
    "a call": (with_pickle(pickle.dumps({"a": Asks(os.mkdir, "x")}, 2)), "mkdir, but"),
    "a million lists": (with_pickle(b"\x80\x02" + b"]" * 10**6 + b"."), "over 500,000 operations"),
    "a million lists, old": (b"\x80\x02" + b"]" * 10**6 + b".", "over 500,000 operations"),
    "a long pickle": (with_pickle(b"\x80\x02]." + bytes(17 << 20)), "its data.pkl has 17,825,7"),
    "deflated": (zipped(members(SOUND), zipfile.ZIP_DEFLATED), "compressed members"),
    "a bomb": (zipped({PICKLE: bytes(64 << 20)}, zipfile.ZIP_DEFLATED), "compressed members"),
    "shared data": (sharing(1_000), "its members share their data"),
    "a million members": (crowded(1_000_000), "1,000,000 members in a directory of 47,000,000"),
    "bytes behind": (SOUND + b"x", "does not end as torch's zips do"),
    "cut": (SOUND[:-30], "does not end as torch's zips do"),
    "only a beginning": (b"PK\3\4", "does not end as torch's zips do"),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_a_file_of_torch_that_costs_much(case, tmp_path, unseen):
    content, words = CASES[case]
    (tmp_path / "model.pt").write_bytes(content)
    with pytest.raises(ValueError, match=words) as caught:
        read_state(tmp_path / "model.pt")
    assert str(caught.value).startswith(f"{tmp_path}/model.pt is ")


@pytest.mark.parametrize("length", [2**63, 2**62, 10**9, 99_000_000, 5_000_000])
def test_a_header_of_safetensors_that_lies_or_is_too_long(length, tmp_path, unseen):
    path = tmp_path / "x.safetensors"
    path.write_bytes(struct.pack("<Q", length) + b"{}")
    for size in (10, 10 << 30):
        os.truncate(path, size)
        longer = length > size - 8
        words = "is longer than the file" if longer else f"has {length:,} bytes, over 4,000,000"
        with pytest.raises(ValueError, match=words):
            read_state(path)


@pytest.mark.parametrize(
    "tensor",
    [
        {"dtype": "F32", "shape": [10**9], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [10**10, 10**10], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [1], "data_offsets": [0, 10**12]},
        {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]},
    ],
)
def test_a_header_of_safetensors_that_states_what_is_not_there(tensor, tmp_path):
    header = json.dumps({"a": tensor}).encode()
    path = tmp_path / "x.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    with pytest.raises(ValueError, match="truncated, damaged or not a checkpoint"):
        read_state(path)


@pytest.mark.parametrize("old", [False, True])
def test_a_shape_that_the_data_do_not_fill(old, tmp_path):
    state = {"a": torch.zeros(1).expand(10**6, 10**6)}
    (tmp_path / "model.pt").write_bytes(written(state, _use_new_zipfile_serialization=not old))
    with pytest.raises(ValueError, match="gives a a shape that its data do not fill"):
        read_state(tmp_path / "model.pt")


@pytest.mark.parametrize("task", ["cifar10", "purchase100", "digits", "baskets"])
def test_a_file_larger_than_the_model_is_not_opened(task, tmp_path, unseen, monkeypatch):
    path = tmp_path / "model.pt"
    path.touch()
    os.truncate(path, 10 << 30)
    monkeypatch.setattr(checkpoint_limits, "open", lambda *_: pytest.fail("opened"), raising=False)
    with pytest.raises(ValueError, match=r"10,737,418,240 bytes, more than the .* check the task"):
        load_model(task, tmp_path)


@pytest.mark.parametrize("name", ["model.pt", "model.safetensors"])
def test_a_pointer_of_git_lfs_is_called_so(name, tmp_path):
    (tmp_path / name).write_text(POINTER)
    with pytest.raises(ValueError, match="is a pointer of git-LFS.*git lfs pull"):
        read_state(tmp_path / name)
    if name in TASKS["digits"].weights[-1]:
        with pytest.raises(ValueError, match="is a pointer of git-LFS"):
            load_model("digits", tmp_path)


def test_what_is_sound_passes_every_check(tmp_path):
    state = MLP(64, 8, 10).double().state_dict() | {"n": torch.tensor(3), "b": torch.ones(2).half()}
    for protocol in (2, 3):  # torch itself reads later ones as tensors alone no more
        for new in (True, False):
            options = {"pickle_protocol": protocol, "_use_new_zipfile_serialization": new}
            (tmp_path / "x.pt").write_bytes(written(state, **options))
            read = read_state(tmp_path / "x.pt")
            assert all(torch.equal(read[name], state[name]) for name in state)
