"""What attacks cost, whoever ran before; and no row depends on the others."""

import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch
from helpers_fleet import wait_for
from helpers_problem import Arrays, make_source
from helpers_whitebox import trained

from mico_competition.attacks import cost
from mico_competition.attacks.cost import (
    MODELS,
    Shared,
    all_cpu_seconds,
    cpu_seconds,
    loaded,
    metered,
    signal,
)
from mico_competition.attacks.problem import Attack
from mico_competition.attacks.registry import ROWS, get_attack
from mico_competition.benchmark.about import About, with_access
from mico_competition.competition.layout import ModelFolder
from mico_competition.evaluation import table
from mico_competition.evaluation.cross_fitting import make_task, run
from mico_competition.evaluation.evaluate import Options, evaluate
from mico_competition.signals import Fleet
from mico_competition.signals.signals import SIGNALS

SPIN = "import time\nend = time.process_time() + {}\nwhile time.process_time() < end: pass\n"
FEW = Options(resamples=5, blind_check="never")


@pytest.fixture
def work(monkeypatch):
    """A clock that goes on only by what a test adds to it: `work(seconds)`."""
    now = [0.0]

    def add(seconds):
        now[0] += seconds

    monkeypatch.setattr(cost, "cpu_seconds", lambda: now[0])
    monkeypatch.setattr(cost, "all_cpu_seconds", lambda: now[0])
    return add


@pytest.fixture
def clock_of_calls(monkeypatch):
    """A clock that counts calls, which a machine under load makes no more of."""
    count = [0]

    def profile(frame, event, argument):
        count[0] += event in ("call", "c_call")

    monkeypatch.setattr(cost, "cpu_seconds", lambda: count[0])
    monkeypatch.setattr(cost, "all_cpu_seconds", lambda: count[0])
    sys.setprofile(profile)
    yield
    sys.setprofile(None)


def spin(seconds):
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def measured(run, source=None):
    found = evaluate(
        make_task(source or make_source(), "dev"),
        [Attack("a", "", "", run)],
        against=get_attack("threshold"),
        options=FEW,
    )
    return found.rows[1].cost


def in_a_child(seconds, wait=True):
    child = subprocess.Popen([sys.executable, "-c", SPIN.format(seconds) + "input()"], stdin=-1)
    if wait:
        child.communicate(b"\n")
    return child


