"""The audit of a trainer as a whole: honest runs pass, bounds hold, reports say what was done."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from helpers_data import blobs
from scipy import stats

from mico_competition.audit.mechanism_curve import METHOD, mechanism_curve, mechanism_curve_bound
from mico_competition.audit.trainer.audit import audit_trainer
from mico_competition.audit.trainer.checks import (
    ALARM,
    NOTE,
    PASS,
    binomial_variance,
    deviation,
    normal,
)
from mico_competition.audit.trainer.observed import log_ratio
from mico_competition.audit.trainer.report import sentence, text, to_json
from mico_competition.audit.trainer.sampling_tests import POWER, canaries_for_sampling
from mico_competition.cli.audit_train import add_audit_train
from mico_competition.support.command_line import Parser, run_verb
from mico_competition.training.accounting import Mechanism
from mico_competition.training.accounting_check import pld_epsilon
from mico_competition.training.settings import resolve


def settings_of(**flags):
    return resolve({"scenario": "digits_lo", "num_epochs": 10, **flags})


@pytest.fixture(scope="module", autouse=True)
def coarse():
    """Curves in steps of 5 %, not 1: bounds hold as before, are a little lower, and are quick."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mico_competition.audit.mechanism_curve._STRIDE", 0.05)
        yield


@pytest.fixture(scope="module")
def honest():
    """An audit of the real trainer."""
    return audit_trainer(settings_of(), blobs(), dirac=1000, records=24, seed=3)


@pytest.mark.slow
def test_intervals_hold_as_often_as_they_say():
    rng = np.random.default_rng(1)
    runs, level = 4000, 0.9
    drawn = {
        "deviation": [
            (deviation(float(s), 30, level), 2.0)
            for s in (rng.normal(0, 2.0, (runs, 30)) ** 2).sum(1)
        ],
        "normal": [(normal(x, 0.3, level), 1.0) for x in rng.normal(1, 0.3, runs)],
        "binomial variance": [
            (binomial_variance(float(s), 200, 8, 0.25, level), 1.0)
            for s in ((rng.binomial(8, 0.25, (runs, 200)) - 2.0) ** 2).sum(1)
        ],
    }
    for name, found in drawn.items():
        held = np.mean([m.low <= truth <= m.high for m, truth in found])
        assert abs(held - level) < 5 * math.sqrt(level * (1 - level) / runs), (name, held)


def test_the_canaries_called_for_tell_shuffled_batches_as_often_as_said():
    told, epochs, level = Mechanism(2.0, 0.25, 40), 10, 0.99
    needed = canaries_for_sampling(told, epochs, level)
    count = int(needed / 2 * epochs)
    shuffled = 4.0 / (4.0 + 0.25 * 0.75)
    ratios = shuffled * np.random.default_rng(0).chisquare(count, 4000) / count
    few = stats.chi2.ppf((1 - level) / 2, count)
    caught = float(np.mean(ratios * count / few < 1))
    assert abs(caught - POWER) < 0.03
    assert canaries_for_sampling(replace(told, sample_rate=1.0), epochs, level) == math.inf


def simulated(told, canaries, strength, seed):
    """Coins, and scores of a mechanism whose noise is `strength` times less than told."""
    rng = np.random.default_rng(seed)
    truth, scores = rng.random(canaries) < 0.5, np.zeros(canaries)
    for _ in range(told.num_steps):
        x = told.noise_multiplier / strength * rng.standard_normal(canaries)
        x += truth & (rng.random(canaries) < told.sample_rate)
        scores += log_ratio(x, told)
    return truth, scores


