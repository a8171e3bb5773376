"""A training run with canaries in its set, by the fleet's own code, and what an auditor sees of it.

Around the run itself there are shorter ones by the same code: on empty batches, with the same
random streams, for the noise alone; on batches of one record and of few, with their empty steps;
on a record whose loss is not a number; and, for a model trained by itself, on empty batches with
another model's streams.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from mico_competition.audit.trainer.canaries import (
    LENGTH,
    AuditSet,
    RecordCanaries,
    make_record_canaries,
)
from mico_competition.audit.trainer.layer_replay import LayerReplay
from mico_competition.audit.trainer.observed import DiracSeen, Participation
from mico_competition.audit.trainer.paths import Epoch, Path
from mico_competition.audit.trainer.probes import Given, empty_epoch, probes_of
from mico_competition.audit.trainer.recording import Layout, NoiseOnly, NoiseRows, Recording, Sums
from mico_competition.audit.trainer.watch import Watch
from mico_competition.inputs import Data
from mico_competition.models import logits, new_model
from mico_competition.splits import derive_seeds
from mico_competition.tracks import get_task
from mico_competition.training import train, train_many
from mico_competition.training.accounting import Mechanism
from mico_competition.training.settings import Settings
from mico_competition.training.streams import Streams, generator_of

MakeTrainer = Callable[..., Any]
"""Called as `PrivateTrainer` is, or `StackedPrivateTrainer` for a stack."""

REPLAY_NUMBERS = 3e9
"""Numbers of per-example gradients that replays make by default: half a minute on one core."""

_MOST_NUMBERS_KEPT = 5e7  # of record canaries' gradients, 200 MB
_ROW_NUMBERS = 2e7  # of rows of noise, 80 MB
_MOST_ROW_NUMBERS = 3e8  # of rows that are asked for, some 4 GB while a run lasts
MOST_RECORD_CANARIES = 200


@dataclass(frozen=True, kw_only=True)
class AuditSettings(Settings):
    """A run's settings with canaries in the set: another number of records, the same mechanism.

    Sampling probability, steps and divisor stay those of the promised run, as they do in the
    definition of neighbours (docs/PRIVACY.md).
    """

    promised: Settings

    @classmethod
    def of(cls, settings: Settings, records: int, *, epochs: int | None = None) -> AuditSettings:
        """The settings of a run on `records` records, canaries included, of all epochs or fewer."""
        values = {field.name: getattr(settings, field.name) for field in fields(Settings)}
        values["len_training"] = records
        values["num_epochs"] = epochs or settings.num_epochs
        return cls(**values, promised=settings)

    @property
    def steps_per_epoch(self) -> int:
        """Of the promised run; sample_rate follows."""
        return self.promised.steps_per_epoch

    @property
    def num_steps(self) -> int:
        """Of the promised run, which is what noise is drawn for."""
        return self.promised.num_steps

    @property
    def expected_batch_size(self) -> int:
        """Of the promised run."""
        return self.promised.expected_batch_size


@dataclass(frozen=True)
class Empty:
    """A run on empty batches.

    Attributes:
        steps: batches that were given.
        releases: noisy gradients that came of them.
        rows: their noise.
        failed: what the trainer said, if it refused; else empty.
    """

    steps: int
    releases: int
    rows: NoiseRows
    failed: str = ""


@dataclass(frozen=True)
class Probed:
    """Batches of one record and of few.

    Attributes:
        sums: what was left without noise.
        single, regular: bool[rows], which batches are of one record, and which have no gradient
            whose norm overflows.
        refused: what the trainer said, if it refused to train on them; else empty.
        not_a_number: what came of a record whose loss is not a number, in a clause.
        not_a_number_kept: whether that keeps the promise.
    """

    sums: Sums
    single: np.ndarray
    regular: np.ndarray
    refused: str
    not_a_number: str
    not_a_number_kept: bool


@dataclass(frozen=True)
class Observed:
    """What an auditor has seen of a run.

    Attributes:
        dirac: coordinates of Dirac canaries, with their scores.
        participation: who was in a batch.
        replays: steps done again, a replay for each model.
        rows: noise of those steps, and of another model's empty ones.
        sums: of those steps, without the noise of the same steps on empty batches.
        least: see `Recording.least`.
        coordinates: float32[steps, S, k], canaries' noise in every step.
        sets: what each model was trained on, with the coins.
        black_box: float64[S R], minus the loss of each record canary at the end.
        steps: noisy gradients that were seen; replayed: that were done again.
        unexplained: how weights moved other than by released gradients; or empty.
        empty: the run on empty batches.
        probed: batches of few records.
        shapes: of parameters.
        seeds: of every random stream of several models.
        draw: takes a number of records and gives an epoch's batches.
        secure: whether the noise cannot be drawn again.
    """

    dirac: DiracSeen
    participation: Participation
    replays: Sequence[LayerReplay]
    rows: NoiseRows
    sums: Sums
    least: Mapping[str, Sequence[float]]
    coordinates: np.ndarray
    sets: Sequence[AuditSet]
    black_box: np.ndarray
    steps: int
    replayed: int
    unexplained: str
    empty: Empty
    probed: Probed
    shapes: dict[str, tuple[int, ...]]
    seeds: Sequence[int]
    draw: Callable[[int], Any]
    secure: bool

    @property
    def dirac_each(self) -> int:
        """Dirac canaries of each model."""
        return len(self.sets[0].dirac_in)

    @property
    def let_in(self) -> np.ndarray:
        """bool[S R], which record canaries were let in."""
        return np.concatenate([one.records_in.cpu().numpy() for one in self.sets])

    def scores(self) -> dict[str, np.ndarray]:
        """Layer -> float64[S R], scores of record canaries; nothing if no step was done again."""
        if not self.replayed:
            return {}
        layers = self.replays[0].scores
        return {n: np.concatenate([one.scores[n] for one in self.replays]) for n in layers}


def audit_set_of(
    settings: Settings,
    data: Data,
    *,
    dirac: int,
    records: int,
    real: int,
    seed: int,
    model: int = 0,
    padded: bool = False,
) -> AuditSet:
    """Real records and canaries, and a fair coin for each canary.

    Args:
        settings: of the promised run.
        data: the whole dataset, N > real records.
        dirac: m >= 1.
        records: R >= 0.
        real: real records that are trained on in any case, 1 or more.
        seed: of this choice and of the coins, which nothing else of the run depends on.
        model: of a stack, its number.
        padded: whether null records stand where canaries are left out.
    """
    name = f"/{model}" if model else ""
    generator = torch.Generator().manual_seed(_derived(seed, f"canaries{name}"))
    order = torch.randperm(len(data), generator=generator)
    classes = get_task(settings.task).num_classes
    made = make_record_canaries(data, order[real:], records, classes, generator)
    coins = torch.Generator().manual_seed(_derived(seed, f"coins{name}"))
    let_in = torch.rand(records + dirac, generator=coins) < 0.5
    length = real + records + dirac if padded else None
    return AuditSet(data, order[:real], made, let_in[:records], let_in[records:], length)


class Runner:
    """Runs the fleet's code on one path, again and again.

    Args:
        settings: of the promised run, private.
        mechanism: what is promised; the trainer is told its noise.
        seed: of initialisation, batches and noise (of the first only, in secure mode).
        models: how many are trained together; None for one by itself.
        make_trainer, epoch: stand in for the fleet's own.
        progress: whether to show how far the run itself is.
    """

    def __init__(
        self,
        settings: Settings,
        mechanism: Mechanism,
        *,
        seed: int,
        models: int | None,
        make_trainer: MakeTrainer | None,
        epoch: Epoch | None,
        progress: bool,
    ) -> None:
        assert settings.max_grad_norm is not None
        self.settings, self.mechanism, self.seed = settings, mechanism, seed
        self.stacked, self.count = models is not None, models or 1
        self.unit = settings.expected_batch_size / settings.max_grad_norm
        self.norm = settings.max_grad_norm
        self._make, self._epoch, self._progress = make_trainer, epoch, progress

    def streams(self, first: int = 0) -> list[Streams]:
        """Those of the models, as a fleet with one train_seed has them."""
        root = _derived(self.seed, "run")
        return [Streams.of(root, derive_seeds(first + s)) for s in range(self.count)]

    def path(self, sets: Sequence[AuditSet], lengths: Tensor, *, first: int = 0) -> Path:
        """The models, with streams numbered from `first`."""
        streams = self.streams(first)
        return Path(self.settings, sets, lengths, streams, stacked=self.stacked)

    def fit(self, path: Path, recorder: Any, settings: Settings, epoch: Epoch | None) -> Watch:
        """One run; ValueError if the trainer refuses."""
        watch = Watch(path, settings, recorder)
        path.fit(
            watch,
            settings=settings,
            epoch=epoch or self._epoch,
            make_trainer=self._trainer(),
            progress=self._progress and epoch is None,
        )
        watch.end()
        return watch

    def _trainer(self) -> MakeTrainer | None:
        """What makes the trainer; it is told the promise's noise if that is not the settings'."""
        told = train.mechanism_of(self.settings)
        if told is not None and told.noise_multiplier == self.mechanism.noise_multiplier:
            return self._make
        own = train_many.StackedPrivateTrainer if self.stacked else train.PrivateTrainer
        make = self._make or own
        noise = self.mechanism.noise_multiplier
        return lambda *args, **named: make(*args, **{**named, "noise_multiplier": noise})

    def on_nothing(
        self, path: Path, settings: Settings, steps: Sequence[int], *, batches: int, pending: Any
    ) -> tuple[Empty, NoiseOnly]:
        """A run on empty batches, so many an epoch; see `NoiseOnly` for the rest."""
        layout = Layout(path, self.unit)
        pending = {} if pending is not None and settings.secure_mode else pending
        seen = NoiseOnly(layout, self.mechanism.noise_multiplier, steps, pending)
        epoch = empty_epoch(path.sets[0].labels.device, batches)
        failed = self.tried(path, seen, settings, epoch)
        return Empty(seen.begun, seen.released, seen.rows, failed), seen

    def tried(self, path: Path, recorder: Any, settings: Settings, epoch: Epoch) -> str:
        """One run that may fail, since what is audited may do anything; what it said then."""
        try:
            self.fit(path, recorder, settings, epoch)
        except Exception as error:
            return f"{error}" or type(error).__name__
        return ""


def run(
    settings: Settings,
    audit_set: AuditSet | Sequence[AuditSet],
    mechanism: Mechanism,
    *,
    seed: int,
    make_trainer: MakeTrainer | None = None,
    epoch: Epoch | None = None,
    replay_steps: int | None = None,
    progress: bool = False,
) -> Observed:
    """Train on the audit's set and look at every step.

    Args:
        settings: of the promised run, private.
        audit_set: as `audit_set_of` gives it; a list of them, padded, is trained as a stack.
        mechanism: what is promised, and what the trainer is told.
        seed: of initialisation, batches and noise (of the first only, in secure mode).
        make_trainer: what takes the steps, in the place of the fleet's own.
        epoch: what draws the batches, likewise.
        replay_steps: steps that are done again by other means, chosen at random; by default as
            many as REPLAY_NUMBERS allow.
        progress: whether to show how far the run is.

    Raises:
        ValueError: if the loss stops being finite, or the trainer refuses to train.
    """
    sets = [audit_set] if isinstance(audit_set, AuditSet) else list(audit_set)
    models = None if isinstance(audit_set, AuditSet) else len(sets)
    runner = Runner(
        settings,
        mechanism,
        seed=seed,
        models=models,
        make_trainer=make_trainer,
        epoch=epoch,
        progress=progress,
    )
    lengths = torch.full((len(sets[0].dirac_in),), LENGTH)
    run_settings = AuditSettings.of(settings, len(sets[0]))
    path = runner.path(sets, lengths)
    steps = _replayed(replay_steps, run_settings, sets, path.names and path.models[0], seed)
    layout = Layout(path, runner.unit)
    seen = Recording(layout, mechanism, steps, runner.norm)
    watch = runner.fit(path, seen, run_settings, None)
    per_epoch = settings.steps_per_epoch
    empty, noise = runner.on_nothing(
        runner.path(sets, lengths), run_settings, steps, batches=per_epoch, pending=seen.pending
    )
    if not runner.stacked:
        few = [step for step in steps if step < per_epoch]
        one_epoch = AuditSettings.of(settings, len(sets[0]), epochs=1)
        other = runner.path(sets, lengths, first=1)
        rows = runner.on_nothing(other, one_epoch, few, batches=per_epoch, pending={})[0].rows
        _append(seen.rows, rows, model=1)
    draw = epoch or (train_many.epoch_of if runner.stacked else train.epoch_of)

    def draw_from(records: int) -> Any:
        return draw(AuditSettings.of(settings, records), sampling)

    sampling = generator_of(settings, _derived(seed, "small sets"), sets[0].labels.device)
    black_box = [-_losses(m, one.records) for m, one in zip(path.trained(), sets)]
    return Observed(
        dirac=seen.dirac,
        participation=seen.participation,
        replays=seen.replays,
        rows=seen.rows,
        sums=noise.sums,
        least=seen.least,
        coordinates=np.stack(seen.coordinates) if seen.coordinates else np.zeros((0, 1, 1)),
        sets=sets,
        black_box=np.concatenate(black_box),
        steps=seen.steps,
        replayed=seen.replayed,
        unexplained=watch.unexplained,
        empty=empty,
        probed=_probe(runner, sets[0].data, len(lengths)),
        shapes={name: tuple(p.shape) for name, p in path.models[0].named_parameters()},
        seeds=[s for one in (*runner.streams(), *runner.streams(runner.count)) for s in _all(one)],
        draw=draw_from,
        secure=settings.secure_mode,
    )


def _all(streams: Streams) -> tuple[int, ...]:
    return (streams.initialisation, streams.sampling, streams.noise)


def _append(rows: NoiseRows, more: NoiseRows, *, model: int) -> None:
    """Add another model's rows."""
    rows.step += more.step
    rows.model += [model] * len(more)
    rows.values += more.values
    rows.squares += more.squares


