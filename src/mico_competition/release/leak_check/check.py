"""An independent check that a release reveals only what the table discloses to participants.

It shares no code with the modules that write releases.  From the trained models, with their
withheld seeds and solutions, it derives what must be released, and compares:

- every small file with the bytes that it must have, and its fields with a closed set of keys and
  values (`values`, `fields`), so that there is no room for a secret in any encoding;
- weights and archives with the bytes that the trained tensors and files give (`forms`);
- names, links, times, modes, owners, sizes and extended attributes (`tree`);
- predictions beside the release, which are not part of it (`predictions`).

It also searches all bytes for the secrets themselves, so that it can say what leaks, and finds
secrets that entered the trained models unnoticed.  In small files and names it searches for seeds,
solutions, lists of records and their hashes, salts, and the organiser's paths and names, also
within base64, hexadecimal and compressed data; in weights it searches for all seeds, and for the
lists of the same model.

It cannot detect what training hides in the low bits of weights, in the last digits of the reported
epsilon, or in a tokenizer's vocabulary, nor what a model learned about its members, which is what
attacks look for.  It does not check when a file was last read, which archives and `mico publish` do
not transfer.  A fault names a file and the kind of secret, and never quotes it.
"""

from __future__ import annotations

import hashlib
import mmap
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from mico_competition.competition.layout import walk_challenge
from mico_competition.competition.table import (
    PHASE_NAMES,
    SEED_FILES,
    SOLUTION_FILE,
    current,
    get_challenge,
)
from mico_competition.release.archive_names import archive_name
from mico_competition.release.leak_check.amended import (
    History,
    amendments_faults,
    replaced_openings,
)
from mico_competition.release.leak_check.byte_search import ByteSearch
from mico_competition.release.leak_check.forms import archive_faults, weights_faults
from mico_competition.release.leak_check.patterns import (
    Patterns,
    Secret,
    is_searchable,
    key_forms,
    machine_names,
    machine_paths,
    secrets_of,
    seeds_of,
    withheld_of,
)
from mico_competition.release.leak_check.predictions import predictions_faults
from mico_competition.release.leak_check.search import search_texts, secret_faults
from mico_competition.release.leak_check.tree import Entry, Fault, tree_faults, walk
from mico_competition.release.leak_check.values import (
    Openings,
    commitments_faults,
    competition_faults,
    model_file_faults,
    read_value,
    revealed_faults,
    seed_faults,
    summary_faults,
    sums_faults,
)
from mico_competition.support.files import PathLike
from mico_competition.support.progress import tracked

_UNNAMED = "(a name that reveals a secret)"
_LARGEST = 1 << 26  # the most bytes of a file without weights


def check_release(
    released: PathLike,
    trained: PathLike,
    challenges: Sequence[str],
    *,
    openings: Openings | None = None,
    amendments: History | None = None,
    revealed: Collection[str] = (),
    checked: Mapping[str, str] | None = None,
    links: int = 1,
) -> list[str]:
    """Find all leaks in released challenges.

    Args:
        released: the folder with `<challenge>/...`, and `<challenge>.release/...` beside it.
        trained: the folder with `<challenge>/...` as training wrote it, with all seeds and
            solutions.
        challenges: the names of the challenges to check.
        openings: the salts of the commitments; by default those in `openings.json` of the trained
            challenge.
        amendments: the line of each amendment and the openings that it replaced; by default those
            in `openings.json`.
        revealed: the phases whose labels were revealed, so that the release may hold them.
        checked: the SHA-256, by name, of weights that need not be checked again.
        links: how many names a file may have; more than one while a release consists of links.

    Returns:
        A sentence, with the file, for each leak; empty if there is none.

    Raises:
        ValueError: if a challenge is missing, or a trained model lacks a seed.
    """
    faults: list[str] = []
    for challenge in challenges:
        get_challenge(challenge)
        order = [phase for phase in PHASE_NAMES if phase in revealed]
        secret = read_value(Path(trained) / challenge / "openings.json")
        stored = secret if isinstance(secret, dict) else {}
        checker = _Checker(
            Path(released),
            Path(trained),
            challenge,
            order,
            dict(stored.get("openings", {})) if openings is None else openings,
            stored.get("amendments", []) if amendments is None else amendments,
        )
        faults += checker.faults(checked or {}, links)
    return faults


