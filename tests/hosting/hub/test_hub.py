"""`mico download` against a Hub of our own: whole, checked, or not at all; faults in a sentence."""

import os
import shutil
import signal
import subprocess
import sys

import pytest
from helpers_hub import (
    Fault,
    made_up,
    run_mico,
    start_mico,
)
from helpers_release import files_below

from mico_competition.hosting.hub import download as hub_module
from mico_competition.hosting.hub.client import HubError, WrongFileError, checksum_of
from mico_competition.hosting.hub.download import fetch, plan_download

MB = 1 << 20
PLACES = [
    f"cifar10_{kind}/{phase}/model_{i}"
    for kind in ("inf", "lo")
    for phase, i in (("train", 0), ("train", 1), ("dev", 100), ("final", 150))
]
FIRST = "cifar10_inf/train/model_0"


@pytest.fixture
def hub(hub):
    """A Hub whose repository `team/small` holds eight models."""
    hub.add("team/small", {"README.md": b"page", "index/a.csv": b"a", **made_up(*PLACES)})
    return hub


def get(hub, to, *, repo="team/small", **choice):
    """Plan and fetch; gives the number of models fetched."""
    plan = plan_download("cifar10", to, repo=repo, endpoint=hub.url, **choice)
    return fetch(plan)


def asked_for_files(hub):
    return [r for r in hub.log if "/resolve/" in r.path]


def test_a_challenge_is_fetched_whole(hub, tmp_path, capsys):
    plan = plan_download("cifar10", tmp_path, repo="team/small", endpoint=hub.url)
    assert plan.sentence() == (
        f"Fetching 8 models, 28 files, 0.0 MB into {tmp_path}/cifar10; 0.0 MB are there already"
    )
    assert not asked_for_files(hub) and not list(tmp_path.iterdir())
    assert fetch(plan) == 8
    assert files_below(tmp_path) == {f"cifar10/{p}": c for p, c in made_up(*PLACES).items()}
    assert [path.name for path in tmp_path.iterdir()] == ["cifar10"]
    assert capsys.readouterr() == ("", "")


def test_few_requests_and_the_token_for_the_hub_alone(hub, tmp_path):
    get(hub, tmp_path)
    listing = [r.path.split("/")[-2] for r in hub.log if r.path.startswith("/api/")]
    assert listing == ["team", "tree"]
    assert len(asked_for_files(hub)) == 28
    assert {r.method for r in hub.log} == {"GET"}
    assert {(r.path.startswith("/cdn/"), r.token) for r in hub.log} == {
        (True, False),
        (False, True),
    }


def test_a_listing_of_many_pages(hub, tmp_path):
    hub.page_size = 7
    assert get(hub, tmp_path) == 8


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({"scenarios": ["cifar10_lo"]}, {p for p in PLACES if "_lo" in p}),
        ({"phases": ["dev", "final"]}, {p for p in PLACES if "train" not in p}),
        ({"models": [1, 150]}, {p for p in PLACES if p.endswith(("_1", "_150"))}),
        ({"scenarios": ["cifar10_inf"], "models": [0]}, {FIRST}),
    ],
)
def test_only_what_is_asked_for_is_fetched(hub, tmp_path, choice, expected):
    assert get(hub, tmp_path, **choice) == len(expected)
    assert {"/".join(p.split("/")[1:4]) for p in files_below(tmp_path)} == expected
    assert len(asked_for_files(hub)) == len(made_up(*expected))


@pytest.mark.parametrize("nested", [False, True])
def test_a_released_challenge_is_laid_out_the_same_nested_or_not(
    hub, tmp_path, competition, nested
):
    top = files_below(competition.released / "sst2")
    hub.add("szanella/MICO-SST2", {f"sst2/{p}" if nested else p: c for p, c in top.items()})
    assert fetch(plan_download("sst2", tmp_path, endpoint=hub.url)) == 12
    assert files_below(tmp_path / "sst2") == top


