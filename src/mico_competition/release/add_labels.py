"""Adds the labels of a finished phase to an existing release.

All files stay as they are, byte for byte, except release.json, SHA256SUMS and the archives of the
phase.  `change` says how: a killed run leaves a release that the same command completes.
"""

from __future__ import annotations

from pathlib import Path

from mico_competition.competition.table import SCORED_PHASES
from mico_competition.release.amendments import check_whole_history, read_amendments
from mico_competition.release.archives import settle
from mico_competition.release.change import (
    describe,
    link_release,
    move,
    side_of,
    unchanged,
)
from mico_competition.release.check_files import read_summary
from mico_competition.release.commitments import only_release
from mico_competition.release.leak_check.check import check_release
from mico_competition.release.release import refuse_leaks
from mico_competition.release.reveal import (
    as_text,
    files_in,
    reveal,
    revealed_file,
    verify,
)
from mico_competition.support.files import PathLike, named_if_full, write_text
from mico_competition.support.scratch import scratch


def add_labels(root: PathLike, challenge: str, to: PathLike, phase: str) -> int:
    """Add the labels and seeds of `phase` to the release `<to>/<challenge>`.

    Args:
        root: the folder with `<challenge>/...` as training wrote it, and the openings of the
            release.
        challenge: the name of the challenge.
        to: the folder that the challenge was released to.
        phase: the phase to reveal, "dev" or "final".

    Returns:
        The number of models whose labels are now public.

    Raises:
        ValueError: if there is no such release, if its files do not match its SHA256SUMS, if the
            labels are not those that it commits to, if it lacks an amendment, or if the leak check
            finds more than the labels of revealed phases.  Then nothing is changed.
    """
    tree = Path(to) / challenge
    side = side_of(tree)
    with (
        only_release(root, challenge),
        scratch(to, f".{challenge}.aside") as aside,
        named_if_full(to, aside),
    ):
        check_whole_history(root, tree)
        revealed = reveal(root, challenge, phase)
        file = aside / revealed_file(phase)
        write_text(file, as_text(revealed))
        count, faults = verify(tree, file)
        if faults:
            raise ValueError(f"{tree} is not the release of these models: {faults[0]}")
        added = {f"{challenge}/{name}": text for name, text in files_in(revealed)}
        added[f"{side.name}/{file.name}"] = as_text(revealed)

        def written(name: str, path: Path | None) -> bool:
            return name in added and (path is None or path.read_bytes() == added[name].encode())

        sums = unchanged(tree, written)
        phases = {*read_summary(tree)["revealed"], phase}
        new = aside / "new"
        fresh = link_release(tree, new)
        for name, text in added.items():
            write_text(new / name, text)
        pairs = {(path.split("/")[0], phase) for path in revealed["openings"]}
        order = sorted(phases, key=SCORED_PHASES.index)
        amendments = len(read_amendments(tree))
        described = describe(fresh, Path(root), order, sums, pairs, amendments)
        settle(new)
        found = check_release(new, root, [challenge], revealed=phases, checked=sums, links=2)
        refuse_leaks(challenge, found)
        move(new, Path(to), [*added, *described])
    return count
