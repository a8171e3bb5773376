"""The Ray cluster that tests of fleets share."""

import pytest


@pytest.fixture(scope="module")
def nodes():
    """A cluster of two nodes, of the test's module; a skip without Ray."""
    from helpers_ray import two_nodes

    with two_nodes() as two:
        yield two
