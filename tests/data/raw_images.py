"""Tiny image datasets in exactly the layout of the published raw files, and their records."""

import pickle
import zlib
from pathlib import Path

import numpy as np
import scipy.io
from raw_media import clip, image, put, put_tar, wanted


def _karpathy_image(split: str, name: str, sentences: list[str], **more) -> dict:
    said = [{"tokens": text.lower().split(), "raw": text, "imgid": 0} for text in sentences]
    return {"filename": name, "split": split, "sentences": said, "imgid": 0} | more


def coco_karpathy(raw: Path) -> dict[str, list[dict]]:
    images, records = [], {"train": [], "val": [], "test": []}
    for number, split in enumerate(("test", "restval", "val", "train")):
        folder = "train2014" if split == "train" else "val2014"
        name = f"COCO_{folder}_{number:012d}.jpg"
        texts = [f"Image {number}.", f"It is {split}."]
        images.append(_karpathy_image(split, name, texts, filepath=folder, cocoid=number))
        put(raw / "images" / folder / name, image(number))
        records["train" if split == "restval" else split].append(
            wanted(str(number), image(number), "image", texts=texts)
        )
    put(raw / "dataset_coco.json", {"images": images, "dataset": "coco"})
    return records


def flickr30k_karpathy(raw: Path) -> dict[str, list[dict]]:
    images, records = [], {}
    for number, split in enumerate(("train", "val", "test")):
        name, texts = f"{1000092795 + number}.jpg", [f"People {number}"]
        images.append(_karpathy_image(split, name, texts, sentids=[0]))
        put(raw / "flickr30k-images" / name, image(number))
        records[split] = [wanted(name, image(number), "image", texts=texts)]
    put(raw / "dataset_flickr30k.json", {"images": images, "dataset": "flickr30k"})
    return records


def nocaps(raw: Path) -> dict[str, list[dict]]:
    domains = ("out-domain", "in-domain", "near-domain", "in-domain")
    names = [f"00{number}d2087020901.jpg" for number in range(5)]

    def listed(number: int, **more) -> dict:
        return {
            "id": number,
            "width": 40,
            "height": 20,
            "file_name": names[number],
            "open_images_id": names[number].removesuffix(".jpg"),
            "coco_url": f"https://x.example/val/{names[number]}",
        } | more

    said = [(0, "Out."), (2, "Near."), (1, "In."), (0, "Out again."), (3, "In, too.")]
    put(
        raw / "nocaps_val_4500_captions.json",
        {
            "info": {"version": "0.1"},
            "images": [listed(number, domain=domain) for number, domain in enumerate(domains)],
            "annotations": [
                {"id": number, "image_id": image_id, "caption": caption}
                for number, (image_id, caption) in enumerate(said)
            ],
        },
    )
    put(raw / "nocaps_test_image_info.json", {"images": [listed(4)]})
    for number, name in enumerate(names):
        put(raw / ("test" if number == 4 else "validation") / name, image(number))

    def captioned(number: int, *texts: str) -> dict:
        return wanted(
            str(number), image(number), "image", texts=list(texts), group=domains[number]
        )

    return {
        "in_domain": [captioned(1, "In."), captioned(3, "In, too.")],
        "near_domain": [captioned(2, "Near.")],
        "out_domain": [captioned(0, "Out.", "Out again.")],
        "test": [wanted("4", image(4), "image")],
    }


def coco2014(raw: Path) -> dict[str, list[dict]]:
    def listed(split: str, number: int) -> dict:
        name = f"COCO_{split}_{number:012d}.jpg"
        put(raw / split / name, image(number))
        return {"id": number, "file_name": name, "width": 40, "height": 20}

    said = [(3, "One."), (1, "Two."), (3, "Three.")]
    for split in ("train2014", "val2014"):
        put(
            raw / f"annotations/captions_{split}.json",
            {
                "images": [listed(split, 3), listed(split, 1)],
                "annotations": [
                    {"image_id": number, "caption": text, "id": n}
                    for n, (number, text) in enumerate(said)
                ],
            },
        )
    put(raw / "annotations/image_info_test2014.json", {"images": [listed("test2014", 2)]})
    captioned = [
        wanted("3", image(3), "image", texts=["One.", "Three."]),
        wanted("1", image(1), "image", texts=["Two."]),
    ]
    return {
        "train2014": captioned,
        "val2014": captioned,
        "test2014": [wanted("2", image(2), "image")],
    }


