"""`mico demo`: a whole competition on scikit-learn's digits, in a minute.

Every step is that of a real competition: `train_model` trains the models, `release` writes what
participants may see, the attack uses nothing else, and CodaLab's program computes the scores.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from multiprocessing import active_children, get_context
from pathlib import Path
from typing import Any

from mico_competition.competition.layout import model_path, read_text
from mico_competition.competition.splits import SEED_BYTES, Seeds, draw_seeds
from mico_competition.competition.submission import check_zip, pack, score_phase, unpack_submission
from mico_competition.competition.table import (
    CHALLENGES,
    METADATA_FILE,
    SCENARIOS,
    SCORED_PHASES,
    as_read,
    labels_of,
    phases_of,
)
from mico_competition.data.datasets import load_digits
from mico_competition.evaluation.predict import attack_challenge
from mico_competition.hosting.codabench.program import program_files
from mico_competition.release.release import release, write_reference
from mico_competition.support.counts import count_of
from mico_competition.support.cpus import share_cpus
from mico_competition.support.files import PathLike, write_bytes, write_text
from mico_competition.support.locks import try_lock
from mico_competition.support.progress import stage
from mico_competition.training.accounting import Mechanism
from mico_competition.training.settings import Settings, resolve
from mico_competition.training.train import mechanism_of
from mico_competition.training.train_many import STACK, Run, train_many

CHALLENGE = "digits"

_WRITTEN = (
    *("trained", "released", "predictions", f"predictions_{CHALLENGE}.zip", "summary.json"),
    *(f"score_{phase}" for phase in SCORED_PHASES),
)
"""The content of a demonstration's folder, besides its mark."""
_data: Any = None  # in a worker


def run_demo(
    out: PathLike,
    *,
    models_per_phase: int = 30,
    workers: int | None = None,
    seed: int | None = None,
) -> Path:
    """Run the demonstration in folder `out`; prints a table and gives the report's path.

    Args:
        out: folder to work in; the files of an earlier demonstration in it are replaced.
        models_per_phase: models per scenario and phase, at least 1; 30 give meaningful scores
            (3,000 members and as many non-members in each).
        workers: training processes, each with one thread; by default, and at most, one for each CPU
            that this process may use.
        seed: of all splits, weights, batches and noise, 0 or more: the same seed gives the same
            scores on the same machine. Anybody who knows it can compute all withheld labels, so use
            it for demonstrations only; by default all seeds are fresh.

    Raises:
        ValueError: on a seed below 0; if `out` holds something that no demonstration wrote, or
            another demonstration is running there.
    """
    started = time.perf_counter()
    limit = min(phase.count for phase in phases_of(CHALLENGE).values())
    if not 1 <= models_per_phase <= limit:
        raise ValueError(f"Expected 1 <= models={models_per_phase} <= {limit}.")
    if seed is not None and seed < 0:
        raise ValueError(f"Expected seed={seed} >= 0.")
    with _alone_in(Path(os.path.realpath(out)) if os.path.islink(out) else Path(out)) as folder:
        return _run(folder, started, models_per_phase, workers, seed)


def _run(
    out: Path, started: float, models_per_phase: int, workers: int | None, seed: int | None
) -> Path:
    """Every step in the empty folder `out`."""
    _train_all(out / "trained", models_per_phase, share_cpus(workers, 1)[0], seed)
    release(out / "trained", CHALLENGE, out / "released")
    released = out / "released" / CHALLENGE
    predictions = out / "predictions" / CHALLENGE
    attack_challenge(released, lambda task: load_digits(), predictions=predictions)
    zip_path = pack(released, out / f"predictions_{CHALLENGE}.zip", predictions)
    faults = check_zip(zip_path, released)
    if faults:
        raise ValueError(faults[0])
    with stage("Scoring train"):
        scores = {"train": score_phase(released, predictions)}
    for phase in SCORED_PHASES:
        with stage(f"Scoring {phase}"):
            scores[phase] = _score_like_codalab(out, zip_path, phase)
    rows = _rows(out / "trained", scores)
    _print_table(rows, models_per_phase)
    seconds = time.perf_counter() - started
    summary = {"models": models_per_phase, "seconds": seconds, "rows": rows}
    write_text(out / "summary.json", json.dumps(summary, indent=2) + "\n")
    report = out / "score_final" / "output" / "detailed_results.html"
    print(f"\nSubmission: {zip_path.resolve()}")
    print(f"Report with ROC curves: {report.resolve()}")
    print(f"Took {seconds:.0f} s; everything is below {out.resolve()}")
    print(_next_steps(released))
    return report


