"""Zips that say one thing in their directory and another before the data, and their readers.

Each of these unpacks to other files, or to none, in some reader that people use: `zipfile` and 7z
believe the directory, bsdtar on a pipe the headers, unzip a mixture, and some of them extra fields.
"""

import shutil
import struct
import subprocess
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path

from helpers_hostile import FILE, HARMLESS, Case
from helpers_hostile_zips import END, put_together

LOCAL = struct.Struct("<4s5H3L2H")
CENTRAL = struct.Struct("<4s6H3L5H2L")
TIME = (0x6000, 0x5A21)
STREAMED, UTF8 = 0x8, 0x800
FILE_MODE, FOLDER_MODE = 0o100644 << 16, 0o40755 << 16


@dataclass
class Member:
    """One file of a zip; `local` and `central` change fields in the one place only."""

    name: bytes
    data: bytes = b"0.5"
    method: int = 8
    flags: int = 0
    attributes: int = 0
    system: int = 3
    version: int = 20
    local: dict = field(default_factory=dict)
    central: dict = field(default_factory=dict)
    packed: bytes = b""  # instead of `data` as `method` packs it
    behind: bytes = b""

    def __post_init__(self):
        if not self.packed and self.data:
            deflate = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
            deflated = deflate.compress(self.data) + deflate.flush()
            self.packed = deflated if self.method == 8 else self.data

    def parts(self, offset):
        """Header, data and what is behind them; the directory's entry."""
        same = {
            **{
                "version": self.version,
                "flags": self.flags,
                "method": self.method,
                "time": TIME[0],
            },
            **{"date": TIME[1], "crc": zlib.crc32(self.data), "packed": len(self.packed)},
            **{"size": len(self.data), "name": self.name, "extra": b"", "disk": 0, "comment": b""},
        }
        own, listed = {**same, **self.local}, {**same, **self.central}
        numbers = ("version", "flags", "method", "time", "date", "crc", "packed", "size")
        lengths = [(len(one["name"]), len(one["extra"])) for one in (own, listed)]
        header = LOCAL.pack(b"PK\3\4", *(own[name] for name in numbers), *lengths[0])
        entry = CENTRAL.pack(
            *(b"PK\1\2", self.system << 8 | 20, *(listed[name] for name in numbers), *lengths[1]),
            *(len(listed["comment"]), listed["disk"], 0, self.attributes, offset),
        )
        local = header + own["name"] + own["extra"] + self.packed + self.behind
        return local, entry + listed["name"] + listed["extra"] + listed["comment"]


def made(*members, hidden=b""):
    """The zip of these members; `hidden` lies between the last of them and the directory."""
    body = directory = b""
    for member in members:
        local, entry = member.parts(len(body))
        body, directory = body + local, directory + entry
    return put_together(body + hidden, directory, len(members))


def case(name, words, *members, **options):
    """A case whose zip holds the files of a sound submission and these members."""

    def make(path, files):
        sound = [Member(name.encode(), data) for name, data in files.items()]
        path.write_bytes(made(*sound, *members, **options))

    return Case(name, make, words, layer="zip")


def extra(kind, content=b""):
    return struct.pack("<2H", kind, len(content)) + content


def unicode_path(name, other):
    """The field 0x7075 of Info-ZIP, which gives `name` another one in UTF-8."""
    return extra(0x7075, b"\1" + struct.pack("<L", zlib.crc32(name)) + other)


def descriptor(data, packed, signature=b"PK\7\10", crc=None):
    crc = zlib.crc32(data) if crc is None else crc
    return signature + struct.pack("<3L", crc, packed, len(data))


def streamed(signature=b"PK\7\10", method=8, **changes):
    """A member as it is written to a pipe: sizes behind the data, and 0 before them."""
    data = b"0.5" * 50
    member = Member(b"n", data, method, STREAMED, local={"crc": 0, "packed": 0, "size": 0})
    member.behind = descriptor(data, len(member.packed), signature)
    for key, value in changes.items():
        setattr(member, key, value)
    return member


def own(**changes):
    """A member whose header says these things, and its entry does not."""
    return Member(b"n", local=changes)


def listed(**changes):
    """A member whose entry says these things, and its header does not."""
    return Member(b"n", central=changes)


