"""Right length, wrong data; same weights, other code: what tells one from the other."""

import json
import logging
import re
import shutil
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn
from torch.utils.data import ConcatDataset, Subset, TensorDataset

from mico_competition.cli import main
from mico_competition.competition.challenge import ChallengeDataset
from mico_competition.competition.layout import model_path
from mico_competition.competition.splits import Seeds, draw_seeds
from mico_competition.competition.table import SCENARIOS, TASKS
from mico_competition.data import fingerprint
from mico_competition.data.arrays import ArrayDataset, TextDataset, normalise_cifar10, sixteenths
from mico_competition.data.datasets import LOADERS, load_cifar10
from mico_competition.data.fingerprint import dataset_fingerprint
from mico_competition.evaluation.predict import attack_challenge
from mico_competition.models import architectures as models
from mico_competition.models.architectures import MLP, load_model
from mico_competition.models.inputs import prepare
from mico_competition.models.probe import behaviour, longer_rows, probe_rows
from mico_competition.models.small_roberta import make_small_roberta
from mico_competition.models.text_models import read_config
from mico_competition.release.release import release
from mico_competition.signals import open_signals
from mico_competition.training.fingerprints import architecture_fingerprint
from mico_competition.training.settings import resolve
from mico_competition.training.train_many import Run, train_many

SCENARIO = "digits_inf"
HEX = set("0123456789abcdef")


def seeds_of(model_id):
    return Seeds(*(bytes([model_id, i] * 8) for i in range(3)))


@pytest.fixture(scope="module")
def fleet(tmp_path_factory, data):
    """Four trained models of digits_inf; read-only."""
    root = tmp_path_factory.mktemp("fleet")
    settings = resolve({"scenario": SCENARIO, "num_epochs": 30})
    runs = [
        Run(seeds_of(i), model_path(root, SCENARIOS[SCENARIO], phase, i), i, i)
        for i, phase in ((0, "train"), (1, "train"), (2, "train"), (100, "dev"))
    ]
    list(train_many(settings, data, runs, progress=False))
    return root / "digits"


@pytest.fixture
def own(fleet, tmp_path):
    """A copy of the fleet."""
    return shutil.copytree(fleet, tmp_path / "digits")


def metadata(folder):
    return json.loads((folder / "metadata.json").read_text())


def edited(folder, **changes):
    """Change keys of the metadata of all models below `folder`; None takes one out."""
    for path in folder.rglob("metadata.json"):
        values = {**json.loads(path.read_text()), **changes}
        values = {key: value for key, value in values.items() if value is not None}
        path.write_text(json.dumps(values))


def backwards(data):
    return ArrayDataset(data.storage.flip(0), data.labels.flip(0), data.expand)


def rolled_labels(data):
    return ArrayDataset(data.storage, data.labels.roll(1), data.expand)


def one_pixel(data):
    storage = data.storage.clone()
    storage[1700, 60] ^= 1
    return ArrayDataset(storage, data.labels, data.expand)


def one_label(data):
    labels = data.labels.clone()
    labels[900] = (labels[900] + 1) % 10
    return ArrayDataset(data.storage, labels, data.expand)


def centred(levels):
    return sixteenths(levels) - 0.5


def other_preparation(data):
    return ArrayDataset(data.storage, data.labels, centred)


def a_subset(data):
    return Subset(data, list(range(len(data)))[::-1])


def tensors(data):
    return TensorDataset(data.inputs(range(len(data))), data.labels.roll(3))


WRONG = [
    backwards,
    rolled_labels,
    one_pixel,
    one_label,
    other_preparation,
    a_subset,
    tensors,
]


# --- the dataset


def test_metadata_name_data_and_code(fleet, data):
    for folder in fleet.glob("*/*/*"):
        values = metadata(folder)
        assert values["dataset_fingerprint"] == dataset_fingerprint(data)
        found = architecture_fingerprint(TASKS["digits"], data)
        assert values["architecture_fingerprint"] == found
        assert all(len(values[k]) == 64 and set(values[k]) <= HEX for k in values if "print" in k)


@pytest.mark.parametrize("change", WRONG)
def test_another_dataset_of_the_same_length_is_refused(fleet, data, tmp_path, change):
    wrong = change(data)
    folder = fleet / SCENARIO / "train/model_0"
    with pytest.raises(ValueError, match=r"model_0 was trained on another dataset: the 1797 reco"):
        ChallengeDataset.from_path(folder, wrong)
    if isinstance(wrong, ArrayDataset):
        with pytest.raises(ValueError, match="another dataset"):
            open_signals(fleet, SCENARIO, wrong, cache=tmp_path)
        with pytest.raises(ValueError, match="another dataset"):
            attack_challenge(fleet, lambda task: wrong, predictions=tmp_path, progress=False)


