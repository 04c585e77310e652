"""NLVR2 and SNLI-VE: sentences that are true or false of two images, or follow from one or not."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from data.datasets.raw import Dataset, Entry, Missing, RawFolder, group_by, read_jsonl, said


def read_nlvr2(raw: RawFolder) -> dict[str, Iterable[Entry]]:
    """One record a sentence, with its left and its right image; `label` is True or False.

    The images lie in a folder of the split, those of `train` in numbered folders within it.
    """
    names = {split: (f"{split}.json",) for split in ("train", "dev", "test1", "test2")}

    def entries(path: Path) -> Iterator[Entry]:
        def made(item: dict) -> Entry:
            sentence, identifier = said(path, item, "sentence", "identifier")
            folder = str(item.get("directory") or "")
            parents = [f"{parent}/{folder}".strip("/") for parent in raw.folders]
            stem = identifier.rsplit("-", 1)[0]  # the last number is that of the sentence
            sides = [raw.image(f"{stem}-img{side}", *parents, *raw.folders) for side in (0, 1)]
            absent = [side for side in sides if isinstance(side, Missing)]
            fields = {"texts": [sentence], "label": str(item.get("label", ""))}
            return Entry(identifier, "images", absent[0] if absent else sides, fields)

        yield from raw.items(path, read_jsonl(path, raw.odd), made)

    return {split: entries(path) for split, path in raw.some(names).items()}


def read_snli_ve(raw: RawFolder) -> dict[str, Iterable[Entry]]:
    """One record an image of Flickr30K, its hypotheses as questions, their labels as answers."""
    names = {split: (f"snli_ve_{split}.jsonl",) for split in ("train", "dev", "test")}

    def entries(path: Path) -> Iterator[Entry]:
        rows = raw.items(path, read_jsonl(path, raw.odd), lambda item: said(
            path, item, "Flickr30K_ID", "pairID", "sentence2", "gold_label"))
        for image, hypotheses in group_by(rows, lambda row: row[0]).items():
            questions = [{"question": hypothesis, "answer": label, "id": pair}
                         for _, pair, hypothesis, label in hypotheses]
            yield Entry(image, "image", raw.image(image), {"questions": questions})

    return {split: entries(path) for split, path in raw.some(names).items()}


DATASETS = (
    Dataset(
        "nlvr2",
        "NLVR2: is a sentence true of two photographs",
        "images",
        read_nlvr2,
        {
            "train": {"records": 86373},
            "dev": {"records": 6982},
            "test1": {"records": 6967},
            "test2": {"records": 6970},
        },
    ),
    Dataset(
        "snli_ve",
        "SNLI-VE: does a sentence follow from a photograph",
        "image",
        read_snli_ve,
        {
            "train": {"questions": 529527},
            "dev": {"questions": 17858},
            "test": {"questions": 17901},
        },
    ),
)
