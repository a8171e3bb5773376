"""What must hold for any bytes and any tree; test_scoring_fuzz.py and the long run use these.

Each `check_` function takes what a stranger may send, and raises AssertionError if the reader,
the unpacker or the program does anything but read it or list faults, one line each.
"""

import contextlib
import io
import os
import shutil
import struct
import tempfile
import zipfile
from pathlib import Path

from helpers_two_faced_zips import by_headers, tree_of
from mico_competition.scoring import program
from mico_competition.scoring.reading import read_values

from mico_competition.competition import hostile_zip

SHM = "/dev/shm" if os.path.isdir("/dev/shm") else None
NAME = "cifar10/cifar10_hi/dev/model_0/prediction.csv"
COUNT = 4
SCENARIOS = ("cifar10_hi", "cifar10_inf", "cifar10_lo")
TRUTH, SOUND = "0,1,1,0\n", "0.25,0.875,0.5,0.125\n"
SMALL = 1 << 20
WORDS = [
    *("0.5", "1", "0", ".5", "1.", "1e-3", "-0.0", "nan", "inf", "-Infinity", "1e400", "0x1p-2"),
    *("1_0", "", " ", "\t", ",", ",,", "\n", "\r\n", "\r", "\ufeff", "\u2028", "\x1f", "\0"),
    *("\u0661", "\x1b[31m", "5" * 200, "0." + "1" * 90, "e", "+", "--1", "1e", "1e5e5", "score"),
]
PARTS = [
    *("cifar10", "CIFAR10", "cifar10_hi", "cifar10_inf", "dev", "final", "Dev", "model_0"),
    *("prediction.csv", "predictions.csv", "Prediction.csv", "metadata", "__MACOSX", ".DS_Store"),
    *("inner.zip", "a\nb", "\x1b[2J", "\udcff", "x" * 200, " ", "cifar10.zip", "model_-1"),
]
KINDS = ["remove", "move", "file", "folder", "link", "fifo", "sound"]
LINKS = ["/", "/dev/zero", "../../../../../../ref", "prediction.csv", "nothing"]


def scratch():
    """A new folder, in memory where there is one."""
    return tempfile.TemporaryDirectory(prefix="mico_fuzz_", dir=SHM)


def check_faults(faults, start):
    assert faults and all(isinstance(fault, str) for fault in faults)
    for fault in faults:
        assert fault.startswith(start) and fault.endswith(".") and len(fault) < 600, fault
        assert fault.isascii() and fault.isprintable(), fault


def check_values(data, path):
    """`read_values` on any bytes: the numbers of a plain reading, or faults that name the file."""
    Path(path).write_bytes(data)
    for count in (COUNT, None):
        values, faults = read_values(str(path), count, NAME)
        if values is None:
            check_faults(faults, NAME)
            continue
        words = data.decode("utf-8-sig").strip(" \t\r\n").split(",")
        words = words[:-1] if not words[-1] else words
        assert faults == [] and values.tolist() == [float(word) for word in words]
        assert len(words) == (count or len(words)) and 0 <= min(values) <= max(values) <= 1
    return values is not None


def tree(folder):
    """Relative path -> bytes, or None for a folder, of all that lies below `folder`."""
    folder = Path(folder)
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


def check_archive(data):
    """`unpack_zip` on any bytes: what zipfile and a reader of headers find, or faults."""
    with scratch() as aside:
        root = Path(aside)
        path, ours, theirs = root / "a.zip", root / "ours", root / "theirs"
        path.write_bytes(data)
        ours.mkdir()
        before, hostile_zip.MAX_UNPACKED = hostile_zip.MAX_UNPACKED, SMALL
        try:
            faults = hostile_zip.unpack_zip(path, ours)
        finally:
            hostile_zip.MAX_UNPACKED = before
        found = tree(ours)
        assert sum(len(content or b"") for content in found.values()) <= SMALL
        assert sorted(os.listdir(root)) == ["a.zip", "ours"]
        if faults:
            check_faults(faults, str(path))
            return False
        with zipfile.ZipFile(path) as archive:
            archive.extractall(theirs)
        assert found == tree(theirs)
        streamed = {n: c for n, c in by_headers(data).items() if not n.endswith("/")}
        assert {os.path.normpath(n): c for n, c in streamed.items()} == tree_of(ours)
        return True


