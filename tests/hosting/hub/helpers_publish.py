"""A made-up release to publish, and what a Hub then has of it."""

import json
from collections import Counter

import yaml
from helpers_hub import add_sums, made_up

SCENARIOS = ("cifar10_inf", "cifar10_lo")
PHASES = (("train", 0), ("train", 1), ("dev", 100), ("final", 150))
PLACES = [f"{scenario}/{phase}/model_{i}" for scenario in SCENARIOS for phase, i in PHASES]
DEV = "cifar10_lo/dev/model_100"


def write_made_up_release(folder, size=1000, scenarios=SCENARIOS, phases=PHASES):
    """A made-up release, by default of eight models, with weights of `size` bytes."""
    places = [f"{scenario}/{phase}/model_{i}" for scenario in scenarios for phase, i in phases]
    for path, content in made_up(*places, size=size).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    for place in places:
        privacy = {"epsilon": 3.9876, "delta": 1e-5} if "_inf" not in place else None
        text = json.dumps({"format": 1, "privacy": privacy, "len_dataset": 60_000})
        (folder / place / "metadata.json").write_text(text)
    (folder.parent / "cifar10.release").mkdir()
    committed = {place: "0" * 64 for place in places if "/train/" not in place}
    value = {"format": 1, "challenge": "cifar10", "commitments": committed}
    (folder.parent / "cifar10.release/commitments.json").write_text(json.dumps(value))
    return write_release_json(folder, scenarios, phases)


def write_release_json(folder, scenarios=SCENARIOS, phases=PHASES, **accuracy):
    """release.json as `mico release` writes it, and the checksums anew."""
    counts = Counter(phase for phase, _ in phases)
    stated = {
        name: {
            "phases": dict(counts),
            "privacy": {"epsilon": 3.9876, "delta": 1e-5} if "_inf" not in name else None,
            "accuracy": accuracy.get(name),
            "len_dataset": 60_000,
            "len_training": 50_000,
            "len_challenge": 100,
        }
        for name in scenarios
    }
    value = {"format": 2, "challenge": "cifar10", "revealed": [], "scenarios": stated}
    (folder.parent / "cifar10.release/release.json").write_text(json.dumps(value))
    return add_sums(folder)


def beside(folder, name):
    """A file in what lies beside a challenge folder."""
    return folder.parent / f"{folder.name}.release" / name


def uploads(hub):
    """Requests that sent content: to the storage, or in commits."""
    return [r for r in hub.log if r.method == "PUT" or "/commit/" in r.path]


def card_of(hub, repo):
    """The page's front matter and its text."""
    text = hub.repositories[repo].files["README.md"].decode()
    _, head, body = text.split("---\n", 2)
    return yaml.safe_load(head), body
