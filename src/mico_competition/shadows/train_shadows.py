"""Trains the shadow models of a dataset in one call, for whoever has one model and its data."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from torch import nn

from mico_competition.models.inputs import device_of
from mico_competition.shadows.membership import balanced_membership
from mico_competition.shadows.one_shadow import RECORDS, Job, SeededTraining, check_fresh, seeded
from mico_competition.shadows.private import PrivateTraining, check_optimizer
from mico_competition.shadows.records import Records
from mico_competition.shadows.shadow_folder import ShadowFolder
from mico_competition.shadows.workers import trained
from mico_competition.signals.pool import ModelPool
from mico_competition.support.call_errors import check_call, explained
from mico_competition.support.counts import check_whole
from mico_competition.support.files import PathLike
from mico_competition.support.progress import stage


@explained
def train_shadows(
    make_model: Callable[[], Any],
    train: Callable[[Any, Any], Any] | None = None,
    dataset: Any = None,
    *,
    count: int = 16,
    fraction: float = 0.5,
    seed: int = 0,
    workers: int = 1,
    executor: Any = None,
    threads: int = 1,
    folder: PathLike | None = None,
    device: Any = None,
    progress: bool = True,
    target_epsilon: float | None = None,
    target_delta: float = 1e-5,
    optimizer: Callable[[Any], Any] | None = None,
    loss: Callable[[Any, Any], Any] | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    max_grad_norm: float = 1.0,
) -> ModelPool:
    """Train shadow models on random halves of a dataset, and return them as a `ModelPool`.

    Every record is in the training sets of half of the models (`balanced_membership`). Attack the
    models of the pool with each other as shadows (`mico.evaluate(pool, ["lira"])`), or a model of
    your own that was trained on records of the same dataset
    (`mico.attack(pool, "lira", target=my_model)`). With the default fraction, models come in pairs
    with complementary training sets, so give `mico.epsilon_bounds` every second one.

    Each model is trained from seeds of its own, which follow from `seed` and its number: Python's,
    numpy's and torch's generators are set before `make_model` and restored after `train`. So the
    models are the same for every number of workers, for an interrupted and resumed run, and for
    every order, as far as `train` itself is deterministic (not every GPU kernel is).

    With `target_epsilon`, each model is trained with DP-SGD (`PrivateTrainer`) instead of `train`,
    and `pool.claim` is the claimed epsilon, which `result.plot(limits=pool.claim)` draws. These
    models are for attacks: whoever knows `seed` can compute their noise.

    Args:
        make_model: a function without arguments that returns a new model: a torch module that
            returns logits, or a scikit-learn classifier.
        train: `train(model, subset)` trains the model on the subset, in place, or returns the
            trained model, which must have the parameters of `make_model()`. Put augmentation here:
            the pool takes records as the dataset gives them.
        dataset: a torch Dataset of (input, label) items, or of dicts with `labels`: then `subset`
            is a torch `Subset`. Or a pair (inputs, labels) of arrays or tensors, where inputs may
            be a dict of tensors: then `subset` is such a pair.
        count: the number of shadow models, at least 2.
        fraction: the share of the records in each training set, in (0, 1).
        seed: of the splits and of all models, a whole number >= 0.
        workers: processes that train at the same time. Functions of a script or a notebook, and
            lambdas, can be sent to them.
        executor: trains elsewhere: "ray" for a Ray cluster, or an object with
            `submit(function, *arguments)` that returns a `concurrent.futures.Future`. `workers`
            is then ignored.
        threads: the threads of each model. Another number may round differently.
        folder: keeps the models, so that a run that stopped continues with the missing ones. It
            remembers the arguments, and refuses others. It is for your own use only: estimators of
            scikit-learn are kept as pickles, which can run code when they are read.
        device: where private training runs, and where the pool computes signals.
        progress: whether to show the progress.
        target_epsilon: the privacy budget of each model, > 0.
        target_delta: of the privacy budget, in (0, 1).
        optimizer: a function from parameters to an optimizer, such as
            `lambda parameters: torch.optim.SGD(parameters, lr=0.5)`. Private training only.
        loss: one loss for each example, as in `PrivateTrainer`; by default the cross-entropy.
        epochs: passes over the training set. Private training only.
        batch_size: the expected size of a batch. Private training only.
        max_grad_norm: the clipping norm. Private training only.

    Returns:
        A `ModelPool` of `count` models and all records of the dataset, with their membership.

    Raises:
        ValueError: if an argument is invalid, `make_model` gives the same model twice, `train`
            gives no model, or `folder` holds models of other arguments.
        OSError: if a process dies, or a file cannot be written.

    Source: Carlini et al., "Membership Inference Attacks From First Principles", IEEE S&P 2022,
    section VI-A.

    Example:
        >>> from sklearn.datasets import load_digits
        >>> from sklearn.linear_model import LogisticRegression
        >>> inputs, labels = load_digits(return_X_y=True)
        >>> from mico_competition import train_shadows
        >>> pool = train_shadows(
        ...     make_model=lambda: LogisticRegression(max_iter=200),
        ...     train=lambda model, subset: model.fit(*subset),
        ...     dataset=(inputs[:300] / 16, labels[:300]),
        ...     count=4,
        ... )
        >>> pool.membership.sum(axis=0).tolist() == [2] * 300
        True
    """
    private = {"optimizer": optimizer, "epochs": epochs, "batch_size": batch_size}
    how: Any = train
    if target_epsilon is not None:
        how = _private(
            train,
            {
                "target_epsilon": target_epsilon,
                "target_delta": target_delta,
                **private,
                "loss": loss,
                "max_grad_norm": max_grad_norm,
                "device": device,
            },
        )
    elif given := [name for name, value in {**private, "loss": loss}.items() if value is not None]:
        raise ValueError(
            f"{given[0]} belongs to private training: give target_epsilon too, or train with "
            "`train` alone."
        )
    _check_functions(make_model, how, workers, threads, executor)
    device = device_of(device)
    _check_folder(folder)
    records = Records.of(dataset)
    membership = balanced_membership(count, len(records), fraction, seed)
    job = Job(make_model, how, records, membership, seed, threads)
    settings = {"count": count, "fraction": fraction, "seed": seed, "threads": threads}
    with seeded(seed, RECORDS, 0):  # a dataset may transform its records at random
        inputs, labels = records.arrays
    models = trained_models(job, folder, settings, workers, executor, progress)
    pool = ModelPool.from_models(
        models, inputs, labels, membership, device=device, progress=progress
    )
    if isinstance(how, PrivateTraining):
        pool.claim = how.claim(job)
    return pool


def _private(train: Any, given: dict[str, Any]) -> PrivateTraining:
    if train is not None:
        raise ValueError(
            "Expected either train or target_epsilon: private training takes optimizer, loss, "
            "epochs and batch_size, and no `train`."
        )
    for name in ("optimizer", "epochs", "batch_size"):
        if given[name] is None:
            raise ValueError(f"Private training needs {name}: give {name} beside target_epsilon.")
    check_optimizer(given["optimizer"])
    return PrivateTraining(**given)


def _check_folder(folder: Any) -> None:
    if folder is not None and not isinstance(folder, (str, os.PathLike)):
        raise ValueError(f"Expected folder as a path, got {type(folder).__name__}.")
    if folder is not None and Path(folder).is_file():
        raise ValueError(f"Expected folder={str(folder)!r} to be a folder, but it is a file.")


def _check_functions(
    make_model: Any, train: Any, workers: int, threads: int, executor: Any
) -> None:
    if isinstance(make_model, nn.Module) or not callable(make_model):
        raise ValueError(
            "Expected make_model as a function that returns a new model, got "
            f"{type(make_model).__name__}: give `lambda: ...`, or the model's class."
        )
    check_call("make_model", make_model, "", "Give `lambda: ...` with the arguments inside.")
    if isinstance(train, nn.Module) or not callable(train):
        raise ValueError(
            "Expected train as a function of a model and a subset, got "
            f"{type(train).__name__}: give train(model, subset), or target_epsilon for private "
            "training."
        )
    if not isinstance(train, SeededTraining):
        check_call("train", train, "model, subset")
    check_whole("workers", workers, least=1)
    check_whole("threads", threads, least=1)
    if executor not in (None, "ray") and not hasattr(executor, "submit"):
        raise ValueError(
            f"Expected executor={executor!r} to be 'ray', or an object with a method `submit`."
        )


def trained_models(
    job: Job,
    folder: PathLike | None,
    settings: dict[str, Any],
    workers: int,
    executor: Any,
    progress: bool,
) -> list[Any]:
    """The shadow models of a job, in order; those of `folder` are read, the others trained."""
    check_fresh(job)
    seen: dict[bytes, int] = {}
    count = len(job.membership)
    models: dict[int, Any] = {}
    opened = nullcontext() if folder is None else ShadowFolder.opened(Path(folder), job, settings)
    with opened as kept:
        if kept is not None:
            found = {index: kept.read(index) for index in range(count)}
            models = {index: model for index, model in found.items() if model is not None}
        lacking = [index for index in range(count) if index not in models]
        done = count - len(lacking)
        with stage("Shadow models", count, "model", initial=done, show=progress) as shown:
            for index, content in trained(job, lacking, workers, executor):
                first = seen.setdefault(hashlib.sha256(content).digest(), index)
                if first != index:
                    raise ValueError(
                        f"Shadow models {first} and {index} came out of `train` with the same "
                        "weights: train the model that `train` is given, on its subset."
                    )
                models[index] = job.decode(content)
                if kept is not None:
                    kept.write(index, content)
                shown.update()
    return [models[index] for index in range(count)]
