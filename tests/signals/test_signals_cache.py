"""Signals on disk: found by content, whole or not at all, and what is refused before them."""

import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers_release import write_trained

from mico_competition.cli import main
from mico_competition.competition.table import TASKS
from mico_competition.data.arrays import ArrayDataset
from mico_competition.models.architectures import load_model, new_model, save_model
from mico_competition.signals import open_signals
from mico_competition.signals import signals as view
from mico_competition.signals.cache import Cache

SCENARIO = "digits_inf"


@pytest.fixture
def fleet_folder(tmp_path):
    return write_trained(tmp_path / "trained") / "digits"


@pytest.fixture
def passes(monkeypatch):
    """Places of the models that are run, in order."""
    found: list[str] = []
    original = view.make_arrays

    def counted(model, points, kinds, place):
        found.append(place.rpartition("/")[2])
        return original(model, points, kinds, place)

    monkeypatch.setattr(view, "make_arrays", counted)
    return found


def test_weights_that_are_too_long_are_not_read(fleet_folder, data, tmp_path, monkeypatch):
    os.truncate(fleet_folder / SCENARIO / "train/model_1/model.pt", 8 << 30)
    monkeypatch.setattr("mico_competition.signals.cache._digest", lambda _: pytest.fail("read"))
    with pytest.raises(ValueError, match="model_1/model.pt has 8,589,934,592 bytes, more than"):
        opened(fleet_folder, data, tmp_path / "c")


def opened(folder, data, cache, **options):
    return open_signals(folder, SCENARIO, data, cache=cache, **options)


ALL = ["model_0", "model_1", "model_100", "model_150"]


def test_the_second_time_no_model_is_run(fleet_folder, data, tmp_path, passes):
    first = opened(fleet_folder, data, tmp_path / "c")
    assert first.compute() == view.Computed(4, 4)
    loss, z = first.get("loss"), np.array(first.logits(3))
    assert passes == ALL
    second = opened(fleet_folder, data, tmp_path / "c")
    assert second.compute() == view.Computed(4, 0)
    assert (second.get("loss") == loss).all()
    assert (second.logits(3) == z).all()
    second.get("modified_entropy")  # of the logits that are there
    assert passes == ALL
    assert isinstance(second.logits(0), np.memmap)
    assert second.logits(0).dtype == np.float32
    second.get("gradient_norm")
    opened(fleet_folder, data, tmp_path / "c").get("gradient_norm")
    assert passes == ALL * 2


def test_a_run_that_is_killed_goes_on_where_it_stopped(fleet_folder, data, tmp_path, monkeypatch):
    signals = opened(fleet_folder, data, tmp_path / "c")
    ran, original = [], view.make_arrays

    def dies(model, points, kinds, place):
        if len(ran) == 2:
            raise KeyboardInterrupt
        ran.append(place)
        return original(model, points, kinds, place)

    monkeypatch.setattr(view, "make_arrays", dies)
    with pytest.raises(KeyboardInterrupt):
        signals.get("logit")
    monkeypatch.setattr(view, "make_arrays", original)
    again = opened(fleet_folder, data, tmp_path / "c")
    assert again.compute() == view.Computed(4, 2)
    direct = opened(fleet_folder, data, tmp_path / "other")
    assert (again.get("logit") == direct.get("logit")).all()


def test_other_weights_in_the_same_folder_have_signals_of_their_own(fleet_folder, data, tmp_path):
    before = opened(fleet_folder, data, tmp_path / "c")
    old = np.array(before.get("loss"))
    torch.manual_seed(99)
    path = fleet_folder / SCENARIO / "train/model_1"
    states = (path / "model.pt").stat()
    save_model(TASKS["digits"], new_model(TASKS["digits"]), path)
    os.utime(path / "model.pt", ns=(states.st_atime_ns, states.st_mtime_ns))
    with pytest.raises(ValueError, match=r"train/model_1 changed since .* opened: open them again"):
        before.load(1)
    with pytest.raises(ValueError, match="changed since"):
        before.get("gradient_norm")
    after = opened(fleet_folder, data, tmp_path / "c")
    new = after.get("loss")
    assert (new[[0, 2, 3]] == old[[0, 2, 3]]).all()
    assert not np.isclose(new[1], old[1]).any()
    where = torch.from_numpy(after.fleet.records)
    z = load_model("digits", path)(data.inputs(where)).detach().double()
    naive = -torch.nn.functional.cross_entropy(z, data.labels[where], reduction="none")
    assert np.allclose(new[1], naive, rtol=1e-4)


