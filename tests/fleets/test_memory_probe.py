"""Memory is tried before a fleet's first model, and the models are the same as without that."""

import os
import random
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers_models import write_base

from mico_competition.cli import main
from mico_competition.data.arrays import TokenDataset
from mico_competition.data.datasets import load_dataset
from mico_competition.fleets import memory, worker_process, workers
from mico_competition.fleets.fleet import Block, blocks_of, run_fleet, train_block
from mico_competition.fleets.ledger import Ledger
from mico_competition.fleets.memory import (
    Needed,
    NotEnoughMemory,
    check_memory,
    largest_batch,
    needed,
)
from mico_competition.fleets.together import trial_together
from mico_competition.fleets.workers import LocalWorkers
from mico_competition.training.settings import resolve

CPU = torch.device("cpu")


def digits(**flags):
    return resolve({"scenario": "digits_lo", "num_epochs": 1, **flags}), load_dataset("digits")


def ledger_of(out, models, **flags):
    settings, data = digits(**flags)
    ledger = Ledger(out, settings, "0" * 64, False, noise_multiplier=2.0).with_models(models)
    ledger.write()
    return ledger, data


def test_a_poisson_batch_is_hardly_ever_larger():
    settings, _ = digits()
    n, rate = settings.len_training, settings.sample_rate
    draws = np.random.default_rng(0).binomial(n, rate, 10**6)
    assert draws.max() <= largest_batch(settings) < n
    plain = resolve({"scenario": "digits_inf"})
    assert largest_batch(plain) == plain.batch_size


@pytest.mark.parametrize("stack", [1, 2])
def test_what_is_tried_leaves_no_trace_in_random_numbers(stack):
    settings, data = digits()
    before = torch.get_rng_state(), np.random.get_state()[1], random.getstate()
    flags = torch.are_deterministic_algorithms_enabled()
    found = needed(settings, data, device=CPU, stack=stack)
    after = torch.get_rng_state(), np.random.get_state()[1], random.getstate()
    assert torch.equal(before[0], after[0]) and np.array_equal(before[1], after[1])
    assert before[2] == after[2] and torch.are_deterministic_algorithms_enabled() == flags
    # After training, this process may hold enough that is free, since glibc keeps it.
    assert found.standing > 10**7 and found.growth >= 0


GROWTH = """
import sys, torch
from mico_competition.data.arrays import ArrayDataset
from mico_competition.data.datasets import load_dataset
from mico_competition.fleets import memory
from mico_competition.training.settings import resolve
data = load_dataset("digits")
wide = ArrayDataset(data.storage, data.labels, lambda rows: rows.float().repeat(1, 1000))
memory.new_model = lambda task, **_: torch.nn.Linear(64_000, 10)
flags = {"scenario": "digits_inf", "batch_size": 100, "max_physical_batch_size": int(sys.argv[1])}
print(memory.needed(resolve(flags), wide, device=torch.device("cpu")).growth)
"""


@pytest.mark.slow
def test_memory_grows_with_the_physical_batch():
    """A step holds the 64,000 inputs of each record at least."""

    def growth(size):
        command = [sys.executable, "-c", GROWTH, str(size)]
        return int(subprocess.run(command, capture_output=True, check=True, text=True).stdout)

    assert growth(100) > max(growth(4), 100 * 64_000 * 4)


def test_the_longest_sentences_are_tried(monkeypatch, tmp_path):
    pytest.importorskip("transformers")
    lengths = torch.randint(3, 20, (60,), generator=torch.Generator().manual_seed(0))
    mask = (torch.arange(20) < lengths[:, None]).to(torch.uint8)
    data = TokenDataset(torch.full((60, 20), 5), mask, torch.arange(60) % 2)
    sizes = {"len_training": 40, "len_challenge": 5, "batch_size": 10}
    base = {"model_name": str(write_base(tmp_path)), "max_physical_batch_size": 4}
    settings = resolve({"scenario": "sst2_lo", **sizes, **base})
    seen = []

    def fit(settings, model, data, rows, streams, progress, **options):
        for batch in options["epoch"](settings, None):
            seen.append(lengths[rows[batch]])

    monkeypatch.setattr(memory, "fit_records", fit)
    needed(settings, data, device=CPU)
    longest = lengths.sort(descending=True).values
    assert len(seen) == 2 and all(torch.equal(each, longest[:8]) for each in seen)


