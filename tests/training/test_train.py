"""One model, trained: reproducible, honest about what it spent, whole or not there at all."""

import json
import math
from pathlib import Path

import pytest
import torch
from helpers_data import blobs

from mico_competition import ChallengeDataset, load_model
from mico_competition.competition.splits import Seeds
from mico_competition.training.accuracy import evaluate
from mico_competition.training.dpsgd import GRAD_SAMPLE_MODES
from mico_competition.training.model_folder import StorageError
from mico_competition.training.settings import resolve
from mico_competition.training.streams import Streams
from mico_competition.training.train import shuffled_batches, train_model

SEEDS = Seeds(1, 2, 3)
SMALL = {"len_training": 190, "len_challenge": 50, "batch_size": 50, "num_epochs": 4}


def train(folder, scenario="digits_lo", data=None, **flags):
    settings = resolve({"scenario": scenario, **SMALL, **flags})
    return train_model(settings, data or blobs(), SEEDS, folder, progress=False)


def weights(folder):
    return torch.load(folder / "model.pt", weights_only=True)


@pytest.mark.slow
@pytest.mark.parametrize("scenario", ["digits_inf", "digits_hi", "digits_lo"])
def test_the_folder_is_what_a_challenge_needs(tmp_path, scenario):
    metadata = train(tmp_path / "model_0", scenario)
    names = {path.name for path in (tmp_path / "model_0").iterdir()}
    assert names == {
        "model.pt",
        "metadata.json",
        "seed_challenge",
        "seed_training",
        "seed_membership",
        "solution.csv",
    }
    assert list(tmp_path.iterdir()) == [tmp_path / "model_0"], "nothing is left beside it"
    assert json.loads((tmp_path / "model_0" / "metadata.json").read_text()) == metadata
    splits = ChallengeDataset.from_path(tmp_path / "model_0", blobs())
    solution = (tmp_path / "model_0" / "solution.csv").read_text()
    assert [int(v) for v in solution.split(",")] == splits.get_solutions()
    model = load_model("digits", tmp_path / "model_0")
    results = evaluate(model, blobs(), splits.evaluation_indices)
    assert results == pytest.approx(metadata["results"])
    assert results["evaluation_records"] == 600 - 190 - 50


@pytest.mark.slow
@pytest.mark.parametrize(("scenario", "target"), [("digits_hi", 10.0), ("digits_lo", 4.0)])
def test_the_spent_epsilon_is_written_and_within_the_target(tmp_path, scenario, target):
    privacy = train(tmp_path / "model_0", scenario)["privacy"]
    assert target - 0.2 < privacy["epsilon"] <= target
    assert privacy["sampler"] == "poisson"
    assert privacy["num_steps"] == 16
    assert privacy["sample_rate"] == 0.25
    assert privacy["noise_multiplier"] > 0


def test_training_without_privacy_says_so(tmp_path):
    metadata = train(tmp_path / "model_0", "digits_inf")
    assert metadata["privacy"] is None
    assert metadata["sampler"] == "shuffle"
    first = train(tmp_path / "model_1", "digits_inf", members_first=True)
    assert first["sampler"] == "members first"


@pytest.mark.slow
@pytest.mark.parametrize("scenario", ["digits_inf", "digits_lo"])
def test_the_same_train_seed_gives_the_same_weights(tmp_path, scenario):
    for name, seed in (("a", 7), ("b", 7), ("c", 8), ("d", None), ("e", None)):
        state = torch.random.get_rng_state()
        train(tmp_path / name, scenario, train_seed=seed)
        assert torch.equal(state, torch.random.get_rng_state()), "the caller's stream is left alone"
    models = {name: weights(tmp_path / name)["mlp.0.weight"] for name in "abcde"}
    assert torch.equal(models["a"], models["b"])
    assert not torch.equal(models["a"], models["c"])
    assert not torch.equal(models["d"], models["e"])
    assert (tmp_path / "a" / "model.pt").read_bytes() == (tmp_path / "b" / "model.pt").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("scenario", ["digits_inf", "digits_lo"])
def test_modes_and_physical_batches_are_the_machines_business(tmp_path, scenario):
    """The same draws and the same noise give the same model, however gradients are computed."""
    modes = GRAD_SAMPLE_MODES if scenario == "digits_lo" else ("bookkeeping",)
    runs = [(mode, size) for mode in modes for size in (7, 4096)]
    trained = []
    for mode, size in runs:
        folder = tmp_path / f"{mode}_{size}"
        train(folder, scenario, train_seed=3, grad_sample_mode=mode, max_physical_batch_size=size)
        trained.append(weights(folder)["mlp.2.weight"])
    for other in trained[1:]:
        torch.testing.assert_close(trained[0], other, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("scenario", ["digits_inf", "digits_lo"])
def test_bfloat16_is_written_down_and_learns_as_much(tmp_path, scenario):
    runs = {}
    for precision in ("float32", "bfloat16"):
        folder = tmp_path / precision
        runs[precision] = train(folder, scenario, train_seed=3, precision=precision)
        assert runs[precision]["settings"]["precision"] == precision
    exact, low = runs["float32"], runs["bfloat16"]
    assert exact["privacy"] == low["privacy"]
    assert low["results"]["accuracy"] == pytest.approx(exact["results"]["accuracy"], abs=0.05)
    one, other = (weights(tmp_path / name)["mlp.0.weight"] for name in runs)
    assert one.dtype == other.dtype == torch.float32
    assert 0 < (one - other).norm() < 0.05 * one.norm()


def test_tf32_on_a_cpu_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError, match="choose float32 or bfloat16"):
        train_model(
            resolve({"scenario": "digits_lo", **SMALL, "precision": "tf32"}),
            blobs(),
            SEEDS,
            tmp_path / "model",
            device=torch.device("cpu"),
        )
    assert not list(tmp_path.iterdir())


