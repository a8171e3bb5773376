"""A Hub on this machine, for the tests of downloads and uploads."""

import pytest
from helpers_hub import online
from hub_server import running_hub


@pytest.fixture
def hub(monkeypatch):
    """A Hub without repositories."""
    with running_hub() as hub, online(monkeypatch):
        yield hub
