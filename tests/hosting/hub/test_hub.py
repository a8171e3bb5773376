"""`mico download` against a Hub of our own: all of a challenge or a part, checked."""

import subprocess
import sys

import pytest
from helpers_download import FIRST, PLACES, asked_for_files, get, with_small
from helpers_hub import made_up, run_mico
from helpers_release import files_below

from mico_competition.hosting.hub.client import HubError, checksum_of
from mico_competition.hosting.hub.download import fetch, plan_download


@pytest.fixture
def hub(hub):
    return with_small(hub)


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


@pytest.mark.slow
def test_the_command_line(hub, tmp_path, capsys):
    from mico_competition.cli import main

    command = ("download", "cifar10", "--repo", "team/small", "--to", tmp_path / "to")
    choice = ("--scenario", "cifar10_lo", "--phase", "dev", "--phase", "final", "--models", "100")
    code, out, err = run_mico(hub.url, tmp_path, *command, *choice[:4], "--dry_run")
    assert (code, err) == (0, "")
    assert out.startswith("Fetching 1 model, 2 files, 0.0 MB into ")
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