def _next_steps(released: Path) -> str:
    """What to do after the demonstration, with the command that puts `mico` on the path."""
    activate = Path(sys.prefix, "bin", "activate")
    on_path = shutil.which("mico") is not None or not activate.is_file()
    lines = (
        ["evaluate", released, "--attack", "eb"],
        ["attack", "eb", released],
        ["submit", released],
    )
    return "\n".join(
        [
            "\nNext: open the report; measure another attack, predict with it, and pack a zip:",
            *([] if on_path else [f"  . {shlex.quote(os.path.relpath(activate))}"]),
            *("  " + shlex.join(["mico", *map(str, line)]) for line in lines),
        ]
    )


@contextmanager
def _alone_in(out: Path) -> Iterator[Path]:
    """The folder `out`, empty and locked for this demonstration in the block.

    What an earlier demonstration wrote there is removed, and nothing else.
    """
    marker = out / "made_by_mico_demo"
    others = [entry.name for entry in out.iterdir()] if out.exists() else []
    if others and marker.name not in others:
        raise ValueError(f"{out} holds other things: choose another folder with --out.")
    if strange := sorted(set(others) - {marker.name, *_WRITTEN}):
        raise ValueError(
            f"{out} holds {strange[0]}, which no demonstration wrote: move it elsewhere, or choose "
            "another folder with --out."
        )
    out.mkdir(parents=True, exist_ok=True)
    with open(marker, "a", encoding="utf-8") as held:
        if not try_lock(held):
            raise ValueError(
                f"Another demonstration is running in {out}: wait for it, or choose another folder "
                "with --out."
            )
        for entry in out.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            elif entry != marker:
                entry.unlink()
        held.truncate(0)
        held.write("`mico demo` replaces what it wrote in this folder.\n")
        held.flush()
        yield out


def _train_all(root: Path, models_per_phase: int, workers: int, seed: int | None) -> None:
    """Train every model of the challenge's three scenarios, in parallel processes.

    The processes start with the models without privacy, while this one computes the noise of the
    others once for all processes.
    """
    rows = {name: resolve({"scenario": name}) for name in CHALLENGES[CHALLENGE]}
    others = set(active_children())  # processes of a program that calls this
    # Spawned, not forked: torch's threads do not survive a fork.
    with (
        ProcessPoolExecutor(
            workers,
            mp_context=get_context("spawn"),
            initializer=_begin_worker,
            initargs=(pickle.dumps(load_digits()),),
        ) as pool,
        stage("Training", 9 * models_per_phase, "model") as shown,
    ):
        try:
            started = []
            for name, settings in sorted(rows.items(), key=lambda row: not row[1].disable_dp):
                runs = _runs(root, name, models_per_phase, seed)
                mechanism = mechanism_of(settings)
                if mechanism is not None:
                    mechanism.epsilon(settings.target_delta)  # which is cached in the mechanism
                for start in range(0, len(runs), STACK):
                    group = runs[start : start + STACK]
                    started.append(pool.submit(_train_group, settings, group, mechanism))
            for future in as_completed(started):
                shown.update(future.result())
        except BaseException:  # otherwise the pool would train all remaining models before it ends
            pool.shutdown(wait=False, cancel_futures=True)
            for worker in set(active_children()) - others:
                worker.terminate()
            raise


