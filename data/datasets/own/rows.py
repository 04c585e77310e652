"""A table as its readers give it: columns, and rows with the place where each stands."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Row(NamedTuple):
    """A row.

    Attributes:
        place: the file and the line, or the number of the row, counted from 1.
        values: by column.
        fault: why it is no row of the table, "" if it is one.
    """

    place: str
    values: dict[str, Any]
    fault: str = ""


@dataclass(frozen=True)
class Table:
    """A file of rows.

    Attributes:
        name: of the file, for what is said of it.
        columns: in their order.
        read: gives the rows, of some columns at least.
        embedded: columns that hold the media themselves.
        split: that the file is of, "" if it does not say.
    """

    name: str
    columns: list[str]
    read: Callable[[list[str]], Iterable[Row]]
    embedded: frozenset[str] = field(default=frozenset())
    split: str = ""


def of_dicts(name: str, rows: list[Row], split: str = "") -> Table:
    """The table of rows that are held; its columns are those of any of them."""
    columns: dict[str, None] = {}
    for row in rows:
        columns.update(dict.fromkeys(row.values))

    def read(wanted: list[str]) -> Iterator[Row]:
        del wanted
        yield from rows

    return Table(name, list(columns), read, split=split)
