"""Tables of one's own in every format, written by what people write them with.

`write(name, path, rows)` writes rows, dicts of the same columns, and gives the path of the table.
"""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from raw_media import put

from data.datasets import Missing, RawFolder, own

Rows = list[dict]


def separated(rows: Rows, separator: str = ",", ending: str = "\n") -> str:
    file = io.StringIO()
    writer = csv.DictWriter(file, list(rows[0]), delimiter=separator, lineterminator=ending)
    writer.writeheader()
    writer.writerows({name: json.dumps(value) if isinstance(value, list) else value
                      for name, value in row.items()} for row in rows)
    return file.getvalue()


def _text(make: Callable[[Rows], str], suffix: str, encoding: str = "utf-8"):
    def write(folder: Path, rows: Rows) -> Path:
        path = folder / f"table{suffix}"
        path.write_bytes(make(rows).encode(encoding))
        return path

    return write


def _columns(rows: Rows) -> dict[str, list]:
    return {name: [row[name] for row in rows] for name in rows[0]}


def _parquet(folder: Path, rows: Rows) -> Path:
    pq.write_table(pa.table(_columns(rows)), folder / "table.parquet", row_group_size=2)
    return folder / "table.parquet"


def _arrow(folder: Path, rows: Rows) -> Path:
    with pa.ipc.new_file(str(folder / "table.arrow"), pa.table(_columns(rows)).schema) as file:
        file.write_table(pa.table(_columns(rows)), max_chunksize=2)
    return folder / "table.arrow"


def save(folder: Path, table: pa.Table, features: dict | None = None, split: str = "train") -> Path:
    """A folder as `Dataset.save_to_disk` of `datasets` 4.4 leaves it (arrow_dataset.py)."""
    folder.mkdir(parents=True)
    half = max(1, table.num_rows // 2)
    files = [f"data-{n:05d}-of-00002.arrow" for n in range(2)]
    for name, part in zip(files, (table[:half], table[half:]), strict=True):
        with pa.ipc.new_stream(str(folder / name), table.schema) as stream:
            stream.write_table(part)
    (folder / "state.json").write_text(json.dumps({
        "_data_files": [{"filename": name} for name in files], "_fingerprint": "0",
        "_format_columns": None, "_format_kwargs": {}, "_format_type": None,
        "_output_all_columns": False, "_split": split}))
    (folder / "dataset_info.json").write_text(json.dumps({"features": features or {}}))
    return folder


def _saved(folder: Path, rows: Rows) -> Path:
    return save(folder / "saved", pa.table(_columns(rows)))


def _saved_dict(folder: Path, rows: Rows) -> Path:
    for split in ("train", "validation"):
        kept = [row for row in rows if row["split"] == split]
        table = pa.table(_columns(kept)).drop_columns("split")
        save(folder / "saved" / split, table, split=split)
    (folder / "saved/dataset_dict.json").write_text('{"splits": ["train", "validation"]}')
    return folder / "saved"


def _by_split(rows: Rows) -> str:
    splits = dict.fromkeys(row["split"] for row in rows)
    return json.dumps({split: [row for row in rows if row["split"] == split] for split in splits})


WRITERS: dict[str, Callable[[Path, Rows], Path]] = {
    "csv": _text(separated, ".csv"),
    "csv of Excel": _text(lambda rows: separated(rows, ";", "\r\n"), ".csv", "utf-8-sig"),
    "csv in UTF-16": _text(separated, ".CSV", "utf-16"),
    "tsv": _text(lambda rows: separated(rows, "\t"), ".tsv"),
    "json": _text(json.dumps, ".json"),
    "json of columns": _text(lambda rows: json.dumps(_columns(rows)), ".json", "utf-8-sig"),
    "json of columns by row": _text(lambda rows: json.dumps(
        {name: dict(enumerate(one)) for name, one in _columns(rows).items()}), ".json"),
    "json by id": _text(lambda rows: json.dumps(
        {f"row {n}": row for n, row in enumerate(rows)}), ".json"),
    "json below a name": _text(lambda rows: json.dumps({"info": {}, "data": rows}), ".json"),
    "json by split": _text(_by_split, ".json"),
    "jsonl": _text(lambda rows: "".join(f"{json.dumps(row)}\n" for row in rows), ".jsonl"),
    "jsonl named json": _text(lambda rows: "".join(f"{json.dumps(row)}\n" for row in rows),
                              ".json"),
    "parquet": _parquet,
    "arrow": _arrow,
    "datasets": _saved,
    "datasets of splits": _saved_dict,
}


def read(raw: Path, *tables: Path, roots=(), boxes="", share="", seed=0, **given) -> dict:
    """The entries of each split."""
    options = own.Options(tuple(map(str, tables)), given, tuple(map(str, roots)), boxes, share,
                          seed)
    return {split: list(entries)
            for split, entries in own.dataset(options).read(RawFolder(raw)).items()}


def table(folder: Path, rows: list[dict], name: str = "t.json") -> Path:
    put(folder / name, rows)
    return folder / name


def one(raw: Path, tmp_path: Path, row: dict, **options):
    """The entry of a table of one row."""
    ((entry,),) = read(raw, table(tmp_path, [row]), **options).values()
    return entry


def faults(entries) -> list[str]:
    return [entry.media.expected for entry in entries if isinstance(entry.media, Missing)]


def stored(out: Path) -> dict[str, bytes]:
    """All shards and indexes of what was prepared."""
    return {path.name: path.read_bytes() for path in (out / "table/1.0.0").iterdir()
            if "array_record" in path.name or path.suffix in (".arrow", ".tsv")}


def embedded(paths: list[str | None], data: list[bytes | None], **more) -> pa.Table:
    values = [{"bytes": one, "path": path} for one, path in zip(data, paths, strict=True)]
    return pa.table({"image": pa.array(values, pa.struct([("bytes", pa.binary()),
                                                          ("path", pa.string())]))} | more)
