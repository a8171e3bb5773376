"""Fixtures that several test files share; nothing here downloads."""

import os
import signal
import tempfile
import threading
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# One thread: these models are too small to gain from two, and threads that wait for a core that
# something else holds lose seconds.  Processes that tests start take it from the environment.
os.environ.setdefault("OMP_NUM_THREADS", "1")

os.environ.setdefault("MICO_CACHE", tempfile.mkdtemp(prefix="mico_cache_"))

# What runs in the background of a script ignores Ctrl-C, and so would all that tests start and
# stop with it; a handler of Python's is not inherited, being ignored is.
if (
    threading.current_thread() is threading.main_thread()
    and signal.getsignal(signal.SIGINT) == signal.SIG_IGN
):
    signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data (MICO_SHARED, or ../shared beside the repository), or a skip."""
    folder = Path(os.environ.get("MICO_SHARED", ROOT.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set MICO_SHARED to run this")
    return folder


@pytest.fixture(scope="session")
def data():
    """scikit-learn's digits as a dataset of the challenge; read-only."""
    from mico_competition.challenge_datasets import load_digits

    return load_digits()


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """The challenge folder of digits as training leaves it; read-only (copy what you change)."""
    from helpers_release import write_trained

    return write_trained(tmp_path_factory.mktemp("trained")) / "digits"


@pytest.fixture(scope="session")
def competition(tmp_path_factory):
    """All four challenges, trained small and released; read-only (copy what you change)."""
    from small_competition import train_competition

    return train_competition(tmp_path_factory.mktemp("competition"))
