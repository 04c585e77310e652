"""Images in a folder a class, as ImageNet and most collections of one's own are laid out."""

import os
from collections.abc import Iterable, Iterator

from data.datasets.raw import Dataset, Entry, Media, RawFolder, kind_of
from mplug2_jax.contracts.errors import DataError


def read(raw: RawFolder) -> dict[str, Iterable[Entry]]:
    """`SPLIT/CLASS/*.jpg`; the label is the folder's name. Images right in a split have none.

    A folder that holds classes itself, without splits, is the split `train`.
    """
    tree = raw.tree
    outer = tree.inner("")
    splits = {folder: _entries(raw, folder) for folder in outer
              if any(_images(raw, inner) for inner in tree.inner(folder))}
    if not splits and any(_images(raw, folder) for folder in outer):
        splits["train"] = _entries(raw, "")
    if not splits:
        raise DataError(f"--raw={raw.root} has no images: expected SPLIT/CLASS/*.jpg or "
                        "CLASS/*.jpg")
    if "train" in splits and "test" in outer and "test" not in splits:
        splits["test"] = _entries(raw, "test")  # its classes are hidden
    return splits


def _entries(raw: RawFolder, split: str) -> Iterator[Entry]:
    for folder in (split, *raw.tree.inner(split)):
        label = "" if folder == split else os.path.basename(folder)
        for name in _images(raw, folder):
            place = os.path.join(folder, name)
            yield Entry(os.path.relpath(place, split or "."), "image", Media(place),
                        {"label": label})


def _images(raw: RawFolder, folder: str) -> list[str]:
    return sorted(name for name in raw.tree.listing(folder).files
                  if kind_of(name) == "image" and not name.startswith("."))


DATASETS = (
    Dataset("class_folders", "Images in a folder a class, such as ImageNet", "image", read),
)
