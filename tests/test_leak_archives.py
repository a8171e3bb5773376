"""The leak check finds whatever an archive tells beside the files of its phase."""

import os
import zipfile

import pytest
from helpers_release import CHALLENGE, copied, write_release

from mico_competition.releases.leak_check import check_release
from mico_competition.releases.leak_forms import archive_faults

ZIP = "archives/digits/digits_inf_dev.zip"


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return write_release(tmp_path_factory.mktemp("release"))


@pytest.fixture
def planted(original, tmp_path):
    return copied(original, tmp_path)


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


def insert(path, at, data):
    content = path.read_bytes()
    path.write_bytes(content[:at] + data + content[at:])


ARCHIVES = {
    "date": (each(date_time=(1980, 1, 1, 0, 0, 2)), "different times"),
    "comment": (each(comment=b"hello"), "not of its files"),
    "extra field": (each(extra=b"\x99\x99\x02\x00hi"), "not of its files"),
    "mode": (each(external_attr=0o100600 << 16), "not of its files"),
    "deflated": (each(compress_type=zipfile.ZIP_DEFLATED), "not of its files"),
    "order": (lambda members: members[::-1], "in the order of their names"),
    "missing": (lambda members: members[1:], "exactly the files"),
    "further member": (
        lambda members: [*members, (zipfile.ZipInfo("zz", (1980, 1, 1, 0, 0, 0)), b"hello")],
        "exactly the files",
    ),
    "other content": (
        lambda m: [(m[0][0], m[0][1][:-1] + b" "), *m[1:]],
        "whose content is not that of the tree",
    ),
}


@pytest.mark.parametrize("kind", ARCHIVES)
def test_what_a_member_of_an_archive_can_tell(planted, kind):
    change, sentence = ARCHIVES[kind]
    rewritten(planted.zip, change)
    os.utime(planted.zip, (315532800, 315532800))
    faults = check_release(planted.root, planted.trained, [CHALLENGE])
    assert any(f.startswith(f"{ZIP}: ") and sentence in f for f in faults)


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
    assert "bytes that are not of its files" in next(
        archive_faults(planted.zip, planted.root, names)
    )
    planted.zip.write_bytes(b"hello")
    assert list(archive_faults(planted.zip, planted.root, names)) == [
        "is not a zip archive that can be read"
    ]
