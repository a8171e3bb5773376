"""Labels that are added to a release when a phase is over are published and fetched."""

import pytest
from helpers_hub import published
from helpers_release import CHALLENGE, files_below, write_trained

from mico_competition.hosting.hub.download import fetch, plan_download
from mico_competition.hosting.hub.publish import publish
from mico_competition.release.add_labels import add_labels
from mico_competition.release.check_files import check_files
from mico_competition.release.release import release

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.mark.slow
def test_publish_uploads_the_change_and_download_fetches_it(hub, tmp_path):
    trained = write_trained(tmp_path / "trained")
    out = tmp_path / "released"
    release(trained, CHALLENGE, out)
    publish(out / CHALLENGE, "team/d", form="files", endpoint=hub.url)
    fetch(plan_download(CHALLENGE, tmp_path / "got", repo="team/d", endpoint=hub.url))
    assert files_below(tmp_path / "got") == published(out / CHALLENGE)
    add_labels(trained, CHALLENGE, out, "dev")
    hub.log.clear()
    publish(out / CHALLENGE, "team/d", endpoint=hub.url)
    sent = b"".join(r.body for r in hub.asked("/commit/main", "POST"))
    assert b"solution.csv" in sent and b"model.pt" not in sent
    plan = plan_download(CHALLENGE, tmp_path / "got", repo="team/d", endpoint=hub.url)
    assert len(plan.missing) == 3
    fetch(plan)
    assert files_below(tmp_path / "got") == published(out / CHALLENGE)
    assert check_files(tmp_path / "got" / CHALLENGE)[1] == []