@pytest.mark.parametrize(
    "verb", ["evaluate --attack threshold", "signals", "attack", "audit --attack threshold"]
)
def test_every_verb_refuses_it_in_a_sentence(fleet, data, tmp_path, capsys, monkeypatch, verb):
    monkeypatch.setitem(LOADERS, "digits", lambda *a, **k: one_pixel(data))
    words = [*verb.split(), str(fleet), "--cache", str(tmp_path / "cache")]
    if verb == "attack":
        words += ["--predictions", str(tmp_path / "predictions")]
    assert main(words) == 1
    error = capsys.readouterr().err
    assert "was trained on another dataset" in error and "Traceback" not in error


def test_the_same_dataset_is_the_same_however_it_is_held(data):
    expected = dataset_fingerprint(data)
    items = [data[i] for i in range(len(data))]
    whole = data.inputs(range(len(data)))
    halves = [Subset(data, range(900)), Subset(data, range(900, len(data)))]
    for other in (
        ArrayDataset(whole, data.labels, torch.clone),
        items,
        [(record.numpy(), label) for record, label in items],
        ConcatDataset(halves),
        TensorDataset(whole, data.labels),
        data.to("cpu"),
    ):
        assert dataset_fingerprint(other) == expected
    assert dataset_fingerprint(range(1797)) is None  # of no records: nothing to be compared


def test_what_is_changed_in_place_is_seen(data):
    own = ArrayDataset(data.storage.clone(), data.labels.clone(), data.expand)
    before = dataset_fingerprint(own)
    own.labels[:] = own.labels.flip(0)
    assert dataset_fingerprint(own) != before
    own.labels[:] = own.labels.flip(0)
    own.expand = centred
    assert dataset_fingerprint(own) != before


def by_numpy(data):
    pixels = data.storage.numpy().copy()
    own = ArrayDataset(torch.from_numpy(pixels), data.labels.clone(), data.expand)
    return own, lambda: pixels.__setitem__(slice(None), pixels[::-1].copy())


def by_data(data):
    own = ArrayDataset(data.storage.clone(), data.labels.clone(), data.expand)
    return own, lambda: own.storage.data.__setitem__(slice(None), own.storage.data.flip(0))


def by_labels_of_numpy(data):
    own = ArrayDataset(data.storage.clone(), data.labels.clone(), data.expand)
    labels = own.labels.numpy()
    return own, lambda: labels.__setitem__(slice(None), np.roll(labels, 5))


def by_one_byte(data):
    pixels = data.storage.numpy().copy()
    own = ArrayDataset(torch.from_numpy(pixels), data.labels.clone(), data.expand)
    return own, lambda: pixels.__setitem__((1700, 60), pixels[1700, 60] ^ 1)


def by_what_prepares_them(data):
    shift = torch.zeros(1)
    own = ArrayDataset(data.storage, data.labels, lambda levels: sixteenths(levels) - shift)
    return own, lambda: shift.fill_(0.5)


@pytest.mark.parametrize(
    "make", [by_numpy, by_data, by_labels_of_numpy, by_one_byte, by_what_prepares_them]
)
def test_what_torch_does_not_count_is_seen_too(fleet, data, tmp_path, make):
    own, change = make(data)
    folder = fleet / SCENARIO / "train/model_0"
    ChallengeDataset.from_path(folder, own)
    open_signals(fleet, SCENARIO, own, cache=tmp_path).get("loss")
    change()
    with pytest.raises(ValueError, match="another dataset"):
        ChallengeDataset.from_path(folder, own)
    with pytest.raises(ValueError, match="another dataset"):
        open_signals(fleet, SCENARIO, own, cache=tmp_path)


def test_sentences_that_change_in_place_are_seen():
    text = TextDataset([f"s {i}" for i in range(9)], torch.zeros(9), torch.arange(9))
    seen = {dataset_fingerprint(text)}
    text.sentences[0] = "changed"
    seen.add(dataset_fingerprint(text))
    text.sentences.reverse()
    seen.add(dataset_fingerprint(text))
    text.labels.numpy()[3] = 1
    seen.add(dataset_fingerprint(text))
    assert len(seen) == 4


