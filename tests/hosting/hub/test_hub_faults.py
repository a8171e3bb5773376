"""`mico download` where something goes wrong: it resumes, or says in a sentence what to do."""

import os
import shutil
import signal

import pytest
from helpers_download import FIRST, MB, PLACES, asked_for_files, get, with_small
from helpers_hub import Fault, made_up, run_mico, start_mico
from helpers_release import files_below, size_below

from mico_competition.hosting.hub import download as hub_module
from mico_competition.hosting.hub.client import HubError, WrongFileError
from mico_competition.hosting.hub.download import fetch, plan_download


@pytest.fixture
def hub(hub):
    return with_small(hub)


def test_a_broken_transfer_goes_on_by_itself(hub, tmp_path):
    hub.add("team/big", made_up(FIRST, size=3 * MB))
    hub.faults[f"{FIRST}/model.pt"] = Fault(breaks=MB + 1000, times=2)
    assert get(hub, tmp_path, repo="team/big") == 1
    assert [r.start for r in hub.asked("model.pt") if "/cdn/" in r.path] == [None, MB, 2 * MB]
    assert files_below(tmp_path / "cifar10") == made_up(FIRST, size=3 * MB)


def test_an_interrupted_fetch_resumes_where_it_stopped(hub, tmp_path):
    hub.add("team/big", made_up(*PLACES[:4], size=3 * MB))
    weights = f"{PLACES[1]}/model.pt"
    hub.faults[weights] = Fault(breaks=2 * MB + 1000, times=1)
    # The transfer breaks off, and the client, which goes on by itself, is refused.
    original = hub.fault_of

    def fault_of(path):
        broken = hub.faults[weights].times == 0
        return Fault(status=503) if path == weights and broken else original(path)

    hub.fault_of = fault_of
    with pytest.raises(HubError, match=r"refused team/big \(status 503\): try again later"):
        get(hub, tmp_path, repo="team/big")
    assert not (tmp_path / "cifar10" / PLACES[1]).exists()
    for place in PLACES[:4]:  # the others are whole, or not there
        folder = tmp_path / "cifar10" / place
        assert not folder.exists() or files_below(folder).keys() >= {"model.pt", "seed_challenge"}
    hub.fault_of = original
    hub.log.clear()
    plan = plan_download("cifar10", tmp_path, repo="team/big", endpoint=hub.url)
    assert plan.bytes_there >= 2 * MB
    fetch(plan)
    (again,) = [r for r in hub.asked(weights) if "/cdn/" in r.path]
    assert (again.start, again.sent) == (2 * MB, MB)
    assert files_below(tmp_path / "cifar10") == made_up(*PLACES[:4], size=3 * MB)
    assert not (tmp_path / ".cifar10.download").exists()


@pytest.mark.slow
def test_a_killed_download_resumes(hub, tmp_path):
    hub.add("team/big", made_up(FIRST, size=4 * MB))
    hub.faults[f"{FIRST}/model.pt"] = Fault(breaks=3 * MB, stalls=True, times=1)
    command = ("download", "cifar10", "--repo", "team/big", "--to", tmp_path / "to")
    with start_mico(hub.url, tmp_path / "home", *command) as process:
        assert hub.stalled.wait(30)
        staging = tmp_path / "to" / ".cifar10.download"
        while size_below(staging) < 3 * MB:
            assert process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert not (tmp_path / "to" / "cifar10").exists()
    code, out, err = run_mico(hub.url, tmp_path / "home", *command)
    assert (code, err) == (0, "")
    assert "Fetching 1 model, 5 files, 4.2 MB" in out and "3.1 MB are there already" in out
    assert f"Fetched 1 model; checked models in {tmp_path}/to/cifar10: 1" in out
    assert [r.start for r in hub.asked("model.pt") if "/cdn/" in r.path] == [None, 3 * MB]
    assert files_below(tmp_path / "to" / "cifar10") == made_up(FIRST, size=4 * MB)


