"""The registry: each name is what it says; what it needs; what bad input meets."""

from dataclasses import replace

import numpy as np
import pytest
from helpers_attacks import naive_lira, tpr
from helpers_problem import ATTACKS, Arrays, make_source

from mico_competition.attacks import (
    WINNER_2023,
    first_principles,
    quantile_regression,
    registry,
    winner_2023,
)
from mico_competition.attacks.registry import (
    BLACK_BOX,
    QUERIES,
    ROWS,
    TABLE,
    WHITE_BOX,
    Row,
    get_attack,
)
from mico_competition.attacks.winners.winner_2023 import winners_choice
from mico_competition.cli import main
from mico_competition.cli.attack_options import check_attack_names
from mico_competition.competition.table import SCENARIOS
from mico_competition.evaluation.cross_fitting import make_task, problems, run
from mico_competition.evaluation.custom import answer, find_attack, is_ours
from mico_competition.evaluation.evaluate import Options, evaluate

SHADOWLESS = {"threshold", "loss", "entropy", "modified-entropy"}


@pytest.fixture(scope="module")
def source():
    return make_source(train=30, dev=10, asked=60, points=300, shift=2.0)


@pytest.fixture(scope="module")
def dev(source):
    ((_, problem),) = problems(make_task(source, "dev"), ATTACKS["eb"])
    return problem


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("phase", ["train", "dev"])
def test_every_attack_finds_members_in_every_phase(source, name, phase):
    task = make_task(source, phase)
    scores = run(task, ATTACKS[name])
    assert scores.shape == task.truth.shape and np.isfinite(scores).all()
    assert tpr(scores, task.truth) > (0.15 if name in SHADOWLESS else 0.3)
    assert ATTACKS[name].name == name and ATTACKS[name].title and ATTACKS[name].source


