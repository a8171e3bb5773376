"""A trained root as bundles need it (truth and metadata, no weights), and bundles to break."""

import copy
import io
import json
import zipfile
from pathlib import Path

import numpy as np
import yaml

from mico_competition.competition.table import CHALLENGES, SCENARIOS, SCORED_PHASES, get_phase
from mico_competition.hosting.codabench.bundle import write_bundle
from mico_competition.hosting.codabench.facts import Schedule
from mico_competition.hosting.codabench.options import Options

DATES = ("2027-01-01 00:00:00", "2027-03-01 12:00:00", "2027-03-15 18:30:00")
SCHEDULE = Schedule.of(*DATES)
LENGTHS = {"len_dataset": 1234, "len_training": 321, "len_challenge": 10}
MODELS = 2


def write_trained(root, challenge, models=MODELS, seed=0):
    """The solutions and metadata that training leaves, of the scored phases."""
    rng = np.random.default_rng(seed)
    for name in CHALLENGES[challenge]:
        for phase in SCORED_PHASES:
            for i in get_phase(challenge, phase).model_ids[:models]:
                folder = root / challenge / name / phase / f"model_{i}"
                folder.mkdir(parents=True)
                truth = rng.permutation([0, 1] * LENGTHS["len_challenge"])
                (folder / "solution.csv").write_text(",".join(map(str, truth)) + "\n")
                (folder / "metadata.json").write_text(json.dumps(_metadata(SCENARIOS[name])))
    return root


def _metadata(row):
    """What training writes of a scenario's privacy."""
    if not row.private:
        return {**LENGTHS, "privacy": None}
    spent = {"epsilon": min(3.987, row.target_epsilon), "delta": min(1e-5, row.target_delta)}
    settings = {"target_epsilon": row.target_epsilon, "target_delta": row.target_delta}
    privacy = {**spent, "max_grad_norm": row.max_grad_norm}
    return {**LENGTHS, "settings": settings, "privacy": privacy}


def write_submission(path, root, challenge, phases=SCORED_PHASES, seed=1):
    """A zip of random predictions for every model below `root`; gives them by place."""
    rng = np.random.default_rng(seed)
    values = {}
    with zipfile.ZipFile(path, "w") as archive:
        for solution in sorted((root / challenge).rglob("solution.csv")):
            place = solution.parent.relative_to(root).as_posix()
            if place.split("/")[2] in phases:
                count = len(solution.read_text().split(","))
                values[place] = np.round(rng.random(count), 4)
                line = ",".join(map(str, values[place]))
                archive.writestr(f"{place}/prediction.csv", line + "\n")
    return values


def make_bundle(folder, challenge="digits", platform="codabench", **options):
    """A good bundle below `folder`, and the root it was made from."""
    root = write_trained(folder / "trained", challenge)
    write_bundle(root, challenge, folder / "bundle.zip", SCHEDULE, Options(platform), **options)
    return folder / "bundle.zip", root


def read_zip(source):
    """Name -> bytes of a zip, given by path or bytes."""
    opened = io.BytesIO(source) if isinstance(source, bytes) else source
    with zipfile.ZipFile(opened) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(files):
    """Bytes of a zip of name -> bytes or text."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def spec_of(files):
    """competition.yaml of a bundle's files."""
    return yaml.safe_load(files["competition.yaml"])


def with_spec(files, spec):
    """A bundle's files with another competition.yaml."""
    text = yaml.safe_dump(spec, sort_keys=False, allow_unicode=True)
    return {**files, "competition.yaml": text.encode()}


def write_files(path, files):
    """Write a bundle's files as a zip."""
    Path(path).write_bytes(zipped(files))
    return path


def with_values(spec, values):
    """The specification with each place in it replaced by each value, one at a time."""
    for path in _paths(spec):
        for value in values:
            yield with_value(spec, path, value)


def with_value(spec, path, value):
    """A copy of nested mappings and lists with a value at a place in them."""
    changed = copy.deepcopy(spec)
    part = changed
    for step in path[:-1]:
        part = part[step]
    part[path[-1]] = value
    return changed


def _paths(value, at=()):
    """Every place in nested mappings and lists."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in items:
        yield (*at, key)
        if isinstance(inner, (dict, list)):
            yield from _paths(inner, (*at, key))
