"""Runs on few records: how far one moves the sum, and the effect of a loss that is not a number."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from mico_competition.audit.trainer.canaries import AuditSet
from mico_competition.audit.trainer.probes import Given, probes_of
from mico_competition.audit.trainer.recording import NoiseOnly, Recording, Sums
from mico_competition.audit.trainer.runner import AuditSettings, Runner, derived
from mico_competition.competition.table import get_task
from mico_competition.models.inputs import Data


@dataclass(frozen=True)
class Probed:
    """Batches of one record and of few.

    Attributes:
        sums: the sums without noise.
        single, regular: bool[rows], which batches are of one record, and which have no gradient
            whose norm overflows.
        refused: the trainer's message, if it refused to train on them; else empty.
        not_a_number: the effect of a record whose loss is not a number, in a clause.
        not_a_number_kept: whether the claim still holds.
    """

    sums: Sums
    single: np.ndarray
    regular: np.ndarray
    refused: str
    not_a_number: str
    not_a_number_kept: bool


def probe(runner: Runner, data: Data, dirac: int) -> Probed:
    """Batches of one record and of few, and a record whose loss is not a number.

    The model has as many weights for Dirac canaries as in the run itself.
    """
    settings = replace(runner.settings, secure_mode=False)
    runner = runner.with_settings(settings)
    classes = get_task(settings.task).num_classes
    generator = torch.Generator().manual_seed(derived(runner.seed, "probes"))
    largest = min(20, settings.max_physical_batch_size)
    probes = probes_of(data, classes, dirac, generator, largest_batch=largest)
    steps = range(len(probes.batches))
    one_epoch = AuditSettings.of(settings, len(probes.audit_set), epochs=1)
    sets, lengths = [probes.audit_set] * runner.count, probes.lengths
    path = runner.path(sets, lengths)
    seen = Recording(runner.layout(path), runner.mechanism, steps, runner.norm)
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
    """The effect of one record whose loss is not a number, and whether the claim still holds."""
    lengths = torch.full((len(audit_set.dirac_in),), float("nan"))
    bad = int((audit_set.canary_at == 0).nonzero()[0])
    device = audit_set.labels.device
    batches = [torch.tensor([at], device=device) for at in (0, bad)]
    sets = [audit_set] * runner.count
    one_epoch = AuditSettings.of(runner.settings, len(audit_set), epochs=1)
    path = runner.path(sets, lengths)
    seen = NoiseOnly(runner.layout(path), runner.mechanism.noise_multiplier, [1])
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
    return (
        "a record whose loss is not a number is trained on, and shows in released gradients",
        False,
    )
