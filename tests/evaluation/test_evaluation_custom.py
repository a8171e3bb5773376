"""Attacks of one's own, from a file: measured like named ones, guarded, refused in sentences."""

from dataclasses import replace

import numpy as np
import pytest
from helpers_problem import ATTACKS, make_source

from mico_competition.attacks.registry import get_attack
from mico_competition.evaluation.cross_fitting import make_task, run
from mico_competition.evaluation.custom import find_attack, is_custom
from mico_competition.evaluation.evaluate import Options, evaluate


@pytest.fixture(scope="module")
def source():
    return make_source(train=30, dev=10, asked=60, points=300, shift=2.0)


@pytest.fixture(scope="module")
def dev(source):
    return make_task(source, "dev")


WORKED = '''
from mico_competition.attacks import calibrate


def attack(problem):
    """The logit less its mean OUT."""
    return problem.gather("logit").score(calibrate, centre="out")


def peeks(problem):
    return problem.told[problem.targets[:, None], problem.columns]


def in_folds(problem):
    signal, seen = problem.source.get("logit"), problem.is_member
    out = (signal[problem.shadows] * ~seen).sum(axis=0) / (~seen).sum(axis=0).clip(1)
    return (signal - out)[problem.targets[:, None], problem.columns]


in_folds.leaves_one_out = False


def wrong_shape(problem):
    return problem.targets


def nothing(problem):
    return problem.columns / 0.0 * 0.0


def words(problem):
    return problem.columns.astype(str)


def broken(problem):
    return problem.no_such_thing


number = 5


from mico_competition.attacks.problem import Attack

whole = Attack("eb", "mine", "me", attack, leaves_one_out=False)
peeking = Attack("eb", "mine", "me", peeks, white_box=True)
failing = Attack("eb", "mine", "me", broken)
'''


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(WORKED)
    return path


def test_ten_lines_of_ones_own(source, file):
    attack = find_attack(f"{file}:attack")
    assert is_custom(attack) and attack.title == "The logit less its mean OUT."
    task = make_task(source, "train")
    found = evaluate(task, [attack, ATTACKS["calibrate-logit-out"]], options=Options(resamples=20))
    mine, named = found.rows[1:]
    assert mine.name == f"{file}:attack"
    assert mine.measured["AUC"].value == named.measured["AUC"].value > 0.8


@pytest.mark.slow
def test_one_that_leaks_is_refused_and_one_in_folds_is_not(source, file):
    task, few = make_task(source, "train"), Options(resamples=20)
    with pytest.raises(ValueError, match=r"Attack .*mine.py:peeks leaks"):
        evaluate(task, [find_attack(f"{file}:peeks")], options=few)
    found = evaluate(task, [find_attack(f"{file}:in_folds")], options=few)
    assert 0.8 < found.rows[1].measured["AUC"].value < 1
    scores = run(make_task(source, "dev"), find_attack(f"{file}:peeks"))
    assert (scores == -1).all()  # HIDDEN


def test_an_attack_object_of_ones_own_is_as_guarded_as_a_function(source, dev, file):
    whole = find_attack(f"{file}:whole")
    assert is_custom(whole) and not whole.leaves_one_out
    assert (whole.name, whole.title) == (f"{file}:whole", "mine")
    np.testing.assert_array_equal(run(dev, whole), run(dev, find_attack(f"{file}:attack")))
    with pytest.raises(ValueError, match=r"mine.py:peeking leaks"):
        evaluate(make_task(source, "train"), [find_attack(f"{file}:peeking")])
    with pytest.raises(ValueError, match="mine.py:failing failed: AttributeError in line 36"):
        run(dev, find_attack(f"{file}:failing"))


