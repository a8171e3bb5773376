"""A training run of the fleet's own code with canaries, and what an auditor observes of it.

The same code also does shorter runs: on empty batches with the same random streams, for the noise
alone; on batches of one and of few records; on a record whose loss is not a number; and, for a
single model, on empty batches with another model's streams.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from mico_competition.audit.trainer.canaries import (
    LENGTH,
    AuditSet,
    RecordCanaries,
    make_record_canaries,
)
from mico_competition.audit.trainer.layer_replay import LayerReplay
from mico_competition.audit.trainer.observed import DiracSeen, Participation
from mico_competition.audit.trainer.paths import Epoch
from mico_competition.audit.trainer.probing import Probed, probe
from mico_competition.audit.trainer.recording import NoiseRows, Recording, Sums
from mico_competition.audit.trainer.runner import (
    AuditSettings,
    Empty,
    MakeTrainer,
    Runner,
    derived,
)
from mico_competition.competition.table import get_task
from mico_competition.models.architectures import logits, new_model
from mico_competition.models.inputs import Data
from mico_competition.training import train, train_stack
from mico_competition.training.accounting import Mechanism
from mico_competition.training.settings import Settings
from mico_competition.training.streams import Streams, generator_of

REPLAY_NUMBERS = 3e9
"""Numbers in the per-example gradients of all replays, by default: half a minute on one core."""

_MOST_NUMBERS_KEPT = 5e7  # numbers of record canaries' gradients, 200 MB
_ROW_NUMBERS = 2e7  # numbers of rows of noise, 80 MB
_MOST_ROW_NUMBERS = 3e8  # numbers of rows on request, 1.2 GB and the copies of the tests
MOST_RECORD_CANARIES = 200


@dataclass(frozen=True)
class Observed:
    """The observations of an auditor in one run.

    Attributes:
        dirac: coordinates of Dirac canaries, with their scores.
        participation: the records of each batch.
        replays: repeated steps, one replay for each model.
        rows: noise of those steps, and of another model's empty ones.
        sums: of those steps, minus the noise of the same steps on empty batches.
        least: see `Recording.least`.
        coordinates: float32[steps, S, k], canaries' noise in every step.
        sets: what each model was trained on, with the coins.
        black_box: float64[S R], minus the loss of each record canary at the end.
        steps: noisy gradients seen; replayed: repeated steps.
        unexplained: the first change of a weight that released gradients do not explain; or empty.
        empty: the run on empty batches.
        probed: batches of few records.
        shapes: of parameters.
        seeds: of every random stream of several models.
        draw: number of records -> the batches of an epoch.
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

    @property
    def dirac_each(self) -> int:
        """Dirac canaries of each model."""
        return len(self.sets[0].dirac_in)

    @property
    def let_in(self) -> np.ndarray:
        """bool[S R], which record canaries were let in."""
        return np.concatenate([one.records_in.cpu().numpy() for one in self.sets])

    def scores(self) -> dict[str, np.ndarray]:
        """Layer -> float64[S R], scores of record canaries; empty if no step was repeated."""
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
        settings: of the claimed run.
        data: the whole dataset, N > real records.
        dirac: m >= 1.
        records: R >= 0.
        real: the number of real records in the training set, 1 or more.
        seed: of this choice and of the coins; nothing else of the run depends on it.
        model: the number of the model in a stack.
        padded: whether null records take the places of canaries that are left out.
    """
    name = f"/{model}" if model else ""
    generator = torch.Generator().manual_seed(derived(seed, f"canaries{name}"))
    order = torch.randperm(len(data), generator=generator)
    classes = get_task(settings.task).num_classes
    made = make_record_canaries(data, order[real:], records, classes, generator)
    coins = torch.Generator().manual_seed(derived(seed, f"coins{name}"))
    let_in = torch.rand(records + dirac, generator=coins) < 0.5
    length = real + records + dirac if padded else None
    return AuditSet(data, order[:real], made, let_in[:records], let_in[records:], length)


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
    """Train on the audit's set and observe every step.

    Args:
        settings: of the claimed run, private.
        audit_set: as `audit_set_of` gives it; a list of them, padded, is trained as a stack.
        mechanism: the claimed one, which the trainer receives.
        seed: of initialisation, batches and noise (of the first only, in secure mode).
        make_trainer: takes the steps, in place of the fleet's own trainer.
        epoch: draws the batches, likewise.
        replay_steps: steps to repeat with torch.func, chosen at random; by default as many as
            REPLAY_NUMBERS allow.
        progress: whether to show a progress bar.

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
    layout = runner.layout(path)
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
    draw = epoch or (train_stack.epoch_of if runner.stacked else train.epoch_of)

    def draw_from(records: int) -> Any:
        return draw(AuditSettings.of(settings, records), sampling)

    sampling = generator_of(settings, derived(seed, "small sets"), torch.device("cpu"))
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
        probed=probe(runner, sets[0].data, len(lengths)),
        shapes={name: tuple(p.shape) for name, p in path.models[0].named_parameters()},
        seeds=[s for one in (*runner.streams(), *runner.streams(runner.count)) for s in _all(one)],
        draw=draw_from,
    )


def _all(streams: Streams) -> tuple[int, ...]:
    return (streams.initialisation, streams.sampling, streams.noise)


def _append(rows: NoiseRows, more: NoiseRows, *, model: int) -> None:
    """Add another model's rows."""
    rows.step += more.step
    rows.model += [model] * len(more)
    rows.values += more.values
    rows.squares += more.squares


def parameters_of(settings: Settings) -> int:
    """Number of parameters of the model that a run trains."""
    with torch.random.fork_rng(devices=[]):
        model = new_model(get_task(settings.task), base_model=settings.model_name)
    return sum(p.numel() for p in model.parameters())


def most_record_canaries(parameters: int) -> int:
    """How many record canaries have gradients that fit into memory together, 200 at most."""
    return min(MOST_RECORD_CANARIES, int(_MOST_NUMBERS_KEPT // parameters))


def most_replays(parameters: int, models: int) -> int:
    """How many steps can be repeated with their noise in memory; at least one."""
    return max(1, int(_MOST_ROW_NUMBERS // (parameters * models)))


def _replayed(
    wanted: int | None, settings: AuditSettings, sets: Sequence[AuditSet], model: Any, seed: int
) -> list[int]:
    """The steps to repeat, at most `wanted`, at random, so that no fault can avoid them."""
    size = sum(p.numel() for p in model.parameters()) + len(sets[0].dirac_in)
    if wanted is None:
        through_model = int((sets[0].canary_at < 0).sum())
        rows = len(sets[0].records) + settings.sample_rate * through_model
        wanted = int(REPLAY_NUMBERS // (size * rows * len(sets)))
        wanted = min(wanted, max(1, int(_ROW_NUMBERS // (size * len(sets)))))
    count = min(wanted, settings.num_steps)
    return sorted(random.Random(derived(seed, "replays")).sample(range(settings.num_steps), count))


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
