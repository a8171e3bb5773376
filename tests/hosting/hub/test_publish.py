"""`mico publish` against a Hub of our own: all of a release goes up, and nothing but a release."""

import csv
import json
import shutil

import pytest
import yaml
from helpers_hub import Fault, add_sums, made_up, published, run_mico
from helpers_release import files_below

from mico_competition.cli import main
from mico_competition.competition.table import CHALLENGES
from mico_competition.hosting.hub.client import HubError
from mico_competition.hosting.hub.dataset_card import INDEX_COLUMNS, card_text
from mico_competition.hosting.hub.download import fetch, plan_download
from mico_competition.hosting.hub.publish import pages, publish
from mico_competition.hosting.hub.released import check_publishable, facts_of

SCENARIOS = ("cifar10_inf", "cifar10_lo")
PHASES = (("train", 0), ("train", 1), ("dev", 100), ("final", 150))
PLACES = [f"{scenario}/{phase}/model_{i}" for scenario in SCENARIOS for phase, i in PHASES]
DEV = "cifar10_lo/dev/model_100"


# The client's own upload to storage other than Xet's, which no small server speaks.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture
def release(tmp_path):
    """A made-up release of eight models."""
    folder = tmp_path / "released" / "cifar10"
    for path, content in made_up(*PLACES).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    for place in PLACES:
        privacy = {"epsilon": 3.9876, "delta": 1e-5} if "_lo" in place else None
        text = json.dumps({"format": 1, "privacy": privacy, "len_dataset": 60_000})
        (folder / place / "metadata.json").write_text(text)
    (folder.parent / "cifar10.release").mkdir()
    committed = {place: "0" * 64 for place in PLACES if "/train/" not in place}
    value = {"format": 1, "challenge": "cifar10", "commitments": committed}
    (folder.parent / "cifar10.release/commitments.json").write_text(json.dumps(value))
    return write_release_json(folder)


def write_release_json(folder, **accuracy):
    """release.json as `mico release` writes it, and the checksums anew."""
    scenarios = {
        name: {
            "phases": {"train": 2, "dev": 1, "final": 1},
            "privacy": {"epsilon": 3.9876, "delta": 1e-5} if "_lo" in name else None,
            "accuracy": accuracy.get(name),
            "len_dataset": 60_000,
            "len_training": 50_000,
            "len_challenge": 100,
        }
        for name in SCENARIOS
    }
    value = {"format": 2, "challenge": "cifar10", "revealed": [], "scenarios": scenarios}
    (folder.parent / "cifar10.release/release.json").write_text(json.dumps(value))
    return add_sums(folder)


def beside(folder, name):
    """A file in what lies beside a challenge folder."""
    return folder.parent / f"{folder.name}.release" / name


def uploads(hub):
    """Requests that sent content: to the storage, or in commits."""
    return [r for r in hub.log if r.method == "PUT" or "/commit/" in r.path]


def card_of(hub, repo):
    """The page's front matter and its text."""
    text = hub.repositories[repo].files["README.md"].decode()
    _, head, body = text.split("---\n", 2)
    return yaml.safe_load(head), body


@pytest.mark.slow
@pytest.mark.parametrize("challenge", ["purchase100", "sst2"])
def test_published_and_downloaded_a_release_is_the_same(hub, competition, tmp_path, challenge):
    folder = tmp_path / "up" / challenge
    for name in (challenge, f"{challenge}.release"):
        shutil.copytree(competition.released / name, folder.with_name(name))
    before, all_files = published(folder), files_below(folder.parent)
    code, out, err = run_mico(hub.url, tmp_path / "home", "publish", folder, "team/again")
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
    assert {path for path in extra if not path.startswith("index/")} == {
        "README.md",
        ".gitattributes",
    }


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


