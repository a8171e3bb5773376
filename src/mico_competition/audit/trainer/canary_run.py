"""One training run with canaries in its set, by the real trainer, and what an auditor sees of it.

The auditor sees what the accountant lets an attacker see: every noisy gradient, just before the
optimiser uses it.  It is a hook of torch's own optimiser that looks, so any trainer that ends in
one can be audited, whatever it does before.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from mico_competition.audit.trainer.canaries import (
    AuditSet,
    CanaryModel,
    RecordCanaries,
    make_record_canaries,
)
from mico_competition.audit.trainer.layer_replay import LayerReplay
from mico_competition.audit.trainer.observed import DiracSeen, Participation
from mico_competition.inputs import Data
from mico_competition.models import logits, new_model
from mico_competition.splits import derive_seeds
from mico_competition.tracks import get_task
from mico_competition.training import train
from mico_competition.training.accounting import Mechanism
from mico_competition.training.dpsgd import Generator, PrivateTrainer
from mico_competition.training.settings import Settings
from mico_competition.training.streams import Streams, generator_of, seeded

MakeTrainer = Callable[..., train.Trainer]
"""Called as `PrivateTrainer` is."""

Epoch = Callable[[Settings, Generator], Iterator[Tensor]]
"""Gives the batches of an epoch, as `train.epoch_of` does."""

REPLAY_NUMBERS = 3e9
"""Numbers of per-example gradients that replays make by default: half a minute on one core."""

_MOST_NUMBERS_KEPT = 5e7  # of record canaries' gradients, 200 MB
MOST_RECORD_CANARIES = 200


@dataclass(frozen=True)
class AuditSettings(Settings):
    """A run's settings with canaries in the set: another number of records, the same mechanism.

    Sampling probability, steps and divisor stay those of the promised run, as they do in the
    definition of neighbours (docs/PRIVACY.md).
    """

    promised: Settings

    @classmethod
    def of(cls, settings: Settings, records: int) -> AuditSettings:
        """The settings of a run on `records` records, canaries included."""
        values = {field.name: getattr(settings, field.name) for field in fields(Settings)}
        return cls(**{**values, "len_training": records}, promised=settings)

    @property
    def steps_per_epoch(self) -> int:
        """Of the promised run; sample_rate and num_steps follow."""
        return self.promised.steps_per_epoch

    @property
    def expected_batch_size(self) -> int:
        """Of the promised run."""
        return self.promised.expected_batch_size


@dataclass(frozen=True)
class Observed:
    """What an auditor has seen of a run.

    Attributes:
        dirac: coordinates of Dirac canaries, with their scores.
        participation: who was in a batch.
        replay: steps done again; its `steps` may be none.
        audit_set: what was trained on, with the coins.
        black_box: float64[R], minus the loss of each record canary at the end.
        steps: noisy gradients that were seen.
    """

    dirac: DiracSeen
    participation: Participation
    replay: LayerReplay
    audit_set: AuditSet
    black_box: np.ndarray
    steps: int


class _Auditor:
    """Looks at each noisy gradient, and puts canaries' weights back to 0."""

    def __init__(
        self,
        model: CanaryModel,
        replay: LayerReplay,
        audit_set: AuditSet,
        mechanism: Mechanism,
        unit: float,
        replayed: range,
    ) -> None:
        self.model, self.replay, self.set = model, replay, audit_set
        self.unit, self.replayed = unit, replayed
        self.dirac = DiracSeen(audit_set.dirac_in.cpu().numpy(), mechanism)
        self.participation = Participation(len(audit_set))
        self.steps = 0
        self._batch = audit_set.labels[:0]

    def watch(self, optimizer: torch.optim.Optimizer) -> None:
        """Look at every step of `optimizer` from now on."""
        optimizer.register_step_pre_hook(lambda *_: self._look())
        optimizer.register_step_post_hook(lambda *_: self.model.reset())

    def before(self, batch: Tensor) -> None:
        """A batch is about to be stepped on."""
        self._batch = batch
        self.participation.see(batch.cpu().numpy())

    def end_epoch(self) -> None:
        self.dirac.end_epoch()
        self.participation.end_epoch()

    @torch.no_grad()
    def _look(self) -> None:
        dirac_at = self.set.dirac_at[self._batch]
        in_batch = dirac_at[dirac_at < self.model.dirac].cpu().numpy()
        own = self.model.weights.weight.grad
        assert own is not None
        values = own[: self.model.dirac, 0].double().cpu().numpy() * self.unit
        self.dirac.see(values, in_batch)
        if self.steps in self.replayed:
            named = dict(self.model.named_parameters())
            values_before = {name: p.detach() for name, p in named.items()}
            noisy = {n: p.grad.detach() * self.unit for n, p in named.items() if p.grad is not None}
            self.replay.see(self.steps, self._batch, values_before, noisy)
        self.steps += 1


