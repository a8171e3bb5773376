"""The formulas of papers, and the attack libraries among the peers, on the arrays that all get.

The formulas are a few lines of numpy and scipy that share no code with the package.  Each library
is called in its own environment, and gives scores [targets, records].
"""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
from peers_auditors import DELTA, LEVEL, Arrays, Bound


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
    loss = {"loss": a["target_p"]}
    lira, rmia = (lambda: lira_paper(a)), (lambda: rmia_paper(a))
    return {"loss": lambda: loss, "LiRA online": lira, "RMIA online": rmia}, {}


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


def tensorflow_privacy(a: Arrays) -> tuple[dict[str, Any], dict[str, Bound]]:
    """TensorFlow Privacy's tests of empirical privacy: LiRA, and its bound on a pure epsilon."""
    from tensorflow_privacy.privacy.privacy_tests import epsilon_lower_bound as elb
    from tensorflow_privacy.privacy.privacy_tests.membership_inference_attack import advanced_mia

    seen = [s[m][:, None] for s, m in zip(a["shadow_logit"].T, a["member"].T)]
    unseen = [s[~m][:, None] for s, m in zip(a["shadow_logit"].T, a["member"].T)]

    def lira(name: str, average: str) -> dict[str, np.ndarray]:
        """Small scores are members'."""
        found = [
            -advanced_mia.compute_score_lira(
                target[:, None], seen, unseen, option="both", median_or_mean=average
            )
            for target in a["target_logit"]
        ]
        return {name: np.array(found)}

    def clopper_pearson(truth: np.ndarray, scores: np.ndarray) -> float:
        bounds = elb.EpsilonLowerBound(scores[truth], scores[~truth], alpha=1 - LEVEL)
        method = elb.BoundMethod.CLOPPER_PEARSON
        return float(bounds.compute_epsilon_lower_bound(method, k=1)[0])

    medians = "LiRA online, medians"
    return {
        "LiRA online": lambda: lira("LiRA online", "mean"),
        medians: lambda: lira(medians, "median"),
    }, {"threshold, pure epsilon": clopper_pearson}


def privacy_meter(a: Arrays) -> tuple[dict[str, Any], dict[str, Bound]]:
    """privacy-meter's shadow metric: a logistic regression of the loss of shadow models."""
    from privacy_meter.dataset import Dataset
    from privacy_meter.information_source import InformationSource
    from privacy_meter.information_source_signal import ModelLoss
    from privacy_meter.metric import ShadowMetric
    from privacy_meter.model import Model

    class Recorded(Model):
        """A model whose losses are the data."""

        def get_loss(self, batch_samples: Any, batch_labels: Any, per_point: bool = True) -> Any:
            return batch_samples

        def get_logits(self, batch_samples: Any) -> None: ...
        def get_grad(self, batch_samples: Any, batch_labels: Any) -> None: ...
        def get_intermediate_outputs(self, layers: Any, batch_samples: Any) -> None: ...

    def source(losses: np.ndarray, members: np.ndarray) -> Any:
        """Models with their losses of members and of the others."""
        data = [
            Dataset(
                {"train": {"x": row[m], "y": m[m]}, "test": {"x": row[~m], "y": m[~m]}}, "x", "y"
            )
            for row, m in zip(losses, members)
        ]
        return InformationSource([Recorded(None, None) for _ in data], data)

    def shadow_metric() -> dict[str, np.ndarray]:
        shadows = source(-np.log(a["shadow_p"] + 1e-45), a["member"])
        found = np.empty(a["target_p"].shape)
        for scores, p, truth in zip(found, a["target_p"], a["truth"]):
            target = source(-np.log(p + 1e-45)[None], truth[None])
            metric = ShadowMetric(target, shadows, [ModelLoss()], None)
            metric.prepare_metric()
            chances = metric.run_metric().predictions_proba
            scores[truth], scores[~truth] = chances[: truth.sum()], chances[truth.sum() :]
        return {"loss, logistic regression": found}

    return {"loss, logistic regression": shadow_metric}, {}
