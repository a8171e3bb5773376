"""Downloads of a small made-up challenge."""

from helpers_hub import made_up

from mico_competition.hosting.hub.download import fetch, plan_download

MB = 1 << 20
PLACES = [
    f"cifar10_{kind}/{phase}/model_{i}"
    for kind in ("inf", "lo")
    for phase, i in (("train", 0), ("train", 1), ("dev", 100), ("final", 150))
]
FIRST = "cifar10_inf/train/model_0"


def with_small(hub):
    """`hub` with a repository `team/small` that holds eight models."""
    hub.add("team/small", {"README.md": b"page", "index/a.csv": b"a", **made_up(*PLACES)})
    return hub


def get(hub, to, *, repo="team/small", **choice):
    """Plan and fetch; gives the number of models fetched."""
    plan = plan_download("cifar10", to, repo=repo, endpoint=hub.url, **choice)
    return fetch(plan)


def asked_for_files(hub):
    return [r for r in hub.log if "/resolve/" in r.path]
