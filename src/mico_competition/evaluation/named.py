"""The attacks that have a name on the command line, and what is known of each.

Every one takes a `Problem` and leaves the targets out of their own reference where they are among
the shadows.  The prize winners of 2023 are here with their formulas; these mistakes of theirs are
not repeated:

- Purchase-100's runner-up (`first-principles`) left n at CIFAR-10's 50,000 when he rebuilt the
  training sets of Purchase-100, whose n is 150,000: two thirds of the members of each shadow
  counted as non-members.  Membership here comes from each model's own metadata and seeds.
- SST-2's runner-up (`fleshman`), and 2022's kit, stretched the scores of each model to [0, 1] by
  themselves; predictions of all models are pooled, so the calibration was lost.  Scores here are
  mapped once for all models of a phase (`attacks.to_unit`).
- The winner (`winner-2023`) chose a formula for each scenario by its score on the very train
  models, and CIFAR-10's runner-up (`suri`) tuned his classifier's features likewise: in-sample
  numbers.  Here targets are left out (`folds.py`), and that is checked (`blind.py`).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np

from mico_competition import attacks as arrays
from mico_competition.attacks.common import check_inputs, moments_of
from mico_competition.evaluation.problem import Attack, Problem
from mico_competition.models import MLP
from mico_competition.tracks import get_scenario

WINNERS_FORMULAS = tuple(
    f"calibrate-{signal}-{formula}"
    for signal in ("loss", "confidence")
    for formula in ("in", "midpoint", "standardised")
)
PAIRS = 4000  # (shadow, point) pairs that the quantile regression learns from
FIRST_PRINCIPLES = ("global_variance", "logit_scaling", "stable_logit_scaling", "online_attack")

# Packages that add more, each in its tuple ATTACKS, and whether these want signals of all records.
# They build on this one, so they are looked for by name, and only when a name is asked for that
# is not found here: some need more than numpy.
_MORE = {"learned": False, "whitebox": True, "deeper": True}

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
    if scenario not in arrays.WINNER_2023:
        scenario = f"purchase100_{get_scenario(scenario).name.rsplit('_', 1)[1]}"
    return arrays.WINNER_2023[scenario]


def first_principles(**options: bool) -> Run:
    """The Purchase-100 runner-up's program with his options, one model at a time as it ran."""

    def run(problem: Problem) -> np.ndarray:
        return problem.gather("logit").score_each(arrays.first_principles, **options)

    return run


def first_principles_with(**options: bool) -> Attack:
    """The attack first-principles with some of `FIRST_PRINCIPLES` set."""
    name = " ".join(["first-principles", *(f"--{option}" for option in options)])
    source = "DevPranjal/mico-first-principles, second in Purchase-100, 2023"
    kind = "online" if options.get("online_attack") else "offline"
    return Attack(name, f"the runner-up's {kind} LiRA", source, first_principles(**options))


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
    rows, columns = np.divmod(pairs, problem.told.shape[1])
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


_CARLINI = "Carlini et al., S&P 2022 (arXiv 2112.03570)"
_WINNER = "tianjian10/MICO, the winner of all four tracks, 2023"
_RATIO = "empirical-Bayes likelihood ratio"


def _calibrations() -> Iterable[Attack]:
    for name in WINNERS_FORMULAS:
        _, signal, formula = name.split("-")
        run = of_signal(signal, arrays.winner_2023, formula=formula)
        yield Attack(name, f"the winner's {formula} formula on {signal}", _WINNER, run)
    for signal in ("loss", "confidence", "logit"):
        run = of_signal(signal, arrays.calibrate, centre="out")
        source = "Watson et al., ICLR 2022 (arXiv 2111.08440)"
        yield Attack(f"calibrate-{signal}-out", f"{signal} less its mean OUT", source, run)


