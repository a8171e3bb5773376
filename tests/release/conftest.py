"""The release of the digits' models, and copies of it to change."""

import shutil

import pytest
from helpers_release import copied, write_release


@pytest.fixture(scope="session")
def original(tmp_path_factory):
    """The models and their release; read-only."""
    return write_release(tmp_path_factory.mktemp("release"))


@pytest.fixture
def planted(original, tmp_path):
    """The same with a copy of the release, to plant leaks in."""
    return copied(original, tmp_path)


@pytest.fixture
def copy(original, tmp_path):
    """(folder of trained models, folder released to), both to be changed."""
    trained = shutil.copytree(original.trained, tmp_path / "trained")
    return trained, shutil.copytree(original.root, tmp_path / "released")