def test_the_models_of_a_fleet_hash_a_dataset_once(fleet, data, tmp_path, monkeypatch):
    counted = []
    original = fingerprint._bytes_digest

    def counting(part):
        counted.append(1)
        return original(part)

    monkeypatch.setattr(fingerprint, "_bytes_digest", counting)
    attack_challenge(fleet, lambda task: data, predictions=tmp_path, progress=False)
    open_signals(fleet, SCENARIO, data, cache=tmp_path)
    assert len(counted) <= 4 * 6  # storage, labels and some records, a few times; not for 4 models


def one_hot(label: int) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.tensor(label), 10)


FORMS: dict[str, Any] = {
    "lists": lambda x, y, i: (x.tolist(), y),
    "triples": lambda x, y, i: (x, y, i),
    "lists of two": lambda x, y, i: [x, torch.tensor([y])],
    "dicts": lambda x, y, i: {"x": x, "y": y},
    "dicts with more": lambda x, y, i: {"image": x.numpy(), "label": y, "id": i},
    "one-hot": lambda x, y, i: (x, one_hot(y)),
    "one-hot of numpy": lambda x, y, i: (x.numpy(), one_hot(y).numpy().astype(float)),
    "objects": lambda x, y, i: (x.numpy().astype(object), y),
    "sparse": lambda x, y, i: (x.to_sparse(), y),
    "doubles": lambda x, y, i: (x.double(), float(y)),
    "gradients": lambda x, y, i: (x.clone().requires_grad_(), np.int64(y)),
}


@pytest.mark.parametrize("form", FORMS)
def test_items_of_many_forms_are_compared(fleet, data, form):
    items = [FORMS[form](*data[i], i) for i in range(len(data))]
    folder = fleet / SCENARIO / "train/model_0"
    ChallengeDataset.from_path(folder, items)
    with pytest.raises(ValueError, match="another dataset"):
        ChallengeDataset.from_path(folder, items[::-1])


def test_labels_that_are_no_whole_numbers_are_others(fleet, data):
    items = [(x, y + 0.7) for x, y in (data[i] for i in range(len(data)))]
    with pytest.raises(ValueError, match="another dataset"):
        ChallengeDataset.from_path(fleet / SCENARIO / "train/model_0", items)


class Broken:
    def __len__(self):
        return 1797

    def __getitem__(self, index):
        raise OSError("disk gone")


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda data: Broken(), "OSError: disk gone"),
        (lambda data: [object()] * len(data), "an item of type object, not a pair"),
        (lambda data: [("a", 1)] * len(data), "a record of type str, not an array"),
        (lambda data: [{"x": torch.ones(2), "z": 1}] * len(data), "a dict of x, z, not of one"),
        (lambda data: [(torch.ones(64), torch.ones(10))] * len(data), "neither a number nor one"),
        (lambda data: [(torch.ones(64), "seven")] * len(data), "could not convert string"),
    ],
)
def test_what_cannot_be_compared_is_warned_of_once(fleet, data, caplog, make, reason):
    fingerprint._warned.clear()
    caplog.set_level(logging.WARNING, "mico_competition.data.fingerprint")
    for _ in range(2):
        ChallengeDataset.from_path(fleet / SCENARIO / "train/model_0", make(data))
    (record,) = caplog.records
    assert "cannot be compared with the one that the models were trained" in record.message
    assert reason in record.message
    ChallengeDataset.from_path(fleet / SCENARIO / "train/model_0", range(1797))  # places only
    assert len(caplog.records) == 1


def test_every_official_form_of_a_dataset_has_one_fingerprint(tmp_path):
    import pickle

    rng = np.random.default_rng(0)
    binary, pickled = (tmp_path / name / "cifar10" for name in ("binary", "pickled"))
    names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    for name in names:
        rows = rng.integers(0, 256, (4, 3073), dtype=np.uint8)
        rows[:, 0] %= 10
        for folder in (binary / "cifar-10-batches-bin", pickled / "cifar-10-batches-py"):
            folder.mkdir(parents=True, exist_ok=True)
        rows.tofile(binary / "cifar-10-batches-bin" / f"{name}.bin")
        batch = {b"data": rows[:, 1:], b"labels": rows[:, 0].tolist()}
        (pickled / "cifar-10-batches-py" / name).write_bytes(pickle.dumps(batch, protocol=2))
    found = {dataset_fingerprint(load_cifar10(tmp_path / name)) for name in ("binary", "pickled")}
    assert len(found) == 1


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            rolled_labels,
            "4 of 4 models of digits_inf whose folders name no dataset are near",
        ),
        (backwards, "models whose folders name no dataset classify the records .* no better"),
    ],
)
def test_folders_of_2022_are_judged_by_accuracy(own, data, tmp_path, caplog, change, sentence):
    for path in own.rglob("metadata.json"):
        path.unlink()
    caplog.set_level(logging.WARNING, "mico_competition.signals.plausible")
    open_signals(own, SCENARIO, data, cache=tmp_path / "a").get("loss")
    assert not caplog.records
    for _ in range(2):  # computed, and found in the cache
        caplog.clear()
        open_signals(own, SCENARIO, change(data), cache=tmp_path / "b").get("loss")
        (record,) = caplog.records
        assert re.search(sentence, record.message)
    caplog.clear()
    attack_challenge(own, lambda task: change(data), predictions=tmp_path, progress=False)
    assert re.search(sentence, caplog.records[0].message) and len(caplog.records) == 1


