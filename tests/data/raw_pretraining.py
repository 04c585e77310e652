"""Tiny corpora for pretraining, and prepared JSON lists, in exactly the layout of the raw files."""

import bz2
import gzip
import json
from pathlib import Path

from raw_media import image, put, wanted


def _lines(rows: list[dict]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def _said(number: str, text: str) -> dict:
    return wanted(number, b"", "text", texts=[text])


def _page(number: int, title: str, text: str) -> dict:
    return {"id": str(number), "revid": "7", "url": f"https://en.wikipedia.org/wiki?curid={number}",
            "title": title, "text": text}


def wikipedia(raw: Path) -> dict[str, list[dict]]:
    put(raw / "AA/wiki_00", _lines([
        _page(12, "Anarchism", "Anarchism is\n\na  philosophy."), _page(25, "Redirect", "")]))
    put(raw / "AA/wiki_01.bz2", bz2.compress(_lines([_page(39, "Albedo", "Albedo is 1 share.")])))
    put(raw / "AB/wiki_00.gz", gzip.compress(_lines([_page(290, "A", "A is a letter.")])))
    put(raw / "README", "no text")
    return {"train": [
        _said("AA/wiki_00:1:1", "Anarchism is a philosophy."),
        _said("AA/wiki_01.bz2:1:1", "Albedo is 1 share."),
        _said("AB/wiki_00.gz:1:1", "A is a letter."),
    ]}


def c4(raw: Path) -> dict[str, list[dict]]:
    def put_shard(name: str, *texts: str) -> None:
        rows = [{"text": text, "timestamp": "2019-04-25T12:57:54Z", "url": "https://x.example"}
                for text in texts]
        put(raw / "en" / name, gzip.compress(_lines(rows)))

    put_shard("c4-train.00000-of-01024.json.gz", "Beginners class.\nIn Missoula!", "Second.")
    put_shard("c4-train.00001-of-01024.json.gz", "Third.")
    put_shard("c4-validation.00000-of-00008.json.gz", "Held out.")
    return {
        "train": [
            _said("en/c4-train.00000-of-01024.json.gz:1:1", "Beginners class. In Missoula!"),
            _said("en/c4-train.00000-of-01024.json.gz:2:1", "Second."),
            _said("en/c4-train.00001-of-01024.json.gz:1:1", "Third."),
        ],
        "val": [_said("en/c4-validation.00000-of-00008.json.gz:1:1", "Held out.")],
    }


def json_lines(raw: Path) -> dict[str, list[dict]]:
    put(raw / "train/books.jsonl", _lines([{"text": "One book."}, {"text": "Another.", "n": 1}]))
    put(raw / "validation/x.jsonl", _lines([{"text": "To look at."}]))
    put(raw / "test.json.gz", gzip.compress(_lines([{"text": "To test."}])))
    return {
        "train": [_said("train/books.jsonl:1:1", "One book."),
                  _said("train/books.jsonl:2:1", "Another.")],
        "val": [_said("validation/x.jsonl:1:1", "To look at.")],
        "test": [_said("test.json.gz:1:1", "To test.")],
    }


def visual_genome(raw: Path) -> dict[str, list[dict]]:
    """Images are 40 x 20 pixels; the third is one that COCO tests on, the fourth says nothing."""
    def region(number: int, phrase: str, x: int, y: int, width: int, height: int) -> dict:
        return {"region_id": number, "image_id": 1, "phrase": phrase, "x": x, "y": y,
                "width": width, "height": height}

    put(raw / "image_data.json", [
        {"image_id": number, "width": 40, "height": 20, "coco_id": coco, "flickr_id": None,
         "url": f"https://x.example/VG_100K/{number}.jpg"}
        for number, coco in ((1, None), (2, 900), (3, 901), (4, None))])
    put(raw / "region_descriptions.json", [
        {"id": 1, "regions": [
            region(1382, "the clock is green", 10, 2, 20, 10),
            region(1383, "shade on the street ", -4, 10, 50, 30),
            region(1384, "the clock is green", 20, 0, 20, 10),
            region(1385, "a line", 40, 0, 0, 10)]},
        {"id": 2, "regions": [region(1400, "a man", 0, 0, 40, 20)]},
        {"id": 3, "regions": [region(1500, "a tested dog", 0, 0, 20, 20)]},
        {"id": 4, "regions": []},
    ])
    put(raw / "question_answers.json", [
        {"id": number, "qas": [{"qa_id": 986000 + number, "image_id": number, "a_objects": [],
                                "q_objects": [], "question": "What is seen?", "answer": answer}]}
        for number, answer in ((1, "Green clock."), (2, "A man"), (3, "Dog."))])
    put(raw / "coco/dataset_coco.json", {"dataset": "coco", "images": [
        {"cocoid": 900, "split": "restval"}, {"cocoid": 901, "split": "test"}]})
    for number in (1, 2, 3):
        put(raw / ("VG_100K_2" if number == 2 else "VG_100K") / f"{number}.jpg", image(number))
    put(raw / "train2014/1.jpg", b"of another set")

    def record(number: int, texts: list[str], boxes: list[dict], answer: str) -> dict:
        asked = {"question": "What is seen?", "answer": answer, "id": str(986000 + number)}
        return wanted(str(number), image(number), "image", texts=texts, boxes=boxes,
                      questions=[asked])

    clock = "the clock is green"
    return {
        "train": [
            record(1, [clock, "shade on the street", "a line"], [
                {"phrase": clock, "box": [0.25, 0.1, 0.75, 0.6], "id": "1382"},
                {"phrase": "shade on the street", "box": [0.0, 0.5, 1.0, 1.0], "id": "1383"},
                {"phrase": clock, "box": [0.5, 0.0, 1.0, 0.5], "id": "1384"}], "green clock"),
            record(2, ["a man"], [{"phrase": "a man", "box": [0.0, 0.0, 1.0, 1.0], "id": "1400"}],
                   "a man"),
        ],
        "coco_val_test": [
            record(3, ["a tested dog"],
                   [{"phrase": "a tested dog", "box": [0.0, 0.0, 0.5, 1.0], "id": "1500"}], "dog")],
    }


def sbu(raw: Path) -> dict[str, list[dict]]:
    put(raw / "sbu-captions-all.json", {
        "image_urls": [f"http://static.flickr.com/2723/438544{n}_b0f29.jpg" for n in range(3)],
        "user_ids": ["47889917@N08"] * 3,
        "captions": ["A walking stick", "Interior design", "the view"]})
    put(raw / "images/00000/000000000.jpg", image(0))
    put(raw / "images/4385441_b0f29.jpg", image(1))
    put(raw / "images/00000/000000002.png", image(2, "PNG"))
    return {"train": [
        wanted("000000000", image(0), "image", texts=["A walking stick"]),
        wanted("000000001", image(1), "image", texts=["Interior design"]),
        wanted("000000002", image(2, "PNG"), "image", texts=["the view"]),
    ]}


def gqa(raw: Path) -> dict[str, list[dict]]:
    def put_split(split: str, *asked: tuple[str, str, str, str | None]) -> None:
        put(raw / f"questions1.2/{split}_balanced_questions.json", {
            number: {"imageId": name, "question": text, "isBalanced": True, "groups": {},
                     "types": {"structural": "verify"}} | (
                {} if answer is None else {"answer": answer, "fullAnswer": f"It is {answer}."})
            for number, name, text, answer in asked})

    put_split("train", ("02930152", "2354786", "Is the sky dark?", "yes"),
              ("07333408", "n161313", "What is white?", "pipe"),
              ("07333405", "2354786", "What is it?", "sky"))
    put_split("testdev", ("201307251", "n161313", "Is it so?", "no"))
    put_split("test", ("201971873", "2354786", "Is it long?", None))
    for number, name in enumerate(("2354786", "n161313")):
        put(raw / f"images/{name}.jpg", image(number))

    def record(name: str, number: int, *asked: tuple[str, str, str]) -> dict:
        return wanted(name, image(number), "image", questions=[
            {"id": key, "question": text, "answer": answer} for key, text, answer in asked])

    return {
        "train": [
            record("2354786", 0, ("02930152", "Is the sky dark?", "yes"),
                   ("07333405", "What is it?", "sky")),
            record("n161313", 1, ("07333408", "What is white?", "pipe"))],
        "testdev": [record("n161313", 1, ("201307251", "Is it so?", "no"))],
        "test": [record("2354786", 0, ("201971873", "Is it long?", ""))],
    }


def albef_json(raw: Path) -> dict[str, list[dict]]:
    put(raw / "vg_caption.json", [
        {"image": "/export/share/datasets/vision/visual-genome/image/2.jpg", "caption": "a road"},
        {"image": "/export/share/datasets/vision/coco/val2014/9.jpg", "caption": ["one", "two"]},
        {"image": "/export/share/datasets/vision/visual-genome/image/2.jpg", "caption": "a car"}])
    put(raw / "coco-val.json", [{"image": "val2014/9.jpg", "image_id": "9", "caption": ["three"]}])
    put(raw / "answer_list.json", ["net", "pitcher"])
    put(raw / "visual-genome/image/2.jpg", image(2))
    put(raw / "coco/val2014/9.jpg", image(9))
    put(raw / "other/2.jpg", b"another image of that name")
    road, pair = "/export/share/datasets/vision/visual-genome/image/2.jpg", "val2014/9.jpg"
    return {
        "coco_val": [wanted(pair, image(9), "image", texts=["three"])],
        "vg_caption": [
            wanted(road, image(2), "image", texts=["a road", "a car"]),
            wanted(f"/export/share/datasets/vision/coco/{pair}", image(9), "image",
                   texts=["one", "two"]),
        ],
    }


def mplug_vqa(raw: Path) -> dict[str, list[dict]]:
    people = ["net"] * 6 + ["netting"] * 4
    coco, genome = "val2014/COCO_val2014_000000262148.jpg", "VG_100K/3.jpg"
    shown = {"dataset": "vqa", "image": coco, "object_label": "man&&tennis racket",
             "ocr": [[[1, 2, 3, 4], "STOP!"], [[5, 6, 7, 8], "Main-St"]]}
    put(raw / "vqa_train_ocr.json", [
        shown | {"question_id": 262148000, "question": "What is it?", "answer": people},
        shown | {"question_id": 262148001, "question": "Is it so?", "answer": ["yes"] * 10,
                 "ocr": []}])
    put(raw / "vg_qa.json", [{"question_id": 986769, "question": "What is white?", "dataset": "vg",
                              "image": genome, "answer": "pipe"}])
    for name, question in (("nominival", "Who?"), ("minival", "When?")):
        put(raw / f"vqa_{name}_ocr.json", [
            shown | {"question_id": 2, "question": question, "answer": people}])
    put(raw / "vqa_test_ocr.json",
        [shown | {"question_id": 1, "question": "Where?"}])
    put(raw / "answer_list.json", ["net"])
    put(raw / coco, image(1))
    put(raw / "images" / genome, image(3))
    tags = {"ocr": "STOP! Main-St", "objects": "man tennis racket"}
    return {
        "vg_qa": [wanted(genome, image(3), "image", questions=[
            {"question": "What is white?", "answer": "pipe", "id": "986769"}])],
        "vqa_test_ocr": [wanted(coco, image(1), "image", questions=[
            {"question": "Where?", "answer": "", "id": "1"} | tags])],
        **{f"vqa_{name}_ocr": [wanted(coco, image(1), "image", questions=[
            {"question": question, "answer": "net", "answers": people, "id": "2"} | tags])]
            for name, question in (("nominival", "Who?"), ("minival", "When?"))},
        "vqa_train_ocr": [wanted(coco, image(1), "image", questions=[
            {"question": "What is it?", "answer": "net", "answers": people, "id": "262148000"}
            | tags,
            {"question": "Is it so?", "answer": "yes", "answers": ["yes"] * 10, "id": "262148001"}
            | tags | {"ocr": ""}])],
    }