@pytest.mark.slow
def test_each_target_for_itself_gets_the_same_scores(source, dev):
    """What an attack says of a model does not hang on who else is attacked."""
    for name, attack in ATTACKS.items():
        both = answer(attack, dev)
        one = answer(attack, replace(dev, targets=dev.targets[3:4], columns=dev.columns[3:4]))
        np.testing.assert_allclose(one, both[3:4], rtol=1e-9, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_winner_by_scenario(scenario):
    source = make_source(scenario=scenario, train=12, dev=2)
    task = make_task(source, "dev")
    signal, formula = winners_choice(scenario)
    assert (signal, formula) == WINNER_2023.get(scenario, (signal, formula))
    values = source.get(signal)
    member = source.fleet.known_membership[:12] == 1
    found = run(task, ATTACKS["winner-2023"])
    for row, columns in zip((0, 1), task.columns):
        expected = winner_2023(values[12 + row], values[:12], member, formula=formula)[columns]
        np.testing.assert_allclose(found[row], expected, rtol=1e-12)
    assert winners_choice("digits_lo") == ("loss", "standardised")
    assert winners_choice("baskets_inf") == ("confidence", "midpoint")


@pytest.mark.slow
def test_lira_through_the_registry_is_the_loop_over_points(source, dev):
    signal, member = source.get("logit"), dev.is_member
    for online in (True, False):
        found = answer(ATTACKS["lira-online" if online else "lira-offline"], dev)
        for row, columns in enumerate(dev.columns):
            target, shadow = signal[dev.targets[row], columns], signal[:30][:, columns]
            expected = naive_lira(target, shadow, member[:, columns], online=online)
            close = np.abs(expected) < 7  # the naive one rounds to infinity
            np.testing.assert_allclose(found[row][close], expected[close], rtol=1e-6, atol=1e-6)
            assert close.mean() > 0.7


def test_first_principles_is_one_model_at_a_time(source, dev):
    attack = get_attack("first-principles", global_variance=True)
    found, signal = answer(attack, dev), source.get("logit")
    columns = dev.columns[4]
    expected = first_principles(
        signal[dev.targets[4], columns],
        signal[:30][:, columns],
        dev.is_member[:, columns],
        global_variance=True,
    )
    np.testing.assert_allclose(found[4], expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("lora", "lira"),
        ("lria", "lira"),
        ("LiRA", "lira"),
        ("white-box", "whitebox"),
        ("rmai", "rmia"),
        ("first_principles", "first-principles"),
        ("winner", "winner-2023"),
        ("eb-los", "eb-loss"),
        ("baveria", "bavaria"),
        ("lira_online_global ", "lira-online-global"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(name, near):
    with pytest.raises(ValueError, match=f"Unknown attack '{name}': did you mean {near}\\b"):
        get_attack(name)


def test_a_name_like_none_of_them_is_answered_with_the_list():
    for name in ("xyz", "", "gibberish"):
        with pytest.raises(ValueError, match=f"Unknown attack '{name}': `mico attacks` lists all"):
            get_attack(name)


def test_the_baseline_of_evaluations_is_answered_with_the_formulas_that_it_is_chosen_from():
    with pytest.raises(ValueError, match="winner-best is no attack but a row of `mico evaluate`"):
        get_attack("winner-best")


def test_every_row_gives_the_attack_that_it_describes():
    for name, row in ROWS.items():
        attack = get_attack(name)
        assert (attack.name, attack.title, attack.source) == (name, row.title, row.source)
        assert attack.white_box == (row.access == WHITE_BOX) and callable(attack.run)
        assert row.cost and row.access in (BLACK_BOX, QUERIES, WHITE_BOX)
        assert len(row.title) < 100 and "\n" not in row.title + row.source
    assert len(ROWS) == len(TABLE) + sum(len(row.aliases) for row in TABLE)  # no name twice


def test_aliases_are_the_attacks_that_they_name(source, dev):
    assert get_attack("whitebox").run is get_attack("best").run
    np.testing.assert_array_equal(
        answer(get_attack("lira"), dev), answer(get_attack("lira-online"), dev)
    )
    for name in ("lira", "best"):
        row = ROWS[name]
        named = replace(row, name=row.alias_of, alias_of="", aliases=(name,))
        assert named == ROWS[row.alias_of]


def test_what_the_runner_up_sent_knows_of_no_membership(source):
    """His OUT sets are chance: labels of shadow models change nothing, and members stand out."""
    task = make_task(source, "dev")
    ((_, problem),) = problems(task, ATTACKS["first-principles-sent"])
    found = answer(ATTACKS["first-principles-sent"], problem)
    known_membership = problem.known_membership.copy()
    known_membership[problem.shadows] = 1 - known_membership[problem.shadows]
    np.testing.assert_array_equal(
        answer(
            ATTACKS["first-principles-sent"], replace(problem, known_membership=known_membership)
        ),
        found,
    )
    correct = answer(get_attack("first-principles", global_variance=True), problem)
    assert not np.array_equal(correct, found)
    assert tpr(found, task.truth) > 0.3


def test_an_attack_touches_one_place(monkeypatch, capsys, source):
    """A row, and the function that it names: the command line has it, and an evaluation."""
    function = "mico_competition.attacks.scores.calibration:calibrate"
    row = Row("mine", "logit less its mean", "here", function, "logit", {"centre": "all"})
    monkeypatch.setitem(ROWS, "mine", row)
    assert main(["attacks", "mine"]) == 0
    assert "logit less its mean\n" in capsys.readouterr().out
    check_attack_names(["mine"])
    attack = find_attack("mine")
    task = make_task(source, "train")
    found = evaluate(task, [attack], against=ATTACKS["eb"], options=Options(resamples=20))
    assert [row.name for row in found.rows] == ["eb", "mine"] and is_ours(attack)
    with pytest.raises(ValueError, match="Unknown attack 'mines': did you mean mine"):
        find_attack("mines")


def test_a_missing_package_is_answered_with_the_line_that_installs_it(monkeypatch):
    row = Row("needs", "", "", "mico_competition.attacks.stacking.black_box:stack")
    monkeypatch.setitem(ROWS, "needs", row)

    def missing(name):
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setattr(registry, "import_module", missing)
    with pytest.raises(ValueError, match="needs the package torch.* `pip install -e"):
        get_attack("needs")


def test_options_that_an_attack_has_not_are_refused():
    assert get_attack("first-principles", online_attack=True).name.endswith(" --online_attack")
    with pytest.raises(ValueError, match="Attack eb has no option online_attack"):
        get_attack("eb", online_attack=True)


# --- what they need


@pytest.mark.parametrize("name", ATTACKS)
def test_each_attack_works_with_as_few_shadows_as_it_says(source, dev, name):
    attack = ATTACKS[name]
    assert (attack.least_shadows == 0) == (name in SHADOWLESS)
    few = replace(dev, shadows=dev.shadows[: attack.least_shadows])
    assert np.isfinite(answer(attack, few)).all()
    if attack.least_shadows > 2:
        with pytest.raises(ValueError, match="at least 3 shadow models"):
            answer(attack, replace(few, shadows=few.shadows[:-1]))


def test_what_looks_at_no_shadow_needs_none():
    source = make_source(train=0, dev=4)
    for name in SHADOWLESS:
        scores = run(make_task(source, "dev"), ATTACKS[name])
        columns = make_task(source, "dev").columns
        signal = source.get({"threshold": "loss"}.get(name, name.replace("-", "_")))
        np.testing.assert_array_equal(scores, np.take_along_axis(signal, columns, axis=1))
    with pytest.raises(ValueError, match="no train models of digits_inf"):
        run(make_task(source, "dev"), ATTACKS["eb"])


def test_quantile_takes_no_copy_of_the_shadows_for_each_target(source, monkeypatch):
    """With all records asked of every target, that would be targets times the fleet."""
    task = make_task(source, "dev", records="all")
    ((_, problem),) = problems(task, ATTACKS["quantile"])
    sizes, real = [], np.ix_

    def noted(*indices):
        sizes.append(np.prod([len(index) for index in indices]))
        return real(*indices)

    monkeypatch.setattr(np, "ix_", noted)
    monkeypatch.setattr("mico_competition.attacks.scores.quantile.PAIRS", 500)
    found = answer(ATTACKS["quantile"], problem)
    assert max(sizes) <= 30 * 500 < 30 * problem.columns.size
    signal, shadow = source.get("logit"), source.get("logit")[:30]
    monkeypatch.undo()
    pairs = np.argwhere(~problem.is_member)
    pairs = pairs[np.random.default_rng(0).permutation(len(pairs))[:500]]
    others = [np.delete(shadow[:, column], row) for row, column in pairs]
    for row in (0, 7):
        expected = quantile_regression(
            signal[30 + row],
            np.stack([shadow.mean(axis=0), shadow.std(axis=0, ddof=1)], axis=1),
            shadow[tuple(pairs.T)],
            np.array([[one.mean(), one.std(ddof=1)] for one in others]),
        )
        np.testing.assert_allclose(found[row], expected, rtol=1e-6)


# --- bad input

NEEDS_SPREAD = [
    n
    for n in ATTACKS
    if n.startswith(("lira", "bavaria", "eb", "first")) or n.endswith("standardised")
]


@pytest.mark.parametrize("name", NEEDS_SPREAD)
def test_constant_signals_are_refused(name):
    source = make_source(train=10, dev=2)
    signals = {key: np.full((12, 150), 0.5) for key in source._signals}
    signals["loss"] = -signals["loss"]
    task = make_task(Arrays(source.fleet, signals), "dev")
    with pytest.raises(ValueError, match="constant|vary"):
        run(task, ATTACKS[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", ATTACKS)
def test_points_that_every_shadow_saw_have_a_score(name):
    """As in SST-2, where 1.3 OUT models a point are usual."""
    source = make_source(train=10, dev=4, share_in=0.9, points=200)
    fleet = source.fleet
    seen = np.where(np.arange(200) % 4 == 0, 1, fleet.known_membership[:10])
    known_membership = np.concatenate([seen, fleet.known_membership[10:]]).astype(np.int8)
    task = make_task(
        Arrays(replace(fleet, known_membership=known_membership), source._signals), "dev"
    )
    assert np.isfinite(run(task, ATTACKS[name])).all()
    train = make_task(
        Arrays(replace(fleet, known_membership=known_membership), source._signals), "train"
    )
    assert np.isfinite(run(train, ATTACKS[name])).all()


@pytest.mark.parametrize("name", ATTACKS)
def test_a_model_that_gives_nan_is_refused(name):
    source = make_source(train=10, dev=4)
    signals = {
        key: np.where(np.arange(14)[:, None] == 3, np.nan, v) for key, v in source._signals.items()
    }
    broken = Arrays(source.fleet, signals)
    if name in SHADOWLESS:
        assert np.isfinite(run(make_task(broken, "dev"), ATTACKS[name])).all()  # it does not look
    with pytest.raises(ValueError, match="digits_inf/train/model_3|finite"):
        run(make_task(broken, "train" if name in SHADOWLESS else "dev"), ATTACKS[name])


def test_an_attack_is_the_same_however_it_is_asked_for():
    plain = get_attack("first-principles")
    assert get_attack(name="first-principles", online_attack=False) == plain
    one = get_attack("first-principles", online_attack=True, logit_scaling=True)
    assert one == get_attack("first-principles", logit_scaling=True, online_attack=True)
    assert is_ours(plain) and is_ours(one) and one.name.endswith(" --online_attack")
    assert not is_ours(replace(one, name="eb"))


def test_attack_files_of_earlier_versions_find_their_names():
    from mico_competition.attacks.problem import Problem
    from mico_competition.evaluation import problem as former

    assert former.Problem is Problem
    assert {"told", "own"} <= set(dir(former.Problem))
