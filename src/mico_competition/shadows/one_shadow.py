"""Trains one shadow model from its own seeds, and turns it into bytes and back."""

from __future__ import annotations

import io
import pickle
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch import nn

from mico_competition.shadows.records import Records, shape_of

_TORCH, _PICKLE = b"torch\n", b"pickle\n"
MODELS, PROBE, RECORDS, NOISE = range(4)  # what seeds are drawn for

_generators = threading.Lock()  # the generators belong to the process: threads take turns


class SeededTraining:
    """A `train` that takes the seed of a shadow model, for randomness that no model may share."""

    def __call__(self, model: Any, subset: Any, seed: int) -> Any:
        """Train `model` on `subset`; everything random but the model's own follows from `seed`."""
        raise NotImplementedError


@dataclass(frozen=True)
class Job:
    """What every process needs to train any of the shadow models.

    Attributes:
        make_model: returns a new model: a torch module, or a scikit-learn estimator.
        train: `train(model, subset)` trains it in place, or returns the trained model; a
            `SeededTraining` also gets a seed, which follows from `seed` and the index alone.
        records: the dataset.
        membership: bool[count, records].
        seed: of all shadow models.
        threads: of each shadow model; the rounding of sums may depend on it.
    """

    make_model: Callable[[], Any]
    train: Callable[[Any, Any], Any] | SeededTraining
    records: Records
    membership: np.ndarray
    seed: int
    threads: int

    def run(self, index: int) -> bytes:
        """Train shadow model `index`, and return it as bytes.

        Raises:
            ValueError: if `train` gives no model that can be attacked; and whatever it raises.
        """
        with seeded(self.seed, MODELS, index), limited_threads(self.threads):
            model = self.make_model()
            subset = self.records.subset(np.flatnonzero(self.membership[index]))
            before = _weights(model)
            try:
                if isinstance(self.train, SeededTraining):
                    trained = self.train(model, subset, _words(self.seed, NOISE, index)[0])
                else:
                    trained = self.train(model, subset)
                trained = model if trained is None else trained
                _check_changed(before, trained)
                return encode(trained)
            except Exception as error:
                error.add_note(
                    f"This happened in shadow model {index}, whose subset is {shape_of(subset)}."
                )
                raise

    def decode(self, content: bytes) -> Any:
        """The trained model, on the CPU and in eval mode.

        Raises:
            ValueError: if the bytes are damaged, or those of another model.
        """
        if content.startswith(_PICKLE):
            return pickle.loads(content[len(_PICKLE) :])
        if not content.startswith(_TORCH):
            raise ValueError("Expected a shadow model, got other bytes.")
        try:
            state = torch.load(
                io.BytesIO(content[len(_TORCH) :]), map_location="cpu", weights_only=True
            )
        except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
            raise ValueError(f"Expected a whole state_dict: {str(error)[:200]}") from None
        model = self.fresh()
        try:
            model.load_state_dict(state)
        except (RuntimeError, AttributeError) as error:
            raise ValueError(
                "Expected the trained model to have the parameters of make_model()'s: "
                f"{' '.join(str(error).split())[:400]} Let `train` return that model, not another."
            ) from None
        return model.cpu().eval()

    def fresh(self) -> Any:
        """A new model, the same at every call, that leaves the generators as they were."""
        with seeded(self.seed, PROBE, 0):
            return self.make_model()


def encode(model: Any) -> bytes:
    """A trained model as bytes: the state_dict of a torch module, or a pickled estimator."""
    if isinstance(model, nn.Module):
        state = {name: value.detach().cpu() for name, value in model.state_dict().items()}
        buffer = io.BytesIO()
        torch.save(state, buffer)
        return _TORCH + buffer.getvalue()
    if hasattr(model, "predict_proba") and not isinstance(model, type):
        if not hasattr(model, "classes_"):
            raise ValueError(
                f"`train` has not fitted the {type(model).__name__}: call model.fit(*subset) in it."
            )
        return _PICKLE + pickle.dumps(model)
    raise ValueError(
        "Expected `train` to train the model in place and return nothing, or to return it alone: a "
        "torch module or an estimator with predict_proba; "
        f"got {'a class' if isinstance(model, type) else type(model).__name__}."
    )


def _weights(model: Any) -> dict[str, torch.Tensor]:
    """A copy of the weights of a torch module, on the CPU; none of anything else."""
    if not isinstance(model, nn.Module):
        return {}
    tensors = dict(model.named_parameters()) | dict(model.named_buffers())
    return {name: value.detach().to("cpu", copy=True) for name, value in tensors.items()}


def _check_changed(before: dict[str, torch.Tensor], trained: Any) -> None:
    """Raise ValueError if the training has left every weight as it was."""
    now = _weights(trained)
    if (
        before
        and before.keys() == now.keys()
        and all(torch.equal(value, now[name]) for name, value in before.items())
    ):
        raise ValueError(
            "Expected `train` to train the model, but all of its weights are as before: train it "
            "in place, or return the trained model."
        )


def check_fresh(job: Job) -> None:
    """Raise ValueError unless `make_model` gives a model, and a new one at each call.

    Two shadow models that share trained parameters would hold each other's members. A frozen part,
    such as a pretrained backbone, may be shared.
    """
    first, second = job.fresh(), job.fresh()
    private = isinstance(job.train, SeededTraining)
    usable = hasattr(first, "predict_proba") and not private
    if isinstance(first, type) or not (isinstance(first, nn.Module) or usable):
        kind = f"the class {first.__name__}" if isinstance(first, type) else type(first).__name__
        estimator = "" if private else ", or a scikit-learn classifier with predict_proba"
        raise ValueError(f"Expected make_model() to return a torch module{estimator}, got {kind}.")
    shared = first is second
    if isinstance(first, nn.Module) and isinstance(second, nn.Module):
        of_first = {id(p) for p in first.parameters() if p.requires_grad}
        shared = shared or any(id(parameter) in of_first for parameter in second.parameters())
    if shared:
        raise ValueError(
            "Expected make_model() to give a new model at each call, got the same parameters "
            "twice: create the model inside the function."
        )


@contextmanager
def seeded(seed: int, purpose: int, index: int) -> Iterator[None]:
    """Seed the generators of Python, numpy and torch in the block, and restore them after it."""
    words = _words(seed, purpose, index)
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    with _generators, torch.random.fork_rng(devices=devices):
        before = random.getstate(), np.random.get_state()
        random.seed(words[0])
        np.random.seed(words[1] % 2**32)
        torch.manual_seed(words[2] % 2**63)
        try:
            yield
        finally:
            random.setstate(before[0])
            np.random.set_state(before[1])


def _words(seed: int, purpose: int, index: int) -> list[int]:
    """Three seeds of 64 bits, the same whatever the generators of the process did before."""
    sequence = np.random.SeedSequence(seed, spawn_key=(purpose, index))
    return [int(word) for word in sequence.generate_state(3, np.uint64)]


@contextmanager
def limited_threads(threads: int) -> Iterator[None]:
    """Use this number of threads in the block, in torch and in the libraries of numpy."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with threadpool_limits(threads):
            yield
    finally:
        torch.set_num_threads(before)
