"""Modules of an attack are fresh for each problem, and those of others stay as they were."""

import builtins
import logging
import os
import statistics
import sys
import types

import numpy as np
import pytest
from helpers_cases import one_in
from helpers_problem import make_source

from mico_competition.evaluation.cross_fitting import make_task, run
from mico_competition.evaluation.custom import find_attack
from mico_competition.evaluation.leakage_check import check_task
from mico_competition.evaluation.undisturbed import undisturbed

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
either = pytest.mark.parametrize("isolate", [False, pytest.param(True, marks=forks)])

BESIDE = "import os, sys\nsys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))\n"
CALLS = "import numpy as np\n\n\ndef attack(problem):\n"
SCORES = "    return np.full(problem.columns.shape, float(VALUE))\n"


@pytest.fixture(scope="module")
def source():
    return make_source(train=12, dev=4, points=80)


@pytest.fixture
def write(tmp_path):
    """Writes files, and gives the attack of `attack.py` among them."""

    def written(files, *, isolate=False, folder="mine"):
        for name, text in files.items():
            path = tmp_path / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return find_attack(f"{tmp_path / folder / 'attack.py'}:attack", isolate=isolate)

    return written


def counts(where):
    """An attack that scores how often it was run, as `where`, a list, remembers."""
    return CALLS + f"    {where}.append(1)\n" + SCORES.replace("VALUE", f"len({where})")


KEEPERS = {
    "beside": {"attack.py": BESIDE + "import kept\n" + counts("kept.seen"), "kept.py": "seen = []"},
    "found without a path": {
        "attack.py": "import kept\n" + counts("kept.seen"),
        "kept.py": "seen = []",
    },
    "a package": {
        "attack.py": "from tools.inner import kept\n" + counts("kept.seen"),
        "tools/__init__.py": "",
        "tools/inner/__init__.py": "from . import kept",
        "tools/inner/kept.py": "seen = []",
    },
    "a folder without __init__": {
        "attack.py": "import tools.kept\n" + counts("tools.kept.seen"),
        "tools/kept.py": "seen = []",
    },
    "a folder beneath": {
        "attack.py": "import os, sys\n"
        "sys.path.insert(0, os.path.join(os.path.dirname(__file__), 'lib'))\n"
        "import kept\n" + counts("kept.seen"),
        "lib/kept.py": "seen = []",
    },
    "imported while it runs": {
        "attack.py": CALLS
        + "    import kept\n    kept.seen.append(1)\n"
        + SCORES.replace("VALUE", "len(kept.seen)"),
        "kept.py": "seen = []",
    },
    "a module from nowhere": {
        "attack.py": "import sys, types\n"
        "kept = sys.modules.setdefault('kept_nowhere', types.ModuleType('kept_nowhere'))\n"
        "kept.seen = getattr(kept, 'seen', [])\n" + counts("kept.seen")
    },
    "a name in a library": {
        "attack.py": "import numpy as np\nnp.kept = getattr(np, 'kept', [])\n" + counts("np.kept")
    },
    "a name in builtins": {
        "attack.py": "import builtins\nbuiltins.kept = getattr(builtins, 'kept', [])\n"
        + counts("kept")
    },
    "a name in this package": {
        "attack.py": "import mico_competition.attacks as m\nm.kept = getattr(m, 'kept', [])\n"
        + counts("m.kept")
    },
    "importers": {
        "attack.py": "import sys\n"
        + CALLS
        + "    sys.meta_path.append(None.__class__)\n"
        + SCORES.replace("VALUE", "sum(1 for x in sys.meta_path if x is type(None))")
    },
}


@pytest.mark.parametrize("where", one_in(4, KEEPERS))
@either
def test_nothing_is_kept_from_problem_to_problem(write, source, where, isolate):
    attack, task = write(KEEPERS[where], isolate=isolate), make_task(source, "dev")
    known, path = dict(sys.modules), list(sys.path)
    for _ in range(3):
        assert (run(task, attack) == 1).all()
        assert not {"kept", "tools", "tools.kept", "kept_nowhere"} & set(sys.modules)
    assert not hasattr(np, "kept") and not hasattr(builtins, "kept") and sys.path == path
    assert all(sys.modules[name] is module for name, module in known.items())


