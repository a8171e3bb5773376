"""Flags are read in one way, and whatever goes wrong ends in one sentence and an exit code."""

import argparse
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from mico_competition.scoring.printable import is_plain

from mico_competition.cli import build_parser, main
from mico_competition.cli.train import main_of_task
from mico_competition.models import token_cache
from mico_competition.support.command_line import (
    Parser,
    model_ids,
    number,
    output_folder,
    path_or_name,
    run_command,
    whole_number,
)
from mico_competition.support.output import PatientStream

MICO = Path(sys.executable).with_name("mico")
TRAIN = "train --scenario digits_inf --num_epochs 1 --train_seed 1 --model_id 0-1".split()


def actions(parser, words=()):
    """The words that lead to each flag, and the flag."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, inner in action.choices.items():
                yield from actions(inner, (*words, name))
        else:
            yield parser, words, action


EVERY = list(actions(build_parser()))


def flags(kind):
    found = [(parser, action) for parser, _, action in EVERY if action.type is kind]
    assert len(found) > 3
    return found


@pytest.mark.parametrize("text", ["1_0", "１０", "1e3", "0x10", " 1", "1.0", "", "٣", "9" * 30])
def test_no_flag_takes_a_whole_number_that_is_not_in_plain_digits(text):
    for parser, action in flags(int):
        with pytest.raises(argparse.ArgumentError):
            parser._get_value(action, text)
    for read in (whole_number, model_ids):
        with pytest.raises(argparse.ArgumentTypeError):
            read(text if read is whole_number else text.replace(" 1", "1-"))


@pytest.mark.parametrize("text", ["1_0.5", "1e4_0", "nan", "-nan", "1e999", "1,5", "٣", "0x1p3"])
def test_no_flag_takes_a_number_that_is_not_in_plain_digits(text):
    for parser, action in flags(float):
        with pytest.raises(argparse.ArgumentError):
            parser._get_value(action, text)


def test_numbers_that_pass():
    assert [whole_number(t) for t in ("10", "-3", "+7", "007")] == [10, -3, 7, 7]
    assert [number(t) for t in ("1e-5", ".5", "4.", "inf")] == [1e-5, 0.5, 4.0, float("inf")]
    assert model_ids("100,0-3, 2") == [0, 1, 2, 3, 100]


@pytest.mark.parametrize("text", ["1_0", "0-1_0", "3-1", "0-999999999", "-1", "1-", "a", "0,,1"])
def test_ids_that_are_none(text):
    with pytest.raises(argparse.ArgumentTypeError, match="expected a number or a range"):
        model_ids(text)


def test_every_path_may_begin_with_a_tilde(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    for parser, action in flags(Path):
        assert parser._get_value(action, "~/x") == tmp_path / "x"
        assert parser._get_value(action, "a~/x") == Path("a~/x")
    names = [a for _, _, a in EVERY if a.type is path_or_name]
    assert {a.dest for a in names} == {"model_name", "attack", "against", "what"}
    assert path_or_name("~/attack.py:f") == f"{tmp_path}/attack.py:f"
    assert path_or_name("roberta-base") == "roberta-base"


def test_a_file_in_the_place_of_a_folder_to_write_is_refused_at_once(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "file").write_text("kept")
    for parser, action in flags(output_folder):
        assert parser._get_value(action, "~/new/x") == tmp_path / "new/x"
        for name in ("~/file", "~/file/below"):
            with pytest.raises(argparse.ArgumentError, match="file is a file: name a folder"):
                parser._get_value(action, name)
        for name in ("", "x" * 300):
            with pytest.raises(argparse.ArgumentError):
                parser._get_value(action, name)
    plain = {a.option_strings[0] for _, _, a in EVERY if a.type is Path and a.option_strings}
    assert not plain & {"--out", "--cache", "--work", "--output_dir"}


def test_every_verb_may_be_quiet():
    verbs = {words for _, words, _ in EVERY if words}
    quiet = {words for _, words, action in EVERY if "--quiet" in action.option_strings}
    assert len(verbs) > 20 and quiet == verbs


def test_a_tilde_of_nobody_is_a_sentence(capsys):
    with pytest.raises(SystemExit):
        main(["submit", "~no_such_user/cifar10"])
    assert "no home directory is known for '~no_such_user/cifar10'" in capsys.readouterr().err


def test_the_training_scripts_read_flags_in_the_same_way(capsys):
    with pytest.raises(SystemExit):
        main_of_task("cifar10", ["--batch_size", "1_0"])
    assert capsys.readouterr().err.count("expected a whole number, got '1_0'") == 1


# --- output


@pytest.mark.slow
def test_output_that_nobody_reads_does_not_stop_the_work(tmp_path):
    reading, writing = os.pipe()
    os.close(reading)  # as `| head -1` does after a line
    command = [MICO, *TRAIN, "--output_dir", tmp_path]
    finished = subprocess.run(command, stdout=writing, stderr=writing)
    os.close(writing)
    assert finished.returncode == 0
    assert len(list(tmp_path.glob("digits/digits_inf/train/model_*/model.pt"))) == 2


@pytest.mark.parametrize("words", ["tracks", "--help", "attack --help", "tracks --json"])
def test_a_closed_pipe_is_no_error(words):
    reading, writing = os.pipe()
    os.close(reading)
    finished = subprocess.run([MICO, *words.split()], stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    assert (finished.returncode, finished.stderr) == (0, b"")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_under_the_output_is_said():
    with open("/dev/full", "w") as full:
        finished = subprocess.run([MICO, "tracks"], stdout=full, stderr=subprocess.PIPE)
    said = b"mico: Not all output could be written: No space left on device.\n"
    assert (finished.returncode, finished.stderr) == (1, said)


@pytest.mark.slow
def test_closed_descriptors_are_not_taken_by_files(tmp_path):
    command = f"'{MICO}' {' '.join(TRAIN)} --output_dir '{tmp_path}' >&- 2>&-"
    assert subprocess.run(command, shell=True).returncode == 0
    assert (tmp_path / "digits/digits_inf/train/model_1/model.pt").stat().st_size > 1000


def run_printing(monkeypatch, text, encoding):
    """What a verb that prints `text` writes where the terminal's encoding is `encoding`."""
    written = io.BytesIO()
    stream = io.TextIOWrapper(written, encoding=encoding)
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "stderr", stream)
    parser = Parser()
    parser.set_defaults(run=lambda args: print(text))
    code = run_command(parser, [])
    return code, written.getvalue().decode(encoding)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "cp437"])
