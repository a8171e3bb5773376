"""A fingerprint of how a scenario's models are trained: the hash of small runs of the same code.

A fleet's ledger keeps it, so that code that trains in another way under the same settings (splits,
batches, losses, clipping, noise, optimiser, schedule, initial weights) cannot continue the fleet.
Records and weights are given by formulas, the runs use double precision on one thread of the CPU,
and six digits are hashed, so the fingerprint does not depend on the machine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass, field, replace
from functools import partial
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from mico_competition.competition.splits import Seeds
from mico_competition.competition.table import get_task
from mico_competition.data.arrays import ArrayDataset, TokenDataset
from mico_competition.models.architectures import new_model
from mico_competition.models.inputs import Data
from mico_competition.models.precision import FLOAT32
from mico_competition.models.probe import (
    Repeatable,
    fill,
    near,
    one_thread,
    rounded,
    summary,
    uniform,
    varied_rows,
)
from mico_competition.models.text_models import base_config, small_copy
from mico_competition.training.accounting import Mechanism
from mico_competition.training.dpsgd import DPSGD
from mico_competition.training.epochs import run_epochs
from mico_competition.training.fingerprints import probe_sentences
from mico_competition.training.poisson_draws import poisson_batches
from mico_competition.training.private_optimizer import gaussian_like
from mico_competition.training.secure_random import SecureGenerator
from mico_competition.training.settings import Settings
from mico_competition.training.stacked_step import StackedDPSGD
from mico_competition.training.streams import Streams, generator_of, seeded
from mico_competition.training.train import (
    epoch_of,
    fit_records,
    optimizer_of,
    splits_of,
)
from mico_competition.training.train_many import fault_of_stacks
from mico_competition.training.train_stack import fit_stack_records

_EPOCHS = 50  # at most; enough to see the learning rate change in every scenario of 2022
_STEPS = 2  # an epoch
_WEIGHTS = 6
_BATCHES = 3  # of the scenario's first epoch

# The small runs: N, and the settings that they override.
_RECORDS = 15
_SMALL: dict[str, Any] = {
    "len_training": 11,
    "len_challenge": 2,
    "batch_size": 4,
    "num_epochs": 2,
    "lr_scheduler_step": 1,
    "secure_mode": False,
}
_SEEDS = [Seeds(*(bytes([10 * row + i] * 16) for i in range(3))) for row in range(2)]
_SEEDS_OF_2022 = Seeds(1, 2, 3)

_PHYSICAL = 3  # records of each model
_STACKED = 300_000  # the most weights of models whose stacks count: no others stack by default

# The gradients of the first step may differ by this much between float32 and double precision.
_FLOAT32 = 0.001


def training_fingerprint(settings: Settings, data: Data, config: Any = None) -> str:
    """Compute a SHA-256, in hex, of how the models of a scenario are trained.

    Args:
        settings: the settings of the scenario.
        data: the whole dataset, as `inputs.prepare` returns it; only its form matters.
        config: the configuration of a text model, of which a small copy is trained; by default
            that of the base model.
    """
    task = get_task(settings.task)
    # Products of few bits differ between machines, so a fleet's precision is compared by its name.
    precision, settings = (
        settings.precision,
        replace(settings, precision=FLOAT32, cuda_graphs=False),
    )
    if task.text:
        config = base_config(task, settings.model_name) if config is None else config
        build: Callable[[], nn.Module] = partial(small_copy, task, config)
    else:
        build = partial(new_model, task)
    with torch.random.fork_rng(devices=[]), torch.enable_grad(), one_thread():
        facts = [
            rounded(_schedule(settings), 6),
            *_splits(settings, len(data)),
            *_batches(settings),
            *([] if task.text else _first_weights(build)),
            *_runs(settings, build, _records(settings, data, config), data),
            *([] if precision == FLOAT32 else [precision]),
        ]
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()


def _schedule(settings: Settings) -> list[float]:
    """The path of a few weights under the scenario's optimiser and learning rates."""
    model = nn.ParameterList([uniform((_WEIGHTS,), stream=1) - 0.5])
    (weights,) = model.parameters()
    optimizer = optimizer_of(settings, model)
    path: list[float] = []

    def step(number: int) -> Tensor:
        weights.grad = uniform((_WEIGHTS,), stream=2 + number) - 0.5
        optimizer.step()
        path.extend(weights.tolist())
        return torch.zeros(())

    epochs = min(settings.lr_scheduler_step + 2, _EPOCHS)
    run_epochs(replace(settings, num_epochs=epochs), step, lambda: range(_STEPS), optimizer, False)
    return path


