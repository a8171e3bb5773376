"""Fleets on a real Ray cluster of two nodes on this machine, one of which is killed."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest
import torch
from helpers_fleet import Fleet, wait_for

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install -e '.[cluster]'")

from ray._private import services  # noqa: E402

from mico_competition.cli import main  # noqa: E402
from mico_competition.competition.challenge import ChallengeDataset  # noqa: E402
from mico_competition.data.arrays import ArrayDataset  # noqa: E402
from mico_competition.data.datasets import load_digits  # noqa: E402
from mico_competition.fleets.fleet import run_fleet  # noqa: E402
from mico_competition.fleets.ledger import Ledger  # noqa: E402
from mico_competition.fleets.ray.cluster import RayCluster  # noqa: E402
from mico_competition.training.settings import resolve  # noqa: E402

pytestmark = [
    pytest.mark.alone,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc"),
]


PATIENCE = 600  # seconds: a machine under load starts Ray's processes slowly


def room():
    """Whether this machine is free enough for Ray, whose agents have 30 s to start, by its code."""
    return os.getloadavg()[0] < 2 * (os.cpu_count() or 1)


def when_listed(get_node):
    """Ray's `get_node`, which waits until the head lists the node; Ray itself gives it 30 s."""

    def patient(*arguments):
        found = []

        def listed():
            with suppress(RuntimeError):
                found.append(get_node(*arguments))
            return found

        wait_for(listed, PATIENCE)
        return found[0]

    return patient


class TwoNodes:
    """A head and a second node, one CPU each; `second` can be killed."""

    def __init__(self, folder):
        from ray.cluster_utils import Cluster

        self.folder = folder
        self.node = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
        self.cluster = Cluster()
        checks = {
            "health_check_period_ms": 1000,
            "health_check_failure_threshold": 3,  # a node that is gone fails each at once
            "health_check_timeout_ms": 1000 * PATIENCE,  # one that is slow does not
        }
        self.head = self.add(include_dashboard=False, _system_config=checks)
        self.address = self.cluster.address
        self.grow()

    def add(self, **flags):
        """A node, once the cluster lists it."""
        node = self.cluster.add_node(wait=False, **self.node, **flags)
        self.cluster._wait_for_node(node, timeout=PATIENCE)
        return node

    def grow(self):
        self.second = self.add()

    def kill_second(self):
        self.cluster.remove_node(self.second, allow_graceful=False)

    def children(self, *nodes):
        """Ids of the processes that Ray runs on `nodes`, by default on both."""
        for node in nodes or (self.head, self.second):
            raylet = node.all_processes["raylet"][0].process.pid
            for path in Path(f"/proc/{raylet}/task").glob("*/children"):
                yield from map(int, path.read_text().split())

    def tasks(self, *nodes):
        """What trains on `nodes`, by default on both: process id -> name of the task."""
        found = {}
        for pid in self.children(*nodes):
            with suppress(OSError):
                name = Path(f"/proc/{pid}/cmdline").read_text().split("\0")[0]
                if name.startswith("ray::digits_"):
                    found[pid] = name
        return found

    def shutdown(self):
        children = list(self.children())
        self.cluster.shutdown()
        for pid in children:  # without a head, Ray's own agents take a minute to notice
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)

    def left_on_nodes(self):
        """Files that a task left on its node."""
        return list(self.folder.glob("mico_task_*/**/*"))


@pytest.fixture(scope="module")
def nodes():
    """The cluster; all that Ray writes is below a folder with a short name, as sockets need."""
    try:
        wait_for(room, PATIENCE)
    except TimeoutError:
        pytest.skip(f"this machine is too busy to start Ray: its load is {os.getloadavg()[0]:.0f}")
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory(dir="/tmp") as folder:
        for name in ("RAY_TMPDIR", "TMPDIR"):
            patch.setenv(name, folder)
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_gcs_server_port_wait_time_s", str(PATIENCE))
        patch.setenv("RAY_agent_register_timeout_ms", str(1000 * PATIENCE))
        patch.setattr(services, "get_node", when_listed(services.get_node))
        two = TwoNodes(Path(folder))
        yield two
        two.shutdown()


@contextmanager
def started(command):
    """A fleet's process, which does not outlive its test."""
    process = command.start() if isinstance(command, Fleet) else command
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


def fleet(out, *flags, models="0-4"):
    base = ["digits_lo", "--models", models, "--out", str(out), "--threads", "1"]
    return main(["fleet", *base, "--num_epochs", "2", *flags])


def files_of(out):
    return {
        str(path.relative_to(out)): path.read_bytes()
        for path in out.glob("digits/*/*/model_*/*")
        if path.name != "metadata.json"  # has the time it took
    }


def test_the_same_ledger_gives_the_same_bits_on_a_cluster(nodes, tmp_path, capsys):
    """Models 0 to 3 in stacks of two, model 4 alone."""
    here, there = tmp_path / "here", tmp_path / "there"
    assert fleet(here, "--stack", "2", "--workers", "1") == 0
    for name in ("ledger.jsonl", "settings.json"):
        target = there / "fleet" / "digits_lo" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(here / "fleet" / "digits_lo" / name, target)
    handler = signal.getsignal(signal.SIGTERM)
    assert fleet(there, "--stack", "2", "--ray", nodes.address) == 0
    assert signal.getsignal(signal.SIGTERM) is handler
    assert not ray.is_initialized()
    assert "model_2, model_3 done" in capsys.readouterr().out
    assert files_of(here) == files_of(there) and len(files_of(there)) == 5 * 5
    assert not nodes.left_on_nodes()
    assert fleet(there, "--stack", "2", "--ray", nodes.address) == 0  # nothing is left to do


