"""A stranger's attack in a process of its own: it works as elsewhere, and reaches nothing."""

import logging
import os
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from helpers_problem import Arrays, make_source, whole_source

from mico_competition.data.arrays import ArrayDataset
from mico_competition.evaluation import isolated, landlock
from mico_competition.evaluation.cross_fitting import make_task, run
from mico_competition.evaluation.custom import find_attack, is_custom
from mico_competition.evaluation.evaluate import Options, evaluate
from mico_competition.evaluation.leakage_check import check_task

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
needs_landlock = pytest.mark.skipif(not landlock.version(), reason="no Landlock on this system")

WORKS = '''
import os
import numpy as np
from mico_competition.attacks import calibrate

print("this goes nowhere")


def attack(problem):
    """The logit less its mean OUT."""
    print("nor does this", flush=True)
    os.write(1, b"or this")
    return problem.gather("logit").score(calibrate, centre="out")


def everything(problem):
    source = problem.source
    part = source.data.inputs(problem.columns.ravel())[:, 0].numpy()
    part = part.reshape(problem.columns.shape)
    part = part + source.logits(3)[problem.columns, 1]
    weight = source.load(2).weight.detach().numpy()
    assert source.fleet.scenario == "digits_inf" and len(source.fleet) == 26
    return part + weight.sum() + source.get("loss")[problem.targets[:, None], problem.columns]


def folds(problem):
    assert not problem.targets_in_shadows
    return np.random.random(problem.columns.shape)


folds.leaves_one_out = False
folds.all_records = True
'''


@pytest.fixture
def write(tmp_path):
    """Writes an attack; gives it, isolated."""

    def written(text, function="attack", isolate=True):
        path = tmp_path / "stranger.py"
        path.write_text(text)
        return find_attack(f"{path}:{function}", isolate=isolate)

    return written


def body(*lines):
    """A file whose attack does `lines`, which may set `found`, and says so in its error."""
    text = "".join(f"    {line}\n" for line in lines)
    head = "import os, sys\n\n\ndef attack(problem):\n    found = None\n"
    return f"{head}{text}    raise ValueError(repr(found))\n"


def said(attack, source=None):
    """What the attack said of what it found."""
    with pytest.raises(ValueError, match="failed: ValueError in line") as error:
        run(make_task(source or make_source(), "dev"), attack)
    return str(error.value).partition("stranger.py: ")[2].rstrip(".")


@pytest.mark.slow
def test_it_gives_what_it_gives_elsewhere(write):
    source = whole_source()
    source.data = ArrayDataset(torch.randn(150, 3), torch.zeros(150), torch.neg)
    for function in ("attack", "everything"):
        for phase in ("train", "dev"):
            task = make_task(source, phase)
            alone, here = write(WORKS, function), write(WORKS, function, isolate=False)
            assert is_custom(alone) and alone.name == here.name
            np.testing.assert_allclose(run(task, alone), run(task, here), rtol=1e-6)
    assert alone.title == "an attack of your own" and write(WORKS).title.startswith("The logit")
    for isolate in (True, False):
        text = f"{WORKS}\nattack.white_box = True\n"
        assert write(text, isolate=isolate).white_box and not alone.white_box
    in_folds = write(WORKS, "folds")
    assert not in_folds.leaves_one_out and in_folds.all_records
    task = make_task(source, "train")
    np.testing.assert_array_equal(run(task, in_folds), run(task, in_folds))


@pytest.mark.slow
def test_it_is_measured_and_guarded_like_others(write):
    task, few = make_task(make_source(train=6), "train"), Options(resamples=5)
    found = evaluate(task, [write(WORKS)], options=few)
    assert found.rows[1].measured["AUC"].value > 0.6 and found.rows[1].cost.cpu_seconds > 0
    leak = "def attack(p):\n    return p.told[p.targets[:, None], p.columns] * 1.0\n"
    with pytest.raises(ValueError, match=r"stranger.py:attack leaks"):
        evaluate(task, [write(leak)], options=few)


# --- what it can reach


def test_it_has_no_file_but_its_pipes_and_an_empty_folder(write):
    with open(os.devnull) as open_here:
        assert open_here.fileno() > 2
        lines = [
            "import fcntl",
            "found = []",
            "for number in range(64):",
            "    try:",
            "        fcntl.fcntl(number, fcntl.F_GETFD); found.append(number)",
            "    except OSError: pass",
            "found = found, os.listdir('.'), sorted(os.environ), sys.argv[1:], os.getcwd()",
        ]
        os.environ["MICO_TOKEN_OF_A_TEST"] = "secret"
        try:
            words = said(write(body(*lines)))
        finally:
            del os.environ["MICO_TOKEN_OF_A_TEST"]
    numbers, folder, names, arguments, place = eval(words)
    assert len(numbers) <= 6 and folder == [] and place != os.getcwd()
    assert set(names) <= {"HOME", "PATH", "TMPDIR", *isolated._KEPT, "LC_CTYPE"}
    assert len(arguments) <= 1 and not os.path.exists(place)


