"""The attacks that have a name on the command line, and what is known of each.

Every one takes a `Problem` and leaves the targets out of their own reference where they are among
the shadows.  The prize winners of 2023 are here with their formulas; these mistakes of theirs are
not repeated:

- Purchase-100's runner-up (`first-principles`) looked for a point's place in the dataset among
  places within parts of the split, and left n at CIFAR-10's 50,000 for Purchase-100, whose n is
  150,000: who counted as OUT was chance.  Membership here comes from each model's own metadata and
  seeds; `first-principles-sent` keeps the mistakes.
- SST-2's runner-up (`fleshman`), and 2022's kit, stretched the scores of each model to [0, 1] by
  themselves; predictions of all models are pooled, so the calibration was lost.  Scores here are
  mapped once for all models of a phase (`attacks.to_unit`).
- The winner (`winner-2023`) chose a formula for each scenario by its score on the very train
  models, and CIFAR-10's runner-up (`suri`) tuned his classifier's features likewise: in-sample
  numbers.  Here targets are left out (`folds.py`), and that is checked (`blind.py`).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np

from mico_competition import attacks as arrays
from mico_competition.attacks.catalogue import WINNERS_FORMULAS, check_name
from mico_competition.attacks.problem import Attack, Problem
from mico_competition.attacks.scores.common import check_inputs, moments_of
from mico_competition.competition.table import DISTINGUISHER, get_scenario, get_task
from mico_competition.models.architectures import MLP

PAIRS = 4000  # (shadow, point) pairs that the quantile regression learns from
FIRST_PRINCIPLES = ("global_variance", "logit_scaling", "stable_logit_scaling", "online_attack")

# Packages that add more, each in its tuple ATTACKS.  They build on this one, so they are imported
# by name, and only when a name is asked for that is not found here: some need more than numpy.
_MORE = ("attacks.stacking", "attacks.whitebox.mlp", "attacks.whitebox.layers")

Run = Callable[[Problem], np.ndarray]


def alone(signal: str) -> Run:
    """The target's signal itself: no shadow is looked at."""

    def run(problem: Problem) -> np.ndarray:
        values = problem.source.get(signal)[problem.targets[:, None], problem.columns]
        return np.asarray(values, dtype=np.float64)

    return run


def of_signal(signal: str, attack: Callable[..., np.ndarray], **options: Any) -> Run:
    """A function of `mico_competition.attacks` on a signal."""
    return lambda problem: problem.gather(signal).score(attack, **options)


def winner_2023(problem: Problem) -> np.ndarray:
    """The winner's signal and formula of the problem's scenario.

    Scenarios that 2022 did not have take those of Purchase-100 with as much privacy.
    """
    signal, formula = winners_choice(problem.source.fleet.scenario)
    return problem.gather(signal).score(arrays.winner_2023, formula=formula)


def winners_choice(scenario: str) -> tuple[str, str]:
    """(signal, formula) that the winner took, or would have taken, for a scenario."""
    if scenario in arrays.WINNER_2023:
        return arrays.WINNER_2023[scenario]
    row = get_scenario(scenario)
    if row.disclosure == DISTINGUISHER:
        level = "ddp"
    elif not row.private:
        level = "inf"
    else:  # the nearer of 2022's two, as a ratio
        level = "hi" if row.target_epsilon**2 > 10 * 4 else "lo"
    return arrays.WINNER_2023[f"purchase100_{level}"]


def first_principles(**options: bool) -> Run:
    """The Purchase-100 runner-up's program with his options, one model at a time as it ran."""

    def run(problem: Problem) -> np.ndarray:
        return problem.gather("logit").score_each(arrays.first_principles, **options)

    return run


def first_principles_sent(problem: Problem) -> np.ndarray:
    """The runner-up's program with the option and with the mistakes that it was sent in with.

    It looks for a point's place in the dataset among places within parts of the split, which has
    nothing to do with who trained on the point: a shadow model is OUT at a point by chance.  The
    chance is drawn here anew; its size is theirs (for Purchase-100 with n = 50,000 in place of
    150,000).  Targets are left out of their own reference, which theirs were not.
    """
    task = get_task(get_scenario(problem.source.fleet.scenario).task)
    share = task.len_training / task.len_dataset / (3 if task.name == "purchase100" else 1)
    known_membership = problem.known_membership.copy()
    for row in problem.shadows:
        known_membership[row] = (
            np.random.default_rng([0, row]).random(known_membership.shape[1]) < share
        )
    return first_principles(global_variance=True)(
        replace(problem, known_membership=known_membership)
    )


def first_principles_with(**options: bool) -> Attack:
    """The attack first-principles with some of `FIRST_PRINCIPLES` set."""
    name = " ".join(["first-principles", *(f"--{option}" for option in options)])
    kind = "online" if options.get("online_attack") else "offline"
    plain = Attack.named("first-principles", first_principles(**options))
    return replace(plain, name=name, title=f"the runner-up's {kind} LiRA") if options else plain


