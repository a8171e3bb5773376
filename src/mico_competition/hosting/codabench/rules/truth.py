"""Rules on the solutions: every phase can be scored, on all its models and with its own labels.

The platforms do not check these.  No fault quotes a label, or the number of members.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from mico_competition.competition.table import SCORED_PHASES, SOLUTION_FILE
from mico_competition.hosting.codabench.files import Archive
from mico_competition.hosting.codabench.rules.fault import Fault, error, silent, warning
from mico_competition.hosting.codabench.rules.files import open_inner
from mico_competition.hosting.codabench.rules.scored import Scored
from mico_competition.scoring.truth import NOTICE_FILE, phase_of, read_solutions, scenario_of
from mico_competition.support.scratch import scratch

Truth = Mapping[str, np.ndarray]  # model folder -> its labels
_STATED = re.compile(rf"[Ss]core[sd]\b.* on the ([0-9]+) ({'|'.join(SCORED_PHASES)}) models")
_MEND = "Write the bundle again with `mico bundle`."


def truth_rule(phases: Sequence[Scored], archive: Archive) -> Iterator[Fault]:
    """Faults of the reference data in the bundle."""
    seen: dict[str, tuple[Scored, Truth]] = {}
    for i, phase in enumerate(phases):
        name = phase.reference
        inner = open_inner(archive, name)
        if name is None or inner is None or not inner.names:
            continue
        where = f"{phase.where}, {name}"
        if inner.holds(NOTICE_FILE):
            if i == 0:
                what = silent(f"{NOTICE_FILE} in it has every submission refused")
                yield error(where, what, "Name the truth of the first phase.")
            continue
        if not any(n.endswith(SOLUTION_FILE) for n in inner.names):
            what = silent(f"no {SOLUTION_FILE} is in it, so no submission is scored")
            yield error(where, what, _MEND)
            continue
        if name not in seen:
            truth, faults = _read(inner)
            yield from (error(where, line, _MEND) for line in faults)
            yield from _models_rule(where, truth)
            yield from _count_rule(where, phase, truth)
        else:
            truth = seen[name][1]
        yield from _same_rule(where, phase, truth, list(seen.values()))
        seen.setdefault(name, (phase, truth))


def _read(inner: Archive) -> tuple[Truth, list[str]]:
    """The solutions and faults, as the scoring program reads them."""
    with scratch(None, "mico-truth") as folder:
        for name in inner.names:
            if name.rpartition("/")[2] != SOLUTION_FILE:
                continue
            try:
                content = inner.read(name)
                path = folder / "ref" / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            except (OSError, ValueError) as fault:
                return {}, [f"It cannot be unpacked ({fault})."]
        return read_solutions(str(folder / "ref"))


def _models_rule(where: str, truth: Truth) -> Iterator[Fault]:
    """Faults unless all models have members and non-members, equally many points, and no gaps."""
    by_scenario: dict[str, dict[int, np.ndarray]] = {}
    for folder, labels in truth.items():
        by_scenario.setdefault(scenario_of(folder), {})[int(folder.rpartition("_")[2])] = labels
        if len(set(labels.tolist())) < 2:
            what = f"All labels of {folder} are the same: one model's truth is damaged."
            yield error(where, what, _MEND)
        elif 2 * int(labels.sum()) != labels.size:
            what = f"{folder} does not have as many members as non-members."
            yield warning(where, what, "Take what training wrote.")
    for scenario, models in by_scenario.items():
        if len({labels.size for labels in models.values()}) > 1:
            what = f"Models of {scenario} differ in their number of labels."
            yield error(where, what, "Take what training wrote.")
        lost = sorted(set(range(min(models), max(models) + 1)) - set(models))
        if lost:
            named = f"model_{lost[0]}" + (f" and {len(lost) - 1} more" if lost[1:] else "")
            what = f"Between the models of {scenario} the truth of {named} is missing."
            yield error(where, what, "Put it in.")
    ids = {scenario: set(models) for scenario, models in by_scenario.items()}
    every = set().union(*ids.values())
    for scenario, found in ids.items():
        if len(found) < max(map(len, ids.values())):
            what = (
                f"The truth of {scenario} has {len(found)} models, that of others more: "
                f"model_{min(every - found)} is missing."
            )
            yield error(where, what, "Put it in.")


def _count_rule(where: str, phase: Scored, truth: Truth) -> Iterator[Fault]:
    """A fault if the number of models differs from that in the descriptions of phase and task."""
    for stated in sorted(set(_STATED.findall(phase.texts))) if truth else ():
        if int(stated[0]) != len(truth):
            what = f"It holds the truth of {len(truth)} models; the description says {stated[0]}."
            yield error(where, what, "Add what is missing, or fix the description.")


def _same_rule(
    where: str, phase: Scored, truth: Truth, earlier: Sequence[tuple[Scored, Truth]]
) -> Iterator[Fault]:
    """A fault if a phase has the labels of an earlier one, about which scores revealed much."""
    for other, known in earlier:
        names = {phase_of(folder) for folder in truth} & {phase_of(folder) for folder in known}
        if names or _shared_scenarios(truth, known):
            what = f"{phase.where} is scored on the same truth as {other.where}"
            named = f", that of {min(names)}." if names else "."
            fix = "Put the placeholder of `mico bundle` in, and swap the truth when it opens."
            yield error(where, what + named, fix)


def _shared_scenarios(one: Truth, two: Truth) -> bool:
    """Whether a scenario has the same labels in both, under any names of models."""
    return bool(_labels(one) & _labels(two))


def _labels(truth: Truth) -> set[tuple[bytes, ...]]:
    found: dict[str, list[bytes]] = {}
    for folder, labels in truth.items():
        found.setdefault(scenario_of(folder), []).append(labels.tobytes())
    return {tuple(sorted(labels)) for labels in found.values()}
