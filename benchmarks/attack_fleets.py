#!/usr/bin/env python3
"""The fleets that attacks are measured on, made by the project's own trainer; kept out of git.

    python benchmarks/attack_fleets.py [TESTBED ...] [--work runs/fleets]

makes data and trains the models: 150 a scenario (100 train, 50 dev) where that takes minutes, of
the slow ones as many as `testbeds.py` says.  A run that was stopped goes on where it was.  One
thread and one worker take: A 60 minutes, S 15, C 10, digits 2, cnn 25, cnn_lo 20, text 20, text_lo
15, short 70, full 120 (on an idle core).  `cnn`, `text` and `short` need ../shared.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from testbeds import BEDS, MICO, ROOT, TESTBEDS, one_of


def main() -> None:
    """Train the fleets of the given testbeds, all by default."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = f"of {', '.join(TESTBEDS)}; default: all"
    parser.add_argument("testbeds", nargs="*", metavar="TESTBED", type=one_of(TESTBEDS), help=names)
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "fleets")
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared")
    parser.add_argument("--workers", default="1", help="processes of a fleet")
    args = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    args.work.mkdir(parents=True, exist_ok=True)
    for name in args.testbeds or TESTBEDS:
        make(name, args.work.resolve(), args.shared.resolve(), args.workers)


def make(name: str, work: Path, shared: Path, workers: str) -> None:
    """Data and models of one testbed."""
    testbed = TESTBEDS[name]
    out = work / (testbed.shares or name)
    flags = [*testbed.flags, "--out", str(out), "--workers", workers, "--threads", "1"]
    if testbed.data:
        MAKERS[testbed.data](work, shared)
        flags += ["--dataset_dir", str(work / testbed.data)]
    if testbed.data in BASES:
        flags += ["--model_name", str(work / BASES[testbed.data])]
    for scenario in testbed.scenarios:
        run([*testbed.mico, "fleet", scenario, "--models", testbed.models, *flags])


def run(command: Sequence[str]) -> None:
    """One `mico` command; a failure ends the script with its code."""
    finished = subprocess.run(command)
    if finished.returncode:
        sys.exit(finished.returncode)


def purchase(folder: str, records: int) -> Callable[[Path, Path], None]:
    """A maker of a synthetic table."""

    def make_table(work: Path, shared: Path) -> None:
        from mico_competition.data.synthetic import make_synthetic_purchase

        table = work / folder / "purchase100" / "dataset_purchase"
        if not table.exists():
            make_synthetic_purchase(table, records, seed=0)

    return make_table


def all_images(work: Path, shared: Path) -> None:
    """The 60,000 real images."""
    full = work / "full_images"
    if not (full / "cifar10/cifar-10-batches-bin/test_batch.bin").exists():
        tool = shared / "tools/make_cifar10.py"
        subprocess.run([sys.executable, str(tool), str(full)], check=True)


def images(work: Path, shared: Path) -> None:
    """The first 100 records of each of the six batch files of the real images."""
    import numpy as np

    from mico_competition.support.files import written_aside

    full, less = work / "full_images", work / "cnn_data/cifar10/cifar-10-batches-bin"
    if less.exists():
        return
    all_images(work, shared)
    less.parent.mkdir(parents=True, exist_ok=True)
    with written_aside(less) as aside:  # half of it must not count as done
        aside.mkdir()
        for file in (full / "cifar10/cifar-10-batches-bin").glob("*.bin"):
            np.fromfile(file, np.uint8)[: 100 * 3073].tofile(aside / file.name)


def sentences(work: Path, shared: Path) -> None:
    """The first 1,128 training sentences and the 872 of dev; a base model from 30,000 others."""
    from mico_competition.data.datasets import load_sst2
    from mico_competition.models.small_roberta import make_small_roberta

    lines = (shared / "data/sst2/train.tsv").read_text(encoding="utf-8").splitlines(keepends=True)
    dev = (shared / "data/sst2/dev.tsv").read_text(encoding="utf-8")
    for folder, part in (("text_data", lines[1:1129]), ("text_rest", lines[1129:32129])):
        (work / folder / "sst2").mkdir(parents=True, exist_ok=True)
        (work / folder / "sst2/train.tsv").write_text("".join([lines[0], *part]), encoding="utf-8")
        (work / folder / "sst2/dev.tsv").write_text(dev, encoding="utf-8")
    if not (work / "small_roberta").exists():
        make_small_roberta(work / "small_roberta", load_sst2(work / "text_rest/sst2").sentences)
    if not (work / "base").exists():
        settings = "--disable_dp --optimizer adamw --learning_rate 5e-4 --batch_size 96"
        data = ["--dataset_dir", str(work / "text_rest"), "--output_dir", str(work / "base")]
        seeds = "--len_training 30000 --num_epochs 1 --split_seed 0 --train_seed 0"
        own = ["--task", "sst2", "--model_name", str(work / "small_roberta")]
        run([*MICO, "train", *own, *settings.split(), *seeds.split(), *data])


def short_sentences(work: Path, shared: Path) -> None:
    """All sentences, of which the test-bed takes short ones, and a base model of the others."""
    folder = work / "short_data" / "sst2"
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(shared / "data/sst2", folder)
    maker = [sys.executable, str(BEDS / "text_bed.py"), str(work / BASES["short_data"])]
    run([*maker, "--dataset_dir", str(work / "short_data")])


BASES = {"text_data": "base", "short_data": "short_base"}
"""The base model of text that is fine-tuned, in the work folder, by the folder of data."""

MAKERS = {
    "A_data": purchase("A_data", 19_732),
    "S_data": purchase("S_data", 5_000),
    "full_data": purchase("full_data", 197_324),
    "full_images": all_images,
    "cnn_data": images,
    "text_data": sentences,
    "short_data": short_sentences,
}


if __name__ == "__main__":
    main()
