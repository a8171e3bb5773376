"""Names the command that installs a package which is missing."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

# The extra of setup.py that installs a package; other packages are always installed.
_EXTRAS = {
    **dict.fromkeys(("opacus", "cryptography"), "train"),
    **dict.fromkeys(("transformers", "datasets", "safetensors", "pyarrow"), "text"),
    "ray": "cluster",
}
_ROOT = Path(__file__).resolve().parents[3]  # the repository, unless the package is installed


def install(package: str) -> str:
    """The command that installs a package: an extra of the repository, or a requirement."""
    if (_ROOT / "setup.py").is_file():
        extra = _EXTRAS.get(package)
        return f"pip install -e '.[{extra}]'" if extra else "pip install -e ."
    try:
        lines = requires("mico_competition") or []
    except PackageNotFoundError:
        lines = []
    wanted = [line for line in lines if re.match(rf"{package}\b", line, re.IGNORECASE)]
    return f"pip install '{wanted[0].partition(';')[0].strip() if wanted else package}'"


def where() -> str:
    """Where the command runs: " in the repository" if it needs that, else nothing."""
    return " in the repository" if (_ROOT / "setup.py").is_file() else ""
