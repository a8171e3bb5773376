"""The names that a competition's file may use, and names that all systems preserve.

Names of tasks, scenarios, challenges and disclosures become those of folders on all systems, and
are typed on command lines.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator

from mico_competition.competition.rows import (
    METADATA_FILE,
    OPENINGS_FILE,
    PHASE_NAMES,
    PREDICTION_FILE,
    SEED_FILES,
    SOLUTION_FILE,
)
from mico_competition.scoring.printable import is_plain

# Windows does not allow these characters and names, and gives long names short ones that end in
# "~1"; unzip drops the version that VMS appends to a name.
_NOT_EVERYWHERE = re.compile(
    r"[<>:\"|?*]|[. ]$|;[0-9]*$|^[^.]{1,6}~[0-9]+(\.[^.]{0,3})?$"
    r"|^(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9\u00b9\u00b2\u00b3]) *(\.|$)",
    re.IGNORECASE,
)
_LONGEST = 100  # bytes; systems allow 255, and longer names are derived from these
# Without a meaning for shells inside a word, except for the space, which needs quotes.
_SIGNS = " _-.,+=@"
_MODEL = re.compile(r"model_[0-9]+")
_FILES_OF_MODELS = {*SEED_FILES, SOLUTION_FILE, PREDICTION_FILE, METADATA_FILE}

# Files and folders that exist, or may exist, at the place of a folder with that name.
_TAKEN = {
    "challenge": {
        "fleet": "`mico fleet` keeps its ledger in a folder of that name",
        "readme.md": "a published release has a page of that name",
    },
    "scenario": {
        "status": "`mico fleet status` is a command",
        "merge": "`mico fleet merge` is a command",
        OPENINGS_FILE: "a file of that name is beside the scenarios",
    },
}


def is_portable(name: str) -> bool:
    """Whether all programs preserve a name: unzip drops invisible letters, bsdtar composes them."""
    composed = unicodedata.is_normalized("NFC", name)
    return composed and is_plain(name) and not _NOT_EVERYWHERE.search(name)


def as_others_see(name: str) -> str:
    """A name as seen by a system that ignores case or Unicode normal forms."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())


def name_fault(kind: str, name: str) -> str | None:
    """Why a task, scenario, challenge or disclosure cannot be called `name`, or None."""
    folded = as_others_see(name)
    if not is_plain(name) or not all(map(_is_usual, name)) or name[:1] in ("", *" .,+-=@"):
        signs = " ".join(_SIGNS.strip())
        return (
            f"it names folders and is typed in shells; use letters, digits, spaces and {signs}, "
            "and begin with a letter or a digit"
        )
    if not unicodedata.is_normalized("NFC", name):
        return "some systems store it in another form; write its accented letters as one (NFC)"
    if (length := len(name.encode())) > _LONGEST:
        return f"it takes {length} bytes, and folders are named after it; use at most {_LONGEST}"
    if not is_portable(name):
        return "Windows refuses or changes a folder of that name"
    if reason := _TAKEN.get(kind, {}).get(folded):
        return reason
    if kind in _TAKEN and (folded in PHASE_NAMES or _MODEL.fullmatch(folded)):
        return "folders of phases and models have such names"
    if kind == "challenge" and folded.endswith((".release", ".predictions")):
        return "folders of such names are beside a challenge's"
    return None


def file_fault(name: str) -> str | None:
    """Why a file of weights, or one beside them, cannot be called `name`, or None."""
    folded = as_others_see(name)
    if folded in _FILES_OF_MODELS:
        return "a model's folder has another file of that name"
    if folded in PHASE_NAMES or _MODEL.fullmatch(folded):
        return "folders of phases and models have such names"
    if not is_portable(name) or len(name.encode()) > _LONGEST:
        return "some systems refuse or change it"
    return None


def twins(names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Pairs of names, in their order, that some systems do not distinguish."""
    first: dict[str, str] = {}
    for name in names:
        other = first.setdefault(as_others_see(name), name)
        if other != name:
            yield other, name


def _is_usual(char: str) -> bool:
    """Whether a character is a letter of any script, a mark on one, a digit, or a sign."""
    return char in _SIGNS or unicodedata.category(char)[0] in "LMN"