@needs_landlock
@pytest.mark.parametrize(
    "what",
    [
        "open({secret!r}).read()",
        "os.listdir({folder!r})",
        "os.listdir('/')",
        "os.listdir('/proc')",
        "open(f'/proc/{{os.getppid()}}/environ').read()",
        "os.readlink(f'/proc/{{os.getppid()}}/cwd') and os.listdir(f'/proc/{{os.getppid()}}/cwd')",
        "open('/etc/passwd').read()",
        "open({written!r}, 'w').write('x')",
        "__import__('subprocess').run(['/bin/cat', {secret!r}], check=True)",
        "__import__('socket').create_connection(('127.0.0.1', 9))",
        "os.kill({parent}, 0)",
    ],
)
def test_it_reaches_no_file_no_process_and_no_network(write, tmp_path, what):
    secret = tmp_path / "model_100" / "solution.csv"
    secret.parent.mkdir()
    secret.write_text("1,0,1,0")
    written = tmp_path / "left_behind"
    line = what.format(
        secret=str(secret), folder=str(tmp_path), written=str(written), parent=os.getpid()
    )
    words = said(
        write(
            body("try:", f"    found = 'REACHED', {line}", "except BaseException as e: found = e")
        )
    )
    assert "REACHED" not in words and "1,0,1,0" not in words and not written.exists()
    assert "Permission" in words or "not permitted" in words or "CalledProcess" in words


def test_labels_that_are_hidden_are_not_there(write):
    lines = [
        "import gc, numpy as np",
        "arrays = [o for o in gc.get_objects() if isinstance(o, np.ndarray)]",
        "arrays += [getattr(problem, n) for n in ('told', 'columns', 'targets', 'shadows')]",
        "found = {int((problem.told[problem.targets] != -1).sum())}",
        "found |= {hasattr(problem.source, n) for n in ('wrapped', '_blank', '_source')}",
    ]
    assert eval(said(write(body(*lines)))) == {0}


REMEMBERS = """
import os, sys, numpy as np

seen = {}


def attack(problem):
    for row in problem.shadows.tolist():
        seen[row] = np.array(problem.told[row])
        for folder in (".", os.environ["HOME"], "/tmp", "/dev/shm"):
            try:
                np.save(f"{folder}/mico_seen_{row}.npy", seen[row])
            except OSError:
                pass
    scores = np.zeros(problem.columns.shape)
    for place, (target, columns) in enumerate(zip(problem.targets.tolist(), problem.columns)):
        for folder in (".", os.environ["HOME"], "/tmp", "/dev/shm"):
            try:
                scores[place] += np.load(f"{folder}/mico_seen_{target}.npy")[columns]
            except OSError:
                pass
        if target in seen:
            scores[place] += seen[target][columns]
    if os.fork() == 0:
        os.setsid()
        import time
        while True:
            time.sleep(0.01)
    return scores


attack.leaves_one_out = False
"""


@pytest.mark.slow
@needs_landlock
def test_it_carries_nothing_from_one_problem_to_the_next(write):
    task = make_task(make_source(), "train")
    attack = write(REMEMBERS)
    assert not run(task, attack).any()
    check_task(attack, task)
    server = isolated._server._child.pid
    time.sleep(0.1)
    assert children(server) == []  # what it left running was ended


