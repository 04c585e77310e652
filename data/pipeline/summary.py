"""What the splits of a stream hold, by their indexes: items, media, how even the classes are."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data.pipeline.sources import Split, entries, open_split
from data.pipeline.streams import resolve
from data.written.schema import FIELDS, RECORD

_COLUMNS = ("id", "label", "medium", "duration", "width", "height", "bytes", "hash",
            *FIELDS.values())  # fmt: skip


def summary(root: str | Path, stream: Any) -> list[str]:
    """A few lines on each source of a stream; none on one without an index.

    Raises:
        DataError: nothing was prepared there, or an index cannot be used.
    """
    own = resolve(stream)
    return [line for source in entries(own).values()
            for line in _of_split(open_split(source.get("root", "") or own.root or root,
                                             source["split"]))]  # fmt: skip


def _of_split(split: Split) -> Iterator[str]:
    table = split.annotations.table(RECORD, _COLUMNS)
    if table is None:
        return
    sums = {field: pc.sum(table[field]).as_py() or 0 for field in FIELDS.values()}
    said = ", ".join(f"{count:,} {field}" for field, count in sums.items() if count)
    damaged = table["id"].null_count
    yield (f"{split.name}: {len(split):,} records" + (f", {said}" if said else "")
           + (f", {damaged:,} damaged" if damaged else ""))
    yield from _media(table)
    labels = table["label"].filter(pc.not_equal(table["label"], "")).drop_null()
    if len(labels):
        counts = sorted(((one["counts"], one["values"]) for one in
                         labels.value_counts().to_pylist()), key=lambda one: (-one[0], one[1]))
        (most, first), (least, last) = counts[0], counts[-1]
        yield (f"  {len(counts):,} classes of {len(labels):,} records: {first!r} has {most:,} "
               f"({most / len(labels):.1%}), {last!r} {least:,} ({least / len(labels):.1%})")


def _media(table: pa.Table) -> Iterator[str]:
    hashes = table["hash"].drop_null()
    if not len(hashes):
        return
    kinds = sorted(set(table["medium"].unify_dictionaries().combine_chunks().drop_null()
                       .dictionary_decode().unique().to_pylist()))
    sizes = table.select(["width", "height"]).drop_null()
    line = (f"  {len(hashes):,} media ({', '.join(kinds)}), {pc.count_distinct(hashes).as_py():,} "
            f"different, {pc.sum(table['bytes']).as_py() / 1e6:,.1f} MB")
    if len(sizes):
        ends = [f"{name} {pc.min(sizes[name])}..{pc.max(sizes[name])}"
                for name in ("width", "height")]
        line += f"; {', '.join(ends)} pixels"
    yield line
    seconds = table["duration"].drop_null()
    if len(seconds):
        low, middle, high = np.quantile(seconds.to_numpy(), (0.05, 0.5, 0.95))
        total = pc.sum(pc.cast(seconds, pa.float64())).as_py() / 3600
        yield (f"  seconds: median {middle:.1f}, 90 % between {low:.1f} and {high:.1f}; "
               f"{total:,.2f} hours of {len(seconds):,}")
