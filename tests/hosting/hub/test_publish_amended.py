"""A release that was amended is published, and fetched by who has the earlier one."""

import shutil

import pytest
from helpers_hub import published
from helpers_release import CHALLENGE, DEV, files_below, write_model, write_trained

from mico_competition.cli import main
from mico_competition.competition.splits import draw_seeds
from mico_competition.hosting.hub.client import HubError
from mico_competition.hosting.hub.download import fetch, plan_download
from mico_competition.hosting.hub.publish import publish
from mico_competition.release.amend import amend
from mico_competition.release.release import release

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.mark.slow
def test_an_amended_release_is_fetched_beside_what_was_kept(hub, tmp_path, capsys):
    trained = write_trained(tmp_path / "trained")
    out, got, kept = tmp_path / "released", tmp_path / "got", tmp_path / "kept"
    release(trained, CHALLENGE, out)
    publish(out / CHALLENGE, "team/d", endpoint=hub.url)
    fetch(plan_download(CHALLENGE, got, repo="team/d", endpoint=hub.url))
    shutil.rmtree(trained / CHALLENGE / DEV)
    write_model(trained / CHALLENGE / DEV, "digits_inf", 100, draw_seeds())
    amend(trained, CHALLENGE, out, "trained on other records")
    publish(out / CHALLENGE, "team/d", endpoint=hub.url)
    side = f"{CHALLENGE}.release"
    with pytest.raises(HubError, match="team/d was amended since you fetched it") as caught:
        plan_download(CHALLENGE, got, repo="team/d", endpoint=hub.url)
    assert str(caught.value).endswith(f": {got / CHALLENGE / DEV}, {got / side}")
    kept.mkdir()
    shutil.move(got / side, kept / side)
    shutil.move(got / CHALLENGE / DEV, kept / "model_100")
    plan = plan_download(CHALLENGE, got, repo="team/d", endpoint=hub.url)
    assert [model.relative_path for model in plan.missing] == [DEV]
    fetch(plan)
    assert files_below(got) == published(out / CHALLENGE)
    assert main(["verify", str(got / CHALLENGE), "--since", str(kept / side)]) == 0
    assert f"It descends from {kept / side}: 1 amendment since" in capsys.readouterr().out
