"""Faults planted in a test copy of the trainer: which check of the audit catches each.

Every check is a direct test of the run or a bound of epsilon.  Direct tests catch all faults
with a few hundred canaries and some forty steps; bounds of epsilon, which suppose less, catch the
gross ones.  What a bound cannot see here is said with the number of canaries that it would take.
"""

from functools import cache, partial

import helpers_faults as faults
import numpy as np
import pytest
from helpers_data import blobs
from scipy import stats

from mico_competition.audit.claims import PrivacyClaim
from mico_competition.audit.mechanism_curve import METHOD, mechanism_curve
from mico_competition.audit.one_run import one_run_bound
from mico_competition.audit.trainer.audit import DIRAC, audit_trainer, claim_of_settings
from mico_competition.audit.trainer.canary_run import audit_set_of, run
from mico_competition.audit.trainer.checks import ALARM, NOTE, PASS
from mico_competition.audit.trainer.mechanism_tests import mechanism_checks
from mico_competition.audit.trainer.report import sentence
from mico_competition.audit.trainer.sampling_tests import check_sampling_unseen
from mico_competition.training import dpsgd, train
from mico_competition.training.accounting import Mechanism
from mico_competition.training.private_checks import PrivacyChecks
from mico_competition.training.settings import resolve
from mico_competition.training.train import mechanism_of


@pytest.fixture(scope="module", autouse=True)
def coarse():
    """Curves in steps of 5 %, not 1: bounds hold as before, are a little lower, and are quick."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mico_competition.audit.mechanism_curve._STRIDE", 0.05)
        yield


@cache
def settings_of(**flags):
    return resolve({"scenario": "digits_lo", "num_epochs": 10, **flags})


def audit(*, dirac=300, **changes):
    """The whole audit, with bounds of epsilon."""
    return audit_trainer(settings_of(), blobs(), dirac=dirac, records=24, seed=5, **changes)


def checks(*, settings=None, **changes):
    """Name -> check, of the direct tests alone, at the level they have in an audit."""
    settings = settings or settings_of()
    claim = claim_of_settings(settings)
    audit_set = audit_set_of(settings, blobs(), dirac=300, records=24, real=120, seed=5)
    seen = run(settings, audit_set, claim.mechanism, seed=5, **changes)
    return {check.name: check for check in mechanism_checks(seen, claim, 0.975)}


def names(found, verdict):
    return [name for name, check in found.items() if check.verdict == verdict]


def check_of(found, name):
    return next(check for check in found.checks if check.name == name)


def by(found, method):
    """Whether the bound of a method from gradient canaries raises the alarm."""
    return next(p.alarm for p in found.proofs if p.scores == DIRAC and p.bound.method == method)


@pytest.mark.slow
def test_halved_noise_is_caught_by_the_noise_and_by_epsilon():
    found = audit(make_trainer=faults.HalvedNoise)
    noise = check_of(found, "noise")
    sigma = mechanism_of(settings_of()).noise_multiplier
    assert noise.verdict == ALARM and noise.measured.value == pytest.approx(sigma / 2, rel=0.05)
    assert noise.detail["epsilon"] > 2 * found.claim.epsilon
    assert check_of(found, "epsilon, measured").verdict == ALARM
    assert by(found, METHOD), "300 canaries are enough for a bound above the claim"
    assert sentence(found).startswith("ALARM: the trainer does not meet digits_lo's claim")


@pytest.mark.slow
def test_the_real_trainer_passes_every_check():
    assert not names(checks(), ALARM) and not names(checks(), NOTE)


@pytest.mark.slow
def test_passes_in_bfloat16_keep_the_claim_and_a_trainer_that_breaks_it_is_caught(monkeypatch):
    """The replay rounds as the passes do; one record may move the sum no farther for that."""
    settings = settings_of(precision="bfloat16", num_epochs=4)
    found = checks(settings=settings)
    assert not names(found, ALARM) and not names(found, NOTE)
    right = dpsgd.clip_factors
    monkeypatch.setattr(dpsgd, "clip_factors", lambda norms, c: 1.02 * right(norms, c))
    monkeypatch.setattr(PrivacyChecks, "_check", lambda *_: None)
    assert "sensitivity" in names(checks(settings=settings), ALARM)


def test_a_layer_without_noise_is_caught_by_its_own_noise():
    found = checks(make_trainer=partial(faults.NoNoiseIn, layer="model.mlp.2"))
    alarms = names(found, ALARM)
    assert {"noise of mlp.2.weight", "noise of mlp.2.bias", "noise in every part"} <= set(alarms)
    assert "noise" not in alarms and "noise of mlp.0.weight" not in alarms


@pytest.mark.slow
@pytest.mark.parametrize("layer", ["mlp.0", "mlp.2"])
def test_an_unclipped_layer_is_caught_by_that_layers_sum(layer):
    found = checks(make_trainer=partial(faults.UnclippedLayer, layer=f"model.{layer}"))
    clipping = found[f"clipping of {layer}"]
    assert clipping.verdict == ALARM and clipping.measured.low > 5
    assert found[f"noise of {layer}.weight"].verdict == ALARM
    assert found["sensitivity"].verdict == ALARM and found["sensitivity"].measured.value > 1.01
    # Gradient canaries have nothing in that layer: they alone would have seen nothing.
    assert found["clipping"].verdict == PASS


@pytest.mark.slow
def test_an_unclipped_layer_of_canaries_is_caught_by_clipping_and_by_epsilon():
    found = audit(make_trainer=partial(faults.UnclippedLayer, layer="weights"), dirac=1000)
    assert check_of(found, "clipping").measured.value == pytest.approx(1000, rel=0.01)
    assert by(found, METHOD) and by(found, "one-run f-DP")
    # Supposing nothing, half of the canaries guessed, all right, come near the claim at the
    # level where all bounds hold at once; as many as 4,000 canaries give are enough.
    one_run = next(p for p in found.proofs if p.bound.method == "one-run")
    assert one_run.joint.detail["right"] == one_run.joint.detail["guesses"] == 500
    assert one_run.joint.epsilon > 0.9 * found.claim.epsilon
    truth = np.arange(4000) < 2000
    more = one_run_bound(truth, truth * 1.0, delta=1e-5, level=one_run.joint.level)
    assert more.epsilon > found.claim.epsilon


@pytest.mark.slow
def test_a_sum_divided_before_clipping_is_caught_by_what_a_canary_moves():
    """A canary in a batch of k moves the mean's clipped sum by C L / sqrt(k), not by C."""
    found = audit(make_trainer=faults.DividedBeforeClipping)
    clipping = check_of(found, "clipping")
    assert clipping.verdict == ALARM and clipping.measured.low > 3
    assert by(found, METHOD)


