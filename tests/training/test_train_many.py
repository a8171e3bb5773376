"""Stacks: models trained together are those that training each alone gives."""

import json
import pickle
import re
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from helpers_data import blobs
from torch import nn

from mico_competition.competition.splits import Seeds
from mico_competition.models.architectures import MLP
from mico_competition.training import stack_memory
from mico_competition.training import train_many as train_many_module
from mico_competition.training.accounting import Mechanism
from mico_competition.training.settings import resolve
from mico_competition.training.stacked_model import stacked as stack_of
from mico_competition.training.stacked_model import unstack
from mico_competition.training.stacked_step import StackedDPSGD
from mico_competition.training.train import mechanism_of, train_model
from mico_competition.training.train_many import Run, train_many

SMALL = {"len_training": 190, "len_challenge": 50, "batch_size": 50, "num_epochs": 5}


def settings_of(scenario, **flags):
    return resolve({"scenario": scenario, **SMALL, **flags})


def runs_in(folder, count=4):
    return [Run(Seeds(i, i + 10, i + 20), folder / f"model_{i}", i, 100 + i) for i in range(count)]


def weights(folder):
    return torch.load(folder / "model.pt", weights_only=True)


@pytest.mark.parametrize("scenario", ["digits_inf", "digits_lo"])
@pytest.mark.parametrize(
    ("physical", "precision"), [(4096, "float32"), (15, "float32"), (15, "bfloat16")]
)
def test_together_as_alone(tmp_path, scenario, physical, precision):
    settings = settings_of(
        scenario, max_physical_batch_size=physical, optimizer="sgd", precision=precision
    )
    runs = runs_in(tmp_path / "together")
    told = list(train_many(settings, blobs(), runs, stack=4, progress=False))
    for run, metadata in zip(runs, told):
        alone = tmp_path / "alone" / run.folder.name
        expected = train_model(
            replace(settings, train_seed=run.train_seed),
            blobs(),
            run.seeds,
            alone,
            model_id=run.model_id,
            progress=False,
        )
        for name, value in weights(alone).items():
            torch.testing.assert_close(weights(run.folder)[name], value, rtol=1e-5, atol=1e-5)
        for name in ("solution.csv", "seed_challenge", "seed_training", "seed_membership"):
            assert (run.folder / name).read_text() == (alone / name).read_text()
        assert metadata == json.loads((run.folder / "metadata.json").read_text())
        assert metadata["privacy"] == expected["privacy"]
        assert metadata["results"]["accuracy"] == pytest.approx(
            expected["results"]["accuracy"], abs=0.02
        )
        assert (metadata["stack"], metadata["model_id"]) == (4, run.model_id)


@pytest.mark.parametrize("count", [1, 2], ids=["alone", "together"])
def test_a_mechanism_that_was_computed_elsewhere_gives_the_same_models(
    tmp_path, monkeypatch, count
):
    settings = settings_of("digits_lo", num_epochs=1)
    found = list(train_many(settings, blobs(), runs_in(tmp_path / "a", count), progress=False))
    mechanism = mechanism_of(settings)
    mechanism.epsilon(settings.target_delta)
    there = pickle.loads(pickle.dumps(mechanism))
    monkeypatch.setattr(Mechanism, "for_target", None)  # nothing is computed
    monkeypatch.setattr(Mechanism, "_bounds", None)
    told = train_many(
        settings, blobs(), runs_in(tmp_path / "b", count), progress=False, mechanism=there
    )
    for number, (first, second) in enumerate(zip(found, told, strict=True)):
        assert first["privacy"] == second["privacy"]
        a, b = (weights(tmp_path / part / f"model_{number}") for part in "ab")
        assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("count", [1, 2], ids=["alone", "together"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"noise_multiplier": 0.9}, "Expected a mechanism of epsilon 4.0 at most, got Mechanism"),
        ({"num_steps": 5}, "num_steps=20, as the settings have them, got Mechanism"),
        ({"sample_rate": 0.2}, "sample_rate=0.25 and num_steps=20, as the settings"),
        (None, "Expected no mechanism for a run without privacy, got Mechanism"),
    ],
)
def test_a_mechanism_of_other_settings_is_refused(tmp_path, count, change, message):
    settings = settings_of("digits_lo" if change else "digits_inf")
    private = mechanism_of(settings_of("digits_lo"))
    assert private is not None
    mechanism = replace(private, **(change or {}))
    with pytest.raises(ValueError, match=message):
        list(train_many(settings, blobs(), runs_in(tmp_path, count), mechanism=mechanism))
    assert not list(tmp_path.iterdir())


def test_models_of_a_stack_do_not_touch_each_other(tmp_path):
    """The same model, in company of others and of other numbers of them."""
    settings = settings_of("digits_lo")
    runs = runs_in(tmp_path / "four")
    list(train_many(settings, blobs(), runs, stack=4, progress=False))
    pair = [replace(run, folder=tmp_path / "two" / run.folder.name) for run in (runs[2], runs[0])]
    list(train_many(settings, blobs(), pair, stack=2, progress=False))
    for run in pair:
        for name, value in weights(run.folder).items():
            other = weights(tmp_path / "four" / run.folder.name)[name]
            torch.testing.assert_close(value, other, rtol=1e-4, atol=1e-4)


