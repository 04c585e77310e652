"""Images of COCO, whatever year's names they have: many datasets are of them."""

import os
import re

from data.datasets.raw import Media, Missing, RawFolder

# 2017 divides and names the images of 2014 otherwise; `unlabeled2017` is of no dataset here.
_FOLDERS_2017 = ("train2017", "val2017")
_NUMBER = re.compile(r"(\d{12})(?:_\d+)?$")  # RefCOCO's names have the object's number behind


def number_of(name: str) -> int | None:
    """The number in a name: 9 of `COCO_train2014_000000000009.jpg` and `000000000009.jpg`."""
    found = _NUMBER.search(os.path.splitext(os.path.basename(name))[0])
    return int(found[1]) if found else None


def image(raw: RawFolder, number: int, year: str) -> Media | Missing:
    """The image of a number.

    Args:
        raw: the folder.
        number: of the image.
        year: the folder and the part of its name, "train2014"; else it is looked for by its name of
            2017, in the folders of that year too.
    """
    below = [os.path.join(parent, year) for parent in raw.folders]
    media = raw.image(f"COCO_{year}_{number:012d}", *below, *raw.folders)
    if isinstance(media, Missing) and year != "test2015":
        new = [os.path.join(parent, name) for parent in raw.folders for name in _FOLDERS_2017]
        found = raw.image(f"{number:012d}", *new, *below, *raw.folders)
        media = media if isinstance(found, Missing) else found
    return media