@either
def test_files_of_one_name_beside_two_attacks_are_two(write, source, isolate):
    text = BESIDE + "import helpers\n" + CALLS + SCORES.replace("VALUE", "helpers.NUMBER")
    one, two = (
        write(
            {"attack.py": text, "helpers.py": f"NUMBER = {number}"},
            isolate=isolate,
            folder=str(number),
        )
        for number in (1, 2)
    )
    task = make_task(source, "dev")
    found = [run(task, attack)[0, 0] for attack in (one, two, one, two)]
    assert found == [1, 2, 1, 2]


def test_a_module_of_the_program_is_not_taken_for_one_beside_the_attack(write, source, tmp_path):
    (tmp_path / "program").mkdir()
    (tmp_path / "program/helpers.py").write_text("NUMBER = 5")
    program = types.ModuleType("helpers")
    program.__file__, program.NUMBER = str(tmp_path / "program/helpers.py"), 5
    sys.modules["helpers"] = program
    try:
        text = "import helpers\n" + CALLS + SCORES.replace("VALUE", "helpers.NUMBER")
        attack = write({"attack.py": text, "helpers.py": "NUMBER = 1"})
        assert (run(make_task(source, "dev"), attack) == 1).all() and sys.modules[
            "helpers"
        ] is program
        assert (attack.run(next(iter_problems(source))) == 1).all()  # also without `answer`
        assert sys.modules["helpers"] is program
    finally:
        del sys.modules["helpers"]


def iter_problems(source):
    from helpers_problem import ATTACKS

    from mico_competition.evaluation.cross_fitting import problems

    return (problem for _, problem in problems(make_task(source, "dev"), ATTACKS["eb"]))


def test_an_installed_package_is_imported_once(write, source):
    """Also one that lies beneath the attack's folder: many cannot be imported twice."""
    import sklearn.utils

    text = "import sklearn.utils, statistics\n" + CALLS + SCORES.replace("VALUE", "1")
    attack = write({"attack.py": text, "sklearn.py": "raise RuntimeError", "statistics.py": ""})
    before = sys.modules["sklearn.utils"]
    run(make_task(source, "dev"), attack)
    assert sys.modules["sklearn.utils"] is before is sklearn.utils
    assert sys.modules["statistics"] is statistics


def test_replaced_functions_and_settings_are_put_back():
    import resource
    import signal

    import sklearn
    import torch

    def looks():
        return (
            np.mean,
            torch.sigmoid,
            signal.getsignal(signal.SIGINT),
            np.getbufsize(),
            sys.getswitchinterval(),
            sklearn.get_config(),
            torch.backends.mkldnn.enabled,
            torch._tensor_str.PRINT_OPTS.precision,
            resource.getrlimit(resource.RLIMIT_NOFILE),
            statistics.mean,
        )

    before = looks()
    with undisturbed():
        np.mean = torch.sigmoid = len
        del statistics.mean
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        np.setbufsize(4096)
        sys.setswitchinterval(1.0)
        sklearn.set_config(assume_finite=True)
        torch.backends.mkldnn.enabled = False
        torch.set_printoptions(precision=1)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft - 1, hard))
    assert looks() == before


# --- what the leak guard sees

KEEPS = """
import json, os, numpy as np


def attack(problem):
    kept = {where}
    if "rate" not in kept:
        told = problem.told[problem.shadows]
        kept["rate"] = (told == 1).sum(axis=0) / (told >= 0).sum(axis=0).clip(1)
    {after}
    return kept["rate"][problem.columns]


attack.leaves_one_out = False
"""


@pytest.mark.slow
@forks
def test_the_guard_finds_what_is_kept_in_a_librarys_object(write, source):
    text = KEEPS.format(where="json.decoder.BACKSLASH", after="")
    task = make_task(source, "train")
    with pytest.raises(ValueError, match="other scores in a process that ran it before"):
        check_task(write({"attack.py": text}), task)
    import json

    json.decoder.BACKSLASH.pop("rate", None)
    check_task(write({"attack.py": KEEPS.format(where="{}", after="")}), task)


