"""Fleets on a real Ray cluster of two nodes on this machine, one of which is killed."""

import os
import signal
import subprocess
import sys
from contextlib import closing, contextmanager

import pytest
import torch
from helpers_fleet import Fleet, wait_for
from helpers_ray import copy_ledger, files_of, fleet, ray

from mico_competition.competition.challenge import ChallengeDataset
from mico_competition.data.arrays import ArrayDataset
from mico_competition.data.datasets import load_digits
from mico_competition.fleets.fleet import run_fleet
from mico_competition.fleets.ledger import Ledger
from mico_competition.fleets.ray.cluster import RayCluster
from mico_competition.training.settings import resolve

pytestmark = [
    pytest.mark.alone,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc"),
]


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


def test_the_same_ledger_gives_the_same_bits_on_a_cluster(nodes, tmp_path, capsys):
    """Models 0 to 3 in stacks of two, model 4 alone."""
    here, there = tmp_path / "here", tmp_path / "there"
    assert fleet(here, "--stack", "2", "--workers", "1") == 0
    copy_ledger(here, there, "digits_lo")
    handler = signal.getsignal(signal.SIGTERM)
    assert fleet(there, "--stack", "2", "--ray", nodes.address) == 0
    assert signal.getsignal(signal.SIGTERM) is handler
    assert not ray.is_initialized()
    assert "models 2-3 done" in capsys.readouterr().out
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
