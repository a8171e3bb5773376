"""The wheel: everything that the package needs is in it, and it works where the source is not.

The environments here have the wheel, and packages of the tests' own environment by links: nothing
is downloaded.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from mico_competition import __version__
from mico_competition.hosting.codabench.program import own_files

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ("src", "scoring", "setup.py", "pyproject.toml", "README.md", "LICENSE")
LIBRARIES = Path(find_spec("numpy").origin).parents[1]
SCENARIOS = ("cifar10_hi", "cifar10_inf", "cifar10_lo")


def build(source, out, *flags):
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", out, *flags, source]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return {path.suffix: path for path in out.iterdir()}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """The files that a build needs, without what earlier builds left."""
    folder = tmp_path_factory.mktemp("source")
    leave_out = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=leave_out)
        else:
            shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def built(source, tmp_path_factory):
    """The source distribution, and the wheel that was built from it."""
    return build(source, tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory):
    """Makes an environment of the wheel and of packages that are linked into it."""

    def install(*packages):
        folder = tmp_path_factory.mktemp("environment")
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
        python = folder / "bin" / "python"
        wheel = ["--no-deps", "--no-index", "--no-compile", "-q", built[".whl"]]
        pip = [sys.executable, "-m", "pip", "--python", python, "install", *wheel]
        subprocess.run(pip, check=True, capture_output=True)
        (site,) = (folder / "lib").glob("python*/site-packages")
        for package in packages:
            for path in LIBRARIES.glob(f"{package}*"):
                (site / path.name).symlink_to(path)
        return folder

    return install


@pytest.fixture(scope="module")
def with_numpy(installed):
    return installed("numpy")


def run(environment, *words, folder=None):
    """Run a command of an environment, outside the source."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "MICO"))}
    command = [environment / "bin" / words[0], *words[1:]]
    return subprocess.run(
        [*map(str, command)],
        capture_output=True,
        text=True,
        cwd=folder or environment,
        env=clean,
    )


def names_in(wheel):
    with zipfile.ZipFile(wheel) as file:
        return {name for name in file.namelist() if ".dist-info/" not in name}


@pytest.mark.slow
def test_every_file_of_the_package_is_in_the_wheel(built, source):
    expected = {
        str(path.relative_to(source / "src"))
        for path in (source / "src" / "mico_competition").rglob("*")
        if path.is_file()
    }
    expected |= {f"mico_competition/scoring/{path.name}" for path in (source / "scoring").iterdir()}
    assert names_in(built[".whl"]) == expected
    for name in (
        "py.typed",
        "competition/mico2022.toml",
        "scoring/metadata",
        "hosting/hub/card.md",
    ):
        assert f"mico_competition/{name}" in expected


@pytest.mark.slow
def test_the_source_distribution_builds_the_same_wheel(built, source, tmp_path):
    direct = build(source, tmp_path / "direct", "--wheel")[".whl"]

    def digests(path):
        with zipfile.ZipFile(path) as file:
            return {n: hashlib.sha256(file.read(n)).hexdigest() for n in file.namelist()}

    assert digests(direct) == digests(built[".whl"])
    with tarfile.open(built[".gz"]) as file:
        names = {name.partition("/")[2] for name in file.getnames()}
    assert {"README.md", "LICENSE", "pyproject.toml", "setup.py", "scoring/score.py"} <= names


@pytest.mark.slow
def test_the_description_has_no_link_that_leads_nowhere(built):
    with zipfile.ZipFile(built[".whl"]) as file:
        (name,) = (n for n in file.namelist() if n.endswith("METADATA"))
        text = file.read(name).decode()
    head, _, description = text.partition("\n\n")
    assert "License-Expression: MIT" in head and "Classifier: Typing :: Typed" in head
    targets = re.findall(r"\]\(([^)]+)\)", description)
    assert targets and all(target.startswith(("https://", "#")) for target in targets)
    assert description.startswith("# mico_competition") and "docs/flow.svg" not in description


@pytest.mark.slow
def test_the_package_alone_imports_nothing_else(installed):
    program = (
        "import sys, mico_competition; sys.stdout.write(mico_competition.__version__); "
        "assert not {'torch', 'numpy', 'pandas'} & set(sys.modules), sys.modules.keys()"
    )
    empty = installed()
    done = run(empty, "python", "-c", program)
    assert (done.stdout, done.stderr) == (__version__, "")
    assert (
        "site-packages"
        in run(empty, "python", "-c", "import mico_competition as m; print(m.__file__)").stdout
    )
    done = run(empty, "mico", "--help")
    assert done.returncode == 0 and "Take part in a challenge:" in done.stdout
    assert run(empty, "mico", "attacks").returncode == 0
    done = run(empty, "mico", "completion", "bash")
    assert done.stderr == "mico: shtab is not installed: `pip install 'shtab>=1.7'`.\n"


@pytest.mark.slow
def test_scoring_needs_numpy_only(with_numpy):
    program = (
        "import sys; from mico_competition.scoring import score; "
        "print(score([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])['AUC'], 'torch' in sys.modules); "
        "import torch"
    )
    done = run(with_numpy, "python", "-c", program)
    assert done.stdout == "0.75 False\n" and "No module named 'torch'" in done.stderr


@pytest.mark.slow
def test_the_scoring_program_of_the_wheel(with_numpy, tmp_path):
    generator = np.random.default_rng(0)
    for scenario in SCENARIOS:
        for part, name, values in (
            ("ref", "solution.csv", np.repeat([0, 1], 50)),
            ("res", "prediction.csv", generator.random(100)),
        ):
            folder = tmp_path / "in" / part / "cifar10" / scenario / "dev" / "model_100"
            folder.mkdir(parents=True)
            (folder / name).write_text(",".join(map(str, values)) + "\n")
    (scoring,) = with_numpy.glob("lib/python*/site-packages/mico_competition/scoring")
    done = run(with_numpy, "python", scoring / "score.py", tmp_path / "in", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "scenario1_AUC: " in (tmp_path / "out" / "scores.txt").read_text()


@pytest.mark.slow
def test_a_bundle_finds_the_scoring_program(with_numpy):
    program = (
        "from mico_competition.hosting.codabench.program import own_files; "
        "print(*own_files(), sep='\\n')"
    )
    done = run(with_numpy, "python", "-c", program)
    assert done.stdout.split() == list(own_files()), done.stderr
