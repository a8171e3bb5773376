"""The table holds what 2022 published, and everything reads it by name."""

import math
from dataclasses import replace

import pytest

from mico_competition.competition import table as tracks
from mico_competition.competition.table import CHALLENGES, SCENARIOS, TASKS

OFFICIAL = [s for s in SCENARIOS.values() if s.challenge in tracks.PUBLISHED]

# 2022's numbers, typed from shared/DESIGN.md section 4 and from nowhere in the code:
# epsilon, C, optimizer, learning rate, L, epochs, gamma, step
PUBLISHED = {
    "cifar10_inf": (math.inf, None, "sgd", 0.005, 32, 50, 0.96, 1),
    "cifar10_hi": (10, 2.6, "sgd", 0.5, 512, 50, 0.96, 1),
    "cifar10_lo": (4, 2.6, "sgd", 0.5, 512, 50, 0.96, 1),
    "cifar10_ddp": (4, 2.6, "sgd", 0.5, 512, 50, 0.96, 1),
    "purchase100_inf": (math.inf, None, "adam", 0.001, 512, 30, 0.9, 5),
    "purchase100_hi": (10, 2.6, "adam", 0.001, 512, 30, 0.9, 5),
    "purchase100_lo": (4, 2.6, "adam", 0.001, 512, 30, 0.9, 5),
    "purchase100_ddp": (4, 2.6, "adam", 0.001, 512, 30, 0.9, 5),
    "sst2_inf": (math.inf, None, "adamw", 5e-5, 96, 3, 1.0, 1),
    "sst2_hi": (10, 0.1, "adamw", 5e-4, 1024, 3, 1.0, 1),
    "sst2_lo": (4, 0.1, "adamw", 5e-4, 1024, 3, 1.0, 1),
    "sst2_ddp": (4, 0.1, "adamw", 5e-4, 1024, 3, 1.0, 1),
}


def test_twelve_scenarios_with_the_published_hyperparameters():
    found = {
        s.name: (
            s.target_epsilon,
            s.max_grad_norm,
            s.optimizer,
            s.learning_rate,
            s.batch_size,
            s.num_epochs,
            s.lr_scheduler_gamma,
            s.lr_scheduler_step,
        )
        for s in OFFICIAL
    }
    assert found == PUBLISHED
    assert {s.target_delta for s in OFFICIAL} == {1e-5}


def test_three_tasks_with_the_published_lengths():
    found = {
        t.name: (t.len_dataset, t.len_training, t.len_challenge)
        for t in TASKS.values()
        if t.name in tracks.PUBLISHED
    }
    assert found == {
        "cifar10": (60_000, 50_000, 100),
        "purchase100": (197_324, 150_000, 100),
        "sst2": (68_221, 67_349, 100),
    }


def test_phases_cover_200_models_once():
    ids = [i for phase in tracks.phases_of("cifar10").values() for i in phase.model_ids]
    assert ids == list(range(200))
    assert [tracks.phase_of(i, "cifar10").name for i in (0, 99, 100, 149, 150, 199)] == [
        "train",
        "train",
        "dev",
        "dev",
        "final",
        "final",
    ]


def test_scoreboard_order_is_hi_inf_lo():
    for challenge in ("cifar10", "purchase100", "sst2", "digits"):
        assert [name.split("_")[1] for name in CHALLENGES[challenge]] == ["hi", "inf", "lo"]
    assert CHALLENGES["ddp"] == ("cifar10_ddp", "purchase100_ddp", "sst2_ddp")


@pytest.mark.parametrize("scenario", OFFICIAL, ids=lambda s: s.name)
def test_disclosure(scenario):
    everything = {"seed_challenge", "seed_training", "seed_membership", "solution.csv"}
    assert set(tracks.disclosed_files(scenario, "train")) == everything
    hidden = (
        {"seed_challenge", "seed_training"} if scenario.challenge == "ddp" else {"seed_challenge"}
    )
    for phase in tracks.SCORED_PHASES:
        assert set(tracks.disclosed_files(scenario, phase)) == hidden


@pytest.mark.parametrize(
    ("look_up", "name"),
    [
        (tracks.get_task, "cifar100"),
        (tracks.get_scenario, "cifar10_low"),
        (lambda name: tracks.get_phase("ddp", name), "test"),
        (tracks.get_challenge, "dpp"),
    ],
)
def test_unknown_names_are_answered_with_the_known_ones(look_up, name):
    with pytest.raises(ValueError, match=f"{name}.*choose one of"):
        look_up(name)


def test_unknown_model_id():
    with pytest.raises(ValueError, match="200: .*final 150 to 199"):
        tracks.phase_of(200, "digits")


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ((1000, 500, 0), "len_challenge=0 >= 1"),
        ((1000, 50, 100), "len_training=50 >= len_challenge=100"),
        ((1000, 950, 100), "<= 1000"),
    ],
)
def test_lengths_without_room_are_refused(lengths, message):
    with pytest.raises(ValueError, match=message):
        tracks.check_lengths(*lengths)
    tracks.check_lengths(1000, 900, 100)


def test_the_table_cannot_be_changed():
    with pytest.raises(AttributeError):
        SCENARIOS["cifar10_lo"].target_epsilon = 8


def test_what_2022_published_is_fetched_by_one_command():
    assert set(tracks.PUBLISHED) == set(CHALLENGES) - {"digits", "baskets"}
    assert tracks.fetch_command("sst2", "/data/sst2") == "mico download sst2 --to /data"
    assert tracks.fetch_command("ddp", "ddp") == "mico download ddp --to ."
    assert tracks.fetch_command("ddp", "/my data/ddp") == "mico download ddp --to '/my data'"
    assert tracks.fetch_command("digits", "/data/digits") is None


def test_people_read_no_privacy_first_and_then_falling_epsilons():
    for challenge, names in CHALLENGES.items():
        epsilons = [SCENARIOS[name].target_epsilon for name in tracks.as_read(names)]
        assert epsilons == sorted(epsilons, reverse=True), challenge
    assert tracks.as_read(CHALLENGES["cifar10"]) == ["cifar10_inf", "cifar10_hi", "cifar10_lo"]
    labels = tracks.labels_of(CHALLENGES["digits"])
    assert list(labels.items()) == [
        ("digits_inf", "No DP"),
        ("digits_hi", "High ε = 10"),
        ("digits_lo", "Low ε = 4"),
    ]


@pytest.mark.parametrize("name", ["faces", "x_", "inf", "a.b", "lo_hi_new", "1"])
def test_a_label_needs_no_suffix(name):
    row = replace(SCENARIOS["digits_lo"], name=name, title="", target_epsilon=2.5)
    assert row.label == "ε = 2.5"
    assert replace(row, target_epsilon=float("inf"), max_grad_norm=None).label == "No DP"
    assert replace(row, title="Faces, noisy").label == "Faces, noisy"
    assert replace(row, title="Faces, ε is {epsilon}").label == "Faces, ε is 2.5"
