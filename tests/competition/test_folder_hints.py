"""A challenge folder that is not where somebody says: the answer names what they can do next."""

import shutil

import pytest

from mico_competition.cli import main
from mico_competition.competition.layout import walk_challenge


@pytest.fixture
def work(tmp_path, monkeypatch):
    """A working folder as `mico demo` leaves it, without the models' files."""
    for root in ("released", "trained"):
        for scenario in ("digits_inf", "digits_lo"):
            (tmp_path / "demo" / root / "digits" / scenario / "train" / "model_0").mkdir(
                parents=True
            )
    (tmp_path / "mine" / "purchase100_lo" / "train" / "model_0").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


VERBS = ["attack {}", "evaluate {} --attack eb", "audit {}", "score {}", "submit {}", "check {}"]
ANSWERS = [
    ("purchase100", "`mico download purchase100 --to {work}` fetches that of 2022."),
    ("data/ddp", "`mico download ddp --to {work}/data` fetches that of 2022."),
    ("digits", "did you mean demo/released/digits?"),
    ("data/digits", "did you mean demo/released/digits?"),
    ("baskets", "`mico download baskets --repo OWNER/NAME`"),
    ("purchase10", "did you mean purchase100?"),
    ("other", "name a folder called after its challenge, one of cifar10,"),
    ("demo/released", "is not named after its challenge: did you mean demo/released/digits?"),
    ("demo", "did you mean demo/released/digits or demo/trained/digits?"),
    ("demo/released/digits/digits_lo", "did you mean {work}/demo/released/digits?"),
    ("demo/released/digits/digits_lo/train/model_0", "did you mean {work}/demo/released/digits?"),
    ("mine", "it holds scenarios of purchase100, so rename it to purchase100."),
]


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_of_participants_says_what_to_do(work, capsys, verb):
    for folder, answer in ANSWERS:
        assert main(verb.format(folder).split()) == 1
        said = capsys.readouterr().err
        assert answer.format(work=work) in said, (folder, said)
        assert "release it first" not in said and len(said.splitlines()) == 1


def test_what_is_named_can_be_taken(work):
    assert [model.model_id for model in walk_challenge("demo/released/digits")] == [0, 0]
    shutil.rmtree("demo")
    with pytest.raises(ValueError, match="or `mico demo` to make one"):
        walk_challenge("digits")


def test_organisers_get_their_own_answer(work, capsys):
    assert main("release demo/trained --challenge baskets --to out".split()) == 1
    assert "name the folder that `mico train --output_dir` was given" in capsys.readouterr().err
