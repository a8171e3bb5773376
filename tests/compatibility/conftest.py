"""What the tests of compatibility with 2022 share."""

import csv
import shutil

import pytest
from helpers_compatibility import OLD, SEED_FILES, SEEDS, TRAINING, M

from mico_competition import ChallengeDataset, load_purchase100


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A challenge folder of 2022's form with one model, and the three datasets, all small."""
    from small_competition import write_datasets

    root = tmp_path_factory.mktemp("2022")
    write_datasets(root / "data")
    folder = root / "purchase100/purchase100_hi/train/model_0"
    folder.mkdir(parents=True)
    for name, seed in zip(SEED_FILES, SEEDS):
        (folder / name).write_text(f"{seed}\n")
    shutil.copy(OLD / "mlp_opacus/model.pt", folder)
    dataset = load_purchase100(dataset_dir=f"{root}/data")
    splits = ChallengeDataset.from_path(
        str(folder), dataset=dataset, len_training=TRAINING, len_challenge=M
    )
    with open(folder / "solution.csv", "w") as file:
        csv.writer(file).writerow(splits.get_solutions())
    return root, folder, dataset, splits