def _likelihood_ratios() -> Iterable[Attack]:
    variants: dict[str, dict[str, Any]] = {
        "": {},
        "-global": {"variance": "global"},
        "-shrunk": {"shrinkage": 15.0},
    }
    for online in (True, False):
        for ending, options in variants.items():
            name = f"lira-{'online' if online else 'offline'}{ending}"
            words = {"": "a variance a point", "-global": "one variance", "-shrunk": "shrunk"}
            title = f"LiRA on the logit, {words[ending]}"
            run = of_signal("logit", arrays.lira, online=online, **options)
            yield Attack(name, title, _CARLINI, run)
    run = of_signal("confidence", arrays.lira, online=False, variance="global")
    yield Attack("lira-offline-confidence", "LiRA on confidence, one variance", _CARLINI, run)
    for name, predictive in (("bavaria", "t"), ("bavaria-normal", "normal")):
        run = of_signal("logit", arrays.bavaria, predictive=predictive)
        yield Attack(name, f"BaVarIA-{predictive[0]} on the logit", "arXiv 2603.11799", run)
    for name, online in (("rmia", True), ("rmia-offline", False)):
        run = of_signal("confidence", arrays.rmia, online=online)
        yield Attack(name, "RMIA on confidence", "Zarifzadeh et al., ICML 2024", run)
    for name, signal in (("eb", "logit"), ("eb-loss", "loss"), ("eb-confidence", "confidence")):
        run, title = of_signal(signal, arrays.eb_likelihood_ratio), f"{_RATIO} of {signal}"
        yield Attack(name, title, "ours", run, least_shadows=3)
    run = of_signal("gradient_norm", arrays.eb_likelihood_ratio)
    title = f"{_RATIO} of the gradient's norm"
    yield Attack("eb-gradient-norm", title, "ours", run, white_box=True, least_shadows=3)


def _others() -> Iterable[Attack]:
    for name, signal, title, source in (
        ("threshold", "loss", "the loss itself", "Yeom et al., CSF 2018"),
        ("entropy", "entropy", "minus the output's entropy", "Shokri et al., S&P 2017"),
        ("modified-entropy", "modified_entropy", "minus modified entropy", "Song and Mittal, 2021"),
    ):
        yield Attack(name, title, source, alone(signal), least_shadows=0)
    yield Attack("winner-2023", "the winner's choice for the scenario", _WINNER, winner_2023)
    yield first_principles_with()
    sent = first_principles_with(global_variance=True)
    yield replace(sent, name="first-principles-sent", title="as sent in: --global_variance")
    fleshman = "wfleshman/MICO_SST, second in SST-2, 2023"
    run = of_signal("confidence", arrays.out_reference)
    yield Attack("fleshman", "confidence less that of one OUT model", fleshman, run)
    title = "quantile regression of OUT shadows' logits"
    source = "Bertran et al., NeurIPS 2023 (arXiv 2307.03694)"
    yield Attack("quantile", title, source, quantile, leaves_one_out=False)


ATTACKS: Mapping[str, Attack] = {
    attack.name: attack for attack in (*_others(), *_calibrations(), *_likelihood_ratios())
}
"""The closed-form attacks: numpy only, fractions of a second from cached signals."""


def attacks() -> dict[str, Attack]:
    """All named attacks, the learned and white-box ones included, by name."""
    found = dict(ATTACKS)
    for package, all_records in _MORE.items():
        try:
            more = getattr(importlib.import_module(f"mico_competition.{package}"), "ATTACKS", ())
        except ModuleNotFoundError as missing:
            if (missing.name or "").startswith("mico_competition."):
                raise
            continue  # an extra that is not installed: its attacks are not to be had
        found.update({a.name: replace(a, all_records=all_records) for a in more})
    if {"best", "layers"} <= set(found):
        found["best"] = replace(found["best"], run=_best_of(found["best"], found["layers"]))
    return found


@cache  # so that a name asked for twice gives equal attacks
def _best_of(best: Attack, layers: Attack) -> Run:
    """Ours for any model: `best` knows MLPs, and `layers` knows all others."""

    def run(problem: Problem) -> np.ndarray:
        model = problem.source.load(int(problem.shadows[0]))
        return (best if isinstance(model, MLP) else layers).run(problem)

    return run


def get_attack(name: str) -> Attack:
    """The attack of a name; ValueError with the list of names if there is none."""
    if name in ATTACKS:
        return ATTACKS[name]
    known = attacks()
    if name not in known:
        raise ValueError(
            f"Unknown attack {name!r}: choose one of {', '.join(sorted(known))}, or give "
            "path/to/file.py:function."
        )
    return known[name]