def _probe(runner: Runner, data: Data, dirac: int) -> Probed:
    """Batches of one record and of few, and a record whose loss is not a number.

    The model has as many Dirac canaries' weights as in the run itself, so that it is the same.
    """
    settings = replace(runner.settings, secure_mode=False)
    runner = copy_of(runner, settings)
    classes = get_task(settings.task).num_classes
    generator = torch.Generator().manual_seed(_derived(runner.seed, "probes"))
    most = max(1, settings.max_physical_batch_size // runner.count)
    probes = probes_of(data, classes, dirac, generator, largest_batch=min(20, most))
    steps = range(len(probes.batches))
    one_epoch = AuditSettings.of(settings, len(probes.audit_set), epochs=1)
    sets, lengths = [probes.audit_set] * runner.count, probes.lengths
    path = runner.path(sets, lengths)
    seen = Recording(Layout(path, runner.unit), runner.mechanism, steps, runner.norm)
    refused = runner.tried(path, seen, one_epoch, Given(probes.batches, runner.count))
    empty, noise = runner.on_nothing(
        runner.path(sets, lengths), one_epoch, steps, batches=len(steps), pending=seen.pending
    )
    sums = noise.sums
    rows = [(step + model) % len(steps) for step, model in zip(sums.step, sums.model)]
    single = np.array([len(probes.batches[row]) == 1 for row in rows], dtype=bool)
    regular = np.array([probes.regular[row] for row in rows], dtype=bool)
    found = _not_a_number(runner, probes.audit_set)
    return Probed(sums, single, regular, refused or empty.failed, *found)


def _not_a_number(runner: Runner, audit_set: AuditSet) -> tuple[str, bool]:
    """What comes of a batch of one record whose loss is not a number, and whether that is well."""
    lengths = torch.full((len(audit_set.dirac_in),), float("nan"))
    bad = int((audit_set.canary_at == 0).nonzero()[0])
    device = audit_set.labels.device
    batches = [torch.tensor([at], device=device) for at in (0, bad)]
    sets = [audit_set] * runner.count
    one_epoch = AuditSettings.of(runner.settings, len(audit_set), epochs=1)
    path = runner.path(sets, lengths)
    seen = NoiseOnly(Layout(path, runner.unit), runner.mechanism.noise_multiplier, [1])
    refused = runner.tried(path, seen, one_epoch, Given(batches, 1))
    if refused:
        return f"a record whose loss is not a number is refused ({refused})", True
    _, noise = runner.on_nothing(
        runner.path(sets, lengths), one_epoch, [1], batches=2, pending=None
    )
    left = [
        float(torch.linalg.vector_norm((full - noise.full[at]).double()))
        for at, full in seen.full.items()
        if at in noise.full
    ]
    if left and max(left) <= 1.001:
        return "a record whose loss is not a number moves the sum by no more than others", True
    return "a record whose loss is not a number is trained on, and shows in what is released", False


def copy_of(runner: Runner, settings: Settings) -> Runner:
    """The same runner with other settings."""
    return Runner(
        settings,
        runner.mechanism,
        seed=runner.seed,
        models=runner.count if runner.stacked else None,
        make_trainer=runner._make,
        epoch=runner._epoch,
        progress=False,
    )


def parameters_of(settings: Settings) -> int:
    """Number of parameters of the model that a run trains."""
    with torch.random.fork_rng(devices=[]):
        model = new_model(get_task(settings.task), base_model=settings.model_name)
    return sum(p.numel() for p in model.parameters())


def most_record_canaries(parameters: int) -> int:
    """As many as their gradients can be held in memory at once, 200 at most."""
    return min(MOST_RECORD_CANARIES, int(_MOST_NUMBERS_KEPT // parameters))


def most_replays(parameters: int, models: int) -> int:
    """How many steps can be done again with their noise held in memory; one in any case."""
    return max(1, int(_MOST_ROW_NUMBERS // (parameters * models)))


def _replayed(
    wanted: int | None, settings: AuditSettings, sets: Sequence[AuditSet], model: Any, seed: int
) -> list[int]:
    """The steps to replay, at most `wanted`, at random: no fault can keep out of their way."""
    size = sum(p.numel() for p in model.parameters()) + len(sets[0].dirac_in)
    if wanted is None:
        through_model = int((sets[0].canary_at < 0).sum())
        rows = len(sets[0].records) + settings.sample_rate * through_model
        wanted = int(REPLAY_NUMBERS // (size * rows * len(sets)))
        wanted = min(wanted, max(1, int(_ROW_NUMBERS // (size * len(sets)))))
    count = min(wanted, settings.num_steps)
    return sorted(random.Random(_derived(seed, "replays")).sample(range(settings.num_steps), count))


@torch.no_grad()
def _losses(model: nn.Module, records: RecordCanaries) -> np.ndarray:
    """float64[R], the loss of each record canary, in eval mode."""
    if not len(records):
        return np.zeros(0)
    model.eval()
    every = torch.arange(len(records), device=records.labels.device)
    parts: list[Any] = [
        cross_entropy(logits(model, records.rows(at)), records.labels[at], reduction="none")
        for at in every.split(64)
    ]
    return torch.cat(parts).double().cpu().numpy()


def _derived(seed: int, name: str) -> int:
    """A seed of its own for each purpose."""
    digest = hashlib.sha256(f"audit/{seed}/{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
