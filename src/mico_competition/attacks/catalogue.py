"""The list of the built-in attacks, for a notebook."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, overload

from mico_competition.attacks.registry import BLACK_BOX, QUERIES, TABLE, WHITE_BOX, Row
from mico_competition.support.tables import aligned, html_line, html_table

if TYPE_CHECKING:
    import pandas

_HEADS = ("name", "access", "shadows", "what it does", "source")
_NOTE = (
    "access: black box (outputs at the records), queries (outputs at changed records, too), white "
    "box (weights); shadows: the least number of shadow models that an attack needs; `evaluate` "
    "attacks each model with the others, and so needs one model more."
)


class AttackList(Sequence[Row]):
    """Attacks, each with its `name`, `title`, `source`, `access` and `least_shadows`.

    A notebook shows them as a table, `print` as text.
    """

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows = tuple(rows)

    @overload
    def __getitem__(self, index: int) -> Row: ...

    @overload
    def __getitem__(self, index: slice) -> AttackList: ...

    def __getitem__(self, index: int | slice) -> Row | AttackList:
        return AttackList(self._rows[index]) if isinstance(index, slice) else self._rows[index]

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def names(self) -> list[str]:
        """The names, as `evaluate` and `attack` take them, without other names for the same."""
        return [row.name for row in self._rows]

    def to_frame(self) -> pandas.DataFrame:
        """The table as a pandas frame, indexed by name; ImportError if pandas is not installed."""
        try:
            import pandas as pd
        except ImportError as error:
            raise ImportError("to_frame needs pandas: pip install pandas") from error
        cells = [_cells(row)[1:] for row in self._rows]
        index = pd.Index(self.names, name="name")
        return pd.DataFrame(cells, index=index, columns=list(_HEADS[1:]))

    def __str__(self) -> str:
        return "\n".join([*aligned([_HEADS, *map(_cells, self._rows)]), "", _NOTE])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return html_table(_HEADS, [_cells(row) for row in self._rows]) + html_line(
            _NOTE, small=True
        )


def list_attacks(access: str | None = None) -> AttackList:
    """The attacks that have a name, for `evaluate` and `attack`.

    Args:
        access: "black box", "queries" or "white box", to list the attacks that need no more than
            the outputs at the records, outputs at changed records, or the weights; by default all.

    Returns:
        A sequence of rows with `name`, `title`, `source`, `access` and `least_shadows`, the least
        number of shadow models with which `attack` runs; `evaluate` needs one model more.  Its
        `names` are strings; a notebook shows it as a table.

    Raises:
        ValueError: on another word.

    >>> "rmia" in list_attacks("black box").names, "rmia" in list_attacks("white box").names
    (True, False)
    >>> {row.name: row.least_shadows for row in list_attacks("black box")[::10]}
    {'threshold': 0, 'calibrate-loss-standardised': 2, 'lira-offline': 2, 'eb-confidence': 3}
    """
    kinds = (BLACK_BOX, QUERIES, WHITE_BOX)
    if access is not None and access not in kinds:
        raise ValueError(f"Expected access={access!r} to be one of {', '.join(map(repr, kinds))}.")
    return AttackList([row for row in TABLE if access in (None, row.access)])


def _cells(row: Row) -> tuple[str, ...]:
    name = f"{row.name} ({', '.join(row.aliases)})" if row.aliases else row.name
    return name, row.access, str(row.least_shadows or "none"), row.title, row.source