def audit_set_of(
    settings: Settings, data: Data, *, dirac: int, records: int, real: int, seed: int
) -> AuditSet:
    """Real records and canaries, and a fair coin for each canary.

    Args:
        settings: of the promised run.
        data: the whole dataset, N > real records.
        dirac: m >= 1.
        records: R >= 0.
        real: real records that are trained on in any case, 1 or more.
        seed: of this choice and of the coins, which nothing else of the run depends on.
    """
    generator = torch.Generator().manual_seed(_derived(seed, "canaries"))
    order = torch.randperm(len(data), generator=generator)
    classes = get_task(settings.task).num_classes
    made = make_record_canaries(data, order[real:], records, classes, generator)
    coins = torch.Generator().manual_seed(_derived(seed, "coins"))
    let_in = torch.rand(records + dirac, generator=coins) < 0.5
    return AuditSet(data, order[:real], made, let_in[:records], let_in[records:])


def run(
    settings: Settings,
    audit_set: AuditSet,
    mechanism: Mechanism,
    *,
    seed: int,
    make_trainer: MakeTrainer = PrivateTrainer,
    epoch: Epoch = train.epoch_of,
    replay_steps: int | None = None,
    progress: bool = False,
) -> Observed:
    """Train once on the audit's set and look at every step.

    Args:
        settings: of the promised run, private.
        audit_set: as `audit_set_of` gives it.
        mechanism: what is promised, and what the trainer is told.
        seed: of initialisation, batches and noise (of the first only, in secure mode).
        make_trainer: what takes the steps.
        epoch: what draws the batches.
        replay_steps: steps that are done again by other means, evenly spread; by default as many
            as REPLAY_NUMBERS allow.
        progress: whether to show how far it is (see `mico_competition.progress`).

    Raises:
        ValueError: if the loss stops being finite, or the model cannot be trained privately.
    """
    assert settings.max_grad_norm is not None
    streams = Streams.of(_derived(seed, "run"), derive_seeds(0))
    device = audit_set.labels.device
    run_settings = AuditSettings.of(settings, len(audit_set))
    with seeded(streams, deterministic=False):
        model = _model_of(settings, audit_set).to(device)
        # A copy, since a trainer may leave hooks on the model's layers.
        replay = LayerReplay(
            copy.deepcopy(model.model), audit_set, mechanism, settings.max_grad_norm
        )
        unit = settings.expected_batch_size / settings.max_grad_norm
        steps = _replayed(replay_steps, run_settings, audit_set, model.model)
        auditor = _Auditor(model, replay, audit_set, mechanism, unit, steps)
        optimizer = train.optimizer_of(settings, model)
        auditor.watch(optimizer)
        arguments = train.private_arguments(settings)
        trainer = make_trainer(
            model.train(),
            optimizer,
            grad_sample_mode=settings.grad_sample_mode,
            noise_generator=generator_of(settings, streams.noise, device),
            **{**arguments, "noise_multiplier": mechanism.noise_multiplier},
        )
        sampling = generator_of(settings, streams.sampling, device)

        def batches() -> Iterator[Tensor]:
            yield from epoch(run_settings, sampling)
            auditor.end_epoch()

        def step(batch: Tensor) -> Tensor:
            auditor.before(batch)
            return trainer.step(batch, audit_set.inputs, audit_set.labels)

        train.run_epochs(run_settings, step, batches, optimizer, progress)
        scores = -_losses(model.model, audit_set.records)
    return Observed(auditor.dirac, auditor.participation, replay, audit_set, scores, auditor.steps)


def parameters_of(settings: Settings) -> int:
    """Number of parameters of the model that a run trains."""
    with torch.random.fork_rng(devices=[]):
        model = new_model(get_task(settings.task), base_model=settings.model_name)
    return sum(p.numel() for p in model.parameters())


def most_record_canaries(parameters: int) -> int:
    """As many as their gradients can be held in memory at once, 200 at most."""
    return min(MOST_RECORD_CANARIES, int(_MOST_NUMBERS_KEPT // parameters))


def _model_of(settings: Settings, audit_set: AuditSet) -> CanaryModel:
    """The task's model, with a weight a Dirac canary."""
    task = get_task(settings.task)
    assert settings.max_grad_norm is not None
    model = new_model(task, base_model=settings.model_name)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0  # so that a step can be done again; no part of the mechanism
    return CanaryModel(model, len(audit_set.dirac_in), task.num_classes, settings.max_grad_norm)


def _replayed(
    wanted: int | None, settings: AuditSettings, audit_set: AuditSet, model: nn.Module
) -> range:
    """The steps to replay, evenly spread, at most `wanted`."""
    if wanted is None:
        size = sum(p.numel() for p in model.parameters())
        through_model = int((audit_set.dirac_at == len(audit_set.dirac_in)).sum())
        rows = len(audit_set.records) + settings.sample_rate * through_model
        wanted = int(REPLAY_NUMBERS // (size * rows))
    if wanted == 0:
        return range(0)
    return range(0, settings.num_steps, -(-settings.num_steps // wanted))


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
