"""A Hub on this machine, for the tests of downloads and uploads."""

import pytest
from helpers_hub import online
from helpers_publish import write_made_up_release
from helpers_release import write_release
from hub_server import running_hub


@pytest.fixture
def hub(monkeypatch):
    """A Hub without repositories."""
    with running_hub() as hub, online(monkeypatch):
        yield hub


@pytest.fixture(scope="session")
def original(tmp_path_factory):
    """The models of the digits and their release; read-only."""
    return write_release(tmp_path_factory.mktemp("release"))


@pytest.fixture
def release(tmp_path):
    """A made-up release of eight models, as single files only."""
    return write_made_up_release(tmp_path / "released" / "cifar10")
