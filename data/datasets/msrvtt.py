"""MSR-VTT: all captions, the 1k-A retrieval split, and MSRVTT-QA."""

from collections.abc import Iterable
from pathlib import Path

from data.datasets.raw import Dataset, Entry, RawFolder, group_by, read_json, read_table, require
from mplug2_jax.contracts.errors import DataError

TRAIN_VAL, TEST = "train_val_videodatainfo.json", "test_videodatainfo.json"
ALL_1KA = "MSRVTT_data.json"
TRAIN_1KA, TEST_1KA = "MSRVTT_train.9k.csv", "MSRVTT_JSFUSION_test.csv"
_SPLITS = {"train": "train", "validate": "val", "test": "test"}  # as in the files: as here


def _captions(path: Path) -> tuple[list[dict], dict[str, list[str]]]:
    """The videos of an annotation file, and the captions by video in the order of `sen_id`."""
    videos, sentences = require(path, read_json(path), "videos", "sentences")
    by_video = group_by(sentences, lambda sentence: require(path, sentence, "video_id"))
    captions = {}
    for video, said in by_video.items():
        said = sorted(said, key=lambda sentence: int(sentence.get("sen_id", 0)))
        captions[video] = [require(path, sentence, "caption") for sentence in said]
    return videos, captions


def _entry(raw: RawFolder, video: str, category, texts: list[str]) -> Entry:
    group = "" if category is None else str(category)
    return Entry(video, "video", raw.video(video), {"texts": texts, "group": group})


def read_full(raw: RawFolder) -> dict[str, Iterable[Entry]]:
    """The official split: 20 captions a video, `group` is the number of the category."""
    splits: dict[str, list[Entry]] = {"train": [], "val": [], "test": []}
    for path in (raw.file(TRAIN_VAL), raw.file(TEST)):
        videos, captions = _captions(path)
        for video in videos:
            name, split = require(path, video, "video_id", "split")
            texts = captions.get(name, [])
            if split not in _SPLITS:
                raise DataError(
                    f"{path}: {name} is of split {split!r}, not of {', '.join(_SPLITS)}"
                )
            splits[_SPLITS[split]].append(_entry(raw, name, video.get("category"), texts))
    return splits


def read_1ka(raw: RawFolder) -> dict[str, Iterable[Entry]]:
    """1k-A: 9,000 videos with 20 captions, 1,000 with the one sentence that retrieval tests."""
    train, test, path = raw.file(TRAIN_1KA), raw.file(TEST_1KA), raw.file(ALL_1KA)
    videos, captions = _captions(path)
    category = {require(path, video, "video_id"): video.get("category") for video in videos}

    def train_entries():
        for row in read_table(train, ("video_id",)):
            name = row["video_id"]
            yield _entry(raw, name, category.get(name), captions.get(name, []))

    def test_entries():
        for row in read_table(test, ("video_id", "sentence")):
            yield _entry(raw, row["video_id"], category.get(row["video_id"]), [row["sentence"]])

    return {"train": train_entries(), "test": test_entries()}


def qa_splits(raw: RawFolder, find) -> dict[str, Iterable[Entry]]:
    """MSRVTT-QA and MSVD-QA, which share a layout: one record a video, with all its questions.

    Args:
        raw: the folder.
        find: gives (record id, media) of a video's number.
    """
    files = {split: (f"{split}_qa.json",) for split in ("train", "val", "test")}

    def entries(path: Path):
        by_video = group_by(read_json(path), lambda item: require(path, item, "video_id"))
        for number, items in by_video.items():
            questions = []
            for item in items:
                question, answer = require(path, item, "question", "answer")
                number_of = str(item.get("id", ""))
                questions.append({"question": question, "answer": answer, "id": number_of})
            group = str(items[0].get("category_id", ""))
            name, media = find(number)
            yield Entry(name, "video", media, {"questions": questions, "group": group})

    return {split: entries(path) for split, path in raw.some(files).items()}


def read_qa(raw: RawFolder) -> dict[str, Iterable[Entry]]:
    """MSRVTT-QA, whose videos are those of MSR-VTT."""
    return qa_splits(raw, lambda number: (f"video{number}", raw.video(f"video{number}")))


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
