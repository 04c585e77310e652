"""Images in a folder a class, as ImageNet and most collections of one's own are laid out."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from data.datasets.raw import IMAGE_SUFFIXES, Dataset, Entry, Media, RawFolder
from mplug2_jax.contracts.errors import DataError


def read(raw: RawFolder) -> dict[str, Iterable[Entry]]:
    """`SPLIT/CLASS/*.jpg`; the label is the folder's name. Images right in a split have none.

    A folder that holds classes itself, without splits, is the split `train`.
    """
    splits = {}
    for folder in _folders(raw.root):
        if any(_images(inner) for inner in _folders(folder)):
            splits[folder.name] = _entries(raw.root, folder)
    if not splits and any(_images(folder) for folder in _folders(raw.root)):
        splits["train"] = _entries(raw.root, raw.root)
    if not splits:
        raise DataError(f"--raw={raw.root} has no images: expected SPLIT/CLASS/*.jpg or "
                        "CLASS/*.jpg")
    for folder in _folders(raw.root):
        if "train" in splits and folder.name not in splits and folder.name == "test":
            splits[folder.name] = _entries(raw.root, folder)  # its classes are hidden
    return splits


def _entries(root: Path, split: Path) -> Iterator[Entry]:
    for folder in (split, *_folders(split)):
        label = "" if folder == split else folder.name
        for name in _images(folder):
            path = folder / name
            fields = {"label": label}
            yield Entry(str(path.relative_to(split)), "image",
                        Media(str(path.relative_to(root))), fields)


def _folders(parent: Path) -> list[Path]:
    with os.scandir(parent) as entries:
        return sorted(Path(entry.path) for entry in entries
                      if entry.is_dir() and not entry.name.startswith("."))


def _images(folder: Path) -> list[str]:
    return sorted(name for name in os.listdir(folder) if name.lower().endswith(IMAGE_SUFFIXES))


DATASETS = (
    Dataset("class_folders", "Images in a folder a class, such as ImageNet", "image", read),
)
