"""Scripts of benchmarks/ as modules, for tests of the pages that they write."""

import importlib.util
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"


@contextmanager
def script_of(name):
    """The module of `benchmarks/<name>.py`, which may import other scripts while it is used."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        patch.setitem(sys.modules, name, module)  # where dataclasses look for it
        spec.loader.exec_module(module)
        yield module
