"""Checkpoints: what is read, and what is refused without being executed."""

import os
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from helpers_models import saved
from torch import nn

from mico_competition.competition.table import TASKS
from mico_competition.models.architectures import (
    MLP,
    load_model,
    save_model,
)
from mico_competition.models.checkpoints import read_state, write_state

OLD = Path(__file__).parents[1] / "fixtures" / "2022"


def test_write_state_is_read_back(tmp_path):
    state = {"a": torch.arange(3.0), "b": torch.ones(2, 2)}
    for name in ("x.pt", "x.safetensors"):
        write_state(tmp_path / name, state)
        read = read_state(tmp_path / name)
        assert read.keys() == state.keys()
        assert all(torch.equal(read[key], state[key]) for key in state)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_no_name_of_a_file_or_folder_is_in_its_bytes(suffix, tmp_path):
    state = {"a": torch.arange(3.0)}
    write_state(tmp_path / f"plain{suffix}", state)
    write_state(tmp_path / "josé" / f"ä{suffix}", state)
    plain, odd = (tmp_path / f"plain{suffix}", tmp_path / "josé" / f"ä{suffix}")
    assert plain.read_bytes() == odd.read_bytes() and b"plain" not in plain.read_bytes()


@pytest.mark.parametrize("legacy", [False, True])
def test_older_format_of_torch(legacy, tmp_path):
    model = MLP()
    torch.save(model.state_dict(), tmp_path / "model.pt", _use_new_zipfile_serialization=not legacy)
    loaded = load_model("purchase100", tmp_path)
    assert torch.equal(loaded.mlp[0].weight, model.mlp[0].weight)


class Hostile:
    """Pickles to a call that creates a file when it is unpickled."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("how", ["zip", "legacy", "protocol 0", "protocol 5", "module"])
@pytest.mark.parametrize("task", ["purchase100", "sst2"])
def test_hostile_pickle_is_not_executed(how, task, tmp_path):
    mark = tmp_path / "executed"
    shutil.copy(OLD / "roberta" / "config.json", tmp_path)
    path = tmp_path / ("pytorch_model.bin" if task == "sst2" else "model.pt")
    if how == "module":
        torch.save(nn.Linear(2, 2), path)
    elif how.startswith("protocol"):
        path.write_bytes(pickle.dumps({"mlp.0.weight": Hostile(mark)}, protocol=int(how[-1])))
    else:
        state = {**MLP().state_dict(), "mlp.0.bias": Hostile(mark)}
        torch.save(state, path, _use_new_zipfile_serialization=how == "zip")
    with pytest.raises(ValueError, match=path.name) as caught:
        load_model(task, tmp_path)
    assert not mark.exists()
    assert "weights_only" not in str(caught.value)
    if not how.startswith("protocol"):
        assert "no code in it was executed" in str(caught.value)


@pytest.mark.parametrize("share", [0, 1e-5, 0.01, 0.5, 0.99])
@pytest.mark.parametrize("task", ["purchase100", "legacy", "2022", "sst2"])
def test_truncated_file(share, task, tmp_path):
    if task in ("purchase100", "sst2"):
        _, folder = saved(task, tmp_path)
    else:
        folder = tmp_path
        torch.save(MLP().state_dict(), folder / "model.pt", _use_new_zipfile_serialization=False)
        if task == "2022":
            shutil.copy(OLD / "mlp_opacus" / "model.pt", folder)
    path = folder / ("model.safetensors" if task == "sst2" else "model.pt")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ValueError, match=rf"{path.name} is truncated, damaged"):
        load_model("sst2" if task == "sst2" else "purchase100", folder)


def test_a_flipped_bit_is_found(tmp_path):
    _, folder = saved("digits", tmp_path)
    damaged = bytearray((folder / "model.pt").read_bytes())
    damaged[len(damaged) // 2] ^= 1
    (folder / "model.pt").write_bytes(damaged)
    with pytest.raises(ValueError, match="truncated, damaged"):
        load_model("digits", folder)


@pytest.mark.parametrize("content", [b"", b"hello world" * 50, b"\x80\x04.", b"PK\x03\x04"])
def test_garbage(content, tmp_path):
    (tmp_path / "model.pt").write_bytes(content)
    with pytest.raises(ValueError, match=r"model\.pt is truncated, damaged"):
        load_model("cifar10", tmp_path)


def spoilt(fault):
    """The state of an MLP with one fault."""
    state = MLP().state_dict()
    if fault == "missing":
        del state["mlp.2.bias"]
    elif fault == "unexpected":
        state["mlp.4.weight"] = torch.zeros(3)
    elif fault == "integers":
        state["mlp.0.bias"] = torch.zeros(128, dtype=torch.int64)
    elif fault == "sparse":
        state["mlp.0.weight"] = state["mlp.0.weight"].to_sparse()
    elif fault == "meta":
        state["mlp.0.weight"] = state["mlp.0.weight"].to("meta")
    elif fault == "nested":
        return {"state_dict": dict(state), "epoch": 3}
    elif fault == "list":
        return list(state.values())
    elif fault == "mixed":
        return {("_module." if "bias" in k else "") + k: v for k, v in state.items()}
    else:
        state["mlp.2.weight"][3, 4] = float(fault)
    return state


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("missing", r"lacks 1 key, first mlp\.2\.bias of shape \(100,\)"),
        ("unexpected", r"has 1 unknown key, first mlp\.4\.weight of shape \(3,\)"),
        ("mixed", r"lacks 2 keys.* and has 2 unknown keys, first _module\.mlp\.0\.bias"),
        ("integers", r"mlp\.0\.bias has floats False where True"),
        ("sparse", r"not a dense tensor"),
        ("meta", r"not a dense tensor"),
        ("nested", r"'state_dict' is not a dense tensor"),
        ("list", r"'list' where a state dict is expected"),
        ("nan", r"NaN or infinite values in mlp\.2\.weight"),
        ("inf", r"NaN or infinite values in mlp\.2\.weight"),
        ("-inf", r"NaN or infinite values in mlp\.2\.weight"),
    ],
)
def test_spoilt_state(fault, message, tmp_path):
    torch.save(spoilt(fault), tmp_path / "model.pt")
    with pytest.raises(ValueError, match=message):
        load_model("purchase100", tmp_path)


def test_large_weights_are_not_taken_for_infinite(tmp_path):
    model = MLP()
    nn.init.constant_(model.mlp[0].weight, 3e38)  # the sum overflows, no value does
    save_model(TASKS["purchase100"], model, tmp_path)
    load_model("purchase100", tmp_path)


@pytest.mark.parametrize(
    ("task", "path", "message"),
    [
        ("mnist", ".", "Unknown task 'mnist': choose one of cifar10"),
        ("cifar10", "nowhere", "nowhere does not exist"),
        ("cifar10", "file", r"file is a file, not a folder: .* holds model\.pt"),
        ("cifar10", ".", r"holds no model\.pt"),
        ("sst2", ".", r"holds no model\.safetensors or pytorch_model\.bin"),
        ("purchase100", "folder", r"model\.pt is a folder where a file is expected"),
    ],
)
def test_wrong_path(task, path, message, tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "folder" / "model.pt").mkdir(parents=True)
    with pytest.raises(ValueError, match=message):
        load_model(task, tmp_path / path)


@pytest.mark.parametrize(
    ("path", "message"), [(".", "is a folder: give the file"), ("none.pt", "no file of weights")]
)
def test_load_takes_a_file(path, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        MLP.load(tmp_path / path)