@pytest.mark.parametrize("isolate", [False, True])
def test_a_failure_within_a_library_names_the_line_of_the_attack(source, tmp_path, isolate):
    path = tmp_path / "mine.py"
    path.write_text("import numpy as np\ndef attack(problem):\n    return np.stack([])\n")
    with pytest.raises(
        ValueError, match=r"failed: ValueError in line 3 of mine\.py: need at least"
    ):
        run(make_task(source, "dev"), find_attack(f"{path}:attack", isolate=isolate))


def test_two_files_of_one_name_are_two_attacks(source, tmp_path):
    """Each keeps its own module, and a row of its own."""
    for folder, sign in (("a", ""), ("b", "-")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.py").write_text(
            "import sys\n"
            "def attack(problem):\n"
            "    assert sys.modules[__name__].attack is attack\n"
            "    loss = problem.source.get('loss')\n"
            f"    return {sign}loss[problem.targets[:, None], problem.columns]\n"
        )
    a, b = (find_attack(f"{tmp_path}/{folder}/mine.py:attack") for folder in "ab")
    task, few = make_task(source, "dev"), Options(resamples=5)
    rows = evaluate(task, [b], against=a, options=few).rows
    assert [row.name for row in rows] == [a.name, b.name] and a.name != b.name
    assert rows[0].measured["AUC"].value == pytest.approx(1 - rows[1].measured["AUC"].value)
    for attacks_, against in (([a, b, a], None), ([a], replace(b, name=a.name))):
        with pytest.raises(ValueError, match=r"different names, got two named .*/a/mine.py:attack"):
            evaluate(task, attacks_, against=against, options=few)
    with pytest.raises(ValueError, match="two named winner-best"):
        evaluate(task, [replace(a, name="winner-best")], options=few)
    assert get_attack("best") == get_attack("best")  # asked for twice, it is one
    assert len(evaluate(task, [a], against=replace(a), options=few).rows) == 1


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("wrong_shape", r"real numbers of shape \(10, 60\), one for each target and point"),
        ("nothing", "finite scores, got 600 NaN or infinite of 600"),
        ("words", "to give real numbers"),
        ("broken", "mine.py:broken failed: AttributeError in line 36 of mine.py"),
        ("absent", "There is no function absent in .*mine.py: it has calibrate, attack, peeks"),
        ("atack", "There is no function atack in .*mine.py: did you mean attack"),
        ("number", "There is no function number"),
    ],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_mistakes_of_ones_own_are_sentences(dev, file, name, message):
    with pytest.raises(ValueError, match=message) as mistake:
        run(dev, find_attack(f"{file}:{name}"))
    assert len(str(mistake.value).splitlines()) == 1


def test_files_that_do_not_run(tmp_path):
    (tmp_path / "bad.py").write_text("def attack(:\n")
    with pytest.raises(ValueError, match=r"bad.py does not run: SyntaxError in line 1"):
        find_attack(f"{tmp_path}/bad.py:attack")
    (tmp_path / "worse.py").write_text("x = 1\nimport no_such_module\n")
    with pytest.raises(ValueError, match="ModuleNotFoundError in line 2 of worse.py"):
        find_attack(f"{tmp_path}/worse.py:attack")
    with pytest.raises(ValueError, match="There is no file"):
        find_attack(f"{tmp_path}/none.py:attack")
    with pytest.raises(ValueError, match="name the function in the file"):
        find_attack(f"{tmp_path}/bad.py")


@pytest.mark.parametrize("isolate", [False, True])
@pytest.mark.parametrize("takes", ["", "target, shadow, is_member", "*, problem"])
def test_a_function_that_cannot_take_a_problem_is_told_before_it_runs(takes, isolate, tmp_path):
    (tmp_path / "mine.py").write_text(f"def attack({takes}):\n    return 0\n")
    said = r"called as attack\(problem\), got attack\(.*\). Change it in mine.py"
    with pytest.raises(ValueError, match=said) as mistake:
        find_attack(f"{tmp_path}/mine.py:attack", isolate=isolate)
    assert len(str(mistake.value).splitlines()) == 1
