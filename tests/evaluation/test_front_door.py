"""`mico.evaluate` and `mico.attack`: by hand, equal to the engine on folders, and refusals."""

import numpy as np
import pytest
from helpers_whitebox import trained as trained_mlps
from torch import nn

import mico_competition as mico
from mico_competition.attacks import lira
from mico_competition.attacks.registry import get_attack
from mico_competition.evaluation.cross_fitting import make_task, run
from mico_competition.evaluation.evaluate import evaluate as evaluate_folder
from mico_competition.signals import open_signals
from mico_competition.signals.signals import SIGNALS

LOSSES = np.array([[0.1, 2.0, 0.3, 1.5], [1.9, 0.2, 1.2, 0.1], [0.4, 1.7, 0.2, 1.1]])
MEMBERS = np.array([[1, 0, 1, 0], [0, 1, 0, 1], [1, 0, 1, 0]], bool)
QUICK = {"resamples": 20, "leakage_check": "never"}


def arrays(models=10, records=80, classes=3, seed=0):
    """(logits, labels, membership) of models that fit their members better."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, records)
    membership = rng.random((models, records)) < 0.5
    logits = rng.normal(size=(models, records, classes)) + rng.normal(size=(records, classes))
    logits[:, np.arange(records), labels] += 1.5 * membership
    return logits, labels, membership


def pool_of(**options):
    return mico.ModelPool.from_logits(*arrays(**options))


def out_mean(target, shadow, is_member):
    """The signal less its mean over shadow models that did not see the record."""
    return target - np.where(is_member, np.nan, shadow).sum(0, where=~is_member) / (~is_member).sum(
        0
    )


def test_the_loss_attack_by_hand():
    pool = mico.ModelPool.from_losses(LOSSES, MEMBERS)
    result = mico.evaluate(pool, "loss", **QUICK)["loss"]
    assert np.array_equal(result.scores, -LOSSES) and np.array_equal(result.truth, MEMBERS)
    assert result.auc.value == 1.0  # the losses of members are at most 0.4, of others 1.1 or more


def test_each_target_is_left_out_of_its_own_shadow_models():
    pool = pool_of()
    logit, membership = pool.signal("logit"), pool.membership == 1
    result = mico.evaluate(pool, ["loss", "lira", out_mean], **QUICK)
    for row in range(len(pool)):
        others = np.arange(len(pool)) != row
        given = logit[row], logit[others], membership[others]
        for name, function in (("lira", lira), ("out_mean", out_mean)):
            np.testing.assert_allclose(result[name].scores[row], function(*given), atol=1e-7)
        np.testing.assert_allclose(mico.attack(pool, "lira", row), lira(*given), atol=1e-7)
    assert list(result) == ["loss", "lira", "out_mean"] and result.against == "loss"


def test_one_model_is_attacked_with_all_of_the_pool():
    logits, labels, membership = arrays(models=11)
    pool = mico.ModelPool.from_logits(logits[:10], labels, membership[:10])
    whole = mico.ModelPool.from_logits(logits, labels, membership)
    expected = lira(whole.signal("logit")[10], pool.signal("logit"), membership[:10])
    for name, target, kind in (
        ("lira", logits[10], pool),
        (lira, logits[10].tolist(), pool),
        ("lira", 10, whole),
        (
            "lira",
            whole.signal("loss")[10],
            mico.ModelPool.from_losses(pool.signal("loss"), membership[:10]),
        ),
    ):
        np.testing.assert_allclose(mico.attack(kind, name, target=target), expected, rtol=1e-7)
    some = mico.attack(pool, "lira", target=logits[10], records=[7, 3])
    np.testing.assert_allclose(some, expected[[7, 3]])
    assert mico.attack(pool, "lira", target=logits[[10, 10]]).shape == (2, 80)
    both = mico.attack(pool, "rmia", target=[-1, 0])
    assert np.array_equal(both[1], mico.attack(pool, "rmia", target=0)) and both.shape == (2, 80)


def test_an_unknown_row_is_a_target_and_no_shadow():
    logits, labels, membership = arrays(models=11)
    known = membership.astype(np.int8)
    known[4] = -1
    pool = mico.ModelPool.from_logits(logits, labels, known)
    rest = np.arange(11) != 4
    without = mico.ModelPool.from_logits(logits[rest], labels, membership[rest])
    given, expected = mico.attack(pool, "lira", 4), mico.attack(without, "lira", logits[4])
    np.testing.assert_allclose(given, expected, rtol=1e-9)
    found, other = (mico.evaluate(p, "lira", **QUICK)["lira"] for p in (pool, without))
    np.testing.assert_allclose(found.scores, other.scores, rtol=1e-9)


def test_a_row_that_is_known_in_part_is_measured_where_it_is_known():
    logits, labels, membership = arrays(models=11)
    known = membership.astype(float)
    known[4, 10:] = np.nan
    pool = mico.ModelPool.from_logits(logits, labels, known)
    found = mico.evaluate(pool, ["lira"], resamples=20)["lira"]
    rest = np.arange(11) != 4
    without = mico.ModelPool.from_logits(logits[rest], labels, membership[rest])
    assert found.scores.shape == (11, 80) and found.measured.members == membership[rest].sum() + (
        membership[4, :10].sum()
    )
    np.testing.assert_allclose(found.scores[4], mico.attack(without, "lira", logits[4]), rtol=1e-9)
    assert np.array_equal(found.truth[4, :10], membership[4, :10])


def test_records_that_all_or_no_models_hold():
    logits, labels, membership = arrays()
    membership[:, 0], membership[:, 1] = True, False
    membership[:, 2], membership[3, 2] = False, True  # held by one target alone
    pool = mico.ModelPool.from_logits(logits, labels, membership)
    result = mico.evaluate(pool, ["loss", "lira", "rmia", "eb"], **QUICK)
    assert all(np.isfinite(one.scores).all() for one in result.values())


@pytest.mark.slow
def test_a_folder_gives_what_the_engine_gives(small_fleet, data, tmp_path):
    pool = mico.ModelPool.open(small_fleet, "digits_inf", data, cache=tmp_path)
    names = ["lira", "eb", "trace"]
    source = open_signals(small_fleet, "digits_inf", data, cache=tmp_path)
    task = make_task(source, "train")
    wide_source = open_signals(small_fleet, "digits_inf", data, cache=tmp_path, records="all")
    wide = make_task(wide_source, "train")
    expected = evaluate_folder(
        task, [get_attack("eb"), get_attack("trace")], against=get_attack("lira"), wide=wide
    )
    result = mico.evaluate(pool, names)
    for row in expected.rows:
        own = result[row.name]
        used = wide if row.name == "trace" else task
        assert np.array_equal(own.scores, run(used, get_attack(row.name)))
        assert {k: e.value for k, e in own.measured.estimates.items()} == {
            k: e.value for k, e in row.measured.estimates.items()
        }
        assert own.auc[1:] == (row.measured["AUC"].low, row.measured["AUC"].high)
    gain = result["eb"].gain["AUC"], expected.rows[1].gain["AUC"]
    assert gain[0].value == gain[1].value and gain[0].low == gain[1].low
    dev = pool.fleet.rows("dev")
    assert np.array_equal(
        mico.attack(pool, "eb", dev), run(make_task(source, "dev", scored=False), get_attack("eb"))
    )
    traces = run(make_task(wide_source, "dev", scored=False), get_attack("trace"))
    assert np.array_equal(mico.attack(pool, "trace", dev), traces)
    assert repr(pool).startswith("ModelPool(digits_inf, ")
    with pytest.raises(ValueError, match="the row of a model of the challenge folder"):
        mico.attack(pool, "lira", target=np.zeros((5, 3)))
    with pytest.raises(ValueError, match="have challenge points of their own"):
        pool.select(models=[0])


@pytest.mark.slow
def test_models_of_a_folder_give_the_same_signals_in_memory(small_fleet, data, tmp_path):
    source = open_signals(
        small_fleet, "digits_inf", data, cache=tmp_path, records="all", phases=["train"]
    )
    rows = range(len(source.fleet))
    known = source.fleet.known_membership
    inputs = data.inputs(np.arange(len(data)))
    pool = mico.ModelPool.from_models([source.load(r) for r in rows], inputs, data.labels, known)
    of_logits = mico.ModelPool.from_logits([source.logits(r) for r in rows], data.labels, known)
    for name in SIGNALS:
        assert np.array_equal(pool.source.get(name), source.get(name)), name
        if name != "gradient_norm":
            assert np.array_equal(of_logits.source.get(name), source.get(name)), name
    task = make_task(source, "train", records="all")
    result = mico.evaluate(pool, ["lira", "rmia"], **QUICK)
    for name in result:
        assert np.array_equal(result[name].scores, run(task, get_attack(name)))


def sequential(model):
    return nn.Sequential(model.mlp[0], nn.Tanh(), nn.Dropout(0.5), model.mlp[2])


@pytest.mark.slow
def test_white_box_attacks_run_on_a_sequential_and_beat_the_outputs():
    records, models, membership, _ = trained_mlps()
    pool = mico.ModelPool.from_models(
        [sequential(model) for model in models], records.x, records.labels, membership
    )
    result = mico.evaluate(pool, ["lira", "trace", "whitebox"], resamples=200)
    difference = result.compare("whitebox", "lira", fpr=0.01)
    assert difference.low > 0
    fresh = mico.attack(
        pool.select(models=np.arange(1, len(models))), "whitebox", target=sequential(models[0])
    )
    auc = (fresh[membership[0]][:, None] > fresh[~membership[0]]).mean()
    assert auc > 0.7


def test_functions_that_use_the_targets_label_are_refused():
    def cheat(problem):
        return problem.known_membership[problem.targets[:, None], problem.columns].astype(float)

    with pytest.raises(ValueError, match="Attack cheat leaks"):
        mico.evaluate(pool_of(records=30), cheat, resamples=20)


def test_an_attack_from_a_file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "def attack(problem):\n    return problem.gather('logit').score_each(f)\n"
        "def f(target, shadow, is_member, target_index=None):\n    return target\n"
    )
    result = mico.evaluate(pool_of(), ["threshold", f"{path}:attack"], **QUICK)
    assert result[f"{path}:attack"].auc == result["threshold"].auc


def two_arguments(target, shadow):
    return target


def bad_shape(target, shadow, is_member):
    return target[:3]


MISTAKES = {
    "unknown": ("lria", r"Unknown attack 'lria': did you mean lira"),
    "twice": (["lira", "lira"], "two named lira"),
    "none": ([], "one attack or more"),
    "a number": (3, "an attack's name, a function or an Attack, got int"),
    "arguments": (two_arguments, r"two_arguments to take \(target, shadow, is_member\)"),
    "of Python": (len, "got Python's len: write a function that returns a score for each point"),
    "an array's": (np.mean, r"mean takes one argument, which is a Problem, .*to get arrays"),
    "shape": (bad_shape, r"Attack bad_shape cannot run here. Expected 80 scores.* \(3,\)"),
    "white box": (["loss", "whitebox"], "whitebox needs the models themselves .*from_models"),
    "queries": ("stack", "stack needs the models themselves .*holds logits"),
    "scenario": ("winner-2023", "winner-2023 .*take one of his formulas"),
    "as sent": ("first-principles-sent", "on your own models, take first-principles"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_gets_a_sentence(mistake):
    attacks, sentence = MISTAKES[mistake]
    with pytest.raises(ValueError, match=sentence):
        mico.evaluate(pool_of(), attacks)


@pytest.mark.parametrize(
    ("name", "models", "needs"), [("lira", 2, 3), ("eb", 3, 4), ("neural", 4, 5), ("rmia", 1, 3)]
)
def test_few_models(name, models, needs):
    pool = pool_of(models=models)
    with pytest.raises(
        ValueError, match=f"{name} needs {needs} models .* has {models}: train more; loss"
    ):
        mico.evaluate(pool, ["loss", name])
    whole = mico.evaluate(pool_of(models=needs), name, **QUICK)
    assert whole[name].scores.shape == (needs, 80)
    row = next(row for row in mico.list_attacks() if name in (row.name, *row.aliases))
    assert row.least_shadows == needs - 1


@pytest.mark.parametrize(("name", "models"), [("lira", 1), ("eb", 2)])
def test_few_shadow_models_of_one_target(name, models):
    logits, labels, membership = arrays()
    pool = mico.ModelPool.from_logits(logits[:models], labels, membership[:models])
    able = "loss, entropy" + ", calibrate-loss-midpoint, lira, rmia" * (models > 1)
    words = f"{name} needs {models + 1} shadow models, .* has {models} .*more; {able} run with"
    with pytest.raises(ValueError, match=words):
        mico.attack(pool, name, target=logits[9])
    with pytest.raises(ValueError, match="finite logits of target, got NaN"):
        mico.attack(pool, "loss", target=logits[9] * np.nan)


def test_many_models_of_few_records():
    rng = np.random.default_rng(0)
    membership = rng.random((400, 10)) < 0.5
    losses = rng.exponential(1, (400, 10)) * np.where(membership, 0.5, 1)
    pool = mico.ModelPool.from_losses(losses, membership)
    result = mico.evaluate(pool, ["loss", "lira"], resamples=100)
    assert result["lira"].scores.shape == (400, 10) and result["lira"].auc.low > 0.6


def test_a_function_of_the_package_gets_the_signal_that_it_is_made_for():
    pool = pool_of()
    result = mico.evaluate(pool, ["loss", mico.rmia], **QUICK)
    expected = mico.evaluate(pool, "rmia", **QUICK)["rmia"].scores
    np.testing.assert_allclose(result["rmia"].scores, expected, atol=1e-6)


def loss_itself(target, shadow, is_member):
    return -target


def test_a_function_chooses_its_signal(monkeypatch):
    monkeypatch.setattr(loss_itself, "signal", "loss", raising=False)
    result = mico.evaluate(pool_of(), ["loss", loss_itself], **QUICK)
    np.testing.assert_allclose(result["loss_itself"].scores, result["loss"].scores, rtol=1e-8)
    monkeypatch.setattr(loss_itself, "signal", "lss")
    with pytest.raises(ValueError, match="signal of loss_itself to be one of loss, .* got 'lss'"):
        mico.evaluate(pool_of(), loss_itself)


def test_options_that_are_refused():
    for options, sentence in (
        ({"folds": 1}, "folds=1 >= 2"),
        ({"resamples": 0}, "resamples=0 >= 1"),
        ({"leakage_check": "often"}, "leakage_check='often'"),
    ):
        with pytest.raises(ValueError, match=sentence):
            mico.evaluate(pool_of(), "loss", **options)


def test_what_is_no_pool():
    for call in (mico.evaluate, mico.attack):
        with pytest.raises(ValueError, match="pool to be a ModelPool, got ndarray"):
            call(arrays()[0], "lira", **({"target": 0} if call is mico.attack else {}))


def test_pairs_of_models_that_are_left_out_together():
    logits, labels, membership = arrays(models=4)
    membership[1], membership[3] = ~membership[0], ~membership[2]
    pool = mico.ModelPool.from_logits(logits, labels, membership)
    assert mico.evaluate(pool, "rmia", **QUICK)["rmia"].scores.shape == (4, 80)
    with pytest.raises(ValueError, match="has 4, some of which are left out together: train more"):
        mico.evaluate(pool, "eb")  # which needs 3 shadow models


def test_one_model_without_shadows():
    result = mico.evaluate(pool_of(models=1), ["loss", "entropy"], **QUICK)
    assert np.isnan(result["loss"].auc.low)
    with pytest.raises(ValueError, match="lira needs 2 shadow models, .* has 1 beside the target"):
        mico.attack(pool_of(models=2), "lira", 0)


def test_a_pool_of_losses():
    pool = mico.ModelPool.from_losses(pool_of().signal("loss"), pool_of().membership)
    assert set(mico.evaluate(pool, ["loss", "lira", "rmia", "eb"], **QUICK)) == {
        "loss",
        "lira",
        "rmia",
        "eb",
    }
    for name in ("entropy", "neural"):
        with pytest.raises(ValueError, match=f"{name} needs the models' logits, .* holds losses"):
            mico.evaluate(pool, name)


def test_targets_that_are_refused():
    logits, labels, membership = arrays()
    pool = mico.ModelPool.from_logits(logits, labels, membership)
    for target, sentence in (
        (logits[3], "has the outputs of model 3: pass target=3"),
        (logits[3][:, :2], r"logits of shape \[records, classes\] = \(80, 3\).* got \(80, 2\)"),
        (10, "rows 0..9 of the pool, got 10"),
        (nn.Linear(2, 2), "target"),
        (np.full((80, 3), 1 / 3), "from_probabilities"),
    ):
        with pytest.raises(ValueError, match=sentence):
            mico.attack(pool, "lira", target=target)


def test_no_model_that_is_known_everywhere():
    logits, labels, membership = arrays()
    known = membership.astype(float)
    known[:, 5] = np.nan
    pool = mico.ModelPool.from_logits(logits, labels, known)
    with pytest.raises(
        ValueError, match=r"pool.select\(records=\(pool.membership >= 0\).all\(0\)\)"
    ):
        mico.evaluate(pool, "lira")
    some = pool.select(records=(pool.membership >= 0).all(0))
    assert mico.evaluate(some, "lira", **QUICK)["lira"].scores.shape == (10, 79)


def test_gains_over_another_attack():
    result = mico.evaluate(pool_of(), ["lira", "rmia"], against="loss", **QUICK)
    assert list(result) == ["loss", "lira", "rmia"] and result.against == "loss"
    assert mico.evaluate(pool_of(), ["lira", "rmia"], against="rmia", **QUICK).against == "rmia"


@pytest.mark.parametrize("rounding", ["float16", "float32", "log_softmax", "shift"])
def test_a_target_that_is_a_pool_model_up_to_rounding_is_left_out(rounding, caplog):
    logits, labels, membership = arrays(models=20)
    pool = mico.ModelPool.from_logits(logits, labels, membership)
    copy = {
        "float16": lambda z: z.astype(np.float16),
        "float32": lambda z: z.astype(np.float32),
        "log_softmax": lambda z: z - np.log(np.exp(z).sum(-1, keepdims=True)),
        "shift": lambda z: z + 1e-12,
    }[rounding](logits[3])
    scores = mico.attack(pool, "lira", target=copy)
    np.testing.assert_allclose(scores, mico.attack(pool, "lira", target=3), atol=0.05)
    assert "model 3 of the pool up to rounding" in caplog.text


def test_no_other_model_counts_as_a_copy(caplog):
    for seed in range(20):
        logits, labels, membership = arrays(models=4, records=30, seed=seed)
        pool = mico.ModelPool.from_logits(logits[:3], labels, membership[:3])
        near = logits[:1] + 0.3 * (logits[3:] - logits[:1])  # nearer than any model of the pool
        mico.attack(pool, "rmia", target=np.concatenate([logits[3:], near]))
    assert not caplog.records


def test_membership_and_labels_of_a_pool_are_read_only():
    pool = pool_of()
    for values in (pool.membership, pool.labels):
        with pytest.raises(ValueError, match="read-only"):
            values[...] = 0


@pytest.mark.parametrize(
    "options", [{"seed": "a"}, {"seed": -1}, {"resamples": 1.5}, {"folds": 2.5}]
)
def test_numbers_that_are_not_whole_are_named(options):
    with pytest.raises(ValueError, match=f"{next(iter(options))}=.* to be a whole number"):
        mico.evaluate(pool_of(), "loss", **{**QUICK, **options})


def raises_its_own(target, shadow, is_member):
    return {}["absent"]


def test_an_error_of_an_own_attack_says_whose_it_is():
    with pytest.raises(KeyError) as caught:
        mico.evaluate(pool_of(), raises_its_own, **QUICK)
    assert "This happened in attack raises_its_own." in caught.value.__notes__


def test_a_rate_that_is_no_number_is_named():
    result = mico.evaluate(mico.ModelPool.from_losses(LOSSES, MEMBERS), "loss", **QUICK)["loss"]
    for fpr in ("a", None):
        with pytest.raises(ValueError, match=r"fpr=.* in \(0, 1\)"):
            result.tpr(fpr=fpr)
