"""Fixtures that several test files share; nothing here downloads."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data beside the repository (MICO_SHARED, or ../shared); skips if absent."""
    folder = Path(os.environ.get("MICO_SHARED", ROOT.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set MICO_SHARED to run this")
    return folder


@pytest.fixture(scope="session")
def competition(tmp_path_factory):
    """All four challenges, trained small and released; read-only (copy what you change)."""
    from small_competition import train_competition

    return train_competition(tmp_path_factory.mktemp("competition"))
