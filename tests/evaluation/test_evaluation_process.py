"""What an attack does to the process reaches nobody else."""

import os
import random
import warnings

import numpy as np
import pytest
import torch
from helpers_problem import make_source

from mico_competition.attacks.problem import Attack
from mico_competition.evaluation.cross_fitting import make_task, run
from mico_competition.evaluation.custom import find_attack


def seeds_everything(_):
    np.random.seed(3)
    torch.manual_seed(3)
    random.seed(3)


def floats_in_64_bits(_):
    torch.set_default_dtype(torch.float64)


def takes_threads(_):
    torch.set_num_threads(7)


def raises_on_warnings(_):
    warnings.simplefilter("error")
    np.seterr(all="raise")


def changes_the_environment(_):
    os.environ["MICO_CACHE"] = "/nowhere"
    os.environ.pop("HOME", None)


def changes_the_folder(_):
    os.chdir("/")


def turns_gradients_off(_):
    torch.set_grad_enabled(False)
    torch.set_default_device("meta")


def changes_other_things(_):
    import decimal
    import gc
    import logging
    import sys

    logging.disable(logging.CRITICAL)
    decimal.getcontext().prec = 3
    gc.disable()
    sys.setrecursionlimit(5000)
    sys.path.insert(0, "/nowhere")
    sys.stdout = None
    os.umask(0)
    torch.set_flush_denormal(True)


def state():
    """What others depend on."""
    import decimal
    import gc
    import logging
    import sys

    return (
        np.random.get_state()[1].tolist(),
        torch.get_rng_state().tolist(),
        random.getstate(),
        torch.get_default_dtype(),
        torch.get_default_device(),
        torch.get_num_threads(),
        torch.is_grad_enabled(),
        list(warnings.filters),
        np.geterr(),
        dict(os.environ),
        os.getcwd(),
        logging.root.manager.disable,
        decimal.getcontext().prec,
        gc.isenabled(),
        sys.getrecursionlimit(),
        list(sys.path),
        sys.stdout,
        os.umask(0o022) or os.umask(0o022),
        bool((torch.full((1,), 1e-310, dtype=torch.float64) * 1 == 0).all()),
    )


@pytest.mark.parametrize(
    "change",
    [
        seeds_everything,
        floats_in_64_bits,
        takes_threads,
        raises_on_warnings,
        changes_the_environment,
        changes_the_folder,
        turns_gradients_off,
        changes_other_things,
    ],
)
@pytest.mark.parametrize("fails", [False, True])
def test_the_process_is_as_it_was(change, fails, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.umask(0o022)
    task = make_task(make_source(), "dev")

    def attack(problem):
        change(problem)
        if fails:
            raise ZeroDivisionError
        return np.zeros(problem.columns.shape)

    before = state()
    try:
        run(task, Attack("a", "", "", attack))
    except ZeroDivisionError:
        assert fails
    assert state() == before


def test_global_generators_begin_alike_for_every_attack():
    """So an attack that seeds nothing gives the same, whatever ran before it."""
    task = make_task(make_source(), "dev")
    dice = Attack("dice", "", "", lambda p: np.random.random(p.columns.shape) + random.random())
    alone = run(task, dice)
    np.random.seed(99)
    run(task, Attack("b", "", "", lambda p: np.random.random(p.columns.shape)))
    np.testing.assert_array_equal(run(task, dice), alone)


def test_a_file_changes_nothing_when_it_is_read_either(tmp_path):
    (tmp_path / "mine.py").write_text(
        "import os, numpy as np, torch, warnings\n"
        "os.chdir('/'); os.environ['X_MINE'] = '1'; np.random.seed(1)\n"
        "torch.set_default_dtype(torch.float64); warnings.simplefilter('error')\n"
        "def attack(problem):\n"
        "    assert torch.get_default_dtype() == torch.float64 and os.environ['X_MINE'] == '1'\n"
        "    return problem.columns\n"
    )
    before = state()
    attack = find_attack(f"{tmp_path}/mine.py:attack")
    assert state() == before
    run(make_task(make_source(), "dev"), attack)
    assert state() == before
