"""`mico verify` of releases that somebody changed, with all checksums made anew."""

from __future__ import annotations

import json
import shutil
import zipfile

import pytest
from helpers_release import CHALLENGE, DEV, write_trained

from mico_competition.cli import main
from mico_competition.release.archives import (
    files_of_release,
    sha256_of,
    write_archive,
    write_sums,
)
from mico_competition.release.release import release


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    root = tmp_path_factory.mktemp("sound")
    release(write_trained(root / "trained"), CHALLENGE, root / "out")
    return root / "out"


@pytest.fixture
def out(sound, tmp_path):
    return shutil.copytree(sound, tmp_path / "out")


def told(out, capsys):
    """Exit code of `mico verify`, and what it reports."""
    code = main(["verify", str(out / CHALLENGE)])
    return code, capsys.readouterr().err


def seal(out):
    """Make all checksums anew, as somebody does who changed the release."""
    side = out / f"{CHALLENGE}.release"
    files = {n: sha256_of(p) for n, p in files_of_release(out / CHALLENGE) if p.is_file()}
    write_sums(side, files)
    zips = sorted((side / "archives").glob("*.zip"))
    write_sums(side / "archives", {path.name: sha256_of(path) for path in zips})


def summary(change):
    def edit(out):
        path = out / f"{CHALLENGE}.release/release.json"
        value = json.loads(path.read_text())
        change(value)
        path.write_text(json.dumps(value, indent=2) + "\n")

    return edit


def row(name, **values):
    return summary(lambda v: v["scenarios"][name].update(values))


def zip_of(name, other):
    def edit(out):
        archives = out / f"{CHALLENGE}.release/archives"
        shutil.copy(archives / other, archives / name)

    return edit


def more_in_zip(out):
    path = out / f"{CHALLENGE}.release/archives/digits_lo_dev.zip"
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("notes.txt", "more")


def other_weights_in_zip(out):
    """The archive of a folder in which one model is another's."""
    copy = shutil.copytree(out / CHALLENGE, out.parent / "copy" / CHALLENGE)
    phase = copy / "digits_lo/train"
    shutil.copy(phase / "model_0/model.pt", phase / "model_1/model.pt")
    archive = out / f"{CHALLENGE}.release/archives/digits_lo_train.zip"
    write_archive(archive, copy.parent, f"{CHALLENGE}/digits_lo/train")


def metadata_of_one(out):
    path = out / CHALLENGE / "digits_lo/train/model_1/metadata.json"
    value = json.loads(path.read_text())
    value["privacy"]["epsilon"] = 1.0
    path.write_text(json.dumps(value, indent=2) + "\n")


def empty(*names):
    return lambda out: [(out / name).mkdir() for name in names]


