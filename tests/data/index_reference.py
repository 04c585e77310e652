"""What an index of records has to say: a scan of the records, written apart from it."""

import hashlib
import io
from pathlib import Path

import av
import pyarrow as pa
import pytest
from PIL import Image
from raw_media import image

from data import media, records
from data.pipeline import open_split
from data.written import Index, schema
from data.written.folders import index_path
from mplug2_jax.contracts.errors import RecordError

TEXTS, QUESTIONS, BOXES = ({"text": "texts", "question": "questions", "box": "boxes"}[kind]
                           for kind in ("text", "question", "box"))


def scanned(folder: Path, split: str) -> list[dict | None]:
    """Every record of a split with its media, read one by one; None where it is damaged."""
    source, found = open_split(folder, split), []
    for number in range(len(source)):
        try:
            found.append(source[number])
        except RecordError:
            found.append(None)
    return found


def expected_rows(found: list[dict | None]) -> list[dict]:
    """The rows of a split's index, of its records; but for what only decoding tells."""
    rows = []
    for number, record in enumerate(found):
        base = {"record": number, "item": 0, "kind": "record"}
        if record is None:
            rows.append(base)
            continue
        data = record["media"]
        rows.append(base | {key: record[key] for key in ("id", "label", "group", "start", "end")}
                    | {key: len(record[key]) for key in (TEXTS, QUESTIONS, BOXES)}
                    | {"medium": record["kind"], "bytes": len(data)}
                    | ({"hash": hashlib.sha256(data).digest()[:16]} if data else {}))
        rows += [{"record": number, "item": n, "kind": "text", "text": text}
                 for n, text in enumerate(record["texts"])]
        rows += [{"record": number, "item": n, "kind": "question", "text": one["question"]}
                 | {key: value for key, value in one.items() if key != "question"}
                 for n, one in enumerate(record["questions"])]
        rows += [{"record": number, "item": n, "kind": "box", "text": one["phrase"],
                  "box": one["box"], "id": one["id"]} for n, one in enumerate(record["boxes"])]
    return rows


def decoded_facts(record: dict) -> dict:
    """What decoding tells of a medium; nothing of one that is none."""
    kind, data = record["kind"], record["media"]
    if data in (b"", b"junk"):
        return dict.fromkeys(("width", "height", "frames"))
    if kind == "video":
        with av.open(io.BytesIO(data)) as container:
            frames = [frame.to_image().size for frame in container.decode(video=0)]
        return {"width": frames[0][0], "height": frames[0][1], "frames": len(frames)}
    if kind == "image":
        width, height = Image.open(io.BytesIO(data)).size
        return {"width": width, "height": height, "frames": 1}
    if kind == "images":
        sizes = {Image.open(io.BytesIO(one)).size for one in media.unpack_images(data)}
        same = sizes.pop() if len(sizes) == 1 else (None, None)
        return {"width": same[0], "height": same[1], "frames": len(media.unpack_images(data))}
    return {}


def assert_is_of(folder: Path, split: str) -> None:
    """The index of a split says what a scan of its records finds, row by row and by record."""
    found = scanned(folder, split)
    path = index_path(folder, split)
    # As anybody reads it who has Arrow alone.
    table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    assert table.schema.equals(schema.schema())
    rows = table.to_pylist()
    facts = ("duration", "width", "height", "frames")
    bare = [{key: value for key, value in row.items() if value is not None and key not in facts}
            for row in rows]

    def key(row):
        return row["record"], schema.KINDS.index(row["kind"]), row["item"]

    assert sorted(bare, key=key) == expected_rows(found)
    for row in rows:
        if row["kind"] == "record" and row["id"] is not None:
            for name, value in decoded_facts(found[row["record"]]).items():
                if not (name == "frames" and row[name] is None):  # not every container says it
                    assert row[name] == value
            if row["medium"] != "video":
                assert row["duration"] is None
    index = Index(path)
    assert len(index) == len(found)
    for number, record in enumerate(found):
        if record is None:
            with pytest.raises(RecordError, match="damaged record"):
                index[number]
        else:
            assert index[number] == {k: value for k, value in record.items() if k != "media"}
    for kind, field in schema.FIELDS.items():
        counts = index.counts(kind)
        assert counts.tolist() == [-1 if one is None else len(one[field]) for one in found]
        assert index.table(kind).num_rows == counts[counts > 0].sum()
        assert index.meta["items"][kind] == index.table(kind).num_rows
    assert list(index.texts()) == [one["texts"] if one else [] for one in found]
    for outside in (-1, len(found)):
        with pytest.raises(IndexError):
            index[outside]


def two(number: int, **changes) -> dict:
    return records.record(**({"id": f"r{number}", "kind": "image", "media": image(number % 2),
                              "texts": [f"text {number}", "another"]} | changes))
