"""The table: every task, scenario, phase and challenge, and what is disclosed of each.

This is the only place that knows the competition's constants.  Flags, folders, notebooks,
release lists and scoreboard columns are derived from it.  Standard library only; it never
reads a file and never looks at data.

To add a dataset of your own, add a `Task` to `TASKS` and its scenarios to `_ROWS`, a loader to
`challenge_datasets.LOADERS`, and a constructor to `models.ARCHITECTURES` if the architecture is
new: docs/ORGANISE.md shows every line.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from math import ceil, inf, isinf
from shlex import quote
from typing import Any

SEED_FILES = ("seed_challenge", "seed_training", "seed_membership")
SOLUTION_FILE = "solution.csv"
PREDICTION_FILE = "prediction.csv"
METADATA_FILE = "metadata.json"


@dataclass(frozen=True)
class Task:
    """A dataset with the model that is trained on it.

    Lengths are in records: `len_dataset` is N, `len_training` is n (it counts the m members),
    `len_challenge` is m (a model has 2m challenge points).  `weights` are the files, beside
    those every model folder has, that hold the trained model; any of the alternatives
    separated by "|" will do when reading, the first is the one written.  `companions` are
    files that go with the weights where they exist.
    """

    name: str
    title: str
    architecture: str
    len_dataset: int
    len_training: int
    len_challenge: int
    num_classes: int
    weights: tuple[str, ...]
    companions: tuple[str, ...] = ()
    max_length: int | None = None  # tokens; text only
    base_model: str | None = None  # pretrained model that is fine-tuned; text only
    class_names: tuple[str, ...] = ()  # by label, where classes have names

    @property
    def text(self) -> bool:
        """Whether records are sentences, to be tokenised before they reach the model."""
        return self.max_length is not None


@dataclass(frozen=True)
class Disclosure:
    """The files, beside weights and public metadata, that participants get of a model."""

    train: tuple[str, ...] = (*SEED_FILES, SOLUTION_FILE)
    dev: tuple[str, ...] = ("seed_challenge",)
    final: tuple[str, ...] = ("seed_challenge",)


STANDARD = Disclosure()
DISTINGUISHER = Disclosure(
    dev=("seed_challenge", "seed_training"), final=("seed_challenge", "seed_training")
)


@dataclass(frozen=True)
class Phase:
    """A range of models: `first` <= id < `first` + `count`; `scored` by the platform or not.

    `step` is what public scores of the phase are multiples of, 0 if they are exact: where many
    submissions are allowed, exact scores tell labels (docs/HOST.md).
    """

    name: str
    first: int
    count: int
    scored: bool
    step: float = 0.0

    @property
    def model_ids(self) -> range:
        """Ids of the models of this phase, in order."""
        return range(self.first, self.first + self.count)


@dataclass(frozen=True)
class Scenario:
    """How the models of one track are trained, and what is told of them.

    `target_epsilon` is infinite for training without privacy, and `max_grad_norm` is then
    None.  `batch_size` is the (expected) logical batch L.  `title` is the scenario's name for
    people, in which "{epsilon}" stands for the target epsilon; without one it is "No DP" or
    "ε = 4".
    """

    name: str
    task: str
    challenge: str
    target_epsilon: float
    target_delta: float
    max_grad_norm: float | None
    optimizer: str
    learning_rate: float
    batch_size: int
    num_epochs: int
    lr_scheduler_gamma: float = 1.0
    lr_scheduler_step: int = 1
    disclosure: Disclosure = STANDARD
    title: str = ""

    @property
    def private(self) -> bool:
        """Whether models are trained with DP-SGD."""
        return not isinf(self.target_epsilon)

    @property
    def label(self) -> str:
        """The scenario's name for people; `labels_of` makes it unique within a challenge."""
        text = self.title or _PRIVATE
        if _EPSILON in text and not self.private:
            return "No DP"
        return text.replace(_EPSILON, f"{self.target_epsilon:g}")


_EPSILON = "{epsilon}"
_PRIVATE = f"ε = {_EPSILON}"


def steps_per_epoch(len_training: int, batch_size: int) -> int:
    """ceil(n / L): logical batches in an epoch, and 1 / sampling rate of DP-SGD."""
    return ceil(len_training / batch_size)


