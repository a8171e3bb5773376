"""The leak check finds whatever an archive tells beside the files of its phase."""

import os
import warnings
import zipfile

import pytest
from helpers_release import CHALLENGE, faults_of

from mico_competition.release.leak_check.forms import archive_faults

ZIP = f"{CHALLENGE}.release/archives/digits_inf_dev.zip"
SENTENCE = "is not exactly the archive of the files of its phase"


def rewritten(path, change):
    """Rewrite a zip archive; `change` takes (info, content) and says what becomes of them."""
    with zipfile.ZipFile(path) as archive:
        members = [(info, archive.read(info)) for info in archive.infolist()]
    with zipfile.ZipFile(path, "w") as archive:
        for info, content in change(members):
            archive.writestr(info, content)


def each(**attributes):
    def change(members):
        for name, value in attributes.items():
            setattr(members[1][0], name, value)
        return members

    return change


def all_of(attributes):
    def change(members):
        for info, _ in members:
            vars_of = attributes(info)
            for name, value in vars_of.items():
                setattr(info, name, value)
        return members

    return change


def insert(path, at, data):
    content = path.read_bytes()
    path.write_bytes(content[:at] + data + content[at:])


def patched(find, replacement, count=1):
    """Bytes in the zip's own records, as they are written by no zip program's options."""

    def change(path):
        content = path.read_bytes()
        assert find in content
        path.write_bytes(content.replace(find, replacement, count))

    return change


ARCHIVES = {
    "date": each(date_time=(1980, 1, 1, 0, 0, 2)),
    "comment": each(comment=b"hello"),
    "extra field": each(extra=b"\x99\x99\x02\x00hi"),
    "mode": each(external_attr=0o100600 << 16),
    "system": each(create_system=0),
    "version": each(create_version=45),
    "internal attributes": each(internal_attr=1),
    "deflated": each(compress_type=zipfile.ZIP_DEFLATED),
    "order": lambda members: members[::-1],
    "missing": lambda members: members[1:],
    "further member": lambda m: [*m, (zipfile.ZipInfo("zz", (1980, 1, 1, 0, 0, 0)), b"hello")],
    "twice": lambda members: [members[0], *members],
    "other content": lambda m: [(m[0][0], m[0][1][:-1] + b" "), *m[1:]],
    "one date for all": all_of(lambda info: {"date_time": (2022, 5, 6, 7, 8, 10)}),
    "case of names": all_of(lambda info: {"filename": info.filename.upper()}),
}
PATCHES = {
    "version needed": patched(b"PK\x03\x04\x14", b"PK\x03\x04\x2d"),
    "version in the directory": patched(b"PK\x01\x02\x14\x03", b"PK\x01\x02\x2d\x03"),
    "a flag": patched(b"PK\x03\x04\x14\x00\x00", b"PK\x03\x04\x14\x00\x08"),
    "number of the disk": patched(b"PK\x05\x06\x00", b"PK\x05\x06\x01"),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", [*ARCHIVES, *PATCHES])
def test_what_a_member_of_an_archive_can_tell(planted, kind):
    if kind in PATCHES:
        PATCHES[kind](planted.zip)
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a name that stands twice
            rewritten(planted.zip, ARCHIVES[kind])
    os.utime(planted.zip, (315532800, 315532800))
    faults = faults_of(planted)
    assert f"{ZIP}: {SENTENCE}." in faults


def test_bytes_between_the_members_of_an_archive(planted):
    with zipfile.ZipFile(planted.zip) as archive:
        names = archive.namelist()
        archive_end = archive.start_dir
    assert not list(archive_faults(planted.zip, planted.root, names))
    clean = planted.zip.read_bytes()
    for at in (0, archive_end, len(clean)):
        planted.zip.write_bytes(clean)
        insert(planted.zip, at, b"hello")
        assert list(archive_faults(planted.zip, planted.root, names)), at
    planted.zip.write_bytes(clean)
    with zipfile.ZipFile(planted.zip, "a") as archive:
        archive.comment = b"hello"
    assert list(archive_faults(planted.zip, planted.root, names)) == [SENTENCE]
    for content in (b"hello", b"", clean[:-1]):
        planted.zip.write_bytes(content)
        assert list(archive_faults(planted.zip, planted.root, names)) == [SENTENCE]