def test_training_learns(tmp_path):
    metadata = train(tmp_path / "model_0", "digits_inf", num_epochs=30)
    assert metadata["results"]["accuracy"] > 0.8
    assert metadata["results"]["loss"] < math.log(10)


def test_accuracy_is_of_evaluation_records_only(tmp_path):
    """Labels of every other record are spoilt after training; the accuracy must not notice."""
    metadata = train(tmp_path / "model_0", "digits_inf", num_epochs=30)
    data = blobs()
    splits = ChallengeDataset(data, 190, 50, 1, 2, 3)
    seen = torch.cat([splits.train_indices, splits.challenge_indices])
    data.labels[seen] = (data.labels[seen] + 1) % 10
    model = load_model("digits", tmp_path / "model_0")
    accuracy = evaluate(model, data, splits.evaluation_indices)["accuracy"]
    assert accuracy == pytest.approx(metadata["results"]["accuracy"])


@pytest.mark.parametrize(("most", "taken"), [(0, 0), (7, 7), (10**6, 360)])
def test_a_flag_bounds_the_records_that_accuracy_is_taken_over(tmp_path, most, taken):
    few = train(tmp_path / "few", "digits_inf", max_evaluation_records=most)
    every = train(tmp_path / "every", "digits_inf")
    assert few["results"]["evaluation_records"] == taken
    assert every["results"]["evaluation_records"] == 360
    assert few["settings"] == every["settings"]  # it is no setting of training


def test_no_evaluation_records_is_no_accuracy(tmp_path):
    metadata = train(tmp_path / "model_0", "digits_inf", len_training=550)
    assert metadata["results"] == {"accuracy": None, "loss": None, "evaluation_records": 0}


def test_shuffled_batches_cover_every_record_once():
    generator = torch.Generator().manual_seed(0)
    batches = list(shuffled_batches(103, batch_size=10, generator=generator))
    assert [len(batch) for batch in batches] == [10] * 10 + [3]
    assert sorted(torch.cat(batches).tolist()) == list(range(103))
    assert torch.cat(batches).tolist() != list(range(103))
    kept = shuffled_batches(103, batch_size=10, generator=generator, members_first=True)
    assert torch.cat(list(kept)).tolist() == list(range(103))


def test_a_folder_in_use_is_refused_and_kept(tmp_path):
    folder = tmp_path / "model_0"
    folder.mkdir()
    (folder / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="exists already"):
        train(folder)
    assert (folder / "mine.txt").read_text() == "mine"


def test_a_loss_that_is_not_finite_ends_training_and_leaves_nothing(tmp_path):
    with pytest.raises(ValueError, match=r"not finite.*lower --learning_rate"):
        train(tmp_path / "model_0", "digits_inf", learning_rate=1e38, optimizer="sgd", num_epochs=9)
    assert list(tmp_path.iterdir()) == []


def test_data_that_is_too_short_is_refused(tmp_path):
    with pytest.raises(ValueError, match="<= 210"):
        train(tmp_path / "model_0", data=blobs(210))


def test_one_train_seed_for_two_models_does_not_share_their_noise():
    first, second = (Streams.of(7, Seeds(1, 2, seed)) for seed in (3, 4))
    assert not {*vars(first).values()} & {*vars(second).values()}
    assert Streams.of(7, SEEDS) == Streams.of(7, SEEDS) != Streams.of(8, SEEDS)
    assert Streams.of(None, SEEDS) != Streams.of(None, SEEDS)


def test_a_place_that_cannot_be_written_is_found_before_training(tmp_path):
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file" / "model_0", Path("/proc/nowhere/model_0")):
        with pytest.raises(StorageError, match="cannot be written to"):
            train(place, num_epochs=10**6)  # would take for ever


def test_the_current_directory_is_never_replaced(tmp_path, monkeypatch):
    here = tmp_path / "above" / "here"
    here.mkdir(parents=True)
    monkeypatch.chdir(here)
    for place in (".", "..", here, tmp_path):
        with pytest.raises(ValueError, match="is the current directory or holds it: choose"):
            train(place, "digits_inf")
    assert list(here.iterdir()) == []
    train("model", "digits_inf")
    assert (here / "model" / "model.pt").is_file()


def test_the_tables_n_needs_the_tables_dataset(tmp_path):
    with pytest.raises(ValueError, match=r"1797 records of Digits.*got 600"):
        train(tmp_path / "model_0", len_training=120)


def test_a_failure_while_writing_leaves_nothing(tmp_path, monkeypatch):
    from mico_competition.training import model_folder as module

    def fail(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr(module, "save_model", fail)
    with pytest.raises(OSError, match="disk full"):
        train(tmp_path / "model_0")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.gpu
def test_a_gpu_is_used_where_there_is_one(tmp_path):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    assert train(tmp_path / "model_0")["machine"]["device"] == "cuda"
