"""Hostile submissions as zips; see helpers_hostile.py for the trees and what a case is."""

import io
import os
import shutil
import stat
import struct
import zipfile
import zlib
from dataclasses import replace

from helpers_hostile import FILE, HARMLESS, Case

GB = 1 << 30
LOCAL = struct.Struct("<4s5H3L2H")
CENTRAL = struct.Struct("<4s6H3L5H2L")
END = struct.Struct("<4s4H2LH")
CENTRAL_FIELDS = {"flags": (8, "<H"), "method": (10, "<H"), "crc": (16, "<L"), "size": (24, "<L")}


def zipped(files, infos=()):
    """A plain zip of `files` and, after them, of pairs (ZipInfo, bytes)."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
        for info, data in infos:
            archive.writestr(info, data)
    return buffer.getvalue()


def info(name, mode=0, system=3):
    """A ZipInfo with a name as it is; zipfile's own constructor would change it."""
    made = zipfile.ZipInfo("x")
    made.filename = made.orig_filename = name
    made.external_attr, made.create_system = mode << 16, system
    return made


def plus(*extra):
    """A sound submission with more entries: names, or pairs (ZipInfo, bytes)."""

    def make(path, files):
        pairs = [(info(e), b"1") if isinstance(e, str) else e for e in extra]
        path.write_bytes(zipped(files, pairs))

    return make


def renamed(change):
    return lambda path, files: path.write_bytes(zipped({change(n): d for n, d in files.items()}))


def raw(change):
    """The bytes of a sound submission, passed through `change`."""
    return lambda path, files: path.write_bytes(change(zipped(files)))


def field(name, value):
    """One field of the directory's first entry set to `value`."""
    offset, form = CENTRAL_FIELDS[name]

    def change(data):
        data = bytearray(data)
        struct.pack_into(form, data, data.index(b"PK\1\2") + offset, value)
        return bytes(data)

    return raw(change)


def deflated_zeros(size):
    """Raw deflate of `size` zeros (whole MB), cheap to make: the same piece again and again."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    piece = deflate.compress(bytes(1 << 20)) + deflate.flush(zlib.Z_FULL_FLUSH)
    return piece * (size >> 20) + b"\3\0"


def entry(name, packed, size, offset, method=8):
    """A local header, and the directory's entry for it, of `packed` bytes that follow it."""
    sizes = (0, packed, size, len(name), 0)
    local = LOCAL.pack(b"PK\3\4", 20, 0, method, 0, 0, *sizes)
    central = CENTRAL.pack(b"PK\1\2", 20, 20, 0, method, 0, 0, *sizes, 0, 0, 0, 0, offset)
    return local + name, central + name


def put_together(body, directory, count=None, end_of_zip64=b""):
    count = directory.count(b"PK\1\2") if count is None else count
    end = END.pack(b"PK\5\6", 0, 0, count, count, len(directory), len(body), 0)
    return body + directory + end_of_zip64 + end


def bomb(declared):
    """5 files that unpack to 2 GB each, from 10 MB; they declare `declared` bytes each."""

    def make(path, files):
        packed, body, directory = deflated_zeros(2 * GB), b"", b""
        for name in list(files)[:5]:
            local, central = entry(name.encode(), len(packed), declared, len(body))
            body, directory = body + local + packed, directory + central
        path.write_bytes(put_together(body, directory))

    return make


def overlapping(declared=None, size=40 << 20, count=250):
    """Fifield's construction: each file quotes the header of the next and shares all its data.

    Some 60 kB that unpack to 10 GB without a zip in the zip ("A better zip bomb", WOOT 2019).
    """

    def make(path, files):
        kernel, step = deflated_zeros(size), LOCAL.size + 6
        quote = b"\0" + struct.pack("<HH", step, step ^ 0xFFFF)  # deflate's "stored" block
        body, directory = b"", b""
        for i in range(count):
            behind = count - 1 - i
            packed = len(kernel) + behind * (len(quote) + step)
            told = declared or size + behind * step
            local, central = entry(b"%06d" % i, packed, told, len(body))
            body, directory = body + local + (quote if behind else kernel), directory + central
        path.write_bytes(put_together(body, directory))

    return make


def same_data(path, files):
    """Two entries of the directory for one piece of data."""
    local, central = entry(b"a.csv", 3, 3, 0, method=0)
    path.write_bytes(put_together(local + b"0.5", central + central))