def _runs(root: Path, scenario: str, models_per_phase: int, seed: int | None) -> list[Run]:
    return [
        Run(
            draw_seeds() if seed is None else _derived(f"{seed}/{scenario}/{model_id}"),
            model_path(root, SCENARIOS[scenario], phase.name, model_id),
            model_id,
            seed,
        )
        for phase in phases_of(CHALLENGE).values()
        for model_id in phase.model_ids[:models_per_phase]
    ]


def _derived(name: str) -> Seeds:
    """Keyed seeds of one model's splits, derived from the demonstration's seed, thus not secret."""
    digest = hashlib.sha512(f"mico demo/{name}".encode()).digest()
    return Seeds(
        *(digest[start : start + SEED_BYTES] for start in range(0, 3 * SEED_BYTES, SEED_BYTES))
    )


def _begin_worker(data: bytes) -> None:
    """Begin a process; `data` are the digits, pickled by value rather than in shared memory."""
    global _data
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of Ctrl-C, after which the parent ends this
    os.environ["MICO_QUIET"] = "1"  # the demonstration shows its own progress

    import torch

    torch.set_num_threads(1)
    _data = pickle.loads(data)


def _train_group(settings: Settings, runs: list[Run], mechanism: Mechanism | None) -> int:
    return len(list(train_many(settings, _data, runs, progress=False, mechanism=mechanism)))


def _score_like_codalab(out: Path, zip_path: Path, phase: str) -> dict[str, dict[str, float]]:
    """Create the platform's folders, run its command, and read the scores."""
    folder = out / f"score_{phase}"
    for name, content in program_files(labels_of(CHALLENGES[CHALLENGE])).items():
        write_bytes(folder / "program" / name, content)
    write_reference(out / "trained", CHALLENGE, phase, folder / "input" / "ref")
    unpack_submission(zip_path, folder / "input" / "res")
    program = str(folder / "program" / "score.py")
    command = [sys.executable, program, str(folder / "input"), str(folder / "output")]
    finished = subprocess.run(command, capture_output=True, text=True)
    if finished.returncode:
        raise ValueError(f"The scoring program refused the submission: {finished.stderr.strip()}")
    values = json.loads(read_text(folder / "output" / "scores.json"))
    return {
        name: {k.split("_", 1)[1]: v for k, v in values.items() if k.startswith(f"scenario{i}_")}
        for i, name in enumerate(CHALLENGES[CHALLENGE], start=1)
    }


def _rows(trained: Path, scores: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """One row for each scenario: epsilon, accuracy and attack scores."""
    rows = []
    for name in as_read(CHALLENGES[CHALLENGE]):
        files = (trained / CHALLENGE / name).glob(f"*/model_*/{METADATA_FILE}")
        metadata = [json.loads(read_text(file)) for file in files]
        privacy = metadata[0]["privacy"]
        rows.append(
            {
                "scenario": name,
                "epsilon": f"{privacy['epsilon']:.2f}" if privacy else "none",
                "accuracy": sum(m["results"]["accuracy"] for m in metadata) / len(metadata),
                **{phase: scores[phase][name]["TPR_FPR_1000"] for phase in scores},
                "AUC": scores["final"][name]["AUC"],
            }
        )
    return rows


def _print_table(rows: list[dict[str, Any]], models: int) -> None:
    """What the attack finds beside what privacy costs, in percent."""
    print(
        f"\nThe loss-threshold attack on {count_of(models, 'model')} of each scenario and phase: "
        "TPR at 10 % FPR\nin percent (guessing gives 10), beside the models' accuracy on other "
        f"records:\n\n{'scenario':12}{'epsilon':>8}{'accuracy':>10}   "
        f"{'train':>7}{'dev':>7}{'final':>7}{'AUC (final)':>14}"
    )
    for row in rows:
        rates = "".join(f"{100 * row[phase]:7.1f}" for phase in ("train", *SCORED_PHASES))
        print(
            f"{row['scenario']:12}{row['epsilon']:>8}{100 * row['accuracy']:9.1f}%   "
            f"{rates}{row['AUC']:14.3f}"
        )
