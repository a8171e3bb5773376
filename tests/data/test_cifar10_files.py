"""CIFAR-10's files: both official forms, whole, damaged and hostile."""

import hashlib
import importlib.util
import io
import os
import pickle
import shutil
import struct
import tarfile
from dataclasses import replace

import numpy as np
import pytest
import torch

from mico_competition.data import cifar10_files
from mico_competition.data.cifar10_files import BINARY, PARTS, PYTHON
from mico_competition.data.datasets import load_cifar10
from mico_competition.data.downloads import DownloadError

COUNTS = (3, 2, 2, 1, 2, 4)  # records a file; lengths need not be equal


def bytestring(value):
    return b"T" + struct.pack("<i", len(value)) + value


def python2_array(data):
    """An array as Python 2 pickled it, opcode by opcode."""
    shape = b"".join(b"J" + struct.pack("<i", length) for length in data.shape)
    return (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01(" + shape + b"tcnumpy\ndtype\nU\x02u1K\x00K\x01\x87R"
        b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        + (b"\x88" if data.flags.f_contiguous else b"\x89")
        + bytestring(data.tobytes(order="A"))
        + b"tb"
    )


def python2_batch(data, labels):
    entries = {
        b"batch_label": bytestring(b"a batch"),
        b"labels": b"(" + b"".join(b"K" + bytes([label]) for label in labels) + b"l",
        b"data": python2_array(data),
    }
    items = b"".join(bytestring(key) + value for key, value in entries.items())
    return b"\x80\x02}(" + items + b"u."


@pytest.fixture(scope="module")
def parts():
    """Pixels and labels of each of the six files."""
    draw = np.random.default_rng(0).integers
    return [
        (draw(0, 256, (count, 3072), np.uint8), draw(0, 10, count, np.uint8)) for count in COUNTS
    ]


def write_binary(folder, parts):
    folder.mkdir(parents=True)
    for name, (data, labels) in zip(BINARY.files, parts, strict=True):
        (folder / name).write_bytes(np.concatenate([labels[:, None], data], axis=1).tobytes())


def write_python(folder, parts):
    folder.mkdir(parents=True)
    for name, (data, labels) in zip(PYTHON.files, parts, strict=True):
        (folder / name).write_bytes(python2_batch(data, labels.tolist()))


def pack(folder, archive):
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, arcname=folder.name)


def check(dataset, parts):
    """The dataset is the six files in their order."""
    pixels = np.concatenate([data for data, _ in parts]).reshape(-1, 3, 32, 32)
    assert torch.equal(dataset.storage, torch.from_numpy(pixels))
    assert dataset.labels.tolist() == np.concatenate([labels for _, labels in parts]).tolist()


@pytest.mark.parametrize("below", ["cifar10", "."])
@pytest.mark.parametrize("form", [BINARY, PYTHON], ids=["binary", "python"])
@pytest.mark.parametrize("packed", [False, True], ids=["folder", "archive"])
def test_either_form_is_read_wherever_it_lies(tmp_path, parts, below, form, packed):
    root = tmp_path / below
    folder = root / form.folder
    (write_binary if form is BINARY else write_python)(folder, parts)
    if packed:
        pack(folder, root / form.archive)
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
    check(load_cifar10(tmp_path, download=False), parts)
    assert folder.exists() is not packed


def test_a_python_array_in_fortran_order_is_the_same(tmp_path, parts):
    write_python(tmp_path / PYTHON.folder, [(np.asfortranarray(d), y) for d, y in parts])
    check(load_cifar10(tmp_path, download=False), parts)


@pytest.mark.parametrize("protocol", [2, 4])
def test_pickles_written_anew_by_python_3_are_read(tmp_path, parts, protocol):
    folder = tmp_path / PYTHON.folder
    folder.mkdir()
    for name, (data, labels) in zip(PARTS, parts, strict=True):
        batch = {"data": data, "labels": labels.tolist()}
        (folder / name).write_bytes(pickle.dumps(batch, protocol))
    check(load_cifar10(tmp_path, download=False), parts)


