"""Write requirements.txt: the whole set, pinned, one file for all supported Pythons (`make lock`).

    python .ci/lock.py python3.11 python3.12 python3.13 python3.14      (oldest first)

The oldest Python resolves setup.py's `dev` extra freely; the others must do with the same
versions, and what only some of them need gets a marker. Where a later Python is not installed, the
one before it resolves in its name. Wheels only, and pip only. Nothing is installed outside a
temporary folder.

torch is pinned to TORCH, and a stand-in of that version takes its place while resolving: the
real one is gigabytes on Linux, and its CUDA packages (nvidia-*, triton) are pinned by itself.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

TORCH = "2.13.0"
TORCH_NEEDS = (  # the Requires-Dist lines of its CPU wheel
    "filelock",
    "typing-extensions>=4.10.0",
    "setuptools>=77.0.3",
    "sympy>=1.13.3",
    "networkx>=2.5.1",
    "jinja2",
    "fsspec>=0.8.5",
)
ROOT = Path(__file__).resolve().parent.parent
HEAD = """\
# The whole set, pinned, for Python {first} to {last} on Linux. Written by `make lock` from the
# lower bounds in setup.py (extra `dev`): change those, or TORCH in .ci/lock.py, not this file.
# On Linux PyPI's torch also brings its CUDA packages (nvidia-*, triton), which it pins itself;
# PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu takes the small CPU build instead.
"""


def stand_in(folder: Path) -> None:
    """Write a wheel that has torch's name, version and requirements, and nothing else."""
    version = f"{TORCH}+standin"  # sorts above +cpu, and `==TORCH` accepts it
    info = f"torch-{version}.dist-info"
    needs = "".join(f"Requires-Dist: {line}\n" for line in TORCH_NEEDS)
    with zipfile.ZipFile(folder / f"torch-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: torch\nVersion: {version}\n{needs}"
        )
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")


def speak_for(version: str, env: Path) -> list[str]:
    """Let pip in `env` resolve for Python `version`; return the options that it needs for it."""
    # pip's options choose wheels and hold Requires-Python; markers need the version itself.
    [site] = env.glob("lib/python*/site-packages")
    (site / "sitecustomize.py").write_text(
        "import platform\n"
        f"platform.python_version = lambda: {version + '.0'!r}\n"
        f"platform.python_version_tuple = lambda: {(*version.split('.'), '0')!r}\n"
    )
    machine = os.uname().machine
    platforms = [f"manylinux_2_{glibc}_{machine}" for glibc in range(28, 16, -1)]
    platforms.append(f"manylinux2014_{machine}")  # pip takes those before it for granted
    options = [option for name in platforms for option in ("--platform", name)]
    return ["--python-version", version, *options, "--target", str(env / "target")]


def resolve(
    python: str, instead: str | None, constraints: str, folder: Path
) -> tuple[str, dict[str, str]]:
    """The version of `python`, and name -> version of all that it would install.

    Where there is no `python` here, `instead` resolves for it.
    """
    env = folder / "env"
    interpreter = shutil.which(python) or instead
    if interpreter is None:
        raise SystemExit(f"Expected an installed Python, found no {python}.")
    subprocess.run([interpreter, "-m", "venv", "--clear", env], check=True)
    bin_python = env / "bin" / "python"
    pip = [bin_python, "-m", "pip", "-qq", "install"]
    subprocess.run([*pip, "--upgrade", "pip"], check=True)
    options = []
    if shutil.which(python) is None:
        named = re.search(r"(\d\.\d+)$", python)
        if named is None:
            raise SystemExit(f"Expected an installed Python or a name such as python3.14: {python}")
        options = speak_for(named[1], env)
    (folder / "constraints.txt").write_text(f"torch=={TORCH}\n{constraints}")
    subprocess.run(
        [
            *pip,
            *("--dry-run", "--ignore-installed", "--only-binary", ":all:", *options),
            *("--find-links", folder, "--constraint", folder / "constraints.txt"),
            *("--report", folder / "report.json", f"{ROOT}[dev]"),
        ],
        check=True,
    )
    report = json.loads((folder / "report.json").read_text())
    found = {item["metadata"]["name"]: item["metadata"]["version"] for item in report["install"]}
    del found["mico_competition"]
    found["torch"] = TORCH
    major, minor = report["environment"]["python_version"].split(".")
    return f"{major}.{minor}", found


def marker(has: list[bool], versions: list[str]) -> str:
    """The environment marker of a package that the Pythons with `has` need."""
    if all(has):
        return ""
    if has == sorted(has, reverse=True):
        return f' ; python_version < "{versions[has.index(False)]}"'
    if has == sorted(has):
        return f' ; python_version >= "{versions[has.index(True)]}"'
    raise SystemExit(f"Expected a range of Pythons, found {list(zip(versions, has, strict=True))}")


def main(pythons: list[str]) -> None:
    """Resolve with each Python in turn and write requirements.txt."""
    pins: dict[str, str] = {}
    needed: list[dict[str, str]] = []
    versions: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        stand_in(Path(folder))
        instead = None
        for python in pythons:
            print(f"Resolving for {python}...", flush=True)
            constraints = "".join(f"{name}=={version}\n" for name, version in pins.items())
            version, found = resolve(python, instead, constraints, Path(folder))
            instead = shutil.which(python) or instead
            versions.append(version)
            needed.append(found)
            pins.update(found)
    lines = [
        f"{name}=={pins[name]}{marker([name in found for found in needed], versions)}\n"
        for name in sorted(pins, key=str.lower)
    ]
    text = HEAD.format(first=versions[0], last=versions[-1]) + "".join(lines)
    partial = ROOT / "requirements.txt.partial"
    partial.write_text(text)
    os.replace(partial, ROOT / "requirements.txt")
    print(f"requirements.txt: {len(lines)} packages for Python {versions[0]} to {versions[-1]}")


if __name__ == "__main__":
    main(sys.argv[1:])
