"""docs/COMPATIBILITY.md: splits, models and datasets are those of 2022."""

import json
import re
import shutil
from argparse import Namespace

import numpy as np
import pandas as pd
import pytest
import torch
from helpers_compatibility import OLD, SEED_FILES, SEEDS, TRAINING, M, N, check
from torch.utils.data import ConcatDataset, DataLoader, Subset

from mico_competition import (
    CNN,
    MLP,
    ChallengeDataset,
    load_cifar10,
    load_model,
    load_sst2,
)
from mico_competition.cli import train_runs
from mico_competition.competition.splits import draw_seeds, seed_text


@check("mico_competition.ChallengeDataset")
@check("mico_competition.ChallengeDataset.from_path")
def test_splits_are_those_of_2022(place, tmp_path):
    _, folder, dataset, splits = place
    same = ChallengeDataset(dataset, TRAINING, M, *SEEDS)
    order = torch.randperm(N, generator=torch.Generator().manual_seed(SEEDS[0])).tolist()
    assert splits.challenge.indices == same.challenge.indices == order[: 2 * M]
    keyed = ChallengeDataset(dataset, TRAINING, M, draw_seeds().challenge)
    assert len(keyed.get_challenges()) == 2 * M
    with pytest.raises(ValueError, match="150000"):
        ChallengeDataset.from_path(folder, dataset, len_training=50000)
    with pytest.raises(ValueError, match="seed_challenge"):
        ChallengeDataset.from_path(tmp_path, dataset, len_training=TRAINING)


@check("mico_competition.ChallengeDataset.get_challenges")
@check("mico_competition.ChallengeDataset.get_train_dataset")
@check("mico_competition.ChallengeDataset.get_eval_dataset")
@check("mico_competition.ChallengeDataset.get_solutions")
@check("mico_competition.ChallengeDataset.challenge")
def test_parts_of_the_splits(place):
    _, _, dataset, splits = place
    assert isinstance(splits.get_challenges(), Subset) and len(splits.get_challenges()) == 2 * M
    whole = splits.get_train_dataset()
    assert isinstance(whole, ConcatDataset) and len(whole) == TRAINING
    assert whole.datasets == [splits.member, splits.training]
    assert len(splits.get_eval_dataset()) == N - TRAINING - M
    # As the winner's code finds a model's members:
    members = [splits.challenge.indices[i] for i in splits.member.indices]
    members += [splits.rest.indices[i] for i in splits.training.indices]
    assert len(set(members)) == TRAINING and isinstance(splits.member.indices, list)
    solutions = splits.get_solutions()
    assert type(solutions) is list and set(solutions) == {0, 1} and sum(solutions) == M
    assert [int(i in members) for i in splits.challenge.indices] == solutions
    assert len(splits.nonmember.indices + splits.evaluation.indices) == N - TRAINING
    hidden = ChallengeDataset(dataset, TRAINING, M, SEEDS[0], None, None)
    for ask in (hidden.get_train_dataset, hidden.get_eval_dataset, hidden.get_solutions):
        with pytest.raises(ValueError, match="not disclosed"):
            ask()
    assert not hasattr(hidden, "training") and not hasattr(hidden, "member")


@check("seed_challenge")
def test_seeds_of_both_forms_are_read(place, tmp_path):
    _, folder, dataset, splits = place
    copy = shutil.copytree(folder, tmp_path / "purchase100/purchase100_hi/train/model_0")
    (copy / "solution.csv").unlink()
    for name, seed in zip(SEED_FILES, vars(draw_seeds()).values()):
        (copy / name).write_text(seed_text(seed) + "\n")
    assert re.fullmatch(r"[0-9a-f]{32}\n", (copy / "seed_training").read_text())
    keyed = ChallengeDataset.from_path(copy, dataset, len_training=TRAINING, len_challenge=M)
    assert keyed.challenge.indices != splits.challenge.indices
    args = Namespace(split_seed=None, model_id=None, **dict(zip(SEED_FILES, SEEDS)))
    assert [seed_text(seed) for seed in vars(train_runs.seeds_of(args)[0]).values()] == [
        *map(str, SEEDS)
    ]


