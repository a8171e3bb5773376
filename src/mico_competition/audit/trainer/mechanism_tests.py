"""Direct tests of a training run's mechanism: noise, clipping, sampling, steps, accounting.

These tests check one number each; `independence` has those of distributions and exact equality.

Each compares a number of the run with what was claimed. An **alarm** means less noise, more
influence or other batches than claimed, or an epsilon below that of the mechanism. A **note** is a
departure that costs accuracy, not privacy. These tests are more sensitive than any attack on a run
of this size: a bound on epsilon needs thousands of canaries to come near the claim, but 5,000
numbers determine a standard deviation to a percent, and a run has millions.

The mathematics is in docs/METHODS.md, section 10.2 (formula 86).
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from scipy import stats

from mico_competition.audit.claims import PrivacyClaim
from mico_competition.audit.trainer.canary_run import Observed
from mico_competition.audit.trainer.checks import (
    ALARM,
    NOTE,
    PASS,
    ROUNDING,
    Check,
    Measured,
    deviation,
    exactly,
    normal,
)
from mico_competition.audit.trainer.independence import (
    INDEPENDENCE,
    exact_checks,
    independence_checks,
)
from mico_competition.audit.trainer.sampling_tests import (
    check_lengths,
    check_rate,
    check_sampling,
    check_sampling_unseen,
)
from mico_competition.training.accounting import Mechanism
from mico_competition.training.accounting_check import SEARCH_INTERVAL, pld_epsilon

_MOST_STRENGTH = 3.0  # with less noise than a third of the claimed, epsilon is reported as infinite


def mechanism_checks(seen: Observed, claim: PrivacyClaim, level: float) -> list[Check]:
    """All checks of a run; if the claim holds, all intervals hold jointly at `level`.

    Args:
        seen: the run.
        claim: epsilon, delta and mechanism.
        level: in (0, 1); each check takes an equal share of 1 - level (Bonferroni).
    """
    run = claim.mechanism
    layers = list(seen.replays[0].along) if seen.replayed else []
    parameters = list(seen.shapes) if seen.replayed else []
    each = 1 - (1 - level) / (5 + len(layers) + len(parameters) + INDEPENDENCE)
    noise, rate = check_noise(seen, claim, each), check_rate(seen, run, each)
    # More noise than claimed must not count as a stronger signal.
    sigma = max(run.noise_multiplier, noise.measured.high)
    clipping = check_clipping(seen, sigma, each)
    return [
        noise,
        clipping,
        *(check_layer_clipping(seen, layer, sigma, each) for layer in layers),
        *(check_parameter_noise(seen, name, claim, each) for name in parameters),
        rate,
        check_sampling(seen, run, each),
        check_lengths(seen, run, each),
        check_sampling_unseen(seen, run, each),
        *independence_checks(seen, run, each, above=noise.verdict == NOTE),
        *exact_checks(seen),
        check_steps(seen, claim),
        check_epsilon(seen, claim),
        check_measured_epsilon(noise, clipping, rate, seen.steps, claim),
    ]


def check_noise(seen: Observed, claim: PrivacyClaim, level: float) -> Check:
    """The standard deviation of the noise, from coordinates without any record's gradient."""
    run, sigma = claim.mechanism, claim.mechanism.noise_multiplier
    found = deviation(sum(seen.dirac.unused_squares), seen.dirac.unused * seen.steps, level)
    says = f"noise_multiplier is {found.value:.4g}, and {sigma:.4g} is claimed"
    if found.below(sigma):
        real = replace(run, noise_multiplier=found.value)
        spent = pld_epsilon(real, claim.delta, value_discretization_interval=SEARCH_INTERVAL)
        says += f": epsilon is {spent:.3g} with so little"
        return Check("noise", ALARM, says, sigma, found, {"epsilon": spent})
    if found.above(sigma):
        says += ": it costs accuracy, not privacy (is noise added for each physical batch?)"
        return Check("noise", NOTE, says, sigma, found)
    return Check("noise", PASS, says, sigma, found)


def check_clipping(seen: Observed, sigma: float, level: float) -> Check:
    """How far a gradient canary in a batch moves the noisy sum, over C.

    Args:
        seen: the run.
        sigma: an upper bound on the standard deviation of the noise.
        level: of the interval.
    """
    count = max(1, seen.dirac.touched)
    found = normal(seen.dirac.touched_sum / count, sigma / math.sqrt(count), level)
    return _amplitude("clipping", "a gradient canary", found)


