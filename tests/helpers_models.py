"""Small models for tests: a tiny RoBERTa's configuration, and saved models of every task."""

import json
from pathlib import Path

import torch
from torch import nn

from mico_competition.competition.table import TASKS
from mico_competition.models.architectures import MLP, new_model, save_model

INPUT = {"cifar10": (3, 32, 32), "purchase100": (600,), "digits": (64,), "baskets": (240,)}
TINY = {
    "model_type": "roberta",
    "vocab_size": 300,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 80,
    "type_vocab_size": 1,
    "hidden_dropout_prob": 0.0,  # so that a step can be repeated
    "attention_probs_dropout_prob": 0.0,
}
IDS = torch.tensor([[0, 17, 42, 250, 2, 1, 1], [0, 5, 6, 7, 8, 9, 2]])
SENTENCES = {"input_ids": IDS, "attention_mask": (IDS != 1).long()}


def batch(task: str):
    """A small batch of two that models of `task` take."""
    return SENTENCES if TASKS[task].text else torch.randn(2, *INPUT[task])


def write_base(folder: Path) -> str:
    """A folder below `folder` with the configuration of a tiny RoBERTa, and no weights."""
    base = folder / "base"
    base.mkdir(exist_ok=True)
    (base / "config.json").write_text(json.dumps(TINY), encoding="utf-8")
    return str(base)


def saved(name: str, folder: Path) -> tuple[nn.Module, Path]:
    """A fresh model of task `name` in eval mode, and the folder below `folder` it is saved in."""
    torch.manual_seed(7)
    model = new_model(TASKS[name], base_model=write_base(folder)).eval()
    save_model(TASKS[name], model, folder / f"{name}_model")
    return model, folder / f"{name}_model"


def large_weights():
    """The digits' network as an edit of its initialisation might leave it."""
    model = MLP(64, 256, 10, gain=64.0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    return model
