"""An independent check that a release tells participants nothing but what the table discloses.

Shares no code with what writes releases.  It reads the withheld seeds and solutions of the
trained models, works out their members anew, and searches what was written:

- every byte of every small file, and every name, for all secrets of all models: seeds, solutions,
  lists of members, non-members and training records, unsalted hashes, salts; as text, as numbers
  of several types, as bits, inverted, in part; also within base64, hexadecimal, compressed data;
- every byte of the weights for the seeds of all models and all secrets of their own model;
- files and folders that no disclosure names, links, and the organiser's paths and names;
- times, modes and sizes that differ between models, and metadata and tokenizers that do;
- files with room for more than their content, archives included (see `leak_forms`).

It cannot see what hides in the low bits of weights or behind a key, parts of a secret of fewer
than 8 bytes, lists of fewer than 16 entries, or what a model itself learned of its members, which
is what the competition is about.  A fault names a file and what it tells, and never quotes it.
"""

from __future__ import annotations

import hashlib
import mmap
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from mico_competition.files import PathLike
from mico_competition.layout import walk_challenge
from mico_competition.progress import tracked
from mico_competition.releases.byte_search import ByteSearch
from mico_competition.releases.leak_forms import (
    archive_faults,
    json_faults,
    text_faults,
    weights_faults,
)
from mico_competition.releases.leak_patterns import (
    Patterns,
    Secret,
    key_forms,
    machine_names,
    machine_paths,
    secrets_of,
    withheld_of,
)
from mico_competition.releases.leak_tree import ARCHIVES, Entry, Fault, tree_faults, walk
from mico_competition.releases.leak_values import (
    commitments_faults,
    read_value,
    seed_faults,
    summary_faults,
    sums_faults,
)
from mico_competition.releases.leak_views import numbers_in, views
from mico_competition.tracks import SOLUTION_FILE, get_challenge

_UNNAMED = "(a name that tells a secret)"


def check_release(
    released: PathLike,
    trained: PathLike,
    challenges: Sequence[str],
    *,
    salts: Iterable[bytes] = (),
    progress: bool = True,
) -> list[str]:
    """All leaks in released challenges, each a sentence with its file; none if none was found.

    Args:
        released: holds `<challenge>/...`, and `archives/<challenge>/...` if they were written.
        trained: holds `<challenge>/...` as training wrote it, with all seeds and solutions.
        challenges: names of the challenges to check.
        salts: of commitments, beside those in `openings.json` of the trained challenges.
        progress: whether to show how far it is (see `mico_competition.progress`).

    Raises:
        ValueError: if a challenge is not there, or a trained model lacks a seed.
    """
    faults: list[str] = []
    for challenge in challenges:
        get_challenge(challenge)
        checker = _Checker(Path(released), Path(trained), challenge, list(salts))
        faults += checker.faults(progress)
    return faults


