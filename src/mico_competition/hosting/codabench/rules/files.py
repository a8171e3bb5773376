"""Rules on the files that a bundle names: picture, pages, programs, data."""

from __future__ import annotations

import re
import shlex
import uuid
from collections.abc import Iterator
from typing import Any

from mico_competition.competition.table import SCORED_PHASES, SOLUTION_FILE
from mico_competition.hosting.codabench.bounded_yaml import load_yaml
from mico_competition.hosting.codabench.files import MAX_TEXT, Archive
from mico_competition.hosting.codabench.rules.fault import (
    Fault,
    error,
    log,
    says,
    shown,
    silent,
    warning,
)

_IMAGES = re.compile(rb"\x89PNG\r\n\x1a\n|\xff\xd8\xff|GIF8[79]a|RIFF....WEBP", re.DOTALL)
_PNG = b"\x89PNG\r\n\x1a\n"
_MAX_IMAGE = 20 << 20
_MAX_PIXELS = 2 * 89_478_485  # Pillow, which the platforms use, takes more for an attack
_LARGE = 300 << 20
_SHELL = {"&&", "||", "|", ";", ">", ">>", "<", "2>", "2>&1", "&"}
_TRUTH = re.compile(rf"(?:^|/)({'|'.join(SCORED_PHASES)})/model_\d+/{re.escape(SOLUTION_FILE)}$")


def image_rule(where: str, archive: Archive, name: Any) -> Iterator[Fault]:
    """The competition's picture."""
    fix = "Name a PNG, JPEG, GIF or WebP file that is in the bundle."
    if not isinstance(name, str) or not name:
        words = "An image for this competition could not be found in the yaml"
        yield error(where, says(words) + ".", fix)
    elif not archive.holds(name):
        yield error(where, says(f"Unable to find image: {name}") + ".", fix)
    elif not _is_image(archive, name):
        words = "logo: Please upload a valid image."
        yield error(where, f"{says(words)}, whatever the file is called.", fix)


def _is_image(archive: Archive, name: str) -> bool:
    """Whether the file begins like a picture, and is not larger than the platforms allow."""
    try:
        content = archive.read(name, _MAX_IMAGE)
    except ValueError:
        return False
    if content.startswith(_PNG):
        width, height = (int.from_bytes(content[at : at + 4], "big") for at in (16, 20))
        return 0 < width * height <= _MAX_PIXELS
    return bool(_IMAGES.match(content))


def page_rule(
    where: str, archive: Archive, name: Any, absent: str = "Unable to find page: {}"
) -> Iterator[Fault]:
    """A page, or the terms: a file of text that is not empty; `absent` are the words if not."""
    if not isinstance(name, str):
        yield error(where, f"{shown(name)} is not the name of a file.", "Name a Markdown file.")
        return
    if not archive.holds(name):
        yield error(where, says(absent.format(name)) + ".", "Name a file of the bundle.")
        return
    try:
        text = archive.read(name, MAX_TEXT).decode("utf-8")
    except UnicodeDecodeError as fault:
        words = f"'utf-8' codec can't decode byte 0x{fault.object[fault.start]:02x}"
        yield error(where, f"{log(words)}: {name} is not UTF-8.", "Save it as UTF-8.")
    except ValueError as fault:
        yield error(where, str(fault), "Shorten the page, or zip the bundle again.")
    else:
        if not text:
            words = f"Page '{name}' is empty, it must contain content."
            yield error(where, says(words) + ".", "Write something into it.")
        elif not text.strip():
            yield warning(
                where, f"{name} is empty except for white space.", "Write something into it."
            )


def data_rule(where: str, archive: Archive, name: Any) -> Iterator[Fault]:
    """A program or data: a zip in the bundle, or the key of data on the platform."""
    if not isinstance(name, str) or not name:
        yield error(where, f"{shown(name)} is not the name of a file.", "Name a zip of the bundle.")
    elif archive.is_folder(name):
        what = silent("zips the folder, and without a / at its end leaves that zip lying about")
        yield warning(where, what, "Put a zip in its place.")
    elif archive.holds(name):
        yield from _zip_rule(where, archive, name)
    elif not is_key(name):
        words = f'Cannot find dataset: "{name}"'
        yield error(where, says(words) + ".", "Name a zip that is in the bundle.")


