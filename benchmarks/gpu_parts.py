"""What gpu.py measures: each part is a function that tells its rows, one after another."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from bench_cases import bits, images
from gpu_data import BASE, TINY, Asked, Tell, dataset_for, settings_for

from mico_competition.competition.splits import derive_seeds
from mico_competition.competition.table import get_scenario, get_task, phases_of
from mico_competition.fleets.cost import cost
from mico_competition.fleets.trial import trial
from mico_competition.models.architectures import CNN, MLP
from mico_competition.signals.pool import ModelPool
from mico_competition.training.accounting import Mechanism
from mico_competition.training.train import train_model

ROOT = Path(__file__).resolve().parents[1]
STACKS = (200, 1, 50, 10)  # in an order that tells most if the time runs out


def tests(asked: Asked, tell: Tell) -> None:
    """Run the tests marked gpu in a process of their own, and count how they ended."""
    files = asked.tests or gpu_tests()
    started = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", "-m", "gpu", "-v", "-p", "no:cacheprovider", *files],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    signal.signal(signal.SIGALRM, lambda *_: process.kill())
    signal.alarm(max(1, int(asked.seconds - 3)))  # before this process itself is killed
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    names: list[str] = []
    lines: list[str] = []
    assert process.stdout is not None
    for line in process.stdout:
        lines.append(line.rstrip())
        found = re.match(r"(\S+::.*?) (PASSED|FAILED|ERROR|SKIPPED|XFAIL)", line)
        if found:
            ended = {"ERROR": "failed", "XFAIL": "passed"}.get(found[2], found[2].lower())
            counts[ended] += 1
            names += [found[1]] * (ended == "failed")
    code = process.wait()
    signal.alarm(0)
    seconds = time.monotonic() - started
    tell({**counts, "failures": names, "cut": code < 0, "exit": code, "seconds": seconds})
    if code not in (0, 5) and not names and code > 0:  # 5: no test was selected
        raise RuntimeError(" ".join(lines[-5:]))


def gpu_tests() -> list[str]:
    """The files of tests that hold tests marked gpu."""
    paths = sorted((ROOT / "tests").rglob("test_*.py"))
    return [str(path.relative_to(ROOT)) for path in paths if "mark.gpu" in path.read_text()]


def tables(asked: Asked, tell: Tell) -> None:
    """Try Purchase-100 in stacks of several sizes."""
    for stack in STACKS if not asked.tiny else (2, 1):
        for scenario in ("purchase100_lo", "purchase100_inf"):
            tell(measure_trial(asked, scenario, stack=stack, seconds=3.0))


def pictures(asked: Asked, tell: Tell) -> None:
    """Try CIFAR-10's CNN: in each precision, with CUDA graphs, and in stacks."""
    for precision in asked.precisions()[:2]:
        for scenario in ("cifar10_lo", "cifar10_inf"):
            tell(measure_trial(asked, scenario, precision=precision, seconds=4.0))
    for precision in asked.precisions()[:2] if asked.device.type == "cuda" else ():
        tell(measure_trial(asked, "cifar10_lo", precision=precision, graphs=True, seconds=4.0))
    for stack in (2,) if asked.tiny else (4, 16):
        for scenario in ("cifar10_lo", "cifar10_inf"):
            tell(measure_trial(asked, scenario, stack=stack, seconds=3.0))


def text(asked: Asked, tell: Tell) -> None:
    """Try a model of roberta-base's shape in each precision."""
    for scenario in ("sst2_lo", "sst2_inf"):
        for precision in asked.precisions():
            tell(measure_trial(asked, scenario, precision=precision, seconds=4.0))
    if asked.device.type == "cuda":
        tell(measure_trial(asked, "sst2_lo", precision="bfloat16", graphs=True, seconds=4.0))


