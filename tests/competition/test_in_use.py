"""Another process uses the competition that this one read, or says that the file was changed."""

import json
import os
import pickle

import pytest
import torch
from helpers_competition import OWN_TASK, competition_text
from helpers_problem import make_source

from mico_competition.competition.in_use import InUse
from mico_competition.competition.init import init
from mico_competition.competition.table import current, get_scenario, get_task, use, using
from mico_competition.data.arrays import ArrayDataset
from mico_competition.evaluation.cross_fitting import make_task, run
from mico_competition.evaluation.custom import find_attack
from mico_competition.fleets.shared_data import parts_of
from mico_competition.models.architectures import new_model, save_model
from mico_competition.release.leak_check.forms import weights_faults

CHANGED = "competition.toml on .* is not as the command read it: leave it as it is"


@pytest.fixture
def file(tmp_path):
    return competition_in(tmp_path / "mine")


def competition_in(folder):
    file, _ = init(folder)
    file.write_text(competition_text({"only": {}}, OWN_TASK), encoding="utf-8")
    return file


def in_another_process(value):
    """What another process, which began without a competition, makes of a value."""
    content = pickle.dumps(value)
    use(None)
    return pickle.loads(content)


@pytest.mark.parametrize("broken", [False, True], ids=["another table", "no table"])
def test_a_file_that_was_changed_after_it_was_read_is_refused(file, broken):
    """The table that counts is the one that was read: other lengths n are another privacy."""
    text = file.read_text(encoding="utf-8")
    with using(file):
        file.write_text(text.replace("training = 60", "training = 70" if not broken else "["))
        parts, rebuild = parts_of(
            ArrayDataset(torch.zeros(4, 2), torch.zeros(4), torch.Tensor.float)
        )
        assert get_task("faces").len_training == 60
        rebuild = in_another_process(rebuild)
        with pytest.raises(ValueError, match=CHANGED) as raised:
            rebuild(parts)
        assert str(raised.value).count("\n") == 0
        file.write_text(text, encoding="utf-8")
        assert len(rebuild(parts)) == 4
        assert get_task("faces").len_training == 60


def test_a_file_that_is_not_there_is_a_sentence(file):
    with using(file):
        there = in_another_process(InUse.here())
        file.unlink()
        with pytest.raises(ValueError, match="There is no competition file .*competition.toml on"):
            there.use()


def test_the_packages_own_competitions_are_used_in_place_of_a_file(file):
    own = InUse.here()
    with using(file):
        own.use()
        assert current().path is None and get_scenario("cifar10_inf")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_isolated_attacks_import_the_organisers_code_once(file, tmp_path):
    """Each child process imports the code once, and reports an error in it."""
    module, counted = file.with_name("my_competition.py"), tmp_path / "imports"
    code = module.read_text(encoding="utf-8")
    count = f"open({str(counted)!r}, 'a').write('x')"
    leave_threads = "from torch import rand\nrand(999, 999) @ rand(999, 999)"
    module.write_text(f"{code}\nraise RuntimeError('not yet')\n")
    attack = tmp_path / "attack.py"
    attack.write_text(
        "import sys, torch\n\n\ndef attack(problem):\n"
        "    assert 'my_competition' in sys.modules\n"
        "    assert torch.rand(999, 999).exp().min() >= 1\n"
        "    return problem.columns * 1.0\n"
    )
    with using(file):
        with pytest.raises(ValueError, match="my_competition, .* does not run: .*not yet"):
            find_attack(f"{attack}:attack", isolate=True)
        module.write_text(f"{code}\n{count}\n{leave_threads}\n")
        isolated = find_attack(f"{attack}:attack", isolate=True)
        for _ in range(2):
            assert run(make_task(make_source(), "dev"), isolated).shape == (6, 20)
    assert counted.read_text() == "x"


def test_a_release_is_held_against_the_architecture_of_its_own_competition(tmp_path):
    """Two competitions may give a task one name, and its models two architectures."""
    for hidden in (64, 32):
        file = competition_in(tmp_path / f"mine{hidden}")
        module = file.with_name("my_competition.py")
        code = module.read_text(encoding="utf-8")
        module.write_text(code.replace("64", json.dumps(hidden)), encoding="utf-8")
        with using(file):
            task = get_task("faces")
            save_model(task, new_model(task), file.parent)
            assert not list(weights_faults(task, file.with_name("model.pt")))
