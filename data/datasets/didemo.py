"""DiDeMo: personal videos with sentences that each describe a moment."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from data.datasets import listed
from data.datasets.raw import (
    Dataset,
    Entry,
    RawFolder,
    group_by,
    read_jsonl,
    said,
    without_suffix,
)


def read(raw: RawFolder) -> dict[str, Iterable[Entry]]:
    """One record a video; its sentences are joined to one paragraph, as retrieval uses them.

    Lists of VindLU have the paragraphs themselves.
    """
    order = ("train", "val", "test")
    layout, paths = raw.first_layout({split: (f"{split}_data.json",) for split in order},
                                     {split: (f"didemo_ret_{split}.json",) for split in order})
    if layout == 1:
        return listed.splits(raw, paths, "video", wanted="caption")

    def entries(path: Path) -> Iterator[Entry]:
        found = raw.items(path, read_jsonl(path, raw.odd),
                          lambda item: said(path, item, "video", "description"))
        for name, items in group_by(found, lambda item: item[0]).items():
            stem = without_suffix(name)
            text = " ".join(sentence.strip() for _, sentence in items)
            yield Entry(stem, "video", raw.video(stem), {"texts": [text]})

    return {split: entries(path) for split, path in paths.items()}


DATASETS = (
    Dataset(
        "didemo",
        "DiDeMo, paragraph to video retrieval",
        "video",
        read,
        {"train": {"records": 8395}, "val": {"records": 1065}, "test": {"records": 1004}},
    ),
)