@pytest.mark.slow
def test_the_own_curves_bound_holds_and_comes_near():
    told = Mechanism(6.0, 0.5, 100)
    epsilon = pld_epsilon(told, 1e-5)
    bounds = [
        mechanism_curve_bound(
            *simulated(told, 1500, 1.0, seed), told, delta=1e-5, level=0.8
        ).epsilon
        for seed in range(100)
    ]
    # The level is 0.8; more than 33 of 100 above the truth has a chance of 1e-3.
    assert sum(bound > epsilon for bound in bounds) <= 33
    assert np.median(bounds) > 0.6 * epsilon
    truth, scores = simulated(told, 3000, 2.0, 0)
    caught = mechanism_curve_bound(truth, scores, told, delta=1e-5)
    assert caught.epsilon > epsilon and 1.4 < caught.detail["strength"] <= 2


@pytest.mark.slow
def test_the_own_curve_is_the_mechanisms():
    told = Mechanism(6.0, 0.5, 100)
    curve = mechanism_curve(told)
    assert curve.tpr(0.0, 0.3) == 0.3 and curve.tpr(9.0, 0.3) == 1.0
    truth, scores = simulated(told, 200_000, 1.0, 5)
    for at in (-0.5, 0.0, 1.0):
        tpr, fpr = (float((scores[kind] > at).mean()) for kind in (truth, ~truth))
        # The envelope of both directions, rounded up: at most a little above the best test.
        assert tpr - 0.005 < curve.tpr(1.0, fpr) < tpr + 0.03
        assert curve.tpr(0.7, fpr) < tpr
        assert curve.fpr(1.0, curve.tpr(1.0, fpr)) == pytest.approx(fpr, abs=2e-3)
    assert curve.epsilon(1.0, 1e-5) == pytest.approx(pld_epsilon(told, 1e-5))


@pytest.mark.slow
def test_an_honest_trainer_raises_no_alarm(honest):
    assert not honest.alarms and not honest.notes
    assert all(check.verdict == PASS for check in honest.checks)
    names = {check.name for check in honest.checks}
    assert names == {
        *("noise", "clipping", "sample rate", "sampling", "batch lengths", "sampling, unseen"),
        *("clipping of mlp.0", "clipping of mlp.2"),
        *(f"noise of mlp.{layer}.{kind}" for layer in (0, 2) for kind in ("weight", "bias")),
        *("noise in every step", "noise over all steps", "noise in every part"),
        *("distribution of noise", "noise across steps", "noise within a step"),
        *("noise across parameters", "dimensions of noise", "noise of empty batches"),
        *(
            "records alike",
            "records together",
            "small sets",
            "weights",
            "clipped sums",
            "empty batches",
        ),
        *("sensitivity", "sums of few", "not a number", "streams"),
        *("steps", "epsilon", "epsilon, measured"),
    }
    assert honest.steps == 40 == honest.replayed
    for proof in honest.proofs:
        assert proof.joint.epsilon <= proof.bound.epsilon <= honest.claim.epsilon
    assert honest.proven(METHOD).epsilon > 0.45 * honest.claim.epsilon
    assert honest.proven("one-run").epsilon > 0.2 * honest.claim.epsilon


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 3, 4])
def test_no_false_alarm(seed):
    """Of seeds 0 to 25 one (2) raises an alarm; an honest trainer may do so in 5 % of audits."""
    settings = settings_of(max_physical_batch_size=50)
    audit = audit_trainer(settings, blobs(), dirac=300, records=21, seed=seed)
    assert not audit.alarms, sentence(audit)


@pytest.mark.slow
def test_the_report_says_what_was_done(honest):
    said = sentence(honest)
    assert "1,000 gradient canaries in 40 steps" in said and "epsilon 4.00 at delta 1e-05" in said
    lines = text(honest).splitlines()
    assert lines[0] == said and "as one run shows (a single model)" in said
    assert lines[1] == "Audited: a single model, by the code that a fleet runs."
    assert sum("record canaries in mlp.0" in line for line in lines) == 1
    whole = json.loads(to_json(honest))
    assert whole["alarm"] is False and whole["sentence"] == said
    (found,) = whole["audits"]
    assert found["alarm"] is False and found["steps"] == 40 and found["stack"] == 1
    both = [honest, replace(honest, stack=10)]
    assert "as 2 runs show (a single model and 10 models in a stack)" in sentence(both)
    alarmed = replace(honest.checks[0], verdict=ALARM)
    both[1] = replace(both[1], checks=[alarmed])
    assert sentence(both).endswith(": noise (10 models in a stack).")
    assert found["gradient_canaries"]["all"] == 1000
    of_own = next(row for row in found["bounds"] if row["method"] == METHOD)
    assert of_own["ratio"] == pytest.approx(of_own["epsilon"] / found["promised"]["epsilon"])
    assert {row["scores"] for row in found["bounds"]} == {
        "gradient canaries",
        *(f"record canaries in {layer}" for layer in ("mlp.0", "mlp.2", "all layers")),
        "loss of record canaries",
    }


