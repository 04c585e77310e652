"""MSVD (the Microsoft video description corpus): captions, and MSVD-QA."""

from collections.abc import Iterable

from data.datasets.msrvtt import qa_splits
from data.datasets.raw import Dataset, Entry, Media, Missing, RawFolder, read_lines
from mplug2_jax.contracts.errors import DataError

DESCRIPTIONS, MAPPING = "AllVideoDescriptions.txt", "youtube_mapping.txt"


def _mapping(raw: RawFolder) -> dict[str, str]:
    """{'vid1': name of the clip on YouTube}, as `youtube_mapping.txt` says; {} without it."""
    path = raw.optional(MAPPING)
    clips = {}
    for line in read_lines(path) if path else ():
        words = line.split()
        if len(words) != 2:
            raise DataError(f"{path}: the line {line!r} is not `<clip> vid<number>`")
        clips[words[1]] = words[0]
    return clips


def _find(raw: RawFolder, clip: str, numbered: str | None) -> Media | Missing:
    """A clip by either of its names."""
    media = raw.video(clip)
    if isinstance(media, Missing) and numbered:
        media = raw.video(numbered)
    return media


def read_captions(raw: RawFolder) -> dict[str, Iterable[Entry]]:
    """Captions of the clips that the list files name; clips go by their name on YouTube."""
    files = {split: (f"{split}_list.txt",) for split in ("train", "val", "test")}
    descriptions, lists = raw.file(DESCRIPTIONS), raw.some(files)
    captions: dict[str, list[str]] = {}
    for line in read_lines(descriptions):
        if not line.startswith("#"):
            clip, _, sentence = line.partition(" ")
            captions.setdefault(clip, []).append(sentence.strip())
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

    def find(number) -> tuple[str, Media | Missing]:
        name = f"vid{number}"
        return name, _find(raw, name, clips.get(name))

    return qa_splits(raw, find)


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
