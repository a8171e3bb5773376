"""Searches small files and names for the secrets of all models, a few models at a time."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence

from mico_competition.competition.layout import ModelFolder
from mico_competition.release.leak_check.byte_search import ByteSearch
from mico_competition.release.leak_check.patterns import Patterns, Secret, secrets_of
from mico_competition.release.leak_check.views import numbers_in, views
from mico_competition.support.progress import stage

_AT_ONCE = 64  # models whose patterns are in memory together


def search_texts(
    texts: Collection[bytes],
    models: Sequence[ModelFolder],
    others: ByteSearch[Secret],
) -> dict[bytes, set[Secret]]:
    """Find the secrets in each text, plain or encoded.

    Args:
        texts: the contents of small files, and names.
        models: trained models whose lists of labels and records are secret.
        others: a search for all other secrets.
    """
    decoded = {text: list(views(text)) for text in texts}
    digits = {text: [numbers_in(view) for view in seen] for text, seen in decoded.items()}
    result: dict[bytes, set[Secret]] = {text: set() for text in texts}

    def search(plain: ByteSearch[Secret], where: dict[bytes, list[bytes]]) -> None:
        for text, seen in where.items():
            result[text].update(secret for view in seen for secret in plain.find(view))

    search(others, decoded)
    with stage("Leak check: search", len(models), "model") as shown:
        for start in range(0, len(models), _AT_ONCE):
            lists: Patterns = {}
            numbers: Patterns = {}
            for model in models[start : start + _AT_ONCE]:
                secrets = secrets_of(model)
                lists.update(secrets.lists)
                numbers.update(secrets.numbers)
                shown.update()
            search(ByteSearch(lists), decoded)
            search(ByteSearch(numbers), digits)
    return result


def secret_faults(name: str, secrets: Iterable[Secret]) -> Iterator[tuple[str, str]]:
    """A fault for each kind of secret that a file reveals."""
    models: dict[str, set[str]] = {}
    for secret in secrets:
        models.setdefault(secret.what, set()).add(secret.of)
    for what, paths in sorted(models.items()):
        of = f" of {min(paths)}" if min(paths) else ""
        more = f" and of {len(paths) - 1} other models" if len(paths) > 1 else ""
        yield name, f"tells {what}{of}{more}"