def _zip_rule(where: str, archive: Archive, name: str) -> Iterator[Fault]:
    size = archive.size(name)
    if size > _LARGE:
        what = f"{name} takes {size >> 20} MB; uploads of such size have often failed."
        yield warning(where, what, "Upload it separately under Resources, and name its key.")
        return
    try:
        inner = archive.inner(name)
    except ValueError as fault:
        what = f"{silent('every submission then fails')} {fault}"
        yield error(where, what, "Zip it again.")
        return
    if not inner.names:
        yield warning(where, f"{name} is an empty zip.", "Put the files in.")


def is_key(name: str) -> bool:
    """Whether a text is the key of something on the platform, a UUID."""
    try:
        uuid.UUID(name)
    except ValueError:
        return False
    return True


def open_inner(archive: Archive, name: Any) -> Archive | None:
    """A zip that the bundle names, or None if it cannot be read."""
    if not isinstance(name, str) or not archive.holds(name):
        return None
    try:
        return archive.inner(name)
    except ValueError:
        return None


def reference_rule(where: str, archive: Archive, name: Any) -> Iterator[Fault]:
    """The truth; that of the last phase does not belong into a bundle (our own rule)."""
    inner = open_inner(archive, name)
    last = SCORED_PHASES[-1]
    if inner and any((match := _TRUTH.search(n)) and match[1] == last for n in inner.names):
        yield warning(
            where,
            f"{name} holds the solutions of phase {last}. No platform can hide them for as long as "
            "an earlier phase runs, and on sites up to v1.25 anybody could fetch them.",
            "Ship the placeholder of `mico bundle`, and swap the truth in when the phase opens.",
        )


def public_rule(where: str, archive: Archive, name: Any) -> Iterator[Fault]:
    """What participants can fetch, in which the truth of a scored phase has no place."""
    inner = open_inner(archive, name)
    if inner and any(_TRUTH.search(n) for n in inner.names):
        what = f"{name} is given to participants and holds solutions of a scored phase."
        yield error(where, what, "Take what `mico release` wrote.")


def program_rule(
    where: str, archive: Archive, name: Any, *, file: str | None = None
) -> Iterator[Fault]:
    """A scoring program: at its root `file`, with a command that needs no shell.

    The file is metadata.yaml if it exists, and otherwise `metadata`.
    """
    import yaml

    program = open_inner(archive, name)
    if program is None:
        return
    file = file or ("metadata.yaml" if program.holds("metadata.yaml") else "metadata")
    place = f"{where}, {name}"
    if not program.holds(file):
        deeper = [n for n in program.names if n.endswith(("/metadata", "/metadata.yaml"))]
        found = f", only {deeper[0]}" if deeper else ""
        words = "Could not find scores file, did the scoring program output it?"
        what = f"There is no {file} at its root{found}, so nothing is run. For every submission "
        yield error(place, f"{what}t{says(words)[1:]}.", "Zip the files, not their folder.")
        return
    try:
        metadata = load_yaml(program.read(file))
    except (yaml.YAMLError, ValueError, RecursionError):
        metadata = None
    command = metadata.get("command") if isinstance(metadata, dict) else None
    place = f"{place}: {file}"
    fix = "Write `command: python3 $program/score.py $input $output`."
    if not command:
        yield error(place, "It has no `command`, so nothing is run and every score is lost.", fix)
    elif not isinstance(command, str):
        yield error(place, "Its `command` is not a text; Codabench cannot run a list.", fix)
    else:
        yield from _command_rule(place, program, command, fix)


def _command_rule(where: str, program: Archive, command: str, fix: str) -> Iterator[Fault]:
    """A command is split like a shell's and then run without one."""
    try:
        words = shlex.split(command)
    except ValueError as fault:
        yield error(where, f"`{command}` cannot be split into words ({fault}).", fix)
        return
    operators = [word for word in words if word in _SHELL or word.endswith(";")]
    if operators:
        what = f"No shell runs `{command}`: {operators[0]} becomes an argument."
        yield error(where, what, "Write one command, or sh -c '...'.")
    if words[0].startswith(("./", "$program/")) or words[0].endswith(".sh"):
        what = f'{words[0]} is not executable: zips lose modes, and it ends in "Permission denied".'
        yield error(where, what, "Call an interpreter: python3, or sh.")
    for word in words:
        if word.startswith("$program/") and not program.holds(word.removeprefix("$program/")):
            what = f"The command names {word}, which is not in the zip."
            yield error(where, what, "Add the file, or fix the command.")
