"""DiDeMo: personal videos with sentences that each describe a moment."""

from collections.abc import Iterable

from data.datasets.raw import (
    Dataset,
    Entry,
    RawFolder,
    group_by,
    read_json,
    require,
    without_suffix,
)


def read(raw: RawFolder) -> dict[str, Iterable[Entry]]:
    """One record a video; its sentences are joined to one paragraph, as retrieval uses them."""
    files = {split: (f"{split}_data.json",) for split in ("train", "val", "test")}

    def entries(path):
        by_video = group_by(read_json(path), lambda item: require(path, item, "video"))
        for name, items in by_video.items():
            sentences = [require(path, item, "description").strip() for item in items]
            stem = without_suffix(name)
            yield Entry(stem, "video", raw.video(stem), {"texts": [" ".join(sentences)]})

    return {split: entries(path) for split, path in raw.some(files).items()}


DATASETS = (
    Dataset(
        "didemo",
        "DiDeMo, paragraph to video retrieval",
        "video",
        read,
        {"train": {"records": 8395}, "val": {"records": 1065}, "test": {"records": 1004}},
    ),
)