PATH = FILE.encode()
TWO = "in its directory and another before"
FIELD = "by which some readers may see another"
TWINS = "which some systems take for one"
CODED = "whose name is not ASCII, and not UTF-8 to all readers"
CHANGED = "a name that some systems change or refuse: rename it or leave it out"
NOBODYS = "bytes that belong to no file"
RENAMED = {"extra": unicode_path(b"x.csv", PATH)}
TIMES = extra(0x5455, b"\3" + bytes(8)) + extra(0x7875, b"\1\4" + bytes(4) + b"\4" + bytes(4))
LATER = {"extra": TIMES + RENAMED["extra"]}
HIDDEN = Member(b"cifar10/hidden.csv", b"1").parts(0)[0]
UNFIT = [
    *(
        FILE + tail
        for tail in (".", " ", ";1", ";", "\n", "\x01", "\x7f", ":x", "::$DATA", "\u200b")
    ),
    *("Icon\r", "a\nb", "a\tb", "a\x1b[2J", "e\u0301", "e\u0302\u0323\u0301", "cifar10./x", "x /y"),
    *("CON", "nul.txt", "cifar10/aux/x", "COM1", "lpt\u00b9.csv", "a?b", "a*", "<a>", "a|b", 'a"'),
    *("PREDIC~1.CSV", "cifar~1/x", "\u202ex", "\ufeffx", "\u2028", "x\ufe0f"),
]
FIT = [".x", "-rf", "~/x", "@x", "$HOME/x", "%2e%2e/x", "x;1a", "console", "x~", "x.csv.~1~", " x"]

CASES = [
    case("times and owners", HARMLESS, own(extra=TIMES)),
    case("a stream", HARMLESS, streamed()),
    case("a stream whose size is known", HARMLESS, streamed(local={"crc": 0, "packed": 0})),
    case("a stream without a mark", HARMLESS, streamed(b"")),
    case("UTF-8 in both", HARMLESS, Member("é".encode(), flags=UTF8)),
    case("comments of entries", HARMLESS, listed(comment=b"PK\5\6")),
    case("0x7075 in both", FIELD, Member(b"x.csv", local=RENAMED, central=RENAMED)),
    case("0x7075 in the header", FIELD, Member(b"x.csv", local=RENAMED)),
    case("0x7075 in the directory", FIELD, Member(b"x.csv", central=RENAMED)),
    case("0x7075 after a time", FIELD, Member(b"x.csv", central=LATER)),
    case("0x6375", FIELD, listed(extra=extra(0x6375, b"\1" + bytes(4) + b"c"))),
    case("a field that links", FIELD, listed(extra=extra(0x756E, bytes(18)))),
    case("a field of AES", FIELD, listed(extra=extra(0x9901, bytes(7)))),
    case("a field of ZIP64", FIELD, own(extra=extra(1, bytes(16)))),
    case("an unknown field", FIELD, own(extra=extra(0x4242, b"x"))),
    case("a field twice", FIELD, listed(extra=extra(0x5455) + extra(0x5455))),
    case("a field that is cut short", "damaged", own(extra=TIMES[:-1])),
    case("three bytes for a field", "damaged", listed(extra=b"\0\0\0")),
    case("UTF-8 in the header only", f"one flags {TWO}", own(flags=UTF8)),
    case("UTF-8 in the directory only", f"one flags {TWO}", listed(flags=UTF8)),
    case("not marked as UTF-8", CODED, Member("é".encode())),
    case("codepage 437", CODED, Member(b"\x82")),
    case("stored in the header", f"one method {TWO}", own(method=0)),
    case("stored in the directory", f"one method {TWO}", listed(method=0)),
    case("another version", f"one version {TWO}", own(version=10)),
    case("another time", f"one time {TWO}", own(time=0)),
    case("another date", f"one time {TWO}", listed(date=0)),
    case("another checksum", f"checksum {TWO}", own(crc=1)),
    case("no sizes, not streamed", f"checksum {TWO}", own(packed=0, size=0)),
    case("another size", f"size or checksum {TWO}", own(size=4)),
    case("another packed size", f"checksum {TWO}", own(packed=4)),
    case("a stream with another size", f"checksum {TWO}", streamed(local={"size": 1})),
    case("a stream whose end lies", NOBODYS, streamed(behind=descriptor(b"x", 3))),
    case("a stream without its end", NOBODYS, streamed(behind=b"")),
    case("an end that is not announced", NOBODYS, Member(b"n", behind=descriptor(b"0.5", 5))),
    case("stored as a stream", "stored without its size", streamed(method=0)),
    case("a file that is not listed", NOBODYS, hidden=HIDDEN),
    case("one in the middle", NOBODYS, Member(b"m", behind=HIDDEN), own()),
    case("one of two disks", "several disks", listed(disk=1)),
    case("a flag nobody knows", "with flags 0x4000", Member(b"n", flags=0x4000)),
    case("a masked header", "which is encrypted", Member(b"n", flags=0x2000)),
    case("a folder with data", "or the data of a file", Member(b"n/", b"0.5")),
    case("a folder by Java", HARMLESS, Member(b"n/", b"", packed=b"\3\0")),
    case("a file behind a folder's end", "damaged", Member(b"n/", b"", packed=b"\3\0" + HIDDEN)),
    case("a file in a folder", "another size", Member(b"n/", b"", 0, packed=HIDDEN)),
    case("a time that is cut short", FIELD, own(extra=extra(0x5455, b"\1\2"))),
    case("a folder marked as a file", "the mark or the data", Member(b"n/", b"", 0, 0, FILE_MODE)),
    case("a file marked as a folder", "and the mark of a folder", Member(b"n", attributes=0x10)),
    case("a file with a folder's mode", "mark of a folder", Member(b"n", attributes=FOLDER_MODE)),
    case("bytes behind the deflated", "damaged", Member(b"n", packed=b"\x33\xd0\x33\x05\0xyz")),
    case("deflated without an end", "damaged", Member(b"n", packed=b"\x00\x03\x00\xfc\xff0.5")),
    case("upper case", TWINS, Member(PATH.upper())),
    case("a folder in upper case", TWINS, Member(b"CIFAR10/notes.txt")),
    case("wide letters", TWINS, Member("ｃifar10/x".encode(), flags=UTF8)),
    case("a ligature", TWINS, Member(b"fi"), Member("ﬁ".encode(), flags=UTF8)),
    case("marked as UTF-8, from MS-DOS", CODED, Member("é".encode(), flags=UTF8, system=0)),
    case("marked as UTF-8, from OS/2", CODED, Member("é".encode(), flags=UTF8, system=6)),
    case("marked as UTF-8, from Windows", CODED, Member("é".encode(), flags=UTF8, system=11)),
    case("ASCII, from Windows", HARMLESS, Member(b"n", system=0, attributes=0x20)),
    case("a volume's label", "a link or a device", Member(b"n", attributes=0x8)),
    case("a link of Windows", "a link or a device", Member(b"n", attributes=0x400)),
    case("a newer form", "needs version 6.3", Member(b"n", version=63)),
    case("a final dot of a folder", "which is no name", Member(b"n/.")),
    *(case(f"named {name!r}", CHANGED, Member(name.encode(), flags=UTF8)) for name in UNFIT),
    *(case(f"named {name!r}", HARMLESS, Member(name.encode())) for name in FIT),
    case("sharp s", TWINS, Member(b"STRASSE"), Member("straße".encode(), flags=UTF8)),
]  # fmt: skip