@pytest.mark.slow
def test_the_guard_warns_of_labels_that_are_kept_in_a_file(write, source, tmp_path, caplog):
    where = "np.load(PATH, allow_pickle=True).item() if os.path.exists(PATH) else {}"
    path = repr(str(tmp_path / "kept.npy"))
    text = KEEPS.format(where=where, after="np.save(PATH, kept)").replace("PATH", path)
    task = make_task(source, "train")
    with caplog.at_level(logging.WARNING):
        check_task(write({"attack.py": KEEPS.format(where="{}", after="")}), task)
    assert not caplog.records
    check_task(write({"attack.py": text}, folder="other"), task)
    assert "the same scores whatever the labels of its shadows are" in caplog.text


# --- several files, isolated


@forks
def test_an_isolated_attack_reads_its_python_files_only(write, source, tmp_path):
    text = (
        "import os\n"
        "import helpers\n"
        "found = sorted(os.listdir(os.path.dirname(__file__)))\n\n\n"
        "def attack(problem):\n"
        "    raise ValueError(repr((found, helpers.NUMBER, os.path.basename(__file__))))\n"
    )
    (tmp_path / "mine/.hidden").mkdir(parents=True)
    (tmp_path / "mine/.hidden/x.py").write_text("")
    (tmp_path / "mine/venv/lib").mkdir(parents=True)
    (tmp_path / "mine/venv/pyvenv.cfg").write_text("")
    (tmp_path / "mine/venv/lib/x.py").write_text("")
    files = {"attack.py": text, "helpers.py": "NUMBER = 3", "solution.csv": "1", "sub/more.py": ""}
    with pytest.raises(ValueError) as error:
        run(make_task(source, "dev"), write(files, isolate=True))
    assert "(['attack.py', 'helpers.py', 'sub'], 3, 'attack.py')" in str(error.value)


@forks
def test_a_folder_of_very_many_files_is_refused(write, monkeypatch):
    from mico_competition.evaluation import modules

    monkeypatch.setattr(modules, "_COUNT", 3)
    files = {f"a{i}.py": "" for i in range(5)}
    with pytest.raises(ValueError, match="into a folder of their own"):
        write({"attack.py": counts("[]"), **files}, isolate=True)


def test_what_a_library_adds_to_itself_stays():
    """torch.cuda has more names once a device was started, and six an importer."""

    def of_the_library():
        pass

    of_the_library.__module__ = "statistics"
    with undisturbed():
        statistics.later, statistics.built_in = of_the_library, len
        statistics.strange, statistics.learned = lambda: None, np.zeros(3)
        statistics.bound, statistics.__compiled_fn_0 = {}.get, {"labels": 1}
        sys.modules.pop("this_is_new", None)
        new = types.ModuleType("this_is_new")
        new.__file__ = statistics.__file__
        sys.modules["this_is_new"] = new
        importer, strange = (
            type("Importer", (), {"__module__": name, "find_spec": lambda *_: None})()
            for name in ("this_is_new", "statistics")
        )
        sys.meta_path += [importer, strange, types.SimpleNamespace(find_spec=lambda *_: None)]
    try:
        assert statistics.later is of_the_library and statistics.built_in is len
        assert not {"strange", "learned", "bound", "__compiled_fn_0"} & set(vars(statistics))
        assert sys.meta_path[-1] is importer and strange not in sys.meta_path
    finally:
        del statistics.later, statistics.built_in, sys.modules["this_is_new"]
        sys.meta_path.remove(importer)


def test_a_module_that_imports_when_it_is_asked_is_not_asked(monkeypatch):
    """As a text model's module of transformers is, where torchvision is not installed."""

    class PutOff(types.ModuleType):
        def __getattr__(self, name):
            raise ModuleNotFoundError(f"no {name}")

    monkeypatch.setitem(sys.modules, "put_off", PutOff("put_off"))
    with undisturbed():
        pass
    assert isinstance(sys.modules["put_off"], PutOff)
