"""What costs little to write and much to read is refused before it is read."""

import builtins
import os

import pytest

from mico_competition.challenge import read_seeds
from mico_competition.lengths import Lengths, read_metadata
from mico_competition.splits import parse_seed

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 12345\n"


def sparse(path, size):
    """A file of so many zeros, which takes no room."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    os.truncate(path, size)
    return path


@pytest.fixture
def unread(monkeypatch):
    """Fails a test in which a large file is opened."""

    def refuse(path, *rest, **options):
        if os.path.exists(path) and os.stat(path).st_size > 1 << 20:
            pytest.fail(f"{path} was opened")
        return opened(path, *rest, **options)

    opened = builtins.open
    monkeypatch.setattr(builtins, "open", refuse)
    monkeypatch.setattr("io.open", refuse)


# --- seeds and metadata


@pytest.mark.parametrize("name", ["seed_challenge", "seed_training", "seed_membership"])
def test_a_seed_of_4_gb(tmp_path, name, unread):
    (tmp_path / "seed_challenge").write_bytes(b"7\n")
    sparse(tmp_path / name, 4 << 30)
    with pytest.raises(ValueError, match=r"4,294,967,296 bytes, more than the 1,000 that a seed"):
        read_seeds(tmp_path)


@pytest.mark.parametrize("text", ["7\n", "\ufeff7\r\n", " 7 ", "\ufeff" + "0f" * 16 + "\n"])
def test_a_seed_with_a_byte_order_mark(tmp_path, text):
    (tmp_path / "seed_challenge").write_text(text, encoding="utf-8")
    assert read_seeds(tmp_path).challenge in (7, bytes([15] * 16))


@pytest.mark.parametrize("text", ["1_0", "٣", "１２", "1 0", "0x10", "1e3", "+-1", "9" * 31, ""])
def test_a_seed_is_in_plain_digits(text):
    with pytest.raises(ValueError, match="one decimal integer as in 2022"):
        parse_seed("seed_challenge", text)
    assert parse_seed("x", "-5") == -5 and parse_seed("x", "+5") == 5


@pytest.mark.parametrize(
    "text, problem",
    [
        ("[" * 100_000, "nested over 50 deep"),
        ('{"a": ' * 100 + "1" + "}" * 100, "nested over 50 deep"),
        ('{"len_challenge": 1' + "0" * 5_000 + "}", "a number of over 100 digits"),
        ('{"a": "\\ud800"}', "half of a surrogate pair"),
        ("[]", "is not a JSON object"),
        (POINTER, "is a pointer of git-LFS"),
    ],
)
def test_metadata_that_are_none(tmp_path, text, problem):
    (tmp_path / "metadata.json").write_text(text)
    with pytest.raises(ValueError, match=problem):
        read_metadata(tmp_path)


def test_metadata_of_a_gigabyte(tmp_path, unread):
    sparse(tmp_path / "metadata.json", 1 << 30)
    with pytest.raises(ValueError, match="more than the 1,000,000"):
        read_metadata(tmp_path)


@pytest.mark.parametrize("value", ["0", "-5", "1000000001", "true", "1.5", '"7"', "1e3"])
def test_lengths_in_metadata_are_lengths(tmp_path, value):
    (tmp_path / "metadata.json").write_text(f'{{"len_challenge": {value}}}', encoding="utf-8-sig")
    with pytest.raises(ValueError, match="lengths that are no whole numbers from 1"):
        Lengths.of(tmp_path)
