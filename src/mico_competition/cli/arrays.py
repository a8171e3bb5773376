"""`mico evaluate FILE.npz` and `mico audit FILE.npz`: arrays of your own, without a challenge."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mico_competition.cli.attack_options import attacks_named
from mico_competition.support.command_line import UsageError
from mico_competition.support.files import write_text
from mico_competition.support.progress import stage
from mico_competition.support.reports import report, report_text

if TYPE_CHECKING:
    import numpy as np

    from mico_competition.signals.pool import ModelPool

_DEFAULTS = ("loss", "lira", "rmia")
_SIGNALS = ("logits", "probabilities", "losses")
OF_MODELS = "logits (or probabilities, or losses), labels and membership"
OF_SCORES = "scores and is_member"


def is_arrays(path: Path) -> bool:
    """Whether a path names a file of arrays, not the folder of a challenge."""
    return path.suffix == ".npz" and not path.is_dir()


def evaluate_arrays(args: argparse.Namespace) -> None:
    """Measure attacks on the models whose outputs a file holds, and print a table."""
    _refuse(args, "scenario", "knowledge", "shadows", "download")
    for name in ("phase", "records"):
        if getattr(args, name) != {"phase": "train", "records": "challenge"}[name]:
            raise UsageError(f"--{name} is for a challenge folder, not for arrays.")
    names = list(dict.fromkeys(args.attack or _DEFAULTS))
    if args.against is not None and args.against not in names:
        names.insert(0, args.against)
    attacks = attacks_named(args, names)
    against = None if args.against is None else attacks[names.index(args.against)]
    pool = _pool(args.challenge_folder)
    from mico_competition.evaluation import page, table
    from mico_competition.evaluation.front_door import evaluate

    results = evaluate(
        pool,
        attacks,
        against=against,
        seed=args.seed,
        resamples=args.resamples,
        folds=args.folds,
        leakage_check=args.blind_check,
    )
    print(results)
    found = results.evaluation()
    values = json.loads(table.to_json([(found, [])]))
    report("evaluate", scenarios=values)
    written = {
        args.csv: table.to_csv(table.records(found)),
        args.json: report_text("evaluate", scenarios=values),
        args.html: page.to_html([(found, [])]) if args.html else "",
    }
    for path, text in written.items():
        if isinstance(path, Path):
            write_text(path, text)
            print(f"Wrote {path}")


def audit_arrays(args: argparse.Namespace) -> None:
    """Print lower bounds on the epsilon of the training whose scores a file holds."""
    _refuse(args, "attack", "predictions", "phase", "scenario", "guesses", "html", "download")
    arrays = _read(args.challenge_folder, OF_SCORES)
    _need(args.challenge_folder, arrays, ("scores", "is_member"), OF_SCORES)
    from mico_competition.audit.epsilon_bounds import epsilon_bounds

    delta = 1e-5 if args.delta is None else args.delta
    with stage("Bounds on epsilon"):
        bounds = epsilon_bounds(
            arrays["is_member"], arrays["scores"], delta=delta, level=args.level, seed=args.seed
        )
    print(bounds)
    fields = {
        "sentence": bounds.sentence(),
        "epsilon": bounds.headline.epsilon,
        "delta": bounds.delta,
        "level": bounds.level,
        "models": bounds.models,
        "members": bounds.members,
        "nonmembers": bounds.nonmembers,
        "bounds": [{"method": one.method, "epsilon": one.epsilon} for one in bounds],
        "missing": bounds.missing,
    }
    report("audit of scores", **fields)
    if isinstance(args.json, Path):
        write_text(args.json, report_text("audit of scores", **fields))
        print(f"Wrote {args.json}")


def _pool(path: Path) -> ModelPool:
    """The models whose outputs a file holds."""
    arrays = _read(path, OF_MODELS)
    given = [name for name in _SIGNALS if name in arrays]
    if len(given) != 1:
        what = "holds " + " and ".join(given) if given else "holds none of them"
        raise ValueError(f"Expected one of {', '.join(_SIGNALS)} in {path}: it {what}.")
    needed = ("membership",) if given == ["losses"] else ("labels", "membership")
    _need(path, arrays, needed, OF_MODELS)
    from mico_competition.signals.pool import ModelPool

    outputs, membership = arrays[given[0]], arrays["membership"]
    if given == ["losses"]:
        return ModelPool.from_losses(outputs, membership, arrays.get("labels"))
    make = ModelPool.from_logits if given == ["logits"] else ModelPool.from_probabilities
    return make(outputs, arrays["labels"], membership)


def _read(path: Path, what: str) -> dict[str, np.ndarray]:
    """The arrays of a file, by name; no code in it is run."""
    import zipfile

    import numpy as np

    if not path.is_file():
        raise ValueError(
            f"There is no file {path}: write one with numpy.savez({path.name!r}, ...), which "
            f"holds {what}."
        )
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (ValueError, EOFError, zipfile.BadZipFile, AttributeError) as error:
        raise ValueError(
            f"Expected {path} to be a file of numpy.savez with {what}: {error}."
        ) from None


def _need(path: Path, arrays: dict[str, Any], names: tuple[str, ...], what: str) -> None:
    for name in names:
        if name not in arrays:
            holds = ", ".join(arrays) or "nothing"
            raise ValueError(f"There is no array {name} in {path}, only {holds}: it needs {what}.")


def _refuse(args: argparse.Namespace, *names: str) -> None:
    """UsageError for a flag that says nothing about arrays."""
    for name in names:
        if getattr(args, name, None):
            raise UsageError(f"--{name} is for a challenge folder, not for arrays.")
