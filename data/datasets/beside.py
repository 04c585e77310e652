"""What lies beside a medium under its name: its caption in `.txt` or `.json`, its class in `.cls`.

Such a file is the truth about its medium, whatever a table says: img2dataset and video2dataset
write them, and tools that caption anew.
"""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from data.datasets.texts import decoded
from data.datasets.values import plain

SUFFIXES = (".txt", ".json", ".cls")
MAX_MIB = 64  # of one of them


def fields(have: Iterable[str], content: Callable[[str], bytes]) -> dict[str, Any]:
    """The texts and the label that files beside a medium say; {} without any.

    Args:
        have: the suffixes of those that are there.
        content: gives the bytes of one.

    Raises:
        ValueError: one of them says none; what it is instead.
    """
    found, made = set(have), {}
    if ".txt" in found:
        made["texts"] = [decoded(content(".txt")).strip()]
    elif ".json" in found:
        said = meta(content(".json"))
        if "caption" in said:
            made["texts"] = _captions(said["caption"])
    if ".cls" in found:
        made["label"] = decoded(content(".cls")).strip()
    return made


def content_of(path: Path, offset: int = 0, size: int = -1) -> bytes:
    """The bytes of such a file, or of the member of a tar file that begins at `offset`.

    Args:
        path: of the file.
        offset: its first byte.
        size: number of bytes, as a tar's header says it; -1 for the rest of the file.

    Raises:
        ValueError: it is longer than `MAX_MIB`, or ends before its size.
        OSError: it cannot be read.
    """
    most = MAX_MIB * 2**20
    with path.open("rb") as file:
        file.seek(offset)
        # Never what is merely claimed: a damaged header may say terabytes.
        data = file.read(most + 1 if size < 0 else min(size, most + 1))
    if len(data) > most or size > most:
        raise ValueError(f"has more than the {MAX_MIB} MiB that a caption may have")
    if size > len(data):
        raise ValueError(f"is cut off: {len(data):,} of its {size:,} bytes are there")
    return data


def meta(data: bytes) -> dict[str, Any]:
    """The object of a `.json`.

    Raises:
        ValueError: it is none.
    """
    try:
        said = json.loads(decoded(data))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"is not JSON: {' '.join(str(error).split())}") from None
    if not isinstance(said, dict):
        raise ValueError(f"is no object but {type(said).__name__}")
    return said


def _captions(value: Any) -> list[str]:
    try:
        return [plain(one) for one in (value if isinstance(value, list) else [value])]
    except ValueError as error:
        raise ValueError(f"its caption is {error}, not text") from None
