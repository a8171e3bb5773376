"""Downloads a published challenge from the Hugging Face Hub, as single files or out of archives.

A model's folder appears in `<to>/<challenge>/` only when all its files are there with the checksums
that the Hub, or of files in archives the release's SHA256SUMS, lists.  Until then they are in
`<to>/.<challenge>.download/`, from which an interrupted download resumes.  Existing files are never
overwritten.

Files are requested directly: `hf_hub_download` makes two requests for each file, which exceeds the
Hub's rate limit for 600 models, and discards partial downloads when it is stopped.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mico_competition.competition.layout import release_folder
from mico_competition.competition.table import PUBLISHED, get_challenge, get_phase
from mico_competition.hosting.hub.archived import Archives, check_finished
from mico_competition.hosting.hub.client import (
    HubError,
    HubFile,
    WrongFileError,
    hub_api,
    list_files,
    megabytes,
    quiet_client,
)
from mico_competition.hosting.hub.listing import (
    AMENDMENTS_FILE,
    COMMITMENTS_FILE,
    HubModel,
    check_repository,
    check_size,
    choose,
    sort_out,
    whole,
)
from mico_competition.hosting.hub.transfer import fetch_files
from mico_competition.support.counts import count_of
from mico_competition.support.files import PathLike
from mico_competition.support.progress import stage, tracked

_WORKERS = 8
_BYTES_A_JOB = 32 << 20  # of small models in one archive


@dataclass(frozen=True)
class Plan:
    """What a download will do; nothing is written yet.

    `models` are all selected models, `missing` those to download, and `extras` the files of the
    release itself to download, by name.  `bytes_there` bytes of the models exist already.
    """

    challenge: str
    repo: str
    commit: str
    endpoint: str
    to: Path
    models: tuple[HubModel, ...]
    missing: tuple[HubModel, ...]
    extras: dict[str, HubFile]
    bytes_there: int

    @property
    def folder(self) -> Path:
        """The folder of the challenge's scenarios."""
        return self.to / self.challenge

    @property
    def side(self) -> Path:
        """The folder, beside it, of the release's own files."""
        return release_folder(self.folder)

    @property
    def staging(self) -> Path:
        """The folder of files whose model is not complete yet."""
        return self.to / f".{self.challenge}.download"

    @property
    def size(self) -> int:
        """The size of all selected models, in bytes."""
        return sum(model.size for model in self.models)

    def sentence(self) -> str:
        """A sentence for the user before the download."""
        files = [file for model in self.models for file in model.files.values()]
        archives = {file.archive.path for file in files if file.archive}
        packed = f" in {count_of(len(archives), 'archive')}" if archives else ""
        return (
            f"Fetching {count_of(len(self.models), 'model')}, {count_of(len(files), 'file')}"
            f"{packed}, "
            f"{megabytes(self.size)} into "
            f"{self.folder}; {megabytes(self.bytes_there)} are there already"
        )


class _Stopped(Exception):
    """Another thread failed, or the user stopped the download."""


