"""Same weights, other code: what tells one from the other."""

from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from helpers_fingerprints import SCENARIO, edited, metadata, one_label
from torch import nn

from mico_competition.cli import main
from mico_competition.competition.challenge import ChallengeDataset
from mico_competition.competition.table import TASKS
from mico_competition.data.arrays import ArrayDataset, normalise_cifar10
from mico_competition.data.fingerprint import dataset_fingerprint
from mico_competition.evaluation.predict import attack_challenge
from mico_competition.models import architectures as models
from mico_competition.models.architectures import MLP, load_model
from mico_competition.release.release import release
from mico_competition.signals import open_signals
from mico_competition.training.fingerprints import architecture_fingerprint

HEX = set("0123456789abcdef")


def test_metadata_name_data_and_code(fleet, data):
    for folder in fleet.glob("*/*/*"):
        values = metadata(folder)
        assert values["dataset_fingerprint"] == dataset_fingerprint(data)
        found = architecture_fingerprint(TASKS["digits"], data)
        assert values["architecture_fingerprint"] == found
        assert all(len(values[k]) == 64 and set(values[k]) <= HEX for k in values if "print" in k)


def saturating(gain):
    return lambda: MLP(64, 256, 10, gain=gain)


class Rebuilt(nn.Module):
    """`digits_mlp` with something else in it, and the same names and shapes."""

    def __init__(self, change):
        super().__init__()
        self.change = change
        self.mlp = nn.Sequential(nn.Linear(64, 256), nn.Tanh(), nn.Linear(256, 10))
        if change == "activation":
            self.mlp[1] = nn.ReLU()
        if change == "dropout":
            self.mlp[1] = nn.Sequential(nn.Tanh(), nn.Dropout(0.1))

    def forward(self, x):
        x = x * 64
        if self.change == "order":
            x = x.flip(1)
        if self.change == "normalisation":
            x = F.layer_norm(x, (64,))
        if self.change == "training only" and self.training:
            x = x * 1.01
        hidden = self.mlp[1](self.mlp[0](x))
        if self.change == "detach":
            hidden = hidden.detach()
        if self.change == "temperature":
            return self.mlp[2](hidden) / 1.001
        return self.mlp[2](hidden)


CHANGES = [
    "activation",
    "dropout",
    "order",
    "normalisation",
    "training only",
    "detach",
    "temperature",
]


def test_code_that_computes_the_same_is_the_same(data, monkeypatch):
    expected = architecture_fingerprint(TASKS["digits"], data)
    torch.manual_seed(3)
    state = torch.random.get_rng_state()
    monkeypatch.setitem(models.ARCHITECTURES, "digits_mlp", lambda: Rebuilt("nothing"))
    assert architecture_fingerprint(TASKS["digits"], data) == expected
    assert torch.equal(torch.random.get_rng_state(), state)
    threads = torch.get_num_threads()
    for count in (1, 2):
        torch.set_num_threads(count)
        assert architecture_fingerprint(TASKS["digits"], data) == expected
    torch.set_num_threads(threads)


@pytest.mark.parametrize("change", [*CHANGES, 1.0, 63.9])
def test_an_edit_of_the_architecture_shows(data, monkeypatch, change):
    before = architecture_fingerprint(TASKS["digits"], data)
    build = saturating(change) if isinstance(change, float) else lambda: Rebuilt(change)
    monkeypatch.setitem(models.ARCHITECTURES, "digits_mlp", build)
    assert architecture_fingerprint(TASKS["digits"], data) != before


def test_an_edit_of_what_all_models_go_through_shows(data, monkeypatch):
    before = architecture_fingerprint(TASKS["digits"], data)
    monkeypatch.setattr(
        "mico_competition.training.fingerprints.logits", lambda model, inputs: 2 * model(inputs)
    )
    assert architecture_fingerprint(TASKS["digits"], data) != before


