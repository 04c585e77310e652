"""Lists of files as people write them: one a line, with what editors and shells leave in them."""

import codecs
import os
from collections.abc import Iterator
from pathlib import Path

from mplug2_jax.contracts.errors import DataError
from mplug2_jax.contracts.paths import in_bucket, parse

# By the bytes at its beginning how a text is encoded; of those without, UTF-8.
_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF32_LE: "utf-32",
          codecs.BOM_UTF32_BE: "utf-32", codecs.BOM_UTF16_LE: "utf-16",
          codecs.BOM_UTF16_BE: "utf-16"}  # fmt: skip
_QUOTES = ("'", '"')
_ASKED = ("/", "#", "~", *_QUOTES)  # in a bucket, where each question is a request


def listed(path: Path) -> list[Path]:
    """The files that a list names, one a line, also those that are not there.

    A relative name is one of the list's own folder or, where it has no such file, of the current
    folder. A line is taken as it is where there is such a file. If not, blanks at its ends, quotes
    around it and "~" for the home folder are understood, and one that begins with "#" is a comment.
    In a bucket the current folder has none, and names with blanks at their ends are not looked for.

    Raises:
      DataError: it cannot be read.
    """
    return [found for line in lines_of(path) if (found := _named(path.parent, line)) is not None]


def lines_of(path: Path) -> Iterator[str]:
    """Lines of a text that are not empty, whatever its byte-order mark says, and ends of lines.

    Bytes that are no UTF-8 are kept, as they are in names of files.

    Raises:
      DataError: it cannot be read.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: {(error.strerror or str(error)).lower()}") from None
    encoding = next((name for mark, name in _MARKS.items() if data.startswith(mark)), "")
    try:
        text = data.decode(encoding) if encoding else os.fsdecode(data)
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not the {encoding} that it begins as ({error.reason})") from None
    if "\0" in text:
        raise DataError(f"{path}: is no list of files, one a line: there are zero bytes in it")
    # Not `splitlines`: a name may have one of Unicode's other line breaks.
    for line in text.split("\n"):
        if line.strip():
            yield line.removesuffix("\r")


def _named(folder: Path, line: str) -> Path | None:
    """The file that a line names; None for a comment."""
    bare = line.strip()
    quoted = bare[1:-1] if len(bare) > 2 and bare[0] == bare[-1] and bare[0] in _QUOTES else bare
    if in_bucket(quoted):
        return parse(quoted)
    if in_bucket(folder) and not bare.startswith(_ASKED):
        return folder / bare
    for form in dict.fromkeys((line, bare, quoted, os.path.expanduser(bare))):
        for place in _places(folder, form):
            if place.exists() if in_bucket(place) else os.path.lexists(place):
                return place
    return None if bare.startswith("#") else _places(folder, bare)[0]


def _places(folder: Path, form: str) -> list[Path]:
    """Where a file of a list in a folder may be."""
    if os.path.isabs(form):
        return [Path(form)]
    return [folder / form] if in_bucket(folder) else [folder / form, Path(form)]
