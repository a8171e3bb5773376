"""Direct tests of distributions, of dependence, and of exact equality.

Tests of distributions and dependence give p-values, each compared with its share of the audit's
level. Tests of equality involve no randomness: what released gradients hold besides noise, how
weights move, how far one record moves the sum, and that empty batches are steps, too.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy import stats

from mico_competition.audit.trainer import draw_tests, noise_tests
from mico_competition.audit.trainer.canary_run import Observed
from mico_competition.audit.trainer.checks import ALARM, NOTE, PASS, Check, Measured, exactly
from mico_competition.audit.trainer.noise_tests import Finding, Worst
from mico_competition.audit.trainer.probes import farthest
from mico_competition.audit.trainer.recording import Sums
from mico_competition.training.accounting import Mechanism

INDEPENDENCE = 12
"""How many checks of `independence_checks` share the level, at most."""

_SEED = 0  # seed of the choice of numbers to test
_AGAIN = 0.5  # relative to the noise's norm; a larger difference means other noise, not another sum


def independence_checks(
    seen: Observed, mechanism: Mechanism, level: float, *, above: bool
) -> Iterator[Check]:
    """Checks by p-value, INDEPENDENCE of them at most.

    Args:
        seen: the run.
        mechanism: as claimed.
        level: of each check.
        above: whether there is more noise than claimed, which another check reports: then rows of
            noise are standardised before these tests.
    """
    q, rows = mechanism.sample_rate, seen.rows
    rng = np.random.default_rng(_SEED)

    def check(name: str, found: Finding) -> Check:
        striking = found.p < 1 - level
        says = f"{found.says if striking else found.else_says} (p = {found.p:.2g})"
        measured = Measured(found.p, found.p, found.p, level)
        return Check(name, ALARM if striking else PASS, says, 1 - level, measured)

    yield check("noise in every step", least_noise(seen))
    if len(seen.coordinates):
        yield check("noise over all steps", over_all_steps(seen.coordinates, standardised=above))
    if len(rows):
        z = noise_tests.matrix_of(rows, standardised=above)
        yield check("noise in every part", noise_tests.too_little(rows))
        yield check("distribution of noise", noise_tests.distribution(rows, z, rng))
        yield check("noise across steps", noise_tests.across_steps(rows, z))
        yield check("noise within a step", noise_tests.within_a_step(rows, z))
        yield check("noise across parameters", noise_tests.across_parameters(rows, z))
        yield check("dimensions of noise", noise_tests.spectrum(rows, z, seen.shapes))
    if len(seen.empty.rows):
        yield check("noise of empty batches", noise_tests.too_little(seen.empty.rows))
    yield check("records alike", draw_tests.alike(seen.participation, q))
    yield check("records together", draw_tests.together(seen.participation, q, rng))
    per_epoch = seen.participation.epoch_steps
    yield check("small sets", draw_tests.of_small_sets(seen.draw, per_epoch, q))


def least_noise(seen: Observed) -> Finding:
    """Whether each parameter has, in every step, at least the squares that noise alone has.

    Adding anything to independent noise only increases its squares (the non-central chi-square
    grows with its centre).
    """
    found = Worst("every parameter has noise in every step")
    sizes = {name: int(np.prod(shape)) for name, shape in seen.shapes.items()}
    for name, squares in seen.least.items():
        size = sizes.get(name, seen.dirac_each)
        p = stats.chi2.cdf(np.array(squares), size)
        if len(p):
            step = int(p.argmin()) // len(seen.sets)
            found.see(p, f"{name} has too little noise in step {step:,}")
    return found.finding()


def over_all_steps(coordinates: np.ndarray, *, standardised: bool) -> Finding:
    """Whether canaries' noise is correlated between steps or between models."""
    found = Worst("canaries' noise of no two steps or models is correlated")
    steps, models, count = coordinates.shape
    few = max(1, min(count, int(4e10 // (steps * models) ** 2)))
    z = coordinates[:, :, :few].reshape(steps * models, few)
    if standardised:
        z = z / np.sqrt(np.mean(np.square(z), axis=1, keepdims=True))
    labels = [f"step {i // models:,} of model {i % models}" for i in range(len(z))]
    noise_tests.resemblance(found, z, labels)
    return found.finding()


def exact_checks(seen: Observed) -> Iterator[Check]:
    """Checks without randomness."""
    yield _check("weights", not seen.unexplained, seen.unexplained or WEIGHTS)
    if len(seen.sums.wrong):
        yield _sums("clipped sums", seen.sums, np.ones(len(seen.sums.wrong), dtype=bool))
    empty = seen.empty
    says = f"{empty.steps:,} empty batches gave {empty.releases:,} noisy gradients"
    if empty.failed:
        says += f", and then an error: {empty.failed}"
    kept = not empty.failed and 0 < empty.steps == empty.releases
    yield _check("empty batches", kept, says)
    yield from _sensitivity(seen)
    probed = seen.probed
    yield _check("not a number", probed.not_a_number_kept, probed.not_a_number)
    distinct = len(set(seen.seeds)) == len(seen.seeds)
    says = "initialisation, batches and noise of several models have seeds of their own"
    yield _check("streams", distinct, says if distinct else "two random streams have the same seed")


WEIGHTS = "weights are moved by released gradients alone, to the last bit"


def _check(name: str, kept: bool, says: str) -> Check:
    return Check(name, PASS if kept else ALARM, says, 1.0, exactly(float(kept)))


def _sums(name: str, sums: Sums, which: np.ndarray) -> Check:
    """Whether released gradients are clipped sums plus noise, and nothing else."""
    wrong, noise = (np.array(values)[which] for values in (sums.wrong, sums.noise))
    over = wrong / np.maximum(sums.allowed()[which], 1e-30)
    if np.median(wrong / np.maximum(noise, 1e-30)) > _AGAIN:
        says = "the noise of a batch is not that of an empty one, drawn from the same stream"
        return Check(name, NOTE, says, 1.0, exactly(float(over.max())))
    at = int(over.argmax())
    says = "without their noise, released gradients are clipped sums to within rounding"
    if not over[at] <= 1:
        says = f"without its noise, a released gradient is {wrong[at]:.3g} C off its clipped sum"
    return Check(name, PASS if over[at] <= 1 else ALARM, says, 1.0, exactly(float(over[at])))


def _sensitivity(seen: Observed) -> Iterator[Check]:
    """How far one record moves a sum at most, for any gradient."""
    probed = seen.probed
    if probed.refused:
        yield _check("sensitivity", False, f"single records are refused: {probed.refused}")
        return
    if not len(probed.sums.length):
        return
    sums = _sums("sums of few", probed.sums, probed.regular)
    if sums.verdict == NOTE:
        yield sums
        return
    length = np.array(probed.sums.length)
    most, too_far = farthest(length, probed.sums.allowed_length(), probed.single)
    says = f"a single record, all-zero or very long, moves the sum by {most:.4g} C at most"
    verdict = ALARM if too_far else PASS
    yield Check("sensitivity", verdict, says, 1.0, exactly(most))
    yield sums