def children(parent):
    found = []
    for name in filter(str.isdecimal, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                if int(file.read().rpartition(b")")[2].split()[1]) == parent:
                    found.append(int(name))
        except OSError:
            continue
    return found


@pytest.mark.slow
def test_the_process_ends_with_the_program(write, tmp_path):
    write(WORKS)
    code = (
        "import sys; from mico_competition.evaluation import isolated, custom\n"
        "custom.find_attack(sys.argv[1] + '/stranger.py:attack', isolate=True)\n"
        "print(isolated._server._child.pid)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    with pytest.raises(ProcessLookupError):
        os.kill(int(done.stdout), 0)


@pytest.mark.slow
def test_an_attack_that_does_not_end_is_ended(write, monkeypatch):
    """It gives its scores, and goes on: the next problem gets another process."""
    monkeypatch.setattr(isolated, "_PATIENCE", 0.5)
    text = (
        "import threading, time\n\n\ndef attack(problem):\n"
        "    import os; os._exit = lambda code: time.sleep(1000)\n"
        "    return problem.columns * 1.0\n"
    )
    attack = write(text)
    for _ in range(2):
        assert run(make_task(make_source(), "dev"), attack).shape == (6, 20)


# --- what it may answer

BOMB = """
import os, pickle


class Bomb:
    def __reduce__(self):
        return os.system, ("touch {mark}",)


def attack(problem):
    os.write({number}, pickle.dumps(Bomb()))
    os._exit(0)
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", range(6))
def test_nothing_that_it_says_is_unpickled(write, tmp_path, number):
    mark = tmp_path / "mark"
    with pytest.raises(ValueError, match="stranger.py:attack failed: "):
        run(make_task(make_source(), "dev"), write(BOMB.format(mark=mark, number=number)))
    assert not mark.exists()


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ("problem.targets", "expected real numbers of shape \\(6, 20\\).* got shape \\[6\\]"),
        ("problem.columns.astype(str)", "not real numbers"),
        ("problem.columns / 0.0 * 0.0", "finite scores, got 120"),
        ("problem.no_such_thing", "AttributeError in line 5 of stranger.py"),
        ("os._exit(3)", "its process ended without an answer"),
        ("sys.exit(0)", "failed: SystemExit"),
        ("os.kill(os.getpid(), 9)", "its process ended without an answer"),
        ("problem.source.get('nothing')", "failed: "),
        ("problem.source.load(999)", r"Expected a row in 0..25"),
        ("object()", "not real numbers"),
    ],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_mistakes_are_sentences(write, returned, message):
    text = f"import os, sys\n\n\ndef attack(problem):\n    return {returned}\n"
    attack = write(text)
    for _ in range(2):  # and the next problem is asked all the same
        with pytest.raises(ValueError, match=message) as error:
            run(make_task(make_source(), "dev"), attack)
        assert len(str(error.value).splitlines()) == 1


def test_escapes_in_its_words_are_not_printed(write):
    text = "def attack(problem):\n    raise ValueError('a\\x1b[2J\\n::set-output name=x')\n"
    with pytest.raises(ValueError) as error:
        run(make_task(make_source(), "dev"), write(text))
    assert "\x1b" not in str(error.value) and "\n" not in str(error.value)


FORGES = """
import os, json


def attack(problem):
    for number in range(3, 12):
        try:
            os.write(number, {line!r})
        except OSError:
            pass
    return problem.columns * 1.0
"""


@pytest.mark.parametrize(
    "line",
    [
        b"\xff" * 100_000,
        b"[" * 4000 + b"\n",
        b'{"op": "scores", "shape": [6, 20]}\n',
        b'{"op": "over"}\n',
        b'{"op": "failed", "what": {"a": [1]}}\n',
        b'{"op": "get", "name": ["a"]}\n',
        b'{"op": "load", "row": true}\n',
        b'{"op": "scores", "shape": [999999999, 999999999]}\n',
        b"7\n",
    ],
)
def test_forged_words_lead_nowhere(write, line):
    """It is refused, or its scores are; the next attack is not disturbed."""
    task = make_task(make_source(), "dev")
    forging = write(FORGES.format(line=line))
    for _ in range(2):
        try:
            scores = run(task, forging)
        except ValueError as error:
            assert "stranger.py:attack" in str(error) and len(str(error)) < 1000
        else:
            assert scores.shape == (6, 20) and scores.dtype == np.float64
    good = write(WORKS)
    assert np.isfinite(run(task, good)).all()


def test_files_that_do_not_run(write, tmp_path):
    for text, message in (
        ("def attack(:\n", "SyntaxError in line 1"),
        ("import no_such_module\n", "ModuleNotFoundError in line 1"),
        ("x = 1\n", "there is no function attack"),
        ("raise SystemExit\n", "SystemExit"),
    ):
        with pytest.raises(ValueError, match=message):
            write(text)
    with pytest.raises(ValueError, match="There is no file"):
        find_attack(f"{tmp_path}/none.py:attack", isolate=True)


def test_a_system_without_landlock_is_named(write, monkeypatch, caplog):
    monkeypatch.setattr(isolated.landlock, "version", lambda: 0)
    with caplog.at_level(logging.WARNING):
        write(WORKS)
    assert "could still open files by their paths" in caplog.text


def test_landlock_by_itself(tmp_path):
    if not landlock.version():
        pytest.skip("no Landlock on this system")
    (tmp_path / "in").mkdir()
    (tmp_path / "out").write_text("secret")
    code = (
        "import sys; from mico_competition.evaluation import landlock\n"
        "landlock.restrict([], [sys.argv[1] + '/in'])\n"
        "open(sys.argv[1] + '/in/mine', 'w').write('x')\n"
        "try: open(sys.argv[1] + '/out')\n"
        "except PermissionError: print('barred')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=600
    )
    assert done.stdout == "barred\n", done.stderr


def test_a_source_that_fails_is_a_sentence(write):
    class Broken(Arrays):
        def get(self, name):
            raise ValueError("The weights of digits_inf/train/model_3 changed.")

    source = make_source()
    broken = Broken(source.fleet, {})
    with pytest.raises(ValueError, match="model_3 changed"):
        run(make_task(broken, "dev"), write(WORKS))