def test_all_of_it_goes_up_and_what_describes_it_last(hub, release):
    said = []
    address = publish(release, "team/new", endpoint=hub.url, say=said.append)
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
    assert commits == ["Add the release, part 1 of 2", "Add the release, part 2 of 2"]
    for request in hub.log:
        if request.method == "POST":
            assert str(tmp_path).encode() not in request.body
    copy = shutil.copytree(release, tmp_path / "b" / "cifar10")
    shutil.copytree(release.parent / "cifar10.release", tmp_path / "b" / "cifar10.release")
    first, second = (pages(check_publishable(d), "team/new", "mit") for d in (release, copy))
    assert first == second


def test_a_second_run_sends_nothing(hub, release):
    publish(release, "team/new", endpoint=hub.url)
    hub.log.clear()
    said = []
    publish(release, "team/new", endpoint=hub.url, say=said.append)
    assert not uploads(hub) and len(hub.log) == 3
    assert said[0].startswith("Publishing 8 models, 46 files") and "0.0 MB are there" in said[0]


@pytest.mark.slow
@pytest.mark.parametrize("where", ["storage", "first commit", "last commit"])
def test_an_interrupted_upload_resumes(hub, release, monkeypatch, where):
    monkeypatch.setattr("mico_competition.hosting.hub.publish._FILES_A_COMMIT", 10)
    monkeypatch.setattr("mico_competition.hosting.hub.publish._BYTES_AT_ONCE", 1500)
    if where == "storage":
        hub.faults["store"] = Fault(status=403)
    commit = hub.commit_allowed = {"storage": 99, "first commit": 0, "last commit": 3}[where]
    with pytest.raises(HubError, match=r"refused team/new \(status (403|500)\): "):
        publish(release, "team/new", endpoint=hub.url)
    repository = hub.repositories["team/new"]
    assert "README.md" not in repository.files
    assert "cifar10.release/SHA256SUMS" not in repository.files
    stored = {r.path for r in hub.log if r.method == "PUT"} if commit != 99 else set()
    hub.faults.clear()
    hub.log.clear()
    hub.commit_allowed = 99
    publish(release, "team/new", endpoint=hub.url)
    assert not stored & {r.path for r in hub.log if r.method == "PUT"}
    assert repository.files.items() >= published(release).items()
    assert "README.md" in repository.files


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


@pytest.mark.slow
def test_a_dry_run_shows_the_page_and_sends_nothing(hub, release, tmp_path):
    flags = ("--licence", "cc-by-4.0", "--dry_run")
    code, out, err = run_mico(hub.url, tmp_path, "publish", release, "team/new", *flags)
    assert (code, err) == (0, "")
    assert "license: cc-by-4.0" in out and "| cifar10_lo | 3.988 | 1e-05 | not stated" in out
    assert "8 models can be published; nothing was sent" in out
    assert not hub.log


def test_the_page_states_accuracy_and_epsilon(hub, release):
    write_release_json(release, cifar10_lo=0.51234)
    publish(release, "team/new", endpoint=hub.url)
    head, body = card_of(hub, "team/new")
    assert head["license"] == "mit" and "membership-inference" in head["tags"]
    assert head["configs"] == [
        {
            "config_name": name,
            "data_files": [
                {"split": phase, "path": f"index/{name}/{phase}.csv"}
                for phase in ("train", "dev", "final")
            ],
        }
        for name in SCENARIOS
    ]
    assert "| cifar10_inf | no privacy |  | not stated | 2 | 1 | 1 |" in body
    assert "| cifar10_lo | 3.988 | 1e-05 | 0.5123 | 2 | 1 | 1 |" in body
    assert "| cifar10_lo | dev | `model.pt`, `seed_challenge`, `metadata.json` |" in body
    assert "is trained on 50,000" in body
    assert "mico download cifar10 --repo team/new --scenario cifar10_inf --models 0" in body
    assert 'folder = "cifar10/cifar10_inf/train/model_0"' in body
    assert max(map(len, body.splitlines())) < 130


