"""What one item of an annotation says, as text; and what becomes of an item that says none.

What cannot be used of a file costs itself: `Rows` hands it to `odd` and goes on.
"""

import math
import numbers
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from mplug2_jax.contracts.errors import DataError

# What is told of an item that is left out: its file, where it stands in it ("line 7"), and why.
Odd = Callable[[Path, str, str], None]


class OddItem(DataError):
    """One item of an annotation that cannot be used; `reason` says why, without its place."""

    def __init__(self, path: Path | str, reason: str, place: str = ""):
        where = f"{path}, {place}" if place else str(path)
        super().__init__(where + ("" if reason.startswith(("has ", "is ")) else ":") + f" {reason}")
        self.reason = reason


class Rows:
    """The items of a file, one by one.

    Attributes:
        place: of the item that was given last: "line 7", "item 3".

    Args:
        path: of the file.
        found: (place, item) of each; `OddItem` in place of an item that is none.
        odd: is told of those; without it the first one is raised.
    """

    def __init__(self, path: Path, found: Iterable[tuple[str, Any]], odd: Odd | None = None):
        self.place, self._path, self._found, self._odd = "", path, iter(found), odd

    def __iter__(self) -> "Rows":
        return self

    def __next__(self) -> Any:
        for place, item in self._found:
            self.place = place
            if not isinstance(item, OddItem):
                return item
            if self._odd is None:
                raise OddItem(self._path, item.reason, self.place)
            self._odd(self._path, self.place, item.reason)
        raise StopIteration


def mended(text: str) -> str:
    """The text with halves of UTF-16's pairs, which no file can store, joined, or as U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def plain(value: Any) -> str:
    """A value as text: 2, or 2.0, is "2".

    Raises:
        ValueError: it is neither text nor number; says what.
    """
    if isinstance(value, str):
        return mended(value)
    if isinstance(value, numbers.Integral) and not isinstance(value, bool):
        return str(int(value))  # of any length, as JSON has them
    if isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value):
        return str(int(value) if float(value).is_integer() else value)
    names = {type(None): "null", bool: str(value).lower(), dict: "an object", list: "a list",
             tuple: "a list"}  # fmt: skip
    raise ValueError(names.get(type(value), str(value) if isinstance(value, float)
                               else type(value).__name__))


def require(path: Path, item: Any, *keys: str) -> Any:
    """The values of some keys of an annotation: one value, or a tuple of them.

    Raises:
        OddItem: a key is missing.
    """
    try:
        values = tuple(item[key] for key in keys)
    except (KeyError, TypeError, IndexError) as error:
        what = f"has no {error}" if isinstance(error, KeyError) else f"is {type(item).__name__}"
        raise OddItem(path, f"not in the published layout: an entry {what}, "
                            f"expected {', '.join(keys)}") from error  # fmt: skip
    return values if len(keys) > 1 else values[0]


def said(path: Path, item: Any, *keys: str) -> Any:
    """As `require`, of values that are texts.

    Raises:
        OddItem: a key is missing, or its value no text.
    """
    values = []
    for key in keys:
        try:
            values.append(plain(require(path, item, key)))
        except OddItem:
            raise
        except ValueError as error:
            raise OddItem(path, f"{key} is {error}, not text") from None
    return tuple(values) if len(keys) > 1 else values[0]


def all_said(path: Path, item: Any, key: str) -> list[str]:
    """The texts of a key that has one or a list of them; raises `OddItem` as `said` does."""
    value = require(path, item, key)
    found = value if isinstance(value, list | tuple) else [value]
    return [said(path, {key: one}, key) for one in found]
