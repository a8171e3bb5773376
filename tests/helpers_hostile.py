"""Hostile submissions as trees of files, and what a case of them is; see test_hostile.py.

`benchmarks/hostile_cases.py` runs the same cases for docs/results/hostile.json.
"""

import os
import shutil
import socket
from collections.abc import Callable
from dataclasses import dataclass

from helpers_scoring import NUM_POINTS, SCENARIOS, write_line

MODEL = "cifar10/cifar10_hi/dev/model_100"
FILE = MODEL + "/prediction.csv"
MANY = 10_001
HARMLESS = ""


@dataclass(frozen=True)
class Case:
    """`make` spoils a sound submission; `words` are what its fault must say, "" if harmless.

    `make` gets the competition (layer "tree") or the path of the zip to write and the files of
    a sound one (layer "zip").  A `heavy` case is measured in a process of its own.
    """

    name: str
    make: Callable
    words: str
    layer: str = "tree"
    heavy: bool = False


def content(text, repeat=1):
    """Put these bytes into one model's prediction.csv."""
    data = text if isinstance(text, bytes) else text.encode()
    return lambda c: c.prediction().write_bytes(data * repeat)


def line(change):
    """Pass the sound line of one model's prediction.csv through `change`."""

    def make(c):
        path = c.prediction()
        path.write_bytes(change(path.read_text().strip()).encode())

    return make


def replaced(word):
    """One value of one model's prediction.csv is `word`."""
    return line(lambda text: text.partition(",")[2] + "," + word)


def move(old, new):
    return lambda c: (c.inputs / "res" / old).rename(c.inputs / "res" / new)


def inside(name):
    """The whole submission lies in a folder of its own."""

    def make(c):
        (c.inputs / "res").rename(c.inputs / "aside")
        (c.inputs / "res").mkdir()
        (c.inputs / "aside").rename(c.inputs / "res" / name)

    return make


def without_top(c):
    c.res.rename(c.inputs / "aside")
    shutil.rmtree(c.inputs / "res")
    (c.inputs / "aside").rename(c.inputs / "res")


def link(to, place=FILE):
    """A link in the place of one file or folder of the submission."""

    def make(c):
        path = c.inputs / "res" / place
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        path.symlink_to(to(c))

    return make


def special(kind):
    """Something that is no file, in the place of one prediction.csv."""

    def make(c):
        path = c.prediction()
        path.unlink()
        if kind == "socket":
            here = os.getcwd()
            os.chdir(path.parent)  # a socket's path has a length of its own
            try:
                with socket.socket(socket.AF_UNIX) as bound:
                    bound.bind(path.name)
            finally:
                os.chdir(here)
        elif kind == "fifo":
            os.mkfifo(path)
        else:
            path.mkdir()

    return make


def sparse(c):
    os.truncate(c.prediction(), 10 << 30)


def crowd(place, count=MANY):
    """Many files in one folder of the submission."""

    def make(c):
        folder = c.inputs / "res" / place
        for i in range(count):
            os.close(os.open(folder / f"file{i}", os.O_CREAT))

    return make


def file_for_folder(c):
    shutil.rmtree(c.res / "cifar10_lo")
    (c.res / "cifar10_lo").touch()


def zip_for_tree(c):
    shutil.rmtree(c.res)
    (c.res.parent / "cifar10.zip").touch()


def everywhere(text, repeat):
    def make(c):
        for path in c.res.rglob("prediction.csv"):
            path.write_bytes(text * repeat)

    return make


def deep(c):
    here = os.getcwd()
    try:
        os.chdir(c.prediction().parent)
        for _ in range(1_500):
            os.mkdir("d")
            os.chdir("d")
    finally:
        os.chdir(here)


def stray(*names):
    """Files, or folders where a name ends with a slash, that nobody asked for."""

    def make(c):
        for folder in (c.inputs / "res", c.res, c.prediction().parent):
            for name in names:
                if name.endswith("/"):
                    (folder / name).mkdir()
                else:
                    (folder / name).write_bytes(b"\0\1x")

    return make