def check_layer_clipping(seen: Observed, layer: str, sigma: float, level: float) -> Check:
    """The factor of the batch's clipped gradients in a layer's noisy sum."""
    length = max(sum(one.length[layer] for one in seen.replays), 1e-12)
    along = sum(one.along[layer] for one in seen.replays)
    found = normal(along / length, sigma / math.sqrt(length), level)
    return _amplitude(f"clipping of {layer}", f"a gradient in layer {layer}", found)


def _amplitude(name: str, what: str, found: Measured) -> Check:
    verdict = ALARM if found.above(1) else NOTE if found.below(1) else PASS
    says = f"{what} counts {found.value:.3f} times as much as clipped to max_grad_norm"
    return Check(name, verdict, says, 1.0, found)


def check_parameter_noise(seen: Observed, name: str, claim: PrivacyClaim, level: float) -> Check:
    """The difference between a parameter's noisy sum and the clipped gradients of its batch.

    Too small, it means less noise than claimed. Too large, it means that gradients were not
    clipped, unless coordinates without any record's gradient have as much in the same steps.
    """
    sigma, rows = claim.mechanism.noise_multiplier, seen.rows
    mine = np.array(rows.block_names) == name
    count = len(rows) * int(rows.block_sizes[mine].sum())
    squares = float(np.stack(rows.squares)[:, mine].sum()) * sigma**2
    found = deviation(squares, count, level)
    says = f"{name} has noise of {found.value:.4g}, and {sigma:.4g} is claimed"
    verdict = PASS
    if found.below(sigma):
        verdict = ALARM
    elif found.above(sigma):
        steps = [step for step in set(rows.step) if step < len(seen.dirac.unused_squares)]
        unused = max(1, seen.dirac.unused * len(steps))
        noise = math.sqrt(sum(seen.dirac.unused_squares[step] for step in steps) / unused)
        # The ratio of two deviations if both are of noise only (Snedecor's F).
        most = noise * math.sqrt(stats.f.ppf((1 + level) / 2, count, unused))
        verdict = ALARM if found.value > max(sigma, most) * (1 + ROUNDING) else NOTE
        if verdict == ALARM:
            says += ": it has more of its batch in it than clipped gradients"
    return Check(f"noise of {name}", verdict, says, sigma, found)


def check_steps(seen: Observed, claim: PrivacyClaim) -> Check:
    """The number of noisy gradients."""
    told = claim.mechanism.num_steps
    verdict = ALARM if seen.steps > told else NOTE if seen.steps < told else PASS
    says = f"{seen.steps:,} noisy gradients were seen, and {told:,} are claimed"
    return Check("steps", verdict, says, told, exactly(seen.steps))


def check_epsilon(seen: Observed, claim: PrivacyClaim) -> Check:
    """The claimed epsilon, against a second accountant's for the steps that ran."""
    run = replace(claim.mechanism, num_steps=max(1, seen.steps))
    spent = pld_epsilon(run, claim.delta)
    says = (
        f"reported noise, sampling and steps cost epsilon {spent:.4g} at delta {claim.delta:g}, "
        f"and {claim.epsilon:.4g} is claimed"
    )
    if claim.target is not None and claim.epsilon > claim.target:
        says += f" where the target is {claim.target:.4g}"
        return Check("epsilon", ALARM, says, claim.target, exactly(claim.epsilon))
    verdict = ALARM if spent > claim.epsilon else PASS
    return Check("epsilon", verdict, says, claim.epsilon, exactly(spent))


def check_measured_epsilon(
    noise: Check, clipping: Check, rate: Check, steps: int, claim: PrivacyClaim
) -> Check:
    """The epsilon of noise, clipping and sampling as measured, not as reported.

    It assumes a Poisson-subsampled Gaussian mechanism, and its interval is far shorter than any
    attack's: it is known to a percent if noise and sampling are.
    """

    def spent(sigma: float, norm: float, q: float) -> float:
        least = claim.mechanism.noise_multiplier / _MOST_STRENGTH
        if norm <= 0:
            return 0.0
        if sigma / norm < least:
            return math.inf
        run = Mechanism(sigma / norm, min(1.0, q), max(1, steps))
        return pld_epsilon(run, claim.delta, value_discretization_interval=SEARCH_INTERVAL)

    of, by, at = noise.measured, clipping.measured, rate.measured
    found = Measured(
        spent(of.value, by.value, at.value),
        spent(of.high, by.low, at.low),
        spent(of.low, by.high, at.high),
        of.level,
    )
    says = f"measured noise, clipping and sampling cost epsilon {found.value:.3g}"
    verdict = ALARM if found.low > claim.epsilon else PASS
    return Check("epsilon, measured", verdict, says, claim.epsilon, found)
