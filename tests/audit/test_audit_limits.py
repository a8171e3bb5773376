"""Ceilings against closed forms, a simulated best attack, and each other; and in the report."""

import json
import math

import numpy as np
import pytest
from mico_competition.scoring import generate_html, generate_roc, intervals_of, score
from mico_competition.scoring.curve import RATES
from scipy.stats import norm

from mico_competition.audit import tpr_limits_of
from mico_competition.audit.claims import PrivacyClaim, claim_of
from mico_competition.audit.limits import (
    DRAWN,
    NAMES,
    SMALLEST_RATE,
    gaussian_mu,
    max_tpr,
    symmetric_tpr,
    tpr_limits,
)
from mico_competition.cli import main
from mico_competition.training.accounting import Mechanism

SAMPLED = Mechanism(noise_multiplier=0.9, sample_rate=0.1, num_steps=40)
PRIVACY = {
    "epsilon": SAMPLED.epsilon(1e-5),
    "delta": 1e-5,
    "noise_multiplier": 0.9,
    "sample_rate": 0.1,
    "num_steps": 40,
}


def best_attack(run, in_batches, models, rng):
    """float64[models], the log likelihood ratio of what `run` gives for records of norm C."""
    drawn = rng.random((models, run.num_steps)) < run.sample_rate
    seen = rng.normal(0, run.noise_multiplier, drawn.shape) + (drawn if in_batches else 0)
    variance = run.noise_multiplier**2
    return np.log1p(run.sample_rate * np.expm1((seen - 0.5) / variance)).sum(axis=1)


# --- against what is known


@pytest.mark.parametrize(("sigma", "steps"), [(1.0, 1), (4.0, 9), (0.5, 2)])
def test_without_sampling_the_exact_ceiling_is_the_gaussian_curve(sigma, steps):
    mu = math.sqrt(steps) / sigma
    run = Mechanism(sigma, 1.0, steps)
    fpr = np.geomspace(1e-5, 0.99, 60)
    closed = norm.cdf(norm.ppf(fpr) + mu)
    for curve in (max_tpr, symmetric_tpr):
        exact = curve(run, fpr)
        assert (exact >= closed - 1e-9).all() and (exact <= closed + 2e-3).all()
    assert mu <= gaussian_mu(run) <= mu + 0.02


@pytest.mark.parametrize(("sigma", "rate"), [(0.8, 0.1), (0.5, 0.02), (1.5, 0.5), (4.0, 0.25)])
def test_of_one_sampled_step_the_exact_ceiling_is_known_in_closed_form(sigma, rate):
    """ "Member" above t: FPR Q(t / sigma), TPR (1 - q) Q(t / sigma) + q Q((t - 1) / sigma)."""
    fpr = np.linspace(0.01, 0.999, 60)
    threshold = sigma * norm.isf(fpr)
    closed = (1 - rate) * fpr + rate * norm.sf((threshold - 1) / sigma)
    exact = max_tpr(Mechanism(sigma, rate, 1), fpr)
    assert (exact >= closed - 1e-9).all() and (exact <= closed + 1e-3).all()
    # The other direction, "non-member" said of a record that is out, is another curve.
    of_nonmember = symmetric_tpr(Mechanism(sigma, rate, 1), 1 - closed)
    assert (of_nonmember >= 1 - fpr - 1e-9).all()
    assert (symmetric_tpr(Mechanism(sigma, rate, 1), fpr) >= exact).all()


@pytest.mark.parametrize(
    ("run", "fpr"),
    [(Mechanism(0.8, 0.1, 5), 0.7), (Mechanism(0.5, 0.02, 30), 0.9), (SAMPLED, 0.5)],
)
def test_the_exact_ceiling_is_reached_past_the_knee_too(run, fpr):
    """There the worse of both directions is up to 0.05 above every attack that says "member"."""
    rng = np.random.default_rng(4)
    members, others = (best_attack(run, inside, 200_000, rng) for inside in (True, False))
    found = (members > np.quantile(others, 1 - fpr)).mean()
    most = float(max_tpr(run, np.array(fpr)))
    assert most == pytest.approx(found, abs=0.005)
    assert float(symmetric_tpr(run, np.array(fpr))) > most + 0.015


def test_a_best_attack_comes_up_to_the_exact_ceiling_and_not_above():
    rng = np.random.default_rng(0)
    models = 60_000
    members, others = (best_attack(SAMPLED, inside, models, rng) for inside in (True, False))
    for fpr in (0.01, 0.1, 0.3):
        found = (members > np.quantile(others, 1 - fpr)).mean()
        most = float(max_tpr(SAMPLED, np.array(fpr)))
        assert most - 0.05 < found < most + 4 * math.sqrt(fpr / models) + 0.01


def test_the_three_lie_in_order_and_rise():
    claim = PrivacyClaim.of({"privacy": PRIVACY})
    found = tpr_limits(claim, DRAWN)
    assert tuple(found) == NAMES
    pair, gaussian, exact = (tpr for _, tpr in found.values())
    for tpr in (pair, gaussian, exact):
        assert (np.diff(tpr) >= -1e-12).all() and (tpr >= DRAWN - 1e-12).all() and tpr.max() <= 1
    assert (exact <= symmetric_tpr(claim.mechanism, DRAWN)).all()
    assert (exact <= pair + 1e-3).all() and (exact <= gaussian + 1e-6).all()
    assert exact[np.searchsorted(DRAWN, 0.1)] < pair[np.searchsorted(DRAWN, 0.1)] / 2
    assert DRAWN.min() >= SMALLEST_RATE


