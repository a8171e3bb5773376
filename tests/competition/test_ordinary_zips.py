"""What people zip with is accepted, and is the same to all readers; the rest says what to do."""

import io
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from helpers_two_faced_zips import (
    FILE_MODE,
    FOLDER_MODE,
    STREAMED,
    Member,
    descriptor,
    extra,
    made,
    readers,
    tree_of,
)

from mico_competition.competition.hostile_zip import unpack_zip

COMMANDS = {
    "zip": "zip -qr ZIP .",
    "zip of one folder": "zip -qr ZIP digits",
    "zip without folders": "zip -qrD ZIP digits",
    "zip without fields": "zip -qrX ZIP digits",
    "zip that only stores": "zip -qr0 ZIP .",
    "zip to a pipe": "zip -qr - . | cat > ZIP",
    "zip, and more": "zip -qr ZIP digits && zip -qg ZIP tiny.txt",
    "zip, and less": "zip -qr ZIP . && zip -qd ZIP tiny.txt",
    "7z": "7z a -tzip ZIP .",
    "7z, with times of Windows": "7z a -tzip -mtc=on -mx9 ZIP digits",
    "7z that only stores": "7z a -tzip -mx0 ZIP .",
    "bsdtar": "bsdtar --format zip -cf ZIP .",
    "jar": "jar cfM ZIP digits tiny.txt",
    "jar with a manifest": "jar cf ZIP digits",
    "python -m zipfile": f"{sys.executable} -m zipfile -c ZIP digits",
}
REFUSED = {
    "zip -Z bzip2 -qr ZIP digits": "compressed by method 12, where 8 (deflate) is usual",
    "zip -qr -P secret ZIP digits": "which is encrypted: zip it again without a password",
    "zip -qr -fz ZIP digits": "is a ZIP64, which predictions never need",
    "zip -qry ZIP . -i link": "which is a link or a device",
    "7z a -tzip -mm=LZMA ZIP digits": "compressed by method 14",
    "7z a -tzip -mm=Deflate64 ZIP digits": "compressed by method 9",
    "bsdtar --format zip -cf - digits | cat > ZIP": "does not end as a zip file does",
    "bsdtar --format zip --options zip:compression=store -cf ZIP digits": "stored without its size",
    "bsdtar --format zip --options zip:experimental -cf ZIP digits": "a field 0x6c78",
}


@pytest.fixture
def tree(tmp_path):
    """A submission with what lies about in people's folders."""
    folder = tmp_path / "tree"
    for model in range(2):
        path = folder / f"digits/digits_hi/dev/model_{model}/prediction.csv"
        path.parent.mkdir(parents=True)
        path.write_text("0.5," * 199 + "0.1\n")
    (folder / "digits/.DS_Store").write_bytes(bytes(range(256)))
    (folder / "digits/empty folder").mkdir()
    (folder / "tiny.txt").write_text("x")
    (folder / "empty (1).txt").touch()
    return folder


def run(command, tree, tmp_path):
    program = command.split()[0]
    if not shutil.which(program):
        pytest.skip(f"needs {program}")
    path = tmp_path / "a.zip"
    subprocess.run(command.replace("ZIP", str(path)), shell=True,
                   cwd=tree, check=True, capture_output=True)  # fmt: skip
    return path


def same_to_all(path, tmp_path):
    """What a zip unpacks to here, after everything else that is installed did the same."""
    ours = tmp_path / "ours"
    ours.mkdir()
    assert unpack_zip(path, ours) == []
    for name, read in readers().items():
        theirs = tmp_path / name.replace(" ", "_")
        read(path, theirs)
        assert tree_of(theirs) == tree_of(ours), name
    return tree_of(ours)


@pytest.mark.parametrize("name", COMMANDS)
def test_what_programs_write(name, tree, tmp_path):
    found = same_to_all(run(COMMANDS[name], tree, tmp_path), tmp_path)
    expected = {name: data for name, data in tree_of(tree).items() if name.startswith("digits")}
    assert {name: found[name] for name in expected} == expected


@pytest.mark.parametrize("command", REFUSED)
def test_what_not_all_programs_read_says_what_to_do(command, tree, tmp_path):
    (tree / "link").symlink_to("tiny.txt")
    faults = unpack_zip(run(command, tree, tmp_path), tmp_path)
    assert REFUSED[command] in faults[0] and "zip it again" in faults[0]


class Pipe(io.RawIOBase):
    """Takes what is written, and cannot go back."""

    def __init__(self):
        self.taken = b""

    def writable(self):
        return True

    def write(self, data):
        self.taken += bytes(data)
        return len(data)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("streamed", [False, True])
def test_what_zipfile_writes(method, streamed, tree, tmp_path):
    stream = Pipe() if streamed else io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for path in sorted(tree.rglob("*")):
            archive.write(path, path.relative_to(tree))
        archive.comment = b"mine"
    (tmp_path / "a.zip").write_bytes(stream.taken if streamed else stream.getvalue())
    if streamed and method == zipfile.ZIP_STORED:
        fault = unpack_zip(tmp_path / "a.zip", tmp_path)[0]
        assert "stored without its size" in fault and "zip it again with another" in fault
    else:
        assert same_to_all(tmp_path / "a.zip", tmp_path) == tree_of(tree)


def test_what_shutil_writes(tree, tmp_path):
    made_by_shutil = shutil.make_archive(str(tmp_path / "a"), "zip", tree)
    assert same_to_all(Path(made_by_shutil), tmp_path) == tree_of(tree)


@pytest.mark.parametrize(("system", "attribute"), [(0, 0x20), (0, 0), (11, 0x2020), (10, 0x80)])
def test_what_windows_writes(system, attribute, tree, tmp_path):
    members = [
        Member(name.encode(), data, 8 if data else 0, system=system, attributes=attribute)
        for name, data in tree_of(tree).items()
    ]
    (tmp_path / "a.zip").write_bytes(made(Member(b"digits/", b"", 0, 0, 0x10), *members))
    assert same_to_all(tmp_path / "a.zip", tmp_path) == tree_of(tree)


def test_what_the_finder_writes(tree, tmp_path):
    """Streams with a field of its own, of other lengths here and there; a twin for each file."""
    fields = {"local": {"extra": extra(0x5855, bytes(12))}}
    listed = {"central": {"extra": extra(0x5855, bytes(8))}}
    members = [Member(b"digits/", b"", 0, 0, FOLDER_MODE, **fields, **listed)]
    for name, data in tree_of(tree).items():
        place, _, last = name.rpartition("/")
        for path, content in ((name, data), (f"__MACOSX/{place}/._{last}", b"\0\5\x16\7" * 9)):
            late = {**fields["local"], **({"crc": 0, "packed": 0, "size": 0} if content else {})}
            flags, method = (STREAMED, 8) if content else (0, 0)
            member = Member(
                path.replace("//", "/").encode(), content, method, flags, FILE_MODE, local=late
            )
            member.central = dict(listed["central"])
            member.behind = descriptor(content, len(member.packed)) if content else b""
            members.append(member)
    (tmp_path / "a.zip").write_bytes(made(*members))
    found = same_to_all(tmp_path / "a.zip", tmp_path)
    assert {k: v for k, v in found.items() if not k.startswith("__MACOSX")} == tree_of(tree)
