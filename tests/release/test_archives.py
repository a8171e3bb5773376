"""Archives and checksums: the same files give the same bytes, and standard tools read them."""

import hashlib
import os
import shutil
import subprocess
import zipfile

import numpy as np
import pytest

from mico_competition.release.archives import (
    check_sums,
    files_below,
    files_of_release,
    settle,
    sha256_of,
    write_archive,
    write_sums,
)
from mico_competition.release.leak_check.forms import archive_faults


@pytest.fixture
def tree(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("b/model_10/model.pt", "b/model_2/model.pt", "b/model_2/seed_challenge", "top"):
        path = tmp_path / "out" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(rng.bytes(3000))
    return tmp_path / "out"


def test_the_same_files_give_the_same_archive(tree, tmp_path):
    write_archive(tmp_path / "a.zip", tree, "b")
    copy = shutil.copytree(tree, tmp_path / "elsewhere", copy_function=shutil.copyfile)
    for path in copy.rglob("*"):
        path.chmod(0o700)
    write_archive(tmp_path / "sub" / "b.zip", copy, "b")
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "sub" / "b.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        infos = archive.infolist()
    assert [info.filename for info in infos] == [
        "b/model_10/model.pt",
        "b/model_2/model.pt",
        "b/model_2/seed_challenge",
    ]
    assert {info.date_time for info in infos} == {(1980, 1, 1, 0, 0, 0)}
    assert {info.compress_type for info in infos} == {zipfile.ZIP_STORED}


def test_the_bytes_of_an_archive_are_held_still(tmp_path):
    """If this changes, archives of one release made by two versions differ: say so in CHANGELOG."""
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "a").write_text("1\n")
    write_archive(tmp_path / "x.zip", tmp_path, "f")
    digest = hashlib.sha256((tmp_path / "x.zip").read_bytes()).hexdigest()
    assert digest == "ac38b30450df44d9a515cea450ac880614f66d0ee16d7976ee7c7a145a533355"


def test_unzip_gives_the_tree_back(tree, tmp_path):
    write_archive(tmp_path / "a.zip", tree, "b")
    if shutil.which("unzip"):
        command = ["unzip", "-q", str(tmp_path / "a.zip"), "-d", str(tmp_path / "back")]
        subprocess.run(command, check=True)
    else:
        with zipfile.ZipFile(tmp_path / "a.zip") as archive:
            assert archive.testzip() is None
            archive.extractall(tmp_path / "back")
    names = files_below(tree / "b")
    assert files_below(tmp_path / "back" / "b") == names and len(names) == 3
    for name in names:
        assert (tmp_path / "back" / "b" / name).read_bytes() == (tree / "b" / name).read_bytes()


