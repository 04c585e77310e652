"""MSR-VTT: all captions, the 1k-A retrieval split, and MSRVTT-QA."""

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from data.datasets import listed
from data.datasets.pickles import read_pickle
from data.datasets.raw import (
    Dataset,
    Entry,
    Media,
    Missing,
    OddItem,
    RawFolder,
    group_by,
    read_json,
    read_jsonl,
    read_lines,
    read_table,
    require,
    said,
)
from mplug2_jax.contracts.errors import DataError

TRAIN_VAL, TEST = "train_val_videodatainfo.json", "test_videodatainfo.json"
ALL_1KA = "MSRVTT_data.json"
TRAIN_1KA, TEST_1KA = "MSRVTT_train.9k.csv", "MSRVTT_JSFUSION_test.csv"
_SPLITS = {"train": "train", "validate": "val", "test": "test"}  # as in the files: as here
# The archive that Frozen in Time links to: all captions, and lists of videos in a deep folder.
ARCHIVE, _LISTS = "MSR_VTT.json", "high-quality/structured-symlinks/"
CHOSEN = "jsfusion_val_caption_idx.pkl"  # of a test video's captions the one that is searched with
# Lists of LAVIS, and of VindLU, which MMAction2 has too.
_TOOLBOX = {
    "full": {"train": ("cap_train.json", "msrvtt_ret_train7k.json"), "val": ("cap_val.json",),
             "test": ("cap_test.json",)},
    "1ka": {"train": ("msrvtt_ret_train9k.json",), "test": ("msrvtt_ret_test1k.json",)},
}


def _captions(raw: RawFolder, path: Path) -> tuple[list[dict], dict[str, list[str]]]:
    """The videos of an annotation file, and the captions by video in the order of `sen_id`."""
    videos, sentences = require(path, read_json(path), "videos", "sentences")

    def made(sentence: dict) -> tuple[str, int, str]:
        try:
            number = int(sentence.get("sen_id") or 0)
        except (TypeError, ValueError, OverflowError, AttributeError):
            raise OddItem(path, "its sen_id is no number") from None
        return said(path, sentence, "video_id"), number, said(path, sentence, "caption")

    by_video = group_by(raw.items(path, sentences, made), lambda sentence: sentence[0])
    return videos, {
        video: [text for _, _, text in sorted(found, key=lambda sentence: sentence[1])]
        for video, found in by_video.items()
    }


def _entry(raw: RawFolder, video: str, category, texts: list[str]) -> Entry:
    group = "" if category is None else str(category)
    return Entry(video, "video", raw.video(video), {"texts": texts, "group": group})


def read_full(raw: RawFolder) -> dict[str, Iterable[Entry]]:
    """The official split: 20 captions a video, `group` is the number of the category."""
    layout, paths = raw.first_layout(
        {"train": (TRAIN_VAL,), "test": (TEST,)}, {"all": (ARCHIVE,)}, _TOOLBOX["full"])
    if layout == 1:
        return _archive(raw, paths["all"], {split: f"{split}_list_full.txt"
                                            for split in ("train", "val", "test")})
    if layout == 2:
        return listed.splits(raw, paths, "video", wanted="caption")
    splits: dict[str, list[Entry]] = {"train": [], "val": [], "test": []}
    for path in (raw.file(TRAIN_VAL), raw.file(TEST)):
        videos, captions = _captions(raw, path)

        def made(video: dict, path: Path = path, captions: dict = captions) -> tuple[str, Entry]:
            name, split = said(path, video, "video_id", "split")
            if split not in _SPLITS:
                raise OddItem(path, f"{name} is of split {split!r}, not of {', '.join(_SPLITS)}")
            texts = captions.get(name, [])
            return _SPLITS[split], _entry(raw, name, video.get("category"), texts)

        for split, entry in raw.items(path, videos, made):
            splits[split].append(entry)
    return splits


def _archive(raw: RawFolder, path: Path, lists: dict[str, str], chosen: dict | None = None
             ) -> dict[str, Iterable[Entry]]:  # fmt: skip
    """Splits of lists of videos, with the captions of `MSR_VTT.json`.

    Args:
        raw: the folder.
        path: of the captions.
        lists: {split: file}.
        chosen: of the split "test" the number of each video's one caption.
    """
    annotations = require(path, read_json(path), "annotations")
    captions = group_by(raw.items(path, annotations, lambda item: said(
        path, item, "image_id", "caption")), lambda caption: caption[0])

    def entries(split: str, names: Path) -> Iterator[Entry]:
        for name in read_lines(names):
            texts = [text for _, text in captions.get(name, ())]
            if split == "test" and chosen is not None:
                number = chosen.get(name)
                texts = texts[number : number + 1] if isinstance(number, int) else []
                if not texts:
                    raw.odd(names, name, f"no caption of it is chosen by {CHOSEN}")
                    continue
            yield _entry(raw, name, None, texts)

    found = {split: _deep(raw, path, name) for split, name in lists.items()}
    if not any(found.values()):
        raise DataError(f"{path} has captions, but {_LISTS}{' or '.join(lists.values())} "
                        "is not there")
    return {split: entries(split, names) for split, names in found.items() if names}


