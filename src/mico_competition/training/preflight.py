"""Finds out whether training would refuse a run, before a fleet starts, and for --dry_run.

It builds the same objects as training does, so it gives the same errors.
"""

from __future__ import annotations

import torch

from mico_competition.competition.table import get_task
from mico_competition.models.architectures import new_model
from mico_competition.models.inputs import Data
from mico_competition.models.precision import FLOAT32, TF32
from mico_competition.models.text_models import base_config, small_copy
from mico_competition.training.check_batches import Batch
from mico_competition.training.dpsgd import DPSGD
from mico_competition.training.settings import Settings, check
from mico_competition.training.train import mechanism_of, optimizer_of, private_arguments

RECORDS = 16  # how many records the checks of a private trainer's first batch see


def check_run(settings: Settings, data: Data | None = None) -> None:
    """Build the model and the trainer of a run, without training.

    A text model is replaced by a small copy of the same architecture with fresh weights.

    Args:
        settings: as `settings.resolve` returns them.
        data: the whole dataset, if it is available: then its length is checked, and the model of
            a private run is checked on its first records.

    Raises:
        ValueError: as training would, for faults that can be found beforehand.
    """
    if data is not None:
        check(settings, len(data))
    mechanism_of(settings)
    task = get_task(settings.task)
    with torch.random.fork_rng(devices=[]):
        if task.text:
            model = small_copy(task, base_config(task, settings.model_name))
        else:
            model = new_model(task)
    if settings.disable_dp:
        return
    model.train()
    precision = FLOAT32 if settings.precision == TF32 else settings.precision  # on this CPU
    trainer = DPSGD(
        model,
        optimizer_of(settings, model),
        grad_sample_mode=settings.grad_sample_mode,
        noise_generator=torch.Generator(),
        **{**private_arguments(settings), "precision": precision, "cuda_graphs": False},
    )
    if data is not None and not task.text:  # a small copy's vocabulary is not that of the data
        at = torch.arange(min(RECORDS, len(data)))
        largest = min(settings.max_physical_batch_size, settings.len_training)
        trainer.checks.before(Batch(data.inputs(at), data.labels[at]), largest)