def test_a_node_and_a_worker_are_killed_while_they_train(nodes, tmp_path):
    hurt = Fleet(
        tmp_path, "--stack", "1", "--num_epochs", "400", "--ray", nodes.address, models="0-7"
    )
    seen = {nodes.head: set(), nodes.second: set()}

    def training():
        """Tasks of both nodes once each is at its second, so that nothing is still starting."""
        now = {node: nodes.tasks(node) for node in seen}
        for node, tasks in now.items():
            seen[node].update(tasks.values())
        return all(now.values()) and all(len(names) > 1 for names in seen.values()) and now

    with started(hurt) as process:
        now = wait_for(training)
        os.kill(next(iter(now[nodes.head])), signal.SIGKILL)
        nodes.kill_second()
        nodes.grow()
        out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    assert "8 of 8 models done, 0 failed, 0 left, 2 retries" in out
    lost = {f"ray::digits_inf {event['model_ids'][0]}" for event in hurt.events("lost")}
    assert lost == {name for tasks in now.values() for name in tasks.values()}
    assert sorted(event["model_id"] for event in hurt.events("done")) == list(range(8))
    assert len(hurt.models()) == 8 and not hurt.leftovers() and not nodes.left_on_nodes()
    log = (hurt.folder / "failures.log").read_text()
    assert log.count("lost with its process or machine") == 2 and "NodeDiedError" in log
    for folder in hurt.models():
        splits = ChallengeDataset.from_path(folder, load_digits())
        assert splits.get_solutions() == [
            int(c) for c in (folder / "solution.csv").read_text()[::2]
        ]
    assert not secrets_in(nodes.folder, Ledger.read(tmp_path, "digits_inf"))


def secrets_in(folder, ledger):
    """Files below `folder` (Ray's logs among them) that hold a seed of the ledger."""
    words = [str(entry.train_seed).encode() for entry in ledger.entries]
    for entry in ledger.entries:
        for seed in vars(entry.seeds).values():
            words += [seed, seed.hex().encode(), repr(seed).encode()]
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 10
    return [path for path in files if any(word in path.read_bytes() for word in words)]


def begun(out, models, **flags):
    ledger = Ledger(out, resolve({"scenario": "digits_inf", **flags}), "0" * 64, False)
    ledger = ledger.with_models(models)
    ledger.write()
    return ledger


def test_closed_it_takes_its_tasks_with_it(nodes, tmp_path):
    """As Ctrl-C and SIGTERM do; test_cluster_files has the signal."""
    ledger = begun(tmp_path, range(4), num_epochs=9999)
    steps = run_fleet(ledger, RayCluster(ledger, load_digits(), address=nodes.address), stack=1)
    with closing(steps):
        progress = next(p for p in steps if nodes.tasks(nodes.head) and nodes.tasks(nodes.second))
    assert (progress.done, progress.left, progress.failed) == (0, 4, {})
    wait_for(lambda: not nodes.tasks())
    assert not ray.is_initialized() and not nodes.left_on_nodes()


def test_a_model_that_fails_is_kept_with_its_traceback_and_the_rest_goes_on(nodes, tmp_path):
    """An infinite pixel in a record of one model: tanh bears it, tanh's gradient does not."""
    digits = load_digits()
    ledger = begun(tmp_path, range(3), num_epochs=2)
    trained = []
    for entry in ledger.entries:
        lengths = (ledger.settings.len_training, ledger.settings.len_challenge)
        splits = ChallengeDataset(
            digits, *lengths, **{f"seed_{k}": v for k, v in vars(entry.seeds).items()}
        )
        trained.append(set(splits.train_indices.tolist()))
    storage = digits.storage.to(torch.float32)
    storage[min(trained[1] - trained[0] - trained[2]), 0] = float("inf")
    data = ArrayDataset(storage, digits.labels, digits.expand)
    backend = RayCluster(ledger, data, address=nodes.address)
    progress = list(run_fleet(ledger, backend, stack=3))[-1]
    assert (progress.done, list(progress.failed), progress.retries) == (2, [1], 0)
    assert "not finite" in progress.failed[1] and f"(on {os.uname().nodename})" in str(progress)
    log = (ledger.folder / "failures.log").read_text()
    assert log.count("Traceback (most recent call last)") == 2  # the stack, then the model alone
    assert not nodes.left_on_nodes()


def test_a_cluster_that_is_gone_ends_it_with_a_sentence(nodes, tmp_path):
    """Last, for nothing is left of the head."""
    code = (
        "import sys; from mico_competition.cli import main; "
        "from mico_competition.fleets.ray import link; link.GONE_SECONDS = 10.0; "
        "sys.exit(main(sys.argv[1:]))"
    )
    # More epochs than any machine trains before the silence is noticed.
    stranded = Fleet(tmp_path, "--stack", "1", "--num_epochs", "9999", "--ray", nodes.address)
    process = subprocess.Popen(
        [sys.executable, "-c", code, "fleet", *stranded.flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with started(process):
        assert wait_for(lambda: nodes.tasks() or process.poll() is not None) is not True
        nodes.head.kill_gcs_server(check_alive=False)
        out, err = process.communicate(timeout=600)
    assert process.returncode == 1
    assert "mico: The Ray cluster is gone" in err and "Traceback" not in err
    assert "0 of 12 models done, 0 failed" in out
    assert not stranded.leftovers()