def _splits(settings: Settings, length: int) -> Iterator[str]:
    """Hashes of the splits of `length` records, for seeds of both schemes, and of the streams."""
    for seeds in (_SEEDS[0], _SEEDS_OF_2022):
        splits = splits_of(settings, range(length), seeds)  # type: ignore[arg-type]
        yield _integers(splits.challenge_indices)
        yield _integers(splits.train_indices)
        yield _integers(splits.evaluation_indices)
        yield str(splits.get_solutions())
        yield str(astuple(Streams.of(7, seeds)))


def _batches(settings: Settings) -> Iterator[str]:
    """Hashes of an epoch's first batches, and of a secure generator's draws with a test key."""
    sampling = generator_of(replace(settings, secure_mode=False), 7, torch.device("cpu"))
    yield from map(_integers, islice(epoch_of(settings, sampling), _BATCHES))
    if settings.secure_mode:
        secure = SecureGenerator._from_key(bytes(32))
        draws = poisson_batches(200, sample_rate=0.1, num_steps=_BATCHES, generator=secure)
        yield from map(_integers, draws)
        (noise,) = gaussian_like([torch.empty(50, dtype=torch.float64)], 2.0, secure)
        yield rounded(noise.tolist(), 6)


def _first_weights(build: Callable[[], nn.Module]) -> Iterator[str]:
    """Summaries of an untrained model's tensors, initialised from a fixed seed."""
    with seeded(Streams.of(7, _SEEDS[0]), deterministic=True):
        for value in build().parameters():
            yield rounded(summary(value), 2)


def _records(settings: Settings, data: Data, config: Any) -> Data:
    """Records given by a formula, in the form of the dataset, with labels of many classes."""
    labels = torch.arange(_RECORDS) * 3 % get_task(settings.task).num_classes
    if isinstance(data, TokenDataset):
        inputs = probe_sentences(config, _RECORDS)
        return TokenDataset(inputs["input_ids"], inputs["attention_mask"], labels)
    some = data.inputs([0])
    return ArrayDataset(varied_rows(_RECORDS, some.shape[1:], some.dtype), labels, torch.clone)


@dataclass
class _Log:
    """A log of a run: lines of text, the gradients of each step, and the change of the weights."""

    lines: list[str] = field(default_factory=list)
    values: list[list[Tensor]] = field(default_factory=list)

    def start(self, optimizer: torch.optim.Optimizer) -> None:
        """Record the gradients of every step of `optimizer`; see `epochs.Observer`."""
        optimizer.register_step_pre_hook(lambda optimizer, args, kwargs: self._keep(optimizer))

    def _keep(self, optimizer: torch.optim.Optimizer) -> None:
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self.values.append([p.grad.detach().double().clone() for p in parameters])

    def before(self, batch: Tensor | Sequence[Tensor]) -> None:
        """Record a batch."""
        self.lines += map(_integers, (batch,) if isinstance(batch, Tensor) else batch)

    def end_epoch(self) -> None:
        """Nothing happens between epochs."""


def _runs(
    settings: Settings, build: Callable[[], nn.Module], records: Data, data: Data
) -> Iterator[str]:
    """The logs of small runs: of one model, and of a stack if the scenario's models may stack."""
    # Of two private runs one has usual noise; the other has almost none, and does not clip.
    private = [(1.0, 1.0), (1e-9, 1e6)]
    for count in (1, len(_SEEDS)) if _stacks(settings, build) else (1,):
        for noise, norm in [(0.0, 1.0)] if settings.disable_dp else private:
            run = partial(_run, settings, build, count, noise, norm)
            try:
                yield from _facts(run, records)
            except Exception:  # the network accepts only values like those of the dataset
                yield from _facts_of_real_records(run, records, data)


