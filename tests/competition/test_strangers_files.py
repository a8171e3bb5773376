"""What costs little to write and much to read is refused before it is read."""

import builtins
import gzip
import io
import os
import tarfile

import numpy as np
import pytest

from mico_competition.competition.challenge import read_seeds
from mico_competition.competition.lengths import Lengths, read_metadata
from mico_competition.competition.splits import parse_seed
from mico_competition.support.untrusted import read_limited_json

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
    ("text", "problem"),
    [
        ("[" * 100_000, "nested over 50 deep"),
        ('{"a": ' * 100 + "1" + "}" * 100, "nested over 50 deep"),
        ('{"len_challenge": 1' + "0" * 5_000 + "}", "a number of over 100 digits"),
        ('{"a": "\\ud800"}', "half of a surrogate pair"),
        ('{"\\uDFFF": 1}', "half of a surrogate pair"),
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


# --- datasets


def batches(folder, content):
    """A folder of CIFAR-10's pickles, each of this content."""
    from mico_competition.data.cifar10_files import PYTHON

    (folder / PYTHON.folder).mkdir(parents=True)
    for name in PYTHON.files:
        (folder / PYTHON.folder / name).write_bytes(content)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    "content",
    [
        b"Nr\xff\xff\xff\x3f.",  # 7 bytes: room for 2 * 2^30 objects
        b"\x80\x02Nr\xff\xff\xff\x7f.",
        b"N" + b"p1073741823\n.",
        b"\x80\x05\x96" + (1 << 33).to_bytes(8, "little") + b".",
        b"\x80\x05\x97.",
        b"\x80\x02" + b"]" * 2_100_000 + b".",
        b"\x80\x02" + b"}" * 2_100_000 + b".",
        b"\x80\x04\x8e" + (1 << 60).to_bytes(8, "little") + b".",
        b"\x80\x02\x8b\xff\xff\xff\x7f.",
    ],
)
def test_a_pickle_of_few_bytes_that_takes_much_memory(content, tmp_path, monkeypatch):
    from mico_competition.data import plain_pickle
    from mico_competition.data.cifar10_files import read_cifar10

    monkeypatch.setattr(plain_pickle, "_PlainUnpickler", lambda *_, **__: pytest.fail("unpickled"))
    with pytest.raises(ValueError, match="data_batch_1 is not a whole CIFAR-10 batch"):
        read_cifar10(batches(tmp_path, content), download=False)


def test_a_batch_of_4_gb_is_not_opened(tmp_path, unread):
    from mico_competition.data.cifar10_files import BINARY, read_cifar10

    for name in BINARY.files:
        sparse(tmp_path / BINARY.folder / name, 4 << 30)
    with pytest.raises(ValueError, match="4,294,967,296 bytes, more than the 1,073,741,824"):
        read_cifar10(tmp_path, download=False)


def gzipped(path, pieces):
    with gzip.open(path, "wb", 1) as file:
        for piece in pieces:
            file.write(piece)


def header(name, size, kind=tarfile.REGTYPE):
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT)


