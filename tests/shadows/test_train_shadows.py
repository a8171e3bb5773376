"""Shadow models in one call: the forms of data and models, seeds, and what is refused."""

import copy
import logging
import random
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pytest
import torch
from helpers_shadows import CLASSES, FEATURES, RECORDS, fit, make_data, make_model, train, weights
from sklearn.linear_model import LogisticRegression
from torch import nn
from torch.utils.data import Dataset, Subset, TensorDataset

from mico_competition.data.arrays import ArrayDataset
from mico_competition.data.own_loader import as_float32
from mico_competition.shadows.membership import balanced_membership
from mico_competition.shadows.train_shadows import train_shadows


def shadows(make=make_model, how=train, data=None, **options):
    options = {"count": 4, "seed": 7, "progress": False, **options}
    return train_shadows(make, how, make_data() if data is None else data, **options)


def of(pool):
    return [weights(pool.source.load(row)) for row in range(4)]


@pytest.fixture(scope="module")
def reference():
    return of(shadows())


def same(first, second):
    return all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def test_a_model_sees_its_members_and_no_others():
    seen = []

    def watch(model, subset):
        seen.append(subset)
        train(model, subset)

    data = make_data()
    pool = shadows(how=watch)
    mask = balanced_membership(4, RECORDS, 0.5, 7)
    assert np.array_equal(pool.membership, mask)
    assert len(seen) == 4
    for row, (inputs, labels) in zip(mask, seen):
        assert np.array_equal(inputs, data[0][row]) and np.array_equal(labels, data[1][row])


def test_models_differ_and_the_callers_generators_do_not_change(reference):
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    pool = shadows()
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1]) and before[2] == random.getstate()
    assert same(of(pool), reference)  # whatever the caller's generators were
    assert len({values.tobytes() for values in reference}) == 4
    assert not same(of(shadows(seed=8)), reference)


def as_items():
    inputs, labels = make_data()
    return list(zip(torch.from_numpy(inputs), labels.tolist()))


class Dicts(Dataset):
    """Items as tokenised text has them."""

    def __len__(self):
        return RECORDS

    def __getitem__(self, index):
        inputs, labels = make_data()
        return {"x": torch.from_numpy(inputs[index]), "labels": int(labels[index])}