def quantile(problem: Problem) -> np.ndarray:
    """Quantile regression of OUT signals on what the other shadows say of a point.

    Bertran et al. learn from points that the target did not see.  MICO tells of none, so the
    OUT shadows stand for it: random (shadow, point) pairs, the shadow left out of the mean and
    spread that describe the point.
    """
    signal, shadows = problem.source.get("logit"), problem.shadows
    outside = np.flatnonzero(~problem.is_member)
    if len(outside) < 10:
        raise ValueError("Expected at least 10 (shadow, point) pairs OUT, got fewer: take `lira`.")
    pairs = outside[np.random.default_rng(0).permutation(len(outside))[:PAIRS]]
    rows, columns = np.divmod(pairs, problem.known_membership.shape[1])
    target = signal[shadows[rows], columns]
    learnt = moments_of(
        check_inputs(target, signal[np.ix_(shadows, columns)], problem.is_member[:, columns], rows)
    )
    spread = np.sqrt(learnt.ss_all / np.maximum(learnt.n - 1, 1))
    asked = problem.columns.ravel()
    points, place = np.unique(asked, return_inverse=True)  # many targets ask for the same ones
    around = signal[np.ix_(shadows, points)]
    known = np.stack([around.mean(axis=0), around.std(axis=0, ddof=1)], axis=1)
    score = arrays.quantile_regression(
        signal[np.repeat(problem.targets, problem.columns.shape[1]), asked],
        known[place],
        target,
        np.stack([learnt.mean_all, spread], axis=1),
    )
    return score.reshape(problem.columns.shape)


def _calibrations() -> Iterator[tuple[str, Run]]:
    yield "winner-2023", winner_2023
    for name in WINNERS_FORMULAS:
        _, signal, formula = name.split("-")
        yield name, of_signal(signal, arrays.winner_2023, formula=formula)
    for signal in ("loss", "confidence", "logit"):
        yield f"calibrate-{signal}-out", of_signal(signal, arrays.calibrate, centre="out")


def _likelihood_ratios() -> Iterator[tuple[str, Run]]:
    variants: dict[str, dict[str, Any]] = {
        "": {},
        "-global": {"variance": "global"},
        "-shrunk": {"shrinkage": 15.0},
    }
    for kind in ("online", "offline"):
        for ending, options in variants.items():
            run = of_signal("logit", arrays.lira, online=kind == "online", **options)
            yield f"lira-{kind}{ending}", run
    yield "lira", of_signal("logit", arrays.lira)
    run = of_signal("confidence", arrays.lira, online=False, variance="global")
    yield "lira-offline-confidence", run
    yield "bavaria", of_signal("logit", arrays.bavaria, predictive="t")
    yield "bavaria-normal", of_signal("logit", arrays.bavaria, predictive="normal")
    yield "rmia", of_signal("confidence", arrays.rmia)
    yield "rmia-offline", of_signal("confidence", arrays.rmia, online=False)
    yield "eb", of_signal("logit", arrays.eb_likelihood_ratio)
    for signal in ("loss", "confidence", "gradient_norm"):
        name = f"eb-{signal.replace('_', '-')}"
        yield name, of_signal(signal, arrays.eb_likelihood_ratio)


def _others() -> Iterator[tuple[str, Run]]:
    for name, signal in (("threshold", "loss"), ("entropy", "entropy")):
        yield name, alone(signal)
    yield "modified-entropy", alone("modified_entropy")
    yield "first-principles", first_principles()
    yield "first-principles-sent", first_principles_sent
    yield "fleshman", of_signal("confidence", arrays.out_reference)
    yield "quantile", quantile


ATTACKS: Mapping[str, Attack] = {
    name: Attack.named(name, run)
    for name, run in (*_others(), *_calibrations(), *_likelihood_ratios())
}
"""The closed-form attacks: numpy only, fractions of a second from cached signals."""


def attacks() -> dict[str, Attack]:
    """All named attacks, the learned and white-box ones included, by name."""
    found = dict(ATTACKS)
    for package in _MORE:
        try:
            more = getattr(importlib.import_module(f"mico_competition.{package}"), "ATTACKS", ())
        except ModuleNotFoundError as missing:
            if (missing.name or "").startswith("mico_competition."):
                raise
            continue  # an extra that is not installed: its attacks are not to be had
        found.update({a.name: a for a in more})
    if {"best", "layers"} <= set(found):
        run = _best_of(found["best"], found["layers"])
        found.update({name: Attack.named(name, run) for name in ("best", "whitebox")})
    return found


@cache  # so that a name asked for twice gives equal attacks
def _best_of(best: Attack, layers: Attack) -> Run:
    """Ours for any model: `best` knows MLPs, and `layers` knows all others."""

    def run(problem: Problem) -> np.ndarray:
        model = problem.source.load(int(problem.shadows[0]))
        return (best if isinstance(model, MLP) else layers).run(problem)

    return run


def get_attack(name: str) -> Attack:
    """The attack of a name; ValueError with the nearest names if there is none."""
    check_name(name)
    if name in ATTACKS:
        return ATTACKS[name]
    known = attacks()
    if name not in known:
        raise ValueError(
            f"Attack {name} needs a package that is not installed: `pip install -e '.[all]'` in "
            "the repository."
        )
    return known[name]