SIDE = f"{CHALLENGE}.release"
CHANGED = {
    "a scenario omitted": (
        summary(lambda v: v["scenarios"].pop("digits_lo")),
        "release.json lacks scenario digits_lo, and models of it are in the folder",
    ),
    "a scenario too many": (
        summary(lambda v: v["scenarios"].update(cifar10_lo=v["scenarios"]["digits_lo"])),
        "release.json has a scenario cifar10_lo, and no models of it are in the folder",
    ),
    "no scenario": (summary(lambda v: v["scenarios"].clear()), "lacks scenario digits_hi"),
    "another epsilon": (
        row("digits_lo", privacy={"epsilon": 0.5, "delta": 1e-5}),
        "digits_lo/dev/model_100 has another privacy than release.json says",
    ),
    "another delta": (
        row("digits_lo", privacy={"epsilon": 4.0, "delta": 1e-9}),
        "has another privacy than",
    ),
    "privacy dropped": (row("digits_lo", privacy=None), "has another privacy than release.json"),
    "privacy claimed": (
        row("digits_inf", privacy={"epsilon": 1, "delta": 1e-5}),
        "digits_inf/train/model_0 has another privacy",
    ),
    "epsilon of one model": (metadata_of_one, "digits_lo/train/model_1 has another privacy"),
    "n": (row("digits_hi", len_training=1), "has another len_training than release.json says"),
    "true for a number": (row("digits_hi", len_challenge=True), "has another len_challenge"),
    "accuracy of 7": (row("digits_inf", accuracy=7), "no accuracy in [0, 1]"),
    "accuracy as text": (row("digits_inf", accuracy="0.9"), "no accuracy in [0, 1]"),
    "no accuracy": (
        summary(lambda v: v["scenarios"]["digits_inf"].pop("accuracy")),
        "digits_inf: release.json lacks accuracy",
    ),
    "a row that is none": (
        summary(lambda v: v["scenarios"].update(digits_inf=[])),
        "release.json has no accuracy",
    ),
    "one key more": (summary(lambda v: v.update(note="x")), "release.json has a note"),
    "one key more in a row": (row("digits_hi", note="x"), "release.json has a note"),
    "format 1": (summary(lambda v: v.update(format=1)), "release anew"),
    "a phase revealed that is not": (
        summary(lambda v: v.update(revealed=["dev"])),
        "revealed_dev.json is missing",
    ),
    "an archive of another scenario": (
        zip_of("digits_lo_dev.zip", "digits_hi_dev.zip"),
        "digits_lo_dev.zip is not exactly the archive of the files of its phase",
    ),
    "an archive of another phase": (
        zip_of("digits_lo_dev.zip", "digits_lo_train.zip"),
        "digits_lo_dev.zip is not exactly",
    ),
    "an archive too many": (
        zip_of("digits_lo_more.zip", "digits_lo_train.zip"),
        "digits_lo_more.zip is not an archive of a scenario",
    ),
    "an archive gone": (
        lambda out: (out / f"{SIDE}/archives/digits_lo_dev.zip").unlink(),
        "digits_lo_dev.zip is missing",
    ),
    "a file more in an archive": (more_in_zip, "digits_lo_dev.zip is not exactly"),
    "other weights in an archive": (other_weights_in_zip, "digits_lo_train.zip is not exactly"),
    "a damaged archive": (
        lambda out: (out / f"{SIDE}/archives/digits_lo_dev.zip").write_bytes(b"PK"),
        "digits_lo_dev.zip is not exactly",
    ),
    "an empty folder in a model": (
        empty(f"{CHALLENGE}/{DEV}/empty"),
        "model_100/empty is not part of the release",
    ),
    "an empty folder in a scenario": (
        empty(f"{CHALLENGE}/digits_lo/notes"),
        "digits_lo/notes is not part of the release",
    ),
    "an empty model": (
        empty(f"{CHALLENGE}/digits_lo/dev/model_101"),
        "model_101",
    ),
    "nested empty folders": (
        empty(f"{CHALLENGE}/{DEV}/a", f"{CHALLENGE}/{DEV}/a/b"),
        "model_100/a/b is not part of the release",
    ),
    "an empty folder beside": (empty(f"{SIDE}/more"), f"{SIDE}/more is not part of the release"),
    "an empty folder of archives": (
        empty(f"{SIDE}/archives/more"),
        "archives/more is not part of the release",
    ),
    "an empty hidden folder": (empty(f"{CHALLENGE}/.git"), ".git is not part of the release"),
}


@pytest.mark.parametrize("change", CHANGED)
def test_a_release_that_contradicts_itself(out, capsys, change):
    edit, message = CHANGED[change]
    edit(out)
    seal(out)
    code, err = told(out, capsys)
    assert code == 1 and message in err, err


def test_a_sound_release_and_one_without_archives(out, capsys):
    assert told(out, capsys) == (0, "")
    seal(out)
    assert told(out, capsys) == (0, "")
    shutil.rmtree(out / SIDE / "archives")
    assert told(out, capsys) == (0, "")
