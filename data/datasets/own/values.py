"""What stands in the cells of a table: words, lists of them, seconds, boxes.

Formats differ in what they call a value: a 2 of JSON is a "2" of CSV, a list of Parquet a string
there. All become the same here. A value that is none of what a column holds is a ValueError, which
says what was expected.
"""

import ast
import io
import json
import math
import re
import tokenize
from collections.abc import Mapping
from typing import Any

import numpy as np

# Of a dict in a list of captions or answers, the keys that may hold the words.
_WORDS = ("caption", "raw", "answer", "text", "sentence", "value")
# A box as a dict: the names of its sides, and which format that is.
_SIDES = ((("x0", "y0", "x1", "y1"), "xyxy"), (("x1", "y1", "x2", "y2"), "xyxy"),
          (("xmin", "ymin", "xmax", "ymax"), "xyxy"), (("left", "top", "right", "bottom"), "xyxy"),
          (("x", "y", "w", "h"), "xywh"), (("x", "y", "width", "height"), "xywh"),
          (("left", "top", "width", "height"), "xywh"))
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
_NULLS = ("", "nan", "none", "null", "na", "n/a", "-")  # in place of a number


def null(value: Any) -> bool:
    """Whether a cell holds nothing: None, not a number, blanks."""
    if isinstance(value, float | np.floating):
        return bool(np.isnan(value))
    return value is None or (isinstance(value, str) and not value.strip())


def word(value: Any) -> str:
    """A cell as text, "" for nothing: 2 is "2", as is 2.0, and True is "True".

    Raises:
        ValueError: it is a list, an object or bytes.
    """
    if null(value):
        return ""
    if isinstance(value, list | tuple) and len(value) == 1:
        return word(value[0])
    if isinstance(value, Mapping | list | tuple | bytes):
        raise ValueError(f"expected a text, not {_shown(value)}")
    if isinstance(value, float | np.floating) and float(value).is_integer():
        value = int(value)  # whole numbers beside an empty cell are floats in many a table
    # Half a pair of UTF-16, which JSON can name, is no letter that could be written.
    text = str(value).encode("utf-8", "replace").decode("utf-8")
    return text.replace("\r\n", "\n").replace("\0", "").strip()


def words(value: Any) -> list[str]:
    """The texts of a cell: one, or those of a list, of lists in it, or of a list as a string.

    Raises:
        ValueError: something in it is no text.
    """
    if isinstance(value, str):
        value = listed(value)
    if isinstance(value, Mapping):
        name = next((name for name in _WORDS if name in value), None)
        if name is None:
            raise ValueError(f"expected a text, not {_shown(value)}")
        value = value[name]
    if isinstance(value, list | tuple):
        return [text for one in value for text in
                (words(one) if isinstance(one, list | tuple | Mapping) else [word(one)]) if text]
    text = word(value)
    return [text] if text else []


def listed(text: str) -> Any:
    """A list that was written as a string, by JSON, Python or NumPy; else the string itself."""
    inner = text.strip()
    if not (inner.startswith("[") and inner.endswith("]")):
        return text
    try:
        found = json.loads(inner)
    except (ValueError, RecursionError):
        found = _python_list(inner)
    return found if isinstance(found, list) else text


def _python_list(text: str) -> Any:
    """Of `['a', 'b']`, and of NumPy's `['a' 'b']`, which Python would join; None for another."""
    try:
        tokens = [token for token in tokenize.generate_tokens(io.StringIO(text).readline)
                  if token.type not in (tokenize.NEWLINE, tokenize.NL, tokenize.ENDMARKER)]
        kinds = {token.type for token in tokens[1:-1] if token.string != ","}
        if kinds == {tokenize.STRING}:
            return [ast.literal_eval(token.string) for token in tokens[1:-1]
                    if token.type == tokenize.STRING]
        return ast.literal_eval(text)
    # A set in a set, or a list as a name, has no hash: TypeError.
    except (ValueError, TypeError, SyntaxError, tokenize.TokenError, MemoryError, RecursionError):
        return None


def number(value: Any) -> float | None:
    """A cell as a finite number; None for nothing.

    Raises:
        ValueError: it is none.
    """
    if isinstance(value, str) and value.strip().casefold() in _NULLS or null(value):
        return None
    try:
        if isinstance(value, bool):
            raise TypeError
        if isinstance(value, str) and re.fullmatch(r"\s*[-+]?\d+,\d+\s*", value):
            value = value.replace(",", ".")  # as some languages' Excel writes it
        found = float(value)
    except (TypeError, ValueError, OverflowError):  # JSON has whole numbers of any length
        raise ValueError(f"expected a number, not {_shown(value)}") from None
    if not math.isfinite(found):
        raise ValueError(f"expected a number, not {_shown(value)}")
    return found


def seconds(value: Any) -> float | None:
    """A cell as seconds: a number, or `HH:MM:SS.mmm`; None for nothing.

    Raises:
        ValueError: it is none of them, or negative.
    """
    if isinstance(value, str) and re.fullmatch(r"\s*\d+(:\d{1,2}){1,2}([.,]\d+)?\s*", value):
        found = 0.0
        for part in value.strip().replace(",", ".").split(":"):
            found = 60 * found + float(part)
        value = found
    if hasattr(value, "total_seconds"):
        value = value.total_seconds()
    given = number(value)
    if given is not None and given < 0:
        raise ValueError(f"expected seconds, not {_shown(value)}")
    return given


def boxes(value: Any) -> list[tuple[tuple[float, ...], str]]:
    """The boxes of a cell, each with the format that its names tell, "" for none.

    A box is four numbers, a dict of its sides, or either as a string.

    Raises:
        ValueError: something in it is no box.
    """
    if null(value):
        return []
    if isinstance(value, str):
        text, value = value, _parsed(value)
        if value is None:
            found = _NUMBER.findall(text)
            if re.sub(r"[\s,;()\[\]]", "", _NUMBER.sub("", text)) or len(found) != 4:
                raise ValueError(f"expected a box of four numbers, not {_shown(text)}")
            value = found
    if isinstance(value, Mapping):
        return [_sides(value)]
    if not isinstance(value, list | tuple | np.ndarray):
        raise ValueError(f"expected a box of four numbers, not {_shown(value)}")
    if any(isinstance(one, list | tuple | Mapping | np.ndarray) for one in value):
        return [box for one in value for box in boxes(one)]
    if not len(value):
        return []
    given = [number(one) for one in value]
    if len(given) != 4 or None in given:
        raise ValueError(f"expected a box of four numbers, not {_shown(list(value))}")
    return [(tuple(one for one in given if one is not None), "")]


def _parsed(text: str) -> Any:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        try:
            found = ast.literal_eval(text.strip())
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            return None
    return found if isinstance(found, list | tuple | dict) else None


def _sides(box: Mapping) -> tuple[tuple[float, ...], str]:
    known = {re.sub(r"[\W_]+", "", str(name)).casefold(): one for name, one in box.items()}
    for names, form in _SIDES:
        if all(name in known for name in names):
            given = [number(known[name]) for name in names]
            if None not in given:
                return tuple(one for one in given if one is not None), form
    raise ValueError(f"expected a box of four numbers, not {_shown(box)}")


def _shown(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."