@pytest.mark.parametrize(
    ("free", "sharing", "stack", "said"),
    [
        (99, 1, 1, "takes 100 bytes more than the 50 bytes that it holds before, and 99 bytes"),
        (99, 1, 2, "2 models of digits_lo .* Give a smaller --stack than 2 or --max_phys"),
        (99, 4, 1, "are free for 4 workers. Give --max_physical_batch_size"),
        (400, 4, 1, "of which 3 would fit. Give a smaller --workers or --max_physical"),
        (550, 4, 1, None),
        (None, 4, 1, None),
    ],
)
def test_what_does_not_fit_is_refused_with_the_fix(monkeypatch, free, sharing, stack, said):
    monkeypatch.setattr(memory, "needed", lambda *args, **options: Needed(50, 100))
    monkeypatch.setattr(memory, "_free", lambda device: free)
    settings, data = digits()
    options = {"device": CPU, "sharing": sharing, "stack": stack}
    if said is None:
        check_memory(settings, data, **options)
        return
    with pytest.raises(NotEnoughMemory, match=said) as found:
        check_memory(settings, data, **options)
    assert str(found.value).count(". ") == 1 and str(found.value).endswith(" or less.")


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory."), MemoryError(), RuntimeError("out of memory")],
)
def test_memory_that_runs_out_is_a_sentence_and_other_errors_wait(monkeypatch, error):
    def fit(*args, **options):
        raise error

    settings, data = digits()
    monkeypatch.setattr(memory, "fit_records", fit)
    with pytest.raises(NotEnoughMemory, match="takes more than the .* that are free. Give --max"):
        check_memory(settings, data, device=CPU)
    error = ValueError("The loss is not finite.")
    check_memory(settings, data, device=CPU)


def dies(stack, sharing):
    os._exit(1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tried", "said"),
    [
        ("{0} models in {1} workers do not fit.".format, "2 models in 2 workers"),
        (dies, "killed, or"),
    ],
)
def test_a_fleet_that_does_not_fit_ends_before_its_first_model(tmp_path, monkeypatch, tried, said):
    ledger, data = ledger_of(tmp_path, range(4))
    monkeypatch.setattr(workers, "share_cpus", lambda *args, **options: (2, 1))
    monkeypatch.setattr(workers, "try_memory", tried)
    *_, last = run_fleet(ledger, LocalWorkers(ledger, data), stack=2)
    assert last.stopped and said in last.stopped and (last.done, last.left) == (0, 4)
    assert not ledger.done()


def test_a_worker_says_what_does_not_fit(tmp_path, monkeypatch):
    ledger, data = ledger_of(tmp_path, range(2))
    job = workers.LocalWorkers(ledger, data, workers=1, threads=1)._job
    state = {"job": job, "data": data, "device": CPU}
    monkeypatch.setattr(worker_process, "_state", state)
    assert worker_process.try_memory(1, 1) is None
    monkeypatch.setattr(memory, "_free", lambda device: 1)
    monkeypatch.setattr(memory.PeakMemory, "growth", lambda self: 10**6)  # glibc keeps free memory
    assert "would not fit into memory" in str(worker_process.try_memory(2, 1))


@pytest.mark.slow
@pytest.mark.parametrize("stack", [1, 2])
def test_models_are_those_of_a_fleet_without_it(tmp_path, stack):
    ledger, data = ledger_of(tmp_path / "with", range(2))
    *_, last = run_fleet(ledger, LocalWorkers(ledger, data, workers=1, threads=1), stack=stack)
    assert last.done == 2
    torch_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for block in blocks_of(replace(ledger, out=tmp_path / "without"), stack):
            folders = [tmp_path / f"model_{i}" for i in block.model_ids]
            none = [None] * len(folders)
            outcome = train_block(
                ledger.settings, data, Block(block.entries), folders, none, none, progress=False
            )
            assert outcome.error is None
    finally:
        torch.set_num_threads(torch_threads)
    for model_id in range(2):
        for name in ("model.pt", "solution.csv"):
            here, there = ledger.folder_of(model_id) / name, tmp_path / f"model_{model_id}" / name
            assert here.read_bytes() == there.read_bytes()


@pytest.mark.slow
def test_the_physical_batch_may_change_until_a_model_is_whole(tmp_path, capsys):
    command = ["fleet", "digits_inf", "--num_epochs", "1", "--out", str(tmp_path)]
    command += ["--workers", "1", "--models"]
    ledger, _ = ledger_of(tmp_path, range(1), scenario="digits_inf")
    (tmp_path / "fleet" / "digits_inf" / "ledger.jsonl").unlink()
    assert main([*command, "0", "--max_physical_batch_size", "64"]) == 0
    found = Ledger.read(tmp_path, "digits_inf")
    assert found.settings.max_physical_batch_size == 64
    assert main([*command, "1", "--max_physical_batch_size", "32"]) == 1
    assert "begun with --max_physical_batch_size 64, not 32" in capsys.readouterr().err
    (model,) = ledger.only([0]).done() and [ledger.folder_of(0)]
    model.rename(tmp_path / "away")
    assert main([*command, "0", "--max_physical_batch_size", "32"]) == 0
    assert Ledger.read(tmp_path, "digits_inf").settings.max_physical_batch_size == 32


@pytest.mark.slow
def test_several_processes_are_tried_at_once():
    settings, data = digits()
    alone = trial_together(1, settings, data, seconds=0.0)
    assert (alone.sharing, alone.gain) == (1, None)
    found = trial_together(2, settings, data, seconds=0.2, threads=1)
    assert found.sharing == 2 and found.gain is not None and found.gain > 0 and found.threads == 1
