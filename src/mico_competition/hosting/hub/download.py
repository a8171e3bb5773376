"""Fetch a published challenge from the Hugging Face Hub: whole models, checked, or none.

A model's folder takes its place in `<to>/<challenge>/` only once all its files are there and
have the checksums that the Hub lists; until then they lie in `<to>/.<challenge>.download/`,
where an interrupted fetch goes on.  What stands in its place already is never overwritten.

Files are asked for directly: the client's own `hf_hub_download` makes two requests for each,
which takes 600 models over the Hub's limit, and throws away what came when it is stopped.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mico_competition.competition.layout import release_folder
from mico_competition.competition.table import PUBLISHED, get_challenge, get_phase
from mico_competition.hosting.hub.client import (
    HubError,
    HubFile,
    WrongFileError,
    fetch_file,
    hub_api,
    list_files,
    megabytes,
    quiet_client,
)
from mico_competition.hosting.hub.listing import (
    COMMITMENTS_FILE,
    HubModel,
    check_repository,
    check_size,
    choose,
    sort_out,
    whole,
)
from mico_competition.support.files import PathLike
from mico_competition.support.progress import stage, tracked

_WORKERS = 8


@dataclass(frozen=True)
class Plan:
    """What a fetch will do; nothing is written yet.

    `models` are all that were chosen, `missing` those of them to fetch, `extras` the release's
    own files to fetch, by name.  `bytes_there` of the models' bytes are there already.
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
        """Where the challenge's scenarios will lie."""
        return self.to / self.challenge

    @property
    def side(self) -> Path:
        """Where the release's own files will lie: beside."""
        return release_folder(self.folder)

    @property
    def staging(self) -> Path:
        """Where files wait until their model is whole."""
        return self.to / f".{self.challenge}.download"

    @property
    def size(self) -> int:
        """Bytes of all models that were chosen."""
        return sum(model.size for model in self.models)

    def sentence(self) -> str:
        """What to say before anything is fetched."""
        files = sum(len(model.files) for model in self.models)
        return (
            f"Fetching {len(self.models)} models, {files} files, {megabytes(self.size)} into "
            f"{self.folder}; {megabytes(self.bytes_there)} are there already"
        )


class _Stopped(Exception):
    """Another thread failed, or the user stopped the fetch."""


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
    """List what a repository holds, choose from it, and compare with what is there.

    Args:
        challenge: name of the challenge.
        to: folder that `<challenge>/...` is or will be in.
        scenarios, phases, models: names and ids wanted; empty means all that are published.
        repo: OWNER/NAME of a dataset repository (default: that of 2022); its top, or a folder
            there named after the challenge, holds `<scenario>/<phase>/model_<i>/<file>`.
        revision: a branch, tag or commit (default: the main branch).
        endpoint: the Hub's address (default: HF_ENDPOINT, or huggingface.co).

    Raises:
        ValueError: if a name is unknown, or no repository is known for the challenge.
        HubError: if the Hub cannot be reached or refuses, if the repository lacks what was
            asked for or a file of it, if something else stands in a model's place, or if the
            disk has not the room.
    """
    known = get_challenge(challenge)
    if foreign := sorted(set(scenarios) - set(known)):
        raise ValueError(
            f"{foreign[0]} is no scenario of {challenge}: choose among {', '.join(known)}."
        )
    for phase in phases:
        get_phase(phase)
    if repo is None and challenge not in PUBLISHED:
        raise ValueError(
            f"{challenge} was not published in 2022: name its repository with --repo OWNER/NAME."
        )
    repo = check_repository(repo or PUBLISHED[challenge])
    api = hub_api(endpoint)
    with quiet_client():
        commit, files = list_files(api, repo, revision)
    found, extras = sort_out(files, challenge)
    for name, file in extras.items():
        check_size(file, repo, name)
    chosen = choose(found, challenge, repo, scenarios=scenarios, phases=phases, ids=models)
    to = Path(os.path.abspath(to))
    wanted = tuple(whole(chosen, repo))
    missing, new = _compare(wanted, extras, to / challenge, repo)
    plan = Plan(challenge, repo, commit, api.endpoint, to, wanted, missing, new, 0)
    staged = sum(
        file.bytes_at(plan.staging / model.place / name)
        for model in missing
        for name, file in model.files.items()
    )
    needed = sum(model.size for model in missing) - staged
    _check_room(to, needed)
    return replace(plan, bytes_there=plan.size - needed)