def measure_trial(
    asked: Asked,
    scenario: str,
    *,
    stack: int = 1,
    precision: str = "float32",
    graphs: bool = False,
    seconds: float,
) -> dict[str, Any]:
    """What a fleet's own trial of a scenario finds, and what its models will take by that.

    Steps are those of whole runs: batches are drawn, records are gathered, and nobody waits for the
    GPU between two steps.
    """
    base = TINY if asked.tiny else BASE
    flags: dict[str, Any] = {"precision": precision, "cuda_graphs": graphs or None}
    with settings_for(scenario, tiny=asked.tiny, base=base, **flags) as settings:
        data, _ = dataset_for(settings, base, None)
        # The accountant's search for the noise of the target would take longer than the steps.
        noise = Mechanism(1.0, settings.sample_rate, settings.num_steps)
        options: dict[str, Any] = {"seconds": 0.0 if asked.tiny else seconds}
        options["mechanism"] = None if settings.disable_dp else noise
        found = trial(settings, data, stack=stack, device=asked.device, **options)
    challenge = get_scenario(scenario).challenge
    ids = [i for phase in phases_of(challenge).values() for i in phase.model_ids]
    whole = cost(settings, found, ids)
    batch = settings.batch_size if settings.disable_dp else settings.expected_batch_size
    rate = stack * batch / found.step_seconds
    row = {
        "scenario": scenario,
        "precision": precision,
        "graphs": graphs,
        "stack": stack,
        "models": len(ids),
        "records": settings.len_training,
        "steps": settings.num_steps,
        "trial_steps": found.steps,
        "step_seconds": found.step_seconds,
        "begin_seconds": found.begin_seconds,
        "records_a_second": rate,
        "models_an_hour": 3600 * len(ids) / whole.worker_seconds,
        "kilowatt_hours": whole.kilowatt_hours,
        "memory": found.memory,
    }
    if get_task(settings.task).text:
        row["tokens_a_second"] = rate * float(data.attention_mask.sum(1).float().mean())
    return row


def signals(asked: Asked, tell: Tell) -> None:
    """Compute the outputs and the gradient norms of 100 models at 400 records."""
    count, records = (2, 20) if asked.tiny else (100, 400)
    for name, model, made, classes in (
        ("MLP 600-128-100", MLP, bits, 100),
        ("CNN", CNN, images, 10),
    ):
        torch.manual_seed(0)
        models = [model().eval() for _ in range(count)]
        inputs, labels = made(records), torch.randint(classes, (records,))
        members = torch.rand(count, records) < 0.5
        started = time.perf_counter()
        pool = ModelPool.from_models(models, inputs, labels, members, device=asked.device)
        for each in ("logit", "log_gradient_norm"):
            pool.signal(each)
        seconds = time.perf_counter() - started
        tell({"title": name, "models": count, "records": records, "seconds": seconds})


def models(asked: Asked, tell: Tell) -> None:
    """Train one CIFAR-10 model of a scenario after another to the end, while there is time."""
    end = time.monotonic() + asked.seconds
    for scenario in ("cifar10_lo", "cifar10_inf")[: 1 if asked.tiny else 2]:
        if time.monotonic() < end:
            tell(whole_model(asked, scenario, tell))


def whole_model(asked: Asked, scenario: str, tell: Tell) -> dict[str, Any]:
    """Train a model, evaluate it and write its folder; tells every few seconds how far it is."""
    with (
        settings_for(scenario, tiny=asked.tiny, base=BASE) as settings,
        tempfile.TemporaryDirectory() as folder,
    ):
        data, source = dataset_for(settings, BASE, asked.data)
        row = {"scenario": scenario, "data": source, "steps": settings.num_steps, "part": 0.0}
        started = time.perf_counter()
        told = started

        def progress(part: float) -> None:
            nonlocal told
            if (now := time.perf_counter()) - told > 2.0:
                told = now
                tell({**row, "part": part, "seconds": now - started})

        options: dict[str, Any] = {"device": asked.device, "progress": progress}
        metadata = train_model(settings, data, derive_seeds(1), Path(folder) / "model", **options)
        seconds = time.perf_counter() - started
    privacy = metadata["privacy"]
    return {
        **row,
        "part": 1.0,
        "seconds": seconds,
        "accuracy": metadata["results"]["accuracy"],
        "epsilon": privacy["epsilon"] if privacy else None,
    }