def _deep(raw: RawFolder, path: Path, name: str) -> Path | None:
    """A list beside the archive's captions, or where it was unpacked."""
    above = os.path.relpath(path.parent.parent, raw.root)
    beside = [] if above.startswith("..") else [os.path.normpath(f"{above}/{_LISTS}{name}")]
    return raw.optional(*beside, _LISTS + name, name)


def read_1ka(raw: RawFolder) -> dict[str, Iterable[Entry]]:
    """1k-A: 9,000 videos with 20 captions, 1,000 with the one sentence that retrieval tests."""
    layout, paths = raw.first_layout(
        {"all": (ALL_1KA,), "train": (TRAIN_1KA,), "test": (TEST_1KA,)}, {"all": (ARCHIVE,)},
        _TOOLBOX["1ka"])
    if layout == 1:
        number = _deep(raw, paths["all"], CHOSEN)
        if number is None:
            raise DataError(f"{paths['all']} has captions, but {_LISTS}{CHOSEN} is not there")
        return _archive(raw, paths["all"], {"train": "train_list_jsfusion.txt",
                                            "test": "val_list_jsfusion.txt"}, read_pickle(number))
    if layout == 2:
        return listed.splits(raw, paths, "video", wanted="caption")
    train, test, path = raw.file(TRAIN_1KA), raw.file(TEST_1KA), raw.file(ALL_1KA)
    videos, captions = _captions(raw, path)
    category = dict(raw.items(path, videos, lambda video: (
        said(path, video, "video_id"), video.get("category"))))

    def train_entries() -> Iterator[Entry]:
        for row in read_table(train, ("video_id",), odd=raw.odd):
            name = row["video_id"]
            yield _entry(raw, name, category.get(name), captions.get(name, []))

    def test_entries() -> Iterator[Entry]:
        for row in read_table(test, ("video_id", "sentence"), odd=raw.odd):
            yield _entry(raw, row["video_id"], category.get(row["video_id"]), [row["sentence"]])

    return {"train": train_entries(), "test": test_entries()}


def qa_splits(
    raw: RawFolder, find: Callable[[str], tuple[str, Media | Missing]], name: str
) -> dict[str, Iterable[Entry]]:
    """MSRVTT-QA and MSVD-QA, which share a layout: one record a video, with all its questions.

    Args:
        raw: the folder.
        find: gives (record id, media) of a video's number.
        name: "msrvtt" or "msvd", as toolboxes' lists have it.
    """
    order = ("train", "val", "test")
    layout, paths = raw.first_layout(
        {split: (f"{split}_qa.json",) for split in order},
        {split: (f"qa_{split}.json", f"{name}_qa_{split}.json") for split in order})
    if layout == 1:
        return listed.splits(raw, paths, "video", wanted="question")

    def entries(path: Path) -> Iterator[Entry]:
        def made(item: dict) -> tuple[str, str, dict]:
            text, answer = said(path, item, "question", "answer")
            asked = {"question": text, "answer": answer, "id": str(item.get("id", ""))}
            return said(path, item, "video_id"), str(item.get("category_id", "")), asked

        found = raw.items(path, read_jsonl(path, raw.odd), made)
        for number, items in group_by(found, lambda item: item[0]).items():
            name, media = find(number)
            questions = [asked for _, _, asked in items]
            yield Entry(name, "video", media, {"questions": questions, "group": items[0][1]})

    return {split: entries(path) for split, path in paths.items()}


def read_qa(raw: RawFolder) -> dict[str, Iterable[Entry]]:
    """MSRVTT-QA, whose videos are those of MSR-VTT."""
    return qa_splits(raw, lambda number: (f"video{number}", raw.video(f"video{number}")), "msrvtt")


DATASETS = (
    Dataset(
        "msrvtt",
        "MSR-VTT captions, official split",
        "video",
        read_full,
        {
            "train": {"records": 6513, "texts": 130260},
            "val": {"records": 497, "texts": 9940},
            "test": {"records": 2990, "texts": 59800},
        },
    ),
    Dataset(
        "msrvtt_1ka",
        "MSR-VTT, the 1k-A (JSFusion) split of retrieval",
        "video",
        read_1ka,
        {
            "train": {"records": 9000, "texts": 180000},
            "test": {"records": 1000, "texts": 1000},
        },
    ),
    Dataset(
        "msrvtt_qa",
        "MSRVTT-QA",
        "video",
        read_qa,
        {
            "train": {"questions": 158581},
            "val": {"questions": 12278},
            "test": {"questions": 72821},
        },
    ),
)
