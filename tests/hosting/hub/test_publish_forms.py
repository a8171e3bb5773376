"""A release published in archives, whole, in part and interrupted, is fetched as if by files."""

import shutil
import signal
import zipfile

import pytest
from helpers_download import MB, asked_for_files
from helpers_hub import Fault, published, run_mico, start_mico
from helpers_publish import (
    DEV,
    PLACES,
    SCENARIOS,
    card_of,
    uploads,
    write_made_up_release,
)
from helpers_release import CHALLENGE, files_below, size_below, write_trained

from mico_competition.hosting.hub import contents
from mico_competition.hosting.hub.client import HubError
from mico_competition.hosting.hub.download import fetch, plan_download
from mico_competition.hosting.hub.publish import publish
from mico_competition.release import archive_names
from mico_competition.release.add_labels import add_labels
from mico_competition.release.check_files import check_files
from mico_competition.release.release import release as write_release

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

ARCHIVES = "cifar10.release/archives"
UNFINISHED = "cifar10.release/unfinished"
ZIPS = {f"{ARCHIVES}/{s}_{p}.zip" for s in SCENARIOS for p in ("train", "dev", "final")}


def plan(hub, to, **choice):
    return plan_download("cifar10", to, repo="team/new", endpoint=hub.url, **choice)


def zips_in(hub, repo="team/new"):
    return {name for name in hub.repositories[repo].files if name.endswith(".zip")}


def asked_of_storage(hub):
    return [r for r in hub.log if r.path.startswith("/cdn/")]


def test_small_models_are_published_in_archives(hub, release, tmp_path):
    said = []
    before = files_below(release.parent)
    publish(release, "team/new", endpoint=hub.url, say=said.append)
    assert files_below(release.parent) == before  # and no archive is left on the disk
    assert said[0].startswith("Publishing 8 models in 6 archives, 17 files, 0.0 MB to team/new; ")
    assert zips_in(hub) == ZIPS and UNFINISHED not in hub.repositories["team/new"].files
    assert not [n for n in hub.repositories["team/new"].files if n.startswith("cifar10/")]
    _, body = card_of(hub, "team/new")
    assert "`cifar10.release/archives/<scenario>_<phase>.zip` hold the models" in body
    index = hub.repositories["team/new"].files["index/cifar10_lo/dev.csv"].decode()
    assert index.splitlines()[0].endswith(",epsilon,delta,archive")
    assert index.splitlines()[1].endswith(f",{ARCHIVES}/cifar10_lo_dev.zip")
    hub.log.clear()
    got = plan(hub, tmp_path / "got")
    assert got.sentence().startswith("Fetching 8 models, 36 files in 6 archives, 0.0 MB into ")
    assert not list(tmp_path.glob("got/*"))
    assert fetch(got) == 8
    assert files_below(tmp_path / "got") == published(release)
    # One request for the end of an archive, one for its content, and one for each other file.
    assert len(asked_of_storage(hub)) == 12
    assert len(hub.log) - 2 * 12 == 2 + 1 + 3


def test_archives_of_the_release_are_published_as_they_are(hub, original, tmp_path):
    publish(original.tree, "team/digits", endpoint=hub.url)
    files = hub.repositories["team/digits"].files
    side = f"{CHALLENGE}.release"
    for path, content in files_below(original.side).items():
        assert files[f"{side}/{path}"] == content
    without = tmp_path / CHALLENGE
    shutil.copytree(original.tree, without)
    shutil.copytree(original.side, tmp_path / side)
    shutil.rmtree(tmp_path / side / "archives")
    publish(without, "team/made", endpoint=hub.url)  # made while they are uploaded
    made = hub.repositories["team/made"].files
    assert made.keys() == files.keys()
    assert {n for n in files if files[n] != made[n]} == {"README.md"}  # it names the repository


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({"scenarios": ["cifar10_lo"], "phases": ["dev"]}, {DEV}),
        ({"models": [1, 150]}, {p for p in PLACES if p.endswith(("_1", "_150"))}),
        ({"scenarios": ["cifar10_inf"], "models": [0]}, {"cifar10_inf/train/model_0"}),
    ],
)
def test_only_the_bytes_of_chosen_models_are_fetched(hub, release, tmp_path, choice, expected):
    weights = {p: (release / p / "model.pt") for p in PLACES}
    publish(release, "team/new", endpoint=hub.url)
    hub.log.clear()
    assert fetch(plan(hub, tmp_path / "got", **choice)) == len(expected)
    got = files_below(tmp_path / "got" / "cifar10")
    assert got == {
        f"{p}/{n}": c for p in expected for n, c in files_below(weights[p].parent).items()
    }
    contents_asked = [r for r in asked_of_storage(hub) if r.end is not None]
    assert len(contents_asked) == len({p.rpartition("/")[0] for p in expected})
    sizes = sum(len(content) for content in got.values())
    assert sum(r.sent for r in contents_asked) < sizes + 200 * len(got)