@pytest.mark.slow
def test_ctrl_c_leaves_nothing_half_written(hub, tmp_path):
    hub.add("team/big", made_up(*PLACES, size=3 * MB))
    hub.faults[f"{FIRST}/model.pt"] = Fault(breaks=2 * MB, stalls=True, times=1)
    command = ("download", "cifar10", "--repo", "team/big", "--to", tmp_path)
    settings = {"HF_HUB_DOWNLOAD_TIMEOUT": "1"}
    with start_mico(hub.url, tmp_path / "home", *command, **settings) as process:
        assert hub.stalled.wait(30)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=600)
    assert process.returncode in (130, -signal.SIGINT)
    assert err == "mico: stopped; nothing half-written was kept.\n"
    assert not (tmp_path / "cifar10" / FIRST).exists()


def test_what_an_earlier_revision_left_is_not_taken(hub, tmp_path):
    staged = tmp_path / ".cifar10.download" / FIRST
    staged.mkdir(parents=True)
    for name in ("model.pt", "model.pt.0123456789abcdef.part", "solution.csv", "old"):
        (staged / name).write_bytes(b"x" * 1000)
    assert get(hub, tmp_path, models=[0], scenarios=["cifar10_inf"]) == 1
    assert files_below(tmp_path / "cifar10") == made_up(FIRST)


@pytest.mark.parametrize("name", ["model.pt", "seed_training"])
def test_a_wrong_checksum_leaves_the_model_out_and_the_others_in(hub, tmp_path, name):
    hub.faults[f"{FIRST}/{name}"] = Fault(wrong=True)
    with pytest.raises(WrongFileError, match="has not the checksum.*it was deleted; run again"):
        get(hub, tmp_path)
    found = {"/".join(p.split("/")[:3]) for p in files_below(tmp_path / "cifar10")}
    assert found == set(PLACES) - {FIRST}
    assert not [p for p in files_below(tmp_path / ".cifar10.download") if name in p]
    hub.faults.clear()
    hub.log.clear()
    assert get(hub, tmp_path) == 1
    assert len(asked_for_files(hub)) <= 5


@pytest.mark.parametrize("part", [0, 500])
@pytest.mark.parametrize("content", [b"", b"short", b"0123456789" * 1000])
def test_a_file_that_is_too_short_or_too_long(hub, tmp_path, part, content):
    plan = plan_download("cifar10", tmp_path, repo="team/small", models=[0], endpoint=hub.url)
    place = plan.staging / FIRST / "model.pt"
    place.parent.mkdir(parents=True)
    weights = plan.models[0].files["model.pt"]
    weights.part(place).write_bytes(made_up(FIRST)[f"{FIRST}/model.pt"][:part])
    hub.faults[weights.path] = Fault(instead=content)
    with pytest.raises(WrongFileError, match="model.pt has not the checksum"):
        fetch(plan)
    assert not (tmp_path / "cifar10" / FIRST).exists()
    assert not weights.part(place).exists()
    hub.faults.clear()
    assert get(hub, tmp_path) == 7
    assert files_below(tmp_path / "cifar10") == made_up(*PLACES)


def test_a_file_that_is_listed_but_not_there(hub, tmp_path):
    hub.faults[f"{FIRST}/solution.csv"] = Fault(status=404)
    with pytest.raises(WrongFileError, match=f"lists {FIRST}/solution.csv but does not hold it"):
        get(hub, tmp_path)
    assert not (tmp_path / "cifar10" / FIRST).exists()
    assert (tmp_path / "cifar10" / PLACES[1]).exists()


