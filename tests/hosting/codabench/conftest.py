"""Good bundles, made once; read-only."""

import pytest
from helpers_bundle import make_bundle, read_zip


@pytest.fixture(scope="session")
def bundles(tmp_path_factory):
    """(challenge, platform) -> the zip of its bundle; what it was made from is in `trained`."""
    made = {}

    def get(challenge, platform="codabench"):
        if (challenge, platform) not in made:
            folder = tmp_path_factory.mktemp(f"{challenge}_{platform}")
            made[challenge, platform] = make_bundle(folder, challenge, platform)[0]
        return made[challenge, platform]

    return get


@pytest.fixture(scope="session")
def good(bundles):
    """Platform -> the files of the digits' bundle; copied before they are changed."""
    return {
        platform: read_zip(bundles("digits", platform)) for platform in ("codabench", "codalab")
    }
