"""Attacks get copies: what one does to its arrays reaches nobody else, and labels are in none."""

import types
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers_problem import ATTACKS, whole_source

from mico_competition.attacks.masked_source import frozen, sealed
from mico_competition.attacks.problem import Attack
from mico_competition.evaluation.cross_fitting import MaskedSource, make_task, problems, run
from mico_competition.evaluation.custom import answer
from mico_competition.evaluation.evaluate import Options, evaluate
from mico_competition.evaluation.predict import attack_folder
from mico_competition.evaluation.study import study
from mico_competition.signals import HIDDEN

FEW = Options(resamples=20, blind_check="never")


def loss(problem):
    return problem.source.get("loss")[problem.targets[:, None], problem.columns]


def sorts_columns(problem):
    problem.columns.sort(axis=1)


def sorts_after_asking_for_leave(problem):
    columns = np.asarray(problem.columns)
    columns.setflags(write=True)
    columns.sort(axis=1)


def sorts_the_base(problem):
    base = problem.columns
    while isinstance(base.base, np.ndarray):
        base = base.base
    base.setflags(write=True)
    base[:] = base[::-1]


def writes_a_signal(problem):
    problem.source.get("logit")[:] = 0


def writes_what_is_told(problem):
    problem.known_membership[:] = 1


def writes_the_fleet(problem):
    problem.source.fleet.challenge[:] = 0


def writes_logits(problem):
    problem.source.logits(0)[:] = 0


@pytest.mark.parametrize(
    "change",
    [
        sorts_columns,
        sorts_after_asking_for_leave,
        sorts_the_base,
        writes_a_signal,
        writes_what_is_told,
        writes_the_fleet,
        writes_logits,
    ],
)
def test_arrays_are_read_only(change):
    ((_, problem),) = problems(make_task(whole_source(), "dev"), ATTACKS["eb"])
    with pytest.raises(ValueError, match=r"read-only|WRITEABLE"):
        change(sealed(problem))


def through_a_tensor(problem):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, that numpy's array is not writable
        for array in (problem.source.get("logit"), problem.known_membership, problem.columns):
            torch.from_numpy(array).zero_()


def the_dataset(problem):
    problem.source.data.x.zero_()
    problem.source.data.labels.fill_(7)


def a_model(problem):
    with torch.no_grad():
        problem.source.load(0).weight.zero_()


def what_is_gathered(problem):
    gathered = problem.gather("logit")
    for array in (gathered.target, gathered.shadow, gathered.is_member):
        array.setflags(write=True)
        array[:] = 0


def the_containers(problem):
    problem.source._signals["logit"] = np.zeros_like(problem.source.get("logit"))
    problem.source.fleet = None
    problem.source.get = None


def within_its_attack(problem):
    """A function of arrays that writes to what it is given."""

    def score(target, shadow, is_member, target_index=None):
        for array in (target, shadow, is_member):
            array.setflags(write=True)
            array[:] = 0
        return target

    problem.gather("logit").score(score)


CHANGES = [
    through_a_tensor,
    the_dataset,
    a_model,
    what_is_gathered,
    the_containers,
    within_its_attack,
]


def changing(change):
    def attack(problem):
        scores = np.array(loss(problem))
        change(problem)
        return scores

    return Attack(change.__name__, "", "", attack)


@pytest.mark.slow
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("phase", ["train", "dev"])
def test_what_one_attack_changes_the_next_does_not_see(change, phase):
    source = whole_source()
    task = make_task(source, phase)
    looks = Attack(
        "looks",
        "",
        "",
        lambda p: (
            loss(p)
            + p.source.logits(0).sum()
            + p.source.data.x.sum().item()
            + p.source.load(0).weight.sum().item()
        ),
    )
    expected = {attack.name: run(task, attack) for attack in (looks, ATTACKS["eb"])}
    found = evaluate(task, [changing(change), looks, ATTACKS["eb"]], options=FEW)
    alone = evaluate(task, [looks, ATTACKS["eb"]], options=FEW)
    for row, other in zip(found.rows[2:], alone.rows[1:]):
        assert row.measured.estimates["AUC"].value == other.measured.estimates["AUC"].value
    for attack in (looks, ATTACKS["eb"]):
        np.testing.assert_array_equal(run(task, attack), expected[attack.name])


@pytest.mark.slow
def test_a_study_and_folds_get_fresh_copies_each_time():
    task = make_task(whole_source(), "train")
    attack = replace(changing(through_a_tensor), leaves_one_out=False)
    np.testing.assert_array_equal(
        run(task, attack), run(task, replace(attack, run=loss, name="loss"))
    )
    spoilt = study(task, attack, [4], resamples=10, repeats=2)[0]
    clean = study(task, replace(attack, run=loss), [4], resamples=10, repeats=2)[0]
    assert spoilt.estimates["AUC"].value == clean.estimates["AUC"].value