def test_clipped_sums_of_a_stack_are_those_of_loops():
    """In double precision, with batches of different lengths, one of them empty."""
    torch.manual_seed(0)
    norm = 2.0
    models = [MLP(6, 5, 3).double() for _ in range(3)]
    stacked = stack_of(models)
    x = torch.randn(3, 8, 6, dtype=torch.float64) * 3
    labels = torch.randint(3, (3, 8))
    batches = [torch.tensor([0, 3, 5, 7]), torch.arange(0), torch.tensor([6])]
    trainer = StackedDPSGD(
        stacked,
        torch.optim.SGD(stacked.parameters(), lr=1.0),
        noise_multiplier=1e-12,
        max_grad_norm=norm,
        expected_batch_size=4,
        max_physical_batch_size=2,
        noise_generators=[torch.Generator().manual_seed(i) for i in range(3)],
    )
    rows = torch.arange(3).unsqueeze(1)
    trainer.step(batches, lambda positions: x[rows, positions].flatten(0, 1), labels)
    after = [MLP(6, 5, 3).double() for _ in range(3)]
    unstack(stacked, after)
    clipped = 0
    for s, model in enumerate(models):
        total = [torch.zeros_like(p) for p in model.parameters()]
        for i in batches[s].tolist():
            loss = nn.functional.cross_entropy(model(x[s, i][None]), labels[s, i][None])
            grads = torch.autograd.grad(loss, list(model.parameters()))
            length = torch.sqrt(sum((g**2).sum() for g in grads))
            clipped += bool(length > norm)
            for part, grad in zip(total, grads):
                part += grad * min(1.0, norm / float(length + 1e-6))
        for old, new, part in zip(model.parameters(), after[s].parameters(), total):
            torch.testing.assert_close(old - new, part / 4, rtol=1e-10, atol=1e-10)
    assert 0 < clipped < 5


def test_small_mlps_are_stacked_by_default(tmp_path):
    told = list(
        train_many(settings_of("digits_inf"), blobs(), runs_in(tmp_path, 3), progress=False)
    )
    assert [metadata["stack"] for metadata in told] == [3, 3, 3]


@pytest.mark.parametrize(("device", "of_digits", "of_purchase"), [("cpu", 10, 1), ("cuda", 50, 50)])
def test_stacks_are_larger_on_a_gpu(monkeypatch, device, of_digits, of_purchase):
    monkeypatch.setattr(train_many_module, "default_device", lambda: torch.device(device))
    assert train_many_module.stack_of(settings_of("digits_lo")) == of_digits
    assert train_many_module.stack_of(resolve({"scenario": "purchase100_lo"})) == of_purchase
    assert train_many_module.stack_of(settings_of("digits_lo"), torch.device("cpu")) == 10
    for alone in (
        resolve({"scenario": "cifar10_lo"}),
        settings_of("digits_lo", grad_sample_mode="hooks"),
    ):
        assert train_many_module.stack_of(alone) == 1


def test_a_default_stack_that_does_not_fit_is_refused_with_the_stack_that_does(
    tmp_path, monkeypatch
):
    """The sentence has the largest stack, which fits."""
    monkeypatch.setattr(train_many_module, "STACK", 50)
    monkeypatch.setattr(stack_memory, "all_memory", lambda: 40_000_000)
    settings, runs = settings_of("digits_lo", num_epochs=1), runs_in(tmp_path, 50)
    options = {"device": torch.device("cpu"), "progress": False}
    with pytest.raises(
        ValueError, match="A stack of 50 models of task digits takes up to"
    ) as error:
        next(train_many(settings, blobs(), runs, **options))
    found = re.search(r"this process may use 40 MB: give --stack (\d+) or less", str(error.value))
    most = int(found[1])
    assert 1 < most < 50
    assert not list(tmp_path.iterdir())
    for stack in (most + 1, most):
        with (
            nullcontext() if stack == most else pytest.raises(ValueError, match=f"--stack {most} ")
        ):
            list(train_many(settings, blobs(), runs[:stack], stack=stack, **options))


def test_a_taken_folder_is_found_before_training(tmp_path):
    runs = runs_in(tmp_path)
    runs[3].folder.mkdir(parents=True)
    (runs[3].folder / "mine").write_text("")
    for stack in (1, 2, 4):
        with pytest.raises(ValueError, match="exists already"):
            list(train_many(settings_of("digits_inf"), blobs(), runs, stack=stack, progress=False))
        assert not runs[0].folder.exists()


@pytest.mark.parametrize("stack", [1, 2])
def test_secure_mode_draws_everything_afresh(tmp_path, stack):
    settings = settings_of("digits_lo", secure_mode=True)
    models = []
    for name in "ab":
        runs = [replace(run, train_seed=None) for run in runs_in(tmp_path / name, 2)]
        told = list(train_many(settings, blobs(), runs, stack=stack, progress=False))
        assert all(metadata["privacy"]["randomness"] == "AES-256-CTR" for metadata in told)
        models += [weights(run.folder)["mlp.2.weight"] for run in runs]
    assert len({tuple(model.flatten().tolist()) for model in models}) == 4


@pytest.mark.parametrize(
    ("scenario", "flags", "message"),
    [
        ("digits_inf", {}, "--secure_mode is for private training"),
        ("digits_lo", {"train_seed": 1}, "leave --train_seed out"),
        ("digits_lo", {"grad_sample_mode": "hooks"}, "does not work with Opacus' mode 'hooks'"),
    ],
)
def test_secure_mode_excludes_what_would_undo_it(scenario, flags, message):
    with pytest.raises(ValueError, match=message):
        settings_of(scenario, secure_mode=True, **flags)
