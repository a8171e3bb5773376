"""What each peer is asked, in the environment in which it is installed (see peers.py).

    python benchmarks/peers_adapters.py NAME ARRAYS.npz FOUND.json

reads the arrays that every peer gets, and writes scores of attacks, lower bounds on epsilon, and
the seconds of CPU time that they took.  The formulas of papers are here too, in a few lines of
numpy and scipy that share no code with the package.
"""

from __future__ import annotations

import json
import logging
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

DELTA, LEVEL = 1e-5, 0.95
Arrays = dict[str, np.ndarray]
Bound = Callable[[np.ndarray, np.ndarray], float]


def lira_paper(a: Arrays) -> dict[str, np.ndarray]:
    """Carlini et al. 2022: online with a variance a record, and offline (their 1 - Pr[Z > s])."""
    from scipy.stats import norm

    seen = np.where(a["member"], a["shadow_logit"], np.nan)
    unseen = np.where(a["member"], np.nan, a["shadow_logit"])
    mean_in, mean_out = np.nanmean(seen, axis=0), np.nanmean(unseen, axis=0)
    sd_in, sd_out = np.nanstd(seen, axis=0), np.nanstd(unseen, axis=0)
    s = a["target_logit"]
    return {
        "LiRA online": norm.logpdf(s, mean_in, sd_in) - norm.logpdf(s, mean_out, sd_out),
        "LiRA offline": (s - mean_out) / sd_out,
    }


def rmia_paper(a: Arrays) -> dict[str, np.ndarray]:
    """Zarifzadeh et al. 2024, online, gamma 1: the records themselves are the population."""
    seen = np.where(a["member"], a["shadow_p"], np.nan)
    unseen = np.where(a["member"], np.nan, a["shadow_p"])
    prior = (np.nanmean(seen, axis=0) + np.nanmean(unseen, axis=0)) / 2
    ratio = a["target_p"] / prior
    return {"RMIA online": np.mean(ratio[:, :, None] >= ratio[:, None, :], axis=2)}


def paper(a: Arrays) -> tuple[dict[str, Any], dict[str, Bound]]:
    """The formulas of the papers."""
    return {"LiRA online": lambda: lira_paper(a), "RMIA online": lambda: rmia_paper(a)}, {}


def ours(a: Arrays) -> tuple[dict[str, Any], dict[str, Bound]]:
    """This package."""
    from mico_competition.attacks import lira, rmia
    from mico_competition.audit.gaussian import gaussian_bound
    from mico_competition.audit.one_run import one_run_bound
    from mico_competition.audit.one_run_fdp import one_run_fdp_bound
    from mico_competition.audit.threshold import threshold_bound

    def bound(function: Any) -> Bound:
        return lambda truth, scores: function(truth, scores, delta=DELTA, level=LEVEL).epsilon

    logit = a["target_logit"], a["shadow_logit"], a["member"]
    attacks = {
        "LiRA online": lambda: {"LiRA online": lira(*logit)},
        "LiRA offline": lambda: {"LiRA offline": lira(*logit, online=False)},
        "RMIA online": lambda: {"RMIA online": rmia(a["target_p"], a["shadow_p"], a["member"])},
    }
    bounds = {
        "threshold (Clopper-Pearson)": bound(threshold_bound),
        "one-run": bound(one_run_bound),
        "one-run f-DP": bound(one_run_fdp_bound),
        "Gaussian": bound(gaussian_bound),
    }
    return attacks, bounds


def jax_privacy(a: Arrays) -> tuple[dict[str, Any], dict[str, Bound]]:
    """Lower bounds of jax_privacy.auditing."""
    from jax_privacy.auditing import CanaryScoreAuditor

    def bound(name: str) -> Bound:
        def found(truth: np.ndarray, scores: np.ndarray) -> float:
            auditor = CanaryScoreAuditor(scores[truth], scores[~truth])
            return float(getattr(auditor, name)(significance=1 - LEVEL, delta=DELTA))

        return found

    return {}, {
        "threshold (Clopper-Pearson)": bound("epsilon_clopper_pearson"),
        "one-run": bound("epsilon_one_run"),
        "one-run f-DP": bound("epsilon_one_run_fdp"),
        "Gaussian": bound("epsilon_from_gdp"),
    }


def opake(a: Arrays) -> tuple[dict[str, Any], dict[str, Bound]]:
    """Lower bounds of opake.auditing, from one run."""
    from opake.auditing import canary_scores, one_run
    from opake.auditing.types import CoinFlip

    def estimate(truth: np.ndarray, scores: np.ndarray) -> Any:
        every = np.arange(truth.size)
        coins = CoinFlip(truth.size, every, truth, every[truth], every[~truth], truth.size)
        return one_run(canary_scores(scores, canary_indices=every), coin_flip=coins)

    def plain(truth: np.ndarray, scores: np.ndarray) -> float:
        found = estimate(truth, scores).eps_delta()
        return float(found.epsilon_at(delta=DELTA, significance=1 - LEVEL))

    # `gdp()`, its bound for Gaussian mechanisms, takes 8 seconds of CPU time a call.
    return {}, {"one-run": plain}


