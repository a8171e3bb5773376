"""Parts of GPUs on a real Ray node whose two GPUs are only numbers: tasks train on the CPU."""

import json
import os
import time
from collections import Counter
from dataclasses import replace

import pytest
from helpers_ray import fleet, one_node

from mico_competition.fleets.ray import cluster
from mico_competition.fleets.ray.task import train, try_memory

pytestmark = [pytest.mark.slow, pytest.mark.alone]


def meeting(folder, count):
    """Tasks that note which GPU they were given, and that train once `count` are there at once."""

    def on_cpu(job, block):
        begun = {"gpus": os.environ.get("CUDA_VISIBLE_DEVICES"), "cuda": job.cuda}
        note = folder / f"{block.model_ids[0]}.json"
        note.write_text(json.dumps(begun))
        end = time.monotonic() + 300
        while len(list(folder.glob("*.json"))) < count and time.monotonic() < end:
            time.sleep(0.05)
        begun["there"] = len(list(folder.glob("*.json")))
        note.write_text(json.dumps(begun))
        return train(replace(job, cuda=False), block)

    def memory_of_cpu(job, stack, sharing, mechanism):
        (folder / "memory").write_text(json.dumps({"sharing": sharing, "cuda": job.cuda}))
        return try_memory(replace(job, cuda=False), stack, sharing, mechanism)

    return on_cpu, memory_of_cpu


def test_halves_of_gpus_train_four_models_at_once(tmp_path, monkeypatch, capsys):
    notes = tmp_path / "notes"
    notes.mkdir()
    on_cpu, memory_of_cpu = meeting(notes, 4)
    monkeypatch.setattr(cluster, "train", on_cpu)
    monkeypatch.setattr(cluster, "try_memory", memory_of_cpu)
    with one_node(num_cpus=4, num_gpus=2) as address:
        flags = ["--stack", "1", "--ray", address, "--gpus_per_task", "0.5"]
        assert fleet(tmp_path / "out", *flags, models="0-3") == 0
    assert "4 of 4 models done, 0 failed" in capsys.readouterr().out
    told = [json.loads(path.read_text()) for path in notes.glob("*.json")]
    assert [each["there"] for each in told] == [4] * 4 and all(each["cuda"] for each in told)
    assert Counter(each["gpus"] for each in told) == {"0": 2, "1": 2}
    assert json.loads((notes / "memory").read_text()) == {"sharing": 2, "cuda": True}