@pytest.mark.slow
def test_the_commands_of_the_page_work(hub, release, tmp_path):
    from mico_competition.cli import build_parser

    publish(release, "team/new", endpoint=hub.url)
    _, body = card_of(hub, "team/new")
    commands = [line for line in body.splitlines() if line.startswith("mico ")]
    assert len(commands) == 2
    for command in commands:
        args = build_parser().parse_args(command.partition("#")[0].split()[1:])
        plan = plan_download(
            args.challenge,
            tmp_path / "down",
            scenarios=args.scenario or (),
            models=args.models or (),
            repo=args.repo,
            endpoint=hub.url,
        )
        assert fetch(plan) in (8, 0)


def test_a_page_of_the_organisers_own_is_kept(hub, release, tmp_path):
    (tmp_path / "page.md").write_text("---\nlicense: mit\n---\nOurs.\n")
    publish(release, "team/new", page=tmp_path / "page.md", endpoint=hub.url)
    assert card_of(hub, "team/new") == ({"license": "mit"}, "Ours.\n")


def test_whom_to_cite(release, tmp_path):
    def closing(challenge, **options):
        facts = facts_of(check_publishable(release))
        place = "cifar10_inf/train/model_0"
        text = card_text(challenge, "team/new", "mit", facts, place, **options)
        return text.partition("## Licence and citation")[2]

    assert "mico2022" in closing("cifar10") and "mico2022" in closing("ddp")
    for challenge in ("digits", "baskets"):
        assert "@misc" not in closing(challenge)
        assert "by its address, https://huggingface.co/datasets/team/new." in closing(challenge)
    (tmp_path / "own.bib").write_text("@misc{ours,\n  year = {2027}\n}\n")
    checked = check_publishable(release)
    page = pages(checked, "team/new", "mit", citation=tmp_path / "own.bib")["README.md"]
    assert "```bibtex\n@misc{ours,\n  year = {2027}\n}\n```" in page and "mico2022" not in page
    with pytest.raises(ValueError, match="--citation is for the page"):
        pages(checked, "team/new", "mit", tmp_path / "page.md", tmp_path / "own.bib")


def test_the_index_lists_models_and_nothing_withheld(hub, competition, tmp_path):
    folder = competition.released / "ddp"
    texts = pages(check_publishable(folder), "team/new", "mit")
    assert len(texts) == 1 + 3 * 3
    rows = list(csv.DictReader(texts["index/sst2_ddp/train.csv"].splitlines()))
    assert tuple(rows[0]) == INDEX_COLUMNS
    assert [row["model_id"] for row in rows] == ["0", "1"]
    weights = folder.parent / rows[0]["weights"]
    assert weights.name == "model.safetensors" and weights.stat().st_size == int(rows[0]["bytes"])
    assert rows[0]["sha256"] in beside(folder, "SHA256SUMS").read_text()
    for path, content in files_below(competition.trained / "ddp").items():
        if path.split("/")[-1] in ("seed_membership", "solution.csv"):
            assert not any(content.decode().strip() in text for text in texts.values())


def test_the_viewers_library_loads_every_table(hub, release, tmp_path):
    datasets = pytest.importorskip("datasets")
    for path, text in pages(check_publishable(release), "team/new", "mit").items():
        (tmp_path / "page" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "page" / path).write_text(text)
    assert datasets.get_dataset_config_names(str(tmp_path / "page")) == list(SCENARIOS)
    for name, epsilon in (("cifar10_inf", float("inf")), ("cifar10_lo", 3.9876)):
        loaded = datasets.load_dataset(
            str(tmp_path / "page"), name, cache_dir=str(tmp_path / "cache")
        )
        assert {split: len(rows) for split, rows in loaded.items()} == {
            "train": 2,
            "dev": 1,
            "final": 1,
        }
        assert loaded["dev"][0]["model_id"] == 100
        assert loaded["train"]["epsilon"][:] == [epsilon] * 2
