"""The package's own competitions, read from their files, against the numbers of 2022."""

import tomllib
from importlib.resources import files

import pytest

from mico_competition.competition import table as tracks
from mico_competition.competition.reader import parse_competition

FOLDER = files("mico_competition.competition")
TEXT = (FOLDER / "mico2022.toml").read_text(encoding="utf-8")
FILE = tomllib.loads(TEXT)
INF = float("inf")

# DESIGN section 4, typed from there: N, n, m, model.
TASKS = {
    "cifar10": (60_000, 50_000, 100, "cnn"),
    "purchase100": (197_324, 150_000, 100, "mlp"),
    "sst2": (68_221, 67_349, 100, "roberta"),
}
# epsilon, C, optimiser, learning rate, batch L, epochs, gamma, step
ROWS = {
    "cifar10_inf": (INF, None, "sgd", 0.005, 32, 50, 0.96, 1),
    "cifar10_hi": (10, 2.6, "sgd", 0.5, 512, 50, 0.96, 1),
    "cifar10_lo": (4, 2.6, "sgd", 0.5, 512, 50, 0.96, 1),
    "cifar10_ddp": (4, 2.6, "sgd", 0.5, 512, 50, 0.96, 1),
    "purchase100_inf": (INF, None, "adam", 0.001, 512, 30, 0.9, 5),
    "purchase100_hi": (10, 2.6, "adam", 0.001, 512, 30, 0.9, 5),
    "purchase100_lo": (4, 2.6, "adam", 0.001, 512, 30, 0.9, 5),
    "purchase100_ddp": (4, 2.6, "adam", 0.001, 512, 30, 0.9, 5),
    "sst2_inf": (INF, None, "adamw", 5e-5, 96, 3, None, None),
    "sst2_hi": (10, 0.1, "adamw", 5e-4, 1024, 3, None, None),
    "sst2_lo": (4, 0.1, "adamw", 5e-4, 1024, 3, None, None),
    "sst2_ddp": (4, 0.1, "adamw", 5e-4, 1024, 3, None, None),
}
COLUMNS = (
    *("target_epsilon", "max_grad_norm", "optimizer", "learning_rate", "batch_size"),
    *("num_epochs", "lr_scheduler_gamma", "lr_scheduler_step"),
)
SEEDS = ["seed_challenge", "seed_training", "seed_membership"]


def test_the_file_of_2022_holds_twelve_whole_rows():
    found = {
        name: tuple(row.get(column) for column in COLUMNS) for name, row in FILE["scenario"].items()
    }
    assert found == ROWS
    assert {row["target_delta"] for row in FILE["scenario"].values()} == {1e-5}
    tasks = {
        name: (row["records"], row["training"], row["challenge"], row["model"])
        for name, row in FILE["task"].items()
    }
    assert tasks == TASKS
    assert FILE["task"]["sst2"]["max_length"] == 67
    assert FILE["task"]["sst2"]["base_model"] == "roberta-base"


def test_the_file_of_2022_has_its_phases_challenges_and_disclosure():
    assert {name: row["models"] for name, row in FILE["phase"].items()} == {
        "train": [0, 99],
        "dev": [100, 149],
        "final": [150, 199],
    }
    challenges: dict[str, set[str]] = {}
    for name, row in FILE["scenario"].items():
        challenges.setdefault(row["challenge"], set()).add(name)
    levels = ("inf", "hi", "lo")
    assert challenges == {
        **{task: {f"{task}_{level}" for level in levels} for task in TASKS},
        "ddp": {f"{task}_ddp" for task in TASKS},
    }
    standard, distinguisher = (FILE["disclosure"][n] for n in ("standard", "distinguisher"))
    everything = [*SEEDS, "solution.csv"]
    assert standard == {"train": everything, "dev": SEEDS[:1], "final": SEEDS[:1]}
    assert distinguisher == {"train": everything, "dev": SEEDS[:2], "final": SEEDS[:2]}
    for name, row in FILE["scenario"].items():
        expected = "distinguisher" if name.endswith("_ddp") else "standard"
        assert row["disclosure"] == expected
    assert {name: row["published"] for name, row in FILE["challenge"].items()} == {
        "cifar10": "szanella/MICO-CIFAR10",
        "purchase100": "szanella/MICO-purchase100",
        "sst2": "szanella/MICO-SST2",
        "ddp": "szanella/MICO-DDP",
    }


def test_what_the_reader_makes_of_the_file_is_what_it_says():
    table = parse_competition(TEXT, "mico2022.toml")
    for name, (epsilon, norm, optimizer, rate, batch, epochs, gamma, step) in ROWS.items():
        row = table.scenarios[name]
        assert (row.target_epsilon, row.max_grad_norm) == (epsilon, norm)
        assert (row.optimizer, row.learning_rate) == (optimizer, rate)
        assert (row.batch_size, row.num_epochs) == (batch, epochs)
        assert (row.lr_scheduler_gamma, row.lr_scheduler_step) == (gamma or 1.0, step or 1)
    for name, (records, training, challenge, model) in TASKS.items():
        row = table.tasks[name]
        assert (row.len_dataset, row.len_training, row.len_challenge) == (
            records,
            training,
            challenge,
        )
        assert row.architecture == model
    assert table.code == ()


@pytest.mark.parametrize("name", tracks.BUILT_IN)
def test_the_packages_own_files_stand_in_the_table_and_share_their_phases(name):
    found = parse_competition((FOLDER / f"{name}.toml").read_text(encoding="utf-8"), name)
    assert found.tasks.items() <= tracks.TASKS.items()
    assert found.scenarios.items() <= tracks.SCENARIOS.items()
    assert found.phases.items() <= tracks.current().phases.items()
    assert len({str(phases) for phases in tracks.current().phases.values()}) == 1