def in_threads(seconds):
    threads = [threading.Thread(target=spin, args=(seconds / 2,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.mark.parametrize("burn", [spin, in_a_child, in_threads])
def test_threads_and_children_count(burn):
    def attack(problem):
        burn(0.1)
        return problem.columns

    found = measured(attack)
    assert found.cpu_seconds >= 0.1
    assert (found.models, found.records) == (26, 150) and found.signal_cpu_seconds == 0


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="this system does not tell")
def test_children_that_still_run_count():
    """A pool that an attack leaves open for the next has not ended, so the system adds nothing."""
    child = in_a_child(0.1, wait=False)
    try:
        wait_for(lambda: all_cpu_seconds() - cpu_seconds() >= 0.1)
    finally:
        child.communicate(b"\n")


class Slow(Arrays):
    """Signals that take work the first time."""

    def __init__(self, work, *arguments):
        super().__init__(*arguments)
        self.made, self.work = [], work

    def get(self, name):
        kind = SIGNALS[name][0]
        if kind not in self.made:
            self.made.append(kind)
            self.work(0.5)
        return super().get(name)


def test_signals_are_apart_and_charged_to_each_attack_that_wants_them(work):
    plain = make_source()
    source = Slow(work, plain.fleet, plain._signals)
    task = make_task(source, "dev")
    names = ("eb", "lira-online", "threshold")
    found = evaluate(task, [get_attack(n) for n in names], options=FEW)
    costs = {row.name: row.cost for row in found.rows}
    assert source.made == ["logit"]  # loss, confidence and logit are of one kind
    for name in names:  # `winner-best` had asked before
        assert (costs[name].signal_cpu_seconds, costs[name].cpu_seconds) == (0.5, 0)


def test_shared_work_is_charged_to_each_once(work):
    shared, known = Shared(), {}

    def make():
        work(4)
        return signal(known, "logit", lambda: work(2) or 7)

    costs = []
    for _ in range(3):
        with metered() as meter:
            work(1)
            assert shared.get(make) == 7 and shared.get(make) == 7
        costs.append(meter.cost)
    assert [(one.cpu_seconds, one.signal_cpu_seconds) for one in costs] == [(5, 2)] * 3


# --- no row depends on the others


@pytest.fixture(scope="module")
def fleet():
    """A source over 24 small MLPs: 18 train and 6 dev models."""
    from helpers_whitebox import signals_of

    from mico_competition.signals.scalars import entropies

    data, models, is_member, points = trained(models=24)
    labels = data.labels.numpy()
    signals, logits = signals_of(models, data)
    both = [entropies(torch.from_numpy(own), data.labels).numpy() for own in logits]
    signals["entropy"], signals["modified_entropy"] = np.stack(both, axis=1)
    folders = tuple(
        ModelFolder("digits_inf", phase, number, None)
        for phase, numbers in (("train", range(18)), ("dev", range(100, 106)))
        for number in numbers
    )
    known_membership = is_member.astype(np.int8)
    fleet = Fleet("digits_inf", folders, np.arange(len(data)), labels, points, known_membership)
    return Arrays(fleet, signals, logits, models, data)


LEFT_OUT = {"suri", "query-stack", "neural", "layers"}
"""Slow, or made for other data than these: they run by themselves in their own tests."""


@pytest.mark.slow
@pytest.mark.parametrize("phase", [pytest.param("train", marks=pytest.mark.slow), "dev"])
def test_the_row_of_every_named_attack_is_the_same_alone_and_with_all_others(fleet, phase):
    task = make_task(fleet, phase)
    chosen = [get_attack(name) for name in ROWS if name not in LEFT_OUT]
    assert len(chosen) > 30
    base = get_attack("threshold")
    together = evaluate(task, chosen, against=base, options=FEW)
    backwards = evaluate(task, chosen[::-1], against=base, options=FEW)
    rows = {row.name: row for row in together.rows}
    for row in backwards.rows:
        same(row, rows[row.name])
    for attack in chosen:
        same(evaluate(task, [attack], against=base, options=FEW).rows[-1], rows[attack.name])


def same(one, other):
    for metric, estimate in one.measured.estimates.items():
        assert estimate.value == other.measured.estimates[metric].value, (one.name, metric)
    np.testing.assert_array_equal(one.measured.tpr, other.measured.tpr)


@pytest.mark.slow
def test_decoders_that_share_their_work_cost_the_same_in_any_order(fleet, clock_of_calls):
    """`joint` after `trace` does not do the first pass again, but is charged for it."""
    task = make_task(fleet, "dev")
    names = ("trace", "joint", "best")
    pair = [get_attack(name) for name in names]
    costs = []
    for order in (pair, pair[::-1]):
        found = evaluate(task, order, against=get_attack("threshold"), options=FEW)
        costs.append({row.name: row.cost for row in found.rows[1:]})
    for name in names:
        first, second = (one[name].cpu_seconds for one in costs)
        assert 0.3 < first / second < 3, costs
        assert costs[0][name].models == 24 and costs[0][name].records == 300
    assert costs[0]["joint"].cpu_seconds > 0.5 * costs[0]["trace"].cpu_seconds


OF_THESE = [name for name in ROWS if name != "query-stack"]  # which is not for binary features


@pytest.mark.parametrize("name", OF_THESE)
def test_a_named_attack_reads_no_more_than_its_access(fleet, name):
    with metered() as meter:
        run(make_task(fleet, "dev"), get_attack(name))
    about = About(name, "", "", ROWS[name].access)
    assert with_access(about, meter.read) == about
    assert meter.read


def test_what_shared_work_reads_is_told_to_all_who_use_it():
    shared = Shared()
    for _ in range(2):
        with metered() as meter:
            shared.get(lambda: signal({}, "logit", loaded))
        assert meter.read == {"logit", MODELS}


def test_costs_stand_in_text_csv_and_json(fleet):
    import csv
    import io
    import json

    found = evaluate(make_task(fleet, "dev"), [get_attack("eb")], options=FEW)
    words = table.text(found)
    assert table.COST in words and words.splitlines()[-1].split()[0] == "eb"
    assert words.splitlines()[-1].split()[-2:] == ["24", "300"]
    rows = list(csv.DictReader(io.StringIO(table.to_csv(table.records(found)))))
    assert {row["models_used"] for row in rows} == {"24"} and float(rows[-1]["cpu_seconds"]) >= 0
    (nested,) = json.loads(table.to_json([(found, [])]))
    assert nested["interval_method"] == "both"
    assert nested["attacks"][1]["records_used"] == 300


def test_waiting_costs_nothing():
    """The clock counts processor time: a sleep takes next to none, however busy the machine is."""
    before = cpu_seconds()
    time.sleep(0.3)
    assert cpu_seconds() - before < 0.15
