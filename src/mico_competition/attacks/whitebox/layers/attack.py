"""The attack `layers`: decodes of all layers, calibrated by shadows and stacked."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mico_competition.attacks.problem import Problem
from mico_competition.attacks.whitebox.layers.frame import load_checked, make_frame
from mico_competition.attacks.whitebox.layers.layers import shapes
from mico_competition.attacks.whitebox.layers.model_signals import Signals, signals_of
from mico_competition.attacks.whitebox.mlp.evidence import calibrator, make_stack
from mico_competition.attacks.whitebox.mlp.label_free import Last, check_problem
from mico_competition.scoring import tpr_at_most_fpr
from mico_competition.signals.source import Source
from mico_competition.support.progress import tracked

BLACK_BOX = ("logit", "loss")
LEAST = 4  # least number of shadow models
CHOSEN_AT = 0.1  # the false positive rate for the choice of ridges

_last: Last[dict[str, dict[float, np.ndarray]]] = Last()


def best_layers(problem: Problem) -> np.ndarray:
    """Scores of the stack of all layers' decodes and the outputs' likelihood ratios.

    Args:
        problem: with the signals of all records, and targets that are not among the shadows.

    Returns:
        float64[targets, points], log odds; comparable over models.

    Raises:
        ValueError: if records are missing, if targets are their own shadows, with fewer than 4
            shadows, if models are not of the same layers and finite, or if no layer of a model can
            be decoded.
    """
    check_problem(problem, LEAST)
    signals = fleet_signals(problem)
    stack = make_stack(problem)
    for name in BLACK_BOX:
        stack.add_signal(problem.source.get(name))
    for family in tracked(signals.values(), "Likelihood ratios", "layer"):
        stack.add_signal(best_ridge(problem, family))
    return stack.scores()


def fleet_signals(problem: Problem) -> dict[str, dict[float, np.ndarray]]:
    """Family -> ridge -> float32[models, N]; NaN in rows outside the problem.

    The signals do not depend on membership, so the folds of an evaluation share them: those of the
    last source are kept.
    """

    def make(source: Source, rows: np.ndarray) -> dict[str, dict[float, np.ndarray]]:
        return laid_out(_signals_by_row(source, rows), len(problem.known_membership))

    return _last.get(problem, make)


def _signals_by_row(source: Source, rows: np.ndarray) -> dict[int, Signals]:
    frame = make_frame(source, rows)
    expected = None
    found: dict[int, Signals] = {}
    for row in tracked(rows.tolist(), "Decode of all layers", "model"):
        model = load_checked(source, row, expected)
        expected = expected or shapes(model)
        found[row] = signals_of(model, frame)
        if not found[row]:
            raise ValueError(
                "Expected models with a layer that is called once in a forward pass, on inputs "
                f"that vary between records, but {source.fleet.name(row)} has none: leave it out, "
                "or attack the models' outputs."
            )
    return found


def laid_out(found: Mapping[int, Signals], models: int) -> dict[str, dict[float, np.ndarray]]:
    """Signals by row -> float32[models, N] of each family and ridge.

    A model without a family, as where one of its layers is dead, gets zeros: nothing is known of
    any record. A family that does not vary over models and records, such as that of an unused
    layer, is left out.
    """
    out: dict[str, dict[float, np.ndarray]] = {}
    families = {family: own for signals in found.values() for family, own in signals.items()}
    for family, members in families.items():
        for ridge, own in members.items():
            table = np.full((models, len(own)), np.nan, np.float32)
            for row, signals in found.items():
                table[row] = signals[family][ridge] if family in signals else 0
            if np.nanstd(table, axis=0).max() > 0:
                out.setdefault(family, {})[ridge] = table
    return out


def best_ridge(problem: Problem, family: Mapping[float, np.ndarray]) -> np.ndarray:
    """float32[models, N], the signal of the ridge with the best scores on the shadows.

    Each shadow is left out of its own reference; the choice does not use the targets.
    """
    if len(family) == 1:
        return next(iter(family.values()))
    labels = problem.is_member.ravel().astype(int)

    def worth(signal: np.ndarray) -> float:
        scores = calibrator(problem).log_ratio(signal, problem.shadows)
        return float(tpr_at_most_fpr(labels, scores.ravel(), CHOSEN_AT))

    return max(family.values(), key=worth)
