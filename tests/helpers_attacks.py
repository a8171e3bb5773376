"""Simulated fleets of models, and attacks written as the plain loops of their papers."""

from dataclasses import dataclass

import numpy as np
from mico_competition.scoring import tpr_at_most_fpr
from scipy import stats


@dataclass
class Fleet:
    """Gaussian signals: point means and shifts vary, models add noise."""

    target: np.ndarray  # [targets, points]
    solution: np.ndarray  # bool[targets, points]
    shadow: np.ndarray  # [models, points]
    is_member: np.ndarray  # bool[models, points]


def fleet(
    seed=0, models=60, targets=20, points=400, shift=1.0, shift_sd=0.5, share_in=0.5, noise_sd=0.3
):
    """signal = point mean + noise of the point's own size + (its own shift where a member)."""
    rng = np.random.default_rng(seed)
    mean = 2 * rng.normal(size=points)
    sd = np.exp(noise_sd * rng.normal(size=points))
    gain = shift + shift_sd * rng.normal(size=points)

    def signals(is_member):
        return mean + sd * (rng.normal(size=is_member.shape) + gain * is_member)

    is_member = rng.random((models, points)) < share_in
    solution = rng.random((targets, points)) < 0.5
    return Fleet(signals(solution), solution, signals(is_member), is_member)


def tpr(scores, solution, at=0.1):
    """TPR at a false positive rate of at most `at`, all models pooled."""
    labels = np.asarray(solution).ravel().astype(int)
    return tpr_at_most_fpr(labels, np.asarray(scores).ravel(), at)


def two_of_each(seed=0, models=12, points=30):
    """A mask with at least two IN and two OUT shadows at every point, and signals."""
    rng = np.random.default_rng(seed)
    is_member = rng.random((models, points)) < 0.5
    is_member[:2], is_member[2:4] = True, False
    shadow = rng.normal(size=(models, points)) * rng.uniform(0.5, 2, points) + is_member
    return rng.normal(size=points), shadow, is_member


def naive_lira(target, shadow, is_member, online=True, variance="point"):
    """A loop over points with scipy's normal, as the published programs have it."""
    points = range(len(target))
    inside = [shadow[is_member[:, j], j] for j in points]
    outside = [shadow[~is_member[:, j], j] for j in points]
    if variance == "raw_global":
        sd_in, sd_out = (np.std(np.concatenate(group)) for group in (inside, outside))
    scores = []
    for j in points:
        if variance == "point":
            sd_in, sd_out = np.std(inside[j]), np.std(outside[j])
        if online:
            score = stats.norm.logpdf(target[j], np.mean(inside[j]), sd_in)
            score -= stats.norm.logpdf(target[j], np.mean(outside[j]), sd_out)
        else:
            score = stats.norm.ppf(stats.norm.cdf(target[j], np.mean(outside[j]), sd_out))
        scores.append(score)
    return np.array(scores)


def naive_bavaria(target, shadow, is_member, nu0, kappa0, var_in, var_out, shift):
    """Normal-inverse-gamma posteriors point by point (Murphy 2007), scipy's Student t."""
    scores = []
    for j, s in enumerate(target):
        groups = shadow[is_member[:, j], j], shadow[~is_member[:, j], j]
        priors = groups[1].mean() + shift, groups[0].mean() - shift
        densities = []
        for x, prior, var0 in zip(groups, priors, (var_in, var_out)):
            n, kappa = len(x), kappa0 + len(x)
            centre = (kappa0 * prior + n * x.mean()) / kappa
            alpha, beta = (nu0 + n) / 2, nu0 * var0 / 2 + ((x - x.mean()) ** 2).sum() / 2
            beta += kappa0 * n * (x.mean() - prior) ** 2 / (2 * kappa)
            scale = np.sqrt(beta * (kappa + 1) / (alpha * kappa))
            densities.append(stats.t.logpdf(s, 2 * alpha, centre, scale))
        scores.append(densities[0] - densities[1])
    return np.array(scores)


