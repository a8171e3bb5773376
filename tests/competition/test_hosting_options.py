"""What a competition's file says of a challenge's bundle, and wrong values of it."""

import pytest
from helpers_bundle import SCHEDULE, read_zip, spec_of, write_trained
from helpers_competition import competition_text

from mico_competition.cli import main
from mico_competition.competition.reader import parse_competition
from mico_competition.competition.table import using
from mico_competition.hosting.codabench.bundle import write_bundle
from mico_competition.hosting.codabench.check import check_bundle
from mico_competition.hosting.codabench.options import Limits, options_of

ROW = """
[challenge.faces]
published = "me/faces"
title = "Who is in the picture? | 2036"
contact_email = "organisers@faces.example.org"
reward = "€ 500, and a *cake*"
repository = "https://example.org/faces"
terms = "terms.md"
max_submissions_per_day = 3
max_submissions = 30
execution_time_limit = 120
docker_image = "example/faces:1.0"
"""
TERMS = "# Our terms\n\n- Be **kind**.\n\n```\nnot closed\n"


@pytest.fixture
def file(tmp_path):
    """A competition whose file describes its bundle, in use."""
    path = tmp_path / "competition.toml"
    path.write_text(competition_text({"a": {}}) + ROW, encoding="utf-8")
    (tmp_path / "terms.md").write_text(TERMS, encoding="utf-8")
    with using(path):
        yield path


@pytest.mark.parametrize("platform", ["codabench", "codalab"])
def test_a_bundle_has_what_the_file_says(file, tmp_path, platform):
    root = write_trained(tmp_path / "trained", "faces")
    options = options_of("faces", platform=platform)
    assert write_bundle(root, "faces", tmp_path / "b.zip", SCHEDULE, options) == []
    assert check_bundle(tmp_path / "b.zip") == []
    files = read_zip(tmp_path / "b.zip")
    spec = spec_of(files)
    assert spec["title"] == "Who is in the picture? | 2036"
    phases = spec["phases"] if platform == "codabench" else list(spec["phases"].values())
    keys = ("max_submissions_per_day", "max_submissions", "execution_time_limit")
    assert [[phase[key] for key in keys] for phase in phases] == [[3, 30, 120], [1, 1, 120]]
    kind = {"codabench": "md", "codalab": "html"}[platform]
    pages = {page: files[f"pages/{page}.{kind}"].decode() for page in ("overview", "data", "terms")}
    assert "organisers@faces.example.org" in pages["overview"]
    assert "€ 500" in pages["overview"] and "https://example.org/faces" in pages["overview"]
    assert (
        "me/faces" in pages["data"] and "120 seconds" in files[f"pages/evaluation.{kind}"].decode()
    )
    if platform == "codabench":
        assert (spec["contact_email"], spec["reward"], spec["docker_image"]) == (
            "organisers@faces.example.org",
            "€ 500, and a *cake*",
            "example/faces:1.0",
        )
        assert pages["terms"] == TERMS
    else:
        assert spec["competition_docker_image"] == "example/faces:1.0"
        assert not {"contact_email", "reward"} & set(spec)  # legacy CodaLab crashes on them
        assert "<li>Be <strong>kind</strong>.</li>" in pages["terms"]
        assert "not closed" in pages["terms"]


def test_flags_come_before_the_file_and_the_file_before_the_usual(file):
    assert options_of("faces").limits == Limits(3, 30)
    given = options_of("faces", per_day=2, in_all=200, docker_image="x/y", step=0.0)
    assert (given.limits, given.docker_image, given.step) == (Limits(2, 200), "x/y", 0.0)
    assert given.title and given.time_limit == 120
    with using(None):
        usual = options_of("digits")
        assert (usual.limits, usual.title, usual.time_limit) == (Limits(5, 100), None, 600)


def test_few_submissions_in_all_bound_those_of_a_day(file):
    text = file.read_text(encoding="utf-8").replace("max_submissions_per_day = 3\n", "")
    file.write_text(text.replace("max_submissions = 30", "max_submissions = 2"), encoding="utf-8")
    with using(file):
        assert options_of("faces").limits == Limits(2, 2)


@pytest.mark.parametrize("there", [None, " \n"])
def test_terms_that_are_missing_or_empty_are_named(file, tmp_path, capsys, there):
    (tmp_path / "terms.md").unlink()
    if there is not None:
        (tmp_path / "terms.md").write_text(there)
    root = write_trained(tmp_path / "trained", "faces")
    out = tmp_path / "b.zip"
    words = ["bundle", str(root), "--challenge", "faces", "--out", str(out)]
    dates = ("--dev_start", "2036-01-01 00:00:00", "--final_start", "2036-02-01 00:00:00")
    end = ("--end", "2036-03-01 00:00:00", "--competition", str(file))
    assert main([*words, *dates, *end]) == 1 and not out.exists()
    said = capsys.readouterr().err
    assert "terms.md" in said and said.count("\n") == 1


WRONG = [
    ("organisers@faces.example.org", "faces.example.org", "contact_email: expected an e-mail"),
    ("organisers@faces.example.org", "a@b", "contact_email: expected an e-mail"),
    ("organisers@faces.example.org", "a b@example.org", "contact_email: expected an e-mail"),
    ("= 30", "= -30", "max_submissions: expected a whole number >= 1, got -30"),
    ("= 3\n", "= 31\n", "max_submissions_per_day = 31 is above max_submissions = 30: lower it"),
    ("= 120", "= 0", "execution_time_limit: expected a whole number >= 1, got 0"),
    ("reward", "rewards", "unknown column rewards: did you mean reward?"),
    ("https://example.org/faces", "example.org", "repository: expected an address that begins"),
    ('"terms.md"', '"../terms.md"', "terms: expected the name of a file beside this one"),
    ('"terms.md"', '"terms"', "terms: expected the name of a file beside this one"),
    ("example/faces:1.0", "Example Faces", "docker_image: expected a docker image such as"),
    ("| 2036", "x" * 100, "title: expected at most 100 characters, got"),
    ("€ 500,", "\\u0007", "reward: expected a text, got"),
]


@pytest.mark.parametrize(("was", "now", "fault"), WRONG, ids=[now for _, now, _ in WRONG])
def test_a_wrong_value_is_named_with_its_line(was, now, fault):
    text = competition_text({"a": {}}) + ROW
    assert was in ROW
    wrong = competition_text({"a": {}}) + ROW.replace(was, now)
    with pytest.raises(ValueError) as error:
        parse_competition(wrong, "competition.toml")
    said = str(error.value)
    changed = [i for i, (a, b) in enumerate(zip(text.split("\n"), wrong.split("\n")), 1) if a != b]
    assert fault in said and said.startswith(f"competition.toml, line {changed[0]}: ")


def test_a_day_above_the_usual_limit_in_all():
    text = competition_text({"a": {}}) + "[challenge.faces]\nmax_submissions_per_day = 200\n"
    with pytest.raises(ValueError, match="above the usual max_submissions, 100: lower it, or"):
        parse_competition(text, "competition.toml")
