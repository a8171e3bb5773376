"""Competitions of one's own for tests: their file, from rows as plain dicts."""

import json
from math import isinf

from mico_competition.competition.init import init

TASK = {
    "title": "Faces",
    "loader": "digits",
    "model": "digits_mlp",
    "records": 1797,
    "training": 120,
    "challenge": 100,
    "classes": 10,
}
SCENARIO = {
    "task": "faces",
    "challenge": "faces",
    "target_epsilon": 4.0,
    "target_delta": 1e-5,
    "max_grad_norm": 1.0,
    "optimizer": "adam",
    "learning_rate": 0.002,
    "batch_size": 30,
    "num_epochs": 60,
}
PHASES = {
    "train": {"models": [0, 99]},
    "dev": {"models": [100, 149]},
    "final": {"models": [150, 199]},
}


def competition_text(scenarios, task=TASK, phases=PHASES):
    """The file of one task `faces`; scenarios are name -> columns beside those of SCENARIO."""
    rows = {name: {**SCENARIO, **columns} for name, columns in scenarios.items()}
    for row in rows.values():
        if isinf(row["target_epsilon"]):
            del row["max_grad_norm"]
    tables = {("task", "faces"): task}
    tables |= {("scenario", name): row for name, row in rows.items()}
    tables |= {("phase", name): row for name, row in phases.items()}
    lines = []
    for (kind, name), row in tables.items():
        lines += ["", f"[{kind}.{json.dumps(name, ensure_ascii=False)}]"]
        lines += [f"{key} = {_value(value)}" for key, value in row.items()]
    return "\n".join(lines) + "\n"


def _value(value):
    if isinstance(value, float) and isinf(value):
        return "inf"
    return json.dumps(value, ensure_ascii=False)


OWN_TASK = {
    "title": "Blobs",
    "loader": "my_competition:load_blobs",
    "model": "my_competition:BlobNet",
    "records": 600,
    "training": 60,
    "challenge": 7,
    "classes": 4,
}
OWN_PHASES = {"train": {"models": [5, 8]}, "dev": {"models": [0, 1]}, "final": {"models": [20, 20]}}


def write_own(folder, scenarios, **task):
    """The module that `mico init` writes, and a file of so many scenarios beside it."""
    file, _ = init(folder)
    rows = {name: {"num_epochs": 2, "batch_size": 30, **row} for name, row in scenarios.items()}
    file.write_text(competition_text(rows, {**OWN_TASK, **task}, OWN_PHASES), encoding="utf-8")
    return file
