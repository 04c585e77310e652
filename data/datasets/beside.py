"""What lies beside a medium under its name: its caption in `.txt` or `.json`, its class in `.cls`.

Such a file is the truth about its medium, whatever a table says: img2dataset and video2dataset
write them, and tools that caption anew.
"""

import json
from collections.abc import Callable, Iterable
from typing import Any

from data.datasets.texts import decoded
from data.datasets.values import plain

SUFFIXES = (".txt", ".json", ".cls")


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
