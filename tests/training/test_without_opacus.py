"""Opacus is for private training alone: everything else works where it is not installed."""

import os
import subprocess
import sys

import pytest

from mico_competition.cli import main
from mico_competition.fleets.lock import is_running, only_fleet


@pytest.fixture
def mico(tmp_path):
    """`mico` in a process, and its children, without opacus and cryptography."""
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    for name in ("opacus", "cryptography"):
        text = f"raise ModuleNotFoundError('No module named {name}', name={name!r})\n"
        (blocked / f"{name}.py").write_text(text)
    environment = {**os.environ, "PYTHONPATH": str(blocked), "OMP_NUM_THREADS": "1"}

    def run(line):
        command = [sys.executable, "-W", "error", "-m", "mico_competition.cli", *line.split()]
        return subprocess.run(
            command, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=600
        )

    return run


@pytest.mark.slow
def test_fleets_without_privacy_and_their_status(mico, tmp_path):
    done = mico("fleet digits_inf --models 0-1 --out out --workers 1 --num_epochs 1 --stack 1")
    assert (done.returncode, "2 of 2 models done" in done.stdout) == (0, True), done.stderr
    done = mico("fleet status out")
    assert (done.returncode, "finished" in done.stdout) == (0, True), done.stderr


def test_a_private_fleet_is_refused_in_one_sentence_and_leaves_no_file(mico, tmp_path):
    done = mico("fleet digits_lo --models 0-1 --out out/a --quiet")
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert "opacus is not installed: `pip install -e '.[train]'`" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_dry_run_and_a_model_without_privacy(mico):
    done = mico("train --scenario purchase100_inf --dry_run")
    assert done.returncode == 0 and '"checked": "settings, model"' in done.stdout, done.stderr
    done = mico("train --scenario digits_inf --model_id 0 --num_epochs 1 --output_dir one")
    assert done.returncode == 0 and "no privacy" in done.stdout, done.stderr
    done = mico("train --scenario digits_lo --model_id 0 --output_dir two")
    assert done.returncode == 1 and "opacus is not installed" in done.stderr


def test_the_lock_of_a_run_that_wrote_nothing_goes_with_it(tmp_path):
    folder = tmp_path / "out" / "fleet" / "digits_lo"
    with pytest.raises(ValueError, match="refused"), only_fleet(folder):
        with pytest.raises(ValueError, match="Another fleet is at work"), only_fleet(folder):
            pass
        assert is_running(folder)
        raise ValueError("refused")
    assert list(tmp_path.iterdir()) == []
    for name in ("lock", "workers.lock"):  # what an earlier version left
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    with pytest.raises(ValueError, match="refused"), only_fleet(folder):
        raise ValueError("refused")
    assert list(folder.iterdir()) == []
    with pytest.raises(ValueError, match="refused"), only_fleet(folder):
        (folder / "ledger.jsonl").touch()
        raise ValueError("refused")
    assert (folder / "ledger.jsonl").exists() and not is_running(folder)


def test_status_of_a_folder_without_a_fleet_says_what_it_is(tmp_path, capsys):
    (tmp_path / "trained" / "digits" / "digits_lo" / "train" / "model_0").mkdir(parents=True)
    (tmp_path / "out" / "fleet" / "digits_lo").mkdir(parents=True)
    (tmp_path / "out" / "fleet" / "digits_lo" / "ledger.jsonl").touch()
    for folder, words in (
        ("trained", "holds models but no fleet's ledger"),
        ("trained/digits", "holds models but no fleet's ledger"),
        ("trained/digits/digits_lo", "holds models but no fleet's ledger"),
        ("out/fleet", f"did you mean {tmp_path}/out?"),
        ("out/fleet/digits_lo", f"did you mean {tmp_path}/out?"),
        ("", f"did you mean {tmp_path}/out?"),
        ("none", "There is no fleet in"),
    ):
        assert main(["fleet", "status", str(tmp_path / folder)]) == 1
        assert words in capsys.readouterr().err, folder