def test_sha256sum_agrees(tree):
    side = with_sums(tree)
    command = ["sha256sum", "-c", "--strict", "out.release/SHA256SUMS"]
    finished = subprocess.run(command, cwd=tree.parent, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.count(": OK") == 5
    lines = (side / "SHA256SUMS").read_text().splitlines()
    assert [line.split("  ")[1] for line in lines] == [
        "out.release/release.json",
        "out/b/model_10/model.pt",
        "out/b/model_2/model.pt",
        "out/b/model_2/seed_challenge",
        "out/top",
    ]
    assert check_sums(tree) == (6, [])


def with_sums(tree):
    """What lies beside `tree`: a file, an archive, and the checksums of all."""
    side = tree.with_name("out.release")
    (side / "archives").mkdir(parents=True)
    (side / "archives" / "x.zip").write_text("zip")
    (side / "release.json").write_text("{}")
    write_sums(side / "archives", {"x.zip": sha256_of(side / "archives" / "x.zip")})
    write_sums(side, {name: sha256_of(path) for name, path in files_of_release(tree)})
    return side


STRANGE = {
    "changed": (lambda t, s: (t / "top").write_text("x"), "top does not match its checksum"),
    "missing": (lambda t, s: (t / "b/model_2/model.pt").unlink(), "b/model_2/model.pt is missing"),
    "a prediction": (
        lambda t, s: (t / "b/model_2/prediction.csv").write_text("0.5"),
        "prediction.csv is not part of the release: remove it; predictions belong into another",
    ),
    "hidden": (lambda t, s: (t / ".DS_Store").write_text(""), ".DS_Store is not part of"),
    "beside": (lambda t, s: (s / "notes").write_text(""), "out.release/notes is not part of"),
    "empty name": (lambda t, s: (t / "b/a\nb").write_text(""), "is not part of"),
    "a link": (lambda t, s: (t / "b/link").symlink_to("/etc"), "b/link is not part of"),
    "a link for a file": (
        lambda t, s: ((t / "top").rename(t.parent / "top"), (t / "top").symlink_to("../top")),
        "top is not a regular file",
    ),
    "a pipe": (lambda t, s: os.mkfifo(t / "pipe"), "pipe is not part of"),
    "in archives": (lambda t, s: (s / "archives/y").write_text(""), "archives/y is not part of"),
    "an archive": (lambda t, s: (s / "archives/x.zip").write_text(""), "x.zip does not match"),
    "no archive": (lambda t, s: (s / "archives/x.zip").unlink(), "x.zip is missing"),
}


@pytest.mark.parametrize("kind", STRANGE)
def test_what_does_not_match_is_named(tree, kind):
    change, words = STRANGE[kind]
    change(tree, with_sums(tree))
    count, faults = check_sums(tree)
    assert len(faults) == 1 and words in faults[0]
    lost = ("changed", "missing", "a link for a file", "an archive", "no archive")
    assert count == 6 - (kind in lost)


@pytest.mark.parametrize(
    "line",
    ["abc", f"{'0' * 64}  ../x", f"{'0' * 64}  /x", f"{'0' * 64} ", f"{'1' * 64}  out/top", ""],
)
def test_a_line_of_another_form_is_refused(tree, line):
    side = with_sums(tree)
    (side / "SHA256SUMS").write_text(f"{'0' * 64}  out/top\n{line}\n")
    with pytest.raises(ValueError, match="Line 2 of .* is not a checksum"):
        check_sums(tree)


def test_nothing_to_check_is_no_success(tree):
    side = with_sums(tree)
    for empty in ("", "\ufeff"):
        (side / "SHA256SUMS").write_text(empty)
        with pytest.raises(ValueError, match="lists no files, so nothing can be checked"):
            check_sums(tree)
    (side / "SHA256SUMS").unlink()
    with pytest.raises(ValueError, match="There is no file .*SHA256SUMS"):
        check_sums(tree)


def test_settling_gives_one_time_and_two_modes(tree):
    (tree / "top").chmod(0o600)
    settle(tree)
    paths = [tree, *tree.rglob("*")]
    assert {path.stat().st_mtime_ns for path in paths} == {315532800 * 10**9}
    assert {os.stat(path).st_mode & 0o777 for path in paths if path.is_file()} == {0o644}
    assert {os.stat(path).st_mode & 0o777 for path in paths if path.is_dir()} == {0o755}


def test_a_large_archive_is_zip64(tmp_path, monkeypatch):
    """With zip64's limit of 2 GB brought down, rather than files brought up."""
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 1000)
    (tmp_path / "f").mkdir()
    for name, size in (("a", 5), ("large", 2000), ("small", 5)):
        (tmp_path / "f" / name).write_bytes(bytes(size))
    write_archive(tmp_path / "x.zip", tmp_path, "f")
    with zipfile.ZipFile(tmp_path / "x.zip") as archive:
        assert archive.testzip() is None
        assert [len(info.extra) for info in archive.infolist()] == [0, 20, 12]
    assert not list(archive_faults(tmp_path / "x.zip", tmp_path, ["f/a", "f/large", "f/small"]))
