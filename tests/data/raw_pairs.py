"""Tiny datasets of sentences, pairs and image folders, in exactly the layout of the raw files."""

import functools
import json
from pathlib import Path

from raw_media import image, put, wanted

from data import media


def _lines(rows: list[dict]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def _table(*rows: str) -> str:
    """Rows written with "|" for tabs."""
    return "".join(row.replace("|", "\t") + "\n" for row in rows)


def _sentences(number: int, *texts: str, label: str = "") -> dict:
    return wanted(str(number), b"", "text", texts=list(texts), label=label)


# {task: (folder, {file: rows}, {split: records})}, with what is odd about each.
_GLUE = {
    "cola": (
        "CoLA",
        {
            "train.tsv": ("gj04|1||Fine by me.", "gj04|0|*|The more me."),
            "dev.tsv": ("gj04|1||He said \"so.",),
            "test.tsv": ("index|sentence", "0|Hidden."),
        },
        {
            "train": [
                _sentences(0, "Fine by me.", label="acceptable"),
                _sentences(1, "The more me.", label="unacceptable"),
            ],
            "validation": [_sentences(0, 'He said "so.', label="acceptable")],
            "test": [_sentences(0, "Hidden.")],
        },
    ),
    "sst2": (
        "SST-2",
        {
            "train.tsv": ("sentence|label", "a fine film |1", "dull |0"),
            "dev.tsv": ("sentence|label", "not bad|1"),
            "test.tsv": ("index|sentence", "0|who knows"),
        },
        {
            "train": [
                _sentences(0, "a fine film ", label="positive"),
                _sentences(1, "dull ", label="negative"),
            ],
            "validation": [_sentences(0, "not bad", label="positive")],
            "test": [_sentences(0, "who knows")],
        },
    ),
    "mrpc": (
        "MRPC",
        {
            "train.tsv": ("\ufeffQuality|#1 ID|#2 ID|#1 String|#2 String", '1|7|8|A "b|A b',
                          "0|9|6|G|H"),
            "dev.tsv": ("Quality|#1 ID|#2 ID|#1 String|#2 String", "0|7|8|C d|E f"),
            "test.tsv": ("index|#1 ID|#2 ID|#1 String|#2 String", "0|7|8|x|y"),
        },
        {
            "validation": [_sentences(0, "C d", "E f", label="not_equivalent")],
            "train": [
                _sentences(0, 'A "b', "A b", label="equivalent"),
                _sentences(1, "G", "H", label="not_equivalent"),
            ],
            "test": [_sentences(0, "x", "y")],
        },
    ),
    "stsb": (
        "STS-B",
        {
            name: (
                "index|genre|filename|year|old_index|source1|source2|sentence1|sentence2|score",
                *(f"{row}|main|f|2012|1|none|none|A plane.|{other}.|{score}"
                  for row, (other, score) in enumerate(rows)),
            )
            for name, rows in (("train.tsv", (("A cat", "0.5"), ("A bird", "1"))),
                               ("dev.tsv", (("A jet", "3.750"),)))
        } | {"test.tsv": ("index|genre|filename|year|old_index|source1|source2|sentence1|sentence2",
                          "0|main|f|2012|1|none|none|x|y")},
        {
            "train": [
                _sentences(0, "A plane.", "A cat.", label="0.5"),
                _sentences(1, "A plane.", "A bird.", label="1"),
            ],
            "validation": [_sentences(0, "A plane.", "A jet.", label="3.750")],
            "test": [_sentences(0, "x", "y")],
        },
    ),
    "qqp": (
        "QQP",
        {
            "train.tsv": (
                "id|qid1|qid2|question1|question2|is_duplicate",
                "5|1|2|How?|Why?|0",
                "cut short",
                "6|3|4|Who?|Who is it?|1",
            ),
            "dev.tsv": ("id|qid1|qid2|question1|question2|is_duplicate", "7|5|6|Is it?|Is it?|1"),
            "test.tsv": ("id|question1|question2", "0|x|y"),
        },
        {
            "validation": [_sentences(0, "Is it?", "Is it?", label="duplicate")],
            "test": [_sentences(0, "x", "y")],
            "train": [
                _sentences(0, "How?", "Why?", label="not_duplicate"),
                _sentences(1, "Who?", "Who is it?", label="duplicate"),
            ]
        },
    ),
    "mnli": (
        "MNLI",
        {
            "train.tsv": (
                "index|promptID|pairID|genre|sentence1|sentence2|label1|gold_label",
                "0|1|1n|x|It snows.|It is hot.|contradiction|contradiction",
                "1|1|1n|x|It snows.|It is cold.|neutral|neutral",
            ),
            "dev_matched.tsv": (
                "index|promptID|pairID|genre|sentence1|sentence2|label1|label2|gold_label",
                "0|1|1n|x|It is.|It is not.|neutral|entailment|contradiction",
            ),
            "dev_mismatched.tsv": (
                "index|promptID|pairID|genre|sentence1|sentence2|label1|label2|gold_label",
                "0|1|1n|x|It rains.|It is wet.|neutral|entailment|entailment",
            ),
            "test_matched.tsv": ("index|promptID|sentence1|sentence2", "0|1|a|b"),
            "test_mismatched.tsv": ("index|promptID|sentence1|sentence2", "0|1|c|d"),
        },
        {
            "train": [
                _sentences(0, "It snows.", "It is hot.", label="contradiction"),
                _sentences(1, "It snows.", "It is cold.", label="neutral"),
            ],
            "validation_matched": [_sentences(0, "It is.", "It is not.", label="contradiction")],
            "validation_mismatched": [
                _sentences(0, "It rains.", "It is wet.", label="entailment")
            ],
            "test_matched": [_sentences(0, "a", "b")],
            "test_mismatched": [_sentences(0, "c", "d")],
        },
    ),
    "qnli": (
        "QNLI",
        {
            "train.tsv": ("index|question|sentence|label", "0|When?|Now.|entailment",
                          "1|Why?|Here.|not_entailment"),
            "dev.tsv": ("index|question|sentence|label", "0|Who?|There.|not_entailment"),
            "test.tsv": ("index|question|sentence", "0|x|y"),
        },
        {
            "train": [
                _sentences(0, "When?", "Now.", label="entailment"),
                _sentences(1, "Why?", "Here.", label="not_entailment"),
            ],
            "validation": [_sentences(0, "Who?", "There.", label="not_entailment")],
            "test": [_sentences(0, "x", "y")],
        },
    ),
    "rte": (
        "RTE",
        {
            "train.tsv": ("index|sentence1|sentence2|label", "0|a|b|not_entailment",
                          "1|d|d|entailment"),
            "dev.tsv": ("index|sentence1|sentence2|label", "0|c|c|entailment"),
            "test.tsv": ("index|sentence1|sentence2", "0|x|y"),
        },
        {
            "train": [
                _sentences(0, "a", "b", label="not_entailment"),
                _sentences(1, "d", "d", label="entailment"),
            ],
            "validation": [_sentences(0, "c", "c", label="entailment")],
            "test": [_sentences(0, "x", "y")],
        },
    ),
}


def _glue(raw: Path, task: str) -> dict[str, list[dict]]:
    folder, files, records = _GLUE[task]
    for name, rows in files.items():
        put(raw / folder / name, _table(*rows))
    return records


GLUE = {f"glue_{task}": functools.partial(_glue, task=task) for task in _GLUE}


def nlvr2(raw: Path) -> dict[str, list[dict]]:
    def item(identifier: str, sentence: str, **more) -> dict:
        address = {"left_url": "http://x.example"}
        return {"identifier": identifier, "sentence": sentence} | address | more

    train = [
        item("train-10-0-0", "Two dogs.", label="True", directory=37, synset="dog"),
        item("train-10-0-1", "A cat.", label="False", directory=37, synset="dog"),
        item("train-11-0-0", "Gone.", label="True", directory=37),
    ]
    put(raw / "data/train.json", _lines(train))
    for split in ("dev", "test1"):
        put(raw / f"data/{split}.json", _lines([item(f"{split}-4-0-0", "One.", label="False")]))
        put(raw / f"images/{split}/{split}-4-0-img0.png", image(4, "PNG"))
        put(raw / f"images/{split}/{split}-4-0-img1.png", image(5, "PNG"))
    put(raw / "data/test2.json", _lines([item("test2-5-1-0", "Both.")]))
    put(raw / "images/train/37/train-10-0-img0.png", image(0, "PNG"))
    put(raw / "images/train/37/train-10-0-img1.png", image(1, "PNG"))
    put(raw / "images/train/37/train-11-0-img0.png", image(1, "PNG"))
    put(raw / "images/test2/test2-5-1-img0.png", image(2, "PNG"))
    put(raw / "images/test2/test2-5-1-img1.png", image(3, "PNG"))
    both = [media.pack_images([image(n, "PNG"), image(n + 1, "PNG")]) for n in (0, 2, 4)]
    return {
        "train": [
            wanted("train-10-0-0", both[0], "images", texts=["Two dogs."], label="True"),
            wanted("train-10-0-1", both[0], "images", texts=["A cat."], label="False"),
        ],
        **{
            split: [wanted(f"{split}-4-0-0", both[2], "images", texts=["One."], label="False")]
            for split in ("dev", "test1")
        },
        "test2": [wanted("test2-5-1-0", both[1], "images", texts=["Both."])],
    }


def snli_ve(raw: Path) -> dict[str, list[dict]]:
    def item(image_id: str, pair: str, label: str, hypothesis: str) -> dict:
        return {
            "annotator_labels": [label],
            "captionID": f"{image_id}.jpg#4",
            "gold_label": label,
            "pairID": f"{image_id}.jpg#4{pair}",
            "sentence1": "The premise that the image stands for.",
            "sentence2": hypothesis,
            "Flickr30K_ID": image_id,
        }

    rows = [
        item("34", "r1n", "neutral", "A man."),
        item("35", "r1e", "entailment", "Some water."),
        item("34", "r1c", "contradiction", "Nobody."),
    ]
    put(raw / "snli_ve_dev.jsonl", _lines(rows))
    put(raw / "snli_ve_train.jsonl", _lines(rows[1:2]))
    put(raw / "snli_ve_test.jsonl", _lines(rows[:1]))
    put(raw / "flickr30k_images/34.jpg", image(4))
    put(raw / "flickr30k_images/35.jpg", image(5))
    asked = [
        [
            {"question": "A man.", "answer": "neutral", "id": "34.jpg#4r1n"},
            {"question": "Nobody.", "answer": "contradiction", "id": "34.jpg#4r1c"},
        ],
        [{"question": "Some water.", "answer": "entailment", "id": "35.jpg#4r1e"}],
    ]
    return {
        "train": [wanted("35", image(5), "image", questions=asked[1])],
        "dev": [
            wanted("34", image(4), "image", questions=asked[0]),
            wanted("35", image(5), "image", questions=asked[1]),
        ],
        "test": [wanted("34", image(4), "image", questions=asked[0][:1])],
    }


def class_folders(raw: Path) -> dict[str, list[dict]]:
    put(raw / "train/n01440764/n01440764_10.JPEG", image(0))
    put(raw / "train/n01440764/n01440764_2.JPEG", image(1))
    put(raw / "train/n02119022/a.png", image(2, "PNG"))
    put(raw / "val/n02119022/ILSVRC2012_val_00000001.JPEG", image(3))
    put(raw / "test/ILSVRC2012_test_00000001.JPEG", image(4))
    put(raw / "train/n01440764/notes.txt", "no image")
    put(raw / "val/LOC_val_solution.csv", "no image")
    return {
        "train": [
            wanted("n01440764/n01440764_10.JPEG", image(0), "image", label="n01440764"),
            wanted("n01440764/n01440764_2.JPEG", image(1), "image", label="n01440764"),
            wanted("n02119022/a.png", image(2, "PNG"), "image", label="n02119022"),
        ],
        "val": [
            wanted("n02119022/ILSVRC2012_val_00000001.JPEG", image(3), "image", label="n02119022")
        ],
        "test": [wanted("ILSVRC2012_test_00000001.JPEG", image(4), "image")],
    }


def text_folder(raw: Path) -> dict[str, list[dict]]:
    put(raw / "train/wiki/00.txt", "A first document.\n\n  The second,  spaced.\n")
    put(raw / "train/web.txt", "On the web\n")
    put(raw / "val/a.txt", "Held out.")
    put(raw / "notes.txt", "beside the splits")

    def said(number: str, text: str) -> dict:
        return wanted(number, b"", "text", texts=[text])

    return {
        "train": [
            said("train/web.txt:1:1", "On the web"),
            said("train/wiki/00.txt:1:1", "A first document."),
            said("train/wiki/00.txt:3:1", "The second, spaced."),
        ],
        "val": [said("val/a.txt:1:1", "Held out.")],
    }