class _Checker:
    """One challenge: what was released of it, and what is withheld of the trained models."""

    def __init__(self, root: Path, trained: Path, challenge: str, salts: list[bytes]) -> None:
        self.root, self.trained, self.challenge = root, trained, challenge
        self.released = walk_challenge(root / challenge, mend="name the folder released to.")
        self.models = {model.place: model for model in walk_challenge(trained / challenge)}
        self.secrets = {place: secrets_of(model) for place, model in self.models.items()}
        self.entries = walk(root, challenge)
        seeds: Patterns = {}
        numbers: Patterns = {}
        for salt in (*salts, *_salts(trained / challenge / "openings.json")):
            seeds.update(dict.fromkeys(key_forms(salt), Secret("the salt of a commitment", "")))
        for secrets in self.secrets.values():
            seeds.update(secrets.seeds)
            numbers.update(secrets.numbers)
        self.seeds = ByteSearch(seeds)
        self.lists = {place: ByteSearch(s.lists) for place, s in self.secrets.items() if s.lists}
        self.all = ByteSearch(machine_paths(trained), self.seeds, *self.lists.values())
        self.numbers = ByteSearch(numbers)
        self.sums: dict[str, str] = {}
        self.names: dict[str, bool] = {}

    def faults(self, progress: bool) -> list[str]:
        """All faults of the challenge, as sentences."""
        found = list(tree_faults(self.root, self.challenge, self.entries))
        telling = [entry.name for entry in self.entries if self._is_secret(entry.file)]
        found += [(name, "has a name that tells a secret") for name in telling]
        files = [entry for entry in self.entries if entry.is_file]
        found += self._small_files([e for e in files if not e.is_weights and not _is_archive(e)])
        weights = [entry for entry in files if entry.is_weights]
        for entry in tracked(weights, "Leak check", "model", show=progress):
            found += self._weights(entry)
        found += self._models()
        found += self._values()
        found += self._archives([entry for entry in files if _is_archive(entry)])
        sentences = [f"{self._shown(name)}: {sentence}." for name, sentence in found]
        return list(dict.fromkeys(sentences))

    def _is_secret(self, name: str) -> bool:
        """Whether a file's or folder's name tells a secret."""
        if name not in self.names:
            self.names[name] = bool(self._told_by(os.fsencode(name)))
        return self.names[name]

    def _shown(self, name: str) -> str:
        """`name`, up to a part of it that is itself a secret."""
        parts = name.split("/")
        for at, part in enumerate(parts):
            if self._is_secret(part):
                return "/".join([*parts[:at], _UNNAMED])
        return name

    def _told_by(self, content: bytes) -> list[Secret]:
        """The secrets that stand in a small file's content, however it is written."""
        found = []
        for view in views(content):
            found += self.all.find(view)
            found += self.numbers.find(numbers_in(view))
        return found

    def _small_files(self, entries: list[Entry]) -> Iterator[Fault]:
        """Forms of small files, and what stands in them; the same content is searched once."""
        names = machine_names()
        searched: dict[bytes, list[Secret]] = {}
        for entry in entries:
            content = entry.path.read_bytes()
            self.sums[entry.name] = hashlib.sha256(content).hexdigest()
            if entry.model:
                yield from ((entry.name, fault) for fault in text_faults(entry.file, content))
            elif entry.file.endswith(".json"):
                yield from ((entry.name, fault) for fault in json_faults(entry.file, content))
            if self._discloses_its_own_solution(entry, content):
                continue
            if content not in searched:
                searched[content] = self._told_by(content)
            yield from _told(entry, searched[content])
            if names and entry.file != "tokenizer.json" and names.search(content):
                yield entry.name, "tells the name of the organiser's account or machine"

    def _discloses_its_own_solution(self, entry: Entry, content: bytes) -> bool:
        """Whether it is a solution that is disclosed: labels of others may agree by chance."""
        model = self.models.get(entry.model.place) if entry.model else None
        if model is None or entry.file != SOLUTION_FILE or SOLUTION_FILE in withheld_of(model):
            return False
        return b"".join((model.path / SOLUTION_FILE).read_bytes().split()) == content.strip()

    def _weights(self, entry: Entry) -> Iterator[Fault]:
        """Form of a file of weights, and what stands in it."""
        assert entry.model is not None
        yield from ((entry.name, fault) for fault in weights_faults(entry.model.task, entry.path))
        own = self.lists.get(entry.model.place)
        search = ByteSearch({}, self.seeds, own) if own else self.seeds
        with entry.path.open("rb") as file:
            if entry.status.st_size == 0:
                return
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                self.sums[entry.name] = hashlib.sha256(content).hexdigest()
                yield from _told(entry, search.find(content))  # type: ignore[arg-type]

    def _models(self) -> Iterator[Fault]:
        """Models that cannot be checked, and secrets that need no leak."""
        for model in self.released:
            name = f"{self.challenge}/{model.place}"
            if model.place not in self.models:
                yield name, "is not among the trained models, so it cannot be checked"
            elif not self.secrets[model.place].searchable:
                yield name, "has a withheld seed of under 8 digits, which anybody finds by trying"
        near = seed_faults(self.models)
        yield from ((f"{self.challenge}/{place}", sentence) for place, sentence in near)

    def _values(self) -> Iterator[Fault]:
        """Whether checksums, commitments and release.json hold what they must, and no more."""
        files = {entry.name: entry for entry in self.entries if entry.is_file}
        for archive in filter(_is_archive, files.values()):
            self.sums[archive.name] = _sha256(archive.path)
        for top in (self.challenge, f"{ARCHIVES}/{self.challenge}"):
            name = f"{top}/SHA256SUMS"
            if name in files:
                beside = [file for file in files if file.startswith(f"{top}/") and file != name]
                sums = {f.removeprefix(f"{top}/"): self.sums.get(f, "") for f in beside}
                yield from ((name, fault) for fault in sums_faults(files[name].path, sums))
        for file, check in (
            ("release.json", summary_faults),
            ("commitments.json", commitments_faults),
        ):
            name = f"{self.challenge}/{file}"
            faults = check(self.root / name, self.challenge, self.released, self.models)
            yield from ((name, fault) for fault in faults)

    def _archives(self, entries: list[Entry]) -> Iterator[Fault]:
        """Whether each archive holds the files of its phase and no other byte."""
        for entry in entries:
            scenario, _, phase = entry.file.removesuffix(".zip").rpartition("_")
            start = f"{self.challenge}/{scenario}/{phase}/"
            names = [e.name for e in self.entries if e.is_file and e.name.startswith(start)]
            faults = archive_faults(entry.path, self.root, names)
            yield from ((entry.name, fault) for fault in faults)


def _is_archive(entry: Entry) -> bool:
    return entry.name.startswith(f"{ARCHIVES}/") and entry.file.endswith(".zip")


def _told(entry: Entry, secrets: Iterable[Secret]) -> Iterator[Fault]:
    """A fault for each kind of secret that a file tells."""
    models: dict[str, set[str]] = {}
    for secret in secrets:
        models.setdefault(secret.what, set()).add(secret.of)
    for what, places in sorted(models.items()):
        of = f" of {min(places)}" if min(places) else ""
        more = f" and of {len(places) - 1} other models" if len(places) > 1 else ""
        yield entry.name, f"tells {what}{of}{more}"


def _salts(path: Path) -> list[bytes]:
    """The salts of an organiser's openings, if there are any yet."""
    values = read_value(path)
    openings = values.get("openings", {}) if isinstance(values, dict) else {}
    return [bytes.fromhex(opening["salt"]) for opening in openings.values()]


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