def test_what_a_named_attack_keeps_is_out_of_reach():
    """A stranger that asks for the decoders' own work gets work of its own."""
    from helpers_whitebox import whitebox_problem

    from mico_competition.attacks.registry import get_attack
    from mico_competition.attacks.whitebox.mlp.features import first_pass

    problem, _ = whitebox_problem()
    best = get_attack("joint")
    expected = answer(best, problem)

    def spoils(given):
        kept = first_pass(given)
        kept.trace[:] = 0
        for decoded in kept.joint.values():
            decoded[:] = 0
        return np.zeros(given.columns.shape)

    answer(Attack("joint", "", "", spoils), problem)
    np.testing.assert_array_equal(answer(best, problem), expected)


def test_frozen_arrays():
    for array in (np.arange(6).reshape(2, 3), np.zeros((0, 4)), np.array(3.0), np.eye(3)[:, ::2].T):
        found = frozen(array)
        np.testing.assert_array_equal(found, array)
        assert found.dtype == array.dtype and not found.flags.writeable
        assert not np.shares_memory(found, array) or not array.size


def reached(thing, seen, depth=0):
    """Every array that attributes, containers, closures and bound methods lead to."""
    if id(thing) in seen or depth > 12 or isinstance(thing, (type, types.ModuleType)):
        return
    seen[id(thing)] = thing
    if isinstance(thing, np.ndarray):
        yield thing
        yield from reached(thing.base, seen, depth + 1)
        return
    parts = list(getattr(thing, "__dict__", {}).values())
    if isinstance(thing, dict):
        parts += [*thing.keys(), *thing.values()]
    elif isinstance(thing, (list, tuple, set, frozenset)):
        parts += list(thing)
    for name in ("__self__", "__func__", "__wrapped__", "func", "args", "keywords"):
        parts.append(getattr(thing, name, None))
    parts += [cell.cell_contents for cell in getattr(thing, "__closure__", None) or ()]
    for part in parts:
        yield from reached(part, seen, depth + 1)


@pytest.mark.parametrize(("phase", "known"), [("dev", False), ("train", False), ("dev", True)])
def test_no_array_that_a_problem_leads_to_holds_hidden_labels(phase, known):
    source = whole_source(points=300)
    task = make_task(source, phase, known=known)
    in_folds = replace(ATTACKS["eb"], leaves_one_out=False)
    for _, problem in problems(task, in_folds):
        given = sealed(problem)
        arrays = list(reached(given, {}))
        assert any(array is given.known_membership for array in arrays)
        for target, columns in zip(given.targets, given.columns):
            truth = source.fleet.known_membership[target, columns]
            for array in arrays:
                if array.shape == source.fleet.known_membership.shape:
                    assert not np.array_equal(array[target, columns], truth)
                assert not np.array_equal(array, source.fleet.known_membership[target])
        folders = given.source.fleet.folders
        assert folders[0].relative_path == source.fleet.folders[0].relative_path
        assert not any(folder.path.is_absolute() for folder in folders)
        for way in ("wrapped", "_source", "__wrapped__", "asked"):
            assert not hasattr(given.source, way)


def test_a_told_source_gives_copies_and_what_it_is_told():
    source = whole_source()
    masked = MaskedSource(source, np.full_like(source.fleet.known_membership, HIDDEN))
    np.testing.assert_array_equal(masked.get("loss"), source.get("loss"))
    assert masked.get("loss") is masked.get("loss") is not source.get("loss")
    assert (masked.fleet.known_membership == HIDDEN).all() and len(masked.fleet) == len(
        source.fleet
    )
    with pytest.raises(AttributeError):
        masked.nothing  # noqa: B018


def test_predictions_are_made_from_copies_too(tmp_path):
    from mico_competition.competition.layout import ModelFolder

    source = whole_source()
    for place in source.fleet.folders:
        (tmp_path / "digits" / place.relative_path).mkdir(parents=True)
    assert all(isinstance(place, ModelFolder) for place in source.fleet.folders)

    def predict(attack, to):
        attack_folder(
            tmp_path / "digits",
            attack,
            lambda *_: source,
            predictions=tmp_path / to,
            options=Options(blind_check="never"),
        )
        return [path.read_text() for path in sorted((tmp_path / to).rglob("prediction.csv"))]

    clean = predict(replace(changing(through_a_tensor), run=loss), "a")
    assert predict(changing(through_a_tensor), "b") == clean and len(clean) == 26
    assert predict(replace(changing(through_a_tensor), run=loss), "c") == clean
