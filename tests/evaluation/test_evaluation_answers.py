"""What an attack may give back, and how it may end."""

import numpy as np
import pytest
import torch
from helpers_problem import make_source
from torch import nn

from mico_competition.attacks.problem import Attack
from mico_competition.evaluation.cross_fitting import make_task, run
from mico_competition.evaluation.custom import find_attack


@pytest.mark.parametrize(
    "give",
    [
        lambda values: torch.tensor(values, requires_grad=True) * 1,
        lambda values: nn.Parameter(torch.tensor(values)),
        lambda values: torch.tensor(values).to(torch.bfloat16),
        lambda values: [torch.tensor(row, requires_grad=True) for row in values],
        lambda values: [[torch.tensor(v, requires_grad=True) for v in row] for row in values],
        lambda values: tuple(map(tuple, values.tolist())),
        lambda values: torch.tensor(values).T.contiguous().T,
    ],
)
def test_tensors_of_any_kind_are_scores(give):
    task = make_task(make_source(), "dev")
    values = np.arange(120.0).reshape(6, 20) % 8
    found = run(task, Attack("a", "", "", lambda p: give(values)))
    np.testing.assert_array_equal(found, values)
    assert found.dtype == np.float64


@pytest.mark.parametrize(
    ("give", "message"),
    [
        (lambda p: None, "real numbers of shape"),
        (lambda p: {"scores": 1}, "real numbers of shape"),
        (lambda p: torch.zeros(p.columns.shape, dtype=torch.complex64), "real numbers"),
        (lambda p: torch.zeros(p.columns.shape, device="meta"), "real numbers of shape"),
        (lambda p: torch.full(p.columns.shape, float("nan")), "finite scores, got 120"),
        (lambda p: torch.zeros(3, requires_grad=True), r"of shape \(3,\)"),
        (lambda p: np.ma.masked_less(p.columns * 1.0, 200), "finite scores, got 120"),
        (lambda p: [torch.zeros(2), torch.zeros(3)], "real numbers of shape"),
        (lambda p: torch.zeros(p.columns.shape).to_sparse(), "real numbers of shape"),
        (lambda p: (x for x in range(3)), "real numbers of shape"),
    ],
)
def test_what_is_no_score_is_refused_in_a_sentence(give, message):
    task = make_task(make_source(), "dev")
    with pytest.raises(ValueError, match=message) as mistake:
        run(task, Attack("a", "", "", give))
    assert "\n" not in str(mistake.value) and str(mistake.value).endswith(".")


@pytest.mark.parametrize("ending", ["raise SystemExit(0)", "exit()", "raise GeneratorExit"])
def test_an_attack_cannot_end_the_program(ending, tmp_path):
    (tmp_path / "mine.py").write_text(f"def attack(problem):\n    {ending}\n")
    with pytest.raises(ValueError, match="mine.py:attack failed: "):
        run(make_task(make_source(), "dev"), find_attack(f"{tmp_path}/mine.py:attack"))
    (tmp_path / "mine.py").write_text(f"{ending}\n")
    with pytest.raises(ValueError, match="does not run: "):
        find_attack(f"{tmp_path}/mine.py:attack")
