"""`mico audit`: what is proven and claimed, in words, as JSON, as a page, and as an exit code."""

import json
from dataclasses import replace

import numpy as np
import pytest
from helpers_problem import ATTACKS, make_source

from mico_competition.audit.claims import PrivacyClaim
from mico_competition.audit.gather import scored_attack, scored_predictions
from mico_competition.audit.report import record, text, to_html
from mico_competition.audit.verdict import PROVING, Scored, judge
from mico_competition.cli import main
from mico_competition.competition.layout import walk_challenge
from mico_competition.signals import HIDDEN, MEMBER
from mico_competition.training.accounting import Mechanism

RUN = Mechanism(noise_multiplier=1.0, sample_rate=0.2, num_steps=50)
KEPT = PrivacyClaim(RUN.epsilon(1e-5), 1e-5, RUN)


def drawn(shift, *, models=20, claim=KEPT, scenario="cifar10_lo"):
    """Gaussian scores of members that lie higher by `shift`."""
    rng = np.random.default_rng(0)
    truth = [rng.permutation(np.repeat([False, True], 100)) for _ in range(models)]
    scores = [rng.normal(shift * part) for part in truth]
    return Scored(scenario, "dev", "best", truth, scores, claim)


# --- what is said


@pytest.mark.slow
def test_a_weak_attack_keeps_to_the_claim():
    verdict = judge(drawn(0.5))
    assert not verdict.alarm and 0 <= verdict.proven.epsilon < KEPT.epsilon
    assert verdict.sentence() == (
        f"cifar10_lo: attack best, on 20 dev models, proves epsilon >= "
        f"{verdict.proven.epsilon:.2f} (95% confidence, delta 1e-05), and the mechanism claims "
        f"{KEPT.epsilon:.2f}; it finds {verdict._percent()} of members at 10% FPR, where the "
        f"mechanism allows {verdict.most:.1%} at most."
    )
    assert verdict.proven.method == PROVING
    assert (verdict.replace_one or 0) > KEPT.epsilon


def test_an_attack_above_the_claim_is_an_alarm():
    small = PrivacyClaim(0.5, 1e-5, Mechanism(20.0, 0.2, 50))
    verdict = judge(drawn(3.0, claim=small))
    assert verdict.alarm and verdict.proven.epsilon > 1
    assert verdict.sentence().startswith("ALARM: cifar10_lo: attack best, on 20 dev models, proves")
    assert "but only 0.50 was claimed" in verdict.sentence()
    shown = f"epsilon >= {verdict.proven.epsilon:.2f} "
    assert shown in verdict.sentence()
    lines = [line for line in text([verdict]).splitlines() if "one-run, jointly: " in line]
    assert len(lines) == 1 and f"jointly: {verdict.proven.epsilon:.2f} (" in lines[0]


def test_without_privacy_nothing_is_claimed():
    verdict = judge(drawn(3.0, claim=None, scenario="cifar10_inf"))
    assert not verdict.alarm and verdict.most is None and verdict.allowed == {}
    assert "and no epsilon is claimed" in verdict.sentence()
    assert record(verdict)["promised"] is None and record(verdict)["ceilings"] == {}


@pytest.mark.slow
def test_another_delta_moves_the_claim():
    verdict = judge(drawn(0.5), delta=1e-6)
    assert verdict.delta == 1e-6 and verdict.scored.claim.delta == 1e-6
    assert verdict.scored.claim.epsilon == RUN.epsilon(1e-6) > KEPT.epsilon
    assert all(bound.delta == 1e-6 for bound in verdict.bounds)


def test_all_numbers_stand_in_the_record_and_words_in_the_text():
    verdict = judge(drawn(1.0))
    found = json.loads(json.dumps(record(verdict), allow_nan=False))
    assert found["points"] == 4000 and found["members"] == 2000 and found["models"] == 20
    assert found["proven"] == verdict.proven.epsilon and found["sentence"] in text([verdict])
    assert {bound["method"] for bound in found["bounds"]} == {b.method for b in verdict.bounds}
    assert set(found["ceilings"]) == {"epsilon, delta", "Gaussian DP", "exact"}
    metric = found["metrics"]["TPR_FPR_1000"]
    assert metric["low"] < metric["value"] < metric["high"]
    for bound in verdict.bounds:
        assert f"at least, by {bound.method}: {bound.epsilon:.2f} (assumes " in text([verdict])
        assert "see its source" not in text([verdict])


def test_the_page_holds_curves_ceilings_and_bounds():
    page = to_html([judge(drawn(0.5)), judge(drawn(2.0, claim=None, scenario="cifar10_inf"))])
    assert page.count("<svg role=") == 4 and page.count('class="band"') == 4
    assert page.count('class="ceiling ceiling2"') == 3
    assert "Without a claim there is no limit" in page
    with pytest.raises(ValueError, match="at least one audit"):
        to_html([])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"scores": np.nan}, "finite"),
        ({"scores": np.inf}, "finite"),
        ({"truth": True}, "one class|both|members"),
    ],
)
def test_bad_scores_are_refused_in_a_sentence(change, words):
    scored = drawn(0.5, models=3)
    if "scores" in change:
        scored.scores[1][7] = change["scores"]
    else:
        scored.truth[:] = [np.ones(200, bool)] * 3
    with pytest.raises(ValueError, match=words):
        judge(scored)