def _stacks(settings: Settings, build: Callable[[], nn.Module]) -> bool:
    """Whether the models of a scenario stack, and a stack's small runs take little time."""
    if get_task(settings.task).text or sum(p.numel() for p in build().parameters()) > _STACKED:
        return False
    return not fault_of_stacks(settings)


def _facts_of_real_records(run: Callable[..., _Log], records: Data, data: Data) -> list[str]:
    """`_facts` of records of the dataset; the name of the error if training on them fails."""
    try:
        assert isinstance(data, ArrayDataset)  # every text model accepts the made-up records
        some = data.inputs(torch.arange(_RECORDS) % len(data)).cpu()
        return list(_facts(run, ArrayDataset(some, records.labels, torch.clone)))
    except Exception as error:  # training itself will report it
        return [type(error).__name__]


def _facts(run: Callable[..., _Log], records: Data) -> Iterator[str]:
    """The log of a run in double precision, and whether one in float32 agrees with it."""
    single, digits = run(records, torch.float32), 6
    try:
        double = run(records, torch.float64)
    except Exception:  # the network's code works in one precision only
        double, digits = single, 2
    yield from double.lines
    yield from (_together(values, digits) for values in double.values)
    yield from single.lines
    if not near(single.values[0], double.values[0], _FLOAT32):
        yield _together(single.values[0], 2)


def _together(values: Sequence[Tensor], digits: int) -> str:
    """The tensors of one step, rounded together to `digits` digits of their largest number.

    So a gradient that is zero up to rounding, like that of an attention's key bias, counts as zero.
    """
    return rounded([number for value in values for number in summary(value)], digits)


def _run(
    settings: Settings,
    build: Callable[[], nn.Module],
    count: int,
    noise: float,
    norm: float,
    records: Data,
    dtype: torch.dtype,
) -> _Log:
    """Train `count` models of type `dtype`, as a stack if there is more than one."""
    norm = norm * (settings.max_grad_norm or 1.0)
    sizes = {**_SMALL, "max_physical_batch_size": _PHYSICAL}
    settings = replace(settings, max_grad_norm=None if settings.disable_dp else norm, **sizes)
    mechanism = Mechanism(noise, settings.sample_rate, settings.num_steps) if noise else None
    if isinstance(records, ArrayDataset) and records.storage.is_floating_point():
        records = ArrayDataset(records.storage.to(dtype), records.labels, torch.clone)
    models = [build().to(dtype) for _ in range(count)]
    for number, model in enumerate(models):
        fill(model, start=2 + 1000 * number)
    before = [p.detach().clone() for model in models for p in model.parameters()]
    indices = [splits_of(settings, records, seeds).train_indices for seeds in _SEEDS[:count]]
    streams = [Streams.of(7, seeds) for seeds in _SEEDS[:count]]
    log = _Log()
    torch.manual_seed(0)
    with Repeatable() as dropout:
        options: dict[str, Any] = {"observer": log, "mechanism": mechanism}
        if count == 1:
            options["make_trainer"] = partial(_unchecked, DPSGD)
            fit_records(settings, models[0], records, indices[0], streams[0], False, **options)
        else:
            options["make_trainer"] = partial(_unchecked, StackedDPSGD)
            stacked = torch.stack(indices)
            fit_stack_records(settings, models, records, stacked, streams, False, **options)
    after = [p.detach() for model in models for p in model.parameters()]
    log.values.append([(b - a).double() for a, b in zip(before, after)])
    log.lines += dropout.seen
    return log


def _unchecked(kind: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """A private trainer without the checks of its first batch, which are slow."""
    trainer = kind(*args, **options)
    trainer.checks._check = lambda *_: None
    return trainer


def _integers(values: Tensor) -> str:
    return hashlib.sha256(values.to(torch.int64).contiguous().numpy().tobytes()).hexdigest()
