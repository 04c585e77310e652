"""Kinetics-400, 600 and 700: ten seconds of a human action."""

from collections.abc import Iterable
from pathlib import Path

from data.datasets.raw import Dataset, Entry, Missing, RawFolder, read_table
from mplug2_jax.contracts.errors import DataError

_FILES = {
    "train": ("train.csv", "*_train.csv"),
    "val": ("val.csv", "validate.csv", "*_val.csv", "*_validate.csv"),
    "test": ("test.csv", "*_test.csv"),
}
_FOLDERS = {"train": ("train",), "val": ("val", "validate", "validation"), "test": ("test",)}


def read(raw: RawFolder) -> dict[str, Iterable[Entry]]:
    """Clips `{youtube_id}_{start:06d}_{end:06d}`, or whole videos with start and end.

    Whole videos go by `{youtube_id}`. Both lie in the split's folder or in `videos`, in either
    beside each other or in a folder a label.
    """

    def entries(split: str, path: Path):
        parents = []
        for parent in (*_FOLDERS[split], *(f"videos/{f}" for f in _FOLDERS[split]), "videos", ""):
            if (raw.root / parent).is_dir():
                parents.append(parent)
        for row in read_table(path, ("youtube_id", "time_start", "time_end")):
            name, label = row["youtube_id"], row.get("label", "")
            start, end = (_seconds(path, row[key]) for key in ("time_start", "time_end"))
            clip = f"{name}_{int(start):06d}_{int(end):06d}"
            places = [p for parent in parents for p in (f"{parent}/{label}", parent)]
            places = [place.lstrip("/") for place in places]
            fields = {"label": label}
            media = raw.video(clip, *places)
            if isinstance(media, Missing):
                whole = raw.video(name, *places)
                if not isinstance(whole, Missing):
                    media, fields = whole, fields | {"start": start, "end": end}
            yield Entry(clip, "video", media, fields)

    return {split: entries(split, path) for split, path in raw.some(_FILES).items()}


def _seconds(path: Path, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise DataError(f"{path}: {text!r} is not a time in seconds") from None


def _dataset(classes: int, published: dict[str, int]) -> Dataset:
    sizes = {split: {"records": size} for split, size in published.items()}
    return Dataset(f"kinetics{classes}", f"Kinetics-{classes}", "video", read, sizes)


DATASETS = (
    _dataset(400, {"train": 246245, "val": 20000, "test": 40000}),
    _dataset(600, {"train": 392622, "val": 30000, "test": 60000}),
    _dataset(700, {"train": 545317, "val": 35000, "test": 70000}),
)
