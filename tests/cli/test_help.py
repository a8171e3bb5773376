"""`mico --help` and the help of each verb: groups, width, examples, and what to do without any."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from mico_competition import __version__
from mico_competition.cli import GROUPS, build_parser, main, split_competition
from mico_competition.cli.examples import EXAMPLES

VERBS = [name for verbs in GROUPS.values() for name, *_ in verbs]
NEED_NOTHING = ("demo", "tracks", "attacks", "benchmark", "completion", "leaderboard")


def run(capsys, *words):
    """The exit code, and what was printed on each stream."""
    try:
        code = main([*words])
    except SystemExit as leave:
        code = leave.code
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def test_the_help_lists_all_verbs_in_groups_and_ends_with_where_to_go_on(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    code, text, _ = run(capsys, "--help")
    lines = text.splitlines()
    assert code == 0 and max(map(len, lines)) <= 80
    titles = [line.rstrip(":") for line in lines if line.endswith(":") and line[0] != " "]
    assert titles == [*GROUPS, "Options"]
    shown = [line.split()[0] for line in lines if line[:2] == "  " and line[2:3].isalpha()]
    assert shown == VERBS
    assert "mico VERB --help" in lines[-2] and "Python" in lines[-1]


def test_without_a_verb_the_help_is_printed(capsys):
    assert run(capsys) == (2, run(capsys, "--help")[1], "")


def test_the_version(capsys):
    assert run(capsys, "--version") == (0, f"mico_competition {__version__}\n", "")


@pytest.mark.parametrize("verb", [v for v in VERBS if v not in NEED_NOTHING])
def test_a_verb_with_nothing_shows_its_usage_and_a_sentence(verb, capsys):
    code, out, err = run(capsys, verb)
    usage, sentence = err[:-1].rsplit("\n", 1)
    assert (code, out) == (2, "")
    assert usage.startswith(f"usage: mico {verb} ") and sentence.startswith("mico: ")
    assert sentence.endswith(".")


@pytest.mark.parametrize("verb", VERBS)
def test_every_help_fits_and_ends_with_its_examples(verb, capsys):
    code, text, _ = run(capsys, verb, "--help")
    assert code == 0 and text.startswith(f"usage: mico {verb}")
    head, _, examples = text.partition("\nexamples:\n")
    assert max(map(len, head.splitlines())) <= 80
    for what, command in EXAMPLES[verb]:
        assert f"  # {what}\n  {command}\n" in examples


@pytest.mark.parametrize(
    ("verb", "command"), [(verb, line) for verb in EXAMPLES for _, line in EXAMPLES[verb]]
)
def test_every_example_can_be_parsed(verb, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name, *words = shlex.split(command.partition(" > ")[0])
    _, words = split_competition(words)
    args = build_parser(verb).parse_args(words)
    assert name == "mico" and args.verb == verb and callable(args.run)


def test_an_attack_comes_before_its_folder(capsys):
    assert "usage: mico attack [NAME] FOLDER [options]\n" in run(capsys, "attack", "--help")[1]


@pytest.mark.parametrize("verb", VERBS)
def test_every_flag_says_what_it_is(verb):
    parser = build_parser(verb)
    verbs = next(action for action in parser._actions if action.dest == "verb")
    for action in verbs.choices[verb]._actions:
        lists_verbs = action.nargs == "A..."  # its help is the list
        assert action.help or lists_verbs, f"mico {verb} {action.option_strings or action.dest}"


def test_there_are_examples_of_every_verb_and_no_other():
    assert list(EXAMPLES) == VERBS


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_completion_knows_verbs_and_flags(shell, capsys):
    code, script, _ = run(capsys, "completion", shell)
    assert code == 0
    for word in ("audit-train", "--dataset_dir", "purchase100_lo", "lira-online"):
        assert word in script


def complete(folder, *words):
    """What bash offers for the last of `words`, by the script of `mico completion`."""
    mico = Path(sys.executable).with_name("mico")
    program = (
        f'. <({shlex.quote(str(mico))} completion bash); COMP_WORDS=("$@"); '
        "COMP_CWORD=$(( $# - 1 )); _shtab_mico; printf '%s\\n' \"${COMPREPLY[@]}\""
    )
    found = subprocess.run(
        ["bash", "-c", program, "bash", *words], capture_output=True, text=True, cwd=folder
    )
    return set(found.stdout.split())


@pytest.mark.skipif(not os.path.exists("/bin/bash"), reason="needs bash")
def test_bash_completes_verbs_flags_names_and_files(tmp_path):
    (tmp_path / "purchase100").mkdir()
    assert complete(tmp_path, "mico", "aud") == {"audit", "audit-train"}
    assert complete(tmp_path, "mico", "audit", "--pre") == {"--predictions"}
    assert "lira-online" in complete(tmp_path, "mico", "audit", "--attack", "lira-o")
    assert complete(tmp_path, "mico", "audit", "purch") == {"purchase100"}
    assert complete(tmp_path, "mico", "audit", "--predictions", "purch") == {"purchase100"}


def test_words_in_the_place_of_others_are_recognised(tmp_path, capsys):
    """An attack before a folder, as `mico attack` takes it, and a zip instead of its challenge."""
    with pytest.raises(SystemExit, match="2"):
        main(["evaluate", "lira", str(tmp_path)])
    assert "an attack is given as --attack NAME" in capsys.readouterr().err
    file = tmp_path / "predictions_digits.zip"
    file.write_bytes(b"")
    assert main(["check", str(file)]) == 1
    assert f"`mico check FOLDER --zip {file}` reads a zip" in capsys.readouterr().err