def test_an_encoding_that_lacks_epsilon(monkeypatch, encoding):
    code, text = run_printing(monkeypatch, "Low ε = 4, δ ≤ 1e-5 木", encoding)
    assert code == 0 and text.endswith("\\u6728\n") and " = 4, " in text
    assert encoding != "ascii" or text == "Low epsilon = 4, delta <= 1e-5 \\u6728\n"


def test_what_is_printed_from_outside_is_escaped(monkeypatch):
    code, text = run_printing(monkeypatch, "a\x1b[2J\u202eb\udcff\n::set-output x\rε", "utf-8")
    assert code == 0
    assert text == "a\\x1b[2J\\u202eb\\udcff\n\\x3a:set-output x\\x0dε\n"


def test_bars_move_the_cursor_and_nothing_else_does():
    written = io.StringIO()
    stream = PatientStream(written, bars=True)
    stream.write("\rSignals:  50%|█████▌    |\x1b[A\r\n")
    stream.write("\x1b[2J\x1b]0;x\x07\u202e::x\r::y\x1b[A")
    assert written.getvalue() == (
        "\rSignals:  50%|█████▌    |\x1b[A\r\n\\x1b[2J\\x1b]0;x\\x07\\u202e::x\r\\x3a:y\x1b[A"
    )


@pytest.mark.parametrize("module", ["data.synthetic", "models.small_roberta"])
def test_commands_of_modules_read_flags_in_the_same_way(module, monkeypatch, capsys):
    from importlib import import_module

    main = import_module(f"mico_competition.{module}").main
    for words in (["x", "--dataset_dir", "/nowhere", "--hidden_size", "1_0"], ["x", "--seed", "٣"]):
        monkeypatch.setattr(sys, "argv", ["module", *words])
        with pytest.raises(SystemExit) as leave:
            main()
        said = capsys.readouterr().err
        assert leave.value.code == 2 and said.startswith("mico: ") and said.count("\n") == 1


# --- mistakes and faults


def run_raising(error, capsys):
    def run(args):
        raise error

    parser = Parser()
    parser.set_defaults(run=run)
    code = run_command(parser, [])
    return code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (ValueError("Expected x\n  a\x1b[2J\n  b"), 1, "mico: Expected x\n  a\\x1b[2J\n  b\n"),
        (
            OSError(28, "No space left on device", "a\nb"),
            1,
            "a\\x0ab: No space left on device: free some",
        ),
        (OSError(13, "Permission denied", "x"), 1, "x: Permission denied: choose another path, or"),
        (OSError(5, "Input/output error"), 1, "mico: Input/output error.\n"),
        (MemoryError(), 1, "not enough memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), 1, "memory"),
        (RuntimeError("CUDA out of memory. Tried to allocate"), 1, "not enough memory"),
        (ModuleNotFoundError("x", name="opacus.x"), 1, "opacus is not installed: `pip install"),
        (KeyError("k\n"), 70, "a fault of the program, KeyError in test_command_line.py, line"),
        (RecursionError("deep"), 70, "please report it"),
        (KeyboardInterrupt(), 130, "stopped"),
    ],
)
def test_whatever_is_raised_ends_in_a_sentence(error, code, words, capsys):
    found, text = run_raising(error, capsys)
    assert found == code and text.startswith("mico: ") and words in text
    assert "Traceback" not in text and all(map(is_plain, text.splitlines()))


def test_the_traceback_of_a_fault_is_to_be_had(capsys, monkeypatch):
    monkeypatch.setenv("MICO_DEBUG", "1")
    assert "Traceback" in run_raising(KeyError("k"), capsys)[1]


# --- no home directory


def nobody(monkeypatch, tmp_path):
    """An account that has no name and no home, as `docker run --user 12345` makes them."""
    for name in ("HOME", "XDG_CACHE_HOME", "MICO_CACHE"):
        monkeypatch.delenv(name, raising=False)

    def unknown(number):
        raise KeyError(number)

    monkeypatch.setattr("pwd.getpwuid", unknown)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


def test_without_a_home_the_cache_is_a_private_folder_of_temporary_files(monkeypatch, tmp_path):
    nobody(monkeypatch, tmp_path)
    folder = token_cache.cache_folder()
    assert folder == tmp_path / f"mico_competition-{os.geteuid()}" == token_cache.cache_folder()
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o777)  # somebody else may have made it, to plant signals in it
    with pytest.raises(ValueError, match="set MICO_CACHE to one"):
        token_cache.cache_folder()
    folder.rmdir()
    folder.symlink_to(tmp_path)
    with pytest.raises(ValueError, match="set MICO_CACHE to one"):
        token_cache.cache_folder()


def test_without_a_home_a_release_is_searched_for_what_is_known(monkeypatch, tmp_path):
    from mico_competition.release.leak_check.patterns import machine_names, machine_paths

    nobody(monkeypatch, tmp_path)
    assert str(tmp_path).encode() in machine_paths(tmp_path)
    machine_names()