class _Checker:
    """The check of one challenge: its released files, and its trained models with their secrets."""

    def __init__(
        self,
        root: Path,
        trained: Path,
        challenge: str,
        revealed: Sequence[str],
        openings: Openings,
        amendments: History,
    ) -> None:
        self.root, self.trained, self.challenge, self.revealed = root, trained, challenge, revealed
        self.released = walk_challenge(root / challenge, fix="name the folder released to.")
        side = root / f"{challenge}.release"
        if not side.is_dir():
            raise ValueError(f"There is no {side}, which is part of it: run `mico release` again.")
        self.models = {model.relative_path: model for model in walk_challenge(trained / challenge)}
        self.entries = walk(root, challenge)
        self.hiding = {
            relative_path: model
            for relative_path, model in self.models.items()
            if model.phase not in revealed and withheld_of(model)
        }
        self.openings, self.amendments = openings, amendments
        self.sums: dict[str, str] = {}
        self.texts: dict[bytes, list[Entry]] = {}  # content to search -> the files that have it

    def faults(self, checked: Mapping[str, str], links: int) -> list[str]:
        """All faults of the challenge, as sentences."""
        beside = ["amendments.jsonl"] if self.amendments else []
        of_tree = (self.root, self.challenge, self.entries, self.revealed, links, beside)
        found = list(tree_faults(*of_tree))
        files = [entry for entry in self.entries if entry.is_file]
        small = [e for e in files if not (e.is_weights or e.is_zip)]
        found += self._small_files(tracked(small, "Leak check: small files", "file"))
        zips = [e for e in files if e.is_zip]
        for entry in tracked(zips, "Leak check: archives", "archive"):
            found += self._archive(entry)
        weights = [entry for entry in files if entry.is_weights]
        found += self._all_weights(weights, checked)
        found += self._beside()
        found += self._models()
        found += predictions_faults(self.root, self.challenge, self.models, self.hiding)
        telling = self._search(found)
        sentences = [f"{_shown(name, telling)}: {sentence}." for name, sentence in found]
        return list(dict.fromkeys(sentences))

    def _small_files(self, entries: Iterable[Entry]) -> Iterator[Fault]:
        """Compare each small file with what it must be, and keep it for the search."""
        for entry in entries:
            if entry.status.st_size > _LARGEST:
                self.sums[entry.name] = _sha256(entry.path)
                yield entry.name, "is larger than any such file of a release"
                continue
            content = entry.path.read_bytes()
            self.sums[entry.name] = hashlib.sha256(content).hexdigest()
            model = self.models.get(entry.model.relative_path) if entry.model else None
            faults: list[str] = []
            if entry.model and model:
                faults = list(model_file_faults(entry.model, entry.file, content, model))
                yield from ((entry.name, fault) for fault in faults)
            if faults or not (model and entry.file in (*SEED_FILES, SOLUTION_FILE)):
                self.texts.setdefault(content, []).append(entry)

    def _archive(self, entry: Entry) -> Iterator[Fault]:
        """Check that an archive holds the files of its phase, and no other byte."""
        self.sums[entry.name] = _sha256(entry.path)
        holds = archive_name(entry.file)
        names = [
            e.name for e in self.entries if e.is_file and e.model and holds and holds.holds(e.model)
        ]
        yield from ((entry.name, fault) for fault in archive_faults(entry.path, self.root, names))

    def _all_weights(self, entries: Sequence[Entry], checked: Mapping[str, str]) -> Iterator[Fault]:
        """Check that weights are those that were trained, and search them for secrets."""
        patterns: Patterns = {}
        kept = [opening for path, opening in self.openings.items() if path in self.hiding]
        for opening in [*kept, *replaced_openings(self.amendments)]:
            forms = key_forms(bytes.fromhex(opening["salt"]))
            patterns.update(dict.fromkeys(forms, Secret("the salt of a commitment", "")))
        for model in tracked(self.hiding.values(), "Leak check: seeds", "model"):
            patterns.update(seeds_of(model))
        self.seeds = ByteSearch(patterns)
        for entry in tracked(entries, "Leak check: weights", "model"):
            assert entry.model is not None
            self.sums[entry.name] = _sha256(entry.path)
            if checked.get(entry.name) == self.sums[entry.name]:
                continue
            trained = self.models.get(entry.model.relative_path)
            folder = trained.path if trained else None
            for fault in weights_faults(entry.model.task, entry.path, folder):
                yield entry.name, fault
            hiding = self.hiding.get(entry.model.relative_path)
            lists = secrets_of(hiding).lists if hiding else {}
            with entry.path.open("rb") as file:
                if entry.status.st_size:
                    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                        found = ByteSearch(lists, self.seeds).find(content)  # type: ignore[arg-type]
                    yield from secret_faults(entry.name, found)

    def _beside(self) -> Iterator[Fault]:
        """Check that the files beside the models hold what they must, and no more."""
        side = f"{self.challenge}.release"
        of_models = (self.challenge, self.released, self.models)
        expected: dict[str, Callable[[bytes], Iterator[str]]] = {
            "release.json": lambda c: summary_faults(
                c, *of_models, self.revealed, len(self.amendments)
            ),
            "commitments.json": lambda c: commitments_faults(c, *of_models, self.openings),
            "SHA256SUMS": lambda c: sums_faults(c, self._sums_of_models()),
        }
        if current().path is not None:
            expected["competition.toml"] = competition_faults
        if self.amendments:
            of_release = (self.challenge, self.root / side / "commitments.json", self.sums)
            expected["amendments.jsonl"] = partial(amendments_faults, self.amendments, *of_release)
        for phase in self.revealed:
            rest = (self.challenge, phase, self.released, self.models, self.openings)
            expected[f"revealed_{phase}.json"] = partial(revealed_faults, *rest)
        archives = f"{side}/archives/"
        zips = {n.removeprefix(archives): s for n, s in self.sums.items() if n.startswith(archives)}
        if zips:
            zips.pop("SHA256SUMS", None)
            expected["archives/SHA256SUMS"] = lambda c: sums_faults(c, zips)
        for name, faults in expected.items():
            path = self.root / side / name
            if not path.is_file():
                yield f"{side}/{name}", "is missing"
            else:
                yield from ((f"{side}/{name}", fault) for fault in faults(path.read_bytes()))

    def _sums_of_models(self) -> dict[str, str]:
        """The checksums of all files that SHA256SUMS of a release lists."""
        side = f"{self.challenge}.release/"
        without = (f"{side}archives/", f"{side}SHA256SUMS")
        return {name: s for name, s in self.sums.items() if not name.startswith(without)}

    def _models(self) -> Iterator[Fault]:
        """Models that cannot be checked, and seeds that can be guessed without any leak."""
        for model in self.released:
            name = f"{self.challenge}/{model.relative_path}"
            if model.relative_path not in self.models:
                yield name, "is not among the trained models, so it cannot be checked"
        near = seed_faults(self.models)
        yield from (
            (f"{self.challenge}/{relative_path}", sentence) for relative_path, sentence in near
        )

    def _search(self, found: list[Fault]) -> set[str]:
        """Search small files and names for all secrets; add to `found`, return names with one."""
        quoted = [*(entry.name for entry in self.entries), *(name for name, _ in found)]
        names = {part for name in quoted for part in name.split("/")}
        for model in self.hiding.values():
            if not is_searchable(model):
                found.append((f"{self.challenge}/{model.relative_path}", _SHORT_SEED))
        secrets = search_texts(
            {*self.texts, *map(os.fsencode, names)},
            list(self.hiding.values()),
            ByteSearch(machine_paths(self.trained), self.seeds),
        )
        organiser = machine_names()
        for text, entries in self.texts.items():
            for entry in entries:
                found += secret_faults(entry.name, secrets[text])
                if organiser and entry.file != "tokenizer.json" and organiser.search(text):
                    found.append(
                        (entry.name, "reveals the name of the organiser's account or machine")
                    )
        telling = {name for name in names if secrets[os.fsencode(name)]}
        for entry in self.entries:
            if entry.file in telling:
                found.append((entry.name, "has a name that reveals a secret"))
        return telling


_SHORT_SEED = "has a withheld seed of under 8 digits, which anybody finds by trying"


def _shown(name: str, telling: Collection[str]) -> str:
    """`name`, cut before the first part that is itself a secret."""
    parts = name.split("/")
    for at, part in enumerate(parts):
        if part in telling:
            return "/".join([*parts[:at], _UNNAMED])
    return name


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