def test_split_archives_are_published_and_read(hub, release, tmp_path, monkeypatch):
    monkeypatch.setattr(archive_names, "MOST_BYTES", 1000)
    publish(release, "team/new", endpoint=hub.url)
    assert f"{ARCHIVES}/cifar10_lo_train_1-1.zip" in zips_in(hub)
    hub.log.clear()
    assert fetch(plan(hub, tmp_path / "got", models=[1])) == 2
    assert {r.path.rpartition("/")[2] for r in asked_of_storage(hub)} == {
        f"{scenario}_train_1-1.zip" for scenario in SCENARIOS
    }
    fetch(plan(hub, tmp_path / "got"))
    assert files_below(tmp_path / "got") == published(release)


def test_a_publication_under_way_is_not_taken_for_a_whole_one(hub, release, tmp_path, monkeypatch):
    monkeypatch.setattr(contents, "_FILES_A_COMMIT", 1)
    hub.commit_allowed = 3
    with pytest.raises(HubError, match=r"refused team/new \(status 500\)"):
        publish(release, "team/new", endpoint=hub.url)
    assert len(zips_in(hub)) == 3 and UNFINISHED in hub.repositories["team/new"].files
    with pytest.raises(HubError, match="team/new is being published and is not whole yet: try"):
        plan(hub, tmp_path / "got")
    hub.commit_allowed, stored = 99, {r.path for r in uploads(hub) if r.method == "PUT"}
    hub.log.clear()
    publish(release, "team/new", endpoint=hub.url)
    again = {r.path for r in uploads(hub) if r.method == "PUT"}
    assert not stored & again and len(again) == 2  # the fourth archive was stored already
    assert UNFINISHED not in hub.repositories["team/new"].files and zips_in(hub) == ZIPS
    assert fetch(plan(hub, tmp_path / "got")) == 8


def test_one_form_a_repository(hub, release):
    publish(release, "team/new", form="files", endpoint=hub.url)
    with pytest.raises(HubError, match="so it has the models as files: publish with --form files,"):
        publish(release, "team/new", form="archives", endpoint=hub.url)
    hub.log.clear()
    publish(release, "team/new", endpoint=hub.url)
    assert not uploads(hub)
    publish(release, "team/packed", form="archives", endpoint=hub.url)
    with pytest.raises(HubError, match="as archives: publish with --form archives, or"):
        publish(release, "team/packed", form="files", endpoint=hub.url)


def test_large_models_are_published_as_files(hub, release, monkeypatch):
    monkeypatch.setattr(contents, "_SMALL_MODEL", 1000)
    publish(release, "team/new", endpoint=hub.url)
    assert not zips_in(hub)


def test_a_wrong_byte_leaves_one_model_out(hub, release, tmp_path):
    publish(release, "team/new", endpoint=hub.url)
    name = f"{ARCHIVES}/cifar10_lo_train.zip"
    files = hub.repositories["team/new"].files
    right = files[name]
    at = right.index((release / "cifar10_lo/train/model_1/model.pt").read_bytes())
    files[name] = right[:at] + bytes([right[at] ^ 1]) + right[at + 1 :]
    with pytest.raises(HubError, match="cifar10_lo/train/model_1/model.pt has not the checksum"):
        fetch(plan(hub, tmp_path / "got"))
    found = {"/".join(p.split("/")[:3]) for p in files_below(tmp_path / "got" / "cifar10")}
    assert found == set(PLACES) - {"cifar10_lo/train/model_1"}
    files[name] = right
    hub.log.clear()
    assert fetch(plan(hub, tmp_path / "got")) == 1
    assert sum(r.end is not None for r in asked_of_storage(hub)) <= 2
    assert files_below(tmp_path / "got") == published(release)


def spoiled(kind, content):
    """An archive that does not hold what SHA256SUMS lists."""
    if kind == "not a zip":
        return b"PK" + bytes(5000)
    if kind == "cut short":
        return content[: len(content) - 30]
    if kind == "no files":
        return b"PK\5\6" + bytes(18)
    if kind == "a directory that reaches too far":
        return content[:-22] + b"PK\5\6" + bytes(4) + b"\xff\xff" * 2 + b"\xff\0\0\0" * 2 + b"\0\0"
    raise AssertionError(kind)


@pytest.mark.parametrize(
    "kind", ["not a zip", "cut short", "no files", "a directory that reaches too far"]
)
def test_an_archive_of_another_form_is_refused(hub, release, tmp_path, kind):
    publish(release, "team/new", endpoint=hub.url)
    files, name = hub.repositories["team/new"].files, f"{ARCHIVES}/cifar10_lo_dev.zip"
    files[name] = spoiled(kind, files[name])
    with pytest.raises(HubError, match="cifar10_lo_dev.zip of team/new is not the archive that"):
        plan(hub, tmp_path / "got")
    assert fetch(plan(hub, tmp_path / "got", phases=["train", "final"])) == 6