class OfDicts(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = make_model()

    def forward(self, x):
        return self.layers(x)


def train_items(model, subset):
    assert isinstance(subset, Subset)
    inputs, labels = zip(*(subset[i] for i in range(len(subset))))
    fit(model, torch.stack(inputs), torch.tensor(labels))


def train_dicts(model, subset):
    items = [subset[i] for i in range(len(subset))]
    inputs, labels = torch.stack([i["x"] for i in items]), [i["labels"] for i in items]
    fit(model.layers, inputs, torch.tensor(labels))


def train_pair_of_dicts(model, subset):
    inputs, labels = subset
    fit(model.layers, inputs["x"], labels)


TENSORS = tuple(torch.from_numpy(part) for part in make_data())


@pytest.mark.parametrize(
    ("make", "how", "data"),
    [
        (make_model, train, TENSORS),
        (make_model, train_items, TensorDataset(*TENSORS)),
        (make_model, train_items, as_items()),
        (make_model, train_items, ArrayDataset(TENSORS[0], TENSORS[1], as_float32)),
        (OfDicts, train_dicts, Dicts()),
        (OfDicts, train_pair_of_dicts, ({"x": TENSORS[0]}, TENSORS[1])),
    ],
    ids=["tensors", "Dataset", "list of items", "ArrayDataset", "dicts", "dict of tensors"],
)
def test_every_form_of_data_gives_the_same_models(make, how, data, reference):
    pool = shadows(make, how, data)
    assert same(of(pool), reference)
    with torch.no_grad():
        x = {"x": TENSORS[0]} if make is OfDicts else TENSORS[0]
        model = pool.source.load(2).cpu()
        assert not model.training
        expected = (model(**x) if make is OfDicts else model(x)).numpy()
    assert np.abs(pool.source.logits(2) - expected).max() < 1e-6


def test_estimators_of_scikit_learn():
    inputs, labels = make_data()
    made = []

    def make():
        made.append(LogisticRegression(max_iter=50))
        return made[-1]

    pool = shadows(make, lambda model, subset: model.fit(*subset))
    mask = balanced_membership(4, RECORDS, 0.5, 7)
    for row in range(4):
        alone = LogisticRegression(max_iter=50).fit(inputs[mask[row]], labels[mask[row]])
        logits = pool.source.logits(row).astype(np.float64)
        found = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        assert np.abs(found - alone.predict_proba(inputs)).max() < 1e-6


def test_train_may_return_another_object_with_the_same_parameters(reference):
    def train_copy(model, subset):
        copy = make_model_without_draws(model)
        train(copy, subset)
        return copy

    assert same(of(shadows(how=train_copy)), reference)


def make_model_without_draws(model):
    with torch.random.fork_rng(devices=[]):
        copy = make_model()
    copy.load_state_dict(model.state_dict())
    return copy


class Everywhere:
    """An executor of the simplest kind: it is given functions and arguments."""

    def submit(self, function, *arguments):
        future = Future()
        future.set_result(function(*arguments))
        return future


def test_executors_give_the_same_models(reference):
    assert same(of(shadows(executor=Everywhere())), reference)
    with ThreadPoolExecutor(3) as threads:  # which share the generators, and take turns
        assert same(of(shadows(executor=threads)), reference)


def test_what_cannot_be_sent_is_trained_here(reference, caplog):
    lock = __import__("threading").Lock()

    def with_lock(model, subset):
        with lock:
            train(model, subset)

    with caplog.at_level(logging.WARNING):
        assert same(of(shadows(how=with_lock, workers=2)), reference)
    assert "cannot be sent to another process" in caplog.text
    with pytest.raises(ValueError, match="cannot be sent to another process"):
        shadows(how=with_lock, executor=Everywhere())


def one_model():
    return ONE


ONE, SHARED = make_model(), nn.Linear(FEATURES, 8)
FROZEN = nn.Linear(FEATURES, 8).requires_grad_(False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"make": one_model}, "a new model at each call"),
        ({"make": lambda: nn.Sequential(SHARED, nn.Linear(8, CLASSES))}, "same parameters twice"),
        ({"make": make_model()}, "give `lambda: ...`"),
        ({"how": None}, "Expected train as a function"),
        ({"how": lambda model, subset: 3}, "got int"),
        ({"how": lambda model, subset: nn.Linear(2, 2)}, "not another"),
        ({"data": TENSORS[0]}, "Expected dataset as a torch Dataset"),
        ({"data": (TENSORS[0], TENSORS[1][:7])}, r"inputs of shape \(40, 6\) for 7 labels"),
        ({"data": (TENSORS[0], TENSORS[0])}, r"float32 of shape \(40, 6\)"),
        ({"data": ([1, 2], np.zeros(2, int))}, "inputs of dataset as an array"),
        ({"data": [1, 2, 3, 4, 5]}, "items of another form"),
        ({"workers": 0}, "workers=0"),
        ({"executor": "slurm"}, "executor='slurm'"),
        ({"epochs": 3}, "epochs belongs to private training"),
        ({"target_epsilon": 4.0}, "either train or target_epsilon"),
        ({"target_epsilon": 4.0, "how": None}, "Private training needs optimizer"),
    ],
)
def test_mistakes_get_a_sentence(change, message):
    with pytest.raises(ValueError, match=message):
        shadows(**change)


def test_a_frozen_part_may_be_shared():
    pool = shadows(lambda: nn.Sequential(FROZEN, nn.Linear(8, CLASSES)))
    assert len({values.tobytes() for values in of(pool)}) == 4


def test_a_train_that_trains_nothing_is_refused():
    with pytest.raises(ValueError, match="all of its weights are as before: train it in place"):
        shadows(how=lambda model, subset: copy.deepcopy(model))
    with pytest.raises(ValueError, match="all of its weights are as before"):
        shadows(how=lambda model, subset: train(copy.deepcopy(model), subset))


def test_an_error_of_train_names_the_shadow():
    def fail(model, subset):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine") as caught:
        shadows(how=fail)
    assert caught.value.__notes__[0].startswith("This happened in shadow model 0, whose subset")
