"""Tables as text: CSV and its like, JSON in the forms that programs write, JSON lines."""

import csv
import gzip
import json
import sys
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from data.datasets.own.columns import KNOWN, listed, plain
from data.datasets.own.rows import Row, Table, of_dicts
from data.datasets.split_names import SPLITS, split_name
from data.datasets.texts import decoded
from mplug2_jax.contracts.errors import DataError

SEPARATORS = ",;\t|"
KEY, VALUE = "key", "caption"  # columns of an object by media: their names, and a text of each
_ROW_LINES = 1_000  # lines of one row at most: a quote that is never closed ends somewhere


def read_text(path: Path) -> str:
    """A file's text, which may be packed, in the encodings of `texts`.

    Raises:
        DataError: it cannot be read.
    """
    try:
        data = path.read_bytes()
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {_line(error)}") from error
    return decoded(data, path)


def open_separated(path: Path, separator: str = "") -> Table:
    """A table with a line of column names, and commas, semicolons, tabs or bars between cells."""
    text = read_text(path).replace("\r\n", "\n").replace("\0", "")
    if "\n" not in text:  # as old Macs wrote
        text = text.replace("\r", "\n")
    lines = [f"{line}\n" for line in text.split("\n")]
    first = next((number for number, line in enumerate(lines) if line.strip()), None)
    if first is None:
        raise DataError(f"{path} is empty: expected a first line with the names of the columns")
    if lines[first].casefold().startswith("sep=") and len(lines[first].strip()) == 5:  # Excel's
        separator, first = lines[first][4], first + 1
    if not separator or separator not in lines[first]:
        separator = _separator(lines[first])
    names, used = _row_at(lines, first, separator)
    columns = [name.strip() for name in names]
    while columns and not columns[-1]:  # of a line that ends with a separator
        columns.pop()
    if len(set(columns)) < len(columns):
        twice = sorted({name for name in columns if columns.count(name) > 1})
        raise DataError(f"{path} names the column {listed(twice)} twice")
    rows = list(_rows(path.name, lines, first + used, columns, separator))
    return Table(path.name, columns, lambda wanted: rows)


def _separator(header: str) -> str:
    """What stands most often between the names, outside of quotes."""
    outside = "".join(header.split('"')[::2])
    return max(SEPARATORS, key=outside.count)


def _cells(lines: Iterable[str], separator: str, **quoting: Any) -> list[str] | None:
    """The cells of some lines as one row; None where they are none, so quoted."""
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    # The reader takes a lone carriage return for the end of a row; here it is a letter.
    own = (line.replace("\r", "\0") for line in lines)
    try:
        return [cell.replace("\0", "\r")
                for cell in next(csv.reader(own, delimiter=separator, **quoting), [])]
    except csv.Error:
        return None


def _row_at(lines: Sequence[str], start: int, separator: str,
            width: int = -1) -> tuple[list[str], int]:
    """The cells of the row that begins at a line, and how many lines it takes.

    A cell in quotes may go on in the next lines; a quote that is not closed where a cell ends is a
    letter of its line, and costs no other.
    """
    if '"' in lines[start]:
        counted = _Counted(lines[start:start + _ROW_LINES])
        cells = _cells(counted, separator, strict=True)
        if cells is not None and (counted.used == 1 or _fits(cells, width)):
            return cells, counted.used
    own = lines[start:start + 1]
    found = _cells(own, separator)
    if found is None or not _fits(found, width) or found[-1:] and found[-1].endswith("\n"):
        found = _cells(own, separator, quoting=csv.QUOTE_NONE) or found
    return found or [], 1


class _Counted:
    """Iterates over lines, and counts those that were taken."""

    def __init__(self, lines: Sequence[str]):
        self._lines, self.used = iter(lines), 0

    def __iter__(self) -> Iterator[str]:
        for line in self._lines:
            self.used += 1
            yield line


def _rows(name: str, lines: Sequence[str], start: int, columns: list[str],
          separator: str) -> Iterator[Row]:
    width = len(columns)
    while start < len(lines):
        if not lines[start].strip():
            start += 1
            continue
        place = f"{name}:{start + 1}"
        cells, used = _row_at(lines, start, separator, width)
        start += used
        if any(cell.strip() for cell in cells):
            fault = "" if _fits(cells, width) else (
                f"{len(cells)} cells, where the first line has {width}")
            yield Row(place, dict(zip(columns, cells, strict=False)), fault)


def _fits(cells: list[str], width: int) -> bool:
    """Whether a row has the cells of its columns, and after them none but empty ones; -1: any."""
    return width < 0 or (len(cells) >= width and not any(map(str.strip, cells[width:])))


def open_json_lines(path: Path) -> Table:
    """A table with an object a line; or a JSON list of them, which some call so."""
    text = read_text(path)
    if text.lstrip().startswith("[") and (found := _whole_list(path, text)) is not None:
        return _table(path, found, (), "")
    rows = []
    for number, line in enumerate(text.split("\n"), 1):
        place = f"{path.name}:{number}"
        if not line.strip():
            continue
        try:
            found = json.loads(line)
        except (ValueError, RecursionError) as error:
            rows.append(Row(place, {}, f"not JSON: {_line(error)}"))
            continue
        rows.append(_row(place, found))
    return of_dicts(path.name, rows)