def check_lengths(len_dataset: int, len_training: int, len_challenge: int) -> None:
    """ValueError unless N, n and m leave room for every part of the split.

    The parts are 2m challenge points, n - m further training records, and the N - n - m
    records left for evaluation.
    """
    n, m = len_training, len_challenge
    if m < 1:
        raise ValueError(f"Expected len_challenge={m} >= 1.")
    if n < m:
        raise ValueError(f"Expected len_training={n} >= len_challenge={m}: members are trained on.")
    if n + m > len_dataset:
        raise ValueError(
            f"Expected len_training={n} + len_challenge={m} <= {len_dataset}, the number of "
            "records in the dataset."
        )


def _tasks(*tasks: Task) -> Mapping[str, Task]:
    return {task.name: task for task in tasks}


TASKS: Mapping[str, Task] = _tasks(
    Task(
        *("cifar10", "CIFAR-10", "cnn", 60_000, 50_000, 100, 10, ("model.pt",)),
        class_names=(
            *("airplane", "automobile", "bird", "cat", "deer"),
            *("dog", "frog", "horse", "ship", "truck"),
        ),
    ),
    Task("purchase100", "Purchase-100", "mlp", 197_324, 150_000, 100, 100, ("model.pt",)),
    Task(
        "sst2",
        "SST-2",
        "roberta",
        68_221,
        67_349,
        100,
        2,
        ("config.json", "model.safetensors|pytorch_model.bin"),
        companions=("tokenizer.json", "tokenizer_config.json"),
        max_length=67,
        base_model="roberta-base",
        class_names=("negative", "positive"),
    ),
    # The demonstration: scikit-learn's 8x8 digits.
    Task(
        "digits",
        "Digits (demonstration)",
        "digits_mlp",
        1_797,
        120,
        100,
        10,
        ("model.pt",),
    ),
    # A test bed for attacks: synthetic baskets, 2.57 records to a first-layer weight as in the
    # real Purchase-100, where the joint decoder gains least (docs/ATTACKS.md).
    Task(
        "baskets",
        "Baskets (synthetic test bed)",
        "baskets_mlp",
        19_732,
        15_000,
        100,
        20,
        ("model.pt",),
    ),
)

PHASES: Mapping[str, Phase] = {
    phase.name: phase
    for phase in (
        Phase("train", 0, 100, scored=False),
        Phase("dev", 100, 50, scored=True, step=0.005),
        Phase("final", 150, 50, scored=True),
    )
}

SCORED_PHASES: tuple[str, ...] = tuple(name for name, phase in PHASES.items() if phase.scored)


def _levels(plain: Scenario, **private: Any) -> tuple[Scenario, ...]:
    """A task's scenarios: `plain`, named `<task>_inf`, then `_hi` at epsilon 10 and `_lo` at 4.

    `private` is what changes with privacy: `max_grad_norm` always, other columns as needed.
    """
    high, low = (
        replace(
            plain,
            name=f"{plain.task}_{level[:2].lower()}",
            target_epsilon=epsilon,
            title=f"{level} {_PRIVATE}",
            **private,
        )
        for level, epsilon in (("High", 10.0), ("Low", 4.0))
    )
    return plain, high, low


def _distinguisher(low: Scenario) -> Scenario:
    """The scenario of challenge `ddp` that is trained as `low` and discloses more."""
    # No spaces: with "Balanced accuracy" the title just fits above a column of a board.
    title = f"{TASKS[low.task].title}, ε={_EPSILON}"
    name = f"{low.task}_ddp"
    return replace(low, name=name, challenge="ddp", disclosure=DISTINGUISHER, title=title)


