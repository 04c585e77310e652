"""Tables of annotations: CSV with a header line, and columns between tabs without one."""

import csv
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data.datasets.texts import lines
from data.datasets.values import Odd, OddItem, Rows
from mplug2_jax.contracts.errors import DataError

# Lines that a row of a CSV file may go over: a quote that nobody closed costs its line, not the
# rest of the file.
_ROW_LINES = 200
_URL = re.compile(r"(?:https?|ftp|s3|gs)://", re.IGNORECASE)
_QUOTED = re.compile(r'"(?:[^"]|"")*"')
# What columns of captions and of their addresses are called.
COLUMNS = (("caption", "captions", "text", "title", "description", "alt_text"),
           ("url", "urls", "image_url", "img_url", "contenturl", "link"))  # fmt: skip


def read_table(path: Path, columns: tuple[str, ...], delimiter: str = ",",
               odd: Odd | None = None) -> Rows:  # fmt: skip
    """The rows of a CSV or TSV file with a header line, as dicts.

    Names of columns are found whatever their capitals and blanks at their ends. A comma's file may
    turn out to have tabs or semicolons. A row that lacks some of the columns is odd, and so is one
    with cells after them.

    Raises:
        DataError: the header lacks one of the columns.
    """
    head = next((line for line in lines(path) if line.strip()), "")
    if delimiter == "," and delimiter not in head:
        delimiter = next((mark for mark in "\t;" if mark in head), delimiter)
    found = _csv_rows(path, delimiter)
    _, header = next(found, ("", []))
    if isinstance(header, OddItem):
        raise header
    names = [name.strip() for name in header]
    lower = {name.lower(): place for place, name in reversed(list(enumerate(names)))}
    places = {name: names.index(name) if name in names else lower.get(name.lower())
              for name in columns}  # fmt: skip
    missing = [name for name, place in places.items() if place is None]
    if missing:
        raise DataError(f"{path} has no column {', '.join(missing)}: its first line must name "
                        f"{', '.join(columns)}")
    width = max((place for place in places.values() if place is not None), default=-1) + 1
    keys = names.copy()
    for name, place in places.items():
        keys[place] = name

    def rows() -> Iterator[tuple[str, Any]]:
        for place, row in found:
            if isinstance(row, OddItem):
                yield place, row
            elif len(row) < width:
                yield place, OddItem(path, "has fewer columns than the first line")
            elif any(cell.strip() for cell in row[len(keys):]):
                yield place, OddItem(path, f"has {len(row)} cells, the first line {len(keys)}")
            elif any(cell.strip() for cell in row):
                yield place, dict(zip(keys, row, strict=False))

    return Rows(path, rows(), odd)


class _Unclosed(Exception):
    """A quote is open over too many lines, or to the end."""


class _Source:
    """Lines of a CSV file for `csv.reader`, row by row, to go back to where a row began."""

    def __init__(self, path: Path):
        self.number = 0  # of lines taken, from 1 on
        self.row: list[str] = []  # the lines of this row so far
        self._rest, self._again = lines(path), []  # type: tuple[Iterator[str], list[str]]

    def __iter__(self) -> "_Source":
        return self

    def __next__(self) -> str:
        line = self._again.pop() if self._again else next(self._rest, None)
        if line is None and not self.row:
            raise StopIteration
        if line is None or len(self.row) >= _ROW_LINES:
            self._again += [line] if line else []
            raise _Unclosed
        self.number += 1
        # `csv` takes a "\r" for the end of a row wherever it stands.
        self.row.append(re.sub(r"\r(?!\n)", " ", line))
        return self.row[-1]

    def back(self) -> None:
        """All lines of this row but its first one are to be read again."""
        self._again += reversed(self.row[1:])
        self.number -= len(self.row) - 1
        self.row = self.row[:1]


def _csv_rows(path: Path, delimiter: str) -> Iterator[tuple[str, Any]]:
    """(place, cells) of each row that is not empty."""
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    source, width = _Source(path), 0
    reader = csv.reader(source, delimiter=delimiter, strict=True)
    while True:
        source.row = []
        try:
            row = next(reader, None)
        except (_Unclosed, csv.Error) as error:
            alone = len(source.row) == 1 and not isinstance(error, _Unclosed)
            source.back()
            reader = csv.reader(source, delimiter=delimiter, strict=True)
            # A quote that means nothing: `"a" cat`, or at the beginning of a cell.
            row = (next(csv.reader(source.row, delimiter=delimiter)) if alone
                   else source.row[0].rstrip("\r\n").split(delimiter))
            if len(row) != width:
                why = "its quote is never closed" if isinstance(error, _Unclosed) else error
                yield f"line {source.number}", OddItem(path, f"is no row: {why}")
                continue
        if row is None:
            return
        width = width or len(row)
        if row:
            yield f"line {source.number - max(len(source.row), 1) + 1}", row


def read_rows(path: Path, width: int, odd: Odd | None = None, quoted: bool = False) -> Rows:
    """The rows of a tab-separated file without header, each of at least `width` columns.

    Others are odd.

    Args:
        path: of the file.
        width: columns.
        odd: see `Rows`.
        quoted: whether cells may be quoted, as pandas does with those that have quotes in them.
    """
    return Rows(path, tab_rows(path, width, quoted), odd)


def tab_rows(path: Path, width: int, quoted: bool) -> Iterator[tuple[str, Any]]:
    """(place, cells) of each row, `OddItem` in place of cells that are too few."""
    for number, line in enumerate(lines(path), 1):
        # The "\r" of a Windows line end; any other is part of the text.
        row = line.removesuffix("\n").removesuffix("\r").split("\t")
        if row == [""]:
            continue
        if len(row) < width:
            yield f"line {number}", OddItem(
                path, f"has {len(row)} columns between tabs, not {width}")
            continue
        yield f"line {number}", [_unquoted(cell, row) for cell in row] if quoted else row


def _unquoted(cell: str, row: list[str]) -> str:
    """A cell as it was before it was quoted: one with pairs of quotes, or where all cells are."""
    if not _QUOTED.fullmatch(cell):
        return cell
    if '""' in cell[1:-1] or all(_QUOTED.fullmatch(other) for other in row):
        return cell[1:-1].replace('""', '"')
    return cell


def header(row: list[str]) -> dict[str, int]:
    """The places of the columns, by name in small letters, if a first row names them; else {}.

    A row that names an address or a caption and has no address is one: `caption<TAB>url`.
    """
    names = {cell.strip(" \"'").lower(): place for place, cell in reversed(list(enumerate(row)))}
    named = bool(names.keys() & {*COLUMNS[0], *COLUMNS[1]}) and not any(map(_URL.match, names))
    return names if named else {}
