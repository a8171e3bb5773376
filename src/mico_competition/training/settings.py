"""The settings of a training run: those of a scenario, with flags that override them, checked.

This module needs no torch.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from mico_competition.competition.table import (
    OPTIMIZERS,
    PRECISIONS,
    SCENARIOS,
    Scenario,
    Task,
    check_lengths,
    get_scenario,
    get_task,
    steps_per_epoch,
)

# The most examples of each model in one forward pass.  This is a setting of the machine and not of
# the mechanism, so it is not in the table.  2022 used 128 everywhere; small models are faster with
# more.
PHYSICAL_BATCH_SIZE = {"cnn": 128, "roberta": 64}
DEFAULT_PHYSICAL_BATCH_SIZE = 4096

_NOT_FILLED = {
    "target_epsilon": "--target_epsilon, or --disable_dp,",
    "target_delta": "--target_delta",
    "max_grad_norm": "--max_grad_norm",
    "optimizer": "--optimizer",
    "learning_rate": "--learning_rate",
    "batch_size": "--batch_size",
    "num_epochs": "--num_epochs",
}


@dataclass(frozen=True)
class Settings:
    """The complete settings of one run, named like the flags.

    `target_epsilon` is infinite, and `max_grad_norm` None, exactly if `disable_dp` is True.
    """

    task: str
    scenario: str | None
    len_training: int
    len_challenge: int
    disable_dp: bool
    target_epsilon: float
    target_delta: float
    max_grad_norm: float | None
    optimizer: str
    learning_rate: float
    batch_size: int
    num_epochs: int
    lr_scheduler_gamma: float
    lr_scheduler_step: int
    max_physical_batch_size: int
    grad_sample_mode: str
    members_first: bool
    model_name: str | None
    train_seed: int | None
    secure_mode: bool
    max_evaluation_records: int | None = None
    precision: str = PRECISIONS[0]
    cuda_graphs: bool = False

    @property
    def steps_per_epoch(self) -> int:
        """ceil(n / L)."""
        return steps_per_epoch(self.len_training, self.batch_size)

    @property
    def num_steps(self) -> int:
        """The number of steps of the whole run."""
        return self.steps_per_epoch * self.num_epochs

    @property
    def sample_rate(self) -> float:
        """The sampling rate q = 1 / ceil(n / L), each record's chance to be in a private batch."""
        return 1 / self.steps_per_epoch

    @property
    def expected_batch_size(self) -> int:
        """floor(q n), by which Opacus, in 2022 and today, divides the noisy sum."""
        return self.len_training // self.steps_per_epoch

    def public(self) -> dict[str, Any]:
        """The settings that may be published: without the seed of training."""
        hidden = ("train_seed", "max_evaluation_records", "cuda_graphs")
        values = {k: _json(v) for k, v in asdict(self).items() if k not in hidden}
        if self.model_name is not None and Path(self.model_name).exists():
            values["model_name"] = Path(self.model_name).name  # its path must not be published
        return {**values, "num_steps": self.num_steps, "sample_rate": self.sample_rate}


def _json(value: Any) -> Any:
    """The value for JSON, which has no infinity: an infinite epsilon becomes null."""
    return None if isinstance(value, float) and math.isinf(value) else value


def resolve(flags: Mapping[str, Any]) -> Settings:
    """Make the settings of a run from flags; the scenario fills in those that are not given.

    Args:
        flags: values by the names of `Settings`, None if not given; `scenario` or `task` is needed.

    Raises:
        ValueError: naming the flag, its value and the fix.
    """
    given = {name: value for name, value in flags.items() if value is not None}
    scenario = get_scenario(given["scenario"]) if "scenario" in given else None
    task = _task(given, scenario)
    filled: dict[str, Any] = {
        "lr_scheduler_gamma": 1.0,
        "lr_scheduler_step": 1,
        "precision": PRECISIONS[0],
        "cuda_graphs": False,
        "disable_dp": False,
        "members_first": False,
        "grad_sample_mode": "bookkeeping",
        "model_name": task.base_model,
        "max_physical_batch_size": PHYSICAL_BATCH_SIZE.get(
            task.architecture, DEFAULT_PHYSICAL_BATCH_SIZE
        ),
        "train_seed": None,
        "secure_mode": False,
        "len_training": task.len_training,
        "len_challenge": task.len_challenge,
    }
    if scenario:
        filled.update(stated_by(scenario), disable_dp=not scenario.private)
    filled.update(given)
    filled["task"] = task.name
    filled["scenario"] = scenario.name if scenario else None
    _settle_privacy(filled, given, scenario)
    _check_filled(filled)
    values: dict[str, Any] = {f.name: filled.get(f.name) for f in fields(Settings)}
    settings = Settings(**values)
    check(settings)
    return settings


def stated_by(scenario: Scenario) -> dict[str, Any]:
    """The settings that the rows of a scenario and its task state, which flags may override."""
    task = get_task(scenario.task)
    row = {**vars(scenario), **vars(task)}
    return {f.name: row[f.name] for f in fields(Settings) if f.name != "task" and f.name in row}


def _task(given: Mapping[str, Any], scenario: Scenario | None) -> Task:
    if scenario is None and "task" not in given:
        raise ValueError("Give --scenario, or --task with every setting.")
    task = get_task(scenario.task if scenario else given["task"])
    if given.get("task", task.name) != task.name:
        raise ValueError(
            f"Scenario {scenario.name} is of task {task.name}, not {given['task']}: "  # type: ignore[union-attr]
            "leave --task out."
        )
    return task


