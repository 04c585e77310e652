"""Text files of annotations as people hold them: their encodings, and JSON.

A file is UTF-8, or what its byte-order mark says; UTF-16 without one is told by its zero bytes. In
UTF-8, what is none is read as Windows-1252, of which Latin-1 is a part, and said in a line. Only
"\\n" ends a line: a "\\r" before it is dropped, any other is part of the text.
"""

import codecs
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data.datasets.values import Odd, OddItem, Rows, mended
from mplug2_jax.contracts.errors import DataError

# A byte-order mark's encoding, the longer ones first: that of UTF-32 begins with that of UTF-16.
_MARKS = ((codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
          (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))  # fmt: skip
_HEAD = 1 << 16  # bytes that a file's encoding is told from
_ESCAPED = re.compile("[\udc80-\udcff]+")  # bytes that are no UTF-8, as "surrogateescape" has them


def encoding(head: bytes) -> str:
    """The encoding of a text, told from its first bytes."""
    for mark, name in _MARKS:
        if head.startswith(mark):
            return name
    if b"\0" in head:
        half = max(len(head) // 2, 1)
        if head[1::2].count(0) > 0.4 * half:
            return "utf-16-le"
        if head[::2].count(0) > 0.4 * half:
            return "utf-16-be"
    return "utf-8-sig"


def lines(path: Path) -> Iterator[str]:
    """The lines of a text file, with their ends.

    Raises:
        DataError: it cannot be read.
    """
    try:
        with path.open("rb") as binary:
            name = encoding(binary.read(_HEAD))
    except OSError as error:
        raise _unreadable(path, error) from error
    warned = False
    errors = "surrogateescape" if name == "utf-8-sig" else "replace"
    try:
        with path.open(encoding=name, errors=errors, newline="\n") as file:
            for number, line in enumerate(file, 1):
                if _ESCAPED.search(line):
                    if not warned:
                        warned = True
                        _warn(path, number)
                    line = _ESCAPED.sub(_unescaped, line)
                yield line
    except (OSError, UnicodeError) as error:
        raise _unreadable(path, error) from error


def decoded(data: bytes, path: Path | None = None) -> str:
    """The text of a file that is held, see above; what is said of it is said of that path."""
    name = encoding(data[:_HEAD])
    if name != "utf-8-sig":
        return data.decode(name, "replace")
    text = data.decode(name, "surrogateescape")
    first = _ESCAPED.search(text)
    if first and path:
        _warn(path, text.count("\n", 0, first.start()) + 1)
    return _ESCAPED.sub(_unescaped, text) if first else text


def _warn(path: Path, line: int) -> None:
    print(f"warning: {path} is not all UTF-8, first in line {line}: what is not was read as "
          "Latin-1", file=sys.stderr, flush=True)


def _unescaped(match: re.Match) -> str:
    """Bytes that are no UTF-8: letters of Windows-1252, or halves of a pair, encoded each alone."""
    found = match[0].encode("utf-8", "surrogateescape")
    for name, errors in (("utf-8", "surrogatepass"), ("cp1252", "strict"), ("latin-1", "strict")):
        try:
            return mended(found.decode(name, errors))
        except UnicodeDecodeError:
            continue
    raise AssertionError("every byte is a letter of Latin-1")


def _unreadable(path: Path, error: Exception) -> DataError:
    reason = getattr(error, "strerror", None) or " ".join(str(error).split())
    return DataError(f"{path} cannot be read: {reason}")


def read_json(path: Path) -> Any:
    """The contents of a JSON file; JSON lines, which some call so, are a list.

    Raises:
        DataError: it is none; names it.
    """
    text = "".join(lines(path))
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        rows = [line for line in text.split("\n") if line.strip()]
        try:
            if len(rows) > 1 and text.lstrip()[:1] == "{":
                return [json.loads(line) for line in rows]
        except (ValueError, RecursionError):
            pass
        reason = "nested too deeply" if isinstance(error, RecursionError) else error
        raise DataError(f"{path} is not JSON: {reason}") from error


def read_jsonl(path: Path, odd: Odd | None = None) -> Rows:
    """The objects of a JSON-lines file, or of a JSON list, which some call so.

    A line that is not JSON, or no object, is odd.
    """
    return Rows(path, _objects(path), odd)


def _objects(path: Path) -> Iterator[tuple[str, Any]]:
    head = next((line for line in lines(path) if line.strip()), "")
    if head.lstrip().startswith("["):
        found = read_json(path)
        for number, item in enumerate(found, 1):
            yield f"item {number}", _object(path, item)
        return
    for number, line in enumerate(lines(path), 1):
        if line.strip():
            try:
                yield f"line {number}", _object(path, json.loads(line))
            except (ValueError, RecursionError) as error:
                yield f"line {number}", OddItem(path, f"is not JSON: {error}")


def _object(path: Path, item: Any) -> Any:
    return item if isinstance(item, dict) else OddItem(path, f"is no object but {item!r:.40}")


def read_lines(path: Path) -> list[str]:
    """The lines of a list file that are not empty, stripped."""
    return [line.strip() for line in lines(path) if line.strip()]
