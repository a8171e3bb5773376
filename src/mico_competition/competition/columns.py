"""The columns of each kind of row in a competition's file, and their allowed values.

A column has its name in the file, the field of the row that it fills, and a function that returns
the field's value or raises ValueError with the expected form.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from mico_competition.competition.names import file_fault
from mico_competition.competition.rows import (
    LOADERS,
    MOST_EPSILON,
    OPTIMIZERS,
    PRECISIONS,
    SEED_FILES,
    SOLUTION_FILE,
)
from mico_competition.support.spelling import nearest

Read = Callable[[Any], Any]

_DOTTED = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")
_NAME = re.compile(r"\w+")
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
_FILE = re.compile(r"[\w-][\w.-]*(\|[\w-][\w.-]*)*")
_WORD = r"[\w!#$%&'*+/=?^`{|}~-]+"
_EMAIL = re.compile(
    rf"{_WORD}(\.{_WORD})*@([a-z0-9]([a-z0-9-]*[a-z0-9])?\.)+[a-z]{{2,}}", re.A | re.I
)
_ADDRESS = re.compile(r"https?://[^\s<>()\[\]{}\"'`|\\$]+")
_IMAGE = re.compile(
    r"[a-z0-9]([a-z0-9._/-]|:[0-9]+/)*(:\w[\w.-]*)?(@sha256:[0-9a-f]{64})?", re.ASCII
)
_PAGE = re.compile(r"[\w-][\w. -]*\.(md|html)")
_LONGEST = 10**9
_LAST_MODEL = 10**9 - 1  # the scoring program reads ids of at most nine digits
# Characters that Codabench stores of an address or a reward, and of the name of an image.
_MOST_LETTERS, _LONGEST_IMAGE = 256, 128
# The steps that the scoring program accepts.
_SMALLEST_STEP, _LARGEST_STEP = 1e-6, 0.1


@dataclass(frozen=True)
class Column:
    """A column: its field of the row, the function that reads its value, whether it is optional."""

    field: str
    read: Read
    required: bool = True


def _expected(what: str, value: Any) -> ValueError:
    return ValueError(f"expected {what}, got {_shown(value)}")


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number of thousands of digits, lists in lists
        return "a value that is too long to show"
    return text if len(text) <= 60 else f"{text[:57]}..."


def text(value: Any) -> str:
    """A text of one line."""
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise _expected("a text", value)
    return value


def short_text(most: int) -> Read:
    """Reads a text of one line of at most so many characters, as platforms allow."""

    def read(value: Any) -> str:
        if len(text(value)) > most:
            raise ValueError(f"expected at most {most} characters, got {len(value)}")
        return str(value)

    return read


def texts(value: Any) -> tuple[str, ...]:
    """A list of texts."""
    if not isinstance(value, list) or not value:
        raise _expected("a list of texts", value)
    return tuple(text(part) for part in value)


def files(value: Any) -> tuple[str, ...]:
    """Names of files in a model's folder; alternatives are separated by "|"."""
    names = texts(value)
    for name in names:
        if not _FILE.fullmatch(name):
            raise _expected('names of files such as "model.pt"', name)
        for alternative in name.split("|"):
            if reason := file_fault(alternative):
                raise ValueError(f"no file can be called {_shown(alternative)}: {reason}")
    return names


def whole(least: int) -> Read:
    """Reads a whole number of at least `least`."""

    def read(value: Any) -> int:
        if type(value) is not int or not least <= value <= _LONGEST:
            raise _expected(f"a whole number >= {least}", value)
        return value

    return read


def number(holds: Callable[[float], bool], what: str) -> Read:
    """Reads a number for which `holds` is true."""

    def read(value: Any) -> float:
        try:
            found = float(value) if type(value) in (int, float) else math.nan
        except OverflowError:
            found = math.nan
        if math.isnan(found) or not holds(found):
            raise _expected(f"a number {what}", value)
        return found

    return read


def choice(known: Mapping[str, Any]) -> Read:
    """Reads a name in `known`; returns its value."""

    def read(value: Any) -> Any:
        if not isinstance(value, str) or value not in known:
            raise _unknown(value, known)
        return known[value]

    return read


def _unknown(value: Any, known: Iterable[str], other: str = "") -> ValueError:
    near = nearest(value, known) if isinstance(value, str) else []
    fix = f"did you mean {' or '.join(near)}?" if near else f"choose {', '.join(known)}{other}"
    return ValueError(f"unknown name {_shown(value)}: {fix}")


def code(value: Any) -> str:
    """A dotted path into the organiser's code, or a name in a registry of the package."""
    if not isinstance(value, str) or not (_DOTTED.fullmatch(value) or _NAME.fullmatch(value)):
        raise _expected('"MODULE:FUNCTION" (code beside the file) or a name of the package', value)
    return value


def known_code(name: str, known: Iterable[str]) -> str:
    """The `name` that `code` gave; ValueError if it is neither dotted nor one of `known`."""
    if ":" not in name and name not in known:
        raise _unknown(name, known, ', or name code beside the file as "MODULE:FUNCTION"')
    return name


def disclosed(allowed: tuple[str, ...], missing: str = "") -> Read:
    """Reads a list of files to disclose; `missing` explains why the other files stay withheld."""

    def read(value: Any) -> tuple[str, ...]:
        names = texts(value) if value != [] else ()
        for name in names:
            if name not in allowed:
                reason = f" ({missing})" if missing and name in (*SEED_FILES, SOLUTION_FILE) else ""
                raise _expected(f"files among {', '.join(allowed)}{reason}", name)
        return tuple(name for name in allowed if name in names)

    return read