def vqav2(raw: Path) -> dict[str, list[dict]]:
    pets, yes = ["dog"] * 8 + ["cat", "puppy"], ["yes"] * 9 + ["no"]
    asked = [(80, 9, "What is it?"), (81, 30, "Is it?"), (82, 9, "Is so?")]
    _vqav2_questions(raw, "train2014", asked)
    said = [
        _vqav2_annotation(82, 9, "yes", yes, "yes/no"),
        _vqav2_annotation(81, 30, "yes", yes, "yes/no"),
        _vqav2_annotation(80, 9, "dog", pets, "other"),
    ]
    put(raw / "v2_mscoco_train2014_annotations.json", {"annotations": said})
    _vqav2_questions(raw, "val2014", [(85, 40, "Is it so?")])
    said = [_vqav2_annotation(85, 40, "yes", yes, "yes/no")]
    put(raw / "v2_mscoco_val2014_annotations.json", {"annotations": said})
    _vqav2_questions(raw, "test2015", [(90, 7, "How many?")])
    _vqav2_questions(raw, "test-dev2015", [(90, 7, "How many?")])
    for name, number in (("train2014", 9), ("train2014", 30), ("val2014", 40), ("test2015", 7)):
        put(raw / f"{name}/COCO_{name}_{number:012d}.jpg", image(number))

    def record(number, *questions):
        return wanted(str(number), image(number), "image", questions=list(questions))

    what = {"id": "80", "question": "What is it?", "answer": "dog", "answers": pets}
    is_it = {"answer": "yes", "answers": yes, "type": "yes/no"}
    hidden = {"id": "90", "question": "How many?", "answer": ""}
    return {
        "train": [
            record(9, what | {"type": "other"}, {"id": "82", "question": "Is so?"} | is_it),
            record(30, {"id": "81", "question": "Is it?"} | is_it),
        ],
        "val": [record(40, {"id": "85", "question": "Is it so?"} | is_it)],
        "test": [record(7, hidden)],
        "testdev": [record(7, hidden)],
    }


def _vqav2_questions(raw: Path, name: str, asked: list[tuple[int, int, str]]) -> None:
    items = [{"image_id": image_id, "question": text, "question_id": number}
             for number, image_id, text in asked]  # fmt: skip
    put(raw / f"v2_OpenEnded_mscoco_{name}_questions.json", {"questions": items})


def _vqav2_annotation(number: int, image_id: int, best: str, answers: list[str], kind: str) -> dict:
    said = [
        {"answer": answer, "answer_confidence": "yes", "answer_id": index}
        for index, answer in enumerate(answers, 1)
    ]
    return {
        "question_type": "what",
        "multiple_choice_answer": best,
        "answers": said,
        "image_id": image_id,
        "answer_type": kind,
        "question_id": number,
    }


def refcoco(raw: Path, refs: str = "refs(unc).p", splits=("testB", "train", "val", "testA"),
            each: bool = False):
    """Every published variant has this layout; images are 40 x 20 pixels.

    With `each`, they lie elsewhere, and a split may have several.
    """
    references, records = [], {}
    for number, split in enumerate(splits):
        references.append(
            {
                "sent_ids": [2 * number, 2 * number + 1],
                "file_name": f"COCO_train2014_{number:012d}_{number}.jpg",
                "ann_id": 100 + number,
                "ref_id": number,
                "image_id": number,
                "split": split,
                "sentences": [
                    {"tokens": ["left"], "raw": "Left!", "sent_id": 2 * number, "sent": "left"},
                    {"tokens": ["man"], "raw": "man", "sent_id": 2 * number + 1, "sent": "man"},
                ],
                "category_id": 1,
            }
        )
        if not each:
            put(raw / f"train2014/COCO_train2014_{number:012d}.jpg", image(number))
        box = [0.25, 0.1, 0.75, 0.6]
        boxes = [
            {"phrase": "left", "box": box, "id": str(2 * number)},
            {"phrase": "man", "box": box, "id": str(2 * number + 1)},
        ]
        records.setdefault(split, []).append(
            wanted(str(number), image(number), "image", boxes=boxes))
    put(raw / refs, pickle.dumps(references, protocol=0))
    put(
        raw / "instances.json",
        {
            "images": [
                {"id": n, "file_name": f"COCO_train2014_{n:012d}.jpg", "width": 40, "height": 20}
                for n in range(len(splits))
            ],
            "annotations": [
                {"id": 100 + n, "image_id": n, "bbox": [10.0, 2.0, 20.0, 10.0], "category_id": 1}
                for n in range(len(splits))
            ],
        },
    )
    return records


def refcocog(raw: Path):
    return refcoco(raw, "refs(umd).p", ("train", "val", "test"))


