"""What two splits have in common: media by their content, texts by their words."""

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import pyarrow as pa

from data.written.reading import Index
from data.written.schema import RECORD, TEXT

Keys = Callable[[Index], Iterator[tuple[int, int, str]]]
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Common:
    """A medium or a text of both splits.

    Attributes:
        kind: "medium" or "text".
        what: the text as it reads cleaned, or the medium's hash.
        first, second: ids of the records that have it.
    """

    kind: str
    what: str
    first: tuple[str, ...]
    second: tuple[str, ...]


def cleaned(text: str) -> str:
    """A text without capitals, marks, and ways of Unicode to write the same: its words."""
    return " ".join(_WORD.findall(unicodedata.normalize("NFKC", text).casefold()))


def overlap(first: list[Index], second: list[Index]) -> list[Common]:
    """The media and the texts that stand in both splits, media first.

    Questions are no texts: they are alike everywhere, and say something only of their medium. Held
    are eight bytes of each medium and text, and the ids of what is common.

    Args:
        first, second: the indexes of each split, of several if several make it up.
    """
    found = []
    for kind, keys in (("medium", _media), ("text", _texts)):
        hashes = [np.array([one for index in side for _, one, _ in keys(index)], np.int64)
                  for side in (first, second)]
        both = set(np.intersect1d(*hashes).tolist())
        if not both:
            continue
        owners = [_owners(side, keys, both) for side in (first, second)]
        for what in owners[0].keys() & owners[1].keys():
            found.append(Common(kind, what, *(tuple(own[what]) for own in owners)))
    return sorted(found, key=lambda one: (one.kind, one.first, one.what))


def _owners(side: list[Index], keys: Keys, both: set[int]) -> dict[str, dict[str, None]]:
    """The ids of the records that have each of the common ones, in the order of the split."""
    owners: dict[str, dict[str, None]] = {}
    for index in side:
        ids = index.table(RECORD)["id"]
        for record, one, what in keys(index):
            if one in both:
                owners.setdefault(what, {})[ids[record].as_py() or ""] = None
    return owners


def _media(index: Index) -> Iterator[tuple[int, int, str]]:
    """(record, hash, its digits) of each medium."""
    hashes = index.table(RECORD)["hash"]
    for record, one in enumerate(_values(hashes)):
        if one is not None:
            yield record, int.from_bytes(one[:8], "little", signed=True), one.hex()


def _texts(index: Index) -> Iterator[tuple[int, int, str]]:
    """(record, hash, text cleaned) of each text that has a word."""
    table = index.table(TEXT)
    yield from _hashed(table["record"], map(cleaned, _values(table["text"])))


def _hashed(records: pa.ChunkedArray, texts: Iterable[str]) -> Iterator[tuple[int, int, str]]:
    for record, text in zip(_values(records), texts, strict=True):
        if text:
            digest = blake2b(text.encode("utf-8", "replace"), digest_size=8).digest()
            yield record, int.from_bytes(digest, "little", signed=True), text


def _values(column: pa.ChunkedArray) -> Iterator:
    """The values of a column, a block at a time."""
    for chunk in column.chunks:
        yield from chunk.to_pylist()