def test_rates_out_of_range():
    with pytest.raises(ValueError, match=r"false positive rates in \[0, 1\]"):
        max_tpr(SAMPLED, np.array([0.1, 1.5]))
    with pytest.raises(ValueError, match=r"false positive rates in \[0, 1\]"):
        tpr_limits(PrivacyClaim.of({"privacy": PRIVACY}), np.array([np.nan]))


# --- what models claim


@pytest.mark.parametrize(
    "change",
    [
        {"epsilon": None},
        {"epsilon": -1.0},
        {"delta": 1},
        {"sample_rate": 0},
        {"noise_multiplier": "much"},
        {"num_steps": 0},
        {"noise_multiplier": math.nan},
        {"epsilon": 1e300},
        {"delta": 1e-320},
        {"sample_rate": 1e-300},
        {"noise_multiplier": 1e-200},
        {"num_steps": 10**18},
        {"num_steps": math.inf},
    ],
)
def test_a_claim_that_is_none(change):
    with pytest.raises(ValueError, match="Expected `privacy` in metadata.json to have epsilon in"):
        PrivacyClaim.of({"privacy": {**PRIVACY, **change}})


def test_claims_of_a_scenario(tmp_path):
    folders = [tmp_path / f"model_{i}" for i in range(3)]
    for folder in folders:
        folder.mkdir()
        (folder / "metadata.json").write_text(json.dumps({"privacy": PRIVACY}))
    assert claim_of(folders).claim == PrivacyClaim(PRIVACY["epsilon"], 1e-5, SAMPLED)
    (folders[1] / "metadata.json").write_text(json.dumps({"privacy": {**PRIVACY, "num_steps": 4}}))
    with pytest.raises(ValueError, match="audit models of one setting at a time"):
        claim_of(folders)
    (folders[1] / "metadata.json").unlink()
    with pytest.raises(ValueError, match="audit models of one setting at a time"):
        claim_of(folders)
    assert claim_of(folders[1:2]).claim is None


# --- where they are shown


@pytest.fixture(scope="module")
def drawn():
    rng = np.random.default_rng(1)
    names = [f"cifar10/cifar10_lo/train/model_{i}" for i in range(10)]
    truth = {name: rng.permutation(np.repeat([0, 1], 100)) for name in names}
    guesses = {name: rng.normal(0.3 * truth[name]) for name in names}
    result = score(np.concatenate(list(truth.values())), np.concatenate(list(guesses.values())))
    allowed = {"cifar10_lo": tpr_limits(PrivacyClaim.of({"privacy": PRIVACY}), DRAWN)}
    return {"cifar10_lo": result}, intervals_of(truth, guesses, rates=RATES), allowed


def test_the_report_draws_and_names_them(drawn):
    scores, intervals, allowed = drawn
    text, bare = generate_html(*drawn), generate_html(scores, intervals)
    for i, name in enumerate(NAMES):
        assert text.count(f'class="ceiling ceiling{i}"') == 3  # two pictures and the key
        most = np.interp(0.1, *allowed["cifar10_lo"][name])
        assert f"</svg> {name}: at most {most:.1%} at 10% FPR</li>" in text
    assert 'class="ceiling' not in bare


def test_the_figure_draws_them(drawn):
    import matplotlib.pyplot as plt

    scores, _, allowed = drawn
    values = scores["cifar10_lo"]
    figure = generate_roc(values["fpr"], values["tpr"], allowed["cifar10_lo"])
    for axes in figure.axes:
        labels = [str(line.get_label()) for line in axes.get_lines()]
        assert [f"at most, by {name}" for name in NAMES] == [w for w in labels if "most" in w]
        for line in axes.get_lines():
            assert np.isfinite(line.get_xydata()).all()
    plt.close(figure)


def test_scores_of_a_local_run_have_them(competition, tmp_path, capsys):
    folder = competition.trained / "purchase100"
    words = ["--phase", "train", "--predictions", str(tmp_path / "purchase100")]
    data = ["--dataset_dir", str(competition.datasets)]
    assert main(["attack", "threshold", str(folder), *words, *data]) == 0
    page = tmp_path / "report.html"
    assert main(["score", str(folder), *words, "--html", str(page)]) == 0, capsys.readouterr()
    assert sorted(tpr_limits_of(folder)) == ["purchase100_hi", "purchase100_lo"]
    assert page.read_text().count('class="ceiling ceiling2"') == 2 * 3


def test_a_report_without_ceilings_says_why(competition, tmp_path, capsys, monkeypatch):
    folder = competition.trained / "purchase100"
    words = ["--phase", "train", "--predictions", str(tmp_path / "purchase100")]
    data = ["--dataset_dir", str(competition.datasets)]
    assert main(["attack", "threshold", str(folder), *words, *data]) == 0
    # Models that do not claim the same.
    monkeypatch.setattr(
        PrivacyClaim, "of", classmethod(lambda cls, told: cls(told["model_id"] + 1, 1e-5, SAMPLED))
    )
    page = tmp_path / "report.html"
    assert main(["score", str(folder), *words, "--html", str(page)]) == 0
    fix = "audit models of one setting at a time"
    err = capsys.readouterr().err
    assert "No limits of privacy in the report." in err and fix in err
    assert page.is_file() and 'class="ceiling' not in page.read_text()