def test_of_alternative_weights_the_first_is_fetched(hub, tmp_path):
    place = "sst2_lo/dev/model_100"
    names = ("config.json", "pytorch_model.bin", "model.safetensors", "seed_challenge")
    hub.add("team/text", {f"{place}/{name}": name.encode() for name in names})
    fetch(plan_download("sst2", tmp_path, repo="team/text", endpoint=hub.url))
    found = {path.split("/")[-1] for path in files_below(tmp_path)}
    assert found == set(names) - {"pytorch_model.bin"}


def test_names_that_lead_elsewhere_are_passed_over(hub, tmp_path):
    strange = (
        "../../evil",
        "/abs",
        "cifar10_inf/train/model_0/../../../../evil",
        "cifar10_inf/train/model_07/model.pt",
        "cifar10_inf/train/model_0/.bashrc",
        "cifar10_inf/../model_0/model.pt",
        "cifar10_inf/test/model_0/model.pt",
        "cifar10_inf/train/model_0/deep/model.pt",
        "purchase100_inf/train/model_0/model.pt",
        "cifar10/cifar10/cifar10_inf/train/model_1/model.pt",
    )
    hub.add("team/bad", {**made_up(FIRST), **dict.fromkeys(strange, b"evil")})
    assert get(hub, tmp_path / "a" / "b", repo="team/bad") == 1
    assert set(files_below(tmp_path)) == {f"a/b/cifar10/{p}" for p in made_up(FIRST)}


def test_what_is_there_is_checked_and_not_fetched_again(hub, tmp_path):
    get(hub, tmp_path, scenarios=["cifar10_inf"])
    (tmp_path / "cifar10" / FIRST / "prediction.csv").write_text("0.5")
    hub.log.clear()
    plan = plan_download("cifar10", tmp_path, repo="team/small", endpoint=hub.url)
    assert (len(plan.models), len(plan.missing)) == (8, 4)
    assert fetch(plan) == 4
    assert all("cifar10_lo" in r.path for r in asked_for_files(hub))
    hub.log.clear()
    assert get(hub, tmp_path) == 0
    assert not asked_for_files(hub)


@pytest.mark.parametrize("change", ["other", "folder"])
def test_another_model_in_place_is_never_overwritten(hub, tmp_path, change):
    get(hub, tmp_path, models=[0])
    path = tmp_path / "cifar10" / FIRST / "solution.csv"
    path.unlink()
    path.write_text("mine") if change == "other" else path.mkdir()
    hub.log.clear()
    with pytest.raises((HubError, IsADirectoryError)):
        get(hub, tmp_path)
    assert not asked_for_files(hub)
    assert path.is_dir() or path.read_text() == "mine"


def test_a_file_that_was_published_since_is_fetched_alone(hub, tmp_path):
    """As labels are, when a phase is over."""
    get(hub, tmp_path)
    path = tmp_path / "cifar10" / FIRST / "solution.csv"
    content = path.read_bytes()
    path.unlink()
    (path.parent / "prediction.csv").write_text("0.5")
    hub.log.clear()
    assert get(hub, tmp_path) == 1
    assert [r.path.split("/")[-1] for r in asked_for_files(hub) if "/cdn/" not in r.path] == [
        "solution.csv"
    ]
    assert path.read_bytes() == content and (path.parent / "prediction.csv").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["cifar10"]


def test_the_releases_own_files_come_last_and_are_held_to(hub, tmp_path):
    models = {f"cifar10/{path}": content for path, content in made_up(FIRST).items()}
    side = {"SHA256SUMS": b"1", "release.json": b"{}", "commitments.json": b"3", "other": b""}

    def add(**changes):
        files = {**side, **{k.replace("_", "."): v for k, v in changes.items()}}
        hub.add("team/sums", models | {f"cifar10.release/{k}": v for k, v in files.items()})

    add()
    get(hub, tmp_path, repo="team/sums")
    assert {r.path.split("/")[-1] for r in asked_for_files(hub)[-3:]} == side.keys() - {"other"}
    kept = tmp_path / "cifar10.release" / "SHA256SUMS"
    assert kept.read_bytes() == b"1"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cifar10", "cifar10.release"]
    assert [path.name for path in (tmp_path / "cifar10").iterdir()] == ["cifar10_inf"]
    add(SHA256SUMS=b"2")  # the same commitments: labels were added
    get(hub, tmp_path, repo="team/sums")
    assert kept.read_bytes() == b"2"
    add(SHA256SUMS=b"1", commitments_json=b"4")
    with pytest.raises(HubError, match="is of another release than team/sums: choose another --to"):
        get(hub, tmp_path, repo="team/sums")
    assert kept.read_bytes() == b"2"


