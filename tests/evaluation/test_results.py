"""`Results` and `AttackResult`: numbers equal those of `measure`, tables, files, comparisons."""

import json
import math
import stat
import warnings

import numpy as np
import pytest
from mico_competition.scoring import tpr_at_fpr

from mico_competition.evaluation.attack_result import AttackResult, Number, UnresolvedRate
from mico_competition.evaluation.measure import at_rate, measure
from mico_competition.evaluation.paired import paired_test
from mico_competition.evaluation.results import Results


def scored(models=8, points=400, shift=1.0, seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.random((models, points)) < 0.5
    return truth, rng.normal(size=truth.shape) + shift * truth


def two(models=8, points=400):
    truth, scores = scored(models, points)
    better = scores + 0.8 * truth
    attacks = [AttackResult.of(n, truth, s) for n, s in (("loss", scores), ("lira", better))]
    return truth, scores, better, Results(attacks, subject="my models")


def test_tpr_at_any_rate_is_the_scoring_packages():
    truth, scores, _, results = two()
    for rate in (0.02, 0.1, 0.33, 0.9):
        found = results["loss"].tpr(fpr=rate)
        assert found.value == tpr_at_fpr(truth.ravel().astype(int), scores.ravel(), rate)
        assert 0 <= found.low <= found.value <= found.high <= 1
        estimate = at_rate(truth, scores, rate)
        assert found == (estimate.value, estimate.low, estimate.high)
    value, low, high = results["loss"].tpr(0.1)
    metric = measure(truth, scores)["TPR_FPR_1000"]
    assert (value, low, high) == (metric.value, metric.low, metric.high)


def test_a_rate_between_the_reported_ones_agrees_with_them():
    truth, scores, _, results = two()
    metric, direct = measure(truth, scores)["TPR_FPR_1000"], at_rate(truth, scores, 0.1)
    assert (direct.value, direct.low, direct.high) == (metric.value, metric.low, metric.high)
    wide = results["loss"].tpr(0.1, level=0.99)
    assert wide.low < metric.low and wide.high > metric.high


def test_a_rate_below_one_non_member_is_said_to_be_unresolved():
    _, _, _, results = two()
    with pytest.warns(UnresolvedRate, match="less than one of .* non-members"):
        found = results["loss"].tpr(fpr=1e-5)
    assert found.low == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        results["loss"].tpr(fpr=0.01)
    assert "do not resolve 0.1% FPR" in str(Results([AttackResult.of("a", *scored(4, 60))]))


@pytest.mark.parametrize("fpr", [0, 1, -0.1, 10, math.nan])
def test_rates_outside_0_and_1_are_refused(fpr):
    with pytest.raises(ValueError, match="fpr="):
        two()[-1]["loss"].tpr(fpr)


def test_points_whose_membership_is_not_known_do_not_count():
    truth, scores = scored()
    known = np.random.default_rng(1).random(truth.shape) < 0.6
    nonsense = np.where(known, scores, 1e9)
    nonsense[0, 0], known[0, 0] = np.nan, False
    found = AttackResult.of("a", truth, nonsense, known=known)
    parts = [(t[k], s[k]) for t, s, k in zip(truth, scores, known)]
    pooled = [np.concatenate(part) for part in zip(*parts)]
    assert found.tpr(0.07).value == tpr_at_fpr(pooled[0].astype(int), pooled[1], 0.07)
    assert found.measured.members + found.measured.nonmembers == known.sum()


def test_the_mapping():
    _, _, _, results = two()
    assert list(results) == results.names == ["loss", "lira"] and len(results) == 2
    assert "lira" in results and dict(results)["lira"] is results["lira"]
    with pytest.raises(KeyError, match="did you mean 'lira'") as caught:
        results["lyra"]
    assert isinstance(caught.value, ValueError)
    assert results["loss"].gain is None and results["lira"].gain["AUC"].low > 0


def test_attacks_on_other_points_are_not_mixed():
    one = AttackResult.of("a", *scored())
    for other in (AttackResult.of("b", *scored(seed=1)), AttackResult.of("b", *scored(), seed=1)):
        with pytest.raises(ValueError, match="same truth"):
            Results([one, other])
    with pytest.raises(ValueError, match="two named 'a'"):
        Results([one, one])


@pytest.mark.parametrize("fpr", [0.1, 0.03])
def test_compare_is_the_paired_test(fpr):
    truth, scores, better, results = two()
    found = results.compare("lira", "loss", fpr=fpr)
    assert found.low > 0 and found.p_value < 0.05
    assert results.compare("lira", fpr=fpr) == found
    turned = results.compare("loss", "lira", fpr=fpr)
    assert turned.difference == -found.difference
    if fpr == 0.1:
        assert found == paired_test(truth, better, scores)
    same = results.compare("lira", "lira", fpr=fpr)
    assert same.difference == 0 and same.p_value == 1


def test_one_target_model_has_numbers_without_intervals():
    truth, scores = scored(models=1)
    results = Results([AttackResult.of(name, truth, scores + k) for k, name in enumerate("ab")])
    assert math.isnan(results["a"].auc.low) and "[" not in str(results["a"].auc)
    found = results.compare("a", "b")
    assert math.isnan(found.low) and math.isnan(found.p_value)
    assert "1 target model," in str(results) and "need at least two models" in str(results)


def test_the_text_is_aligned_and_names_what_was_attacked():
    lines = str(two()[-1]).splitlines()
    assert lines[0].startswith("my models: 8 target models, ")
    table = lines[2:5]
    starts = {line.index("[") for line in table[1:]}
    assert table[0].split()[0] == "attack" and len(starts) == 1
    assert any(line.startswith("gain over loss") for line in lines)


def test_the_frame():
    _, _, _, results = two()
    frame = results.to_frame()
    assert list(frame.index) == ["loss", "lira"] and frame.index.name == "attack"
    assert frame.loc["lira", ("AUC", "value")] == results["lira"].auc.value
    assert frame.loc["lira", ("TPR at 10% FPR", "low")] == results["lira"].tpr(0.1).low
    gain = results.to_frame(gain=True)
    assert list(gain.index) == ["lira"] and gain.loc["lira", ("AUC", "low")] > 0


def test_html_escapes_names_and_keeps_the_notebooks_colours():
    truth, scores = scored()
    results = Results([AttackResult.of("<script>x", truth, scores, title='"><b>')], subject="<i>")
    text = results._repr_html_()
    assert "<script>" not in text and "&lt;script&gt;x" in text and "<b>" not in text
    assert "<i>" not in text and "color:#" not in text and "background:transparent" in text


def test_a_place_that_cannot_be_written_gets_a_sentence(tmp_path):
    *_, results = two()
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="Cannot write .*results.json .*: name a file in a folder"):
        results.save(tmp_path / "file" / "results.json")


