"""A folder of shadow models: it resumes, and refuses models of other arguments."""

import json
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from helpers_fleet import wait_for
from helpers_shadows import fit, make_data, make_model, train, weights

from mico_competition.shadows.code_facts import code_digest
from mico_competition.shadows.train_shadows import train_shadows


def shadows(folder, how=train, make=make_model, data=None, **options):
    options = {"count": 4, "seed": 7, "progress": False, **options}
    pool = train_shadows(make, how, make_data() if data is None else data, folder=folder, **options)
    return np.stack([weights(pool.source.load(row)) for row in range(options["count"])])


@pytest.fixture(scope="module")
def reference():
    return shadows(None)


def test_what_is_there_is_not_trained_again(tmp_path, reference):
    calls = []

    def train(model, subset):
        if len(calls) == 2:
            raise InterruptedError("power cut")
        calls.append(subset)
        fit(model, *map(__import__("torch").as_tensor, subset))

    folder = tmp_path / "shadows"
    with pytest.raises(InterruptedError, match="power cut"):
        shadows(folder, train)
    assert sorted(path.name for path in folder.iterdir()) == [
        "shadow_0000.model",
        "shadow_0001.model",
        "shadows.json",
    ]
    before = (folder / "shadow_0001.model").stat().st_mtime_ns
    calls.append(None)  # no third power cut
    assert np.array_equal(shadows(folder, train), reference)
    assert len(calls) == 5
    assert (folder / "shadow_0001.model").stat().st_mtime_ns == before
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}


RATE, STEPS = 0.5, 5


def train_by_globals(model, subset):
    return helper(model, subset)


def helper(model, subset):
    fit(model, *map(__import__("torch").as_tensor, subset), steps=STEPS)


def test_other_arguments_are_refused(tmp_path, monkeypatch):
    folder = tmp_path / "shadows"
    shadows(folder, train_by_globals)
    inputs, labels = make_data()
    other = inputs.copy()
    other[3, 2] += 1e-3
    for change, message in (
        ({"seed": 8}, "seed=7, and this call has seed=8"),
        ({"count": 6}, "count=4, and this call has count=6"),
        ({"fraction": 0.25}, "fraction=0.5, and this call has fraction=0.25"),
        ({"threads": 2}, "threads=1"),
        ({"data": (other, labels)}, "another dataset"),
        ({"data": (inputs, labels[::-1].copy())}, "another dataset"),
        ({"make": lambda: __import__("torch").nn.Linear(6, 3)}, "another make_model"),
        ({"how": train}, "another train"),
    ):
        with pytest.raises(ValueError, match=message):
            shadows(folder, **{"how": train_by_globals, **change})
    shadows(folder, train_by_globals)
    monkeypatch.setattr(sys.modules[__name__], "STEPS", 6)
    with pytest.raises(ValueError, match="another train, or other settings that it uses"):
        shadows(folder, train_by_globals)


def test_damage_and_other_folders(tmp_path):
    folder = tmp_path / "shadows"
    shadows(folder)
    path = folder / "shadow_0002.model"
    content = bytearray(path.read_bytes())
    content[-200] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"shadow_0002\.model is damaged: remove it"):
        shadows(folder)
    (folder / "shadows.json").write_text(json.dumps([])[:1])
    with pytest.raises(ValueError, match=r"shadows\.json is damaged"):
        shadows(folder)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.png").touch()
    with pytest.raises(ValueError, match=r"found 'cat\.png': name another folder"):
        shadows(tmp_path / "photos")


def step(model, rate, steps=3):
    return model, rate, steps


class Trainer:
    def __init__(self, rate):
        self.rate = rate

    def __call__(self, model, subset):
        return step(model, self.rate)


def closure(rate):
    return lambda model, subset: step(model, rate)


def nested(model, subset):
    def inner():
        return RATE

    return inner()


def test_code_is_recognised():
    assert code_digest(train) == code_digest(train)
    assert code_digest(partial(step, rate=1)) != code_digest(partial(step, rate=2))
    assert code_digest(Trainer(0.1)) == code_digest(Trainer(0.1)) != code_digest(Trainer(0.2))
    assert code_digest(closure(0.1)) == code_digest(closure(0.1)) != code_digest(closure(0.2))
    assert code_digest(make_model) != code_digest(train)


def test_a_number_that_an_inner_function_names_counts(monkeypatch):
    before = code_digest(nested)
    monkeypatch.setattr(sys.modules[__name__], "RATE", 0.25)
    assert code_digest(nested) != before


SCRIPT = """
import sys, time
sys.path.insert(0, {tests!r})
from helpers_shadows import make_data, make_model, train
from mico_competition.shadows.train_shadows import train_shadows

train_shadows(make_model, train, make_data(), count=4, seed=7, folder={folder!r}, workers={workers})
"""


def run(folder, workers):
    """The call in a process of its own, in a script without `if __name__ == "__main__"`."""
    code = SCRIPT.format(tests=str(Path(__file__).parent), folder=str(folder), workers=workers)
    script = folder.parent / "script.py"
    script.write_text(code)
    return subprocess.Popen([sys.executable, script], stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_models(tmp_path, reference):
    folder = tmp_path / "shadows"
    process = run(folder, workers=2)
    wait_for(lambda: list(folder.glob("*.model")))
    process.send_signal(signal.SIGKILL)
    process.communicate()  # its workers hold the pipe, and end too
    assert np.array_equal(shadows(folder), reference)


@pytest.mark.slow
def test_processes_give_the_same_models(reference):
    shift = 0.0  # a closure, which plain pickle refuses

    def train_here(model, subset):
        inputs, labels = subset
        train(model, (inputs + shift, labels))

    assert np.array_equal(shadows(None, train_here, workers=2), reference)


@pytest.mark.slow
def test_a_process_that_dies_is_reported(tmp_path):
    def die(model, subset):
        __import__("os")._exit(1)

    with pytest.raises(OSError, match="died, perhaps for lack of memory: give fewer workers"):
        shadows(tmp_path / "shadows", die, workers=2)