@check("mico_competition.load_model")
@check("mico_competition.MLP")
@check("mico_competition.MLP.load")
@check("model.pt")
def test_checkpoints_of_2022_load(place):
    _, folder, _, _ = place
    assert next(iter(torch.load(folder / "model.pt"))).startswith("_module.")
    model, same = load_model("purchase100", str(folder)), MLP.load(str(folder / "model.pt"))
    assert type(model) is type(same) is MLP and not model.training and not same.training
    assert list(model.state_dict()) == [
        *("mlp.0.weight", "mlp.0.bias", "mlp.2.weight", "mlp.2.bias")
    ]
    records = torch.ones(3, 600)
    assert torch.equal(model(records), same(records)) and model(records).requires_grad
    with pytest.raises(ValueError, match="purchase"):
        load_model("purchase", folder)


@check("pytorch_model.bin")
@pytest.mark.slow  # imports transformers
def test_a_text_model_of_2022_loads():
    expected = json.loads((OLD / "expected.json").read_text())["roberta"]
    text = load_model("sst2", OLD / "roberta")
    ids = torch.tensor([[0, 17, 42, 250, 2, 1, 1], [0, 5, 6, 7, 8, 9, 2]])
    with torch.no_grad():
        logits = text(input_ids=ids, attention_mask=(ids != 1).long()).logits
    assert torch.allclose(logits, torch.tensor(expected), atol=1e-5)


@check("mico_competition.CNN")
@check("mico_competition.CNN.load")
def test_a_cnn_with_the_prefix_of_opacus_loads(tmp_path):
    model = CNN()
    prefixed = {f"_module.{name}": value for name, value in model.state_dict().items()}
    torch.save(prefixed, tmp_path / "model.pt")
    loaded = CNN.load(str(tmp_path / "model.pt"))
    images = torch.rand(2, 3, 32, 32)
    assert not loaded.training and torch.equal(loaded(images), model.eval()(images))


@check("mico_competition.load_cifar10")
def test_images_are_those_of_2022(place):
    dataset = load_cifar10(dataset_dir=f"{place[0]}/data", download=False)
    image, label = dataset[0]
    mean, deviation = (0.49139968, 0.48215841, 0.44653091), (0.24703223, 0.24348513, 0.26158784)
    pixels = dataset.storage[0].float().div(255)
    expected = (pixels - torch.tensor(mean)[:, None, None]) / torch.tensor(deviation)[:, None, None]
    assert torch.equal(image, expected) and type(label) is int
    assert not hasattr(dataset, "datasets") and len(Subset(dataset, range(100, 120))) == 20


@check("mico_competition.load_purchase100")
@check("dataset_purchase.pickle")
def test_baskets_are_those_of_2022(place):
    root, _, dataset, _ = place
    rows = np.loadtxt(root / "data/purchase100/dataset_purchase", dtype=int, delimiter=",")
    assert torch.equal(dataset.inputs(range(len(dataset))), torch.FloatTensor(rows[:, 1:]))
    assert dataset.labels.tolist() == (rows[:, 0] - 1).tolist() and type(dataset[3][1]) is int
    assert not [*root.rglob("*.pickle")]


@check("mico_competition.load_sst2")
def test_sentences_are_those_of_2022(place):
    dataset = load_sst2(place[0] / "data/sst2")
    assert list(dataset[0]) == ["sentence", "label", "idx"]
    assert dataset[139]["idx"] == 139 and dataset[140]["idx"] == 0
    # As the SST-2 runner-up's code makes a data set of records:
    frame = pd.DataFrame.from_records(Subset(dataset, [1, 0]))
    assert list(frame.columns) == ["sentence", "label", "idx"] and len(frame) == 2
    batch = next(iter(DataLoader(Subset(dataset, range(5)), batch_size=5)))
    assert type(batch["sentence"]) is list and batch["label"].shape == (5,)