@pytest.mark.parametrize("nested", [False, True])
def test_a_release_of_an_earlier_layout_is_laid_out_as_today(hub, tmp_path, nested):
    """Its checksums name files by other paths, and are left."""
    files = {**made_up(FIRST), "SHA256SUMS": b"1", "release.json": b"{}", "commitments.json": b"3"}
    hub.add("team/old", {f"cifar10/{p}" if nested else p: c for p, c in files.items()})
    get(hub, tmp_path, repo="team/old")
    found = files_below(tmp_path)
    side = {p for p in found if not p.startswith("cifar10/cifar10_inf/")}
    assert side == {"cifar10.release/release.json", "cifar10.release/commitments.json"}


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
        while sum(len(c) for c in files_below(staging).values()) < 3 * MB:
            assert process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert not (tmp_path / "to" / "cifar10").exists()
    code, out, err = run_mico(hub.url, tmp_path / "home", *command)
    assert (code, err) == (0, "")
    assert "Fetching 1 models, 5 files, 4.2 MB" in out and "3.1 MB are there already" in out
    assert f"Fetched 1 models: 1 in {tmp_path}/to/cifar10 are checked" in out
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
    assert process.returncode == 130
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
    with pytest.raises(HubError, match=f"lacks solution.csv of {FIRST} and 1 files more"):
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


@pytest.mark.slow
def test_the_command_line(hub, tmp_path, capsys):
    from mico_competition.cli import main

    command = ("download", "cifar10", "--repo", "team/small", "--to", tmp_path / "to")
    choice = ("--scenario", "cifar10_lo", "--phase", "dev", "--phase", "final", "--models", "100")
    code, out, err = run_mico(hub.url, tmp_path, *command, *choice[:4], "--dry_run")
    assert (code, err) == (0, "")
    assert out.startswith("Fetching 1 models, 2 files, 0.0 MB into ")
    assert not (tmp_path / "to").exists()
    code, _, err = run_mico(hub.url, tmp_path, *command, *choice)
    assert (code, err) == (0, "")
    assert set(files_below(tmp_path / "to")) == {
        f"cifar10/cifar10_lo/dev/model_100/{name}" for name in ("model.pt", "seed_challenge")
    }
    assert main(["download", "digits"]) == 1
    assert "digits was not published in 2022: name its repository" in capsys.readouterr().err
    for ids in ("3-0", "a", "", "1,,2", "0-9-10", "-1"):
        with pytest.raises(SystemExit):
            main(["download", "cifar10", f"--models={ids}"])
        assert f"expected a number or a range such as 0-99, got {ids!r}" in capsys.readouterr().err


def test_a_missing_client_is_named_with_the_line_that_installs_it(monkeypatch, capsys):
    from mico_competition.cli import main

    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert main(["download", "cifar10"]) == 1
    assert capsys.readouterr().err.startswith("mico: huggingface_hub is not installed: `pip inst")


def test_lists_of_ids():
    from mico_competition.support.command_line import model_ids

    assert model_ids("7") == [7]
    assert model_ids("100,0-3, 2") == [0, 1, 2, 3, 100]


def test_checksums_are_gits_and_sha256(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"what is up, doc?")  # the example in "Pro Git", chapter 10.2
    assert checksum_of(path, 40) == "bd9dbf5aae1a3862dd1526723246b20206e5fc37"
    finished = subprocess.run(["sha256sum", path], capture_output=True, text=True, check=True)
    assert checksum_of(path) == finished.stdout.split()[0]
