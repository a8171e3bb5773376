"""The page and the tables of a published release."""

import csv

import pytest
from helpers_hub import run_mico
from helpers_publish import SCENARIOS, beside, card_of, write_release_json
from helpers_release import files_below

from mico_competition.hosting.hub.contents import pages
from mico_competition.hosting.hub.dataset_card import INDEX_COLUMNS, card_text
from mico_competition.hosting.hub.download import fetch, plan_download
from mico_competition.hosting.hub.publish import publish
from mico_competition.hosting.hub.released import check_publishable, facts_of

# The client's own upload to storage other than Xet's, which no small server speaks.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.mark.slow
def test_a_dry_run_shows_the_page_and_sends_nothing(hub, release, tmp_path):
    flags = ("--licence", "cc-by-4.0", "--form", "files", "--dry_run")
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