def plan_download(
    challenge: str,
    to: PathLike = ".",
    *,
    scenarios: Collection[str] = (),
    phases: Collection[str] = (),
    models: Collection[int] = (),
    repo: str | None = None,
    revision: str | None = None,
    endpoint: str | None = None,
) -> Plan:
    """List a repository, select models, and compare them with the files that exist already.

    Args:
        challenge: the name of the challenge.
        to: the folder of `<challenge>/...`.
        scenarios, phases, models: the names and ids to select; empty selects all.
        repo: OWNER/NAME of a dataset repository (default: that of 2022); its top, or a folder
            there named after the challenge, holds `<scenario>/<phase>/model_<i>/<file>`, or
            `<challenge>.release/archives/` holds archives of these.
        revision: a branch, tag or commit (default: the main branch).
        endpoint: the Hub's address (default: HF_ENDPOINT, or huggingface.co).

    Raises:
        ValueError: if a name is unknown, or no repository is known for the challenge.
        HubError: if the Hub cannot be reached or refuses, if its owner's upload is not finished,
            if the repository lacks a selected model or a file of it, if other files exist in its
            folder, or if the disk is too full.
    """
    known = get_challenge(challenge)
    if foreign := sorted(set(scenarios) - set(known)):
        raise ValueError(
            f"{foreign[0]} is no scenario of {challenge}: choose among {', '.join(known)}."
        )
    for phase in phases:
        get_phase(challenge, phase)
    if repo is None and challenge not in PUBLISHED:
        raise ValueError(
            f"{challenge} was not published in 2022: name its repository with --repo OWNER/NAME."
        )
    repo = check_repository(repo or PUBLISHED[challenge])
    api = hub_api(endpoint)
    with quiet_client():
        commit, files = list_files(api, repo, revision)
        check_finished(files, challenge, repo)
        found, extras = sort_out(files, challenge)
        for name, file in extras.items():
            check_size(file, repo, name)
        archives = Archives.read(api.endpoint, repo, commit, files, challenge)
        packed = {*archives.models()} - {*found}
        everything = sorted([*found, *packed])
        chosen = choose(everything, challenge, repo, scenarios=scenarios, phases=phases, ids=models)
        located = archives.locate(model for model in chosen if model in packed)
    to = Path(os.path.abspath(to))
    single = [model for model in chosen if model not in packed]
    wanted = tuple(whole(sorted([*located, *single]), repo))
    missing, new = _compare(wanted, extras, to / challenge, repo)
    plan = Plan(challenge, repo, commit, api.endpoint, to, wanted, missing, new, 0)
    staged = sum(
        file.bytes_at(plan.staging / model.relative_path / name)
        for model in missing
        for name, file in model.files.items()
    )
    needed = sum(model.size for model in missing) - staged
    _check_room(to, needed)
    return replace(plan, bytes_there=plan.size - needed)


def _compare(
    models: tuple[HubModel, ...], extras: dict[str, HubFile], folder: Path, repo: str
) -> tuple[tuple[HubModel, ...], dict[str, HubFile]]:
    """The models, or files of models, and the release's own files that do not exist yet.

    The files that describe a release may have changed, as when labels are added, if it has the
    same commitments; HubError if anything else differs.
    """
    side = release_folder(folder)
    new = {name: file for name, file in extras.items() if not file.fits(side / name)}
    missing: list[HubModel] = []
    other: list[Path] = []
    for model in tracked(models, "Comparing", "model"):
        if not os.path.lexists(folder / model.relative_path):
            missing.append(model)
            continue
        place, lacking = folder / model.relative_path, {}
        for name, file in model.files.items():
            if place.is_dir() and not os.path.lexists(place / name):
                lacking[name] = file  # it was published later
            elif not place.is_dir() or not file.fits(place / name):
                if AMENDMENTS_FILE in new and place.is_dir():
                    other.append(place)
                    break
                raise HubError(
                    f"{place / name} is not what {repo} holds: move that model's folder away, or "
                    "choose another --to."
                )
        if lacking:
            missing.append(replace(model, files=lacking))
    if AMENDMENTS_FILE in new and (other or (side / COMMITMENTS_FILE).exists()):
        away = ", ".join(map(str, [*dict.fromkeys(other), side]))
        raise HubError(
            f"{repo} was amended since you fetched it. Move these folders away, download again, "
            f"and give the moved {side.name} to `mico verify {folder} --since`: {away}"
        )
    same = COMMITMENTS_FILE in extras and COMMITMENTS_FILE not in new
    for name in new:
        if (side / name).exists() and not same:
            raise HubError(f"{side / name} is of another release than {repo}: choose another --to.")
    return tuple(missing), new


def _check_room(to: Path, needed: int) -> None:
    """Raise HubError if the disk of `to` has less than `needed` bytes free."""
    existing = next(folder for folder in (to, *to.parents) if folder.is_dir())
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise HubError(
            f"{megabytes(needed)} are to come, but {existing} has room for {megabytes(free)}: "
            "choose another --to, or fewer --scenario, --phase or --models."
        )


