"""Every raw format, written as it is published: raw files -> ArrayRecord -> batch."""

import ml_collections
import numpy as np
import pytest
import tensorflow_datasets as tfds
from raw_media import put
from raw_miniatures import MINIATURES

from data.datasets import DATASETS
from data.media import unpack_images
from data.pipeline import eval_batches, open_split, train_batches
from data.prepare import prepare
from mplug2_jax.contracts.errors import DataError
from mplug2_jax.preprocess.image import decode_image, resize
from mplug2_jax.preprocess.text import clean_caption, clean_question
from mplug2_jax.preprocess.tokenizer import load_tokenizer
from mplug2_jax.preprocess.video import decode_video

SIDE, TEXT, PROMPT, TARGET = 16, 80, 60, 20
FRAMES = {"text": 0, "image": 1, "video": 2, "images": 2}
_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"


@pytest.fixture(scope="module")
def letters(tmp_path_factory):
    """A tokenizer that spells, so that no text is lost."""
    path = tmp_path_factory.mktemp("vocab") / "vocab.txt"
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    path.write_text("\n".join([*special, *_LETTERS, *(f"##{c}" for c in _LETTERS)]) + "\n")
    return load_tokenizer(path)


def stream(records: list[dict], split: str, expand: str = "record") -> ml_collections.ConfigDict:
    """A stream that asks for all that the records of a split have."""
    asked = all(q["answer"] for record in records for q in record["questions"])
    asked = asked and all(record["questions"] for record in records)
    said = all(record["texts"] for record in records)
    return ml_collections.ConfigDict(
        dict(
            split=split,
            batch_size=8,
            frames=min(FRAMES[record["kind"]] for record in records),
            image_size=SIDE,
            text_length=TEXT if said else 0,
            prompt_length=PROMPT if asked else 0,
            target_length=TARGET if asked else 0,
            crop_area=(1.0, 1.0),
            expand=expand,
        )
    )


def pixels(record: dict, frames: int) -> np.ndarray:
    if record["kind"] == "image":
        return resize(decode_image(record["media"])[None], SIDE)
    if record["kind"] == "images":
        images = [decode_image(data)[None] for data in unpack_images(record["media"])]
        return np.concatenate([resize(image, SIDE) for image in images])
    if record["end"]:  # of Kinetics: the second of three seconds, at 8 frames a second
        whole = resize(decode_video(record["media"], 24), SIDE)
        return whole[[9, 13]]  # the middle ones of frames 8..11 and 12..15
    return resize(decode_video(record["media"], frames), SIDE)


def comparable(record: dict) -> dict:
    """Boxes are stored in single precision."""
    boxes = [
        box | {"box": [float(np.float32(number)) for number in box["box"]]}
        for box in record["boxes"]
    ]
    return record | {"boxes": boxes}


@pytest.mark.parametrize("name", DATASETS)
def test_raw_files_become_records_and_batches(name, tmp_path, letters, capsys):
    expected = MINIATURES[name](tmp_path / "raw")
    sizes = prepare(DATASETS[name], tmp_path / "raw", tmp_path / "out", shard_records=2)
    assert sizes == {split: len(records) for split, records in expected.items()}
    for split, records in expected.items():
        source = open_split(tmp_path / "out", split)
        stored = [source[index] for index in range(len(source))]
        assert stored == [comparable(record) for record in records]
        check_batches(tmp_path / "out", split, records, letters)
    classes = sorted({r["label"] for records in expected.values() for r in records} - {""})
    file = next((tmp_path / "out").glob("*/*/dataset_info.json")).with_name("classes.txt")
    assert (file.read_text().splitlines() if file.exists() else []) == classes
    # No published size of a miniature is right, and each is said with both numbers.
    warned = capsys.readouterr().err
    for split, sizes in DATASETS[name].published.items():
        for key, size in sizes.items():
            if split in expected:
                assert f"{split} has" in warned and f"{key}, published are {size:,}" in warned


def check_batches(root, split, records, letters) -> None:
    whole = stream(records, split)
    (batch,) = list(eval_batches(root, whole, letters))
    assert batch["example_mask"].tolist() == [True] * len(records) + [False] * (8 - len(records))
    for row, record in enumerate(records):
        if whole.frames:
            np.testing.assert_array_equal(batch["video"][row], pixels(record, whole.frames))
        if whole.text_length:
            text = letters.decode(batch["text"][row]).replace(" ", "")
            assert text == clean_caption(record["texts"][0], TEXT).replace(" ", "")
    if whole.target_length:
        asked = [(record, q) for record in records for q in record["questions"]]
        (batch,) = list(eval_batches(root, stream(records, split, "question"), letters))
        for row, (_, question) in enumerate(asked):
            prompt = letters.decode(batch["prompt"][row]).replace(" ", "")
            assert prompt == clean_question(question["question"], PROMPT).replace(" ", "")
            target = letters.decode(batch["target"][row]).replace(" ", "")
            assert target == question["answer"].replace(" ", "")
    step = next(train_batches(root, {"s": whole}, letters, seed=0, threads=0))["s"]
    assert step["example_mask"].all()
    for row, index in enumerate(step["pair_id"]):
        assert not whole.text_length or letters.decode(step["text"][row]).replace(" ", "") in [
            clean_caption(text, TEXT).replace(" ", "") for text in records[index]["texts"]
        ]


def test_tfds_reads_what_was_written(tmp_path):
    expected = MINIATURES["vqav2"](tmp_path / "raw")
    prepare(DATASETS["vqav2"], tmp_path / "raw", tmp_path / "out", shard_records=1)
    builder = tfds.builder_from_directory(str(tmp_path / "out/vqav2/1.0.0"))
    assert builder.info.splits["train"].num_shards == 2
    assert builder.info.splits["train"].shard_lengths == [1, 1]
    example = builder.as_data_source("train")[0]
    assert example["id"] == b"9"
    assert example["media"] == expected["train"][0]["media"]
    assert list(example["questions"]["answer_count"]) == [10, 10]
    assert [answer.decode() for answer in example["answers"]] == (
        expected["train"][0]["questions"][0]["answers"]
        + expected["train"][0]["questions"][1]["answers"]
    )


def test_long_lines_of_text_become_several_records_and_files_alone_are_the_training_split(tmp_path):
    words = [f"word{number}" for number in range(200)]
    put(tmp_path / "raw/b.txt", "short\n" + " ".join(words) + "\n")
    put(tmp_path / "raw/a.txt", "first")
    prepare(DATASETS["text_folder"], tmp_path / "raw", tmp_path / "out", shard_records=2)
    split = open_split(tmp_path / "out", "train")
    assert [(record["id"], *record["texts"]) for record in (split[n] for n in range(5))] == [
        ("a.txt:1:1", "first"), ("b.txt:1:1", "short"),
        *((f"b.txt:2:{start + 1}", " ".join(words[start:start + 96])) for start in (0, 96, 192))]


def test_several_splits_are_read_as_one(tmp_path):
    expected = MINIATURES["vqav2"](tmp_path / "raw")
    prepare(DATASETS["vqav2"], tmp_path / "raw", tmp_path / "out")
    both = open_split(tmp_path / "out", "train+val")
    assert sorted(both[n]["id"] for n in range(len(both))) == sorted(
        record["id"] for split in ("train", "val") for record in expected[split])
    with pytest.raises(DataError, match="no split 'train\\+dev'"):
        open_split(tmp_path / "out", "train+dev")


def test_every_dataset_has_a_miniature():
    assert MINIATURES.keys() == DATASETS.keys()