def _settle_privacy(
    filled: dict[str, Any], given: Mapping[str, Any], scenario: Scenario | None
) -> None:
    """Decide whether the run is private; ValueError if flags contradict each other."""
    epsilon = given.get("target_epsilon", math.inf)
    if given.get("disable_dp") and (not math.isinf(epsilon) or (scenario and scenario.private)):
        name = f"scenario {scenario.name}" if scenario and scenario.private else "--target_epsilon"
        raise ValueError(f"--disable_dp contradicts {name}: leave one of them out.")
    if scenario and not scenario.private and not math.isinf(epsilon):
        raise ValueError(
            f"Scenario {scenario.name} trains without privacy: leave --target_epsilon out, or "
            f"choose one of {', '.join(s.name for s in SCENARIOS.values() if s.private)}."
        )
    if "target_epsilon" in given and math.isinf(epsilon) and not filled["disable_dp"]:
        raise ValueError("Expected a finite --target_epsilon: to train without, use --disable_dp.")
    if filled["disable_dp"]:
        filled.update(target_epsilon=math.inf, max_grad_norm=None)
        filled.setdefault("target_delta", 0.0)


def _check_filled(filled: Mapping[str, Any]) -> None:
    for name, flag in _NOT_FILLED.items():
        if filled.get(name) is None and not (name == "max_grad_norm" and filled["disable_dp"]):
            raise ValueError(f"Give {flag} or a --scenario that fills it.")


def check(settings: Settings, len_dataset: int | None = None) -> None:
    """Raise ValueError, with name, value and range, for the first setting out of range."""
    s = settings
    for name in ("batch_size", "num_epochs", "lr_scheduler_step", "max_physical_batch_size"):
        _expect(getattr(s, name) >= 1, name, getattr(s, name), ">= 1")
    if s.max_evaluation_records is not None:
        value = s.max_evaluation_records
        _expect(value >= 0, "max_evaluation_records", value, ">= 0")
    for name in ("learning_rate", "lr_scheduler_gamma"):
        value = getattr(s, name)
        _expect(0 < value < math.inf, name, value, "> 0 and finite")
    if s.optimizer not in OPTIMIZERS:
        raise ValueError(
            f"Unknown optimizer {s.optimizer!r}: choose one of {', '.join(OPTIMIZERS)}."
        )
    if s.cuda_graphs and not s.disable_dp and s.grad_sample_mode != "bookkeeping":
        raise ValueError(
            f"--cuda_graphs does not work in grad_sample_mode {s.grad_sample_mode}: leave it out, "
            "or choose bookkeeping."
        )
    check_precision(s.precision, s.grad_sample_mode if not s.disable_dp else None)
    if not s.disable_dp:
        _expect(
            0 < s.target_epsilon < math.inf, "target_epsilon", s.target_epsilon, "> 0 and finite"
        )
        _expect(0 < s.target_delta < 1, "target_delta", s.target_delta, "in (0, 1)")
        if s.members_first:
            raise ValueError("Private batches are Poisson draws: leave --members_first out.")
        norm = s.max_grad_norm or 0.0
        _expect(0 < norm < math.inf, "max_grad_norm", norm, "> 0 and finite")
    if s.secure_mode:
        _check_secure(s)
    n, m = s.len_training, s.len_challenge
    task = get_task(s.task)
    if s.scenario and len_dataset not in (None, task.len_dataset) and n == task.len_training:
        raise ValueError(
            f"Expected the {task.len_dataset} records of {task.title} for scenario {s.scenario}, "
            f"got {len_dataset}: load the whole dataset, or give --len_training for a part of it."
        )
    check_lengths(n + m if len_dataset is None else len_dataset, n, m)
    if s.batch_size > n:
        raise ValueError(f"Expected batch_size={s.batch_size} <= len_training={n}.")


def check_precision(precision: str, grad_sample_mode: str | None = None) -> None:
    """Raise ValueError unless the precision exists, and a private run of the mode may have it."""
    if precision not in PRECISIONS:
        raise ValueError(f"Unknown precision {precision!r}: choose one of {', '.join(PRECISIONS)}.")
    if precision != PRECISIONS[0] and grad_sample_mode not in (None, "bookkeeping"):
        raise ValueError(
            f"precision {precision} does not work with Opacus' mode {grad_sample_mode!r}, which "
            "would compute norms and clipped sums in low precision: use bookkeeping."
        )


def _check_secure(s: Settings) -> None:
    if s.disable_dp:
        raise ValueError("--secure_mode is for private training: leave it out with --disable_dp.")
    if s.train_seed is not None:
        raise ValueError("--secure_mode cannot be repeated: leave --train_seed out.")
    if s.grad_sample_mode != "bookkeeping":
        raise ValueError(
            f"--secure_mode does not work with Opacus' mode {s.grad_sample_mode!r}: leave "
            "--grad_sample_mode out."
        )


def _expect(holds: bool, name: str, value: Any, bound: str) -> None:
    if not holds:
        raise ValueError(f"Expected {name}={value} {bound}.")


def comparable(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as JSON gives them back, and of the base model's path the last part."""
    name = settings.get("model_name")
    plain = {**settings, "model_name": None if name is None else Path(str(name)).name}
    values: dict[str, Any] = json.loads(json.dumps(plain))
    return values
