"""Flags and scenarios -> settings; every contradiction is refused with a sentence."""

import math

import pytest
from helpers_competition import competition_text

from mico_competition.competition.table import SCENARIOS, using
from mico_competition.training.settings import resolve

BY_HAND = {
    "task": "purchase100",
    "target_epsilon": 4.0,
    "target_delta": 1e-5,
    "max_grad_norm": 2.6,
    "optimizer": "adam",
    "learning_rate": 0.001,
    "batch_size": 512,
    "num_epochs": 30,
    "lr_scheduler_gamma": 0.9,
    "lr_scheduler_step": 5,
}


def test_a_scenarios_name_fills_in_what_2022_typed():
    assert resolve({"scenario": "purchase100_lo"}).public() == {
        **resolve(BY_HAND).public(),
        "scenario": "purchase100_lo",
    }


def test_flags_override_the_scenario():
    settings = resolve({"scenario": "cifar10_lo", "len_training": 5000, "num_epochs": 2})
    assert (settings.len_training, settings.num_epochs, settings.batch_size) == (5000, 2, 512)


@pytest.mark.parametrize(
    ("scenario", "steps", "rate", "expected"),
    [
        ("cifar10_hi", 98 * 50, 1 / 98, 510),
        ("purchase100_lo", 293 * 30, 1 / 293, 511),
        ("sst2_lo", 66 * 3, 1 / 66, 1020),
    ],
)
def test_steps_and_rates_of_2022(scenario, steps, rate, expected):
    settings = resolve({"scenario": scenario})
    assert (settings.num_steps, settings.sample_rate) == (steps, rate)
    assert settings.expected_batch_size == expected


def test_precision_is_float32_unless_a_row_or_a_flag_says_otherwise(tmp_path):
    assert {resolve({"scenario": name}).precision for name in SCENARIOS} == {"float32"}
    public = resolve({"scenario": "digits_inf", "precision": "bfloat16"}).public()
    assert public["precision"] == "bfloat16"
    file = tmp_path / "own.toml"
    file.write_text(competition_text({"faces_lo": {"precision": "bfloat16"}}))
    with using(file):
        assert resolve({"scenario": "faces_lo"}).precision == "bfloat16"
        assert resolve({"scenario": "faces_lo", "precision": "tf32"}).precision == "tf32"


def test_a_file_with_an_unknown_precision_is_refused(tmp_path):
    file = tmp_path / "own.toml"
    file.write_text(competition_text({"faces_lo": {"precision": "bfloat17"}}))
    with pytest.raises(ValueError, match="bfloat17.*did you mean bfloat16"), using(file):
        pass


def test_training_without_privacy_has_no_epsilon_to_report():
    settings = resolve({"scenario": "cifar10_inf"})
    assert settings.disable_dp and math.isinf(settings.target_epsilon)
    assert settings.public()["target_epsilon"] is None
    assert settings.max_grad_norm is None


def test_the_train_seed_is_not_public():
    assert "train_seed" not in resolve({"scenario": "cifar10_inf", "train_seed": 5}).public()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({}, "Give --scenario, or --task"),
        ({"scenario": "cifar10"}, "Unknown scenario 'cifar10'"),
        ({"task": "purchase100"}, "Give --target_epsilon, or --disable_dp,"),
        ({**BY_HAND, "max_grad_norm": None}, "Give --max_grad_norm"),
        ({"scenario": "cifar10_lo", "task": "sst2"}, "is of task cifar10, not sst2"),
        ({"scenario": "cifar10_lo", "disable_dp": True}, "contradicts scenario cifar10_lo"),
        ({**BY_HAND, "disable_dp": True}, "contradicts --target_epsilon"),
        ({"scenario": "cifar10_inf", "target_epsilon": 4.0}, "trains without privacy"),
        ({"scenario": "cifar10_lo", "target_epsilon": math.inf}, "use --disable_dp"),
        ({"scenario": "cifar10_lo", "target_epsilon": 0.0}, r"target_epsilon=0.0 > 0"),
        ({"scenario": "cifar10_lo", "target_epsilon": -1.0}, r"target_epsilon=-1.0 > 0"),
        ({"scenario": "cifar10_lo", "target_epsilon": math.nan}, r"target_epsilon=nan > 0"),
        ({"scenario": "cifar10_lo", "target_delta": 0.0}, r"target_delta=0.0 in \(0, 1\)"),
        ({"scenario": "cifar10_lo", "target_delta": 1.0}, r"target_delta=1.0 in \(0, 1\)"),
        ({"scenario": "cifar10_lo", "max_grad_norm": 0.0}, r"max_grad_norm=0.0 > 0"),
        ({"scenario": "cifar10_lo", "batch_size": 60_000}, "batch_size=60000 <= len_training"),
        ({"scenario": "cifar10_lo", "batch_size": 0}, "batch_size=0 >= 1"),
        ({"scenario": "cifar10_lo", "num_epochs": 0}, "num_epochs=0 >= 1"),
        (
            {"scenario": "cifar10_lo", "max_evaluation_records": -1},
            "max_evaluation_records=-1 >= 0",
        ),
        ({"scenario": "cifar10_lo", "learning_rate": 0.0}, "learning_rate=0.0 > 0"),
        ({"scenario": "cifar10_lo", "learning_rate": math.nan}, "learning_rate=nan > 0"),
        ({"scenario": "cifar10_lo", "len_training": 50}, "len_training=50 >= len_challenge=100"),
        ({"scenario": "cifar10_lo", "optimizer": "lion"}, "Unknown optimizer 'lion'"),
        ({"scenario": "cifar10_lo", "members_first": True}, "Poisson"),
    ],
)
def test_bad_flags_are_answered_with_a_sentence(flags, message):
    with pytest.raises(ValueError, match=message) as error:
        resolve(flags)
    assert "\n" not in str(error.value)
