"""The two ends of a Ray task, without a cluster: what is trained, handed over, and kept once."""

import os
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install -e '.[cluster]'")

from mico_competition.data.datasets import load_digits  # noqa: E402
from mico_competition.fleets.fleet import Block  # noqa: E402
from mico_competition.fleets.ledger import Ledger  # noqa: E402
from mico_competition.fleets.ray import task as ray_task  # noqa: E402
from mico_competition.fleets.ray.cluster import RayCluster, _Tasks  # noqa: E402
from mico_competition.fleets.ray.task import Job, Result, SharedFolder, train  # noqa: E402
from mico_competition.training.checkpoint import OpenCheckpoint  # noqa: E402
from mico_competition.training.settings import resolve  # noqa: E402


@pytest.fixture
def ledger(tmp_path):
    settings = resolve({"scenario": "digits_inf", "num_epochs": 1})
    return Ledger(tmp_path, settings, "0" * 64, False).with_models(range(2))


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Where tasks of this test have their folders."""
    place = tmp_path / "node"
    place.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(place))
    return place


def job_of(ledger):
    job = Job.of(ledger.settings, load_digits(), None, torch.get_num_threads())
    for array in job.arrays.values():
        array.setflags(write=False)  # as what comes out of Ray's object store
    return job


def backend_of(ledger, get):
    backend = RayCluster(ledger, load_digits(), address="auto")
    backend._ray = SimpleNamespace(get=get, exceptions=ray.exceptions)
    return backend


def outcome(ledger, get):
    backend = backend_of(ledger, get)
    watch = SimpleNamespace(sentence="The cluster is gone.")
    return backend._outcome(None, Block(ledger.entries), watch)


def raising(error):
    def get(reference):
        raise error

    return get


def test_a_task_hands_its_folders_over_and_leaves_nothing(ledger, here):
    result = train(job_of(ledger), Block(ledger.entries))
    assert result.error is None and sorted(result.folders) == [0, 1]
    assert not ray.is_initialized()
    assert not list(here.glob("mico_task_*"))
    assert outcome(ledger, lambda reference: result).error is None
    for model_id, files in result.folders.items():
        for name, content in files.items():
            assert (ledger.folder_of(model_id) / name).read_bytes() == content.tobytes()
    assert sorted(result.folders[0]) == [
        "metadata.json",
        "model.pt",
        "seed_challenge",
        "seed_membership",
        "seed_training",
        "solution.csv",
    ]


def test_a_task_goes_on_from_a_checkpoint_where_it_sees_the_fleets_folder(
    ledger, here, monkeypatch
):
    class Killed(BaseException):
        pass

    write = OpenCheckpoint.write

    def killed(self, state, steps):
        write(self, state, steps)
        raise Killed

    monkeypatch.setattr(OpenCheckpoint, "due", lambda self: True)
    shared = SharedFolder.create(ledger.folder, 15.0, None)
    job, block = replace(job_of(ledger), shared=shared), Block(ledger.entries[:1])
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(OpenCheckpoint, "write", killed)
        train(job, block)
    elsewhere = train(replace(job, shared=replace(shared, token="another")), block)
    assert (
        not elsewhere.shared and b"resumed" not in elsewhere.folders[0]["metadata.json"].tobytes()
    )
    result = train(job, block)
    assert result.shared and b'"resumed": 1' in result.folders[0]["metadata.json"].tobytes()
    assert ledger.checkpoint_folder(0).is_dir()  # until the fleet has the model
    weights = [each.folders[0]["model.pt"].tobytes() for each in (elsewhere, result)]
    assert weights[0] == weights[1]
    shared.remove()
    assert not shared.is_here()


def test_the_first_whole_result_counts(ledger):
    files = {"first": np.frombuffer(b"1", np.uint8), "deep/empty": np.empty(0, np.uint8)}
    outcome(ledger, lambda reference: Result({0: files}, None, False))
    later = {"second": np.frombuffer(b"2", np.uint8)}
    assert outcome(ledger, lambda reference: Result({0: later}, None, False)).error is None
    kept = sorted(path for path in ledger.folder_of(0).rglob("*") if path.is_file())
    assert [path.read_bytes() for path in kept] == [b"", b"1"]


def test_what_training_raises_comes_back_with_the_nodes_name(ledger, here):
    job = replace(job_of(ledger), settings=replace(ledger.settings, learning_rate=1e30))
    result = train(job, Block(ledger.entries[:1]))
    assert result.folders == {} and result.error is not None
    assert "Traceback" in result.error and "not finite" in result.error
    assert result.error.endswith(f" (on {os.uname().nodename})")
    assert not list(here.glob("mico_task_*"))


def test_a_node_with_other_software_trains_nothing(ledger, here):
    job = job_of(ledger)
    with pytest.raises(ValueError, match="torch is .* install the same on every node"):
        train(replace(job, versions={**job.versions, "torch": "1.0"}), Block(ledger.entries))


def test_a_folder_of_a_killed_task_goes_with_the_next(here):
    for name in ("mico_task_dead", "mico_task_young"):
        (here / name).mkdir()
    (here / "mico_task_dead" / "seed_membership").write_text("1")
    for name in ("mico_task_dead", "something_else"):
        (here / name).mkdir(exist_ok=True)
        os.utime(here / name, (0, 0))
    with ray_task._temporary_folder() as first:
        os.utime(first, (0, 0))  # old, and in use
        with ray_task._temporary_folder() as second:
            assert first.is_dir() and second.stat().st_mode & 0o777 == 0o700
    assert sorted(path.name for path in here.iterdir()) == ["mico_task_young", "something_else"]


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (ray.exceptions.WorkerCrashedError(), True),
        (ray.exceptions.NodeDiedError("gone"), True),
        (ray.exceptions.OutOfMemoryError("too much"), True),
        (ray.exceptions.ObjectReconstructionFailedError("ab", 0, "ab"), True),
        (ray.exceptions.OwnerDiedError("ab", "ab", "ab"), True),
        (ray.exceptions.TaskUnschedulableError("full"), True),
        (ray.exceptions.LocalRayletDiedError(), False),
        (ray.exceptions.RayTaskError("train", "trace", ValueError("No\ntorch.")), False),
    ],
)
def test_what_is_lost_is_tried_again_and_what_cannot_begin_ends_the_run(ledger, error, lost):
    found = outcome(ledger, raising(error))
    assert (found.lost, found.fatal) == (lost, not lost)
    last = found.error.splitlines()[-1]
    if isinstance(error, ray.exceptions.RayTaskError):
        assert last == "A node of the Ray cluster cannot train: No torch."
    elif not lost:
        assert last == "The cluster is gone."
    else:
        assert last.startswith("The task was lost with its process or machine (")


def test_a_place_that_cannot_be_written_ends_the_run(ledger):
    (ledger.out / "digits").write_text("a file")
    files = {"model.pt": np.zeros(3, np.uint8)}
    found = outcome(ledger, lambda reference: Result({0: files}, None, False))
    assert found.fatal and "could not be written" in found.error


@pytest.mark.parametrize(
    ("nodes", "gpus", "used", "slots"),
    [
        ([{"CPU": 8.0}, {"CPU": 3.0}], None, 0.0, 5),  # 2 CPUs a task
        ([{"CPU": 64.0, "GPU": 4.0}, {"CPU": 64.0}], None, 1.0, 4),
        ([{"CPU": 64.0, "GPU": 2.0}], 0.4, 0.4, 4),
        ([{"CPU": 64.0, "GPU": 2.0}], 0.1, 0.1, 20),
        ([{"CPU": 6.0, "GPU": 2.0}], 0.1, 0.1, 3),
        ([{"CPU": 6.0, "GPU": 2.0}], 0.0, 0.0, 3),
        ([{"CPU": 64.0}], 1.0, 1.0, 0),
        ([{}], None, 0.0, 0),
    ],
)
def test_room_is_twice_what_runs_and_some_more_for_an_autoscaler(
    ledger, caplog, nodes, gpus, used, slots
):
    asked = {}

    def remote(**needs):
        asked.update(needs)
        return lambda function: function

    stub = SimpleNamespace(remote=remote, put=lambda job: asked.update(cuda=job.cuda))
    job = replace(job_of(ledger), threads=2)
    tasks = _Tasks(stub, job, gpus, SimpleNamespace(resources=lambda: nodes))
    assert tasks.room() == tasks.room() == max(2 * slots, slots + 16)
    assert asked == {"num_cpus": 2, "num_gpus": used, "max_retries": 0, "cuda": used > 0}
    assert ("waiting for one to join" in caplog.text) == (slots == 0)
    assert len(caplog.records) == (slots == 0)


@pytest.mark.parametrize("gpus", [-0.5, 1.5, 2.0])
def test_gpus_per_task_are_at_most_one(ledger, gpus):
    with pytest.raises(ValueError, match="gpus_per_task .* in"):
        RayCluster(ledger, load_digits(), address="auto", gpus_per_task=gpus)


def test_nothing_that_is_printed_shows_a_seed(ledger):
    entry = ledger.entries[0]
    shown = repr((Block(ledger.entries), entry, ledger))
    assert str(entry.train_seed) not in shown
    for seed in vars(entry.seeds).values():
        assert seed.hex() not in shown and repr(seed) not in shown
