"""Models: their shapes, 2022's weights, saving and loading, and per-example gradients."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers_models import batch, saved, write_base
from torch import nn

from mico_competition.competition import rows
from mico_competition.competition.table import TASKS
from mico_competition.models.architectures import (
    ARCHITECTURES,
    CNN,
    MLP,
    load_model,
    logits,
    new_model,
    save_model,
)

OLD = Path(__file__).parents[1] / "fixtures" / "2022"
EXPECTED = json.loads((OLD / "expected.json").read_text(encoding="utf-8"))
ARRAYS = [task.name for task in TASKS.values() if not task.text]


def records(count: int) -> torch.Tensor:
    """The inputs of `expected.json`, as its README defines them."""
    i, j = torch.arange(count)[:, None], torch.arange(600)[None, :]
    return ((7 * i + 3 * j + i * j) % 5 == 0).float()


# -- 2022 -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mlp_plain", "mlp_opacus"])
def test_mlp_of_2022_gives_its_logits(name):
    for model in (
        load_model("purchase100", OLD / name),
        MLP.load(OLD / name / "model.pt", device="cpu"),
    ):
        assert not model.training
        torch.testing.assert_close(
            logits(model, records(3)), torch.tensor(EXPECTED[name]), rtol=0, atol=1e-6
        )


# -- making, saving, loading ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("cifar10", ["cnn.0", "cnn.3", "cnn.5", "cnn.9"]),
        ("purchase100", ["mlp.0", "mlp.2"]),
        ("digits", ["mlp.0", "mlp.2"]),
    ],
)
def test_names_and_shapes(name, keys):
    model = new_model(TASKS[name])
    assert model.training
    assert list(model.state_dict()) == [f"{k}.{p}" for k in keys for p in ("weight", "bias")]
    assert logits(model, batch(name)).shape == (2, TASKS[name].num_classes)


def test_every_task_of_arrays_has_an_architecture():
    assert {TASKS[name].architecture for name in ARRAYS} == set(ARCHITECTURES)
    assert tuple(ARCHITECTURES) == rows.ARCHITECTURES


@pytest.mark.parametrize("name", list(TASKS))
def test_what_is_saved_is_loaded(name, tmp_path):
    model, folder = saved(name, tmp_path)
    before = torch.get_rng_state()
    loaded = load_model(name, str(folder))
    assert torch.equal(before, torch.get_rng_state())
    assert not loaded.training
    inputs = batch(name)
    assert torch.equal(logits(loaded, inputs), logits(model, inputs))
    logits(loaded, inputs).sum().backward()
    assert all(p.grad is not None and p.dtype == torch.float32 for p in loaded.parameters())


@pytest.mark.parametrize("name", list(TASKS))
@pytest.mark.parametrize("kind", ["again", "wrapped", "double"])
def test_the_same_weights_give_the_same_bytes(name, kind, tmp_path):
    from opacus import GradSampleModule

    model, folder = saved(name, tmp_path)
    if kind == "wrapped":
        model = GradSampleModule(model.train())
    elif kind == "double":
        model = model.double()
    save_model(TASKS[name], model, tmp_path / "second")
    files = sorted(os.listdir(folder))
    assert files == [f.split("|")[0] for f in TASKS[name].weights]
    for file in files:
        assert (folder / file).read_bytes() == (tmp_path / "second" / file).read_bytes()


@pytest.mark.parametrize("name", ["digits", "sst2"])
@pytest.mark.parametrize(
    "place", ["josé", "日本/語", "two words", "two\nlines", "n" * 250, "%s{}'"]
)
def test_the_same_weights_give_the_same_bytes_below_any_folder(name, place, tmp_path):
    model, folder = saved(name, tmp_path)
    save_model(TASKS[name], model, tmp_path / place)
    for file in sorted(os.listdir(folder)):
        assert (folder / file).read_bytes() == (tmp_path / place / file).read_bytes()
    inputs = batch(name)
    assert torch.equal(logits(load_model(name, tmp_path / place), inputs), logits(model, inputs))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", list(TASKS))
def test_device(name, tmp_path):
    _, folder = saved(name, tmp_path)
    assert {p.device.type for p in load_model(name, folder, "cuda").parameters()} == {"cuda"}


@pytest.mark.slow
def test_transformers_is_imported_late():
    code = (
        "import sys, mico_competition.models.architectures as m; m.MLP(); "
        "sys.exit('transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("written", "read", "message"),
    [
        ("cifar10", "purchase100", r"lacks 4 keys, first mlp\.0\.weight of shape \(128, 600\)"),
        ("cifar10", "digits", r"unknown keys, first cnn\.0\.weight of shape \(128, 3, 8, 8\)"),
        ("digits", "purchase100", r"mlp\.0\.weight has shape \(\d+, 64\) where \(128, 600\)"),
    ],
)
def test_wrong_architecture(written, read, message, tmp_path):
    model, folder = saved(written, tmp_path)
    with pytest.raises(ValueError, match=message):
        load_model(read, folder)
    with pytest.raises(ValueError, match=message):
        save_model(TASKS[read], model, folder / "other")


def test_a_diverged_model_is_not_saved(tmp_path):
    model = CNN()
    nn.init.constant_(model.cnn[9].bias, float("nan"))
    with pytest.raises(ValueError, match=r"NaN .* in cnn\.9\.bias.* diverged"):
        save_model(TASKS["cifar10"], model, tmp_path / "model_0")
    assert not (tmp_path / "model_0").exists()


# -- what private training relies on -------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")  # Opacus wants exactly that
@pytest.mark.parametrize("mode", ["hooks", "ghost"])
@pytest.mark.parametrize("name", list(TASKS))
def test_per_example_gradients_are_those_of_a_loop(name, mode, tmp_path):
    """Opacus mistakes the batch size of an embedding whose input is broadcast (its issue 841)."""
    from opacus import GradSampleModule
    from opacus.grad_sample import GradSampleModuleFastGradientClipping

    torch.manual_seed(3)
    model = new_model(TASKS[name], base_model=write_base(tmp_path))
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight)
    inputs, labels = batch(name), torch.tensor([1, 0])

    def split(i):
        if isinstance(inputs, dict):
            return {key: value[i : i + 1] for key, value in inputs.items()}
        return inputs[i : i + 1]

    loop = []
    for i in range(2):
        model.zero_grad()
        nn.functional.cross_entropy(logits(model, split(i)), labels[i : i + 1]).backward()
        loop.append({n: p.grad.clone() for n, p in model.named_parameters()})
    model.zero_grad()
    if mode == "hooks":
        wrapped = GradSampleModule(model, loss_reduction="mean")
    else:
        wrapped = GradSampleModuleFastGradientClipping(
            model, loss_reduction="mean", max_grad_norm=1.0, use_ghost_clipping=True
        )
    nn.functional.cross_entropy(logits(wrapped, inputs), labels).backward()
    norms = torch.stack([torch.cat([g.flatten() for g in one.values()]).norm() for one in loop])
    if mode == "ghost":
        torch.testing.assert_close(wrapped.get_norm_sample(), norms, rtol=1e-4, atol=1e-6)
    else:
        for key, parameter in model.named_parameters():
            expected = torch.stack([one[key] for one in loop])
            torch.testing.assert_close(parameter.grad_sample, expected, rtol=1e-4, atol=1e-5)
