"""Claims that are stated, or not; alarms at their joint level; and paths to a folder."""

import json
import math
import os
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binom

from mico_competition.audit import tpr_limits_of
from mico_competition.audit.claims import (
    BY_TABLE,
    NOT_KNOWN,
    STATED,
    PrivacyClaim,
    SourcedClaim,
    claim_of,
)
from mico_competition.audit.guesses import default_plans, plan_for
from mico_competition.audit.one_run import one_run_bound
from mico_competition.audit.one_run_fdp import one_run_fdp_bound
from mico_competition.audit.report import record
from mico_competition.audit.verdict import Scored, deciding_bounds, judge
from mico_competition.cli import main
from mico_competition.competition.layout import challenge_folder_of, scenario_of
from mico_competition.competition.table import get_scenario
from mico_competition.hosting.hub.dataset_card import ScenarioFacts, card_text
from mico_competition.training.accounting import Mechanism

RUN = Mechanism(noise_multiplier=4.0, sample_rate=0.25, num_steps=40)
PRIVACY = {
    "epsilon": 1.5,
    "delta": 1e-5,
    "noise_multiplier": 4.0,
    "sample_rate": 0.25,
    "num_steps": 40,
}
TABLE = SourcedClaim(PrivacyClaim(4.0, 1e-5, RUN), BY_TABLE)


@pytest.fixture(autouse=True)
def table(monkeypatch):
    """The table's mechanisms take seconds to account for; here all private rows have one."""
    monkeypatch.setattr(Mechanism, "for_target", classmethod(lambda cls, **_: RUN))


def challenge(root, metadata=None, scenario="digits_lo", models=3, name="digits"):
    """A challenge folder with solutions and predictions, and no weights; and its models."""
    rng = np.random.default_rng(0)
    folders = []
    for i in range(models):
        folder = root / name / scenario / "train" / f"model_{i}"
        folder.mkdir(parents=True)
        truth = rng.permutation(np.repeat([0, 1], 100))
        scores = np.clip(0.5 + 0.1 * rng.normal(size=200) + 0.05 * truth, 0, 1)
        (folder / "solution.csv").write_text(",".join(map(str, truth)))
        (folder / "prediction.csv").write_text(",".join(f"{score:.6f}" for score in scores))
        if metadata is not None:
            (folder / "metadata.json").write_text(json.dumps(metadata))
        folders.append(folder)
    return root / name, folders


def audited(folder, capsys, *more, predictions=None):
    """What `mico audit` prints of predictions that lie in the folder itself."""
    predictions = folder if predictions is None else predictions
    code = main(["audit", str(folder), "--predictions", str(predictions), *more])
    out, err = capsys.readouterr()
    assert code == 0, err
    return out


@pytest.mark.parametrize("metadata", [None, {}, {"len_training": 120}, {"privacy": None}])
def test_what_is_not_stated_is_not_told_as_nothing(tmp_path, capsys, metadata):
    folder, folders = challenge(tmp_path, metadata)
    assert claim_of(folders) == TABLE
    out = audited(folder, capsys)
    assert "no epsilon is claimed" not in out
    assert "the claim is not known" in out and "the scenario table's is epsilon 4.00" in out
    assert "where that allows" in out and "claimed by the scenario table: epsilon 4.00" in out


def test_without_privacy_by_the_table_the_claim_is_still_not_known(tmp_path, capsys):
    folder, folders = challenge(tmp_path, scenario="digits_inf")
    assert claim_of(folders) == SourcedClaim(None, BY_TABLE)
    out = audited(folder, capsys)
    assert "the claim is not known (no metadata.json states it)" in out
    assert "the scenario table's is no privacy" in out and "no epsilon is claimed" not in out


def test_what_is_stated_counts(tmp_path, capsys):
    folder, folders = challenge(tmp_path, {"scenario": "digits_lo", "privacy": PRIVACY})
    assert claim_of(folders) == SourcedClaim(PrivacyClaim(1.5, 1e-5, RUN), STATED)
    assert "the mechanism claims 1.50" in audited(folder, capsys)
    stated = {"scenario": "digits_inf", "privacy": None}
    folder, folders = challenge(tmp_path / "inf", stated, scenario="digits_inf")
    assert claim_of(folders) == SourcedClaim(None, STATED)
    assert "and no epsilon is claimed" in audited(folder, capsys)


def test_without_a_scenario_nothing_is_known(tmp_path):
    (tmp_path / "model_0").mkdir()
    assert claim_of([tmp_path / "model_0"]) == SourcedClaim(None, NOT_KNOWN)
    truth = [np.arange(200) % 2 == 1] * 2
    scored = Scored("mine", "train", "x", truth, [t * 1.0 for t in truth], None, NOT_KNOWN)
    said = judge(scored).sentence()
    assert "and the claim is not known" in said and "table" not in said


