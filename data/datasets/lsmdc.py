"""LSMDC 2016: clips of films with a sentence each."""

import re
from collections.abc import Iterable

from data.datasets.raw import Dataset, Entry, RawFolder, group_by, read_rows

FILES = {
    "train": ("LSMDC16_annos_training.csv",),
    "val": ("LSMDC16_annos_val.csv",),
    "test": ("LSMDC16_challenge_1000_publictect.csv",),  # spelt so in the release
}
_TIMES = re.compile(r"_\d\d\.\d\d\.\d\d\.\d+-\d\d\.\d\d\.\d\d\.\d+$")


def read(raw: RawFolder) -> dict[str, Iterable[Entry]]:
    """One record a clip; `group` is the film. Clips lie beside each other or a folder a film."""
    parents = [folder for folder in raw.folders if "/" not in folder]

    def entries(path):
        found = raw.items(path, read_rows(path, 6, raw.odd), list)
        rows = [row for row in found if row[0].strip("<>").lower() != "clip_id"]
        for clip, rows_of in group_by(rows, lambda row: row[0]).items():
            film = _TIMES.sub("", clip)
            places = [place for parent in parents for place in (f"{parent}/{film}", parent)]
            media = raw.video(clip, *(place.lstrip("/") for place in places))
            texts = [row[5] for row in rows_of]
            yield Entry(clip, "video", media, {"texts": texts, "group": film})

    return {split: entries(path) for split, path in raw.some(FILES).items()}


DATASETS = (
    Dataset(
        "lsmdc",
        "LSMDC 2016, text to video retrieval",
        "video",
        read,
        {"train": {"texts": 101079}, "val": {"texts": 7408}, "test": {"texts": 1000}},
    ),
)
