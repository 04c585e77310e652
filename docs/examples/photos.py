"""A dataset of one's own: photos and what they show, in a table beside them.

    python -m data.prepare photos --raw=DIR --out=OUT

reads `DIR/photos.csv`, with a line for every caption: split, photo, caption. The folder of this
file must be on PYTHONPATH.
"""

from collections.abc import Iterable, Iterator

from data.datasets.raw import Dataset, Entry, RawFolder, group_by, read_table, without_suffix


def read(raw: RawFolder) -> dict[str, Iterable[Entry]]:
    """One record a photo, with all of its captions."""
    lines = list(read_table(raw.file("photos.csv"), ("split", "photo", "caption")))

    def entries(of_split: list[dict]) -> Iterator[Entry]:
        for photo, captions in group_by(of_split, lambda line: line["photo"]).items():
            name = without_suffix(photo)
            texts = [line["caption"] for line in captions]
            yield Entry(name, "image", raw.image(name), {"texts": texts})

    splits = group_by(lines, lambda line: line["split"])
    return {split: entries(of_split) for split, of_split in splits.items()}


DATASETS = (Dataset("photos", "photos with captions in a table", "image", read),)
