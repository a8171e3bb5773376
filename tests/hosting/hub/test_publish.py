"""`mico publish` against a Hub of our own: all of a release goes up, and resumes."""

import json
import shutil

import pytest
from helpers_hub import Fault, published, run_mico
from helpers_publish import card_of, uploads
from helpers_release import files_below

from mico_competition.cli import main
from mico_competition.competition.table import CHALLENGES
from mico_competition.hosting.hub.client import HubError
from mico_competition.hosting.hub.contents import pages
from mico_competition.hosting.hub.publish import publish
from mico_competition.hosting.hub.released import check_publishable

# The client's own upload to storage other than Xet's, which no small server speaks.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.mark.slow
@pytest.mark.parametrize("challenge", ["purchase100", "sst2"])
def test_published_and_downloaded_a_release_is_the_same(hub, competition, tmp_path, challenge):
    folder = tmp_path / "up" / challenge
    for name in (challenge, f"{challenge}.release"):
        shutil.copytree(competition.released / name, folder.with_name(name))
    before, all_files = published(folder), files_below(folder.parent)
    form = "files" if challenge == "purchase100" else "archives"
    command = ("publish", folder, "team/again", "--form", form)
    code, out, err = run_mico(hub.url, tmp_path / "home", *command)
    assert (code, err) == (0, "")
    assert "Publishing 12 models" in out and "0.0 MB are there already" in out
    assert f"Published: {hub.url}/datasets/team/again" in out
    assert files_below(folder.parent) == all_files
    stated = json.loads((folder.parent / f"{challenge}.release/release.json").read_text())
    rows = card_of(hub, "team/again")[1].splitlines()
    for name, facts in stated["scenarios"].items():
        epsilon = f"{facts['privacy']['epsilon']:.3f}" if facts["privacy"] else "no privacy"
        (row,) = [row for row in rows if row.startswith(f"| {name} | {epsilon} |")]
        assert f"| {facts['accuracy']:.4f} | 2 | 1 | 1 |" in row
    command = ("download", challenge, "--repo", "team/again", "--to", tmp_path / "down")
    code, out, err = run_mico(hub.url, tmp_path / "home", *command)
    assert (code, err) == (0, "")
    assert files_below(tmp_path / "down") == before
    assert {path.name for path in (tmp_path / "down" / challenge).iterdir()} == set(
        CHALLENGES[challenge]
    )
    assert main(["verify", str(tmp_path / "down" / challenge)]) == 0
    extra = hub.repositories["team/again"].files.keys() - before.keys()
    archives = f"{challenge}.release/archives/"
    packed = {n for n in all_files if n.startswith(archives)} if form == "archives" else set()
    assert {path for path in extra if not path.startswith("index/")} == {
        "README.md",
        ".gitattributes",
        *packed,
    }


def test_all_of_it_goes_up_and_what_describes_it_last(hub, release):
    said = []
    address = publish(release, "team/new", form="files", endpoint=hub.url, say=said.append)
    assert address == f"{hub.url}/datasets/team/new"
    assert said == ["Publishing 8 models, 46 files, 0.0 MB to team/new; 0.0 MB are there already"]
    repository = hub.repositories["team/new"]
    assert not repository.private
    assert repository.files.items() >= published(release).items()
    models, rest = (r.body.decode() for r in hub.asked("/commit/main", "POST"))
    assert "model.pt" in models and "README.md" not in models and "SHA256SUMS" not in models
    assert "README.md" in rest and "SHA256SUMS" in rest and "model.pt" not in rest


def test_what_goes_up_tells_nothing_of_this_machine(hub, release, tmp_path):
    publish(release, "team/new", endpoint=hub.url)
    commits = hub.repositories["team/new"].commits
    assert commits == ["Add the release, part 1", "Complete the release, part 2"]
    for request in hub.log:
        if request.method == "POST":
            assert str(tmp_path).encode() not in request.body
    copy = shutil.copytree(release, tmp_path / "b" / "cifar10")
    shutil.copytree(release.parent / "cifar10.release", tmp_path / "b" / "cifar10.release")
    first, second = (pages(check_publishable(d), "team/new", "mit") for d in (release, copy))
    assert first == second


def test_a_second_run_sends_nothing(hub, release):
    publish(release, "team/new", form="files", endpoint=hub.url)
    hub.log.clear()
    said = []
    publish(release, "team/new", endpoint=hub.url, say=said.append)  # in the form that is there
    assert not uploads(hub) and len(hub.log) == 3
    assert said[0].startswith("Publishing 8 models, 46 files") and "0.0 MB are there" in said[0]


@pytest.mark.slow
@pytest.mark.parametrize("where", ["storage", "first commit", "last commit"])
def test_an_interrupted_upload_resumes(hub, release, monkeypatch, where):
    monkeypatch.setattr("mico_competition.hosting.hub.contents._FILES_A_COMMIT", 10)
    monkeypatch.setattr("mico_competition.hosting.hub.publish._BYTES_AT_ONCE", 1500)
    if where == "storage":
        hub.faults["store"] = Fault(status=403)
    commit = hub.commit_allowed = {"storage": 99, "first commit": 0, "last commit": 3}[where]
    with pytest.raises(HubError, match=r"refused team/new \(status (403|500)\): "):
        publish(release, "team/new", form="files", endpoint=hub.url)
    repository = hub.repositories["team/new"]
    assert "README.md" not in repository.files
    assert "cifar10.release/SHA256SUMS" not in repository.files
    stored = {r.path for r in hub.log if r.method == "PUT"} if commit != 99 else set()
    hub.faults.clear()
    hub.log.clear()
    hub.commit_allowed = 99
    publish(release, "team/new", form="files", endpoint=hub.url)
    assert not stored & {r.path for r in hub.log if r.method == "PUT"}
    assert repository.files.items() >= published(release).items()
    assert "README.md" in repository.files
