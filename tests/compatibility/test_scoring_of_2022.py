"""docs/COMPATIBILITY.md: scores, their presentation and the scoring program are those of 2022."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from helpers_compatibility import check
from helpers_scoring import SCENARIOS as SCORED
from helpers_scoring import Competition
from mico_competition.scoring import generate_html, generate_roc, generate_table, score, tpr_at_fpr
from mico_competition.scoring import program as scoring_program
from sklearn.metrics import roc_auc_score, roc_curve


@check("mico_competition.scoring.tpr_at_fpr")
@check("mico_competition.scoring.score")
def test_scores_are_those_of_2022():
    rng = np.random.default_rng(0)
    truth = rng.permutation(400) < 200
    predictions = np.round(rng.random(400) * 0.8 + 0.2 * truth, 2)
    fpr, tpr, _ = roc_curve(truth, predictions)
    result = score(list(truth.astype(int)), list(predictions))
    assert np.array_equal(result["fpr"], fpr) and np.array_equal(result["tpr"], tpr)
    assert result["AUC"] == roc_auc_score(truth, predictions)
    assert result["MIA"] == np.max(tpr - fpr)
    assert result["accuracy"] == np.max(1 - (fpr + (1 - tpr)) / 2)
    for rate in (0.001, 0.01, 0.05, 0.1, 0.15, 0.2):
        best = max(tpr[fpr < rate])
        assert result.pop(f"TPR_FPR_{int(1e4 * rate)}") == best
        assert tpr_at_fpr(truth, predictions, max_fpr=rate) == best
    assert set(result) == {"fpr", "tpr", "AUC", "MIA", "accuracy"}


@check("mico_competition.scoring.generate_roc")
@check("mico_competition.scoring.generate_table")
@check("mico_competition.scoring.generate_html")
def test_figures_tables_and_pages():
    scores = {"a_lo": score([0, 1, 0, 1], [0.1, 0.9, 0.4, 0.3])}
    figure = generate_roc(scores["a_lo"]["fpr"], scores["a_lo"]["tpr"])
    assert [axes.get_xscale() for axes in figure.axes] == ["linear", "log"]
    figure.suptitle("a_lo", x=-0.1, y=0.5)  # as 2022's notebooks do next
    assert plt.gcf() is figure
    with pytest.warns(UserWarning, match="layout has changed"):
        figure.tight_layout(pad=1.0)
    plt.close(figure)
    frame = generate_table(scores)
    assert {"Accuracy", "AUC-ROC", "MIA", "TPR @ 0.1 FPR", "TPR @ 0.001 FPR"} <= set(frame)
    assert list(frame.index) == ["a_lo"] and frame.dtypes.eq(float).all()
    assert generate_html(scores).startswith("<!DOCTYPE html>")


@check("scores.txt")
@check("scores.html")
@check("solution.csv")
@check("prediction.csv")
@check("score.py")
def test_the_scoring_program(tmp_path):
    scored = Competition(tmp_path)
    assert scoring_program.main([str(scored.inputs), str(scored.outputs)]) == 0
    lines = (scored.outputs / "scores.txt").read_text().splitlines()
    found = dict(line.split(": ") for line in lines)
    assert len(lines) == 28
    for i, scenario in enumerate(sorted(SCORED), start=1):
        result = score(*scored.pooled[scenario])
        for key in set(result) - {"fpr", "tpr"}:
            assert float(found[f"scenario{i}_{key}"]) == result[key]
    tenth = [float(found[f"scenario{i}_TPR_FPR_1000"]) for i in (1, 2, 3)]
    assert float(found["average_TPR_FPR_1000"]) == np.mean(tenth)
    assert not (scored.outputs / "scores.html").exists()
    assert (scored.outputs / "detailed_results.html").exists()
