"""The names that users' code uses, held still."""

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import mico_competition
from mico_competition import ChallengeDataset


def test_exported_names():
    assert mico_competition.__all__ == sorted(mico_competition.__all__)
    for name in mico_competition.__all__:
        assert getattr(mico_competition, name).__name__ == name
        assert name in dir(mico_competition)


def test_the_three_lists_of_names_are_equal():
    """Type checkers read the imports, `import *` reads `__all__`, and Python `_HOME`."""
    tree = ast.parse(Path(mico_competition.__file__).read_text())
    (typed,) = [node for node in tree.body if isinstance(node, ast.If)]
    homes = {
        alias.name: node.module.removeprefix("mico_competition.")
        for node in ast.walk(typed)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert homes == mico_competition._HOME
    assert list(mico_competition._HOME) == mico_competition.__all__


def test_every_name_is_documented():
    """A sentence, and for what is ours in Python an example; 2022's loaders need data."""
    for name in mico_competition.__all__:
        text = inspect.getdoc(getattr(mico_competition, name)) or ""
        assert text.split("\n")[0].endswith("."), name


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
    code = "import sys, mico_competition as m; dir(m); print({'torch', 'numpy'} & {*sys.modules})"
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert finished.stdout.strip() == "set()"


def test_bounds_limits_and_results_need_no_torch():
    code = (
        "import sys, numpy as np, mico_competition as m\n"
        "truth = np.random.default_rng(0).random((2, 200)) < 0.5\n"
        "m.epsilon_bounds(truth, truth * 1.0), m.tpr_limit(epsilon=4, delta=1e-5, fpr=0.1)\n"
        "m.Results([m.AttackResult.of('a', truth, truth * 1.0)])\n"
        "m.audit_trainer(lambda include, seed: include * 1.0, canaries=100, epsilon=1)\n"
        "m.score(truth[0], truth[0] * 1.0), m.list_attacks()\n"
        "print({'torch', 'pandas', 'matplotlib'} & {*sys.modules})"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert finished.stdout.strip() == "set()", finished.stderr
