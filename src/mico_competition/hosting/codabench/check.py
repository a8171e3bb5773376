"""`mico bundle --check`: every fault of a bundle at once, before a platform finds the first.

The platforms report one fault at a time, some as a bare Python error, and accept others without a
message. This check reads the bundle as they do, and runs nothing in it. The rules are in `rules`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mico_competition.hosting.codabench.bounded_yaml import load_yaml
from mico_competition.hosting.codabench.files import MAX_TEXT, Archive
from mico_competition.hosting.codabench.options import CODABENCH, CODALAB, PLATFORMS
from mico_competition.hosting.codabench.rules.fault import (
    ERROR,
    Fault,
    error,
    log,
    says,
    shown,
    silent,
    warning,
)
from mico_competition.hosting.codabench.rules.leaks import leaks_rule
from mico_competition.hosting.codabench.rules.scenarios import scenarios_rule
from mico_competition.hosting.codabench.rules.scored import scored_phases
from mico_competition.hosting.codabench.rules.truth import truth_rule
from mico_competition.hosting.codabench.rules.version2 import version2_rules
from mico_competition.hosting.codabench.rules.version15 import version15_rules
from mico_competition.hosting.codabench.yaml_form import YAML_FILE
from mico_competition.support.files import PathLike

__all__ = ["Fault", "check_bundle", "has_errors", "platform_of", "read_yaml"]


_IGNORED = silent(
    "takes CodaLab's form but ignores much of it: no submission enters the leaderboard "
    "automatically, and each phase ends a day before the next one starts"
)


def check_bundle(path: PathLike, platform: str | None = None) -> list[Fault]:
    """All faults of a bundle, in the order of its parts.

    Args:
        path: the bundle's zip.
        platform: "codabench" or "codalab"; by default the platform of the bundle's form. The rules
            are those of its form.

    Raises:
        ValueError: if there is no such file, or `platform` is neither.
    """
    if platform is not None and platform not in PLATFORMS:
        raise ValueError(f"Expected platform as one of {', '.join(PLATFORMS)}, got {platform!r}.")
    try:
        archive = Archive(path)
    except ValueError as fault:
        if str(fault).startswith("There is no file"):
            raise
        return [error(str(path), f"{says('Bad zip file uploaded.')} {fault}", "Zip it again.")]
    with archive:
        spec, faults = read_yaml(archive)
        if spec is None:
            return faults
        version = str(spec.get("version", "1"))
        platform = platform or platform_of(spec)
        if version == "2" and platform == CODABENCH:
            return [*version2_rules(spec, archive), *_own_rules(spec, archive, platform)]
        if version not in ("1", "1.5", "2"):
            words = "A suitable version could not be found for this competition."
            what = f"{says(words)} It is {shown(spec['version'])}."
            return [error("version", what, "Write `version: 2`.")]
        if platform == CODABENCH:
            faults = [warning("version", _IGNORED, "Write the bundle with --platform codabench.")]
        return [
            *faults,
            *version15_rules(spec, archive),
            *_own_rules(spec, archive, platform),
        ]


def _own_rules(spec: Mapping[str, Any], archive: Archive, platform: str) -> Iterator[Fault]:
    """Checks that no platform makes: of the solutions, and of what could reveal them."""
    phases = scored_phases(spec)
    yield from scenarios_rule(spec, archive)
    yield from truth_rule(phases, archive)
    yield from leaks_rule(spec, phases, archive, platform)


def has_errors(faults: Sequence[Fault]) -> bool:
    """Whether one of the faults stops the competition."""
    return any(fault.severity == ERROR for fault in faults)


def platform_of(spec: Mapping[str, Any]) -> str:
    """The platform that a competition.yaml is written for."""
    return CODALAB if str(spec.get("version", "1")) in ("1", "1.5") else CODABENCH


def read_yaml(archive: Archive) -> tuple[dict[Any, Any] | None, list[Fault]]:
    """competition.yaml as the platform loads it, or None and the faults."""
    import yaml

    if not archive.holds(YAML_FILE):
        words = (
            f"{YAML_FILE} is missing from zip, check your folder structure to make sure it is in "
            "the root directory."
        )
        deeper = [name for name in archive.names if name.endswith(f"/{YAML_FILE}")]
        found = f" It is at {deeper[0]}." if deeper else ""
        fix = "Zip the files of the bundle, not the folder that they are in."
        return None, [error(YAML_FILE, says(words) + found, fix)]
    fix = "Correct it: a YAML file is a mapping of keys to values, in UTF-8."
    try:
        text = archive.read(YAML_FILE, MAX_TEXT).decode("utf-8-sig")
        spec = load_yaml(text)
    except (ValueError, yaml.YAMLError, RecursionError) as fault:
        words = " ".join(str(fault).split())[:200] or type(fault).__name__
        return None, [error(YAML_FILE, log(words) + ".", fix)]
    if not isinstance(spec, dict):
        words = f"'{type(spec).__name__}' object has no attribute 'get'"
        return None, [error(YAML_FILE, log(words) + ".", fix)]
    return spec, []