@pytest.mark.parametrize("task", ["cifar10", "purchase100", "baskets"])
def test_every_architecture_can_be_probed(task):
    width = {"cifar10": (3, 32, 32), "purchase100": (75,), "baskets": (30,)}[task]
    storage = torch.zeros(5, *width, dtype=torch.uint8)
    from mico_competition.data.arrays import unpack_bits

    expand = normalise_cifar10 if task == "cifar10" else unpack_bits
    records = ArrayDataset(storage, torch.zeros(5), expand)
    assert len(architecture_fingerprint(TASKS[task], records)) == 64


class Careful(nn.Module):
    """Takes grey levels from 0 to 1 and nothing else."""

    def __init__(self, factor):
        super().__init__()
        self.layer, self.factor = nn.Linear(64, 10), factor

    def forward(self, x):
        if x.min() < 0 or x.max() > 1:
            raise ValueError("Expected grey levels.")
        return self.layer(x * self.factor)


def test_a_network_that_refuses_made_up_records_is_probed_by_real_ones(data, monkeypatch):
    found = []
    for factor in (1.0, 1.0, 1.01):
        monkeypatch.setitem(models.ARCHITECTURES, "digits_mlp", partial(Careful, factor))
        found.append(architecture_fingerprint(TASKS["digits"], data))
    assert found[0] == found[1] != found[2]


def test_signals_of_other_code_are_not_taken(own, data, tmp_path, monkeypatch):
    edited(own, architecture_fingerprint=None, dataset_fingerprint=None)  # as of earlier versions
    before = np.array(open_signals(own, SCENARIO, data, cache=tmp_path).get("logit"))
    monkeypatch.setitem(models.ARCHITECTURES, "digits_mlp", saturating(1.0))
    after = open_signals(own, SCENARIO, data, cache=tmp_path).get("logit")
    assert not np.isclose(before, after).all()
    where = torch.from_numpy(open_signals(own, SCENARIO, data, cache=tmp_path).fleet.records)
    z = load_model("digits", own / SCENARIO / "train/model_0")(data.inputs(where)).detach()
    loss = -F.cross_entropy(z.double(), data.labels[where], reduction="none")
    assert np.allclose(-np.logaddexp(0, -after[0]), loss, rtol=1e-4)


def test_an_edit_of_the_signals_code_makes_them_anew(own, data, tmp_path, monkeypatch):
    open_signals(own, SCENARIO, data, cache=tmp_path).compute()
    monkeypatch.setattr(
        "mico_competition.signals.forward.true_logit", lambda z, y: z[:, 0].double()
    )
    assert open_signals(own, SCENARIO, data, cache=tmp_path).compute().made == 4


def test_models_of_other_code_are_refused(fleet, data, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(models.ARCHITECTURES, "digits_mlp", saturating(1.0))
    with pytest.raises(ValueError, match=r"model_0 was trained with code that computes something"):
        open_signals(fleet, SCENARIO, data, cache=tmp_path)
    with pytest.raises(ValueError, match="trained with code that computes something else"):
        attack_challenge(fleet, lambda task: data, predictions=tmp_path)
    assert main(["evaluate", str(fleet), "--attack", "threshold"]) == 1
    assert "Use the version of the code that trained it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("key", "sentence"),
    [
        ("dataset_fingerprint", "were trained on different datasets"),
        ("architecture_fingerprint", "with code that computes different things"),
    ],
)
@pytest.mark.parametrize("value", ["0" * 64, None])
def test_a_release_of_two_kinds_is_refused(own, tmp_path, key, sentence, value):
    edited(own / SCENARIO / "train/model_1", **{key: value})
    with pytest.raises(ValueError, match=sentence):
        release(tmp_path, "digits", tmp_path / "released")
    assert not (tmp_path / "released" / "digits").exists()


def test_a_release_has_the_fingerprints_and_is_checked_too(fleet, data, tmp_path):
    release(fleet.parent, "digits", tmp_path)
    folder = tmp_path / "digits" / SCENARIO / "dev/model_100"
    assert metadata(folder)["dataset_fingerprint"] == dataset_fingerprint(data)
    ChallengeDataset.from_path(folder, data)
    with pytest.raises(ValueError, match="another dataset"):
        ChallengeDataset.from_path(folder, one_label(data))
