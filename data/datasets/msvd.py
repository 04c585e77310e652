"""MSVD (the Microsoft video description corpus): captions, and MSVD-QA."""

from collections.abc import Iterable
from pathlib import Path

from data.datasets import listed
from data.datasets.msrvtt import qa_splits
from data.datasets.pickles import read_pickle
from data.datasets.raw import (
    Dataset,
    Entry,
    Media,
    Missing,
    OddItem,
    RawFolder,
    read_lines,
)
from mplug2_jax.contracts.errors import DataError

DESCRIPTIONS, MAPPING = "AllVideoDescriptions.txt", "youtube_mapping.txt"
PICKLED = "raw-captions.pkl"  # in place of the descriptions, beside CLIP4Clip's lists


def _mapping(raw: RawFolder) -> dict[str, str]:
    """{'vid1': name of the clip on YouTube}, as `youtube_mapping.txt` says; {} without it."""
    path = raw.optional(MAPPING)

    def made(line: str) -> tuple[str, str]:
        words = line.split()
        if len(words) != 2:
            raise OddItem(path, f"{line!r} is not `<clip> vid<number>`")
        return words[1], words[0]

    return dict(raw.items(path, read_lines(path), made)) if path else {}


def _find(raw: RawFolder, clip: str, numbered: str | None) -> Media | Missing:
    """A clip by either of its names."""
    media = raw.video(clip)
    if isinstance(media, Missing) and numbered:
        media = raw.video(numbered)
    return media


def _captions(path: Path) -> dict[str, list[str]]:
    """The captions of each clip, of the descriptions or of words in lists."""
    captions: dict[str, list[str]] = {}
    if path.name == PICKLED:
        found = read_pickle(path)
        try:
            return {clip: [" ".join(words) for words in said] for clip, said in found.items()}
        except (AttributeError, TypeError):
            raise DataError(f"{path} does not hold lists of words by clip") from None
    for line in read_lines(path):
        if not line.startswith("#"):
            clip, _, sentence = line.partition(" ")
            captions.setdefault(clip, []).append(sentence.strip())
    return captions


def read_captions(raw: RawFolder) -> dict[str, Iterable[Entry]]:
    """Captions of the clips that the list files name; clips go by their name on YouTube."""
    order = ("train", "val", "test")
    layout, lists = raw.first_layout({split: (f"{split}_list.txt",) for split in order},
                                     {split: (f"cap_{split}.json",) for split in order})
    if layout == 1:
        return listed.splits(raw, lists, "video", wanted="caption")
    captions = _captions(raw.file(DESCRIPTIONS, PICKLED))
    by_number = _mapping(raw)
    numbers = {clip: number for number, clip in by_number.items()}

    def entries(path):
        for name in read_lines(path):
            clip = by_number.get(name, name)  # some lists have `vid<number>`
            media = _find(raw, clip, numbers.get(clip))
            yield Entry(clip, "video", media, {"texts": captions.get(clip, [])})

    return {split: entries(path) for split, path in lists.items()}


def read_qa(raw: RawFolder) -> dict[str, Iterable[Entry]]:
    """MSVD-QA; clips are `vid<number>`, or by `youtube_mapping.txt` their name on YouTube."""
    clips = _mapping(raw)

    def find(number: str) -> tuple[str, Media | Missing]:
        name = f"vid{number}"
        return name, _find(raw, name, clips.get(name))

    return qa_splits(raw, find, "msvd")


DATASETS = (
    Dataset(
        "msvd",
        "MSVD captions",
        "video",
        read_captions,
        {"train": {"records": 1200}, "val": {"records": 100}, "test": {"records": 670}},
    ),
    Dataset(
        "msvd_qa",
        "MSVD-QA",
        "video",
        read_qa,
        {
            "train": {"questions": 30933},
            "val": {"questions": 6415},
            "test": {"questions": 13157},
        },
    ),
)