def no_model(c):
    shutil.rmtree(c.prediction().parent)


def one_phase(kept):
    def make(c):
        for scenario in SCENARIOS:
            for phase in {"dev", "final"} - {kept}:
                shutil.rmtree(c.res / scenario / phase)

    return make


def odd_names(c):
    for name in (b"a\n- cifar10 is fine", b"\x1b[2J\x1b]0;x\7", b"\xff\xfe", "\u202e".encode()):
        os.mkdir(os.path.join(os.fsencode(c.res), name))


def deny(place):
    def make(c):
        os.chmod(c.inputs / "res" / place, 0)

    return make


VALUES = f"expected one line of {NUM_POINTS} comma-separated numbers in [0, 1]"
NOT_A_FILE = "prediction.csv is not a regular file; links and folders are not read"

TREES = [
    Case("sound", lambda c: None, HARMLESS),
    Case("UTF-8 with BOM", line(lambda text: "\ufeff" + text), HARMLESS),
    Case("CRLF", line(lambda text: text + "\r\n"), HARMLESS),
    Case("blank lines and spaces", line(lambda t: "\n\n " + t.replace(",", " , ")), HARMLESS),
    Case("comma after the last value", line(lambda text: text + ",\n"), HARMLESS),
    Case("1e-400, which is 0", replaced("1e-400"), HARMLESS),
    Case("-0.0", replaced("-0.0"), HARMLESS),
    Case("one value a line", line(lambda t: t.replace(",", "\n")), f"holds {NUM_POINTS} lines"),
    Case("one value a line, old Mac", line(lambda t: t.replace(",", "\r")), "lines; " + VALUES),
    Case("header line", line(lambda text: "score\n" + text), "holds 2 lines"),
    Case("semicolons", line(lambda text: text.replace(",", ";")), "holds 1 value; "),
    Case("line separators of Unicode", line(lambda t: t.replace(",", "\u2028")), "holds 1 value; "),
    Case("NaN", replaced("NaN"), "must be finite, got 'NaN'"),
    Case("inf", replaced("inf"), "must be finite, got 'inf'"),
    Case("-Infinity", replaced("-Infinity"), "must be finite, got '-Infinity'"),
    Case("1e400", replaced("1e400"), "must be between 0 and 1, got '1e400'"),
    Case("hex float", replaced("0x1.8p-1"), "must be a number, got '0x1.8p-1'"),
    Case("1_0", replaced("1_0"), "must be a number, got '1_0'"),
    Case("digits of another script", replaced("\u0661"), r"must be a number, got '\u0661'"),
    Case("escape sequence in a value", replaced("\x1b[31m"), r"must be a number, got '\x1b[31m'"),
    Case("empty file", content(b""), "is empty; " + VALUES),
    Case("only white space", content("\ufeff \r\n\t\n"), "is empty; " + VALUES),
    Case("one value too few", line(lambda t: t.partition(",")[2]), f"holds {NUM_POINTS - 1} val"),
    Case("one value too many", line(lambda t: t + ",0.5"), f"holds {NUM_POINTS + 1} values"),
    Case("UTF-16", content("0.5,0.5".encode("utf-16")), "is not text in UTF-8"),
    Case("bytes that are no text", content(b"\xff\xfe\0\1" * 99), "is not text in UTF-8"),
    Case("NUL bytes", content(b"\0", 500), "must be a number"),
    Case("100 kB of digits", replaced("0." + "5" * 100_000), "must be a number, got '0.555"),
    Case("2 MB", content(b"0.5,", 500_000), "is larger than the 1000000 bytes that are read"),
    Case("10 GB", sparse, "is larger than the 1000000 bytes that are read", heavy=True),
    Case("a million commas in every file", everywhere(b",", 999_999), "values; ", heavy=True),
    Case("a million lines in every file", everywhere(b"0\n", 499_999), "lines; ", heavy=True),
    Case("a model is missing", no_model, f"{FILE} is missing; " + VALUES),
    Case(
        "a file is missing",
        lambda c: c.prediction().unlink(),
        f"{FILE} is missing; " + VALUES,
    ),
    Case(
        "a model too many",
        lambda c: write_line(c.prediction(i=7), [0.5]),
        "cifar10/cifar10_hi/dev: unexpected model folder 'model_7'",
    ),
    Case("wrong case, challenge", move("cifar10", "CIFAR10"), "found folder 'CIFAR10', expected"),
    Case(
        "wrong case, scenario",
        move("cifar10/cifar10_lo", "cifar10/Cifar10_lo"),
        "cifar10: found folder 'Cifar10_lo', expected cifar10_lo",
    ),
    Case(
        "wrong case, phase",
        move("cifar10/cifar10_lo/dev", "cifar10/cifar10_lo/Dev"),
        "cifar10/cifar10_lo: found folder 'Dev', expected dev",
    ),
    Case("wrong case, file", move(FILE, MODEL + "/Prediction.csv"), "found 'Prediction.csv'"),
    Case("name of 2022's pages", move(FILE, MODEL + "/predictions.csv"), "found 'predictions.csv'"),
    Case("a top folder", inside("my submission"), "lies inside the folder 'my submission'"),
    Case("the top folder is missing", without_top, "expected it in a folder cifar10"),
    Case("only the phase that is scored", one_phase("dev"), HARMLESS),
    Case("only the other phase", one_phase("final"), "cifar10/cifar10_hi/dev is missing"),
    Case("no submission", lambda c: shutil.rmtree(c.inputs / "res"), "the submission is missing"),
    Case("nothing in it", lambda c: shutil.rmtree(c.res), "cifar10 is missing or not a folder"),
    Case("fifo", special("fifo"), NOT_A_FILE),
    Case("socket", special("socket"), NOT_A_FILE),
    Case("folder instead of a file", special("folder"), NOT_A_FILE),
    Case("link to the truth", link(lambda c: c.solution()), NOT_A_FILE),
    Case("link to itself", link(lambda c: "prediction.csv"), NOT_A_FILE),
    Case("link to /dev/zero", link(lambda c: "/dev/zero"), NOT_A_FILE),
    Case("link to nothing", link(lambda c: "nothing"), NOT_A_FILE),
    Case("model folder is a link to the truth", link(lambda c: c.ref, MODEL), "not a folder"),
    Case("scenario is a link to /", link(lambda c: "/", "cifar10/cifar10_lo"), "not a folder"),
    Case(
        "scenario is a file",
        file_for_folder,
        "cifar10/cifar10_lo is missing or not a folder",
    ),
    Case("file without rights", deny(FILE), "prediction.csv cannot be read"),
    Case("folder without rights", deny("cifar10/cifar10_lo"), "cifar10/cifar10_lo cannot be op"),
    Case("the worker's own metadata", stray("metadata"), HARMLESS),
    Case("stray files", stray("Thumbs.db", "Icon\r", "a\nb", "notes.txt"), HARMLESS),
    Case("__MACOSX, .DS_Store", stray("__MACOSX/", ".DS_Store", "._prediction.csv"), HARMLESS),
    Case("stray zip", stray("inner.zip"), HARMLESS),
    Case(
        "zip instead of the tree",
        zip_for_tree,
        "a zip inside the zip, such as 'cifar10.zip', is not opened",
    ),
    Case("names that write to the log", odd_names, r"unexpected scenario folder '\x1b[2J\x1b]0;x"),
    Case("10,001 files at the top", crowd("."), "holds over 10000 files and folders"),
    Case("10,001 files in a model folder", crowd(MODEL), HARMLESS),
    Case(
        "10,001 files instead of the one",
        lambda c: [make(c) for make in (crowd(MODEL), lambda c: c.prediction().unlink())],
        f"{FILE} is missing; " + VALUES,
    ),
    Case("1,500 folders deep", deep, HARMLESS),
]
