"""What a newcomer does wrong with train_shadows gets one sentence with the fix."""

import numpy as np
import pytest
import torch
from helpers_shadows import CLASSES, FEATURES, RECORDS, make_data, make_model, train
from sklearn.linear_model import LogisticRegression
from sklearn.svm import SVC
from torch import nn
from torch.nn.functional import one_hot
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

import mico_competition as mico

INPUTS, LABELS = (torch.from_numpy(part) for part in make_data())


def shadows(make=make_model, how=train, data=(INPUTS, LABELS), **options):
    return mico.train_shadows(make, how, data, **{"count": 4, "progress": False, **options})


def refused(message, **arguments):
    with pytest.raises(ValueError, match=message):
        shadows(**arguments)


class Iterable(IterableDataset):
    def __iter__(self):
        yield from zip(INPUTS, LABELS)

    def __len__(self):
        return RECORDS


class TooLong(Dataset):
    def __getitem__(self, index):
        return INPUTS[index], LABELS[index]

    def __len__(self):
        return RECORDS + 9


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (DataLoader(TensorDataset(INPUTS, LABELS)), r"got DataLoader: give loader\.dataset"),
        (Iterable(), r"no positions: give list\(dataset\)"),
        (INPUTS, r"got Tensor alone: give \(inputs, labels\)"),
        ({"data": INPUTS, "target": LABELS}, r"give \(dataset\.data, dataset\.target\)"),
        ((INPUTS, LABELS, LABELS), r"got tuple of 3: give \(inputs, labels\)"),
        (None, r"got NoneType: give \(inputs, labels\)"),
        (TooLong(), "whose length is 49, but item 40 fails: IndexError"),
        ([("text", 1)] * 20, "items of another form"),
        ([(torch.zeros(1 + i % 2), 1) for i in range(20)], "do not make batches: give tensors"),
        ((INPUTS.tolist(), LABELS), r"got list: give np\.asarray of it"),
        ((INPUTS, one_hot(LABELS, CLASSES)), r"one-hot, give labels\.argmax\(1\)"),
        ((INPUTS, LABELS[:, None]), r"give labels\[:, 0\]"),
        ((INPUTS, LABELS.float()), "got float32 of shape .*convert them"),
        ((INPUTS, LABELS.numpy().astype(str)), r"give np\.unique\(labels, return_inverse=True"),
    ],
)
def test_what_is_no_dataset(data, message):
    refused(message, data=data)


@pytest.mark.parametrize(
    ("make", "how", "message"),
    [
        (
            lambda: nn.Linear,
            train,
            r"to return a torch module.*got the class Linear",
        ),
        (lambda: None, train, "got NoneType"),
        (lambda: (make_model(), 1), train, "got tuple"),
        (SVC, train, "got SVC"),
        (lambda seed: make_model(), train, r"called as make_model\(\), got <lambda>\(seed\)"),
        (nn.Linear, train, r"called as make_model\(\), got Linear\(in_features"),
        (
            make_model,
            lambda model: None,
            r"train\(model, subset\), got <lambda>\(model\)",
        ),
        (make_model, make_model(), "got Sequential: give train"),
        (make_model, lambda model, subset: (model, 0.1), "return nothing.*got tuple"),
        (LogisticRegression, lambda model, subset: None, "has not fitted the LogisticRegression"),
    ],
)
def test_what_is_no_model_or_training(make, how, message):
    refused(message, make=make, how=how)


def test_one_trained_model_for_all():
    one = make_model()
    refused("models 0 and 1 came out of `train` with the same weights", how=lambda model, _: one)


PRIVATE = {"how": None, "target_epsilon": 8.0, "epochs": 1, "batch_size": 5}


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        (torch.optim.SGD([nn.Parameter(torch.zeros(1))]), "got SGD: each shadow model needs an"),
        ("sgd", "got str"),
        (lambda: None, r"called as optimizer\(parameters\), got <lambda>\(\)"),
        (lambda parameters: None, "which returned NoneType"),
        (lambda model: torch.optim.SGD(model.parameters()), "which failed: 'list' object"),
    ],
)
def test_what_is_no_function_of_an_optimizer(optimizer, message):
    refused(message, optimizer=optimizer, **PRIVATE)


def test_private_training_needs_torch():
    refused(
        r"make_model\(\) to return a torch module, got LogisticRegression",
        make=LogisticRegression,
        optimizer=torch.optim.SGD,
        **PRIVATE,
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "gpu"}, "device='gpu' to be a device of torch"),
        ({"device": "cuda:77"}, r"device='cuda:77' to be there, but torch sees \d+ CUDA devices"),
        ({"folder": 3}, "folder as a path, got int"),
        ({"folder": __file__}, "but it is a file"),
        ({"fraction": "half"}, "fraction='half' in"),
        ({"epoch": 3}, "train_shadows has no argument epoch: did you mean epochs"),
    ],
)
def test_options(options, message):
    refused(message, **options)


def test_an_error_of_train_says_what_it_was_given():
    with pytest.raises(ZeroDivisionError) as caught:
        shadows(how=lambda model, subset: 1 / 0)
    (note,) = caught.value.__notes__
    assert "model 0, whose subset is a pair (inputs, labels): inputs float32 (20, 6)" in note
    with pytest.raises(ZeroDivisionError) as caught:
        shadows(how=lambda model, subset: 1 / 0, data=TensorDataset(INPUTS, LABELS))
    assert "a torch Subset of 20 items" in caught.value.__notes__[0]


def test_a_target_of_another_architecture_is_called_the_target():
    pool = shadows(count=6)
    other = nn.Sequential(nn.Linear(FEATURES, 5), nn.Tanh(), nn.Linear(5, CLASSES))
    with pytest.raises(ValueError, match="but the target differs from the first at"):
        mico.attack(pool, "layers", target=other)
    both = [other, make_model()]
    with pytest.raises(ValueError, match=r"but target\[0\] differs from the first at"):
        mico.attack(pool, "layers", target=both)
    assert np.isfinite(mico.attack(pool, "lira", target=other)).all()
