"""Whether a run would be refused, found before it begins: at the door of a fleet, and by --dry_run.

The same objects are made as in training, so the same sentences come out.
"""

from __future__ import annotations

import torch

from mico_competition.competition.table import get_task
from mico_competition.models.architectures import new_model
from mico_competition.models.inputs import Data
from mico_competition.models.text_models import base_config, small_copy
from mico_competition.training.check_batches import Batch
from mico_competition.training.dpsgd import PrivateTrainer
from mico_competition.training.settings import Settings, check
from mico_competition.training.train import mechanism_of, optimizer_of, private_arguments

RECORDS = 16  # that go through the checks of a private trainer's first batch


def check_run(settings: Settings, data: Data | None = None) -> None:
    """Make what a run trains, without training it.

    Args:
        settings: as `settings.resolve` gives them.
        data: the whole dataset, where it is at hand: its length is checked, and a private run's
            model on its first records.

    Of a text model a small copy of the same kind is made, with fresh weights.

    Raises:
        ValueError: as training would, for what can be seen beforehand.
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
    trainer = PrivateTrainer(
        model,
        optimizer_of(settings, model),
        grad_sample_mode=settings.grad_sample_mode,
        noise_generator=torch.Generator(),
        **private_arguments(settings),
    )
    if data is not None and not task.text:  # a small copy's vocabulary is not that of the data
        at = torch.arange(min(RECORDS, len(data)))
        largest = min(settings.max_physical_batch_size, settings.len_training)
        trainer.checks.before(Batch(data.inputs(at), data.labels[at]), largest)