_DELTA = 1e-5
_CIFAR10 = _levels(
    Scenario("cifar10_inf", "cifar10", "cifar10", inf, _DELTA, None, "sgd", 0.005, 32, 50, 0.96, 1),
    max_grad_norm=2.6,
    learning_rate=0.5,
    batch_size=512,
)
_PURCHASE100 = _levels(
    Scenario(
        *("purchase100_inf", "purchase100", "purchase100", inf, _DELTA, None),
        *("adam", 0.001, 512, 30, 0.9, 5),
    ),
    max_grad_norm=2.6,
)
_SST2 = _levels(
    Scenario("sst2_inf", "sst2", "sst2", inf, _DELTA, None, "adamw", 5e-5, 96, 3),
    max_grad_norm=0.1,
    learning_rate=5e-4,
    batch_size=1024,
)
_DIGITS = _levels(
    Scenario("digits_inf", "digits", "digits", inf, _DELTA, None, "adam", 0.002, 30, 60),
    max_grad_norm=1.0,
)
_BASKETS = _levels(
    replace(_PURCHASE100[0], name="baskets_inf", task="baskets", challenge="baskets"),
    max_grad_norm=2.6,
)

_ROWS: tuple[Scenario, ...] = (
    *_CIFAR10,
    *_PURCHASE100,
    *_SST2,
    *(_distinguisher(levels[-1]) for levels in (_CIFAR10, _PURCHASE100, _SST2)),
    *_DIGITS,
    *_BASKETS,
)

SCENARIOS: Mapping[str, Scenario] = {row.name: row for row in sorted(_ROWS, key=lambda r: r.name)}

CHALLENGES: Mapping[str, tuple[str, ...]] = {
    challenge: tuple(name for name, row in SCENARIOS.items() if row.challenge == challenge)
    for challenge in dict.fromkeys(row.challenge for row in _ROWS)
}


# Where 2022's challenge data are: dataset repositories of the Hugging Face Hub.  (In SST-2's the
# scenarios lie one level down, in a folder named after the challenge; `hub.listing` sees to it.)
PUBLISHED: Mapping[str, str] = {
    "cifar10": "szanella/MICO-CIFAR10",
    "purchase100": "szanella/MICO-purchase100",
    "sst2": "szanella/MICO-SST2",
    "ddp": "szanella/MICO-DDP",
}


def fetch_command(challenge: str, folder: str) -> str | None:
    """The shell command that puts 2022's data of `challenge` into `folder`, or None.

    `folder` is that of the challenge itself (`.../cifar10`).
    """
    if challenge not in PUBLISHED:
        return None
    return f"mico download {challenge} --to {quote(folder.rpartition('/')[0] or '.')}"


def _lookup(kind: str, table: Mapping, name: str):
    try:
        return table[name]
    except KeyError:
        known = ", ".join(table)
        raise ValueError(f"Unknown {kind} {name!r}: choose one of {known}.") from None


def get_task(name: str) -> Task:
    """The row of task `name`; ValueError naming the choices if there is none."""
    return _lookup("task", TASKS, name)


def get_scenario(name: str) -> Scenario:
    """The row of scenario `name`; ValueError naming the choices if there is none."""
    return _lookup("scenario", SCENARIOS, name)


def get_phase(name: str) -> Phase:
    """The row of phase `name`; ValueError naming the choices if there is none."""
    return _lookup("phase", PHASES, name)


def get_challenge(name: str) -> tuple[str, ...]:
    """Scenario names of challenge `name`, sorted (the scoreboard's scenario1, 2, 3)."""
    return _lookup("challenge", CHALLENGES, name)


def as_read(names: Iterable[str]) -> list[str]:
    """Names of scenarios in the order for people: no privacy first, then by falling epsilon."""
    return sorted(names, key=lambda name: (-get_scenario(name).target_epsilon, name))


def labels_of(names: Iterable[str]) -> dict[str, str]:
    """Scenario -> its label, in the order for people; labels that two share get their names."""
    labels = {name: get_scenario(name).label for name in as_read(names)}
    counts = Counter(labels.values())
    return {n: label if counts[label] == 1 else f"{label} ({n})" for n, label in labels.items()}


def phase_of(model_id: int) -> Phase:
    """The phase that model `model_id` belongs to; ValueError if none has it."""
    for phase in PHASES.values():
        if model_id in phase.model_ids:
            return phase
    last = max(phase.first + phase.count for phase in PHASES.values()) - 1
    raise ValueError(f"Unknown model id {model_id}: ids run from 0 to {last}.")


def disclosed_files(scenario: Scenario, phase: str) -> tuple[str, ...]:
    """Files, beside weights and public metadata, that a release of `phase` holds."""
    return getattr(scenario.disclosure, get_phase(phase).name)
