"""The table of test-beds: fleets that attacks are measured on (docs/ATTACKS.md).

A test-bed of 2022's competition or of the package's own small ones needs no file; the others are
competitions of their own in `benchmarks/beds/`. The scripts that measure on them share `one_of`
and `commit`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BEDS = ROOT / "benchmarks" / "beds"
TABLES = str(ROOT / "src/mico_competition/benchmark/tables.toml")  # of the medium tier, too
MICO = [sys.executable, "-m", "mico_competition.cli"]


@dataclass(frozen=True)
class Testbed:
    """Fleets that share data and flags; `data` is the folder of datasets below the work folder."""

    title: str
    size: tuple[int, int]  # records N of the dataset, weights of a model
    scenarios: tuple[str, ...]
    flags: tuple[str, ...] = ()
    data: str | None = None
    models: str = "0-149"
    shares: str = ""  # the testbed whose folder holds this one's models
    competition: str = ""  # its file, in benchmarks/beds/ or TABLES; the package's own if empty
    synthetic: bool = False  # whether records are drawn by a generator

    @property
    def challenge(self) -> str:
        """The challenge's name, which is also its folder's."""
        return self.scenarios[0].rsplit("_", 1)[0]

    @property
    def ratio(self) -> float:
        """Records for each weight of the model."""
        return self.size[0] / self.size[1]

    @property
    def mico(self) -> list[str]:
        """The start of each `mico` command on this testbed."""
        return [*MICO, "--competition", str(BEDS / self.competition)] if self.competition else MICO


PRIVATE = ("inf", "hi", "lo")
TEXT = (
    *("--len_training", "1000", "--num_epochs", "6", "--learning_rate", "2e-4"),
    *("--batch_size", "32"),
)
TESTBEDS = {
    "A": Testbed(
        "Purchase-shaped, N = 19,732, n = 15,000, 600 features, 128 hidden units, 100 classes",
        (19_732, 89_828),
        tuple(f"purchase100_{kind}" for kind in PRIVATE),
        ("--len_training", "15000"),
        "A_data",
        synthetic=True,
    ),
    "S": Testbed(
        "Purchase-shaped and small, N = 5,000, n = 3,750",
        (5000, 89_828),
        tuple(f"purchase100_{kind}" for kind in PRIVATE),
        ("--len_training", "3750"),
        "S_data",
        synthetic=True,
    ),
    "C": Testbed(
        "baskets, N = 19,732, n = 15,000, 240 features, 32 hidden units, 20 classes",
        (19_732, 8372),
        ("baskets_inf", "baskets_hi"),
        synthetic=True,
    ),
    "digits": Testbed(
        "scikit-learn's digits, N = 1,797, n = 120, 256 hidden units",
        (1797, 19_210),
        ("digits_inf", "digits_hi", "digits_lo"),
    ),
    "cnn": Testbed(
        "600 real CIFAR-10 images (via JPEG), n = 300, the CNN, 12 epochs at rate 0.05",
        (600, 973_962),
        ("cifar10_inf",),
        ("--len_training", "300", "--num_epochs", "12", "--learning_rate", "0.05"),
        "cnn_data",
        "0-52",
    ),
    "cnn_lo": Testbed(
        "600 real CIFAR-10 images (via JPEG), n = 300, the CNN, 12 private epochs of 5 batches",
        (600, 973_962),
        ("cifar10_lo",),
        ("--len_training", "300", "--num_epochs", "12", "--batch_size", "64"),
        "cnn_data",
        "0-29",
        "cnn",
    ),
    "images_real": Testbed(
        "3,042 real CIFAR-10 images (via JPEG), n = 2,250, a narrow CNN: 9.4 records to an input "
        "of the head, 0.06 to a weight",
        (3042, 53_371),
        ("images_real_inf",),
        data="full_images",
        models="0-59",
        competition="images.toml",
    ),
    "images_real_lo": Testbed(
        "the images and the model of images_real_inf, trained privately, 20 epochs",
        (3042, 53_371),
        ("images_real_lo",),
        data="full_images",
        models="0-23,40-51",
        shares="images_real",
        competition="images.toml",
    ),
    "images_wide": Testbed(
        "3,042 real CIFAR-10 images (via JPEG), n = 2,250, a narrow CNN: 1.0 records to an input "
        "of the head, 0.03 to a weight",
        (3042, 98_384),
        ("images_wide_inf",),
        data="full_images",
        models="0-23,40-51",
        competition="images.toml",
    ),
    "text": Testbed(
        "2,000 real sentences of SST-2, n = 1,000, RoBERTa of 2 layers x 128 that was first "
        "trained on 30,000 other sentences, 6 epochs at rate 0.0002 in batches of 32",
        (2000, 1_446_530),
        ("sst2_inf",),
        TEXT,
        "text_data",
        "0-42",
    ),
    "text_lo": Testbed(
        "the sentences and the model of sst2_inf, trained privately",
        (2000, 1_446_530),
        ("sst2_lo",),
        TEXT,
        "text_data",
        "0-29",
        "text",
    ),
    "short": Testbed(
        "20,000 real sentences of SST-2 of at most 10 words, n = 15,000, RoBERTa of 2 layers x 128 "
        "that was first trained on 48,121 other sentences, with a new head",
        (20_000, 1_429_760),
        ("short_inf", "short_lo"),
        ("--max_physical_batch_size", "128"),
        "short_data",
        "0-39",
        competition="text.toml",
    ),
    "bundles": Testbed(
        "bundles of a second generator, N = 19,732, n = 15,000, 240 features, 32 hidden units, 20 "
        "classes",
        (19_732, 8372),
        ("bundles_inf", "bundles_hi", "bundles_lo"),
        competition=TABLES,
        synthetic=True,
    ),
    "widebundles": Testbed(
        "bundles of a second generator, N = 19,732, n = 15,000, 600 features, 128 hidden units, "
        "100 classes",
        (19_732, 89_828),
        ("widebundles_inf", "widebundles_hi", "widebundles_lo"),
        models="0-49,100-119",
        competition=TABLES,
        synthetic=True,
    ),
    "cancer": Testbed(
        "scikit-learn's breast cancer, N = 569, n = 285, 30 features, 64 hidden units, 2 classes",
        (569, 2114),
        ("cancer_inf", "cancer_hi", "cancer_lo"),
        competition=TABLES,
    ),
    "full": Testbed(
        "Purchase-shaped at full size: N = 197,324, n = 150,000",
        (197_324, 89_828),
        tuple(f"purchase100_{kind}" for kind in PRIVATE),
        data="full_data",
        models="0-39,100-119",
        synthetic=True,
    ),
}


def one_of(known: Iterable[str]) -> Callable[[str], str]:
    """The `type` of an argument of a script that is one of these names.

    argparse's own `choices` refuse an empty list of positional arguments before Python 3.12.
    """

    def checked(name: str) -> str:
        if name not in known:
            raise argparse.ArgumentTypeError(f"no {name}: choose of {', '.join(known)}")
        return name

    return checked


def commit() -> str:
    """The commit of the code that runs, with "-dirty" if files differ from it."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--exclude=*"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
