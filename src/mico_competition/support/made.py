"""When and with what results were made, for files and pages that outlive the session."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

_PACKAGES = ("mico_competition", "numpy", "scipy", "torch", "scikit-learn")


def facts() -> dict[str, Any]:
    """The date (UTC), and the versions of Python and of the packages that results depend on."""
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {"date": datetime.now(UTC).isoformat(timespec="seconds"), "versions": versions}


def made_line(about: Mapping[str, Any] | None = None, *, what: str = "") -> str:
    """The date and the versions in a line; a seed and resamples, if they are known.

    Args:
        about: as `facts` gives it, with "seed" and "resamples" where there are any; by default now.
        what: was made, such as "purchase100, phase train".

    >>> made_line({"date": "2026-01-31T12:00:00+00:00", "versions": {"numpy": "2.4.0"}, "seed": 0})
    'Made on 2026-01-31 with numpy 2.4.0; seed 0.'
    """
    known = facts() if about is None else about
    with_what = ", ".join(f"{name} {number}" for name, number in known["versions"].items())
    more = [f"seed {known['seed']}"] if "seed" in known else []
    more += [f"{known['resamples']:,} resamples"] if "resamples" in known else []
    begin = f"{what}. Made" if what else "Made"
    tail = f"; {', '.join(more)}" if more else ""
    return f"{begin} on {known['date'][:10]} with {with_what}{tail}."
