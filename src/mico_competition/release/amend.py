"""Amends a published release: replaces, adds or withdraws models, and records it for everybody.

The record, amendments.jsonl, and what it proves are described in `amendments`.  Only models of
phases whose labels are still secret, and train models, can be amended: after the reveal, replacing
a model would change a result that is known.  The labels and seeds of a replaced model are never
published: it is no longer scored, and it may have been trained on records that nobody should learn
about.  Its opening stays in openings.json, so that the organiser can still open the old commitment.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mico_competition.competition.layout import (
    ModelFolder,
    read_text,
    release_folder,
    walk_challenge,
)
from mico_competition.competition.splits import parse_seed, seed_text
from mico_competition.competition.table import get_scenario
from mico_competition.release.amendments import (
    AMENDMENTS_FILE,
    Amendment,
    State,
    check_date,
    check_reason,
    commitments_digest,
    files_by_model,
    in_order,
    lacking_amendments,
    read_amendments,
    sha256_of_text,
    stored_text,
)
from mico_competition.release.archives import SUMS_FILE, files_below, read_sums, settle, sha256_of
from mico_competition.release.change import (
    Pairs,
    describe,
    link_release,
    move,
    side_of,
    unchanged,
)
from mico_competition.release.check_files import read_summary
from mico_competition.release.commitments import (
    COMMITMENTS_FILE,
    Openings,
    commit,
    commitments_in,
    marks_of,
    only_release,
    opens,
    public_commitments,
    read_history,
    read_openings,
    save_openings,
    withheld_texts,
)
from mico_competition.release.leak_check.check import check_release
from mico_competition.release.leak_check.forms import weights_faults
from mico_competition.release.leak_check.values import model_file_faults
from mico_competition.release.privacy_claims import check_privacy_claims
from mico_competition.release.public_files import write_json, write_public_files
from mico_competition.release.release import NOT_TRAINED, check_models, refuse_leaks
from mico_competition.release.whole import check_whole
from mico_competition.support.files import PathLike, named_if_full, write_text
from mico_competition.support.progress import tracked
from mico_competition.support.scratch import scratch

_PUBLIC_SEED = "seed_challenge"


def amend(
    root: PathLike,
    challenge: str,
    to: PathLike,
    reason: str,
    *,
    day: str | None = None,
    withdraw: Collection[str] = (),
    splits_of_2022: bool = False,
    dry_run: bool = False,
) -> Amendment:
    """Make the release `<to>/<challenge>` that of today's trained models, and record the change.

    Models whose files differ from the release replace those there, and models that it lacks are
    added.  Everything else stays as it is.  If an earlier call was killed, its amendment is
    completed, and nothing else is done.

    Args:
        root: the folder with `<challenge>/...` as training wrote it, and the openings of the
            release.
        challenge: the name of the challenge.
        to: the folder that the challenge was released to.
        reason: why, in one line of at most 300 characters, which everybody will read.
        day: the date of the amendment, YYYY-MM-DD; by default today, in UTC.
        withdraw: relative paths, `<scenario>/<phase>/model_<i>`, of models to leave out; their
            trained folders must be gone.
        splits_of_2022: as for `release`.
        dry_run: check and return the amendment, and change nothing.

    Returns:
        The amendment.

    Raises:
        ValueError: if there is no such release or its files are not what SHA256SUMS lists; if
            nothing differs; if a model of a revealed phase differs; if a model is gone without
            being named in `withdraw`; if a private model was trained again with the splits of the
            model that it replaces; or as `release`.  Then nothing is changed.
    """
    check_reason(reason)
    today = datetime.now(UTC).strftime("%Y-%m-%d")
    if (day := check_date(day or today)) > today:
        raise ValueError(
            f"{day} is after today, {today} (UTC): an amendment is of the day on which it is made."
        )
    tree = Path(to) / challenge
    side_of(tree)
    with (
        only_release(root, challenge),
        scratch(to, f".{challenge}.aside") as aside,
        named_if_full(to, aside),
    ):
        models = walk_challenge(Path(root) / challenge, fix=NOT_TRAINED)
        check_whole(models)
        check_models(models, splits_of_2022)
        check_privacy_claims(models)
        work = _Work(Path(root), tree, {m.relative_path: m for m in models}, aside / "new")
        if begun := lacking_amendments(root, tree):
            work.build([model for one in begun for model in one.changes])
            work.complete(begun, dry_run)
            return begun[-1]
        work.check_commitments(day)
        named = _differences(work, withdraw)
        openings, replaced = _new_openings(work, named)
        before = {model: work.state_before(model) for model in named}
        work.build(named)
        changes = {m: {"before": before[m], "after": work.state_after(m, openings)} for m in named}
        if same := [m for m, states in changes.items() if states["before"] == states["after"]]:
            raise ValueError(f"{same[0]} could not be compared with the release: try again.")
        amendment = _amendment(work, reason, day, changes, openings)
        line = amendment.line(challenge)
        past: dict[str, Any] = {"line": line, "replaced": replaced}
        work.finish(openings, stored_text(root, challenge) + line, [*work.history, past])
        if not dry_run:
            save_openings(root, challenge, openings, past)
            work.move()
    return amendment


@dataclass
class _Work:
    """A release that is amended: its trained models by relative path, and the new tree."""

    root: Path
    tree: Path
    models: Mapping[str, ModelFolder]
    new: Path

    def __post_init__(self) -> None:
        self.challenge, self.side = self.tree.name, release_folder(self.tree)
        self.listed = files_by_model(self.challenge, read_sums(self.side / SUMS_FILE))
        self.committed = commitments_in(self.side / COMMITMENTS_FILE)[1]
        self.revealed: list[str] = read_summary(self.tree)["revealed"]
        self.history = read_history(self.root, self.challenge)
        self.named: list[str] = []
        self.sums: dict[str, str] = {}
        self.described: list[str] = []

    @property
    def pairs(self) -> Pairs:
        """Scenario and phase of the models that change."""
        return {tuple(model.split("/")[:2]) for model in self.named}  # type: ignore[misc]

    def check_commitments(self, day: str) -> None:
        """Raise ValueError if commitments.json is not what the openings and SHA256SUMS say.

        Also if there is an amendment of a later day.
        """
        if (before := read_amendments(self.tree)) and day < before[-1].date:
            raise ValueError(
                f"{day} is before amendment {before[-1].number} of {before[-1].date}: amendments "
                "are recorded in the order of their dates."
            )
        path, openings = self.side / COMMITMENTS_FILE, read_openings(self.root, self.challenge)
        stored = {model: opening["commitment"] for model, opening in openings.items()}
        digest = commitments_digest(self.challenge, self.committed)
        listed = read_sums(self.side / SUMS_FILE).get(f"{self.side.name}/{COMMITMENTS_FILE}")
        if any(stored.get(m) != value for m, value in self.committed.items()) or not (
            sha256_of(path) == digest == listed
        ):
            raise ValueError(f"{path} is not what was released: put back what was released.")

    def build(self, named: Sequence[str]) -> None:
        """Link the release to the new tree, with the files of the models in `named` anew."""
        self.named = in_order(self.challenge, list(dict.fromkeys(named)))
        beside = {f"{self.side.name}/{name}" for name in (COMMITMENTS_FILE, AMENDMENTS_FILE)}
        folders = {f"{self.challenge}/{model}" for model in self.named}

        def changes(name: str, path: Path | None) -> bool:
            return name in beside or name in folders or name.rpartition("/")[0] in folders

        self.sums = unchanged(self.tree, changes)
        fresh = link_release(self.tree, self.new)
        for model in tracked(self.named, "Writing models", "model"):
            shutil.rmtree(fresh / model, ignore_errors=True)
            if model in self.models:
                write_public_files(self.models[model], fresh / model)

    def state_before(self, model: str) -> State:
        """The state of a model in the release."""
        if model not in self.listed:
            return None
        return {"commitment": self.committed.get(model), "files": self.listed[model]}

    def state_after(self, model: str, openings: Openings) -> State:
        """The state of a model in the new tree."""
        folder = self.new / self.challenge / model
        if model not in self.models:
            return None
        files = {name: sha256_of(folder / name) for name in files_below(folder)}
        return {"commitment": openings.get(model, {}).get("commitment"), "files": files}

    def finish(self, openings: Openings, text: str, history: Sequence[Mapping[str, Any]]) -> None:
        """Write what describes the new tree, and refuse it if the leak check finds anything."""
        fresh, side = self.new / self.challenge, self.new / self.side.name
        models = list(self.models.values())
        for name in (COMMITMENTS_FILE, AMENDMENTS_FILE):
            (side / name).unlink(missing_ok=True)  # a link: writing would change the old file
        write_json(side / COMMITMENTS_FILE, public_commitments(self.challenge, models, openings))
        write_text(side / AMENDMENTS_FILE, text)
        self.described = describe(
            fresh, self.root, self.revealed, self.sums, self.pairs, len(history)
        )
        settle(self.new)
        found = check_release(
            self.new,
            self.root,
            [self.challenge],
            openings=openings,
            amendments=history,
            revealed=self.revealed,
            checked=self.sums,
            links=2,
        )
        refuse_leaks(self.challenge, found)

    def complete(self, begun: Sequence[Amendment], dry_run: bool) -> None:
        """Finish amendments that are stored already; ValueError if their models have changed."""
        openings = read_openings(self.root, self.challenge)
        last = {model: one.changes[model]["after"] for one in begun for model in one.changes}
        for model, state in last.items():
            if state != self.state_after(model, openings):
                raise ValueError(
                    f"{self.root / self.challenge / model} is not what amendment "
                    f"{begun[-1].number} states, which was begun: put back its files first."
                )
        self.finish(openings, stored_text(self.root, self.challenge), self.history)
        if not dry_run:
            self.move()

    def move(self) -> None:
        """Move the files that changed into the release; SHA256SUMS comes last."""
        changed = []
        for model in self.named:
            for top in (self.new, self.tree.parent):
                folder = f"{self.challenge}/{model}"
                changed += [f"{folder}/{name}" for name in files_below(top / folder)]
        beside = [f"{self.side.name}/{name}" for name in (COMMITMENTS_FILE, AMENDMENTS_FILE)]
        names = [*dict.fromkeys(changed), *beside, *self.described]
        move(self.new, self.tree.parent, names)


def _differences(work: _Work, withdraw: Collection[str]) -> list[str]:
    """The models that the amendment changes; ValueError if it must not change them."""
    released, gone = set(work.listed), set(work.listed) - set(work.models)
    for model in withdraw:
        if model not in released:
            raise ValueError(f"{model} is not part of {work.tree}, so it cannot be withdrawn.")
        if model in work.models:
            raise ValueError(
                f"{work.models[model].path} is still there: move it away to withdraw it."
            )
    if lost := sorted(gone - set(withdraw)):
        raise ValueError(
            f"{lost[0]} was released, and is gone from {work.root / work.challenge}: put it back, "
            "or train it again if it has new seeds (`mico fleet`), or withdraw it with --withdraw "
            f"{lost[0]}."
        )
    named = [*gone, *(set(work.models) - released)]
    for model in tracked(sorted(released & set(work.models)), "Comparing", "model"):
        if _differs(work, model):
            named.append(model)
    if not named:
        raise ValueError(f"The trained models are those of {work.tree}: there is nothing to amend.")
    for model in named:
        phase = model.split("/")[1]
        if phase in work.revealed:
            raise ValueError(
                f"{model} differs from the release, and the labels of {phase} are public: a model "
                "whose labels are known cannot be replaced, so put back what was released."
            )
    for scenario, phase, _ in (model.split("/") for model in gone):
        if not any(model.startswith(f"{scenario}/{phase}/") for model in work.models):
            raise ValueError(
                f"No model of {scenario}/{phase} would be left: replace models instead."
            )
    return in_order(work.challenge, named)


def _differs(work: _Work, relative_path: str) -> bool:
    """Whether the public files or the commitment of a model are not those of the release."""
    model, old = work.models[relative_path], work.tree / relative_path
    texts = withheld_texts(model)
    opening = read_openings(work.root, work.challenge).get(relative_path)
    if texts and (opening is None or not opens(work.challenge, relative_path, opening, texts)):
        return True
    released = ModelFolder(model.scenario, model.phase, model.model_id, old)
    weights = model.task.weights[-1].split("|")[0]
    for name in files_below(old):
        if name == weights:
            if any(weights_faults(model.task, old / name, model.path)):
                return True
        elif any(model_file_faults(released, name, (old / name).read_bytes(), model)):
            return True
    return False


def _new_openings(work: _Work, named: Sequence[str]) -> tuple[Openings, Openings]:
    """The openings of all models after the amendment, and those that it replaces.

    A model with the withheld labels and seeds of the one that it replaces keeps its opening.
    """
    openings, replaced = read_openings(work.root, work.challenge), {}
    for relative_path in named:
        opening, model = openings.get(relative_path), work.models.get(relative_path)
        if model is not None:
            _refuse_same_splits(work, model)
        if opening is None:
            continue
        if model is None or not opens(
            work.challenge, relative_path, opening, withheld_texts(model)
        ):
            replaced[relative_path] = openings.pop(relative_path)
    past = [*(one["replaced"] for one in work.history), replaced]
    for model in (work.models[name] for name in named if name in work.models):
        _refuse_old_seeds(work, model, [pair for some in past for pair in some.items()])
    return commit(work.root, work.challenge, list(work.models.values()), openings), replaced


def _refuse_same_splits(work: _Work, model: ModelFolder) -> None:
    """Raise ValueError if a private model has the challenge points of one that it ever replaced.

    Two models trained on the same members would together spend twice the epsilon that the release
    states for each.
    """
    if not get_scenario(model.scenario).private:
        return
    changes = [one.changes.get(model.relative_path, {}) for one in read_amendments(work.tree)]
    states = [state for change in changes for state in change.values()]
    earlier = {
        state["files"].get(_PUBLIC_SEED)
        for state in (*states, work.state_before(model.relative_path))
        if state is not None
    }
    path = model.path / _PUBLIC_SEED
    if sha256_of_text(f"{seed_text(parse_seed(str(path), read_text(path)))}\n") in earlier:
        raise ValueError(
            f"{model.path} was trained with the seeds of a model that it replaces, and everybody "
            "who has both models would learn more about their members than the epsilon of one "
            "allows: train it with new seeds."
        )


def _refuse_old_seeds(
    work: _Work, model: ModelFolder, past: Sequence[tuple[str, Mapping[str, str]]]
) -> None:
    """Raise ValueError if a model has a withheld seed of one that was replaced or withdrawn.

    The reveal of its seeds would tell the labels of that one, which are never published.  A model
    with all seeds of one that had its place is that one again.
    """
    texts = withheld_texts(model)
    for relative_path, opening in past:
        again = relative_path == model.relative_path
        if again and opens(work.challenge, relative_path, opening, texts):
            continue
        known = opening.get("seeds", "").split()
        if not set(known).isdisjoint(marks_of(bytes.fromhex(opening["salt"]), texts)):
            raise ValueError(
                f"{model.path} was trained with a secret seed of {relative_path}, which was "
                "replaced or withdrawn: when its seeds are revealed, everybody could work out "
                "labels of that one. Train it with new seeds."
            )


def _amendment(
    work: _Work, reason: str, day: str, changes: dict[str, Any], openings: Openings
) -> Amendment:
    """The next amendment of the release."""
    last = stored_text(work.root, work.challenge).splitlines(keepends=True)[-1:]
    original = commitments_digest(work.challenge, work.committed)
    public = public_commitments(work.challenge, list(work.models.values()), openings)
    return Amendment(
        number=len(work.history) + 1,
        date=day,
        reason=reason,
        previous=sha256_of_text(last[0]) if last else original,
        changes=changes,
        commitments=commitments_digest(work.challenge, public["commitments"]),
    )
