"""Threads and processes: as many as there is room for, by affinity, quota and OMP_NUM_THREADS."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mico_competition.demo import run_demo
from mico_competition.hosting.leaderboard.score_all import score_all
from mico_competition.support import cpus

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux's own")


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """Sets how many CPUs the affinity leaves, what the control groups grant, and the wish."""

    def make(affinity=8, groups=None, omp=None):
        monkeypatch.setattr(
            os, "sched_getaffinity", lambda pid: set(range(affinity)), raising=False
        )
        proc, root = tmp_path / "cgroup", tmp_path / "sys"
        proc.write_text(groups[0] if groups else "0::/\n")
        for name, text in (groups[1] if groups else {}).items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)
        monkeypatch.setattr(cpus, "_PROC", proc)
        monkeypatch.setattr(cpus, "_CGROUPS", root)
        if omp is None:
            monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        else:
            monkeypatch.setenv("OMP_NUM_THREADS", omp)
        monkeypatch.setattr(cpus, "_limited", False)

    return make


V2 = "0::/job/step\n"
V1 = "3:cpu,cpuacct:/docker/abc\n2:cpuset:/\n0::/\n"


@pytest.mark.parametrize(
    ("affinity", "groups", "expected"),
    [
        (8, None, 8),
        (1, None, 1),
        (8, ("nonsense", {}), 8),
        (8, (V2, {"job/step/cpu.max": "max 100000\n"}), 8),
        (8, (V2, {"job/step/cpu.max": "250000 100000\n"}), 2),
        (8, (V2, {"job/cpu.max": "300000 100000\n", "job/step/cpu.max": "max 100000\n"}), 3),
        (8, (V2, {"cpu.max": "50000 100000\n"}), 1),  # in a container, where the path is the host's
        (2, (V2, {"job/step/cpu.max": "400000 100000\n"}), 2),
        (8, (V2, {"job/step/cpu.max": "odd\n"}), 8),
        (
            8,
            (
                V1,
                {
                    "cpu,cpuacct/docker/abc/cpu.cfs_quota_us": "200000\n",
                    "cpu,cpuacct/docker/abc/cpu.cfs_period_us": "100000\n",
                },
            ),
            2,
        ),
        (
            8,
            (V1, {"cpu,cpuacct/cpu.cfs_quota_us": "-1", "cpu,cpuacct/cpu.cfs_period_us": "100000"}),
            8,
        ),
    ],
)
def test_available_cpus(machine, affinity, groups, expected):
    machine(affinity, groups)
    assert cpus.available_cpus() == expected


@pytest.mark.parametrize(
    ("asked", "omp", "expected"),
    [
        ((None, None), None, (8, 1)),
        ((None, None), "1", (8, 1)),
        ((None, None), "4", (2, 4)),
        ((None, None), "4,2", (2, 4)),
        ((None, None), "32", (1, 8)),
        ((None, None), "many", (8, 1)),
        ((1, None), None, (1, 8)),
        ((1, None), "1", (1, 1)),  # one worker and one thread, not all threads that there are
        ((2, None), "8", (2, 4)),
        ((None, 2), "1", (4, 2)),  # a flag is nearer than a variable
        ((3, 2), None, (3, 2)),
    ],
)
def test_workers_and_threads_share_the_cpus(machine, caplog, asked, omp, expected):
    machine(8, omp=omp)
    assert cpus.share_cpus(*asked) == expected
    assert not caplog.records


@pytest.mark.parametrize(
    ("asked", "expected"), [((16, None), (8, 1)), ((4, 4), (4, 2)), ((None, 9), (1, 8))]
)
def test_more_than_there_is_room_for_is_lowered_and_said(machine, caplog, asked, expected):
    machine(8)
    assert cpus.share_cpus(*asked) == expected
    assert "more than the 8 CPUs that this process may use" in caplog.records[0].message


@pytest.mark.parametrize("count", range(1, 10))
@pytest.mark.parametrize("omp", [None, "1", "3"])
def test_there_is_never_more_at_work_than_cpus(machine, caplog, count, omp):
    machine(count, omp=omp)
    caplog.set_level(logging.CRITICAL)
    for workers in (None, 1, 2, 5, 100):
        for threads in (None, 1, 2, 5, 100):
            found = cpus.share_cpus(workers, threads)
            assert min(found) >= 1 and found[0] * found[1] <= count


def test_a_worker_for_each_gpu(machine):
    machine(8)
    assert cpus.share_cpus(devices=4) == (4, 2)
    assert cpus.share_cpus(2, devices=4) == (2, 4)
    machine(2)
    assert cpus.share_cpus(devices=4) == (4, 1)


def test_libraries_heed_a_quota_unless_they_are_told_otherwise(machine, monkeypatch):
    quota = (V2, {"job/step/cpu.max": "200000 100000\n"})
    for name in ("MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        monkeypatch.setenv(name, "7")
    machine(8, quota, omp="3")
    cpus.limit_threads()
    assert os.environ["OMP_NUM_THREADS"] == "3"
    machine(8, quota)
    cpus.limit_threads()
    assert os.environ["OMP_NUM_THREADS"] == "2"
    assert cpus.share_cpus() == (2, 1)  # nobody asked for two threads of each
    monkeypatch.delenv("OMP_NUM_THREADS")


def run(out, *flags, cpu=None, **environment):
    """`mico fleet` in a process, on one CPU if one is named; gives what a model's metadata say."""
    before = os.sched_getaffinity(0)
    if cpu is not None:
        os.sched_setaffinity(0, {cpu})
    env = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    words = ["fleet", "digits_inf", "--models", "0", "--out", str(out), "--num_epochs", "1"]
    try:
        subprocess.run(
            [sys.executable, "-m", "mico_competition.cli", *words, *flags],
            env={**env, **environment},
            check=True,
            capture_output=True,
        )
    finally:
        os.sched_setaffinity(0, before)
    (path,) = Path(out).rglob("metadata.json")
    return json.loads(path.read_text())["machine"]


