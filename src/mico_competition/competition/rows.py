"""The rows of a competition's table: tasks, scenarios, phases, and what is disclosed of models.

Plain values; where they come from is `reader`, and which competition is in use is the table's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import ceil, isinf
from pathlib import Path

SEED_FILES = ("seed_challenge", "seed_training", "seed_membership")
SOLUTION_FILE = "solution.csv"
PREDICTION_FILE = "prediction.csv"
METADATA_FILE = "metadata.json"
OPENINGS_FILE = "openings.json"  # of a release's commitments, in a trained challenge's folder
AMENDMENTS_FILE = "amendments.jsonl"  # of models replaced after publication, beside a release
COMPETITION_FILE = "competition.toml"  # of a competition of one's own, beside a release
# Submissions to dev that are allowed, a day and in all.
USUAL_SUBMISSIONS_PER_DAY, USUAL_SUBMISSIONS = 5, 100
USUAL_STEP = 0.005  # of public scores of dev, since exact ones reveal labels
OPTIMIZERS = ("sgd", "adam", "adamw")
PRECISIONS = ("float32", "tf32", "bfloat16")  # of the passes of training
PHASE_NAMES = ("train", "dev", "final")
# The package's datasets and models, which a file names without a module.
LOADERS = ("cifar10", "purchase100", "sst2", "digits", "baskets")
ARCHITECTURES = ("cnn", "mlp", "digits_mlp", "baskets_mlp")
MOST_EPSILON = 500.0  # the accountant computes e**loss, which overflows a double above 709


@dataclass(frozen=True)
class Task:
    """A dataset with the model that is trained on it.

    Lengths are in records: `len_dataset` is N, `len_training` is n (it counts the m members),
    `len_challenge` is m (a model has 2m challenge points).  `architecture` and `loader` are names
    in the package's registries, or dotted paths ("my_competition:load_faces") into code beside
    the competition's file; an empty `loader` is the task's own name.  `weights` are the files,
    beside those every model folder has, that hold the trained model; any of the alternatives
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
    loader: str = ""

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
DISCLOSURES: Mapping[str, Disclosure] = {"standard": STANDARD, "distinguisher": DISTINGUISHER}


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
class Hosting:
    """What a platform shows of a challenge and allows; None where the file does not say it.

    `repository` is the address from which participants install the package, and `terms` the name
    of a file beside the competition's.  The limits on submissions are those of phase dev.
    """

    title: str | None = None
    contact_email: str | None = None
    reward: str | None = None
    repository: str | None = None
    terms: str | None = None
    docker_image: str | None = None
    max_submissions_per_day: int | None = None
    max_submissions: int | None = None
    execution_time_limit: int | None = None


@dataclass(frozen=True)
class Scenario:
    """How the models of one track are trained, and what participants learn of them.

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
    precision: str = PRECISIONS[0]
    disclosure: Disclosure = STANDARD
    title: str = ""

    @property
    def private(self) -> bool:
        """Whether models are trained with DP-SGD."""
        return not isinf(self.target_epsilon)

    @property
    def label(self) -> str:
        """The scenario's name for people; `labels_of` makes it unique within a challenge."""
        text = self.title or f"ε = {_EPSILON}"
        if _EPSILON in text and not self.private:
            return "No DP"
        return text.replace(_EPSILON, f"{self.target_epsilon:g}")


_EPSILON = "{epsilon}"


@dataclass(frozen=True)
class Competition:
    """A whole table; `path` is the file that it was read from, None for the package's own.

    `phases` maps each challenge to its phases, in the order train, dev, final.  `text` is what the
    file holds, which releases carry.  `published` maps a challenge to the dataset repository on the
    Hugging Face Hub that has it.  `hosting` holds those challenges that the file says something of.
    """

    tasks: Mapping[str, Task]
    phases: Mapping[str, Mapping[str, Phase]]
    scenarios: Mapping[str, Scenario]
    challenges: Mapping[str, tuple[str, ...]]
    published: Mapping[str, str] = field(default_factory=dict)
    hosting: Mapping[str, Hosting] = field(default_factory=dict)
    path: Path | None = None
    text: str = field(default="", repr=False, compare=False)

    @property
    def code(self) -> tuple[str, ...]:
        """The dotted paths that the tasks name: code that runs."""
        named = (name for task in self.tasks.values() for name in (task.loader, task.architecture))
        return tuple(dict.fromkeys(name for name in named if ":" in name))


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
