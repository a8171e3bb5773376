"""Trains many models of one scenario: small ones together as a stack, others one after another.

With the same seeds, training as a stack gives the same models as training each alone, up to
rounding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch

from mico_competition.competition.table import METADATA_FILE, get_task
from mico_competition.models.architectures import MLP, new_model
from mico_competition.models.inputs import Data, default_device
from mico_competition.models.text_models import base_config, small_copy
from mico_competition.training.accounting import Mechanism
from mico_competition.training.epochs import Show
from mico_competition.training.fingerprints import probe_sentences
from mico_competition.training.model_folder import free_folder
from mico_competition.training.settings import Settings
from mico_competition.training.stacked_model import EXAMPLES, check_stacking, fault_of_stacking
from mico_competition.training.train import train_model
from mico_competition.training.train_stack import Run as Run
from mico_competition.training.train_stack import train_stack

# Up to this many multiply-adds in the forward pass of a step, a stack of MLPs is faster on a CPU
# than one model after another (benchmarks/RESULTS.md, "Stacks").
SMALL_STEP = 10_000_000
# Models of a stack on a CPU, and on a GPU: on an H100, stacks of 50 gave 1.6 times the models an
# hour of stacks of 10 (docs/results/gpu.json).
STACK, GPU_STACK = 10, 50


def train_many(
    settings: Settings,
    data: Data,
    runs: Sequence[Run],
    *,
    tokenizer: Any = None,
    stack: int | None = None,
    device: torch.device | None = None,
    progress: Show = True,
    mechanism: Mechanism | None = None,
) -> Iterator[dict[str, Any]]:
    """Train models and write their folders; yield each one's metadata when its folder is complete.

    Each model has its own checkpoint, in a stack too, and goes on from it in any company.

    Args:
        settings: the settings of the scenario; train_seed comes from each run instead.
        data: the whole dataset, as `inputs.prepare` returns it.
        runs: the seeds and folder of each model.
        tokenizer: is written beside the weights of text models.
        stack: how many models to train together; by default as `stack_of` says.
        device: by default a GPU if there is one.
        progress: as in `train_model`; a function starts from 0 for each stack or model.
        mechanism: as in `train_model`.

    Raises:
        ValueError: as `train_model`; or if `stack` > 1 and the models cannot be stacked.
    """
    stack = stack or stack_of(settings, device)
    if stack > 1:
        check_stacks(settings)
    for run in runs:  # before hours are spent on the first runs
        if run.checkpoint is not None and (run.folder / METADATA_FILE).is_file():
            run.checkpoint.remove()  # killed when the model was just whole
        free_folder(run.folder)
    for start in range(0, len(runs), stack):
        group = runs[start : start + stack]
        if len(group) > 1:
            yield from train_stack(settings, data, group, tokenizer, device, progress, mechanism)
            continue
        yield train_model(
            replace(settings, train_seed=group[0].train_seed),
            data,
            group[0].seeds,
            group[0].folder,
            tokenizer=tokenizer,
            model_id=group[0].model_id,
            device=device,
            progress=progress,
            mechanism=mechanism,
            checkpoint=group[0].checkpoint,
            report=group[0].report,
        )


def stack_of(settings: Settings, device: torch.device | None = None) -> int:
    """How many models of a scenario to train together: more than 1 if that is faster.

    Then it is GPU_STACK on a GPU, and STACK on a CPU; `device` is by default a GPU if there is one.
    """
    on_gpu = (device or default_device()).type == "cuda"
    if not _faster_together(settings, on_gpu):
        return 1
    return GPU_STACK if on_gpu else STACK


def fault_of_stacks(settings: Settings) -> str:
    """Why the models of a scenario do not stack, as far as their layers say; empty if they do."""
    if settings.grad_sample_mode != "bookkeeping":
        return f"they are trained in grad_sample_mode {settings.grad_sample_mode}"
    task = get_task(settings.task)
    with torch.random.fork_rng(devices=[]):
        if not task.text:
            return fault_of_stacking(new_model(task))
        config = base_config(task, settings.model_name)
        model = small_copy(task, config).train()
    try:
        check_stacking(model, probe_sentences(model.config, EXAMPLES))
    except ValueError as error:
        return str(error)
    return ""


def check_stacks(settings: Settings) -> None:
    """Raise ValueError, with the reason, if the models of a scenario do not stack."""
    if fault := fault_of_stacks(settings):
        raise ValueError(
            f"Models of task {settings.task} do not stack, so train them one by one (--stack 1): "
            f"{fault.rstrip('.')}."
        )


def _faster_together(settings: Settings, on_gpu: bool) -> bool:
    """Whether stacks are known to be faster: those of small MLPs on a CPU, of all on a GPU."""
    task = get_task(settings.task)
    if task.text or settings.grad_sample_mode != "bookkeeping":
        return False
    with torch.random.fork_rng(devices=[]):
        model = new_model(task)
    if not isinstance(model, MLP):
        return False
    work = settings.batch_size * sum(parameter.numel() for parameter in model.parameters())
    return work <= SMALL_STEP or on_gpu
