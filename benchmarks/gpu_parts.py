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
from gpu_data import BASE, Asked, Tell, dataset_for, settings_for
from gpu_trials import Trials

from mico_competition.competition.splits import derive_seeds
from mico_competition.models.architectures import CNN, MLP
from mico_competition.signals.pool import ModelPool
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
    """Try Purchase-100 in stacks of several sizes; then one of 200, and one model, with graphs."""
    tried = Trials(asked, tell)
    stacks = STACKS if not asked.tiny else (2, 1)
    for stack in stacks:
        for scenario in ("purchase100_lo", "purchase100_inf"):
            tried(scenario, stack=stack, seconds=3.0)
    for stack in stacks[:2]:
        tried("purchase100_lo", stack=stack, graphs=True, seconds=3.0)
    tried("purchase100_inf", stack=stacks[0], graphs=True, seconds=3.0)


def pictures(asked: Asked, tell: Tell) -> None:
    """Try CIFAR-10's CNN: in each precision, with CUDA graphs, and in stacks."""
    tried = Trials(asked, tell)
    for precision in asked.precisions()[:2]:
        for scenario in ("cifar10_lo", "cifar10_inf"):
            tried(scenario, precision=precision, seconds=3.0)
    if asked.device.type == "cuda":
        tried("cifar10_inf", graphs=True, seconds=2.0)
        for precision in asked.precisions()[:2]:
            tried("cifar10_lo", precision=precision, graphs=True, seconds=2.0)
    for stack in (2,) if asked.tiny else (4, 16):
        for scenario in ("cifar10_lo", "cifar10_inf"):
            tried(scenario, stack=stack, seconds=2.0)


def text(asked: Asked, tell: Tell) -> None:
    """Try a model of roberta-base's shape in each precision; float32, as in 2022, comes first."""
    tried = Trials(asked, tell)
    for precision in asked.precisions():
        for scenario in ("sst2_lo", "sst2_inf"):
            tried(scenario, precision=precision, seconds=3.0)
    if asked.device.type == "cuda":
        tried("sst2_lo", precision="bfloat16", graphs=True, seconds=3.0)


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