def _compare(
    models: tuple[HubModel, ...], extras: dict[str, HubFile], folder: Path, repo: str
) -> tuple[tuple[HubModel, ...], dict[str, HubFile]]:
    """The models, or files of them, and the release's files that are not there yet.

    Of a release that has the same commitments, what it says of itself may have changed, as when
    labels are added; HubError if anything else differs.
    """
    missing = []
    for model in tracked(models, "Comparing", "model"):
        if not os.path.lexists(folder / model.place):
            missing.append(model)
            continue
        place, lacking = folder / model.place, {}
        for name, file in model.files.items():
            if place.is_dir() and not os.path.lexists(place / name):
                lacking[name] = file  # it was published since
            elif not place.is_dir() or not file.fits(place / name):
                raise HubError(
                    f"{place / name} is not what {repo} holds: move that model's folder away, or "
                    "choose another --to."
                )
        if lacking:
            missing.append(replace(model, files=lacking))
    side = release_folder(folder)
    new = {name: file for name, file in extras.items() if not file.fits(side / name)}
    same = COMMITMENTS_FILE in extras and COMMITMENTS_FILE not in new
    for name in new:
        if (side / name).exists() and not same:
            raise HubError(f"{side / name} is of another release than {repo}: choose another --to.")
    return tuple(missing), new


def _check_room(to: Path, needed: int) -> None:
    """HubError unless the disk that `to` is or will be on has `needed` bytes free."""
    existing = next(folder for folder in (to, *to.parents) if folder.is_dir())
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise HubError(
            f"{megabytes(needed)} are to come, but {existing} has room for {megabytes(free)}: "
            "choose another --to, or fewer --scenario, --phase or --models."
        )


def fetch(plan: Plan, *, progress: bool = True) -> int:
    """Carry out `plan`; gives the number of models fetched.

    Args:
        plan: as `plan_download` gave it.
        progress: whether to show how far it is (see `mico_competition.support.progress`).

    Raises:
        WrongFileError: if files are not what the Hub lists; all other models are fetched.
        HubError: if the Hub breaks off or refuses, or another fetch is at work in the same
            folder.  What came is kept, and the next fetch goes on from there.
    """
    from filelock import FileLock, Timeout

    plan.staging.mkdir(parents=True, exist_ok=True)
    lock = plan.staging / "lock"
    try:
        with FileLock(lock, timeout=0), quiet_client():
            _fetch_all(plan, progress)
            lock.unlink(missing_ok=True)
    except Timeout:
        raise HubError(f"Another download is at work in {plan.staging}: let it end.") from None
    _remove_empty(plan.staging)
    return len(plan.missing)


def _fetch_all(plan: Plan, progress: bool) -> None:
    """Fetch the missing models, several at once, then the release's own files."""
    stop = threading.Event()
    shown = stage(plan.challenge, plan.size, "B", initial=plan.bytes_there, show=progress)

    def on_bytes(count: int) -> None:
        if stop.is_set():
            raise _Stopped
        fetched.update(count)

    wrong: list[WrongFileError] = []
    with shown as fetched, ThreadPoolExecutor(_WORKERS) as pool:
        try:
            jobs = [pool.submit(_fetch_model, plan, model, on_bytes) for model in plan.missing]
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
        more = f" So it is with {len(wrong) - 1} files more." if wrong[1:] else ""
        raise WrongFileError(f"{wrong[0]}{more}")
    for name, file in plan.extras.items():
        _fetch_one(plan, file, plan.staging / name, lambda count: None)
        plan.side.mkdir(parents=True, exist_ok=True)
        os.replace(plan.staging / name, plan.side / name)


def _fetch_model(plan: Plan, model: HubModel, on_bytes: Any) -> None:
    """Fetch one model; its folder takes its place when all its files are whole."""
    staged = plan.staging / model.place
    for name, file in model.files.items():
        _fetch_one(plan, file, staged / name, on_bytes)
    for path in staged.iterdir():  # what an earlier revision of the repository left
        if path.name not in model.files:
            path.unlink()
    place = plan.folder / model.place
    place.parent.mkdir(parents=True, exist_ok=True)
    if not place.exists():
        os.rename(staged, place)
        return
    for name in model.files:  # files that were published since, such as labels
        os.replace(staged / name, place / name)
    staged.rmdir()


def _fetch_one(plan: Plan, file: HubFile, path: Path, on_bytes: Any) -> None:
    fetch_file(plan.endpoint, plan.repo, plan.commit, file, path, on_bytes)


def _remove_empty(folder: Path) -> None:
    """Remove `folder` and the folders in it, but those that hold what another fetch left."""
    for parent, _, _ in os.walk(folder, topdown=False):
        if not os.listdir(parent):
            os.rmdir(parent)
