"""The columns of an index: what is said of a split's records, a row an item, without their media.

An item is what an example may be made of: a record as a whole, one of its texts (a caption, a
sentence), one of its questions, one of its boxes. A column has a value in the rows of the kinds of
items that `COLUMNS` names, and is null in others. The record's class is its `label`; where its
questions are what is classified, the class is their `answer`.

The rows come in blocks of successive records, an Arrow record batch for each kind of item in it,
that of the records first. So all rows of a batch are of one kind: the n-th item of a kind, and the
items of a record, are found without reading what lies before.
"""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa

from data import records
from data.media import Facts

VERSION = 1
RECORD, TEXT, QUESTION, BOX = KINDS = ("record", "text", "question", "box")
# The field of a record that holds a kind's items; also the record's column with their number.
FIELDS = {TEXT: "texts", QUESTION: "questions", BOX: "boxes"}
# In place of a kind, for counting: what of a record is classified. The questions, whose answers are
# the classes, of one without a class of its own; the texts of another.
CLASSED = "classed"
META = b"mplug2_index"  # key of what the schema carries: `reading.Index` reads it
HASH_BYTES = 16
_MODULUS = 2**127 - 1  # of digests, a prime
_BASE = 0x5DEECE66D
_DICTIONARY = pa.dictionary(pa.int8(), pa.string())

# By column its type and the kinds whose rows have a value; `docs/data.md` says what it is.
COLUMNS: dict[str, tuple[pa.DataType, tuple[str, ...]]] = {
    "record": (pa.int64(), KINDS),
    "item": (pa.int32(), KINDS),
    "kind": (_DICTIONARY, KINDS),
    "id": (pa.string(), (RECORD, QUESTION, BOX)),
    "text": (pa.string(), (TEXT, QUESTION, BOX)),
    "answer": (pa.string(), (QUESTION,)),
    "answers": (pa.list_(pa.string()), (QUESTION,)),
    "type": (pa.string(), (QUESTION,)),
    "ocr": (pa.string(), (QUESTION,)),
    "objects": (pa.string(), (QUESTION,)),
    "box": (pa.list_(pa.float32(), 4), (BOX,)),
    "label": (pa.string(), (RECORD,)),
    "group": (pa.string(), (RECORD,)),
    "start": (pa.float32(), (RECORD,)),
    "end": (pa.float32(), (RECORD,)),
    "texts": (pa.int32(), (RECORD,)),
    "questions": (pa.int32(), (RECORD,)),
    "boxes": (pa.int32(), (RECORD,)),
    "medium": (_DICTIONARY, (RECORD,)),
    "duration": (pa.float32(), (RECORD,)),
    "width": (pa.int32(), (RECORD,)),
    "height": (pa.int32(), (RECORD,)),
    "frames": (pa.int32(), (RECORD,)),
    "bytes": (pa.int64(), (RECORD,)),
    "hash": (pa.binary(HASH_BYTES), (RECORD,)),
}
# By kind the columns that its rows have beside their kind, in the order of `COLUMNS`.
_NAMES = {kind: [name for name, (_, kinds) in COLUMNS.items() if kind in kinds and name != "kind"]
          for kind in KINDS}  # fmt: skip
_VOCABULARIES = {"kind": KINDS, "medium": records.KINDS}


def schema(meta: bytes = b"") -> pa.Schema:
    """The schema of a file, with what it carries of the whole."""
    fields = [pa.field(name, kind) for name, (kind, _) in COLUMNS.items()]
    return pa.schema(fields, {META: meta} if meta else None)


def content_hash(medium: bytes) -> bytes | None:
    """What tells equal media: the first half of their SHA-256; None where there are none."""
    return hashlib.sha256(medium).digest()[:HASH_BYTES] if medium else None


class Block:
    """The rows of successive records, column by column.

    Attributes:
        records: how many there are.
        rows: of all kinds.
        size: characters of their texts, about.
        digest: of all that is said of them and of their media (`joined_digest`).
    """

    def __init__(self):
        self.records = self.rows = self.size = self.digest = 0
        self._rows: dict[str, list[tuple]] = {kind: [] for kind in KINDS}

    def add(self, number: int, said: dict[str, Any] | None, facts: Facts) -> None:
        """Adds the rows of one record.

        Args:
            number: of the record in the split.
            said: the record as `records.parse` gives it; None for one that is damaged.
            facts: of its medium.
        """
        self.records += 1
        self.rows += 1
        if said is None:
            self._rows[RECORD].append((number, 0, *[None] * (len(_NAMES[RECORD]) - 2)))
            self.digest = joined_digest(self.digest, 1, 1)
            return
        content, counts = content_hash(said["media"]), [len(said[f]) for f in FIELDS.values()]
        self._rows[RECORD].append((
            number, 0, said["id"], said["label"], said["group"], said["start"], said["end"],
            *counts, said["kind"], *facts, len(said["media"]), content,
        ))  # fmt: skip
        self._rows[TEXT] += [(number, n, text) for n, text in enumerate(said["texts"])]
        self._rows[QUESTION] += [
            (number, n, one["id"], one["question"], *(one[name] for name in _NAMES[QUESTION][4:]))
            for n, one in enumerate(said["questions"])
        ]
        self._rows[BOX] += [(number, n, one["id"], one["phrase"], one["box"])
                            for n, one in enumerate(said["boxes"])]
        stated = repr([content, *(said[key] for key in _SAID)]).encode()
        self.rows += sum(counts)
        self.size += len(stated)
        own = int.from_bytes(hashlib.sha256(stated).digest()[:16], "little")
        self.digest = joined_digest(self.digest, own, 1)

    def batches(self) -> Iterable[pa.RecordBatch]:
        """A batch for each kind that there is, that of the records first."""
        for kind, held in self._rows.items():
            if held:
                columns = dict(zip(_NAMES[kind], zip(*held, strict=True), strict=True))
                columns["kind"] = [kind] * len(held)
                yield pa.record_batch(
                    [_array(name, columns.get(name), len(held)) for name in COLUMNS], schema())


_SAID = ("id", "kind", "texts", "label", "group", "start", "end", "questions", "boxes")


def joined_digest(first: int, second: int, records_in_second: int) -> int:
    """The digest of successive records, of those of two parts of them: the same, however cut."""
    return (first * pow(_BASE, records_in_second, _MODULUS) + second) % _MODULUS


def _array(name: str, values: Sequence | None, rows: int) -> pa.Array:
    kind = COLUMNS[name][0]
    if name in _VOCABULARIES:  # the same dictionary in each batch: a file has one
        numbers = {word: number for number, word in enumerate(_VOCABULARIES[name])}
        codes = [None] * rows if values is None else [numbers.get(word) for word in values]
        return pa.DictionaryArray.from_arrays(pa.array(codes, pa.int8()),
                                              pa.array(_VOCABULARIES[name], pa.string()))
    return pa.nulls(rows, kind) if values is None else pa.array(values, kind)