@pytest.mark.slow
def test_noise_for_each_physical_batch_is_noted_but_is_no_alarm():
    settings = settings_of(max_physical_batch_size=32)
    found = checks(settings=settings, make_trainer=faults.NoisePerPhysicalBatch)
    noise = found["noise"]
    assert "physical batch" in noise.says
    assert noise.measured.low > 1.3 * noise.claimed
    parameters = (f"noise of mlp.{layer}.{kind}" for layer in (0, 2) for kind in ("weight", "bias"))
    assert {"noise", *parameters, "clipped sums"} >= set(names(found, NOTE)) > {"noise"}
    assert not names(found, ALARM)


@pytest.mark.slow
def test_shuffled_batches_are_caught_by_who_is_in_a_batch():
    found = checks(epoch=faults.shuffled)
    assert names(found, ALARM) == [
        *("sampling", "batch lengths", "records alike", "records together", "small sets")
    ]
    assert found["sampling"].measured.value == 0


@pytest.mark.slow
def test_shuffled_batches_are_seen_in_noisy_gradients_of_as_many_canaries_as_called_for():
    """At epsilon 4 it takes thousands more than there are; with less noise a few hundred do."""
    settings, level = settings_of(), 0.99
    audit_set = audit_set_of(settings, blobs(), dirac=400, records=0, real=100, seed=1)
    for sigma, enough in ((mechanism_of(settings).noise_multiplier, False), (0.3, True)):
        told = Mechanism(sigma, settings.sample_rate, settings.num_steps)
        for epoch, verdict in (
            (train.epoch_of, PASS),
            (faults.shuffled, ALARM if enough else PASS),
        ):
            seen = run(settings, audit_set, told, seed=2, epoch=epoch, replay_steps=0)
            check = check_sampling_unseen(seen, told, level)
            assert check.verdict == verdict, (sigma, epoch)
            assert (check.detail["canaries_needed"] <= 400) == enough
            said = f"it takes {check.detail['canaries_needed']:,.0f} canaries"
            assert (said in check.says) != enough


@pytest.mark.slow
def test_batches_of_a_fixed_length_are_caught_by_their_lengths():
    found = names(checks(epoch=faults.fixed_length), ALARM)
    assert found == ["batch lengths", "small sets"]


@pytest.mark.slow
def test_records_too_often_in_batches_are_caught_by_the_rate():
    assert "sample rate" in names(checks(epoch=faults.oversampled), ALARM)


@pytest.mark.slow
def test_two_steps_a_batch_are_caught_by_their_number_and_their_epsilon():
    found = checks(make_trainer=faults.TwoStepsABatch)
    assert {"steps", "epsilon"} <= set(names(found, ALARM))


def wrong_delta(**changes):
    """The noise of delta 1e-3, and the claim of 1e-5."""
    settings = settings_of()
    told = claim_of_settings(settings)
    run = faults.mechanism_for_delta(settings, 1e-3)
    return audit(claim=PrivacyClaim(told.epsilon, told.delta, run), **changes)


@pytest.mark.slow
def test_the_epsilon_of_another_delta_is_caught_by_accounting_again():
    epsilon = check_of(wrong_delta(replay_steps=0), "epsilon")
    assert epsilon.verdict == ALARM and epsilon.measured.value > 5.5


@pytest.mark.slow
def test_how_many_canaries_show_the_epsilon_of_another_delta_by_attack():
    """The bound by the mechanism's own curve, with rates as they are expected to be.

    Rates of so many canaries are normal; the number is for 0.9 of audits to find more than is
    claimed, at the best FPR.  The bound is a little lower than that: its curve holds in both
    directions, and its FPR is planned.
    """
    settings = settings_of()
    told, real = mechanism_of(settings), faults.mechanism_for_delta(settings, 1e-3)
    curve, fpr = mechanism_curve(told), np.linspace(0.02, 0.6, 59)
    strength = told.noise_multiplier / real.noise_multiplier
    told_tpr, real_tpr = (np.array([curve.tpr(s, f) for f in fpr]) for s in (1.0, strength))
    slope = np.gradient(told_tpr, fpr)
    errors = np.sqrt([real_tpr * (1 - real_tpr), slope**2 * fpr * (1 - fpr)])
    few = wrong_delta(replay_steps=0)
    level = next(p.joint.level for p in few.proofs if p.bound.method == METHOD)
    reach = stats.norm.ppf((1 + level) / 2) * errors.sum(0)
    reach += stats.norm.ppf(0.9) * np.hypot(*errors)
    needed = int((2 * (reach / (real_tpr - told_tpr)) ** 2).min())
    assert 2000 < needed < 4000, f"{needed} canaries"
    assert not by(few, METHOD)
    assert by(wrong_delta(dirac=2 * needed, replay_steps=0), METHOD)