@pytest.mark.slow
def test_a_fleets_workers_take_the_threads_that_were_asked_for(tmp_path):
    assert run(tmp_path / "omp", "--workers", "1", OMP_NUM_THREADS="1")["threads"] == 1
    cpu = min(os.sched_getaffinity(0))
    assert run(tmp_path / "cpu", "--workers", "1", cpu=cpu)["threads"] == 1


def test_the_demonstration_and_the_scorer_heed_them_too(machine, monkeypatch, tmp_path):
    """Each with workers of one thread: as many as there are CPUs, however many the machine has."""
    machine(3, omp="8")
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    asked = []

    class Stop(Exception):
        pass

    def stop(*arguments):
        asked.append(arguments)
        raise Stop

    monkeypatch.setattr("mico_competition.demo._train_all", stop)
    for workers in (None, 2, 9):
        with pytest.raises(Stop):
            run_demo(tmp_path / "demo", models_per_phase=1, workers=workers)
    assert [arguments[2] for arguments in asked] == [3, 2, 3]
    for number in range(5):
        (tmp_path / f"{number}.zip").touch()
    monkeypatch.setattr("mico_competition.hosting.leaderboard.score_all._run", lambda *given: given)
    counts = [
        score_all(tmp_path, truths=[], out=tmp_path / "out", workers=workers)[1][3]
        for workers in (None, 2, 9)
    ]
    assert counts == [3, 2, 3]


def test_small_arrays_take_one_thread_unless_the_user_says_otherwise(machine, monkeypatch):
    machine()
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with cpus.threads_for(16, 400):
            assert torch.get_num_threads() == 1
        with cpus.threads_for(150, 20_000):
            assert torch.get_num_threads() == 2
        monkeypatch.setenv("OMP_NUM_THREADS", "2")
        with cpus.threads_for(16, 400):
            assert torch.get_num_threads() == 2
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