def sound_zip():
    """A sound submission, and the kinds of entries that systems add to one."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for i, scenario in enumerate(SCENARIOS):
            made = zipfile.ZipInfo(f"cifar10/{scenario}/dev/model_0/prediction.csv")
            made.compress_type = (zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED)[i % 2]
            archive.writestr(made, SOUND)
        archive.writestr("cifar10/", b"")
        archive.writestr(".DS_Store", bytes(3_000), zipfile.ZIP_DEFLATED)
        archive.comment = b"a comment"
    return buffer.getvalue()


def spoilt_zip(edits):
    """A sound zip after edits: (place, kind, number), each on some bytes of it."""
    data = bytearray(sound_zip())
    marks = (b"PK\1\2", b"PK\3\4", b"PK\5\6")
    for place, kind, number in edits:
        at = place % (len(data) + 1)
        if kind < 3:  # a field of a header: what random bytes seldom hit
            starts = [i for i in range(len(data)) if data.startswith(marks[kind], i)]
            at = starts[place % len(starts)] + 4 + number % 42 if starts else at
            data[at : at + 2] = struct.pack("<H", (number * 0x9E37) & 0xFFFF)
        elif kind == 3:
            data[at : at + 1] = bytes([number & 0xFF])
        elif kind == 4:
            del data[at : at + 1 + number % 40]
        elif kind == 5:
            data[at:at] = bytes(data[number % (len(data) + 1) :][:60])
        else:
            data[at : at + 4] = struct.pack("<L", number & 0xFFFFFFFF)
    return bytes(data)


def lay_out(root):
    """IN and OUT of the smallest competition, with a sound submission."""
    for scenario in SCENARIOS:
        for top, file, text in (("ref", "solution", TRUTH), ("res", "prediction", SOUND)):
            path = root / "in" / top / "cifar10" / scenario / "dev" / "model_0" / f"{file}.csv"
            path.parent.mkdir(parents=True)
            path.write_text(text)


def stays(path):
    """Whether no folder above `path` is a link, which would lead an edit out of the tree."""
    return os.path.realpath(os.path.dirname(path)) == os.path.dirname(path)


def spoil(res, edits):
    """Apply edits (path, kind, other path, content) to the submission's tree, as far as they go.

    Nothing is ever followed: these run with the rights of whoever runs the tests.
    """
    res = os.path.realpath(res)
    for names, kind, others, data in edits:
        path, other = (os.path.join(res, *parts) for parts in (names, others))
        with contextlib.suppress(OSError, ValueError, shutil.Error):
            if stays(path) and (kind != "move" or stays(other)):
                edit(path, kind, other, data)


def edit(path, kind, other, data):
    """One edit; OSError if it does not fit what is there."""
    if kind == "remove":
        is_folder = os.path.isdir(path) and not os.path.islink(path)
        shutil.rmtree(path) if is_folder else os.remove(path)
    elif kind == "move":
        os.makedirs(os.path.dirname(other), exist_ok=True)
        os.rename(path, other)
    elif kind == "folder":
        os.makedirs(path)
    elif kind == "link":
        os.symlink(LINKS[len(data) % len(LINKS)], path)
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        if os.path.lexists(path):
            os.remove(path)  # and not written through, if it is a link or a pipe
        Path(path).write_bytes(SOUND.encode() if kind == "sound" else data)


def check_program(edits):
    """The whole program on any tree: scores and nothing else, or faults and no file; no truth."""
    with scratch() as aside:
        root = Path(aside)
        lay_out(root)
        spoil(root / "in" / "res", edits)
        done = run(root)
        code, out, err = done
        page = (root / "out" / program.PAGE).read_bytes()
        outputs = sorted(os.listdir(root / "out"))
        assert code in (0, 1) and TRUTH.strip() not in out + err
        if code == 0:
            assert err == "" and out == "Scored 3 models in 3 scenarios.\n"
            assert outputs == sorted((program.PAGE, *program.SCORES))
            return True
        head, *faults = err.splitlines()
        assert (
            out == ""
            and outputs == [program.PAGE]
            and head.startswith("Not scored: the submission has")
        )
        check_faults([fault for fault in faults if not fault.startswith("...")], "- ")
        for path in root.glob("in/ref/*/*/*/*/*"):
            path.write_text("1,0,0,1\n")
        assert run(root) == done and (root / "out" / program.PAGE).read_bytes() == page
        return False


def run(root):
    """The program in this process: exit code, stdout, stderr."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = program.main([str(root / "in"), str(root / "out")])
    return code, out.getvalue(), err.getvalue()
