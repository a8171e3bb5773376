"""Purchase-100's table: parsed, checked, packed, kept; and never out of a stale or broken cache."""

import io
import os
import pickle
import tarfile
import time

import numpy as np
import pytest
import torch

from mico_competition.data import packed_cache, purchase100_files
from mico_competition.data.datasets import load_purchase100
from mico_competition.data.downloads import DownloadError
from mico_competition.data.purchase100_files import ARCHIVE, CACHE, TABLE, parse_table


def table(count, seed=0):
    """Features uint8 [count, 600] and labels 1..100, every length of label among them."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(1, 101, count)
    labels[:3] = (100, 7, 42)[:count]
    return generator.integers(0, 2, (count, 600), np.uint8), labels


def lines(rows, separator=","):
    features, labels = rows
    return [
        separator.join([str(label), *map(str, row)])
        for label, row in zip(labels, features.tolist(), strict=True)
    ]


def write(path, texts, end="\n"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("".join(text + end for text in texts).encode())
    return path


def check(dataset, rows):
    features, labels = rows
    assert torch.equal(dataset.inputs(range(len(labels))), torch.from_numpy(features).float())
    assert dataset.labels.tolist() == (labels - 1).tolist()


@pytest.fixture
def rows():
    return table(23)


@pytest.fixture
def place(tmp_path, rows):
    """A folder with a table of 23 records; the path of the table."""
    return write(tmp_path / "purchase100" / TABLE, lines(rows))


def never(*_):
    raise AssertionError("the table was parsed")


def test_items_are_those_of_2022(place, rows):
    dataset = load_purchase100(place.parent.parent)
    record, label = dataset[0]
    assert (record.dtype, record.shape) == (torch.float32, (600,))
    assert (type(label), label) == (int, 99)
    assert record.tolist() == rows[0][0].tolist()
    check(dataset, rows)
    check(load_purchase100(place.parent), rows)  # directly in the folder
    assert dataset.nbytes == 23 * (75 + 8)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\n\n", " \n"])
@pytest.mark.parametrize("separator", [",", ", "])
def test_other_ends_and_spaces_are_read(tmp_path, rows, end, separator):
    path = write(tmp_path / TABLE, lines(rows, separator), end)
    check(load_purchase100(tmp_path), rows)
    path.write_bytes(path.read_bytes().rstrip())
    check(load_purchase100(tmp_path), rows)


def test_lines_that_straddle_blocks_are_whole(tmp_path, monkeypatch):
    rows = table(200)
    path = write(tmp_path / TABLE, lines(rows))
    whole = parse_table(path)
    for size in (999, 1201, 5000):
        monkeypatch.setattr(purchase100_files, "_BLOCK", size)
        for part, expected in zip(parse_table(path), whole, strict=True):
            assert np.array_equal(part, expected)


def test_the_fast_path_takes_the_usual_form(place, monkeypatch):
    monkeypatch.setattr(purchase100_files, "_parse_any", never)
    assert len(load_purchase100(place.parent)) == 23


@pytest.mark.parametrize("number", [1, 12, 23])
@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda text: text[:-2], ": 600 values, not 601; "),
        (lambda text: text + ",0", ": 602 values, not 601; "),
        (lambda text: text[:-1] + "2", ", column 601: '2' is not 0 or 1; "),
        (lambda text: text[:-1], ", column 601: '' is not 0 or 1; "),
        (lambda text: text[:-3] + ";" + text[-2:], ", column 600: ';' is not 0 or 1; "),
        (lambda text: "0" + text[text.index(",") :], ": label '0' is not 1 to 100; "),
        (lambda text: "101" + text[text.index(",") :], ": label '101' is not 1 to 100; "),
        (lambda text: "x" + text[text.index(",") :], ": label 'x' is not 1 to 100; "),
        (lambda text: text[text.index(",") :], ": label '' is not 1 to 100; "),
        (lambda text: "label", ": 1 values, not 601; "),
        (lambda text: "\xff" * 1202, ": 1 values, not 601; "),
    ],
)
def test_a_faulty_line_is_named(tmp_path, rows, number, change, complaint):
    texts = lines(rows)
    texts[number - 1] = change(texts[number - 1])
    write(tmp_path / TABLE, texts)
    with pytest.raises(ValueError, match=f"{TABLE}, line {number}{complaint}"):
        load_purchase100(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [TABLE]


def test_the_faulty_line_is_counted_across_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(purchase100_files, "_BLOCK", 5000)
    texts = lines(table(60))
    texts[47] = texts[47].replace("1", "3")
    write(tmp_path / TABLE, texts)
    with pytest.raises(ValueError, match="line 48"):
        load_purchase100(tmp_path)


def test_truncated_and_empty_tables_are_named(place):
    place.write_bytes(place.read_bytes()[:-300])
    with pytest.raises(ValueError, match="line 23: .* values, not 601"):
        load_purchase100(place.parent)
    place.write_bytes(b"")
    with pytest.raises(ValueError, match="dataset_purchase is empty"):
        load_purchase100(place.parent)


def test_the_cache_spares_the_parsing(place, rows, monkeypatch):
    load_purchase100(place.parent)
    assert sorted(path.name for path in place.parent.iterdir()) == [CACHE, TABLE][::-1]
    monkeypatch.setattr(purchase100_files, "parse_table", never)
    check(load_purchase100(place.parent), rows)
    place.unlink()
    check(load_purchase100(place.parent), rows)  # alone it will do


def test_a_stale_cache_is_made_anew(place, rows):
    load_purchase100(place.parent)
    features, labels = rows
    other = (1 - features, labels)
    before = place.stat()
    write(place, lines(other))
    os.utime(place, ns=(before.st_atime_ns, before.st_mtime_ns))  # same size, same time
    check(load_purchase100(place.parent), other)
    check(load_purchase100(place.parent), other)


@pytest.mark.parametrize("settled", [0.0, 1e9])
def test_a_change_in_the_middle_of_a_large_table_is_seen(tmp_path, rows, monkeypatch, settled):
    """Of the same size and with the time set back: both when a state is trusted and when not."""
    monkeypatch.setattr(packed_cache, "_SETTLED_SECONDS", settled)
    large = tuple(np.concatenate([part] * 10) for part in rows)
    place = tmp_path / TABLE
    write(place, lines(large))
    check(load_purchase100(tmp_path), large)
    before = place.stat()
    large[0][115, 300] ^= 1
    time.sleep(0.05)  # a clock tick of any file system
    write(place, lines(large))  # in place: also the file's number stays
    os.utime(place, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = place.stat()
    assert (after.st_size, after.st_mtime_ns, after.st_ino) == (
        before.st_size,
        before.st_mtime_ns,
        before.st_ino,
    )
    check(load_purchase100(tmp_path), large)


def test_a_copied_table_keeps_its_cache(place, rows, monkeypatch):
    load_purchase100(place.parent)
    content = place.read_bytes()
    place.unlink()
    place.write_bytes(content)
    monkeypatch.setattr(purchase100_files, "parse_table", never)
    check(load_purchase100(place.parent), rows)
    check(load_purchase100(place.parent), rows)


def test_a_newer_table_outdates_the_cache(place, rows):
    load_purchase100(place.parent)
    made_from = str(np.load(place.with_name(CACHE))["source"])
    os.utime(place, ns=(0, 10**18))
    assert packed_cache.fingerprint(place) != made_from
    check(load_purchase100(place.parent), rows)
    assert str(np.load(place.with_name(CACHE))["source"]) == packed_cache.fingerprint(place)


def test_a_cut_cache_is_never_read(place, rows):
    load_purchase100(place.parent)
    cache = place.with_name(CACHE)
    whole = cache.read_bytes()
    for length in (0, 1, 100, len(whole) // 2, len(whole) - 1):
        cache.write_bytes(whole[:length])
        assert packed_cache.read(cache, place, 75, 100) is None
    check(load_purchase100(place.parent), rows)
    assert cache.read_bytes()[-100:] == whole[-100:]
    place.unlink()
    cache.write_bytes(whole[:-1])
    with pytest.raises(FileNotFoundError, match=r"bits\.npz is damaged and there is no dataset_pu"):
        load_purchase100(place.parent)


@pytest.mark.parametrize(
    "changes",
    [
        {"bits": np.zeros((23, 75), np.uint8)},  # not what the checksum is of
        {"labels": np.full(23, 100, np.uint8)},
        {"bits": np.zeros((23, 74), np.uint8)},
        {"bits": np.zeros((23, 75), np.float32)},
        {"labels": np.zeros(22, np.uint8)},
        {"checksum": np.array("0")},
    ],
)
def test_a_cache_of_other_content_is_never_read(place, changes):
    load_purchase100(place.parent)
    cache = place.with_name(CACHE)
    with np.load(cache) as file:
        content = {**file, **changes}
    np.savez(cache, **content)
    assert packed_cache.read(cache, place, 75, 100) is None
    assert packed_cache.read(cache, None, 75, 100) is None


class Payload:
    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_no_pickle_is_loaded(place, rows, tmp_path):
    proof = tmp_path / "ran"
    hostile = pickle.dumps(Payload(proof))
    old = place.with_name(f"{TABLE}.pickle")
    for path in (old, place.with_name(CACHE)):
        path.write_bytes(hostile)
    check(load_purchase100(place.parent), rows)
    np.savez(place.with_name(CACHE), bits=np.array([Payload(proof)], object))
    check(load_purchase100(place.parent), rows)
    for path in (place, place.with_name(CACHE)):
        path.unlink()
    with pytest.raises(FileNotFoundError, match=r"\.pickle is not read, because loading a pickle"):
        load_purchase100(place.parent)
    assert not proof.exists()


def test_a_folder_that_cannot_be_written_is_no_error(place, rows, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(packed_cache, "written_aside", refuse)
    check(load_purchase100(place.parent), rows)
    assert [path.name for path in place.parent.iterdir()] == [TABLE]


def archive_of(content, name=TABLE):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        link = tarfile.TarInfo(TABLE)
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
        tar.addfile(link)
        member = tarfile.TarInfo(name)
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


@pytest.mark.parametrize("name", [TABLE, f"./{TABLE}", f"../{TABLE}"])
def test_the_archive_is_read_without_unpacking(place, rows, name):
    place.with_name(ARCHIVE).write_bytes(archive_of(place.read_bytes(), name))
    place.unlink()
    for _ in range(2):
        check(load_purchase100(place.parent), rows)
        assert sorted(path.name for path in place.parent.iterdir()) == [CACHE, ARCHIVE]


def test_damaged_archives_are_named(place):
    archive = place.with_name(ARCHIVE)
    whole = archive_of(place.read_bytes())
    archive.write_bytes(archive_of(b"", "other"))
    place.unlink()
    with pytest.raises(ValueError, match=r"tgz holds no file dataset_purchase"):
        load_purchase100(archive.parent)
    for length in (0, 20, len(whole) // 2):
        archive.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"tgz is truncated or damaged"):
            load_purchase100(archive.parent)


def serve(monkeypatch, content):
    def fetch(url, path):
        assert url.endswith("/dataset_purchase.tgz")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    monkeypatch.setattr(purchase100_files, "fetch", fetch)


def test_a_download_is_checked_by_its_content(tmp_path, rows, monkeypatch):
    content = "\n".join(lines(rows)).encode()
    folder = tmp_path / "purchase100"
    serve(monkeypatch, archive_of(content))
    with pytest.raises(DownloadError, match="sent 23 records, not 197,324"):
        load_purchase100(tmp_path, download=True)
    assert list(folder.iterdir()) == []
    monkeypatch.setattr(purchase100_files, "OFFICIAL_RECORDS", 23)
    check(load_purchase100(tmp_path, download=True), rows)
    serve(monkeypatch, None)
    check(load_purchase100(tmp_path, download=True), rows)  # what is there is not fetched again


def test_a_download_of_something_else_is_deleted(tmp_path, monkeypatch):
    for content in (b"<html>", archive_of(b"1,2,3\n")):
        serve(monkeypatch, content)
        with pytest.raises(DownloadError, match="sent something else, which was deleted"):
            load_purchase100(tmp_path, download=True)
        assert list((tmp_path / "purchase100").iterdir()) == []
