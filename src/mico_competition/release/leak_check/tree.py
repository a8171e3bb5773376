"""Checks what a release could reveal besides its contents: names, links, times, modes and sizes.

It also compares the small files that all models of a scenario share.  Each fault is a pair of a
path, relative to the released root, and a sentence.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from mico_competition.competition.layout import ModelFolder, model_id_of
from mico_competition.competition.table import (
    CHALLENGES,
    METADATA_FILE,
    PHASE_NAMES,
    SEED_FILES,
    SOLUTION_FILE,
    current,
    disclosed_files,
    get_challenge,
    get_scenario,
    get_task,
)
from mico_competition.release.archive_names import archive_name

Fault = tuple[str, str]

BESIDE_MODELS = ("SHA256SUMS", "commitments.json", "release.json")
_STRAY = "is not among what the table discloses"
_TIME = 315_532_800  # 1980-01-01, 00:00 UTC
_DECIMAL = re.compile(rb"-?[0-9]{1,20}\n")


@dataclass(frozen=True)
class Entry:
    """A file or folder, with its name relative to the released root, and its model."""

    path: Path
    name: str
    model: ModelFolder | None

    @property
    def file(self) -> str:
        """The last part of the name."""
        return self.path.name

    @cached_property
    def status(self) -> os.stat_result:
        """The status of the entry, also if it is a link."""
        return self.path.lstat()

    @property
    def is_archive(self) -> bool:
        """Whether its path is that of an archive, or of the checksums of archives."""
        return self.name.split("/")[1:2] == ["archives"]

    @property
    def is_zip(self) -> bool:
        """Whether its path is that of an archive."""
        return self.is_archive and self.file.endswith(".zip")

    @property
    def is_file(self) -> bool:
        """Whether it is a regular file, and not a link."""
        return stat.S_ISREG(self.status.st_mode)

    @property
    def is_weights(self) -> bool:
        """Whether its path is that of a model's weights."""
        return self.model is not None and self.file in weight_names(self.model.scenario)


def weight_names(scenario: str) -> set[str]:
    """The name of the file of weights in releases of a scenario."""
    return {get_task(get_scenario(scenario).task).weights[-1].split("|")[0]}


def walk(root: Path, challenge: str) -> list[Entry]:
    """All files and folders of `<root>/<challenge>` and `<root>/<challenge>.release`."""
    entries = []
    for top in (root / challenge, root / f"{challenge}.release"):
        found = [top] if top.exists() else []
        for folder, folders, files in os.walk(top):
            found += [Path(folder, name) for name in (*folders, *files)]
        for path in sorted(found):
            name = path.relative_to(root).as_posix()
            entries.append(Entry(path, name, _model_of(root, name)))
    return entries


def _model_of(root: Path, name: str) -> ModelFolder | None:
    """The model in whose folder `name` is, if there is one."""
    challenge, scenario, phase, folder = [*name.split("/")[:4], "", "", ""][:4]
    model_id = model_id_of(folder)
    known = (
        challenge in CHALLENGES and scenario in get_challenge(challenge) and phase in PHASE_NAMES
    )
    if not known or model_id is None:
        return None
    return ModelFolder(scenario, phase, model_id, root / challenge / scenario / phase / folder)


def tree_faults(
    root: Path,
    challenge: str,
    entries: Sequence[Entry],
    revealed: Collection[str] = (),
    links: int = 1,
    beside: Collection[str] = (),
) -> Iterator[Fault]:
    """Find files that the table does not disclose, and attributes that distinguish models.

    Args:
        root: the folder with the released challenge.
        challenge: the name of the challenge.
        entries: the result of `walk`.
        revealed: the phases whose labels the release may hold too.
        links: how many names a file may have; more than one while a release consists of links.
        beside: the names of files that the release may hold beside its models, as not all do.
    """
    yield from _strays(root)
    models = {e.model for e in entries if e.model}
    for entry in entries:
        if not _belongs(entry, challenge, models, revealed, beside):
            yield entry.name, _STRAY
        elif not (entry.is_file or stat.S_ISDIR(entry.status.st_mode)):
            yield entry.name, "is a link, or not a regular file"
        elif _attributes(entry.path):
            yield entry.name, "has extended attributes"
        elif entry.is_file and entry.status.st_nlink > links:
            yield entry.name, "is a hard link: its bytes are also another file"
        elif stat.S_IMODE(entry.status.st_mode) != (0o644 if entry.is_file else 0o755):
            yield entry.name, "has an unusual mode"
    owners = {e.name: (e.status.st_uid, e.status.st_gid) for e in entries}
    yield from _uncommon(owners, "has another owner or group than other files")
    times = [e.name for e in entries if e.status.st_mtime_ns != _TIME * 10**9]
    if times:
        yield (
            times[0],
            f"was modified at another time (as were {len(times) - 1} others): times reveal which "
            f"models were written together",
        )
    yield from _differences([e for e in entries if e.model and e.is_file])