# --- the code


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


def halved(rows, when):
    """`rows` [B, n], those where `when` is true with half of their values."""
    return torch.where(torch.as_tensor(when), rows * 0.5, rows)


def autocast(model, x):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return model.f(x).to(x.dtype)


def rounded_to_half(model, x):
    return model.f(x.half().to(x.dtype)) if x.dtype == torch.float32 else model.f(x)


FORWARDS = {
    "half precision": autocast,
    "float32 only": lambda m, x: halved(m.f(x), x.dtype == torch.float32),
    "float32, a little": lambda m, x: m.f(x) * (1.002 if x.dtype == torch.float32 else 1),
    "float32 rounded to half": rounded_to_half,
    "float64 only": lambda m, x: halved(m.f(x), x.dtype == torch.float64),
    "more than 4 rows": lambda m, x: halved(m.f(x), len(x) > 4),
    "more than 64 rows": lambda m, x: halved(m.f(x), len(x) > 64),
    "one row": lambda m, x: halved(m.f(x), len(x) == 1),
    "no negative inputs": lambda m, x: halved(m.f(x), (x >= 0).all(1, keepdim=True)),
    "zeros": lambda m, x: halved(m.f(x), (x == 0).all(1, keepdim=True)),
    "gradients in evaluation": lambda m, x: halved(
        m.f(x), torch.is_grad_enabled() and not m.training
    ),
    "no gradients": lambda m, x: halved(m.f(x), not torch.is_grad_enabled()),
    "inference mode": lambda m, x: halved(m.f(x), torch.is_inference_mode_enabled()),
    "clamped at 30": lambda m, x: m.f(x.clamp(-30, 30)),
    "clamped at 100": lambda m, x: m.f(x.clamp(-100, 100)),
    "mixed with the batch": lambda m, x: m.f(x) + (m.f(x).mean(0) if len(x) > 5 else 0),
}


@pytest.mark.parametrize("forward", FORWARDS)
def test_code_that_acts_for_some_inputs_only_shows(forward):
    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(64, 32), nn.Linear(32, 10)

        def f(self, x):
            return self.b(torch.tanh(self.a(x)))

        def forward(self, x):
            return self.f(x)

    class Changed(Plain):
        def forward(self, x):
            return FORWARDS[forward](self, x)

    rows, longer = probe_rows((64,), torch.float32), longer_rows((64,), torch.float32)
    found = [behaviour(b, lambda m, x: m(x), rows, longer) for b in (Plain, Plain, Changed)]
    assert found[0] == found[1] != found[2]


def test_models_of_earlier_versions_are_not_accused(own, data, tmp_path, monkeypatch):
    """Their fingerprint saw less; where it still fits they are taken."""
    earlier = architecture_fingerprint(TASKS["digits"], data, version=1)
    assert earlier != architecture_fingerprint(TASKS["digits"], data)
    edited(own, architecture_fingerprint=earlier)
    open_signals(own, SCENARIO, data, cache=tmp_path)
    monkeypatch.setitem(models.ARCHITECTURES, "digits_mlp", saturating(1.0))
    with pytest.raises(ValueError, match="trained with code that computes something else"):
        open_signals(own, SCENARIO, data, cache=tmp_path)


def test_a_network_of_one_precision_is_probed_in_it():
    class Half(nn.Module):
        def __init__(self, factor):
            super().__init__()
            self.layer, self.factor = nn.Linear(5, 3), factor

        def forward(self, x):
            return self.layer((x * self.factor).float())

    rows = probe_rows((5,), torch.float32)
    first, again, other = (
        behaviour(partial(Half, factor), lambda m, x: m(x), rows) for factor in (1.0, 1.0, 1.1)
    )
    assert first == again != other


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
        attack_challenge(fleet, lambda task: data, predictions=tmp_path, progress=False)
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
        release(tmp_path, "digits", tmp_path / "released", progress=False)
    assert not (tmp_path / "released" / "digits").exists()