@pytest.mark.parametrize("kind", ["deflated", "renamed", "outside"])
def test_a_zip_that_would_unpack_to_other_files_is_refused(hub, release, tmp_path, kind):
    publish(release, "team/new", endpoint=hub.url)
    files, name = hub.repositories["team/new"].files, f"{ARCHIVES}/cifar10_lo_dev.zip"
    method = zipfile.ZIP_DEFLATED if kind == "deflated" else zipfile.ZIP_STORED
    with zipfile.ZipFile(tmp_path / "other.zip", "w", method) as archive:
        for path in sorted((release / DEV).iterdir()):
            place = {"renamed": "cifar10/x", "outside": "../../x"}.get(kind, f"cifar10/{DEV}")
            archive.write(path, f"{place}/{path.name}")
    files[name] = (tmp_path / "other.zip").read_bytes()
    with pytest.raises(HubError, match="is not the archive that SHA256SUMS there describes"):
        plan(hub, tmp_path / "got")
    assert not (tmp_path / "x").exists() and not list(tmp_path.glob("got/*"))


def test_archives_without_checksums_are_refused(hub, release, tmp_path):
    publish(release, "team/new", endpoint=hub.url)
    del hub.repositories["team/new"].files["cifar10.release/SHA256SUMS"]
    with pytest.raises(HubError, match="team/new has archives but lacks SHA256SUMS: tell its"):
        plan(hub, tmp_path / "got")


@pytest.mark.slow
def test_labels_that_are_added_to_archives_are_fetched_alone(hub, tmp_path):
    trained, out = write_trained(tmp_path / "trained"), tmp_path / "released"
    write_release(trained, CHALLENGE, out, archives=False)
    publish(out / CHALLENGE, "team/d", endpoint=hub.url)
    where = {"repo": "team/d", "endpoint": hub.url}
    fetch(plan_download(CHALLENGE, tmp_path / "got", **where))
    assert check_files(tmp_path / "got" / CHALLENGE)[1] == []
    add_labels(trained, CHALLENGE, out, "dev")
    hub.log.clear()
    publish(out / CHALLENGE, "team/d", endpoint=hub.url)
    assert len([r for r in hub.log if r.method == "PUT"]) == 3  # the archives of dev
    hub.log.clear()
    again = plan_download(CHALLENGE, tmp_path / "got", **where)
    assert len(again.missing) == 3
    fetch(again)
    assert files_below(tmp_path / "got") == published(out / CHALLENGE)
    fetched = sum(r.sent for r in asked_of_storage(hub) if r.end is not None)
    assert fetched < 3 * (out / CHALLENGE / "digits_lo/dev/model_100/model.pt").stat().st_size


@pytest.mark.slow
def test_killed_it_goes_on_on_both_sides(hub, tmp_path, monkeypatch):
    """`mico publish`, killed while an archive is sent, and `mico download`, while one comes."""
    release = write_made_up_release(tmp_path / "released" / "cifar10", size=3 * MB)
    command = ("publish", release, "team/new")
    hub.faults["store"] = Fault(stalls=True, times=1)
    with start_mico(hub.url, tmp_path / "home", *command) as process:
        assert hub.stalled.wait(60)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    hub.stalled.clear()
    code, _, err = run_mico(hub.url, tmp_path / "home", *command)
    assert (code, err) == (0, "") and zips_in(hub) == ZIPS
    assert {path.name for path in release.parent.iterdir()} == {"cifar10", "cifar10.release"}
    name = f"{ARCHIVES}/cifar10_lo_train.zip"
    second = hub.repositories["team/new"].files[name].index(b"cifar10_lo/train/model_1")
    asked = iter([Fault(), Fault(breaks=second + 2 * MB, stalls=True)])  # its end, then its content
    monkeypatch.setattr(
        hub, "fault_of", lambda path: next(asked, Fault()) if path == name else Fault()
    )
    command = ("download", "cifar10", "--repo", "team/new", "--to", tmp_path / "to")
    command = (*command, "--scenario", "cifar10_lo", "--phase", "train")
    with start_mico(hub.url, tmp_path / "home", *command) as process:
        assert hub.stalled.wait(60)
        staging = tmp_path / "to" / ".cifar10.download"
        while size_below(staging) < 4 * MB:
            assert process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.communicate()
    monkeypatch.undo()
    hub.log.clear()
    code, _, err = run_mico(hub.url, tmp_path / "home", *command)
    assert (code, err) == (0, "")
    (rest,) = (r for r in asked_of_storage(hub) if r.end is not None)
    assert rest.start > second + MB // 2
    expected = {n: c for n, c in published(release).items() if "/cifar10_lo/train/" in n}
    assert files_below(tmp_path / "to" / "cifar10") == {
        n.partition("/")[2]: c for n, c in expected.items()
    }
    assert not (tmp_path / "to" / ".cifar10.download").exists()
    assert len(asked_for_files(hub)) <= 8


def test_archives_above_four_gigabytes_are_published_and_read(hub, release, tmp_path, monkeypatch):
    """As if the limit of a zip without 64-bit fields were 500 bytes."""
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 500)
    publish(release, "team/new", endpoint=hub.url)
    assert all(b"PK\6\6" in hub.repositories["team/new"].files[name] for name in ZIPS)
    assert fetch(plan(hub, tmp_path / "got")) == 8
    assert files_below(tmp_path / "got") == published(release)
