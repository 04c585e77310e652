"""Something-Something v2: what hands do to things, in words where the things are left open."""

from collections.abc import Iterable
from pathlib import Path

from data.datasets.raw import Dataset, Entry, RawFolder, read_json, require

_NAMES = {"train": "train", "val": "validation", "test": "test"}


def read(raw: RawFolder) -> dict[str, Iterable[Entry]]:
    """`label` is the template without brackets, the text the sentence with the things filled in."""
    files = {
        split: (f"something-something-v2-{name}.json", f"{name}.json")
        for split, name in _NAMES.items()
    }

    def entries(path: Path):
        for item in read_json(path):
            number = str(require(path, item, "id"))
            label = item.get("template", "").replace("[", "").replace("]", "")
            texts = [item["label"]] if item.get("label") else []
            yield Entry(number, "video", raw.video(number), {"label": label, "texts": texts})

    return {split: entries(path) for split, path in raw.some(files).items()}


DATASETS = (
    Dataset(
        "ssv2",
        "Something-Something v2",
        "video",
        read,
        {"train": {"records": 168913}, "val": {"records": 24777}, "test": {"records": 27157}},
    ),
)