@pytest.mark.slow
def test_a_departure_at_no_loss_of_privacy_is_told_in_the_first_sentence(honest):
    noted = replace(honest, checks=[replace(honest.checks[0], verdict=NOTE), *honest.checks[1:]])
    assert noted.notes == ["noise"] and not noted.alarms
    assert sentence(noted).endswith(
        "; it departs from the settings, without loss of privacy: noise."
    )


@pytest.mark.slow
def test_more_replays_than_memory_holds_are_refused(monkeypatch):
    monkeypatch.setattr("mico_competition.audit.trainer.canary_run._MOST_ROW_NUMBERS", 1e6)
    with pytest.raises(ValueError, match="Expected replay_steps=60 <= 51: the noise of more steps"):
        audit_trainer(settings_of(num_epochs=20), blobs(), dirac=100, replay_steps=60)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_audit(honest):
    again = audit_trainer(settings_of(), blobs(), dirac=1000, records=24, seed=3)
    first, second = (json.loads(to_json(audit))["audits"][0] for audit in (honest, again))
    assert {**first, "seconds": 0} == {**second, "seconds": 0}


@pytest.mark.slow
def test_in_secure_mode_and_without_replay_or_record_canaries():
    audit = audit_trainer(
        settings_of(secure_mode=True), blobs(), dirac=200, records=0, replay_steps=0, seed=1
    )
    assert audit.replayed == 0 and not audit.alarms
    assert len(audit.proofs) == 4


def command(*argv):
    parser = Parser(prog="mico audit-train", allow_abbrev=False)
    add_audit_train(parser)
    return run_verb(parser.parse_args(list(map(str, argv))))


@pytest.mark.slow
def test_the_command_prints_a_verdict_and_writes_a_file(tmp_path, capsys):
    path = tmp_path / "audit.json"
    options = ("--num_epochs", 10, "--canaries", 100, "--record_canaries", 20, "--seed", 1)
    assert command("digits_lo", *options, "--json", path) == 0
    out = capsys.readouterr().out
    assert out.startswith("The trainer meets digits_lo's claim of epsilon 4.00")
    found = json.loads(path.read_text())
    assert found["sentence"] == out.splitlines()[0]
    assert [audit["stack"] for audit in found["audits"]] == [10, 1]
    assert "Audited: 10 models in a stack, by the code that a fleet runs." in out


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["digits_inf"], "Scenario digits_inf trains without privacy and claims no epsilon"),
        (["nothing"], "Unknown scenario 'nothing'"),
        (["digits_lo", "--canaries", 20], "Expected canaries=20 >= 100"),
        (["digits_lo", "--record_canaries", -1], "Expected record_canaries=-1 >= 0"),
        (["digits_lo", "--real_records", 1797], "Expected real_records=1797 from 1 to 1796"),
        (["digits_lo", "--replay_steps", -1], "Expected replay_steps=-1 >= 0"),
        (["digits_lo", "--level", 1], "Expected level=1.0 in (0, 1)"),
    ],
)
def test_bad_input_is_one_sentence(argv, message, capsys):
    assert command(*argv) == (2 if argv == ["nothing"] else 1)
    said = capsys.readouterr().err.splitlines()
    assert message in said[-1]
    assert all("so far" in line for line in said[:-1])  # progress, on a slow machine