def _whole_list(path: Path, text: str) -> list | None:
    """A file that is one list; None where its first line is whole: an odd one among lines."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        try:
            json.loads(text.lstrip().partition("\n")[0])
        except (ValueError, RecursionError):
            raise DataError(f"{path} is not JSON: {_line(error)}") from error
        return None
    return found if isinstance(found, list) else None


def open_json(path: Path, named: Collection[str]) -> list[Table]:
    """The tables of a JSON file: one, or one for each split that it names.

    A list of objects; an object of columns, as lists or by row; an object of objects, whose names
    become the column `key`; any of these below one name, such as `data`, or below names of splits;
    or JSON lines.

    Args:
        path: of the file.
        named: columns that the user named.

    Raises:
        DataError: it is nothing of it.
    """
    text = read_text(path)
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        # Several objects: `datasets` writes lines under this name.
        if text.lstrip().startswith("{") and "\n{" in text.strip():
            return [open_json_lines(path)]
        raise DataError(f"{path} is not JSON: {_line(error)}") from error
    if isinstance(found, Mapping) and found and all(
            str(name).casefold() in SPLITS and isinstance(one, list | Mapping)
            for name, one in found.items()):
        return [_table(path, one, named, split_name(name)) for name, one in found.items()]
    return [_table(path, found, named, "")]


def _table(path: Path, found: Any, named: Collection[str], split: str) -> Table:
    part = f"{path.name}[{split}]" if split else path.name
    if isinstance(found, Mapping):
        found = _unwrapped(path, found, named)
    if isinstance(found, list):
        return of_dicts(part, [_row(f"{part}:{number}", one)
                               for number, one in enumerate(found, 1)], split)
    if not isinstance(found, Mapping):
        raise DataError(f"{path} holds {type(found).__name__}, no table: expected a list of "
                        "objects, or an object of columns")
    if _is_columns(found, named):
        return of_dicts(part, list(_of_columns(path, part, found)), split)
    rows = []
    for number, (key, one) in enumerate(found.items(), 1):
        several = isinstance(one, list) and all(isinstance(each, Mapping) for each in one)
        for each in one if several else [one]:
            values = dict(each) if isinstance(each, Mapping) else {VALUE: each}
            rows.append(Row(f"{part}:{number}", {KEY: key} | values))
    return of_dicts(part, rows, split)


def _unwrapped(path: Path, found: Mapping, named: Collection[str]) -> Any:
    """What lies below one name of an object; or the object."""
    if _is_columns(found, named):
        return found
    if "columns" in found and isinstance(found.get("data"), list):  # pandas' "split"
        return [dict(zip(found["columns"], row, strict=False)) if isinstance(row, list) else row
                for row in found["data"]]
    lists = [name for name, one in found.items() if isinstance(one, list) and one
             and all(isinstance(row, Mapping) for row in one)]
    if not lists or not any(_media(name, named) for name in found[lists[0]][0]):
        return found  # the names are the media's
    if len(lists) == 1 and not any(isinstance(one, Mapping) for name, one in found.items()
                                   if name not in ("schema", "info", "metadata")):
        return found[lists[0]]
    if 1 < len(lists) == sum(isinstance(one, list) for one in found.values()):
        raise DataError(f"{path} holds several lists ({listed(lists)}): expected one table; "
                        "write the one with the texts to a file of its own")
    return found


def _media(name: str, named: Collection[str]) -> bool:
    """Whether a column may be the media's, so that no name above it is."""
    return name in named or plain(name) in " ".join(KNOWN["media"]).split()


def _is_columns(found: Mapping, named: Collection[str]) -> bool:
    """Whether an object's names are those of columns: each holds a list, or an object by row."""
    if not found or not all(isinstance(one, list | Mapping) for one in found.values()):
        return False
    known = {name for tiers in KNOWN.values() for tier in tiers for name in tier.split()}
    known |= {plain(name) for name in named}
    return sum(plain(str(name)) in known for name in found) >= min(2, len(found))


def _of_columns(path: Path, part: str, found: Mapping) -> Iterator[Row]:
    lists = {name: list(one.values()) if isinstance(one, Mapping) else one
             for name, one in found.items()}
    lengths = {name: len(one) for name, one in lists.items()}
    if len(set(lengths.values())) > 1:
        raise DataError(f"{path}: its columns are of different lengths: "
                        + ", ".join(f"{listed([name])} {length}"
                                    for name, length in list(lengths.items())[:5]))
    for number, values in enumerate(zip(*lists.values(), strict=True), 1):
        yield Row(f"{part}:{number}", dict(zip(lists, values, strict=True)))


def _row(place: str, found: Any) -> Row:
    if isinstance(found, Mapping):
        return Row(place, dict(found))
    return Row(place, {}, f"expected an object, not {type(found).__name__}")


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())