def crowded(count, zip64=True, told=None):
    """A directory of `count` entries; `told` is the number that the end record tells."""

    def make(path, files):
        directory = entry(b"x", 0, 0, 0, method=0)[1] * count
        end = b""
        if zip64:
            length, start = len(directory), 0
            record = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, length, 0)
            end = record + struct.pack("<4sLQL", b"PK\6\7", 0, start + length, 1)
        path.write_bytes(put_together(b"", directory, told or min(count, 0xFFFF), end))

    return make


def many_files(path, files):
    """More files and folders than are unpacked, with fewer entries: each in folders of its own."""
    path.write_bytes(zipped({"/".join(f"{i}x{k}" for k in range(9)): b"" for i in range(2_000)}))


def nested(path, files):
    """A zip of zips of zips, the outer one in the place of the tree."""
    data = zipped({f"{i}.csv": bytes(1 << 20) for i in range(16)})
    for _ in range(3):
        data = zipped({f"{i}.zip": data for i in range(16)})
    path.write_bytes(zipped({"cifar10.zip": data}))


def sparse_zip(path, files):
    path.touch()
    os.truncate(path, 100 << 20)


def no_file(kind):
    def make(path, files):
        if kind == "fifo":
            os.mkfifo(path)
        elif kind == "folder":
            path.mkdir()
        elif kind == "link to itself":
            path.symlink_to(path.name)

    return make


def noise(data):
    """The first file's data, but not its header, turned into what deflate cannot be."""
    start = data.index(b"prediction.csv") + len(b"prediction.csv")
    return data[:start] + bytes(b ^ 0xFF for b in data[start : start + 40]) + data[start + 40 :]


def two_names(data):
    at = data.index(b"prediction.csv")
    return data[:at] + b"Prediction.csv" + data[at + 14 :]


LINK, FIFO, DEVICE = (kind | 0o777 for kind in (stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR))
OUT = "which leads out of its folder"
TOO_BIG = "unpacks to over 64 MB"
ENDS = "does not end as a zip file does"
TEXT = b"# notes"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 9\n"