@pytest.mark.parametrize(
    "change",
    [
        {"epsilon": None},
        {"epsilon": "4.0"},
        {"epsilon": -1},
        {"epsilon": True},
        {"epsilon": math.nan},
        {"epsilon": math.inf},
        {"num_steps": 40.5},
        {"num_steps": math.inf},
        {"delta": 0},
        "drop",
        "list",
    ],
)
def test_half_a_claim_is_refused_with_the_model_named(tmp_path, capsys, change):
    told = dict(PRIVACY)
    if change == "drop":
        del told["epsilon"]
    elif change != "list":
        told.update(change)
    folder, folders = challenge(tmp_path, {"privacy": [4.0] if change == "list" else told})
    with pytest.raises(ValueError, match="Expected `privacy` in metadata.json to have epsilon in "):
        claim_of(folders)
    assert main(["audit", str(folder), "--predictions", str(folder)]) == 1
    err = capsys.readouterr().err
    assert str(folders[0]) in err and err.count("\n") == 1


def test_another_scenarios_metadata_and_mixed_folders_are_refused(tmp_path):
    _, folders = challenge(tmp_path, {"scenario": "digits_hi", "privacy": PRIVACY})
    with pytest.raises(ValueError, match="is of scenario digits_hi, in a folder of digits_lo"):
        claim_of(folders)
    _, folders = challenge(tmp_path / "mixed", {"privacy": PRIVACY})
    (folders[1] / "metadata.json").unlink()
    with pytest.raises(ValueError, match=r"not all state an epsilon.*model_0 and.*model_1\)"):
        claim_of(folders)
    (folders[1] / "metadata.json").write_text(json.dumps({"privacy": {**PRIVACY, "epsilon": 2}}))
    with pytest.raises(ValueError, match="got several"):
        claim_of(folders)


def test_an_alarm_by_the_tables_claim_says_whose_it_is(tmp_path, capsys):
    folder, folders = challenge(tmp_path, models=20)
    for path in folders:
        (path / "prediction.csv").write_text((path / "solution.csv").read_text())
    assert main(["audit", str(folder), "--predictions", str(folder)]) == 1
    out = capsys.readouterr().out
    assert out.startswith("ALARM: digits_lo")
    assert "the claim is not known" in out and "the scenario table's is epsilon 4.00 only" in out


def test_limits_of_models_that_state_nothing_are_named_as_the_tables(tmp_path):
    folder, _ = challenge(tmp_path)
    assert list(tpr_limits_of(folder)["digits_lo"]) == [
        f"{name}, claimed by the table" for name in ("epsilon, delta", "Gaussian DP", "exact")
    ]
    folder, _ = challenge(tmp_path / "stated", {"privacy": PRIVACY})
    assert list(tpr_limits_of(folder)["digits_lo"]) == ["epsilon, delta", "Gaussian DP", "exact"]
    facts = [ScenarioFacts("digits_lo", {"train": 1}, epsilon=4.0, by_table=True)]
    page = card_text("digits", "team/digits", "mit", facts, "digits_lo/train/model_0")
    assert "4.000 (by the table; the models state none)" in page


# --- the joint level, and plans of guesses


@pytest.mark.slow
def test_two_bounds_together_raise_no_more_false_alarms_than_one_may():
    """Scores without any signal, where both bounds are as tight as they can be."""
    rng, runs, alarms = np.random.default_rng(3), 400, {0.95: 0, 0.975: 0}
    for _ in range(runs):
        truth = [rng.permutation(200) < 100 for _ in range(3)]
        scored = Scored("x", "dev", "x", truth, [rng.normal(size=200) for _ in truth], None)
        for level in alarms:
            found = deciding_bounds(scored, delta=1e-5, level=level, guesses=(30, 30))
            alarms[level] += max(bound.epsilon for bound in found) > 0
    allowed = binom.ppf(0.99, runs, 0.05)
    assert alarms[0.975] <= allowed and alarms[0.975] < alarms[0.95]


def test_the_verdict_goes_by_bounds_that_hold_jointly():
    rng = np.random.default_rng(0)
    truth = [rng.permutation(200) < 100 for _ in range(10)]
    scored = Scored("x", "dev", "x", truth, [rng.normal(t * 1.0) for t in truth], TABLE.claim)
    one, three = judge(scored), judge(scored, audits=3)
    assert [bound.level for bound in one.joint] == [0.975, 0.975]
    assert three.joint[0].level == pytest.approx(1 - 0.05 / 6)
    alone = {bound.method: bound.epsilon for bound in one.bounds}
    for verdict in (one, three):
        for bound in verdict.joint:
            assert bound.epsilon < alone[bound.method]
    assert three.proven.epsilon < one.proven.epsilon
    rows = {row["method"]: row for row in record(one)["bounds"]}
    assert rows["one-run"]["joint_epsilon"] == one.proven.epsilon == record(one)["proven"]
    assert "joint_epsilon" in rows["one-run of pairs"] and "joint_epsilon" not in rows["threshold"]
    # Between the two levels there is no alarm, and no word of more than is claimed.
    between = (one.proven.epsilon + alone["one-run"]) / 2
    kept = judge(replace(scored, claim=PrivacyClaim(between, 1e-5, RUN)))
    assert not kept.alarm and f"epsilon >= {one.proven.epsilon:.2f}" in kept.sentence()


