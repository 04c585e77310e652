"""The bytes of a medium, wherever a table says it is: a file, a tar's member, an address, a cell.

A place is a `raw.Media`, whose path may begin with `cell:` (a cell of a table, whose row is the
offset, and the number in its list the size), with `data:` (the bytes themselves, in base64) or with
a protocol such as `s3://`.
"""

import base64
import binascii
import functools
import http.client
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import fsspec

from data.datasets.own import arrow_files
from data.datasets.raw import Media
from data.stores import STORES, check_store, protocol
from mplug2_jax.contracts.errors import DataError, MediaError

CELL, INLINE = "cell:", "data:"
WEB = ("http", "https")
LIMIT = 2**31  # bytes of a medium that is fetched
_TRIES, _SECONDS = 3, 60  # of fetching; how long a server may be silent


def elsewhere(path: str) -> bool:
    """Whether a place is none of this machine's files."""
    return path.startswith((CELL, INLINE)) or bool(protocol(path))


def check_protocol(path: str) -> None:
    """Raises DataError where an address cannot be opened, with what is to be installed."""
    name = protocol(path)
    if name in WEB:
        return
    if name not in STORES:
        raise DataError(f"{path}: expected a path, file://, or one of "
                        + ", ".join(f"{one}://" for one in (*WEB, *STORES)))
    check_store(path)


def read_media(root: Path, place: Media) -> bytes:
    """The bytes of a medium.

    Args:
        root: folder that a path may be relative to.
        place: where it is.

    Raises:
        MediaError: it cannot be read; the message is one line, and names the place.
    """
    if place.path.startswith(CELL):
        column, _, file = place.path.removeprefix(CELL).partition(":")
        column = urllib.parse.unquote(column)
        try:
            return arrow_files.read_cell(root / file, column, place.offset, place.size)
        except (DataError, ValueError) as error:
            raise MediaError(f"{file}, column {column}: {error}") from error
    if place.path.startswith(INLINE):
        return _inline(place.path)
    if protocol(place.path):
        return _fetched(place.path)
    try:
        with (root / place.path).open("rb") as file:
            file.seek(place.offset)
            data = file.read(place.size)
    except OSError as error:
        raise MediaError(f"{place.path}: {error.strerror or error}") from error
    if len(data) < place.size:
        raise MediaError(f"{place.path} ends {place.size - len(data)} bytes too early")
    return data


def _inline(path: str) -> bytes:
    head, _, body = path.partition(",")
    try:
        if not head.endswith(";base64"):
            return urllib.parse.unquote_to_bytes(body)
        return base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError) as error:
        raise MediaError(f"{head},...: not base64: {error}") from error


def _fetched(path: str) -> bytes:
    """What lies at an address; tried again where the fault may pass."""
    name = protocol(path)
    for again in reversed(range(_TRIES)):
        try:
            data = _from_web(path) if name in WEB else _from_store(path)
            if len(data) > LIMIT:
                raise MediaError(f"{path}: more than {LIMIT:,} bytes")
            return data
        except urllib.error.HTTPError as error:
            if again and error.code in (429, 500, 502, 503, 504):
                time.sleep(0.5 * 2 ** (_TRIES - again))
                continue
            raise MediaError(f"{path}: {error.code} {error.reason}") from error
        except (FileNotFoundError, PermissionError) as error:
            raise MediaError(f"{path}: {_line(error)}") from error
        except (OSError, http.client.HTTPException) as error:
            if not again:
                raise MediaError(f"{path}: {_line(error)}") from error
        except (MediaError, MemoryError):
            raise
        except Exception as error:  # stores have exceptions of their own
            raise MediaError(f"{path}: {_line(error)}") from error
    raise AssertionError(path)


@functools.cache
def _opener() -> urllib.request.OpenerDirector:
    """Opens addresses of the web, and no other that one of them may lead to."""
    opener = urllib.request.OpenerDirector()
    for handler in (urllib.request.ProxyHandler, urllib.request.HTTPHandler,
                    urllib.request.HTTPSHandler, urllib.request.HTTPDefaultErrorHandler,
                    urllib.request.HTTPRedirectHandler, urllib.request.HTTPErrorProcessor):
        opener.add_handler(handler())
    return opener


def _from_web(path: str) -> bytes:
    # As browsers do, blanks and letters beyond ASCII are written as their numbers.
    address = urllib.parse.quote(path, safe="%/:=&?~#+!$,;'@()*[]").partition("#")[0]
    request = urllib.request.Request(address, headers={"User-Agent": "mplug2_jax"})
    with _opener().open(request, timeout=_SECONDS) as answer:
        data = answer.read(LIMIT + 1)
        expected = answer.headers.get("Content-Length")
    if expected and expected.isdigit() and len(data) < min(int(expected), LIMIT):
        raise OSError(f"ends {int(expected) - len(data)} bytes too early")
    return data


def _from_store(path: str) -> bytes:
    options: dict[str, Any] = {}
    with fsspec.open(path, "rb", **options) as file:
        return file.read(LIMIT + 1)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
