"""A stranger's file is read up to a limit that is held against its size first."""

import os

import pytest

from mico_competition.support import untrusted
from mico_competition.support.untrusted import (
    check_file,
    parse_json,
    read_limited,
    read_limited_json,
    read_limited_text,
)

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 9\n"


def test_a_file_that_is_too_long_is_refused_before_it_is_opened(tmp_path, monkeypatch):
    huge = tmp_path / "seed"
    with open(huge, "wb") as file:
        file.truncate(4 << 30)
    monkeypatch.setattr(os, "open", lambda *_: pytest.fail("opened"))
    with pytest.raises(ValueError, match="has 4,294,967,296 bytes, more than the 1,000 that"):
        read_limited(huge, 1_000, "a seed")


def test_a_file_that_grows_is_read_no_further_than_the_limit(tmp_path, monkeypatch):
    path = tmp_path / "x"
    path.write_bytes(b"x" * 50)
    assert read_limited(path, 50) == b"x" * 50
    monkeypatch.setattr(untrusted, "check_file", lambda *_: path.write_bytes(b"x" * 60))
    with pytest.raises(ValueError, match="is longer than the 50 bytes"):
        read_limited(path, 50)


@pytest.mark.skipif(os.name != "posix", reason="needs pipes and devices")
def test_what_is_no_regular_file_is_never_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for path in (tmp_path / "pipe", "/dev/zero", tmp_path):
        with pytest.raises(ValueError, match="is not a regular file"):
            read_limited(path, 10)
    for path in (tmp_path / "loop", tmp_path / "missing"):
        with pytest.raises(OSError):
            read_limited(path, 10)


def test_a_pointer_of_git_lfs_is_called_so(tmp_path):
    path = tmp_path / "model.pt"
    path.write_bytes(POINTER)
    for read in (read_limited, check_file):
        with pytest.raises(ValueError, match="is a pointer of git-LFS.*git lfs pull"):
            read(path, 1_000)


def test_text_in_utf8_with_or_without_a_byte_order_mark(tmp_path):
    path = tmp_path / "x"
    for content in ("\ufeff7 é\n", "7 é\n"):
        path.write_text(content, encoding="utf-8")
        assert read_limited_text(path) == "7 é\n"
    path.write_text("7\n", encoding="utf-16")
    with pytest.raises(ValueError, match="is text in UTF-16: save it in UTF-8"):
        read_limited_text(path)
    path.write_bytes(b"\xff7")
    with pytest.raises(ValueError, match="is not text in UTF-8"):
        read_limited_text(path)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "Expecting value at line 1, column 1"),
        ('{"a": 1, "a": 2}', "a key stands twice"),
        ("[" * 51 + "]" * 51, "nested over 50 deep"),
        ("[" * 10**5 + "]" * 10**5, "nested over 50 deep"),
        ('{"a":' * 10**5, "nested over 50 deep"),
        ("9" * 101, "a number of over 100 digits"),
        (r'["\ud800"]', "half of a surrogate pair"),
        (r'{"\udfff": 1}', "half of a surrogate pair"),
    ],
)
def test_json_that_is_refused(text, problem, tmp_path):
    with pytest.raises(ValueError, match=problem):
        parse_json(text)
    (tmp_path / "a\nb").write_text(text)
    with pytest.raises(ValueError, match=rf"a\\x0ab is not a settings file \({problem}"):
        read_limited_json(tmp_path / "a\nb", what="a settings file")


def test_json_that_passes():
    deep = "[" * 48 + '{"é": [1, -2.5e3, null, true, "\\ud83d\\ude00"]}' + "]" * 48
    assert str(parse_json(deep)).strip("[]").startswith("{'é': [1, -2500.0, None, True, '😀'")
    assert parse_json('{"epsilon": Infinity}')["epsilon"] == float("inf")
