"""A release without archives, and one whose archives are split, pass every check and change."""

import zipfile

import pytest
from helpers_release import CHALLENGE, files_below, write_trained

from mico_competition.cli import main
from mico_competition.release import archive_names
from mico_competition.release.add_labels import add_labels
from mico_competition.release.archive_names import ArchiveName, archive_name
from mico_competition.release.check_files import check_files
from mico_competition.release.leak_check.check import check_release
from mico_competition.release.release import release

SIDE = f"{CHALLENGE}.release"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return write_trained(tmp_path_factory.mktemp("trained"))


def names_of(out):
    return sorted(path.name for path in (out / SIDE / "archives").iterdir())


def test_a_release_without_archives_is_the_same_without_them(trained, tmp_path, capsys):
    without, full = tmp_path / "without", tmp_path / "full"
    assert main(["release", str(trained), "--to", str(without), "--no_archives"]) == 0
    said = capsys.readouterr().out
    assert "with checksums and commitments in" in said and "archives" not in said
    release(trained, CHALLENGE, full)
    files = files_below(full)
    assert files_below(without) == {
        n: c for n, c in files.items() if not n.startswith(f"{SIDE}/archives/")
    }
    assert main(["leaks", str(without), "--trained", str(trained)]) == 0
    assert main(["verify", str(without / CHALLENGE)]) == 0
    assert main(["publish", str(without / CHALLENGE), "team/x", "--dry_run"]) == 0
    reveal = ["release", str(trained), "--to", str(without), "--reveal", "dev"]
    assert main(reveal) == 0
    assert not (without / SIDE / "archives").exists()
    assert main(["verify", str(without / CHALLENGE)]) == 0


@pytest.fixture
def split(trained, tmp_path, monkeypatch):
    """A release whose archives hold one model each."""
    monkeypatch.setattr(archive_names, "MOST_BYTES", 1000)
    release(trained, CHALLENGE, tmp_path / "out")
    return tmp_path / "out"


def test_archives_are_split_by_ranges_of_models(split, trained):
    kinds = ("hi", "inf", "lo")
    parts = [f"digits_{k}_{p}.zip" for k in kinds for p in ("dev", "final")]
    parts += [f"digits_{k}_train_{i}-{i}.zip" for k in kinds for i in (0, 1)]
    assert names_of(split) == sorted([*parts, "SHA256SUMS"])
    with zipfile.ZipFile(split / SIDE / "archives" / "digits_lo_train_1-1.zip") as archive:
        assert {name.rpartition("/")[0] for name in archive.namelist()} == {
            f"{CHALLENGE}/digits_lo/train/model_1"
        }
    assert check_files(split / CHALLENGE)[1] == []
    assert check_release(split, trained, [CHALLENGE]) == []


def test_a_part_that_is_missing_or_doubled_is_found(split, trained):
    archives = split / SIDE / "archives"
    part = archives / "digits_lo_train_1-1.zip"
    whole = archives / "digits_lo_train.zip"
    part.rename(whole)
    faults = check_files(split / CHALLENGE)[1]
    assert any("both hold digits_lo/train/model_0: remove one" in fault for fault in faults)
    assert any("digits_lo_train.zip is not exactly the archive" in fault for fault in faults)
    whole.rename(archives / "digits_lo_train_1-7.zip")
    faults = check_release(split, trained, [CHALLENGE])
    name = f"{SIDE}/archives/digits_lo_train_1-7.zip: is not among what the table discloses."
    assert name in faults
    (archives / "digits_lo_train_1-7.zip").unlink()
    faults = check_files(split / CHALLENGE)[1]
    assert any("digits_lo_train.zip is missing, or a part of it" in fault for fault in faults)


def test_labels_are_added_to_split_archives(trained, tmp_path, monkeypatch):
    release(trained, CHALLENGE, tmp_path / "out")
    archives = tmp_path / "out" / SIDE / "archives"
    names = names_of(tmp_path / "out")
    for kind in ("hi", "inf", "lo"):  # as if the dev models had filled two archives
        whole = archives / f"digits_{kind}_dev.zip"
        whole.rename(archives / f"digits_{kind}_dev_100-100.zip")
    add_labels(trained, CHALLENGE, tmp_path / "out", "dev")
    assert names_of(tmp_path / "out") == sorted(
        name.replace("_dev.zip", "_dev_100-100.zip") for name in names
    )
    with zipfile.ZipFile(archives / "digits_lo_dev_100-100.zip") as archive:
        assert f"{CHALLENGE}/digits_lo/dev/model_100/solution.csv" in archive.namelist()
    assert check_files(tmp_path / "out" / CHALLENGE)[1] == []


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a_lo_train.zip", ArchiveName("a_lo", "train")),
        ("a_lo_train_0-49.zip", ArchiveName("a_lo", "train", (0, 49))),
        ("a_train_train.zip", ArchiveName("a_train", "train")),
        ("a_lo_train_00-49.zip", None),
        ("a_lo_test.zip", None),
        ("SHA256SUMS", None),
    ],
)
def test_names_are_read_back(name, expected):
    assert archive_name(name) == expected
    assert expected is None or str(expected) == name
