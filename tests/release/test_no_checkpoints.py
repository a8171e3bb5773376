"""Checkpoints, which are as secret as the training set, never leave the trained folder."""

import io
import shutil
import zipfile

import pytest
from helpers_bundle import SCHEDULE
from helpers_release import MODELS, write_trained

from mico_competition.cli import main
from mico_competition.hosting.codabench.bundle import write_bundle
from mico_competition.hosting.codabench.options import Options
from mico_competition.release.release import release

SECRET = b"state of the noise"


def plant(trained):
    """What runs leave while they train, in all places, and after kills in the middle of a write."""
    fleet = trained / "fleet" / "digits_lo"
    phase = trained / "digits" / "digits_lo" / "train"
    folders = [
        fleet / "checkpoints" / "model_0",
        fleet / "checkpoints" / "model_100",
        phase / ".checkpoint-model_1",
        phase / ".checkpoint-model_1" / ".state_3.pt.aside-0",
        trained / "digits" / ".checkpoint-digits_lo",
    ]
    for folder in folders:
        folder.mkdir(parents=True)
        (folder / "state_3.pt").write_bytes(SECRET)
        (folder / "checkpoint.json").write_bytes(SECRET)
        (folder / "lock").touch()
    for name in ("running/model_0.json", "tracked/model_0/events.out.tfevents.1"):
        (fleet / name).parent.mkdir(parents=True)
        (fleet / name).write_bytes(SECRET)
    return trained


def contents(folder):
    """Every file below `folder`, and every member of its zips and of zips in them."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            found |= opened(str(path.relative_to(folder)), path.read_bytes())
    return found


def opened(name, content):
    found = {name: content}
    if name.endswith(".zip"):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for member in archive.namelist():
                found |= opened(f"{name}:{member}", archive.read(member))
    return found


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A trained tree with checkpoints; read-only."""
    return plant(write_trained(tmp_path_factory.mktemp("trained")))


def test_releases_archives_and_bundles_hold_none(trained, tmp_path):
    release(trained, "digits", tmp_path / "released")
    write_bundle(trained, "digits", tmp_path / "bundle.zip", SCHEDULE, Options("codabench"))
    found = contents(tmp_path)
    for zipped in (True, False):
        models = [n for n in found if n.endswith("model.pt") and (".zip" in n) is zipped]
        assert len(models) == 3 * sum(MODELS.values())
    for name, content in found.items():
        assert SECRET not in content and "checkpoint" not in name and "state_" not in name


def test_what_is_put_into_a_release_by_hand_is_not_uploaded(trained, tmp_path, capsys):
    release(trained, "digits", tmp_path / "released")
    released = tmp_path / "released" / "digits"
    place = released / "digits_lo" / "train" / ".checkpoint-model_1"
    shutil.copytree(trained / "digits" / "digits_lo" / "train" / ".checkpoint-model_1", place)
    code = main(["publish", str(released), "me/digits", "--dry_run"])
    printed = capsys.readouterr()
    assert code == 1 and "checkpoint-model_1" in printed.err
    assert main(["leaks", str(tmp_path / "released"), "--trained", str(trained)]) == 1
