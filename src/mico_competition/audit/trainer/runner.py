"""Observed runs of the fleet's own code on training sets with canaries."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

from torch import Tensor

from mico_competition.audit.trainer.canaries import AuditSet
from mico_competition.audit.trainer.paths import Epoch, Path
from mico_competition.audit.trainer.probes import empty_epoch
from mico_competition.audit.trainer.recording import Layout, NoiseOnly, NoiseRows
from mico_competition.audit.trainer.watch import Watch
from mico_competition.competition.splits import derive_seeds
from mico_competition.training import train, train_stack
from mico_competition.training.accounting import Mechanism
from mico_competition.training.settings import Settings
from mico_competition.training.streams import Streams

MakeTrainer = Callable[..., Any]
"""Called as `DPSGD` is, or `StackedDPSGD` for a stack."""


@dataclass(frozen=True, kw_only=True)
class AuditSettings(Settings):
    """A run's settings with canaries in the training set: other records, the same mechanism.

    Sampling rate, steps and divisor stay those of the claimed run, as they do in the definition of
    neighbours (docs/PRIVACY.md).
    """

    claimed: Settings

    @classmethod
    def of(cls, settings: Settings, records: int, *, epochs: int | None = None) -> AuditSettings:
        """The settings of a run on `records` records, canaries included, of all epochs or fewer."""
        values = {field.name: getattr(settings, field.name) for field in fields(Settings)}
        values["len_training"] = records
        values["num_epochs"] = epochs or settings.num_epochs
        return cls(**values, claimed=settings)

    @property
    def steps_per_epoch(self) -> int:
        """Of the claimed run; sample_rate follows."""
        return self.claimed.steps_per_epoch

    @property
    def num_steps(self) -> int:
        """Of the claimed run, for which noise is drawn."""
        return self.claimed.num_steps

    @property
    def expected_batch_size(self) -> int:
        """Of the claimed run."""
        return self.claimed.expected_batch_size


@dataclass(frozen=True)
class Empty:
    """A run on empty batches.

    Attributes:
        steps: the number of batches.
        releases: the number of noisy gradients.
        rows: their noise.
        failed: the trainer's message, if it refused; else empty.
    """

    steps: int
    releases: int
    rows: NoiseRows
    failed: str = ""


class Runner:
    """Runs the fleet's code on one path, repeatedly.

    Args:
        settings: of the claimed run, private.
        mechanism: the claimed one; the trainer gets its noise_multiplier.
        seed: of initialisation, batches and noise (of the first only, in secure mode).
        models: the number of models trained together; None for a single model.
        make_trainer, epoch: replace the fleet's own.
        progress: whether to show a progress bar for the run itself.
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
        """The random streams of the models, as in a fleet with one train_seed."""
        root = derived(self.seed, "run")
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
        """Makes the trainer, with the claimed noise_multiplier where the settings' differs."""
        planned = train.mechanism_of(self.settings)
        if planned is not None and planned.noise_multiplier == self.mechanism.noise_multiplier:
            return self._make
        own = train_stack.StackedDPSGD if self.stacked else train.DPSGD
        make = self._make or own
        noise = self.mechanism.noise_multiplier
        return lambda *args, **named: make(*args, **{**named, "noise_multiplier": noise})

    def on_nothing(
        self, path: Path, settings: Settings, steps: Sequence[int], *, batches: int, pending: Any
    ) -> tuple[Empty, NoiseOnly]:
        """A run on empty batches, so many in each epoch; see `NoiseOnly` for the rest."""
        layout = self.layout(path)
        pending = {} if pending is not None and settings.secure_mode else pending
        seen = NoiseOnly(layout, self.mechanism.noise_multiplier, steps, pending)
        epoch = empty_epoch(path.sets[0].labels.device, batches)
        failed = self.tried(path, seen, settings, epoch)
        return Empty(seen.begun, seen.released, seen.rows, failed), seen

    def tried(self, path: Path, recorder: Any, settings: Settings, epoch: Epoch) -> str:
        """A run that may fail, since the audited code may do anything; returns its message."""
        try:
            self.fit(path, recorder, settings, epoch)
        except Exception as error:
            return f"{error}" or type(error).__name__
        return ""

    def layout(self, path: Path) -> Layout:
        """The order of the numbers of a run's rows."""
        return Layout(path, self.unit, self.settings.precision)

    def with_settings(self, settings: Settings) -> Runner:
        """A runner of other settings that shows no progress."""
        return Runner(
            settings,
            self.mechanism,
            seed=self.seed,
            models=self.count if self.stacked else None,
            make_trainer=self._make,
            epoch=self._epoch,
            progress=False,
        )


def derived(seed: int, name: str) -> int:
    """A different seed for each purpose."""
    digest = hashlib.sha256(f"audit/{seed}/{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
