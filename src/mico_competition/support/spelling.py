"""Suggests existing names for one that is misspelt."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(name: str, names: Iterable[str]) -> list[str]:
    """Up to three of `names` that the misspelt `name` may mean."""
    plain = name.strip().lower().replace("_", "-").replace(" ", "-")
    keys: dict[str, str] = {}
    for known in names:  # of two that differ only in case, keep the one in lower case
        key = known.lower().replace("_", "-")
        keys[key] = max(known, keys.get(key, known))
    if plain in keys:
        return [keys[plain]]
    turned = [known for known in keys if sorted(known) == sorted(plain)]  # letters out of order
    alike = turned or get_close_matches(plain, keys, n=3, cutoff=0.65)
    if not alike and len(plain) > 2:
        alike = [known for known in keys if plain in known or plain.startswith(known)][:3]
    return [keys[known] for known in alike]
