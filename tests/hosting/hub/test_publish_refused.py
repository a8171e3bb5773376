"""`mico publish` sends nothing but a release, and nothing to a repository of others."""

import shutil

import pytest
from helpers_hub import add_sums, run_mico
from helpers_publish import DEV, beside, uploads

from mico_competition.hosting.hub.client import HubError
from mico_competition.hosting.hub.publish import publish

# The client's own upload to storage other than Xet's, which no small server speaks.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.mark.parametrize("challenge", ["cifar10", "purchase100", "sst2", "ddp"])
def test_what_training_wrote_is_refused_before_a_byte_goes_up(hub, competition, challenge):
    folder = competition.trained / challenge
    with pytest.raises(
        ValueError, match="this is not a release; name the challenge's fol"
    ) as caught:
        publish(folder, "team/leak", endpoint=hub.url)
    assert "/dev/model_100/" in str(caught.value) and "is withheld in phase dev" in str(
        caught.value
    )
    path = str(caught.value).split(" is withheld")[0]
    with open(path) as file:
        assert file.read().strip() not in str(caught.value)
    assert not hub.log


def test_a_train_phase_alone_is_told_by_its_metadata(hub, competition, tmp_path):
    folder = tmp_path / "cifar10"
    (tmp_path / "cifar10.release").mkdir()
    shutil.copytree(
        competition.trained / "cifar10" / "cifar10_lo" / "train", folder / "cifar10_lo" / "train"
    )
    with pytest.raises(ValueError, match="metadata.json tells .*, which is not disclosed: this is"):
        publish(add_sums(folder), "team/leak", endpoint=hub.url)
    assert not hub.log


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (f"{DEV}/solution.csv", "solution.csv is withheld in phase dev: this is not a release"),
        (f"{DEV}/seed_membership", "seed_membership is withheld in phase dev"),
        (f"{DEV}/seed_training", "seed_training is withheld in phase dev"),
        (f"{DEV}/prediction.csv", "prediction.csv is not part of a release: remove it"),
        ("README.md", "README.md is not part of a release"),
        ("release.json", "release.json is not part of a release"),
        (f"{DEV}/.DS_Store", ".DS_Store is not part of a release"),
        (f"{DEV}/deep/solution.csv", "is not part of a release"),
        ("cifar10_lo/model_100/solution.csv", "is not part of a release"),
        ("solution.csv", "is not part of a release"),
        ("purchase100_lo/train/model_0/model.pt", "is not part of a release"),
    ],
)
def test_no_other_file_goes_up(hub, release, path, message):
    (release / path).parent.mkdir(parents=True, exist_ok=True)
    (release / path).write_text("secret")
    with pytest.raises(ValueError, match=message) as caught:
        publish(add_sums(release), "team/leak", endpoint=hub.url)
    assert "secret" not in str(caught.value)
    assert not hub.log


def test_links_do_not_go_up(hub, release, tmp_path):
    (tmp_path / "secret").mkdir()
    (release / "cifar10_lo/dev/model_101").symlink_to(tmp_path / "secret")
    with pytest.raises(ValueError, match="There is no model.pt|not part of a release"):
        publish(release, "team/leak", endpoint=hub.url)
    (release / "cifar10_lo/dev/model_101").unlink()
    (release / DEV / "seed_challenge").unlink()
    (release / DEV / "seed_challenge").symlink_to("/etc/hostname")
    with pytest.raises(ValueError, match="seed_challenge is not part of a release"):
        publish(release, "team/leak", endpoint=hub.url)
    assert not hub.log


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda d: (d / DEV / "model.pt").write_bytes(b"other"), "model.pt does not match its ch"),
        (lambda d: (d / DEV / "model.pt").unlink(), "There is no model.pt in .*model_100: run"),
        (lambda d: (d / DEV / "metadata.json").unlink(), "has another privacy than release"),
        (
            lambda d: beside(d, "release.json").write_text("{}"),
            "release.json is not what this",
        ),
        (
            lambda d: beside(d, "release.json").unlink(),
            "There is no file .*release.json: name",
        ),
        (lambda d: beside(d, "notes.txt").write_text("1"), "notes.txt is not part of the release"),
        (lambda d: beside(d, "SHA256SUMS").unlink(), "There is no file .*SHA256SUMS: name a chall"),
        (
            lambda d: beside(d, "SHA256SUMS").write_text("no"),
            "Line 1 of .*SHA256SUMS is not a checks",
        ),
        (lambda d: beside(d, "SHA256SUMS").write_text(""), "SHA256SUMS lists no files, so nothing"),
        (lambda d: beside(d, "commitments.json").unlink(), "There is no file .*commitments.json"),
        (
            shutil.rmtree,
            "There is no challenge folder .*name the challenge's folder that `mico rel",
        ),
    ],
)
def test_a_release_that_is_not_whole_stays_at_home(hub, release, break_it, message):
    break_it(release)
    with pytest.raises(ValueError, match=message) as caught:
        publish(release, "team/half", endpoint=hub.url)
    assert "\n" not in str(caught.value)
    assert not hub.log


@pytest.mark.slow
def test_no_token_and_no_right(hub, release, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(HubError, match=r"\(status 401\): the Hub does not accept your token; `hf"):
        publish(release, "team/new", endpoint=hub.url)
    hub.add("team/theirs", {})
    command = ("publish", release, "team/theirs")
    code, _, err = run_mico(hub.url, tmp_path, *command, HF_TOKEN="hf_wrong")
    assert code == 1
    assert err == (
        "mico: The Hub refused team/theirs (status 403): your token may not do this; "
        "`hf auth login` with one that may write to it.\n"
    )
    assert set(hub.repositories["team/theirs"].files) == {".gitattributes"}


@pytest.mark.slow
def test_no_network(hub, release, tmp_path):
    with pytest.raises(HubError, match="Could not reach team/new at http://127.0.0.1:9"):
        publish(release, "team/new", endpoint="http://127.0.0.1:9")
    code, _, err = run_mico(hub.url, tmp_path, "publish", release, "team/new", HF_HUB_OFFLINE="1")
    assert code == 1
    assert err == "mico: Could not reach team/new: HF_HUB_OFFLINE is set; unset it and run again.\n"


def test_a_repository_of_something_else_is_left_alone(hub, release):
    hub.add("team/other", {"data.csv": b"1"})
    with pytest.raises(HubError, match="holds data.csv, which is not of this release: choose"):
        publish(release, "team/other", endpoint=hub.url)
    assert not uploads(hub)


def test_private_stays_private(hub, release):
    publish(release, "team/hidden", private=True, endpoint=hub.url)
    assert hub.repositories["team/hidden"].private
    hub.add("team/open", {})
    hub.log.clear()
    with pytest.raises(HubError, match="team/open is there and public: make it private first"):
        publish(release, "team/open", private=True, endpoint=hub.url)
    assert not uploads(hub)