def test_a_saved_file_holds_no_label_and_loads(tmp_path):
    *_, results = two()
    results.save(tmp_path / "results.json")
    content = json.loads((tmp_path / "results.json").read_text())
    assert content["about"]["date"] and content["about"]["versions"]["numpy"]
    assert all("scores" not in entry and "truth" not in entry for entry in content["attacks"])
    longest = max(len(entry["curve"]["fpr"]) for entry in content["attacks"])
    assert longest <= 36
    loaded = Results.load(tmp_path / "results.json")
    assert str(loaded) == str(results) and loaded.about == results.about
    assert loaded["lira"].tpr(0.1) == results["lira"].tpr(0.1)
    near, exact = loaded["lira"].tpr(0.05), results["lira"].tpr(0.05)
    assert near == pytest.approx(exact, abs=0.02)
    with pytest.raises(ValueError, match="saved without its scores"):
        loaded["lira"].tpr(0.033)
    with pytest.raises(ValueError, match="saved without its scores"):
        loaded.compare("lira", "loss")
    loaded.save(tmp_path / "again.json")
    for name in ("json", "html"):
        texts = [(tmp_path / f"{stem}.{name}").read_text() for stem in ("results", "again")]
        assert texts[0] == texts[1]


def test_with_scores_everything_loads_and_only_the_owner_reads_it(tmp_path):
    truth, scores, _, results = two()
    results.save(tmp_path / "mine.json", scores=True)
    assert stat.S_IMODE((tmp_path / "mine.json").stat().st_mode) == 0o600
    loaded = Results.load(tmp_path / "mine.json")
    assert np.array_equal(loaded["lira"].truth, truth)
    assert np.array_equal(loaded["loss"].scores, scores)
    assert loaded.compare("lira", "loss", fpr=0.2) == results.compare("lira", "loss", fpr=0.2)
    assert str(loaded) == str(results)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{}", "has another form"),
        ("not JSON", "has another form"),
        ('{"format": "mico_competition results", "version": 9}', "version 1, got 9"),
        ('{"format": "mico_competition results", "version": 1}', "a whole file"),
    ],
)
def test_other_files_are_refused(tmp_path, content, words):
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(ValueError, match=words):
        Results.load(tmp_path / "x.json")
    with pytest.raises(ValueError, match=r"end in \.json"):
        two()[-1].save(tmp_path / "x.txt")


def test_numbers_unpack():
    value, low, high = Number(0.5, 0.25, 0.75)
    assert (value, low, high) == (0.5, 0.25, 0.75)


@pytest.mark.parametrize(
    ("truth", "scores", "known", "words"),
    [
        (np.zeros(4), np.zeros(4), None, "one shape"),
        (np.eye(4), np.eye(3), None, "one shape"),
        (np.eye(4), np.eye(4), np.ones((4, 3)), "known of the shape"),
        (np.eye(4) - 1, np.eye(4), None, "True .member. or False"),
        (np.eye(4), np.full((4, 4), np.inf), None, "finite"),
    ],
)
def test_bad_points_are_refused(truth, scores, known, words):
    with pytest.raises(ValueError, match=words):
        AttackResult.of("a", truth, scores, known=known)