TARS = {
    "a large member": ([header("dataset_purchase", 1 << 40)], "has a line of over|damaged|empty"),
    "a large header": ([header("x", 1 << 30, tarfile.XHDTYPE), bytes(1 << 20)], "takes over 64 MB"),
    "a long name": (
        [header("x", 1 << 30, tarfile.GNUTYPE_LONGNAME), bytes(99)],
        "takes over 64 MB",
    ),
    "many members": ([header("x", 0)] * 10_001, "over 10,000 files"),
    "a member to skip": ([header("x", 1 << 40), bytes(1 << 20)], "unpacks to over 8 GB"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", TARS)
def test_an_archive_that_stands_for_much(name, tmp_path):
    from mico_competition.data.cifar10_files import BINARY, read_cifar10
    from mico_competition.data.purchase100_files import parse_table

    pieces, words = TARS[name]
    gzipped(tmp_path / "dataset_purchase.tgz", pieces)
    with pytest.raises(ValueError, match=words):
        parse_table(tmp_path / "dataset_purchase.tgz")
    gzipped(tmp_path / BINARY.archive, pieces)
    with pytest.raises(ValueError, match=words if "line" not in words else "8 GB"):
        read_cifar10(tmp_path, download=False)


def test_a_batch_of_an_archive_that_is_too_large(tmp_path):
    from mico_competition.data.cifar10_files import BINARY, read_cifar10

    name = f"{BINARY.folder}/{BINARY.files[0]}"
    gzipped(tmp_path / BINARY.archive, [header(name, 2 << 30), bytes(1 << 20)])
    with pytest.raises(ValueError, match="a file of 2,147,483,648 bytes, over 1,073,741,824"):
        read_cifar10(tmp_path, download=False)


class Endless(io.RawIOBase):
    """A stream that never ends, and counts what was taken of it."""

    def __init__(self, piece):
        self.piece, self.taken = piece, 0

    def read(self, size=-1):
        self.taken += size
        return (self.piece * (size // len(self.piece) + 1))[:size]


@pytest.mark.parametrize("piece", [b"0", b",", b" ", b"1,0,", b"\r", b"\0"])
def test_a_line_without_an_end_is_read_no_further_than_a_block(piece, tmp_path):
    from mico_competition.data import purchase100_files

    stream = Endless(piece)
    with pytest.raises(ValueError, match="a line of over 65,536 bytes"):
        list(purchase100_files._whole_lines(stream, tmp_path))
    assert stream.taken <= 2 * purchase100_files._BLOCK


def test_a_long_line_among_others(tmp_path):
    from mico_competition.data.purchase100_files import parse_table

    (tmp_path / "dataset_purchase").write_bytes(b"1" + b",0" * 600 + b"\n" + b"," * 10**6 + b"\n")
    with pytest.raises(ValueError, match="line 2 has over 65,536 bytes"):
        parse_table(tmp_path / "dataset_purchase")


@pytest.mark.parametrize("name", ["dataset_purchase", "train.tsv", "cifar"])
def test_a_dataset_that_is_a_pointer_of_git_lfs(name, tmp_path):
    from mico_competition.data.cifar10_files import read_cifar10
    from mico_competition.data.purchase100_files import read_purchase100
    from mico_competition.data.sst2_files import read_sst2

    if name == "cifar":
        batches(tmp_path, POINTER.encode())
    else:
        (tmp_path / name).write_text(POINTER)
    readers = {"cifar": read_cifar10, "train.tsv": read_sst2, "dataset_purchase": read_purchase100}
    with pytest.raises(ValueError, match="is a pointer of git-LFS"):
        readers[name](tmp_path, False)


def test_sentences_of_a_gigabyte_are_not_opened(tmp_path, unread):
    from mico_competition.data.sst2_files import read_sst2

    sparse(tmp_path / "train.tsv", 2 << 30)
    with pytest.raises(ValueError, match="2,147,483,648 bytes, more than the"):
        read_sst2(tmp_path, False)


def test_a_sentence_that_is_quoted_a_million_times(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    from mico_competition.data.sst2_files import read_sst2

    rows = 1_000_000
    words = pyarrow.DictionaryArray.from_arrays(
        pyarrow.array([0] * rows, "int32"), pyarrow.array(["x" * 100_000])
    )
    numbers = pyarrow.array([0] * rows, "int64")
    table = pyarrow.table({"sentence": words, "label": numbers, "idx": numbers})
    for split in ("train", "validation"):
        parquet.write_table(table, tmp_path / f"{split}-0.parquet")
    assert (tmp_path / "train-0.parquet").stat().st_size < 1 << 20
    with pytest.raises(ValueError, match="unpacks to 100,000,000,000 bytes of text"):
        read_sst2(tmp_path, False)


def test_a_cache_that_stands_for_more_than_its_bytes_is_none(tmp_path):
    from mico_competition.data import packed_cache

    bits, labels = np.zeros((1000, 75), np.uint8), np.zeros(1000, np.uint8)
    parts = {"bits": bits, "labels": labels, "source": np.array("x"), "checksum": np.array("x")}
    np.savez_compressed(tmp_path / "x.npz", **parts)
    assert packed_cache.read(tmp_path / "x.npz", None, 75, 100) is None
    with np.load(tmp_path / "x.npz") as file:
        assert packed_cache._packed(file.zip, (tmp_path / "x.npz").stat().st_size)


# --- what others of ours read


@pytest.mark.parametrize("name", ["settings.json", "ledger.jsonl"])
def test_a_fleet_whose_files_are_large_or_deep(name, tmp_path, unread):
    from mico_competition.fleets.ledger import Ledger, fleet_folder

    folder = fleet_folder(tmp_path, "digits_inf")
    folder.mkdir(parents=True)
    for spoil in (lambda path: sparse(path, 4 << 30), lambda path: path.write_text("[" * 90_000)):
        for path in folder.iterdir():
            path.unlink()
        (folder / "ledger.jsonl").write_text("")
        (folder / "settings.json").write_text('{"settings": {"target_epsilon": 1}}')
        spoil(folder / name)
        with pytest.raises(ValueError, match="does not hold the settings and ledger of a fleet"):
            Ledger.read(tmp_path, "digits_inf")


def test_commitments_of_the_truth_are_read_up_to_a_limit(tmp_path, unread):
    from helpers_leaderboard import write_truth

    from mico_competition.hosting.leaderboard.truth_tree import read_truth

    write_truth(tmp_path)
    sparse(tmp_path / "cifar10" / "openings.json", 1 << 30)
    with pytest.raises(ValueError, match="more than the 100,000,000"):
        read_truth(tmp_path, "cifar10", "dev")


def test_a_tokenizer_of_8_gb_is_not_opened(tmp_path, unread):
    from mico_competition.models.tokenizer_files import tokenizer_bytes

    assert tokenizer_bytes(tmp_path) is None
    sparse(tmp_path / "tokenizer.json", 8 << 30)
    with pytest.raises(ValueError, match="tokenizer.json has 8,589,934,592 bytes, more than"):
        tokenizer_bytes(tmp_path)


@pytest.mark.parametrize("piece", ["[],", "{},", '{"a":0},', "[[[]]],"])
def test_many_objects_in_few_bytes_are_not_made(piece, tmp_path, monkeypatch):
    monkeypatch.setattr("json.loads", lambda *_, **__: pytest.fail("parsed"))
    (tmp_path / "x.json").write_text("[" + piece * 1_000_001 + "0]")
    with pytest.raises(ValueError, match="over 1,000,000 objects and lists"):
        read_limited_json(tmp_path / "x.json", 1 << 26)


@pytest.mark.parametrize("name", ["SHA256SUMS", "commitments.json"])
def test_files_of_a_release_of_100_mb_are_not_opened(name, tmp_path, unread):
    (tmp_path / "digits").mkdir()
    sparse(tmp_path / "digits.release" / name, 100_000_000)
    if name == "SHA256SUMS":
        from mico_competition.release.archives import read_sums as read
    else:
        from mico_competition.release.commitments import read_commitments as read
    with pytest.raises(ValueError, match="100,000,000 bytes, more than the 67,108,864"):
        read(tmp_path / "digits.release" / name if name == "SHA256SUMS" else tmp_path / "digits")