def test_an_alarm_of_pairs_alone_says_so():
    rng = np.random.default_rng(0)
    truth = [rng.permutation(200) < 100 for _ in range(10)]
    scores = [rng.normal(t * 1.5) for t in truth]
    loose = replace(judge(Scored("x", "dev", "x", truth, scores, TABLE.claim)), replace_one=0.5)
    assert loose.proven.epsilon < 4 and loose.alarm
    assert "for a record replaced by another, where 0.50 would be spent" in loose.sentence()


def test_a_paid_list_of_plans_is_the_default():
    plans = default_plans(1000)
    assert plans[0] == ((100, 100), 0.5) and sum(share for _, share in plans) == pytest.approx(1)
    assert {(500, 500), (16, 15), (250, 0), (31, 0)} < {plan for plan, _ in plans}
    assert default_plans(20) == [((10, 10), 1.0)]
    rng = np.random.default_rng(0)
    truth = rng.random(1000) < 0.5
    noise = rng.normal(size=1000)
    few, members = noise.copy(), noise.copy()
    few[:50] += np.where(truth[:50], 10, -10)
    members[np.flatnonzero(truth)[:50]] += 10
    known = truth + 0.01 * noise
    for scores, bound, gain in (
        (few, one_run_bound, 1.0),
        (few, one_run_fdp_bound, 1.0),
        (members, one_run_bound, 1.0),
        (members, one_run_fdp_bound, 1.0),
        (known, one_run_bound, 0.2),
    ):
        best = bound(truth, scores, delta=1e-5)
        usual = bound(truth, scores, delta=1e-5, guesses=plan_for(1000))
        assert best.epsilon > usual.epsilon + gain
        assert best.detail["plans"] == len(plans)


def test_plans_can_be_chosen_and_are_reported(tmp_path, capsys):
    folder, _ = challenge(tmp_path, models=3)
    assert "guessed 80 in and 80 out of 600 (" not in audited(folder, capsys)
    out = audited(folder, capsys, "--guesses", "80,80")
    assert "by one-run: " in out and "guessed 80 in and 80 out of 600)" in out
    assert "guessed 40 in and 40 out of 300)" in out  # pairs
    out = audited(folder, capsys, "--guesses", "80,80", "--guesses", "40,0")
    assert ", the best of 2 plans)" in out
    assert ", the best of " in audited(folder, capsys)


@pytest.mark.parametrize("given", ["80", "80,", "-1,5", "a,b", "0,0", "1.5,2", "1,2,3", "", "²,1"])
def test_plans_that_are_none(tmp_path, capsys, given):
    with pytest.raises(SystemExit):
        main(["audit", str(tmp_path), "--guesses", given])
    assert "guess" in capsys.readouterr().err


def test_more_guesses_than_points(tmp_path, capsys):
    folder, _ = challenge(tmp_path)
    assert main(["audit", str(folder), "--predictions", str(folder), "--guesses", "900,9"]) == 1
    assert "sum to 1 up to the 600 points" in capsys.readouterr().err


# --- paths


@pytest.mark.parametrize("stated", [True, False])
@pytest.mark.parametrize(
    "form", ["link", "link of another name", "link named digits", "slash", "dot", "up", "relative"]
)
def test_every_way_to_the_folder_gives_its_answer(tmp_path, capsys, monkeypatch, form, stated):
    told = {"scenario": "digits_lo", "privacy": PRIVACY} if stated else None
    away = "digits-2026" if form == "link named digits" else "digits"
    folder, _ = challenge(tmp_path / "deep" / "er", told, name=away)
    expected = audited(folder, capsys) if away == "digits" else None
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    path = {
        "link": elsewhere / "digits",
        "link of another name": elsewhere / "latest",
        "link named digits": elsewhere / "digits",
        "slash": f"{folder}{os.sep}",
        "dot": ".",
        "up": elsewhere / "er" / ".." / "er" / "digits",
        "relative": os.path.join("er", "digits"),
    }[form]
    if form.startswith("link"):
        path.symlink_to(folder, target_is_directory=True)
    if form == "up":
        (elsewhere / "er").symlink_to(folder.parent, target_is_directory=True)
    monkeypatch.chdir(folder if form == "dot" else tmp_path / "deep")
    found = audited(path, capsys)
    assert ("the mechanism claims 1.50" in found) == stated
    assert ("the scenario table's is epsilon 4.00" in found) == (not stated)
    assert expected in (None, found)


def test_names_on_paths(tmp_path):
    folder, folders = challenge(tmp_path)
    link = tmp_path / "one"
    link.symlink_to(folders[0], target_is_directory=True)
    assert scenario_of(link) == get_scenario("digits_lo") == scenario_of(folders[0])
    assert scenario_of(tmp_path) is None
    assert challenge_folder_of(folder) == folder == challenge_folder_of(folder / "digits_lo" / "..")
    assert challenge_folder_of(tmp_path / "nothing") == tmp_path / "nothing"
