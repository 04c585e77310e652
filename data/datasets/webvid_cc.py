"""WebVid, CC3M, CC12M and SBU: texts of the web, with the media that could be had."""

import functools
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path

from data.datasets.downloads import Downloads, caption_beside
from data.datasets.raw import (
    Dataset,
    Entry,
    Media,
    Missing,
    OddItem,
    RawFolder,
    read_json,
    read_table,
    require,
    said,
)
from data.datasets.tables import COLUMNS, header, tab_rows
from data.datasets.texts import lines
from mplug2_jax.contracts.errors import DataError

_WEBVID = {split: (f"results_2M_{split}.csv", f"results_10M_{split}.csv")
           for split in ("train", "val")}
_CC3M = {
    "train": ("Train_GCC-training.tsv", "Train-GCC-training.tsv", "cc3m.tsv", "cc3m_train.tsv"),
    "val": ("Validation_GCC-1.1.0-Validation.tsv", "cc3m_val.tsv", "cc3m_validation.tsv"),
}
# Folders that the images of a split may lie in, besides `images`.
_IMAGES = {"train": ("training", "train"), "val": ("validation", "val")}


def read_webvid(raw: RawFolder) -> dict[str, Iterable[Entry]]:
    """Videos `videos/{page_dir}/{videoid}.mp4`, or without `videos`; `group` is the page.

    Also as video2dataset writes them, by their address.
    """

    def entries(path: Path) -> Iterator[Entry]:
        columns = ("videoid", "page_dir", "name")
        downloads: list[Downloads] = []

        def made(row: dict) -> Entry:
            number, page, texts = row["videoid"], row["page_dir"], [row["name"]]
            media = raw.video(number, f"videos/{page}", page, "videos")
            if isinstance(media, Missing) and (address := row.get("contentUrl")):
                if not downloads:  # only where one is missing: all files are looked at
                    folders = ("videos", *_shards(raw))
                    downloads.append(Downloads(raw, folders, "video", lambda: 0))
                media = downloads[0].addressed(address) or media
                texts = _texts(raw, path, media, texts)
            return Entry(number, "video", media, {"texts": texts, "group": page})

        yield from raw.items(path, read_table(path, columns, odd=raw.odd), made)

    return {split: entries(path) for split, path in raw.some(_WEBVID).items()}


def _shards(raw: RawFolder) -> list[str]:
    """Folders of img2dataset's shards right in the raw folder."""
    return [folder for folder in raw.tree.inner("") if folder.isdecimal()]


def _read_cc(
    raw: RawFolder, files: dict[str, tuple[str, ...]], caption: int, folder: str
) -> dict[str, Iterable[Entry]]:
    """Rows of caption and address; an image goes by its address or the row's number, from 0.

    A first row of column names, which img2dataset's recipe puts there, is none of these. What a
    file beside an image says is its caption.

    Args:
        raw: the folder.
        files: the splits' files.
        caption: column of the caption, without such a row; the other one is the address.
        folder: that images may lie in, besides `images` and those of the split.
    """

    def entries(split: str, path: Path) -> Iterator[Entry]:
        own = ("images", *_IMAGES[split], folder, f"{folder}_{split}", *_shards(raw))
        images = Downloads(raw, own, "image", lambda: sum(1 for _ in _rows(path, caption)))
        for number, (place, row) in enumerate(_rows(path, caption)):
            try:
                if isinstance(row, OddItem):
                    raise row
                text, address = row
                media = images.find(number, address)
                texts = _texts(raw, path, media, [text])
            except OddItem as error:
                raw.odd(path, place, error.reason)
                continue
            yield Entry(f"{number:09d}", "image", media, {"texts": texts})

    found = raw.some(files)
    for path in found.values():
        first = list(itertools.islice(_rows(path, caption), 100))
        if all(isinstance(row, OddItem) for _, row in first):
            why = [OddItem(path, row.reason, place) for place, row in first]
            raise why[0] if why else OddItem(path, "has no rows")
    return {split: entries(split, path) for split, path in found.items()}


def _rows(path: Path, caption: int) -> Iterator[tuple[str, tuple[str, str] | OddItem]]:
    """(place, (caption, address)) of each row, which also counts where it is odd."""
    places = (caption, 1 - caption)
    for number, (place, row) in enumerate(tab_rows(path, 2, quoted=True)):
        if not isinstance(row, OddItem):
            names = header(row) if number == 0 else {}
            if names:
                places = tuple(next((names[name] for name in known if name in names), other)
                               for known, other in zip(COLUMNS, places, strict=True))
                continue
            row = tuple(row[place] for place in places)
        yield place, row


def _texts(raw: RawFolder, path: Path, media: Media | Missing, texts: list[str]) -> list[str]:
    """The captions beside a file, or those given."""
    if isinstance(media, Missing):
        return texts
    try:
        found = caption_beside(raw, media)
    except ValueError as error:
        raise OddItem(path, f"the file beside {media.path} {error}") from None
    return found if found and any(found) else texts


def read_sbu(raw: RawFolder) -> dict[str, Iterable[Entry]]:
    """Rows as of Conceptual Captions; an image may also go by its own name at the address.

    Of `sbu-captions-all.json`, or of two files of which one has the addresses, the other the texts.
    """
    path = raw.optional("sbu-captions-all.json")
    if path:
        addresses, texts = require(path, read_json(path), "image_urls", "captions")
    else:
        path, other = (raw.file(f"SBU_captioned_photo_dataset_{what}.txt")
                       for what in ("urls", "captions"))
        # Every line, also the empty ones: they belong to those of the other file.
        addresses, texts = ([line.strip() for line in lines(one)] for one in (path, other))
    if len(addresses) != len(texts):
        raise DataError(f"{path}: {len(addresses):,} addresses for {len(texts):,} captions")

    def entries() -> Iterator[Entry]:
        folders = ("images", "dataset", "train", "sbu", *_shards(raw))
        images = Downloads(raw, folders, "image", lambda: len(addresses), named=True)

        def made(row: tuple[int, tuple]) -> Entry:
            number, (address, text) = row
            address, text = said(path, {"url": address, "caption": text}, "url", "caption")
            media = images.find(number, address)
            return Entry(f"{number:09d}", "image", media,
                         {"texts": _texts(raw, path, media, [text])})

        yield from raw.items(path, enumerate(zip(addresses, texts, strict=True)), made)

    return {"train": entries()}


DATASETS = (
    Dataset("webvid", "WebVid-2M", "video", read_webvid),
    Dataset(
        "cc3m",
        "Conceptual Captions 3M",
        "image",
        functools.partial(_read_cc, files=_CC3M, caption=0, folder="cc3m"),
        {"train": {"records": 3318333}, "val": {"records": 15840}},
    ),
    Dataset(
        "cc12m",
        "Conceptual 12M",
        "image",
        # Here the address comes first.
        functools.partial(_read_cc, files={"train": ("cc12m.tsv",)}, caption=1, folder="cc12m"),
        {"train": {"records": 12423374}},
    ),
    Dataset("sbu", "SBU captioned photographs", "image", read_sbu, {"train": {"records": 1000000}}),
)