def two_ends(data, inner):
    """A zip that is the comment of another one's end: which is it?"""
    end = END.unpack(data[-END.size :])
    return data[: -END.size] + END.pack(*end[:-1], len(inner)) + inner


# --- readers


def by_headers(data):
    """Name -> content of files as a reader finds them that goes by the headers, as on a pipe."""
    found = {}
    at = 0
    while data.startswith(b"PK\3\4", at):
        _, _, flags, method, _, _, _, packed, size, name, fields = LOCAL.unpack_from(data, at)
        start = at + LOCAL.size + name + fields
        if method == 8:
            inflate = zlib.decompressobj(-zlib.MAX_WBITS)
            content = inflate.decompress(data[start:]) + inflate.flush()
            at = len(data) - len(inflate.unused_data)
        else:
            content, at = data[start : start + size], start + packed
        if flags & STREAMED:
            at += 16 if data.startswith(b"PK\7\10", at) else 12
        found[data[start - name - fields : start - fields].decode()] = content
    return {name: content for name, content in found.items() if not name.endswith("/")}


def tree_of(folder):
    """Path -> content of the files below a folder."""
    files = (path for path in Path(folder).rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def by_zipfile(path, folder):
    with zipfile.ZipFile(path) as archive:
        archive.extractall(folder)


def by_command(*words):
    def unpack(path, folder):
        folder.mkdir()
        command = [word.replace("PATH", str(path)).replace("TO", str(folder)) for word in words]
        with path.open("rb") as file:
            subprocess.run(command, stdin=file, capture_output=True, cwd=folder, check=True)

    return unpack


COMMANDS = {
    "unzip": by_command("unzip", "-q", "-o", "PATH"),
    "bsdtar": by_command("bsdtar", "-xf", "PATH"),
    "bsdtar on a pipe": by_command("bsdtar", "-xf", "-"),
    "7z": by_command("7z", "x", "-y", "-bd", "-oTO", "PATH"),
    "jar": by_command("jar", "xf", "PATH"),
}
"""What else may be installed here; no test needs them."""


def readers():
    """Names and functions of the readers that are to be had."""
    have = {k: v for k, v in COMMANDS.items() if shutil.which(k.split()[0])}
    return {"zipfile": by_zipfile, **have}