def test_the_form_without_pickles_is_preferred(tmp_path, parts):
    write_binary(tmp_path / BINARY.folder, parts)
    folder = tmp_path / "cifar10" / PYTHON.folder
    folder.mkdir(parents=True)
    for name in PARTS:
        (folder / name).write_bytes(b"not a pickle")
    check(load_cifar10(tmp_path, download=False), parts)


class Payload:
    """A pickle of this makes a folder when it is loaded by pickle.load."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_a_hostile_pickle_is_refused_and_does_not_run(tmp_path, parts, protocol):
    write_python(tmp_path / PYTHON.folder, parts)
    proof = tmp_path / "ran"
    hostile = tmp_path / PYTHON.folder / "data_batch_2"
    raw = pickle.dumps({b"data": Payload(proof), b"labels": []}, protocol)
    hostile.write_bytes(raw)
    with pytest.raises(ValueError, match=r"data_batch_2 asks for (posix|nt)\.mkdir"):
        load_cifar10(tmp_path, download=False)
    assert not proof.exists()
    pickle.loads(raw)  # the proof that it would have
    assert proof.exists()


@pytest.mark.parametrize(
    "asked",
    [
        "builtins\neval",
        "__builtin__\neval",
        "numpy\nload",
        "numpy\nfromfile",
        "numpy.core.multiarray\nscalar",
        "numpy\n__builtins__",
        "mico_competition.data.plain_pickle\npickle",
    ],
)
def test_any_other_name_is_refused(tmp_path, parts, asked):
    write_python(tmp_path / PYTHON.folder, parts)
    (tmp_path / PYTHON.folder / "test_batch").write_bytes(f"c{asked}\n.".encode())
    with pytest.raises(ValueError, match=f"test_batch asks for {asked.replace(chr(10), '.')}, "):
        load_cifar10(tmp_path, download=False)


OBJECTS = python2_array(np.zeros((1, 8), np.uint8)).replace(b"U\x02u1", b"U\x02O8")


@pytest.mark.parametrize(
    ("raw", "complaint"),
    [
        (b"", "EOFError"),
        (b"\x80\x02}(", "truncated|EOFError|Unpickling"),
        (b"]" + b".", "holds no dict"),
        (b"}.", "it has no 'data'"),
        (b"}(U\x04datacnumpy\nndarray\nU\x06labels]u.", "'data' is not an array"),
        (b"}(U\x04data" + OBJECTS + b"U\x06labels]u.", "not of bytes"),
        (b"}(U\x04data" + python2_array(np.zeros((1, 8), np.uint8)) + b"U\x06labels]u.", "shape"),
        (
            b"}(U\x04data" + python2_array(np.zeros((1, 3072), np.uint8)) + b"U\x06labels]u.",
            "0 lab",
        ),
        (
            python2_batch(np.zeros((2, 3072), np.uint8), [3, 12]),
            "record 1 has label 12, not 0 to 9",
        ),
        (python2_batch(np.zeros((2, 3072), np.uint8), [3, 1])[:-200], "is not a whole CIFAR-10"),
        (b"cnumpy\ndtype\n}U\x01aK\x01sb.", "is not a whole"),  # state for a class, not an object
    ],
)
def test_damaged_pickles_are_named(tmp_path, parts, raw, complaint):
    write_python(tmp_path / PYTHON.folder, parts)
    (tmp_path / PYTHON.folder / "data_batch_4").write_bytes(raw)
    with pytest.raises(ValueError, match=f"data_batch_4.*({complaint})"):
        load_cifar10(tmp_path, download=False)


def test_a_truncated_file_is_named_with_its_byte(tmp_path, parts):
    folder = tmp_path / BINARY.folder
    write_binary(folder, parts)
    (folder / "data_batch_3.bin").write_bytes(bytes(3073 + 100))
    with pytest.raises(ValueError, match=r"data_batch_3\.bin is truncated.*byte 3,173, 100 bytes"):
        load_cifar10(tmp_path, download=False)
    (folder / "data_batch_3.bin").write_bytes(b"")
    with pytest.raises(ValueError, match=r"data_batch_3\.bin is truncated: it ends at byte 0"):
        load_cifar10(tmp_path, download=False)
    (folder / "data_batch_3.bin").write_bytes(bytes(3073) + b"\x0b" + bytes(3072))
    with pytest.raises(
        ValueError, match=r"_3\.bin is damaged: record 1 \(byte 3,073\) has label 11"
    ):
        load_cifar10(tmp_path, download=False)


def test_a_missing_file_is_named(tmp_path, parts):
    write_binary(tmp_path / BINARY.folder, parts)
    (tmp_path / BINARY.folder / "data_batch_3.bin").unlink()
    with pytest.raises(FileNotFoundError, match=r"cifar-10-batches-bin lacks data_batch_3\.bin:"):
        load_cifar10(tmp_path, download=False)


def test_damaged_archives_are_named(tmp_path, parts):
    write_binary(tmp_path / "made" / BINARY.folder, parts)
    archive = tmp_path / BINARY.archive
    (tmp_path / "made" / BINARY.folder / "test_batch.bin").unlink()
    pack(tmp_path / "made" / BINARY.folder, archive)
    with pytest.raises(ValueError, match=r"tar\.gz lacks cifar-10-batches-bin/test_batch\.bin"):
        load_cifar10(tmp_path, download=False)
    whole = archive.read_bytes()
    for length in (0, 20, len(whole) // 2):
        archive.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"binary\.tar\.gz is truncated or damaged"):
            load_cifar10(tmp_path, download=False)


def serve(monkeypatch, content, md5):
    """Lets `fetch` give `content`, as downloads.download would."""

    def fetch(url, path, *, md5=None):
        assert url == "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
        if hashlib.md5(content).hexdigest() != md5:
            raise DownloadError("wrong checksum")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    monkeypatch.setattr(cifar10_files, "fetch", fetch)
    monkeypatch.setattr(cifar10_files, "BINARY", replace(BINARY, md5=md5))


def test_a_download_is_unpacked_file_by_file(tmp_path, parts, monkeypatch):
    write_binary(tmp_path / "made" / BINARY.folder, parts)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        tar.add(tmp_path / "made" / BINARY.folder, arcname=BINARY.folder)
        for name in ("../outside", f"{BINARY.folder}/../../outside", f"{BINARY.folder}/readme"):
            tar.addfile(tarfile.TarInfo(name))
    content = buffer.getvalue()
    serve(monkeypatch, content, hashlib.md5(content).hexdigest())
    data = tmp_path / "data"
    check(load_cifar10(data), parts)
    assert sorted(path.name for path in (data / "cifar10" / BINARY.folder).iterdir()) == sorted(
        BINARY.files
    )
    assert [path.name for path in (data / "cifar10").iterdir()] == [BINARY.folder]
    assert [path.name for path in data.iterdir()] == ["cifar10"]
    monkeypatch.setattr(cifar10_files, "fetch", None)
    check(load_cifar10(data), parts)  # from what was unpacked


def test_a_download_with_a_wrong_checksum_is_not_unpacked(tmp_path, monkeypatch):
    serve(monkeypatch, b"something else", "c32a1d4ab5d03f1284b67883e8d87530")
    with pytest.raises(DownloadError):
        load_cifar10(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_both_forms_of_the_real_images_are_equal(shared, tmp_path):
    tool = shared / "tools" / "make_cifar10.py"
    pytest.importorskip("PIL")
    if not tool.is_file():
        pytest.skip(f"no {tool}")
    spec = importlib.util.spec_from_file_location("make_cifar10", tool)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.main(tmp_path)
    first = load_cifar10(tmp_path, download=False)
    shutil.rmtree(tmp_path / "cifar10" / BINARY.folder)  # 370 MB in all: too much to leave behind
    second = load_cifar10(tmp_path, download=False)
    shutil.rmtree(tmp_path / "cifar10")
    assert len(first) == 60_000
    assert torch.equal(first.storage, second.storage)
    assert torch.equal(first.labels, second.labels)
    assert first.labels.bincount().tolist() == [6000] * 10
    # The normalisation is that of the training images: mean 0 and deviation 1 a channel.
    mean = first.inputs(range(5000)).mean(dim=(0, 2, 3))
    assert mean.abs().max() < 0.03