def privacyguard(a: Arrays) -> tuple[dict[str, Any], dict[str, Bound]]:
    """PrivacyGuard: LiRA and RMIA on frames, and its empirical epsilon."""
    import pandas as pd
    import torch
    from privacy_guard.analysis.mia.aggregate_analysis_input import AggregationType
    from privacy_guard.analysis.mia.mia_results import MIAResults
    from privacy_guard.attacks.lira_attack import LiraAttack
    from privacy_guard.attacks.rmia_attack import RmiaAttack

    none = AggregationType.NONE
    logging.disable(logging.CRITICAL)

    def scores_of(attack: Any, truth: np.ndarray) -> np.ndarray:
        """The scores of all records, in their order."""
        attacked = attack.run_attack()
        found = np.full(truth.size, np.nan)
        for frame in (attacked.df_train_merge, attacked.df_test_merge):
            found[frame["user_id"].to_numpy()] = frame["score"].to_numpy()
        return found

    def lira() -> dict[str, np.ndarray]:
        seen = np.where(a["member"], a["shadow_logit"], np.nan)
        unseen = np.where(a["member"], np.nan, a["shadow_logit"])
        found = []
        for target, truth in zip(a["target_logit"], a["truth"]):
            frame = pd.DataFrame(
                {
                    "user_id": np.arange(truth.size),
                    "score_orig": target,
                    "score_mean_in": np.nanmean(seen, axis=0),
                    "score_std_in": np.nanstd(seen, axis=0),
                    "score_mean_out": np.nanmean(unseen, axis=0),
                    "score_std_out": np.nanstd(unseen, axis=0),
                }
            )
            attack = LiraAttack(frame[truth].copy(), frame[~truth].copy(), none, online_attack=True)
            found.append(scores_of(attack, truth))
        return {"LiRA online": np.array(found)}

    def rmia() -> dict[str, np.ndarray]:
        found = []
        for target, truth in zip(a["target_p"], a["truth"]):
            columns = {"user_id": np.arange(truth.size), "score_orig": target}
            columns |= {f"score_ref_{i}": row for i, row in enumerate(a["shadow_p"])}
            columns |= {f"member_ref_{i}": row for i, row in enumerate(a["member"])}
            frame = pd.DataFrame(columns)
            every = len(a["member"])
            attack = RmiaAttack(frame[truth], frame[~truth], frame, none, every, online=True)
            found.append(scores_of(attack, truth))
        return {"RMIA online": np.array(found)}

    def clopper_pearson(truth: np.ndarray, scores: np.ndarray) -> float:
        results = MIAResults(torch.from_numpy(scores[truth]), torch.from_numpy(scores[~truth]))
        return float(results.compute_acc_auc_ci_epsilon(DELTA)[2])

    bounds = {"threshold (Clopper-Pearson)": clopper_pearson}
    return {"LiRA online": lira, "RMIA online": rmia}, bounds


def art(a: Arrays) -> tuple[dict[str, Any], dict[str, Bound]]:
    """ART's learned black-box attack, trained on 20,000 outputs of the shadow models."""
    from art.attacks.inference.membership_inference import MembershipInferenceBlackBox
    from art.estimators.classification import BlackBoxClassifier

    def forest() -> dict[str, np.ndarray]:
        classes = a["shadow_outputs"].shape[2]
        labels = a["labels"]
        model = BlackBoxClassifier(lambda x: x, (classes,), classes)
        attack = MembershipInferenceBlackBox(model, attack_model_type="rf")
        seen, unseen = np.nonzero(a["member"]), np.nonzero(~a["member"])
        rng = np.random.default_rng(0)
        size = min(10_000, seen[0].size, unseen[0].size)
        rows = [rng.choice(kind[0].size, size, replace=False) for kind in (seen, unseen)]
        chosen = [(k[0][row], k[1][row]) for k, row in zip((seen, unseen), rows)]
        attack.fit(
            y=labels[chosen[0][1]],
            test_y=labels[chosen[1][1]],
            pred=a["shadow_outputs"][chosen[0]],
            test_pred=a["shadow_outputs"][chosen[1]],
        )
        found = [
            attack.infer(None, labels, pred=outputs, probabilities=True).reshape(labels.size, -1)
            for outputs in a["target_outputs"]
        ]
        return {"learned black box": np.array([scores[:, -1] for scores in found])}

    return {"learned black box": forest}, {}


ADAPTERS = {f.__name__: f for f in (paper, ours, jax_privacy, opake, privacyguard, art)}


def main(name: str, arrays: str, out: str) -> None:
    """Ask one peer everything that it can do."""
    warnings.simplefilter("ignore")
    a = dict(np.load(arrays))
    attacks, bounds = ADAPTERS[name](a)
    scores: dict[str, Any] = {}
    seconds: dict[str, float] = {}
    for kind, attack in attacks.items():
        taken = []
        for _ in range(1 if name == "art" else 5):
            start = time.process_time()
            found = attack()
            taken.append(time.process_time() - start)
        scores |= found
        seconds[kind] = float(np.median(taken))
    epsilons: dict[str, dict[str, list[float]]] = {}
    for kind, bound in bounds.items():
        taken, epsilons[kind] = [], {}
        for mechanism in map(str, a["mechanisms"]):
            rows = list(zip(a[f"{mechanism}_truth"], a[f"{mechanism}_scores"]))
            epsilons[kind][mechanism] = []
            for truth, values in rows[: int(a["few"]) if (name, kind) in SLOW else None]:
                start = time.process_time()
                epsilons[kind][mechanism].append(bound(truth, values.astype(float)))
                taken.append(time.process_time() - start)
        seconds[kind] = float(np.median(taken))
        print(f"{name}, {kind}: {seconds[kind]:.4f} s", flush=True)
    np.savez(f"{out}.npz", **scores)
    with open(out, "w", encoding="utf-8") as file:
        json.dump({"seconds": seconds, "epsilons": epsilons}, file)


SLOW = (
    ("jax_privacy", "one-run f-DP"),
    ("privacyguard", "threshold (Clopper-Pearson)"),
)
"""Bounds of which a share of the repetitions is run."""

if __name__ == "__main__":
    main(*sys.argv[1:])
