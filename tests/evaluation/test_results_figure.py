"""The figure of results: its panels, curves, bands, limits, sizes and files."""

import io

import matplotlib
import numpy as np
import pytest

from mico_competition.audit.limits import max_tpr
from mico_competition.audit.tradeoff import dp_tpr
from mico_competition.evaluation import figures, measure
from mico_competition.evaluation.attack_result import AttackResult
from mico_competition.evaluation.results import Results
from mico_competition.training.accounting import Mechanism

matplotlib.use("agg")


@pytest.fixture(scope="module")
def results():
    rng = np.random.default_rng(0)
    truth = rng.random((6, 500)) < 0.5
    noise = rng.normal(size=truth.shape)
    return Results([AttackResult.of(n, truth, noise + g * truth) for n, g in zip("abc", (0, 1, 2))])


@pytest.fixture(autouse=True)
def closed():
    yield
    import matplotlib.pyplot as plt

    plt.close("all")


def test_both_scales_have_every_curve_and_one_legend(results):
    figure = results.plot()
    linear, log = figure.axes
    assert (linear.get_xscale(), log.get_xscale()) == ("linear", "log")
    for axes in (linear, log):
        assert [line.get_label() for line in axes.lines] == ["a", "b", "c", "guessing"]
        assert axes.get_xlabel() == "False positive rate"
        assert axes.get_ylabel() == "True positive rate"
        assert len(axes.collections) == 3  # a band for each attack
    assert len(figure.legends) == 1 and not linear.get_legend() and not log.get_legend()
    looks = {(line.get_color(), line.get_linestyle()) for line in linear.lines}
    assert len({color for color, _ in looks}) == 4


def test_the_linear_curve_is_the_roc_curve(results):
    drawn = results.plot(scale="linear").axes[0].lines[1].get_xydata()
    assert np.array_equal(drawn, np.column_stack(results["b"].roc()))


@pytest.mark.parametrize("few", [50_000, 1000])  # with fewer, draws are of levels of scores
@pytest.mark.parametrize("models", [4, 25])
def test_a_band_is_the_interval_of_the_tpr_at_each_rate(models, few, monkeypatch):
    monkeypatch.setattr(measure, "FEW", few)
    rng = np.random.default_rng(models)
    truth = rng.random((models, 120)) < 0.5
    scores = rng.normal(size=truth.shape) + rng.exponential(size=120) * truth
    results = Results([AttackResult.of("a", truth, scores, resamples=100)])
    for axes, start in zip(results.plot().axes, (0.0, 1e-3)):
        rates, low, high = figures.band(results["a"].with_bands(), start)
        drawn = axes.collections[0].get_paths()[0].vertices
        assert rates[0] == (0.015 if models == 4 else 0.001)  # the first with an interval
        assert (0.1 in rates and 0.01 in rates) or models == 4
        for rate, *ends in zip(rates[:-1], low, high):
            assert ends == list(results["a"].tpr(rate)[1:])
            at = np.unique(drawn[drawn[:, 0] == rate][:, 1])
            assert at[0] == max(ends[0], start) and at[-1] == max(ends[1], start)


def test_limits_of_epsilon_and_of_mechanisms(results):
    run = Mechanism(1.0, 0.1, 10)
    line = results.plot(scale="linear", epsilon=1.5, delta=1e-6).axes[0].lines[3]
    assert line.get_label() == "limit at ε = 1.5, δ = 1e-6"
    fpr, tpr = line.get_xydata().T
    assert np.array_equal(tpr, dp_tpr(1.5, 1e-6, fpr))
    fpr, tpr = results.plot(scale="linear", limits=run).axes[0].lines[3].get_xydata().T
    assert np.array_equal(tpr, max_tpr(run, fpr))
    mine = {"mine": ([0.0, 1.0], [0.5, 1.0])}
    labels = [line.get_label() for line in results.plot(limits=mine, mu=1).axes[1].lines]
    assert labels[3:] == ["mine", "limit of 1-Gaussian DP", "guessing"]
    with pytest.raises(ValueError, match="limits.'mine'."):
        results.plot(limits={"mine": ([0, 1], [0, 0.5, 1])})


@pytest.mark.parametrize(("width", "inches"), [("single", 3.5), ("double", 7.16), (5.5, 5.5)])
def test_widths_of_columns(results, width, inches):
    figure = results.plot(width=width)
    assert figure.get_size_inches()[0] == pytest.approx(inches)
    assert figure.axes[0].xaxis.label.get_size() == 8
    buffer = io.BytesIO()
    figure.savefig(buffer)  # lays out: the panels and the legend are within the figure
    for artist in (*figure.axes, *figure.legends):
        box = artist.get_tightbbox(figure.canvas.get_renderer())
        assert box.x0 >= -1 and box.x1 <= figure.bbox.x1 + 1 and box.y0 >= -1


def test_files_of_vector_graphics_keep_text(results, tmp_path):
    results.plot(attacks=["c", "a"], file=tmp_path / "roc.svg")
    text = (tmp_path / "roc.svg").read_text()
    assert "<text" in text and "False positive rate" in text
    results.plot(width="single", file=tmp_path / "roc.pdf")
    assert (tmp_path / "roc.pdf").read_bytes().startswith(b"%PDF")
    assert b"/Type3" not in (tmp_path / "roc.pdf").read_bytes()


def test_given_axes_are_drawn_in(results):
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2)
    assert results.plot(ax=axes) is figure
    assert results["a"].plot(ax=axes[0], scale="log") is figure
    assert axes[0].get_legend() and not figure.legends
    with pytest.raises(ValueError, match="2 matplotlib axes"):
        results.plot(ax=axes[0])


def test_a_loaded_result_is_drawn_too(results, tmp_path):
    results.save(tmp_path / "r.json")
    figure = Results.load(tmp_path / "r.json").plot()
    assert [line.get_label() for line in figure.axes[0].lines][:3] == ["a", "b", "c"]


def test_bad_arguments_are_named(results):
    for options, words in (
        ({"scale": "square"}, "scale='square'"),
        ({"width": "wide"}, "width='wide'"),
        ({"width": 0}, "width=0"),
        ({"attacks": ["d"]}, "no result of attack 'd'"),
        ({"epsilon": -1}, "epsilon"),
    ):
        with pytest.raises(ValueError, match=words):
            results.plot(**options)


@pytest.mark.parametrize("limits", [4, (4, 1e-5)], ids=["number", "pair"])
def test_limits_of_another_kind_get_a_sentence(limits):
    with pytest.raises(ValueError, match="Expected limits as a Mechanism.*pass epsilon="):
        figures.limit_curves(limits)
