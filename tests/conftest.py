"""Fixtures that several test files share; nothing here downloads."""

import fcntl
import os
import shutil
import signal
import tempfile
import threading
from pathlib import Path

import pytest

from mico_competition.support import progress

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

os.environ.pop("MICO_COMPETITION", None)  # of whoever runs the tests

# One thread: these models are too small to gain from two, and threads that wait for a core that
# something else holds lose seconds.  Processes that tests start take it from the environment.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A loaded machine takes longer than the 30 seconds after which a line of progress is due.
progress.LOG_SECONDS = 3600.0

os.environ.setdefault("MICO_CACHE", tempfile.mkdtemp(prefix="mico_cache_"))

# What runs in the background of a script ignores Ctrl-C, and under nohup the end of its terminal,
# and so would all that tests start and stop so: to be ignored is inherited, a handler is not.
if threading.current_thread() is threading.main_thread():
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda *_: None)

ROOT = Path(__file__).resolve().parent.parent


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """What needs a browser, or the machine for itself, is slow."""
    for item in items:
        if "browser" in getattr(item, "fixturenames", ()) or item.get_closest_marker("alone"):
            item.add_marker("slow")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data (MICO_SHARED, or ../shared beside the repository), or a skip."""
    folder = Path(os.environ.get("MICO_SHARED", ROOT.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set MICO_SHARED to run this")
    return folder


@pytest.fixture(scope="module")
def browser():
    """A real Chromium, or a skip."""
    from helpers_browser import Browser

    opened = Browser()
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def data():
    """scikit-learn's digits as a dataset of the challenge; read-only."""
    from mico_competition.data.datasets import load_digits

    return load_digits()


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """The challenge folder of digits as training leaves it; read-only (copy what you change)."""
    from helpers_release import write_trained

    return write_trained(tmp_path_factory.mktemp("trained")) / "digits"


@pytest.fixture(scope="session")
def competition(tmp_path_factory):
    """All four challenges, trained small and released; read-only (copy what you change).

    The processes of pytest-xdist share one.
    """
    from small_competition import competition_in, train_competition

    base = tmp_path_factory.getbasetemp()
    root = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "competition"
    with open(root.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not root.with_suffix(".whole").exists():
            shutil.rmtree(root, ignore_errors=True)
            train_competition(root)
            root.with_suffix(".whole").touch()
    return competition_in(root)


@pytest.fixture(scope="module")
def small_fleet(tmp_path_factory):
    """12 train, 4 dev and 2 final models of digits_inf, and the cache of their signals."""
    from mico_competition.competition.layout import model_path
    from mico_competition.competition.splits import draw_seeds
    from mico_competition.competition.table import SCENARIOS, phase_of
    from mico_competition.data.datasets import load_digits
    from mico_competition.training.settings import resolve
    from mico_competition.training.train_many import Run, train_many

    root = tmp_path_factory.mktemp("fleet")
    ids = [*range(12), *range(100, 104), 150, 151]
    runs = [
        Run(
            draw_seeds(),
            model_path(root, SCENARIOS["digits_inf"], phase_of(i, "digits").name, i),
            i,
        )
        for i in ids
    ]
    settings = resolve({"scenario": "digits_inf"})
    assert len(list(train_many(settings, load_digits(), runs, progress=False))) == len(ids)
    return root / "digits"