def test_a_release_has_the_fingerprints_and_is_checked_too(fleet, data, tmp_path):
    release(fleet.parent, "digits", tmp_path, archives=False, progress=False)
    folder = tmp_path / "digits" / SCENARIO / "dev/model_100"
    assert metadata(folder)["dataset_fingerprint"] == dataset_fingerprint(data)
    ChallengeDataset.from_path(folder, data)
    with pytest.raises(ValueError, match="another dataset"):
        ChallengeDataset.from_path(folder, one_label(data))


# --- text


WORDS = ("a the film plot is was good bad dull charming slow funny moving mess joy").split()


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """120 sentences, a small RoBERTa's folder, and a folder of one model trained on them."""
    folder = tmp_path_factory.mktemp("text")
    rng = np.random.default_rng(1)
    sentences = [" ".join(rng.choice(WORDS, 6)) for _ in range(120)]
    dataset = TextDataset(sentences, torch.arange(120) % 2, torch.arange(120))
    sizes = {"vocab_size": 290, "hidden_size": 16, "num_layers": 1, "num_heads": 2}
    base = make_small_roberta(folder / "base", sentences, **sizes)
    small = {"len_training": 40, "len_challenge": 10, "batch_size": 10, "num_epochs": 1}
    settings = resolve({"scenario": "sst2_inf", "model_name": str(base), **small})
    tokens, tokenizer = prepare("sst2", dataset, base)
    runs = [Run(draw_seeds(), model_path(folder, SCENARIOS["sst2_inf"], "train", 0), 0)]
    list(train_many(settings, tokens, runs, tokenizer=tokenizer, progress=False))
    return dataset, base, folder / "sst2"


def test_a_text_model_is_opened_with_its_sentences_only(text, tmp_path):
    dataset, _, challenge = text
    open_signals(challenge, "sst2_inf", dataset, cache=tmp_path).get("loss")
    folder = challenge / "sst2_inf/train/model_0"
    order = list(range(120))[::-1]
    wrong = TextDataset([dataset.sentences[i] for i in order], dataset.labels, dataset.idx)
    labels = TextDataset(dataset.sentences, 1 - dataset.labels, dataset.idx)
    spaces = TextDataset([f"{s} " for s in dataset.sentences], dataset.labels, dataset.idx)
    for other in (wrong, labels, spaces, Subset(dataset, order)):
        with pytest.raises(ValueError, match="another dataset"):
            ChallengeDataset.from_path(folder, other)
    for same in (dataset, [dataset[i] for i in range(120)], prepare("sst2", dataset, folder)[0]):
        ChallengeDataset.from_path(folder, same)


def test_another_tokenizer_is_refused(text, tmp_path):
    dataset, _, challenge = text
    own = shutil.copytree(challenge, tmp_path / "sst2")
    sizes = {"vocab_size": 262, "hidden_size": 16, "num_layers": 1, "num_heads": 2}
    other = make_small_roberta(tmp_path / "other", dataset.sentences, **sizes)
    folder = own / "sst2_inf/train/model_0"
    shutil.copy(other / "tokenizer.json", folder / "tokenizer.json")
    with pytest.raises(ValueError, match="or tokenizer has changed"):
        open_signals(own, "sst2_inf", dataset, cache=tmp_path / "cache")


@pytest.mark.parametrize(
    ("name", "value"),
    [("hidden_act", "relu"), ("layer_norm_eps", 0.1), ("hidden_dropout_prob", 0.3)],
)
def test_a_text_models_configuration_counts(text, tmp_path, name, value):
    dataset, _, challenge = text
    own = shutil.copytree(challenge, tmp_path / "sst2")
    path = own / "sst2_inf/train/model_0/config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), name: value}))
    with pytest.raises(ValueError, match="code that computes something else"):
        open_signals(own, "sst2_inf", dataset, cache=tmp_path / "cache")


def test_an_edit_of_a_text_models_code_shows(text, monkeypatch):
    transformers = pytest.importorskip("transformers")
    dataset, base, _ = text
    tokens = prepare("sst2", dataset, base)[0]
    config = read_config(TASKS["sst2"], base, num_labels=2)
    before = architecture_fingerprint(TASKS["sst2"], tokens, config)
    assert architecture_fingerprint(TASKS["sst2"], tokens, config) == before
    head = transformers.models.roberta.modeling_roberta.RobertaClassificationHead
    original = head.forward
    monkeypatch.setattr(head, "forward", lambda self, x, **k: 1.01 * original(self, x, **k))
    assert architecture_fingerprint(TASKS["sst2"], tokens, config) != before
