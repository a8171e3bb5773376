"""A leaderboard's site of made-up entries."""

import pytest
from helpers_leaderboard_site import AFTER, DEV, HOSTILE, OPENS, entry

from mico_competition.hosting.leaderboard.build import build
from mico_competition.hosting.leaderboard.entries import write_entry


@pytest.fixture(scope="module")
def entries(tmp_path_factory):
    folder = tmp_path_factory.mktemp("entries")
    for i, (name, score) in enumerate(DEV.items(), 1):
        write_entry(folder, entry(name, score, day=i, authors=[f"Author {name[0]}"]))
    for i, score in enumerate((0.12, 0.20, 0.14), 10):  # the latest is not the best
        write_entry(folder, entry("Resubmitted", score, day=i))
    write_entry(folder, entry("Finalist", 0.22, phase="final", day=12, authors=["Secret Person"]))
    write_entry(folder, entry("Other", 0.2, challenge="sst2", link="", authors=[], command=""))
    for i, text in enumerate(HOSTILE, 20):
        fields = {"authors": [text], "description": text, "command": text, "data_version": text}
        write_entry(folder, entry(text, 0.2, challenge="ddp", day=i, **fields))
    return folder


@pytest.fixture(scope="module")
def site(entries, tmp_path_factory):
    out = tmp_path_factory.mktemp("site") / "site"
    build(entries, out, final_opens=OPENS, now=AFTER)
    return out
