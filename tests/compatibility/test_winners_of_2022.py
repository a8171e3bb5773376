"""docs/COMPATIBILITY.md: what the prize winners' code uses of the package, by name and by call."""

import copy

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from helpers_compatibility import PAGE, TRAINING, M, N, found
from mico_competition.scoring import generate_roc, score
from torch.utils.data import DataLoader

from mico_competition import ChallengeDataset, load_model

WINNERS = {
    "tianjian10/MICO": "ChallengeDataset load_model load_cifar10 load_purchase100 load_sst2 "
    "scoring.generate_roc scoring.score",
    "iamgroot42/MICO": "ChallengeDataset load_cifar10 load_model scoring.tpr_at_fpr "
    "scoring.score scoring.generate_roc scoring.generate_table",
    "DevPranjal/mico-first-principles": "ChallengeDataset load_purchase100 load_model load_cifar10",
    "wfleshman/MICO_SST": "ChallengeDataset load_sst2 load_model scoring.score",
}
"""Repository -> what its code imports."""


def test_the_winners_imports_are_there():
    section = PAGE.split("## The prize winners' code\n")[1]
    for repository, names in WINNERS.items():
        assert section.count(f"[{repository}]") == 1
        for name in names.split():
            assert callable(found(f"mico_competition.{name}"))


def test_the_winners_calls_work(place, tmp_path):
    """What their code does with the package's objects, in the forms in which it does so."""
    _, folder, dataset, _ = place
    path = str(folder)
    splits = ChallengeDataset.from_path(
        path, dataset=dataset, len_training=TRAINING, len_challenge=M
    )
    points = splits.get_challenges()
    features, labels = next(iter(DataLoader(points, batch_size=2 * M)))
    assert features.shape == (2 * M, 600) and labels.dtype == torch.int64
    model = load_model("purchase100", path)
    outputs = model(features).detach().numpy()
    assert outputs.shape == (2 * M, 100)
    frozen = load_model("purchase100", path).eval().requires_grad_(False)
    batches = [frozen(x) for x, _ in DataLoader(dataset, batch_size=64)]
    everybody = torch.cat(batches)
    assert everybody.shape == (N, 100)
    assert torch.allclose(everybody[splits.challenge.indices], torch.tensor(outputs), atol=1e-5)
    mask = torch.zeros(N, dtype=torch.int64)
    mask[splits.train_indices] = 1
    assert mask[splits.challenge.indices].tolist() == splits.get_solutions()
    assert np.array([model, frozen], dtype=object).shape == (2,)
    copied = copy.deepcopy(model).train()
    copied.zero_grad()
    torch.nn.functional.cross_entropy(copied(features[:1]), labels[:1]).backward()
    assert [p.grad.shape for p in copied.parameters()] == [p.shape for p in model.parameters()]
    assert [x.shape for x, _ in points][:1] == [(600,)] and points.indices == list(points.indices)
    others = [*splits.member.indices, *splits.training.indices]
    assert len(others) == TRAINING
    result = score(np.array(splits.get_solutions(), dtype=float), outputs[:, 0])
    figure = generate_roc(result.pop("fpr", None), result.pop("tpr", None))
    plt.savefig(tmp_path / "roc.png", bbox_inches="tight")
    plt.close(figure)
    assert (tmp_path / "roc.png").stat().st_size and pd.DataFrame([result]).shape == (1, 9)
