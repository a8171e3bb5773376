"""docs/ORGANISE.md: the story runs as it is printed, and its secrets stay with the organiser."""

import json
import re
import zipfile

import pytest
from helpers_pages import ROOT
from helpers_story import Shell, faults_of, shows, steps_of

from mico_competition.competition.columns import KINDS

PAGE = (ROOT / "docs" / "ORGANISE.md").read_text(encoding="utf-8")
STEPS = steps_of(PAGE)
SECRETS = ["trained", "bundle.zip", "moved.zip", "final.zip"]  # as the last section says
PUBLIC = ["released/patients", "released/patients.release", "site", "leaderboard"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder in which the whole story ran."""
    folder = tmp_path_factory.mktemp("story")
    shell = Shell(folder)
    try:
        for step in STEPS:
            faults = faults_of(step, shell, folder)
            assert not faults, faults
    finally:
        shell.close()
    return folder


def files_below(path):
    return [p for p in path.rglob("*") if p.is_file()] if path.is_dir() else [path]


def withheld(folder, *phases):
    """Seeds, labels and salts of the models of these phases, as the files spell them."""
    found = set()
    for phase in phases:
        for name in ("seed_training", "seed_membership", "solution.csv"):
            found |= {p.read_text().strip() for p in folder.glob(f"trained/*/*/{phase}/*/{name}")}
        openings = json.loads((folder / "trained/patients/openings.json").read_text())["openings"]
        found |= {opening["salt"] for path, opening in openings.items() if f"/{phase}/" in path}
    return found


def contents(path):
    """What a file holds, and what the members of a zip hold."""
    yield path.read_bytes()
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            yield from (archive.read(name) for name in archive.namelist())


def found_in(secrets, files):
    return [path for path in files if any(s.encode() in c for c in contents(path) for s in secrets)]


@pytest.mark.slow
def test_the_story_runs_as_it_is_printed(folder):
    assert len(list(folder.glob("released/patients/*/*/model_*/model.pt"))) == 40
    entry = json.loads(next(folder.glob("leaderboard/patients/*.json")).read_text())
    assert entry["name"] == "bob"


@pytest.mark.slow
def test_secret_files_are_the_owners_alone(folder):
    for path in (p for name in SECRETS for p in [folder / name, *(folder / name).rglob("*")]):
        assert path.stat().st_mode & 0o077 == 0, path
    for path in (p for name in PUBLIC for p in files_below(folder / name)):
        assert path.stat().st_mode & 0o004, path
    assert not (folder / "trial").exists()


@pytest.mark.slow
def test_participants_see_no_secret(folder):
    secrets = withheld(folder, "dev", "final")
    assert len(secrets) == 2 * 8 * 4  # phases, their models, secrets of a model
    assert found_in(secrets, files_below(folder / "trained"))
    assert not found_in(secrets, files_below(folder / "bob"))
    assert not list(folder.glob("bob/patients/*/dev/*/solution.csv"))
    public = [p for name in PUBLIC for p in files_below(folder / name)]
    assert found_in(withheld(folder, "dev"), public)  # it is over
    assert not found_in(withheld(folder, "final"), public)


def test_the_page_has_the_whole_way():
    assert [step.file for step in STEPS if step.file] == [
        "mine/my_competition.py",
        "mine/competition.toml",
    ]
    commands = [c for step in STEPS if step.file is None for c in step.commands()]
    verbs = {c.split()[1] for c in commands if c.startswith("mico ")}
    assert verbs >= {"init", "tracks", "train", "fleet", "release", "leaks", "verify", "publish"}
    assert verbs >= {"attack", "submit", "bundle", "rehearse", "score-all", "leaderboard", "audit"}
    shown = [step for step in STEPS if step.output is not None]
    assert len(shown) >= 12
    assert sum(len(step.output.replace("...", "").split()) for step in shown) >= 250


def test_the_reference_names_every_column_of_the_file():
    page = (ROOT / "docs" / "reference" / "competition-file.md").read_text(encoding="utf-8")
    for kind, columns in KINDS.items():
        section = page.split(f"## `[{kind}.NAME]`")[1].split("\n## ")[0]
        assert not [name for name in columns if not re.search(rf"`{name}\b", section)], kind


def test_what_is_shown_is_compared():
    assert shows("accuracy 0.78, ...\n", "accuracy 0.7, 2 s\n")
    assert shows("...\n20 done", "1 done\n20 done\n")
    assert not shows("20 done", "1 done\n20 done\n")
    assert not shows("20 models", "21 models") and not shows("no leak", "a leak")
    assert not shows("epsilon 0.5", "epsilon inf")


def test_steps_are_found():
    page = "Into `a/b.toml`:\n\n```toml\nx = 1\n```\n\n```console\nls \\\n  a\n```\n"
    page += "\n```text\nb\n```\n"
    one, two = steps_of(page)
    assert (one.file, one.text, one.line) == ("a/b.toml", "x = 1\n", 3)
    assert (two.commands(), two.output, two.line) == (["ls    a"], "b\n", 7)
