"""Something-Something v2: what hands do to things, in words where the things are left open."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from data.datasets.raw import Dataset, Entry, RawFolder, read_jsonl, read_lines, said

_NAMES = {"train": "train", "val": "validation", "test": "test"}


_ANSWERS = "test-answers.csv"  # rows ID;TEMPLATE, of the release of 2022


def read(raw: RawFolder) -> dict[str, Iterable[Entry]]:
    """`label` is the template without brackets, the text the sentence with the things filled in."""
    files = {
        split: (f"something-something-v2-{name}.json", f"{name}.json")
        for split, name in _NAMES.items()
    }
    paths = raw.some(files)
    table = raw.optional(_ANSWERS) if "test" in paths else None
    answers = dict(line.split(";", 1) for line in read_lines(table) if ";" in line) if table else {}

    def entries(path: Path) -> Iterator[Entry]:
        def made(item: dict) -> Entry:
            number = said(path, item, "id")
            label = item.get("template") or answers.get(number, "")
            label = said(path, {"template": label}, "template").strip()
            text = said(path, item, "label") if item.get("label") else ""
            fields = {"label": label.replace("[", "").replace("]", ""),
                      "texts": [text] if text else []}
            return Entry(number, "video", raw.video(number), fields)

        yield from raw.items(path, read_jsonl(path, raw.odd), made)

    return {split: entries(path) for split, path in paths.items()}


DATASETS = (
    Dataset(
        "ssv2",
        "Something-Something v2",
        "video",
        read,
        {"train": {"records": 168913}, "val": {"records": 24777}, "test": {"records": 27157}},
    ),
)