def test_a_model_that_lacks_files_is_found_before_anything_is_fetched(hub, tmp_path):
    repository = hub.repositories["team/small"]
    del repository.files[f"{FIRST}/solution.csv"]
    with pytest.raises(HubError, match=f"team/small lacks solution.csv of {FIRST}: tell its owner"):
        get(hub, tmp_path)
    del repository.files[f"{PLACES[1]}/model.pt"]
    with pytest.raises(HubError, match=f"lacks solution.csv of {FIRST} and 1 more file"):
        get(hub, tmp_path)
    assert not asked_for_files(hub)
    assert get(hub, tmp_path, phases=["dev", "final"]) == 4


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"scenarios": ["cifar10_hi"]}, "holds no cifar10_hi: it has cifar10_inf, cifar10_lo"),
        ({"models": [0, 7]}, "holds no model_7 of cifar10_inf: choose others with --models"),
        ({"models": [0], "phases": ["dev"]}, "holds no model_0 of cifar10_inf/dev"),
        ({"revision": "v9"}, "has no revision 'v9': name a branch"),
        ({"scenarios": ["sst2_lo"]}, "sst2_lo is no scenario of cifar10: choose among"),
        ({"phases": ["test"]}, "Unknown phase 'test'"),
        ({"repo": "team/none"}, "no dataset repository team/none, or it is private: check"),
        ({"repo": "small"}, "'small' is not the name of a repository: expected OWNER/NAME"),
        ({"repo": "../../etc"}, "expected OWNER/NAME"),
        ({"repo": "team/empty"}, "team/empty holds no models of cifar10: check --repo"),
    ],
)
def test_a_wish_that_cannot_be_met_is_answered_in_a_sentence(hub, tmp_path, choice, message):
    hub.add("team/empty", {"README.md": b"page"})
    with pytest.raises(ValueError, match=message) as caught:
        get(hub, tmp_path, **choice)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        (403, "GatedRepo", "team/small is gated: ask for access at http://.*/team/small, then `hf"),
        (401, "RepoNotFound", "no dataset repository team/small, or it is private"),
        (401, "", r"refused team/small \(status 401\): the Hub does not accept your token"),
        (403, "", r"\(status 403\): your token may not do this"),
        (429, "", r"\(status 429\): the Hub asks for fewer requests; wait five minutes"),
        (503, "", r"\(status 503\): try again later, it resumes"),
    ],
)
def test_a_refusal_is_answered_in_a_sentence(hub, tmp_path, status, code, message):
    hub.repositories["team/small"].status, hub.repositories["team/small"].code = status, code
    with pytest.raises(HubError, match=message) as caught:
        get(hub, tmp_path)
    assert "\n" not in str(caught.value)


def test_too_many_requests_are_waited_for(hub, tmp_path):
    hub.faults[f"{FIRST}/solution.csv"] = Fault(status=429, times=3)
    assert get(hub, tmp_path) == 8


def test_a_hub_that_falls_silent(hub, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DOWNLOAD_TIMEOUT", 0.1)
    hub.faults[f"{FIRST}/solution.csv"] = Fault(breaks=0, stalls=True)
    with pytest.raises(HubError, match=r"Could not reach team/small at .*Timeout\): check the con"):
        get(hub, tmp_path)
    assert not (tmp_path / "cifar10" / FIRST).exists()


def test_no_network(hub, tmp_path):
    with pytest.raises(HubError, match=r"Could not reach team/small at http://127.0.0.1:9 \(Conn"):
        plan_download("cifar10", tmp_path, repo="team/small", endpoint="http://127.0.0.1:9")


def test_a_server_that_is_no_hub(hub, tmp_path):
    hub.fail_all = 200
    with pytest.raises(HubError, match="is not of the Hub's form .*: check HF_ENDPOINT"):
        get(hub, tmp_path)


def test_offline_by_the_users_own_setting(hub, tmp_path):
    code, out, err = run_mico(hub.url, tmp_path, "download", "cifar10", HF_HUB_OFFLINE="1")
    assert (code, out) == (1, "")
    assert err == (
        "mico: Could not reach szanella/MICO-CIFAR10: HF_HUB_OFFLINE is set; unset it and run "
        "again.\n"
    )
    assert not hub.log


def test_a_disk_without_room(hub, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=5000)
    monkeypatch.setattr(hub_module.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(HubError, match=f"to come, but {tmp_path} has room for 0.0 MB: choose"):
        get(hub, tmp_path / "new" / "folder")
    assert not asked_for_files(hub)
    assert get(hub, tmp_path, models=[0]) == 2  # these have the room


def test_a_disk_that_fills_up(hub, tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(HubError, match="The disk is full: free some and run again; it resumes"):
        get(hub, tmp_path)
    assert not (tmp_path / "cifar10").exists()


def test_two_downloads_into_one_folder(hub, tmp_path):
    from filelock import FileLock

    plan = plan_download("cifar10", tmp_path, repo="team/small", endpoint=hub.url)
    plan.staging.mkdir()
    with (
        FileLock(plan.staging / "lock"),
        pytest.raises(HubError, match="Another download is at work"),
    ):
        fetch(plan)
    assert fetch(plan) == 8
