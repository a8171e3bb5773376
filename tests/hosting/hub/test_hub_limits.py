"""`mico download` against a Hub that lists one thing and sends another, or lists without end."""

import pytest
from helpers_download import FIRST, PLACES, asked_for_files, get, with_small
from helpers_hub import Fault, made_up

from mico_competition.hosting.hub import client, transfer
from mico_competition.hosting.hub.client import HubError, HubFile, WrongFileError


@pytest.fixture
def hub(hub):
    return with_small(hub)


@pytest.mark.parametrize(
    "content", ["seed_challenge", "solution.csv", "metadata.json", "SHA256SUMS"]
)
def test_a_small_file_that_is_listed_with_gigabytes(hub, tmp_path, monkeypatch, content):
    real = client.list_files

    def larger(*arguments):
        commit, files = real(*arguments)
        names = {"SHA256SUMS": "cifar10.release/SHA256SUMS"}
        path = names.get(content, f"{FIRST}/{content}")
        rest = [file for file in files if file.path != path]
        return commit, [*rest, HubFile(path, 4 << 30, "0" * 40)]

    monkeypatch.setattr("mico_competition.hosting.hub.download.list_files", larger)
    with pytest.raises(HubError, match=rf"lists {content}.* with 4,294,967,296 bytes, over 1"):
        get(hub, tmp_path)
    assert asked_for_files(hub) == [] and not (tmp_path / "cifar10").exists()


def test_no_more_of_a_file_is_written_than_its_listing_says(hub, tmp_path, monkeypatch):
    written = []
    finish = transfer._Files._finish_first

    def noted(files, whole=True):
        file, path = files._left[0]
        if files._file:
            files._file.flush()
        part = file.part(path)
        written.append(part.stat().st_size if part.exists() else 0)
        finish(files, whole)

    monkeypatch.setattr(transfer._Files, "_finish_first", noted)
    hub.faults[f"{FIRST}/model.pt"] = Fault(instead=bytes(3 << 20))
    with pytest.raises(WrongFileError, match="model.pt has not the checksum"):
        get(hub, tmp_path)
    assert max(written) <= max(len(c) for n, c in made_up(*PLACES).items() if n.endswith(".pt"))
    assert (
        not (tmp_path / "cifar10" / FIRST).exists() and (tmp_path / "cifar10" / PLACES[1]).exists()
    )


def test_a_repository_of_endless_files(hub, tmp_path, monkeypatch):
    from huggingface_hub.hf_api import HfApi, RepoFile

    taken = 0

    def endless(*_, **__):
        nonlocal taken
        while True:
            taken += 1
            yield RepoFile(path=f"x{taken}", size=1, oid="0" * 40)

    monkeypatch.setattr(HfApi, "list_repo_tree", endless)
    monkeypatch.setattr(client, "MAX_ENTRIES", 1_000)
    with pytest.raises(HubError, match="lists over 1,000 files"):
        get(hub, tmp_path)
    assert taken == 1_001