ZIP_CASES = [
    Case("sound", plus(), HARMLESS),
    Case("entries for folders", plus((info("cifar10/"), b""), (info("__MACOSX/"), b"")), HARMLESS),
    Case("names that begin with ./", renamed(lambda name: "./" + name), HARMLESS),
    Case("doubled slashes", renamed(lambda name: name.replace("/", "//")), HARMLESS),
    Case("stray files", plus("notes (1).md", "\u00e9.txt", "x.csv.~1~", ".~lock.x#"), HARMLESS),
    Case("__MACOSX, .DS_Store", plus("__MACOSX/._x", "cifar10/.DS_Store"), HARMLESS),
    Case("stray zip", plus((info("inner.zip"), zipped({"x": b"y"}))), HARMLESS),
    Case("only dev", renamed(lambda n: n.replace("/final/", "/dev2/")), HARMLESS),
    Case("traversal", plus("../../ref/cifar10/x"), OUT),
    Case("traversal inside", plus("cifar10/../../x"), OUT),
    Case("absolute path", plus("/etc/cron.d/x"), OUT),
    Case("drive", plus("C:/x"), OUT),
    Case("backslashes", renamed(lambda n: n.replace("/", "\\")), "with backslashes where"),
    Case("link", plus((info(FILE + "2", LINK), b"/etc/passwd")), "is a link or a device"),
    Case("fifo", plus((info("cifar10/pipe", FIFO), b"")), "is a link or a device"),
    Case("device", plus((info("cifar10/zero", DEVICE), b"")), "is a link or a device"),
    Case("a file twice", lambda p, f: p.write_bytes(same_name(f)), "' twice: zip it again"),
    Case("a file that is a folder too", plus("a", "a/b"), "both as a file and as a folder"),
    Case("a part of 300 letters", plus("a" * 300), "too long or too deep"),
    Case("60,000 letters", plus("a/" * 30_000 + "b"), "too long or too deep"),
    Case("1,500 folders deep", plus("d/" * 1_500 + "x"), "too long or too deep"),
    Case("NUL in a name", plus("a\0b"), "which is no name of a file"),
    Case("no name", plus(""), "which is no name of a file"),
    Case("name that writes to the log", plus("../\x1b[2J\n- fine"), r"'../\x1b[2J\n- fine'"),
    Case("name that is not UTF-8", raw(lambda d: utf8_flag(d)), "a name that is not text"),
    Case("two names for one file", raw(two_names), "two names"),
    Case("encrypted", field("flags", 1), "which is encrypted"),
    Case("bzip2", field("method", 12), "compressed by method 12"),
    Case("unknown method", field("method", 99), "compressed by method 99"),
    Case("wrong checksum", field("crc", 7), "one size or checksum in its directory and another"),
    Case("wrong size", field("size", 7), "one size or checksum in its directory and another"),
    Case("damaged data", raw(noise), "which is damaged"),
    Case("zero bytes", raw(lambda data: b""), "is not a zip file"),
    Case("a text", raw(lambda data: b"hello" * 99), "is not a zip file"),
    Case("a pointer", raw(lambda data: POINTER), "is a pointer of git-LFS"),
    Case("a gzip", raw(lambda data: b"\x1f\x8b" + data[:-30]), "is not a zip file"),
    Case("cut in half", raw(lambda data: data[: len(data) // 2]), "is not a zip file"),
    Case("no entries", raw(lambda data: zipped({})), "is an empty zip"),
    Case("bytes before it", raw(lambda data: TEXT + data), "bytes that belong to no file"),
    Case("bytes behind it", raw(lambda data: data + TEXT), ENDS),
    Case("two end records", raw(lambda d: d[:-2] + b"\x16\0" + zipped({})), "has two ends"),
    Case("a first disk elsewhere", raw(lambda d: d[:-18] + b"\1\0" + d[-16:]), ENDS),
    Case("no file", no_file("nothing"), "cannot be read (FileNotFoundError)"),
    Case("fifo for a zip", no_file("fifo"), "is not a file"),
    Case("folder for a zip", no_file("folder"), "is not a file"),
    Case("link to itself for a zip", no_file("link to itself"), "cannot be read (OSError)"),
    Case("code for the platform", plus("metadata"), "which the platform would take for code"),
    Case("a top folder", renamed(lambda n: "mine/" + n), "lies inside the folder 'mine'"),
    Case("wrong case", renamed(str.upper), "found folder 'CIFAR10', expected cifar10"),
    Case("two entries for one piece of data", same_data, "twice"),
    Case("bomb: 10 MB to 10 GB", bomb(2 * GB), TOO_BIG, heavy=True),
    Case("bomb that declares 200 bytes", bomb(200), "another size or checksum", heavy=True),
    Case("bomb of overlapping files: 10 GB", overlapping(), TOO_BIG, heavy=True),
    Case("the same, declares 200 bytes", overlapping(200), "overlaps another file", heavy=True),
    Case("zips in zips in zips", nested, "such as 'cifar10.zip', is not opened", heavy=True),
    Case("a million entries", crowded(1_000_000), "holds 1000000 files and folders", heavy=True),
    Case(
        "a million, declared as 10", crowded(1_000_000, False, 10), "of 44 MB, over 4", heavy=True
    ),
    Case("60,000 entries", crowded(60_000, False), "holds 60000 files", heavy=True),
    Case("80,000 entries, declared as 5", crowded(80_000, False, 5), "damaged dir", heavy=True),
    Case("18,000 folders", many_files, "over 10000 files and folders", heavy=True),
    Case("ZIP64 without need", crowded(1, True, 1), "is a ZIP64"),
    Case("100 MB", sparse_zip, "larger than 64 MB"),
]
ZIPS = [replace(case, layer="zip") for case in ZIP_CASES]


def same_name(files):
    """The first file's name twice; zipfile would warn of it."""
    data = zipped({"cifar10/a": b"1", "cifar10/b": b"2", **files})
    return data.replace(b"cifar10/b", b"cifar10/a")


def utf8_flag(data):
    data = data.replace(b"prediction", b"predicti\xff\xff", 1)
    at = data.index(b"PK\1\2")
    rest = data[at:].replace(b"prediction", b"predicti\xff\xff", 1)
    flagged = rest[:8] + struct.pack("<H", 0x800) + rest[10:]
    return data[:at] + flagged


def copy_files(competition):
    """Name -> bytes of a sound submission, and an empty IN/res in its place."""
    root = competition.inputs / "res"
    names = sorted(path.relative_to(root) for path in root.rglob("*.csv"))
    files = {name.as_posix(): (root / name).read_bytes() for name in names}
    shutil.rmtree(root)
    return files