def test_other_data_and_other_records_have_signals_of_their_own(
    fleet_folder, data, tmp_path, passes
):
    opened(fleet_folder, data, tmp_path / "c").compute()
    storage = data.storage.clone()
    storage[opened(fleet_folder, data, tmp_path / "c").fleet.records[0]] += 1
    for other in (
        ArrayDataset(storage, data.labels, data.expand),
        ArrayDataset(data.storage, data.labels, doubled),
    ):
        opened(fleet_folder, other, tmp_path / "c").compute()
    opened(fleet_folder, data, tmp_path / "c", records="all").compute()
    assert len(passes) == 4 * len(ALL)


def doubled(levels):
    return levels.float() * 2


def damage(path: Path, how: str) -> None:
    raw = path.read_bytes()
    if how == "truncated":
        path.write_bytes(raw[: len(raw) // 2])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "longer":
        path.write_bytes(raw + b"\0" * 8)
    elif how == "a page of zeros":
        path.write_bytes(raw[:400] + bytes(800) + raw[1200:])
    elif how == "another shape":
        np.save(path, np.zeros((3, 2), np.float32))
    else:
        path.unlink()


@pytest.mark.parametrize(
    "how", ["truncated", "empty", "longer", "a page of zeros", "another shape", "gone"]
)
def test_what_is_damaged_is_made_anew(fleet_folder, data, tmp_path, passes, how):
    first = opened(fleet_folder, data, tmp_path / "c", models=[0, 1])
    first.compute(["logits", "logit", "entropy"])
    expected = [np.array(first.logits(0)), first.get("logit"), first.get("entropy")]
    for path in sorted((tmp_path / "c").glob("*.npy")):
        damage(path, how)
    again = opened(fleet_folder, data, tmp_path / "c", models=[0, 1])
    found = [again.logits(0), again.get("logit"), again.get("entropy")]
    assert all((a == b).all() for a, b in zip(found, expected))
    assert opened(fleet_folder, data, tmp_path / "c", models=[0, 1]).compute().made == 0


def test_what_a_killed_process_was_writing_does_not_count(fleet_folder, data, tmp_path, passes):
    signals = opened(fleet_folder, data, tmp_path / "c")
    signals.compute()
    path = next((tmp_path / "c").glob("*logit-*.npy"))
    for name, age in (("old", 7200), ("new", 0)):
        left = path.parent / f".{path.name}.{name}"
        left.mkdir()
        (left / path.name).write_bytes(path.read_bytes()[:100])
        os.utime(left, (time.time() - age,) * 2)
    path.unlink()
    again = opened(fleet_folder, data, tmp_path / "c")
    assert again.compute().made == 1
    assert [left.suffix for left in (tmp_path / "c").glob(".*")] == [".new"]  # may be in use


def test_a_cache_that_cannot_be_written_is_said_once(fleet_folder, data, tmp_path, caplog, passes):
    (tmp_path / "file").write_text("no folder")
    signals = opened(fleet_folder, data, tmp_path / "file" / "cache")
    expected = opened(fleet_folder, data, tmp_path / "c")
    assert (signals.get("loss") == expected.get("loss")).all()
    assert (signals.logits(2) == expected.logits(2)).all()
    assert (signals.get("entropy") == expected.get("entropy")).all()
    said = [record for record in caplog.records if record.name.endswith(".cache")]
    assert [record.message.split(" (")[0] for record in said] == [
        f"Signals cannot be cached in {tmp_path / 'file' / 'cache'}"
    ]


def test_the_default_folder_is_that_of_mico_cache(fleet_folder, data, tmp_path, monkeypatch):
    monkeypatch.setenv("MICO_CACHE", str(tmp_path / "everything"))
    signals = open_signals(fleet_folder, SCENARIO, data)
    signals.compute()
    assert len(list((tmp_path / "everything/signals").glob("*.npy"))) == 8


def test_an_array_is_kept_as_it_was(tmp_path):
    cache = Cache(tmp_path)
    rng = np.random.default_rng(0)
    whole = rng.normal(size=(1025, 7)).astype(np.float32)
    assert cache.write("name", [whole[:1024], whole[1024:]])
    found = cache.read("name", "float32", (1025, 7))
    assert isinstance(found, np.memmap)
    assert (found == whole).all()
    assert (np.load(tmp_path / "name.npy") == whole).all()  # also for others to read
    assert cache.read("name", "float64", (1025, 7)) is None
    assert cache.read("name", "float32", (7, 1025)) is None
    assert cache.read("other", "float32", (7, 1025)) is None


def test_a_model_that_is_there_twice_is_refused(fleet_folder, data, tmp_path):
    train = fleet_folder / SCENARIO / "train"
    shutil.copy(train / "model_0/model.pt", fleet_folder / SCENARIO / "dev/model_100/model.pt")
    with pytest.raises(ValueError, match=r"train/model_0 and \S*dev/model_100 have the same weig"):
        opened(fleet_folder, data, tmp_path / "c")


def test_the_same_weights_in_another_file_are_refused(fleet_folder, data, tmp_path):
    train = fleet_folder / SCENARIO / "train"
    state = torch.load(train / "model_0/model.pt", weights_only=True)
    torch.save(state, train / "model_1/model.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(ValueError, match=r"model_0 and \S*model_1 have the same outputs"):
        opened(fleet_folder, data, tmp_path / "c").get("loss")
    with pytest.raises(ValueError, match="constant over all 2 models: is it the same model many"):
        opened(fleet_folder, data, tmp_path / "c", models=[0, 1]).get("logit")


def test_nan_weights_and_other_architectures_are_refused(fleet_folder, data, tmp_path):
    path = fleet_folder / SCENARIO / "train/model_1/model.pt"
    state = torch.load(path, weights_only=True)
    state["mlp.0.bias"][3] = torch.nan
    torch.save(state, path)
    with pytest.raises(ValueError, match=r"model_1/model.pt holds NaN or infinite values in mlp.0"):
        opened(fleet_folder, data, tmp_path / "c").get("loss")
    torch.save({name: value[:5] for name, value in state.items()}, path)
    with pytest.raises(ValueError, match=r"does not hold the weights of a digits model"):
        opened(fleet_folder, data, tmp_path / "c").get("loss")
    path.unlink()
    with pytest.raises(ValueError, match=r"model_1 is not a complete model folder"):
        opened(fleet_folder, data, tmp_path / "c")


@pytest.mark.slow
def test_the_verb_computes_once_and_says_what_there_is(
    fleet_folder, data, tmp_path, capsys, passes
):
    flags = ["signals", str(fleet_folder), "--cache", str(tmp_path / "c")]
    assert main([*flags, "--signals", "gradient_norm,entropy"]) == 0
    first = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in first] == ["digits_hi", "digits_inf", "digits_lo"]
    assert all("4 models (0 cached), " in line for line in first)
    assert all(line.endswith(f"in {tmp_path / 'c'}") for line in first)
    ran = len(passes)
    assert main([*flags, "--scenario", "digits_lo"]) == 0
    assert "digits_lo: 4 models (4 cached), " in capsys.readouterr().out
    open_signals(fleet_folder, "digits_hi", data, cache=tmp_path / "c").get("loss")
    assert len(passes) == ran
    assert main([*flags, "--records", "all", "--phase", "dev"]) == 0
    assert "1 model (0 cached), 1797 points, " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--signals", "phi"], "Unknown signal 'phi': choose one of logits, loss, confidence"),
        (["--scenario", "sst2_inf"], "Scenario sst2_inf belongs to challenge sst2, not digits"),
        (["--scenario", "digits"], "Unknown scenario 'digits': choose one of"),
        (["--ray", "here"], "Expected --ray auto or --ray HOST:PORT, got 'here'"),
    ],
)
def test_the_verbs_mistakes_are_a_sentence(fleet_folder, capsys, flags, sentence):
    assert main(["signals", str(fleet_folder), *flags]) == (1 if "--ray" in flags else 2)
    assert sentence in capsys.readouterr().err