# --- where scores come from


@pytest.mark.parametrize(("dev", "phase", "models"), [(6, "dev", 6), (0, "train", 10)])
def test_labels_that_are_guessed_take_no_part(dev, phase, models):
    source = make_source(train=20, dev=dev, points=300, asked=100, shift=2.0)
    seen = []

    def spying(problem):
        seen.append(problem)
        return ATTACKS["lira-online"].run(problem)

    scored = scored_attack(source, replace(ATTACKS["lira-online"], run=spying), seed=3)
    assert (scored.phase, len(scored.truth), scored.claim) == (phase, models, None)
    (problem,) = seen
    assert not set(problem.targets) & set(problem.shadows) and len(problem.shadows) == 20 - (
        models if phase == "train" else 0
    )
    asked = problem.known_membership[problem.targets[:, None], problem.columns]
    assert (asked == HIDDEN).all()
    assert (
        problem.source.fleet.known_membership[problem.targets[:, None], problem.columns] == HIDDEN
    ).all()
    told = source.fleet.known_membership[problem.targets[:, None], problem.columns] == MEMBER
    assert (np.stack(scored.truth) == told).all()
    assert judge(scored).result["AUC"] > 0.8


def test_too_few_train_models_for_halves():
    with pytest.raises(ValueError, match="Expected at least 4 train models where there are no"):
        scored_attack(make_source(train=3, dev=0), ATTACKS["threshold"])


# --- the verb


@pytest.fixture
def purchase(competition, tmp_path):
    """A folder with predictions of the threshold for its train models, and the flags for it."""
    folder = competition.trained / "purchase100"
    predictions = ["--predictions", str(tmp_path / "purchase100"), "--phase", "train"]
    data = ["--dataset_dir", str(competition.datasets), "--cache", str(tmp_path / "cache")]
    assert main(["attack", "threshold", str(folder), *predictions, *data]) == 0
    return folder, predictions, data


@pytest.mark.slow
def test_predictions_are_audited(purchase, tmp_path, capsys):
    folder, predictions, _ = purchase
    files = ["--json", str(tmp_path / "a.json"), "--html", str(tmp_path / "a.html")]
    assert main(["audit", str(folder), *predictions, *files]) == 0, capsys.readouterr()
    out = capsys.readouterr().out
    found = json.loads((tmp_path / "a.json").read_text())["scenarios"]
    names = [audit["scenario"] for audit in found]
    assert names == ["purchase100_inf", "purchase100_hi", "purchase100_lo"]
    for audit in found:
        assert audit["sentence"] in out and not audit["alarm"] and audit["attack"] == "predictions"
    assert "<!DOCTYPE html>" in (tmp_path / "a.html").read_text()
    scored = scored_predictions(folder, tmp_path / "purchase100", phase="train")
    for one in scored:
        assert (one.claim is None) == (one.scenario == "purchase100_inf")
        for model, truth in zip(walk_challenge(folder, phases=["train"]), one.truth):
            assert truth.sum() == 10 and len(truth) == 20 and model.phase == "train"


def test_perfect_predictions_raise_the_alarm(purchase, tmp_path, capsys, monkeypatch):
    """A claim that the models cannot have kept: their predictions are the solutions."""
    folder, predictions, _ = purchase
    monkeypatch.setattr(
        PrivacyClaim, "of", classmethod(lambda cls, told: told and PrivacyClaim(0.1, 1e-5, RUN))
    )
    for model in walk_challenge(folder, phases=["train"]):
        solution = (model.path / "solution.csv").read_text()
        model.prediction_in(tmp_path / "purchase100").write_text(solution)
    assert main(["audit", str(folder), *predictions, "--scenario", "purchase100_lo"]) == 1
    assert capsys.readouterr().out.startswith("ALARM: purchase100_lo")


def test_an_attack_is_run_and_audited(purchase, capsys, tmp_path):
    folder, _, data = purchase
    words = ["--attack", "winner-2023", "--scenario", "purchase100_lo", *data]
    assert main(["audit", str(folder), *words, "--level", "0.999"]) == 1  # of twenty points
    assert "members for a bound above 0 at level 0.999" in capsys.readouterr().err
    assert main(["audit", str(folder), *words]) == 0, capsys.readouterr()
    assert "attack winner-2023, on 1 dev models" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--attack", "winner-2023", "--predictions", "x"], "got both: give one"),
        (["--phase", "dev"], "--phase goes with --predictions"),
        (["--scenario", "sst2_inf"], "There are no models of sst2_inf in"),
        (["--delta", "1"], "delta"),
        (["--delta", "0"], "Expected delta=0.0 in (0, 1)"),
        (["--level", "1.5"], "level"),
        (["--attack", "nosuch"], "nosuch"),
    ],
)
def test_mistakes(purchase, flags, words, capsys):
    folder, _, data = purchase
    failed = flags[0] in ("--scenario", "--delta", "--level")
    assert main(["audit", str(folder), *flags, *data]) == (1 if failed else 2)
    err = capsys.readouterr().err
    assert words in err and err.count("\n") == 1 and "Traceback" not in err