def fetch(plan: Plan) -> int:
    """Carry out `plan`.

    Args:
        plan: the result of `plan_download`.

    Returns:
        The number of models downloaded.

    Raises:
        WrongFileError: if files differ from the Hub's list; all other models are downloaded.
        HubError: if the connection breaks, the Hub refuses, or another download is at work in the
            same folder.  The next call resumes.
    """
    from filelock import FileLock, Timeout

    plan.staging.mkdir(parents=True, exist_ok=True)
    lock = plan.staging / "lock"
    try:
        with FileLock(lock, timeout=0), quiet_client():
            _fetch_all(plan)
            lock.unlink(missing_ok=True)
    except Timeout:
        raise HubError(f"Another download is at work in {plan.staging}: let it end.") from None
    _remove_empty(plan.staging)
    return len(plan.missing)


def _fetch_all(plan: Plan) -> None:
    """Download the missing models, several at once, then the release's own files."""
    stop = threading.Event()
    shown = stage(plan.challenge, plan.size, "B", initial=plan.bytes_there)

    def on_bytes(count: int) -> None:
        if stop.is_set():
            raise _Stopped
        fetched.update(count)

    wrong: list[WrongFileError] = []
    with shown as fetched, ThreadPoolExecutor(_WORKERS) as pool:
        try:
            jobs = [pool.submit(_fetch_models, plan, some, on_bytes) for some in _jobs(plan)]
            for job in as_completed(jobs):
                try:
                    job.result()
                except WrongFileError as error:
                    wrong.append(error)
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise
    if wrong:
        more = f" So it is with {count_of(len(wrong) - 1, 'more file')}." if wrong[1:] else ""
        raise WrongFileError(f"{wrong[0]}{more}")
    for name, file in plan.extras.items():
        _fetch(plan, [(file, plan.staging / name)], lambda count: None)
        plan.side.mkdir(parents=True, exist_ok=True)
        os.replace(plan.staging / name, plan.side / name)


def _jobs(plan: Plan) -> Iterator[list[HubModel]]:
    """The missing models: single ones, and together those that follow each other in an archive."""
    some: list[HubModel] = []
    for model in sorted(plan.missing, key=_position):
        together = some and _position(model)[0] == _position(some[0])[0] != ""
        if some and not (together and sum(m.size for m in some) + model.size <= _BYTES_A_JOB):
            yield some
            some = []
        some.append(model)
    if some:
        yield some


def _position(model: HubModel) -> tuple[str, int]:
    """The path of the archive with the model, or "", and the position of its first file there."""
    first = min(model.files.values(), key=lambda file: file.start)
    return (first.archive.path if first.archive else "", first.start)


def _fetch_models(plan: Plan, models: list[HubModel], on_bytes: Any) -> None:
    """Download models; the folder of one appears when all its files are complete."""
    files = [
        (file, plan.staging / model.relative_path / name)
        for model in models
        for name, file in sorted(model.files.items(), key=lambda item: item[1].start)
    ]
    try:
        _fetch(plan, files, on_bytes)
    finally:
        for model in models:
            staged = plan.staging / model.relative_path
            if all((staged / name).exists() for name in model.files):
                _place(plan, model, staged)


def _place(plan: Plan, model: HubModel, staged: Path) -> None:
    """Move a complete model from its staging folder to its own."""
    for path in staged.iterdir():  # files of an earlier revision of the repository
        if path.name not in model.files:
            path.unlink()
    place = plan.folder / model.relative_path
    place.parent.mkdir(parents=True, exist_ok=True)
    if not place.exists():
        os.rename(staged, place)
        return
    for name in model.files:  # files that were published later, such as labels
        os.replace(staged / name, place / name)
    staged.rmdir()


def _fetch(plan: Plan, files: list[tuple[HubFile, Path]], on_bytes: Any) -> None:
    fetch_files(plan.endpoint, plan.repo, plan.commit, files, on_bytes)


def _remove_empty(folder: Path) -> None:
    """Remove `folder` and its subfolders, except those with files of another download."""
    for parent, _, _ in os.walk(folder, topdown=False):
        if not os.listdir(parent):
            os.rmdir(parent)