def refcoco_union(raw: Path) -> dict[str, list[dict]]:
    """Each set numbers its images from 0 on, so that all share them; 0 is a test image of one."""
    made = {}
    for name, folder, refs, splits in (
            ("refcoco", "refcoco", "refs(unc).p", ("testB", "train", "val", "train", "testA")),
            ("refcoco_plus", "refcoco+", "refs(unc).p",
             ("train", "train", "train", "val", "testA", "testB")),
            ("refcocog", "refcocog", "refs(umd).p", ("train", "train", "test", "test", "val"))):
        own = refcoco(raw / folder, refs, splits, each=True)
        for record in (record for records in own.values() for record in records):
            for box in record["boxes"]:
                box["id"] = f"{name}:{box['id']}"
        made[name] = own
    for number in range(6):
        put(raw / f"coco/train2014/COCO_train2014_{number:012d}.jpg", image(number))
    whole = [made[name]["train"] for name in made]
    first = next(record for record in whole[0] if record["id"] == "1")
    others = [next(record for record in own if record["id"] == "1") for own in whole[1:]]
    boxes = [box for record in (first, *others) for box in record["boxes"]]
    return {"train": [first | {"boxes": boxes}]} | {
        f"{name}_{split}": records for name, own in made.items()
        for split, records in own.items() if split != "train"}


def flowers102(raw: Path) -> dict[str, list[dict]]:
    """As MATLAB wrote them: rows of uint16 and of uint8."""
    for number in range(1, 6):
        put(raw / f"102flowers/jpg/image_{number:05d}.jpg", image(number))
    scipy.io.savemat(raw / "imagelabels.mat", {"labels": np.array([[77, 1, 77, 102, 1]], np.uint8)})
    sets = {"trnid": [[5, 1]], "valid": [[2]], "tstid": [[3, 4]]}
    scipy.io.savemat(raw / "setid.mat", {k: np.array(v, np.uint16) for k, v in sets.items()})

    def record(number: int, label: str) -> dict:
        return wanted(f"image_{number:05d}", image(number), "image", label=label)

    return {
        "train": [record(5, "pink primrose"), record(1, "passion flower")],
        "val": [record(2, "pink primrose")],
        "test": [record(3, "passion flower"), record(4, "blackberry lily")],
    }


def cc3m(raw: Path) -> dict[str, list[dict]]:
    addresses = [f"http://x.example/{n}.jpg" for n in range(3)]
    rows = ['a "very" fine day', "a cat", "the end"]
    pairs = zip(rows, addresses, strict=True)
    put(raw / "Train_GCC-training.tsv", "".join(f"{text}\t{url}\n" for text, url in pairs))
    put(raw / "Validation_GCC-1.1.0-Validation.tsv", f"a val\t{addresses[0]}\n")
    put(raw / "training/00000/000000000.jpg", image(0))
    put(raw / f"training/1_{zlib.crc32(addresses[1].encode())}", image(1, "PNG"))
    put(raw / "training/2.webp", image(2, "WEBP"))
    put(raw / "validation/0.jpg", image(3))
    train = [(image(0), rows[0]), (image(1, "PNG"), rows[1]), (image(2, "WEBP"), rows[2])]
    return {
        "train": [
            wanted(f"{n:09d}", media, "image", texts=[text])
            for n, (media, text) in enumerate(train)
        ],
        "val": [wanted("000000000", image(3), "image", texts=["a val"])],
    }


def cc12m(raw: Path) -> dict[str, list[dict]]:
    put(raw / "cc12m.tsv", "http://x.example/0.jpg\tzero\nhttp://x.example/1.jpg\tone\n")
    put(raw / "images/000000000.jpg", image(0))
    put(raw / "images/000000001.jpg", image(1))
    return {
        "train": [
            wanted("000000000", image(0), "image", texts=["zero"]),
            wanted("000000001", image(1), "image", texts=["one"]),
        ]
    }


def webdataset(raw: Path) -> dict[str, list[dict]]:
    put_tar(
        raw / "00000.tar",
        {
            "000000000.jpg": image(0),
            "000000000.json": {"caption": "zero", "url": "http://x.example", "status": "success"},
            "000000000.txt": "zero",
            "000000001.json": {"caption": "one, from json"},
            "000000001.png": image(1, "PNG"),
        },
    )
    put_tar(raw / "00001.tar", {"000010000.mp4": clip(2), "000010000.txt": "a video"})
    put_tar(raw / "val/00000.tar", {"x.webp": image(3, "WEBP"), "x.cls": "cat"})
    return {
        "train": [
            wanted("000000000", image(0), "image", texts=["zero"]),
            wanted("000000001", image(1, "PNG"), "image", texts=["one, from json"]),
            wanted("000010000", clip(2), texts=["a video"]),
        ],
        "val": [wanted("x", image(3, "WEBP"), "image", label="cat")],
    }
