"""What one reader of a zip sees, all of them see, or the zip is refused."""

import pytest
from helpers_cases import one_in
from helpers_fuzz import scratch
from helpers_hostile_zips import zipped
from helpers_two_faced_zips import CASES, Member, by_headers, made, readers, tree_of, two_ends

from mico_competition.competition.hostile_zip import unpack_zip

FILES = {f"cifar10/{name}/dev/model_100/prediction.csv": b"0.5" for name in ("cifar10_hi", "x")}


def unpacked(path, tmp_path):
    """The faults of a zip, and the files that it unpacks to."""
    folder = tmp_path / "ours"
    folder.mkdir()
    return unpack_zip(path, folder), tree_of(folder)


@pytest.mark.parametrize("case", one_in(3, CASES), ids=[case.name for case in CASES])
def test_a_zip_is_the_same_to_all_readers_or_refused(case, tmp_path):
    path = tmp_path / "a.zip"
    case.make(path, FILES)
    faults, found = unpacked(path, tmp_path)
    if case.words:
        assert len(faults) == 1 and case.words in faults[0], faults
        assert faults[0].startswith(str(path)) and faults[0].isascii() and faults[0].endswith(".")
        return
    assert faults == []
    assert by_headers(path.read_bytes()) == found
    for name, read in readers().items():
        theirs = tmp_path / name
        read(path, theirs)
        assert tree_of(theirs) == found, name


def test_a_zip_that_is_the_comment_of_another(tmp_path):
    outer, inner = made(Member(b"a")), made(Member(b"b"))
    for data in (two_ends(outer, inner), two_ends(inner, zipped({}))):
        (tmp_path / "a.zip").write_bytes(data)
        with scratch() as folder:
            (fault,) = unpack_zip(tmp_path / "a.zip", folder)
        assert "has two ends, one inside the other" in fault or "no file in it" in fault


def test_two_zips_one_behind_the_other(tmp_path):
    (tmp_path / "a.zip").write_bytes(made(Member(b"a")) + made(Member(b"b")))
    faults, found = unpacked(tmp_path / "a.zip", tmp_path)
    assert found == {} and "bytes that belong to no file" in faults[0]
