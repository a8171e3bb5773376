"""docs/ORGANISE.md: every command of the page runs, in its order, with fewer models."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mico_competition.cli import main

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "ORGANISE.md").read_text(encoding="utf-8")
COMPETITION, OTHERS = PAGE.split("## A dataset and a model of your own")
OF_YOUR_OWN, SMALL = OTHERS.split("## A small challenge of a real task")


def blocks(text, language):
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def commands(text):
    return [line for block in blocks(text, "console") for line in block.splitlines()]


def test_every_command_of_the_page_runs(tmp_path, monkeypatch, capsys):
    lines = commands(COMPETITION)
    assert len(lines) >= 11 and all(line.startswith("mico ") for line in lines)
    monkeypatch.chdir(tmp_path)
    for line in lines:
        few = line.replace("0-199", "0-3,100,150").removeprefix("mico ")
        assert main(shlex.split(few)) == 0, f"{line}\n{capsys.readouterr()}"
    assert len(list(tmp_path.glob("released/digits/*/*/model_*"))) == 18


# What the page says of each block of Python: the module, and the line that it goes before.
PLACES = (
    ("tracks.py", "^TASKS:", "^\\)"),
    ("tracks.py", "^_ROWS:", ""),
    ("tracks.py", "^_ROWS:", "^\\)"),
    ("challenge_datasets.py", "^LOADERS", ""),
    ("challenge_datasets.py", "^LOADERS", "^}"),
    ("models.py", "^ARCHITECTURES", "^}"),
)


def insert(path, lines, table, end):
    """Insert `lines` before `table` begins, or as its last entry, before the line like `end`."""
    text = path.read_text()
    start = re.search(table, text, re.MULTILINE).start()
    if end:
        start += re.search(end, text[start:], re.MULTILINE).start()
    path.write_text(text[:start] + lines + "\n" + text[start:])


def test_the_lines_for_a_dataset_of_ones_own_are_all_of_them(tmp_path):
    package = tmp_path / "site" / "mico_competition"
    shutil.copytree(ROOT / "src" / "mico_competition", package)
    shutil.copytree(ROOT / "scoring", package / "scoring")
    for lines, (module, *place) in zip(blocks(OF_YOUR_OWN, "python"), PLACES, strict=True):
        insert(package / module, lines, *place)
    environment = {**os.environ, "PYTHONPATH": str(package.parent)}
    lines = commands(OF_YOUR_OWN)
    assert len(lines) >= 8
    for line in lines:
        few = line.replace("0-199", "0-3,100,150").removeprefix("mico ")
        finished = subprocess.run(
            [sys.executable, "-m", "mico_competition.cli", *shlex.split(few)],
            **{"cwd": tmp_path, "env": environment, "capture_output": True, "text": True},
        )
        assert finished.returncode == 0, f"{line}\n{finished.stderr}"
    for name in ("tumours_inf", "tumours_hi", "tumours_lo"):
        assert len(list(tmp_path.glob(f"released/tumours/{name}/*/model_*"))) == 6
        assert name in finished.stdout  # the score's table


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