def naive_rmia(target, shadow, is_member, target_z, shadow_z, gamma, a, online):
    """All pairs of points, one by one."""
    prior_z = ((1 + a) * shadow_z.mean(axis=0) + 1 - a) / 2
    scores = []
    for j, p in enumerate(target):
        seen, unseen = shadow[is_member[:, j], j].mean(), shadow[~is_member[:, j], j].mean()
        prior = (seen + unseen) / 2 if online else ((1 + a) * unseen + 1 - a) / 2
        beaten = [(p / prior) / (q / prior_z[z]) >= gamma for z, q in enumerate(target_z)]
        scores.append(np.mean(beaten))
    return np.array(scores)


def naive_eb(target, shadow, is_member, bins, nu0=20):
    """The empirical-Bayes ratio, record by record, from docs/METHODS.md, section 4.9."""
    models, points = shadow.shape
    ma = shadow.mean(axis=0)
    ins = [shadow[is_member[:, j], j] for j in range(points)]
    outs = [shadow[~is_member[:, j], j] for j in range(points)]
    vd = np.array([1 / len(i) + 1 / len(o) for i, o in zip(ins, outs)])
    ss = np.array(
        [((i - i.mean()) ** 2).sum() + ((o - o.mean()) ** 2).sum() for i, o in zip(ins, outs)]
    )
    sd, dh = np.empty(points), np.empty(points)
    learnt = []
    for part in np.array_split(np.argsort(ma, kind="stable"), bins):
        vp = ss[part] / (models - 2)
        sd[part] = np.sqrt((nu0 * np.median(vp) + (models - 2) * vp) / (nu0 + models - 2))
        for j in part:
            dh[j] = (ins[j].mean() - outs[j].mean()) / sd[j]
        d0 = np.average(dh[part], weights=1 / vd[part])
        a = (1 / vd[part]) / (1 / vd[part]).sum()
        square = vd[part] * vp / sd[part] ** 2 * (1 + 2 / (nu0 + models - 2))
        excess = (dh[part] - d0) ** 2 - square
        t2 = np.average(excess, weights=a)
        errors = (a**2 * (vd[part] + max(t2, 0))).sum(), (a**2 * (excess - t2) ** 2).sum()
        logs = [
            np.log(ins[j].var(ddof=1))
            - np.log(outs[j].var(ddof=1))
            - naive_log_chi(len(ins[j]) - 1)
            + naive_log_chi(len(outs[j]) - 1)
            for j in part
        ]
        learnt.append((part, d0, t2, *errors, (1 / vd[part]).sum(), np.median(logs)))
    means, spreads = ({}, {})
    for column, shrunk in ((1, means), (2, spreads)):
        of, error = np.array([(bin_[column], bin_[column + 2]) for bin_ in learnt]).T
        weights = [bin_[5] for bin_ in learnt]
        overall = np.average(of, weights=weights)
        between = max(np.average((of - overall) ** 2 - error, weights=weights), 0)
        shrunk.update(enumerate(overall + between / (between + error) * (of - overall)))
    score = np.empty(points)
    for place, (part, *_, log_ratio) in enumerate(learnt):
        d0, t2 = means[place], max(spreads[place], 1e-4)
        for j in part:
            f = len(ins[j]) / models
            harmonic = 1 / (1 / (len(ins[j]) - 1) + 1 / (len(outs[j]) - 1))
            rho = np.exp(log_ratio * harmonic / (harmonic + 5))
            w = 1 / (1 / vd[j] + 1 / t2)
            dt = w * (dh[j] / vd[j] + d0 / t2)
            c = 1 / ((1 - f) + f * rho)
            u = (target[j] - ma[j]) / sd[j]
            var_out = (1 + 1 / models + f**2 * w) * c
            var_in = (1 + 1 / models + (1 - f) ** 2 * w) * c * rho
            score[j] = stats.norm.logpdf(u, (1 - f) * dt, np.sqrt(var_in))
            score[j] -= stats.norm.logpdf(u, -f * dt, np.sqrt(var_out))
    return score


def naive_log_chi(free):
    """The median of log(chi-squared / free), nearly."""
    return np.log((1 - 2 / (9 * free)) ** 3)
