"""A made-up competition on disk, for the tests of the scoring program."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

SCORING = Path(__file__).resolve().parents[1] / "scoring"
SCENARIOS = ("cifar10_hi", "cifar10_inf", "cifar10_lo")
MODELS = {"dev": (99, 100, 101), "final": (150, 151)}  # 99 sorts after 101 as a text
NUM_POINTS = 20
OUTPUTS = ["detailed_results.html", "scores.json", "scores.txt"]


IMAGES = {"3.7": "1.17.2", "3.9": "1.22.4", "3.12": "1.26.4"}
"""Python and numpy of the platforms' images py37, py39 and py312; `.ci/run pythons` makes them."""


def image_python(version):
    """An interpreter with an image's numpy: $MICO_PYTHON37 and so on, or .venv-3.7; or a skip."""
    variable = "MICO_PYTHON" + version.replace(".", "")
    venv = SCORING.parent / f".venv-{version}" / "bin" / "python"
    for place in (os.environ.get(variable), venv):
        if place and Path(place).exists():
            return str(place)
    pytest.skip(
        f"no Python {version} with numpy {IMAGES[version]}: set {variable}, or `.ci/run pythons`"
    )


def write_line(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(",".join(str(value) for value in values) + "\n")


class Competition:
    """`IN` with the truth of one phase and a sound submission for both, and `OUT`."""

    def __init__(self, folder, phase="dev", seed=0):
        self.inputs, self.outputs, self.phase = folder / "in", folder / "out", phase
        self.ref = self.inputs / "ref" / "cifar10"
        self.res = self.inputs / "res" / "cifar10"
        self.pooled = {}
        rng = np.random.default_rng(seed)
        for scenario in SCENARIOS:
            truths, predictions = [], []
            for name, ids in MODELS.items():
                for i in ids:
                    truth = rng.permutation(np.repeat([0, 1], NUM_POINTS // 2))
                    values = np.round(0.6 * rng.random(NUM_POINTS) + 0.4 * truth, 3)
                    write_line(self.prediction(scenario, i, name), values.tolist())
                    if name == phase:
                        write_line(self.solution(scenario, i), truth.tolist())
                        truths.append(truth)
                        predictions.append(values)
            self.pooled[scenario] = (np.concatenate(truths), np.concatenate(predictions))

    def prediction(self, scenario="cifar10_hi", i=100, phase=None):
        return self.res / scenario / (phase or self.phase) / f"model_{i}" / "prediction.csv"

    def solution(self, scenario="cifar10_hi", i=100):
        return self.ref / scenario / self.phase / f"model_{i}" / "solution.csv"

    def read(self, path):
        return next(csv.reader([path.read_text()]))

    def run(self, python=sys.executable, options=("-W", "error"), program=SCORING / "score.py"):
        """Run the program as the platforms do: by its path, from some other folder."""
        command = [python, *options, program, self.inputs, self.outputs]
        return subprocess.run(
            [str(part) for part in command],
            capture_output=True,
            text=True,
            timeout=600,
            cwd=self.inputs.parent,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        )

    def written(self):
        """Names of everything in `OUT`, hidden or not."""
        if not self.outputs.exists():
            return []
        return sorted(path.name for path in self.outputs.iterdir())
