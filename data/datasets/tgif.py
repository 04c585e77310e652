"""TGIF-QA, its FrameQA part: questions on animated GIFs that one frame answers."""

from collections.abc import Iterable

from data.datasets.raw import Dataset, Entry, RawFolder, group_by, read_table

_COLUMNS = ("gif_name", "question", "answer", "type", "key", "description")


def read(raw: RawFolder) -> dict[str, Iterable[Entry]]:
    """One record a GIF, with its questions, and its description as its text.

    The file of both splits together is read only where neither split has its own.
    """
    names = {split.lower(): (f"{split}_frameqa_question.csv",) for split in ("Train", "Test")}
    if not any(raw.optional(*files) for files in names.values()):
        names["total"] = ("Total_frameqa_question.csv",)

    def entries(path):
        rows = read_table(path, _COLUMNS, delimiter="\t", odd=raw.odd)
        rows = raw.items(path, rows, dict)
        for name, rows_of in group_by(rows, lambda row: row["gif_name"]).items():
            questions = [
                {
                    "question": row["question"],
                    "answer": row["answer"],
                    "type": row["type"],
                    "id": row["key"],
                }
                for row in rows_of
            ]
            texts = list(dict.fromkeys(row["description"] for row in rows_of))
            yield Entry(name, "video", raw.video(name), {"questions": questions, "texts": texts})

    return {split: entries(path) for split, path in raw.some(names).items()}


DATASETS = (
    Dataset(
        "tgif_frameqa",
        "TGIF-QA, FrameQA",
        "video",
        read,
        {"train": {"questions": 39392}, "test": {"questions": 13691}},
    ),
)
