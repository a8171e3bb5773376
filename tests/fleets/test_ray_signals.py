"""Signals on a Ray cluster, without one: what a task computes, and how tasks are kept going."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from helpers_release import write_trained

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install -e '.[cluster]'")

from mico_competition.fleets.ray import signals as ray_signals  # noqa: E402
from mico_competition.fleets.ray.signals import Job, compute, on_ray  # noqa: E402
from mico_competition.fleets.ray.task import versions  # noqa: E402
from mico_competition.fleets.shared_data import parts_of  # noqa: E402
from mico_competition.signals import open_signals  # noqa: E402
from mico_competition.signals.points import Points  # noqa: E402

SCENARIO = "digits_inf"


@pytest.fixture
def trained(tmp_path):
    return write_trained(tmp_path / "trained") / "digits"


class FakeRay:
    """Runs tasks when they are waited for, the last first; `lost` of them are lost."""

    exceptions = ray.exceptions

    def __init__(self, lost=0):
        self.most, self.lost, self.cancelled = 0, lost, []
        self._waiting = {}

    def put(self, value):
        return value

    def remote(self, **needs):
        assert needs == {"num_cpus": 1, "num_gpus": 0, "max_retries": 3}
        return lambda function: SimpleNamespace(remote=lambda *a: self._submit(function, a))

    def _submit(self, function, arguments):
        reference = object()
        self._waiting[reference] = function, arguments
        self.most = max(self.most, len(self._waiting))
        return reference

    def wait(self, references, timeout):
        return references[-1:], references[:-1]

    def get(self, reference):
        function, arguments = self._waiting.pop(reference)
        if self.lost:
            raise ray.exceptions.WorkerCrashedError()
        try:
            return function(*arguments)
        except Exception as error:
            raise ray.exceptions.RayTaskError("compute", "", error) from None

    def cancel(self, reference, force):
        self.cancelled.append(reference)


def runner_on(fake, monkeypatch, nodes=1, gone=False):
    """A runner on a fake cluster with blocks of one model."""
    monkeypatch.setattr(ray_signals, "_BLOCK_BYTES", 1)
    resources = [{"CPU": 1.0}] * nodes
    watch = SimpleNamespace(resources=lambda: resources, gone=gone, sentence="It is gone.")
    return lambda points, wanted: ray_signals._spread(fake, watch, points, wanted)


def test_what_a_cluster_computes_is_what_is_computed_here(trained, data, tmp_path, monkeypatch):
    fake = FakeRay()
    runner = runner_on(fake, monkeypatch)
    there = open_signals(trained, SCENARIO, data, cache=tmp_path / "a", runner=runner)
    here = open_signals(trained, SCENARIO, data, cache=tmp_path / "b")
    assert there.compute(["logits", "entropy", "gradient_norm"]).made == 4
    assert fake.most == 2  # one runs, one waits, on a cluster of one CPU
    for name in ("loss", "entropy", "gradient_norm"):
        assert (there.get(name) == here.get(name)).all()
    for row in range(4):
        assert isinstance(there.logits(row), np.memmap)
        assert (there.logits(row) == here.logits(row)).all()
    assert there.compute(["gradient_norm"]).made == 0


def test_a_model_that_cannot_be_loaded_there_is_named(trained, data, tmp_path, monkeypatch):
    (trained / SCENARIO / "train/model_1/model.pt").write_bytes(b"PK")
    fake = FakeRay()
    signals = open_signals(
        trained, SCENARIO, data, cache=tmp_path / "c", runner=runner_on(fake, monkeypatch)
    )
    with pytest.raises(ValueError, match=rf"cannot compute signals: {SCENARIO}/train/model_1/mod"):
        signals.get("loss")
    assert len(fake.cancelled) == len(fake._waiting) == 1


def test_a_task_that_is_lost_for_good_is_a_sentence(trained, data, tmp_path, monkeypatch):
    runner = runner_on(FakeRay(lost=1), monkeypatch)
    signals = open_signals(trained, SCENARIO, data, cache=tmp_path / "c", runner=runner)
    with pytest.raises(ValueError, match=r"was lost \(WorkerCrashedError\): run the command again"):
        signals.get("loss")


def test_a_cluster_that_is_gone_is_a_sentence(trained, data, tmp_path, monkeypatch):
    runner = runner_on(FakeRay(), monkeypatch, gone=True)
    signals = open_signals(trained, SCENARIO, data, cache=tmp_path / "c", runner=runner)
    with pytest.raises(ValueError, match="It is gone"):
        signals.get("loss")


def test_a_node_with_other_software_is_refused(data):
    parts, rebuild = parts_of(Points.of("digits", data, np.arange(9)).data)
    job = Job("digits", parts, rebuild, {**versions(), "torch": "0.1"}, 1, False)
    with pytest.raises(ValueError, match=r"torch is \S+ on \S+ and 0.1 where the command runs"):
        compute(job, [])
    assert compute(replace(job, versions=versions()), []) == []


def test_addresses_are_checked_before_anything_else():
    with pytest.raises(ValueError, match="Expected --ray auto or --ray HOST:PORT"):
        on_ray("nowhere")
