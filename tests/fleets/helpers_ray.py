"""A Ray cluster of two nodes on this machine, and fleets that are trained on it."""

import os
import shutil
import signal
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from helpers_fleet import wait_for

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install -e '.[cluster]'")

from ray._private import services  # noqa: E402

from mico_competition.cli import main  # noqa: E402

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


@contextmanager
def _rays_own_folder():
    """A folder with a short name, as sockets need, below which Ray writes all that it writes."""
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
        yield Path(folder)


@contextmanager
def two_nodes():
    """The cluster of two nodes."""
    with _rays_own_folder() as folder:
        two = TwoNodes(folder)
        yield two
        two.shutdown()


@contextmanager
def one_node(**resources):
    """The address of a node with these resources, which need not be there."""
    from ray.cluster_utils import Cluster

    with _rays_own_folder():
        alone = Cluster()
        flags = {"include_dashboard": False, "object_store_memory": 80 * 2**20, **resources}
        node = alone.add_node(wait=False, **flags)
        alone._wait_for_node(node, timeout=PATIENCE)
        yield alone.address
        alone.shutdown()


def fleet(out, *flags, models="0-4"):
    """Train digits in two epochs; gives the exit code."""
    base = ["digits_lo", "--models", models, "--out", str(out), "--threads", "1"]
    return main(["fleet", *base, "--num_epochs", "2", *flags])


def files_of(out, challenge="digits"):
    """The bytes of every file of the models below `out`, but for those that hold a time."""
    return {
        str(path.relative_to(out)): path.read_bytes()
        for path in out.glob(f"{challenge}/*/*/model_*/*")
        if path.name != "metadata.json"  # has the time it took
    }


def copy_ledger(here, there, scenario):
    """Let `there` begin with the models and seeds of `here`."""
    for name in ("ledger.jsonl", "settings.json"):
        target = there / "fleet" / scenario / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(here / "fleet" / scenario / name, target)
