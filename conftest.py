"""Which modules pytest reads for examples (`--doctest-modules`): those that have some."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Leave out a file of the package without an example, and the tests' helpers.

    Importing such a file would take time, and may need a package that is not installed.
    """
    path = collection_path
    if path.suffix != ".py" or path.name.startswith("test_"):
        return None
    return b">>>" not in path.read_bytes() or path.is_relative_to(ROOT / "tests") or None