def _attributes(path: Path) -> list[str]:
    """The names of a file's extended attributes, except those that systems give every file."""
    try:
        names = os.listxattr(path, follow_symlinks=False)
    except (AttributeError, OSError):  # the system or file system has none
        return []
    return [name for name in names if name not in ("security.selinux", "system.nfs4_acl")]


def _strays(root: Path) -> Iterator[Fault]:
    """Files beside the challenges that are neither of a release nor predictions."""
    known = {
        f"{name}{ending}" for name in CHALLENGES for ending in ("", ".release", ".predictions")
    }
    for path in sorted(root.iterdir()):
        left = path.name.startswith(".") and ".aside-" in path.name  # a killed release left it
        if path.name not in known and not (left and stat.S_IMODE(path.lstat().st_mode) == 0o700):
            yield path.name, _STRAY


def _belongs(
    entry: Entry,
    challenge: str,
    models: set[ModelFolder],
    revealed: Collection[str],
    beside: Collection[str],
) -> bool:
    """Whether a release of `challenge` may have a file or folder of this name."""
    top, *parts = entry.name.split("/")
    if top == f"{challenge}.release":
        own = {"competition.toml"} if current().path is not None else set()
        labels = (f"revealed_{phase}.json" for phase in revealed)
        texts = {*BESIDE_MODELS, *own, *beside, *labels}
        if entry.is_archive:
            return len(parts) == 1 or (len(parts) == 2 and _is_archive(parts[1], models))
        return not parts or (len(parts) == 1 and parts[0] in texts)
    scenarios = get_challenge(challenge)
    if len(parts) < 3:
        known = (scenarios, PHASE_NAMES)
        return not entry.is_file and all(part in names for part, names in zip(parts, known))
    if entry.model is None:
        return False
    if len(parts) == 3:
        return not entry.is_file
    return len(parts) == 4 and entry.file in _names_of_model(entry.model, revealed)


def _is_archive(name: str, models: set[ModelFolder]) -> bool:
    """Whether a release has an archive of this name: its range must begin and end with a model."""
    if name == "SHA256SUMS":
        return True
    holds = archive_name(name)
    if holds is None or str(holds) != name:
        return False
    ids = {m.model_id for m in models if (m.scenario, m.phase) == (holds.scenario, holds.phase)}
    return bool(ids) and (holds.ids is None or ids >= set(holds.ids))


def _names_of_model(model: ModelFolder, revealed: Collection[str]) -> set[str]:
    """The files that participants get of a model."""
    task = model.task
    labels = (*SEED_FILES, SOLUTION_FILE) if model.phase in revealed else ()
    return {
        *(alternatives.split("|")[0] for alternatives in task.weights),
        *task.companions,
        METADATA_FILE,
        *disclosed_files(get_scenario(model.scenario), model.phase),
        *labels,
    }


def _differences(entries: Sequence[Entry]) -> Iterator[Fault]:
    """Files that differ between models in size, or in content where all models share it."""
    groups: dict[tuple[str, str], list[Entry]] = {}
    models: dict[str, set[str]] = {}
    for entry in entries:
        assert entry.model is not None
        groups.setdefault((entry.model.scenario, entry.file), []).append(entry)
        models.setdefault(entry.model.scenario, set()).add(entry.model.relative_path)
    for (scenario, file), group in groups.items():
        task = get_task(get_scenario(scenario).task)
        shared = {METADATA_FILE, *task.companions, *task.weights[:-1]}
        if file in shared and len(group) < len(models[scenario]):
            yield group[0].name, "exists for some models of the scenario but not for others"
        sizes = {entry.name: entry.status.st_size for entry in group if not _decimal(entry)}
        yield from _uncommon(sizes, "has another size than those of other models")
        if file in shared:
            contents = {entry.name: _digest(entry.path) for entry in group}
            yield from _uncommon(contents, "is not the same as those of other models")


def _decimal(entry: Entry) -> bool:
    """Whether the entry is a decimal seed as in 2022, whose number of digits varies."""
    return entry.file in SEED_FILES and bool(_DECIMAL.fullmatch(entry.path.read_bytes()))


def _digest(path: Path) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()


def _uncommon(values: Mapping[str, object], sentence: str) -> Iterator[Fault]:
    """A fault for each name whose value is not the most common one."""
    if len(set(values.values())) > 1:
        common = Counter(values.values()).most_common(1)[0][0]
        yield from ((name, sentence) for name, value in values.items() if value != common)
