"""Reads events.jsonl, the log of what happened to a fleet and when."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mico_competition.support.untrusted import parse_json

EVENTS_FILE = "events.jsonl"
RENEWED = "renewed"  # a model was given new seeds: it is not done any more


def read_events(folder: Path) -> list[dict[str, Any]]:
    """All events of the fleet in `folder`; lines that are torn or not events are left out."""
    path = folder / EVENTS_FILE
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return [event for event in map(parsed, lines) if _is_event(event)]


def last_run(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The events since the last run began."""
    starts = [number for number, event in enumerate(events) if event["event"] == "run"]
    return events[starts[-1] :] if starts else events


def parsed(text: str) -> dict[str, Any]:
    """A JSON object; an empty one for anything else."""
    try:
        value = parse_json(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def is_number(value: Any) -> bool:
    """Whether `value` is a number, and not absurdly large."""
    return type(value) in (int, float) and abs(value) < 1e15


def _is_event(event: dict[str, Any]) -> bool:
    of_model = event.get("event") in ("done", "failed", RENEWED)
    return (
        isinstance(event.get("event"), str)
        and is_number(event.get("time"))
        and (not of_model or type(event.get("model_id")) is int)
    )
