"""The metrics against scikit-learn, to the last digit; the figure and the table."""

import ast
import importlib
import pickle
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import mico_competition.scoring as scoring
import numpy as np
import pytest
from mico_competition.scoring import (
    generate_html,
    generate_roc,
    generate_table,
    roc_curve,
    score,
    tpr_at_fpr,
    tpr_at_most_fpr,
)

SCORING = Path(__file__).resolve().parents[2] / "scoring"
THRESHOLDS = (10, 100, 500, 1000, 1500, 2000)
COLUMNS = ["Accuracy", "AUC-ROC", "MIA"] + [
    f"TPR @ {rate} FPR" for rate in ("0.001", "0.01", "0.05", "0.1", "0.15", "0.2")
]


def random_case(seed):
    """Truth and predictions of a random length, with more or fewer ties by the seed."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 400))
    truth = rng.permutation(np.append([0, 1], rng.integers(0, 2, n)))
    noise = rng.random(n + 2)
    kinds = (
        noise,
        np.round(noise, 1),
        np.round(0.3 * truth + noise, 2),
        rng.integers(-3, 4, n + 2),
        noise.astype(np.float32),
        rng.integers(0, 2, n + 2).astype(bool),
    )
    return truth, kinds[seed % len(kinds)]


def some_scores():
    rng = np.random.default_rng(7)
    truth = np.tile(np.repeat([0, 1], 100), 50)
    return {
        f"cifar10_{name}": score(truth, truth * gap + rng.normal(size=truth.size))
        for name, gap in (("hi", 0.2), ("inf", 2.0), ("lo", 0.05))
    }


# --- the metrics


@pytest.mark.parametrize("first", range(0, 300, 50))
def test_every_digit_is_that_of_scikit_learn(first):
    oracle = pytest.importorskip("sklearn.metrics")
    for seed in range(first, first + 50):
        truth, predictions = random_case(seed)
        fpr, tpr, _ = oracle.roc_curve(truth, predictions)
        result = score(truth, predictions)
        assert result["fpr"].tobytes() == fpr.tobytes()
        assert result["tpr"].tobytes() == tpr.tobytes()
        assert result["AUC"] == oracle.roc_auc_score(truth, predictions)
        assert result["MIA"] == max(tpr - fpr)
        assert result["accuracy"] == max(1 - (fpr + (1 - tpr)) / 2)
        for k in THRESHOLDS:
            expected = max(tpr[fpr < k / 10_000])
            assert result[f"TPR_FPR_{k}"] == expected
            assert tpr_at_fpr(truth, predictions, max_fpr=k / 10_000) == expected
        full = oracle.roc_curve(truth, predictions, drop_intermediate=False)
        ours = roc_curve(truth, predictions, drop_intermediate=False)
        assert all(np.array_equal(a, b) for a, b in zip(ours, full[:2], strict=True))


def test_the_keys_are_those_of_2022_and_the_numbers_are_plain_floats():
    result = score([0, 1], [0.2, 0.9])
    assert list(result) == ["fpr", "tpr", "AUC", "MIA", "accuracy"] + [
        f"TPR_FPR_{k}" for k in THRESHOLDS
    ]
    assert {type(result[key]) for key in list(result)[2:]} == {float}


def test_lists_arrays_and_other_number_types_give_one_result():
    truth, predictions = random_case(3)
    expected = score(truth, predictions)
    for a, b in (
        (truth.tolist(), predictions.tolist()),
        (truth.astype(bool), predictions.astype(float)),
        (truth.astype(float), list(predictions)),
    ):
        np.testing.assert_equal(score(a, b), expected)


@pytest.mark.parametrize(
    ("truth", "predictions", "auc", "mia", "at_tenth"),
    [
        ([0, 0, 1, 1], [0, 0.1, 0.8, 1], 1.0, 1.0, 1.0),
        ([1, 1, 0, 0], [0, 0.1, 0.8, 1], 0.0, 0.0, 0.0),
        ([0, 1, 0, 1], [0.5] * 4, 0.5, 0.0, 0.0),
    ],
)
def test_known_cases(truth, predictions, auc, mia, at_tenth):
    result = score(truth, predictions)
    assert (result["AUC"], result["MIA"], result["TPR_FPR_1000"]) == (auc, mia, at_tenth)
    assert result["accuracy"] == (1 + mia) / 2


def test_strict_rule_excludes_the_rate_itself_and_the_exact_rule_includes_it():
    truth = [0] * 10 + [1] * 10
    predictions = [0.5] + [0.1] * 9 + [0.4] * 5 + [0.9] * 5
    assert tpr_at_fpr(truth, predictions, max_fpr=0.1) == 0.5
    assert tpr_at_most_fpr(truth, predictions, max_fpr=0.1) == 1.0
    assert tpr_at_fpr(truth, predictions) == tpr_at_fpr(truth, predictions, 0.1)


def test_the_exact_rule_tries_every_threshold_and_is_never_below_the_strict_one():
    # A member and a non-member tie at each value: the listed curve is its two ends alone.
    truth, predictions = [0, 1] * 10, np.repeat(np.arange(10), 2)
    assert roc_curve(truth, predictions)[0].tolist() == [0.0, 0.1, 1.0]
    assert tpr_at_most_fpr(truth, predictions, 0.5) == 0.5
    assert tpr_at_fpr(truth, predictions, 0.5) == 0.1
    assert tpr_at_most_fpr([0, 1], [0.2, 0.9], 0) == 1.0
    for seed in range(60):
        case = random_case(seed)
        for rate in (0.001, 0.1, 0.5, 1):
            assert tpr_at_most_fpr(*case, max_fpr=rate) >= tpr_at_fpr(*case, max_fpr=rate)


@pytest.mark.parametrize("function", [score, tpr_at_fpr, tpr_at_most_fpr, roc_curve])
@pytest.mark.parametrize(
    ("truth", "predictions", "words"),
    [
        ([], [], "true_membership to hold at least two"),
        ([0, 1], [], "predictions to hold at least two"),
        ([1, 1], [0.1, 0.2], "both members"),
        ([0, 0], [0.1, 0.2], "both members"),
        ([0, 1], [0.1, float("nan")], "1 NaN or infinite"),
        ([0, 1], [0.1, float("inf")], "1 NaN or infinite"),
        ([0, 1, 1], [0.1, 0.2], "2 predictions for 3"),
        ([0, 2], [0.1, 0.2], "0 (non-member) or 1"),
        ([0, float("nan")], [0.1, 0.2], "0 (non-member) or 1"),
        ([-1, 1], [0.1, 0.2], "0 (non-member) or 1"),
        ([0.1, 0.9], [0, 1], "solution.csv first"),
        ([[0, 1]], [[0.1, 0.2]], "true_membership to be a flat"),
        ([0, 1], [[0.1], [0.2, 0.3]], "predictions to be a flat"),
        ([0, 1], ["0.1", "0.2"], "predictions to be a flat"),
        ([0, 1], 0.5, "predictions to be a flat"),
        ([0, 1], None, "predictions to be a flat"),
    ],
)
def test_degenerate_input_is_refused_in_one_sentence(function, truth, predictions, words):
    with pytest.raises(ValueError, match=re.escape(words)) as caught:
        function(truth, predictions)
    assert "\n" not in str(caught.value) and str(caught.value).endswith(".")


@pytest.mark.parametrize("rate", [-0.1, 1.5, float("nan"), 10])
@pytest.mark.parametrize("function", [tpr_at_fpr, tpr_at_most_fpr])
def test_a_rate_outside_its_range_is_refused(function, rate):
    with pytest.raises(ValueError, match="max_fpr"):
        function([0, 1], [0.2, 0.9], rate)


def test_the_strict_rule_refuses_a_rate_of_zero():
    with pytest.raises(ValueError, match=r"max_fpr in \(0, 1\]"):
        tpr_at_fpr([0, 1], [0.2, 0.9], 0)


# --- what people look at


def test_the_figure_has_linear_and_logarithmic_axes():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    result = some_scores()["cifar10_inf"]
    figure = generate_roc(result["fpr"], result["tpr"])
    try:
        assert [axes.get_xscale() for axes in figure.axes] == ["linear", "log"]
        assert [axes.get_yscale() for axes in figure.axes] == ["linear", "log"]
        figure.suptitle("cifar10_inf")
        figure.canvas.draw()
        assert plt.get_fignums() == [figure.number]  # so plt.show() shows it
    finally:
        plt.close(figure)


def test_the_figure_shows_intervals_and_one_legend():
    pytest.importorskip("matplotlib").use("Agg")
    import matplotlib.pyplot as plt

    result = some_scores()["cifar10_inf"]
    unknown = (float("nan"), float("nan"))
    band = {0.1: (0.2, 0.4), 0.001: unknown, 0.5: (0.6, 0.8)}
    figure = generate_roc(result["fpr"], result["tpr"], band=band)
    try:
        for axes in figure.axes:
            assert axes.get_legend() is None
            (area,) = axes.collections
            corners = {tuple(point) for point in area.get_paths()[0].vertices.round(6).tolist()}
            assert corners == {(0.1, 0.2), (0.1, 0.4), (0.5, 0.6), (0.5, 0.8)}
        (legend,) = figure.legends
        assert "95% interval" in [text.get_text() for text in legend.get_texts()]
    finally:
        plt.close(figure)


def test_logarithmic_axes_of_equally_many_non_members_begin_at_one_place():
    pytest.importorskip("matplotlib").use("Agg")
    import matplotlib.pyplot as plt

    early = [0, 0.002, 0.004, 1]  # the first false positive comes early, or late
    late = [0, 0.4, 0.402, 1]
    figures = [generate_roc(fpr, [0, 0.5, 0.6, 1]) for fpr in (early, late)]
    try:
        assert {figure.axes[1].get_xlim() for figure in figures} == {(0.001, 1)}
    finally:
        for figure in figures:
            plt.close(figure)


def test_the_figure_refuses_arrays_of_two_lengths():
    with pytest.raises(ValueError, match=r"shapes \(2,\) and \(3,\)"):
        generate_roc([0, 1], [0, 0.5, 1])


def test_with_intervals_the_column_that_ranks_is_text():
    pytest.importorskip("pandas")
    scores = some_scores()
    unknown = (float("nan"), float("nan"))
    ends = dict(zip(scores, [(0.1, 0.2), (0.4444, 1.0), unknown], strict=True))
    intervals = {name: {"TPR_FPR_1000": interval} for name, interval in ends.items()}
    table = generate_table(scores, intervals)
    assert list(table.columns) == COLUMNS
    values = [f"{result['TPR_FPR_1000']:.4f}" for result in scores.values()]
    expected = [f"{values[0]} [0.100, 0.200]", f"{values[1]} [0.444, 1.000]", values[2]]
    assert table["TPR @ 0.1 FPR"].tolist() == expected
    assert table["AUC-ROC"].dtype == float


def test_the_table_has_the_columns_of_2022_and_a_row_a_scenario():
    pytest.importorskip("pandas")
    scores = some_scores()
    table = generate_table(scores)
    assert list(table.columns) == COLUMNS
    assert list(table.index) == list(scores)
    assert table.loc["cifar10_inf", "TPR @ 0.1 FPR"] == scores["cifar10_inf"]["TPR_FPR_1000"]
    assert table.loc["cifar10_lo", "AUC-ROC"] == scores["cifar10_lo"]["AUC"]
    assert {str(dtype) for dtype in table.dtypes} == {"float64"}


@pytest.mark.parametrize("function", [generate_html, generate_table])
@pytest.mark.parametrize("scores", [{}, None, {"a": {}}, {"a": 1}, score([0, 1], [0.2, 0.9])])
def test_what_is_not_scores_is_refused(function, scores):
    with pytest.raises(ValueError, match=r"scores"):
        function(scores)


# --- the package


def test_loading_every_module_leaves_score_the_function():
    for module in pkgutil.iter_modules(scoring.__path__):
        importlib.import_module("mico_competition.scoring." + module.name)
    assert scoring.score is score and callable(score)
    importlib.import_module("mico_competition.scoring.score")
    assert scoring.score is score


def test_importing_every_module_first_leaves_score_the_function():
    code = "import mico_competition.scoring.score; from mico_competition.scoring import score;"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code + "print(score([0, 1], [0, 1])['AUC'])"],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "1.0\n", "")


@pytest.mark.parametrize("path", sorted(SCORING.glob("*.py")), ids=lambda path: path.name)
def test_the_source_is_that_of_python_3_7(path):
    ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 7))


def test_a_score_is_shown_in_a_line_and_is_a_dict_with_all_numbers():
    found = score([0, 0, 1, 1] * 50, np.arange(200))
    assert isinstance(found, dict) and len(found["fpr"]) == len(found["tpr"]) > 50
    words = repr(found)
    assert len(words) < 300 and "\n" not in words and f"'AUC': {found['AUC']:.4f}" in words
    assert f"'fpr': <{len(found['fpr'])} numbers>" in words
    assert pickle.loads(pickle.dumps(found)).keys() == dict(found).keys() == found.keys()


def test_the_package_exports_what_it_says():
    assert sorted(scoring.__all__) == scoring.__all__
    assert all(callable(getattr(scoring, name)) for name in scoring.__all__)
