"""The names that participants' code uses, held still."""

import inspect
import subprocess
import sys

import mico_competition
from mico_competition import ChallengeDataset


def test_exported_names():
    assert mico_competition.__all__ == sorted(mico_competition.__all__)
    for name in mico_competition.__all__:
        assert getattr(mico_competition, name).__name__ == name
        assert name in dir(mico_competition)


def test_names_and_arguments_of_2022():
    from mico_competition.scoring import (  # noqa: F401
        generate_html,
        generate_roc,
        generate_table,
        score,
        tpr_at_fpr,
    )

    from mico_competition import (  # noqa: F401
        CNN,
        MLP,
        load_cifar10,
        load_model,
        load_purchase100,
        load_sst2,
    )

    assert list(inspect.signature(ChallengeDataset).parameters) == [
        "dataset",
        "len_training",
        "len_challenge",
        "seed_challenge",
        "seed_training",
        "seed_membership",
    ]
    assert list(inspect.signature(ChallengeDataset.from_path).parameters) == [
        "path",
        "dataset",
        "len_training",
        "len_challenge",
    ]
    assert list(inspect.signature(load_model).parameters)[:2] == ["task", "path"]
    assert list(inspect.signature(load_cifar10).parameters) == ["dataset_dir", "download"]
    assert inspect.signature(load_sst2).parameters["dataset_dir"].default is None


def test_importing_the_package_is_cheap():
    code = "import sys, mico_competition; print('torch' in sys.modules)"
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert finished.stdout.strip() == "False"