def id_range(value: Any) -> tuple[int, int]:
    """The first and the last model of a phase."""
    read = whole(0)
    try:
        first, last = (read(part) for part in value)
    except (TypeError, ValueError):
        raise _expected("models = [FIRST, LAST], two whole numbers >= 0", value) from None
    if not first <= last <= _LAST_MODEL:
        raise _expected(f"models = [FIRST, LAST] with FIRST <= LAST <= {_LAST_MODEL}", value)
    return first, last


def repository(value: Any) -> str:
    """A dataset repository of the Hugging Face Hub."""
    if not isinstance(value, str) or not _REPOSITORY.fullmatch(value):
        raise _expected('"OWNER/NAME", a dataset repository of the Hugging Face Hub', value)
    return value


def _is_form(value: Any, most: int, form: re.Pattern[str]) -> bool:
    """Whether a value is a text of at most so many characters and of a form."""
    return isinstance(value, str) and len(value) <= most and bool(form.fullmatch(value))


def email(value: Any) -> str:
    """An e-mail address, as Codabench accepts one."""
    if not _is_form(value, _MOST_LETTERS, _EMAIL):
        raise _expected('an e-mail address such as "name@example.org"', value)
    return str(value)


def address(value: Any) -> str:
    """An address of the web."""
    if not isinstance(value, str) or not _ADDRESS.fullmatch(value):
        form = "an address that begins with https:// or http:// and holds no space, bracket or"
        raise _expected(f"{form} quote", value)
    return value


def image(value: Any) -> str:
    """The name of a docker image."""
    if not _is_form(value, _LONGEST_IMAGE, _IMAGE):
        raise _expected('a docker image such as "codalab/codalab-legacy:py312"', value)
    return str(value)


def page(value: Any) -> str:
    """The name of a page beside the competition's file, in Markdown or HTML."""
    if not isinstance(value, str) or not _PAGE.fullmatch(value):
        raise _expected('the name of a file beside this one such as "terms.md" (or .html)', value)
    return value


_POSITIVE = number(lambda x: 0 < x < math.inf, "> 0 and finite")
_EPSILON = number(
    lambda x: 0 < x <= MOST_EPSILON or x == math.inf,
    f"> 0 and at most {MOST_EPSILON:g}, above which the accountant overflows, or inf (without "
    "quotes) for none",
)

TASK: Mapping[str, Column] = {
    "title": Column("title", text),
    "loader": Column("loader", lambda value: known_code(code(value), LOADERS)),
    "model": Column("architecture", code),
    "records": Column("len_dataset", whole(1)),
    "training": Column("len_training", whole(1)),
    "challenge": Column("len_challenge", whole(1)),
    "classes": Column("num_classes", whole(2)),
    "class_names": Column("class_names", texts, required=False),
    "weights": Column("weights", files, required=False),
    "companions": Column("companions", files, required=False),
    "max_length": Column("max_length", whole(1), required=False),
    "base_model": Column("base_model", text, required=False),
}

SCENARIO: Mapping[str, Column] = {
    "title": Column("title", text, required=False),
    "task": Column("task", text),
    "challenge": Column("challenge", text, required=False),
    "target_epsilon": Column("target_epsilon", _EPSILON),
    "target_delta": Column("target_delta", number(lambda x: 0 < x < 1, "in (0, 1)")),
    "max_grad_norm": Column("max_grad_norm", _POSITIVE, required=False),
    "optimizer": Column("optimizer", choice({name: name for name in OPTIMIZERS})),
    "learning_rate": Column("learning_rate", _POSITIVE),
    "batch_size": Column("batch_size", whole(1)),
    "num_epochs": Column("num_epochs", whole(1)),
    "lr_scheduler_gamma": Column("lr_scheduler_gamma", _POSITIVE, required=False),
    "lr_scheduler_step": Column("lr_scheduler_step", whole(1), required=False),
    "precision": Column("precision", choice({name: name for name in PRECISIONS}), required=False),
    "disclosure": Column("disclosure", text, required=False),
}

PHASE: Mapping[str, Column] = {
    "models": Column("models", id_range),
    "step": Column(
        "step",
        number(
            lambda x: x == 0 or _SMALLEST_STEP <= x <= _LARGEST_STEP,
            f"from {_SMALLEST_STEP:g} to {_LARGEST_STEP:g}, or 0 for exact scores",
        ),
        required=False,
    ),
}

_HIDDEN = "the others reveal the members"
_EITHER = ("seed_challenge", "seed_training")
DISCLOSURE: Mapping[str, Column] = {
    "train": Column("train", disclosed((*SEED_FILES, SOLUTION_FILE))),
    "dev": Column("dev", disclosed(_EITHER, _HIDDEN)),
    "final": Column("final", disclosed(_EITHER, _HIDDEN)),
}

CHALLENGE: Mapping[str, Column] = {
    "published": Column("published", repository, required=False),
    "title": Column("title", short_text(100), required=False),
    "contact_email": Column("contact_email", email, required=False),
    "reward": Column("reward", short_text(_MOST_LETTERS), required=False),
    "repository": Column("repository", address, required=False),
    "terms": Column("terms", page, required=False),
    "docker_image": Column("docker_image", image, required=False),
    "max_submissions_per_day": Column("max_submissions_per_day", whole(1), required=False),
    "max_submissions": Column("max_submissions", whole(1), required=False),
    "execution_time_limit": Column("execution_time_limit", whole(1), required=False),
}

KINDS: Mapping[str, Mapping[str, Column]] = {
    "task": TASK,
    "scenario": SCENARIO,
    "phase": PHASE,
    "disclosure": DISCLOSURE,
    "challenge": CHALLENGE,
}

# Tables inside the rows of a kind.
INNER: Mapping[str, tuple[str, ...]] = {"challenge": ("phase",)}
