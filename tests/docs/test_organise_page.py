"""docs/ORGANISE.md: every command of the page runs, in its order, with fewer models."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mico_competition.cli import build_parser, main

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "ORGANISE.md").read_text(encoding="utf-8")
COMPETITION, OTHERS = PAGE.split("## A dataset and a model of your own")
OF_YOUR_OWN, SMALL = OTHERS.split("## A small challenge of a real task")


def blocks(text, language):
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def commands(text):
    return [line for block in blocks(text, "console") for line in block.splitlines()]


def test_the_parser_knows_every_flag_of_the_page():
    parser = build_parser()
    lines = [line for line in commands(COMPETITION + SMALL) if line.startswith("mico ")]
    assert len(lines) >= 16
    for line in lines:
        parser.parse_args(shlex.split(line)[1:])


@pytest.mark.slow
def test_every_command_of_the_page_runs(tmp_path, monkeypatch, capsys):
    lines = commands(COMPETITION)
    assert len(lines) >= 11 and all(line.startswith("mico ") for line in lines)
    monkeypatch.chdir(tmp_path)
    for line in lines:
        few = line.replace("0-199", "0-3,100,150").removeprefix("mico ")
        assert main(shlex.split(few)) == 0, f"{line}\n{capsys.readouterr()}"
    assert len(list(tmp_path.glob("released/digits/*/*/model_*"))) == 18


@pytest.mark.slow
def test_the_lines_for_a_dataset_of_ones_own_are_all_of_them(tmp_path):
    (module,), (file,) = blocks(OF_YOUR_OWN, "python"), blocks(OF_YOUR_OWN, "toml")
    environment = dict(os.environ)
    lines = commands(OF_YOUR_OWN)
    assert len(lines) >= 10 and lines[0] == "mico init mine"
    for at, line in enumerate(lines):
        if line.startswith("export "):
            name, _, value = line.removeprefix("export ").partition("=")
            environment[name] = value.replace("$PWD", str(tmp_path))
            continue
        few = line.replace("0-39", "0-3,20,30").removeprefix("mico ")
        finished = subprocess.run(
            [sys.executable, "-m", "mico_competition.cli", *shlex.split(few)],
            **{"cwd": tmp_path, "env": environment, "capture_output": True, "text": True},
        )
        assert finished.returncode == 0, f"{line}\n{finished.stderr}"
        if at == 1:
            assert "blobs_eps2" in finished.stdout
            (tmp_path / "mine" / "my_competition.py").write_text(module, encoding="utf-8")
            (tmp_path / "mine" / "competition.toml").write_text(file, encoding="utf-8")
    for name in ("tumours_plain", "tumours_eps2"):
        assert len(list(tmp_path.glob(f"released/tumours/{name}/*/model_*"))) == 6
        assert name in finished.stdout  # the score's table
    carried = tmp_path / "released" / "tumours.release" / "competition.toml"
    assert carried.read_text(encoding="utf-8") == file


@pytest.mark.slow
def test_small_challenges_of_the_real_tasks(tmp_path, monkeypatch, capsys):
    write_data(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    for line in commands(SMALL):
        few = re.sub(r"--num_epochs \d+", "--num_epochs 1", line.replace("0-9", "0,1"))
        if few.startswith("python"):
            subprocess.run([sys.executable, *shlex.split(few)[1:]], check=True)
        else:
            assert main(shlex.split(few)[1:]) == 0, f"{line}\n{capsys.readouterr()}"
    assert len(list(tmp_path.glob("small/*/*/train/model_*/metadata.json"))) == 6


def write_data(folder):
    """700 images and sentences, made up, in the official forms."""
    rng = np.random.default_rng(0)
    images = folder / "cifar10" / "cifar-10-batches-bin"
    images.mkdir(parents=True)
    for name in [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]:
        rows = rng.integers(0, 256, size=(120, 3073), dtype=np.uint8)
        rows[:, 0] %= 10
        rows.tofile(images / f"{name}.bin")
    words = ["good", "bad", "dull", "charming", "film", "plot"]
    for name, count in (("train", 640), ("dev", 60)):
        lines = [f"{' '.join(rng.choice(words, 6))} \t{rng.integers(2)}" for _ in range(count)]
        (folder / "sst2").mkdir(exist_ok=True)
        (folder / "sst2" / f"{name}.tsv").write_text("\n".join(["sentence\tlabel", *lines, ""]))
