"""ImageNet and GLUE as TFDS writes them, read as records."""

import importlib
import io

import ml_collections
import numpy as np
import pytest
import tensorflow_datasets as tfds
from raw_media import image
from raw_tfds import write

from data.datasets import flowers
from data.pipeline import eval_batches, open_split, train_batches
from mplug2_jax.contracts.errors import DataError
from mplug2_jax.preprocess.image import decode_image, resize

CLASSES = ["tench", "goldfish", "great white shark"]


def test_imagenet_becomes_labelled_images(tmp_path, tokenizer):
    root = write(
        tmp_path,
        "imagenet2012",
        {
            "image": tfds.features.Image(encoding_format="jpeg"),
            "label": tfds.features.ClassLabel(names=CLASSES),
            "file_name": tfds.features.Text(),
        },
        {"validation": [
            {"image": io.BytesIO(image(n)), "label": label, "file_name": f"val_{n}.JPEG"}
            for n, label in enumerate((2, 0, -1))
        ]},
    )
    source = open_split(root, "validation")
    records = [source[index] for index in range(3)]
    assert [record["label"] for record in records] == ["great white shark", "tench", ""]
    assert [record["id"] for record in records] == ["val_0.JPEG", "val_1.JPEG", "val_2.JPEG"]
    assert [record["media"] for record in records] == [image(n) for n in range(3)]
    sizes = dict(text_length=0, prompt_length=0, target_length=0, crop_area=(1.0, 1.0))
    stream = ml_collections.ConfigDict(
        dict(split="validation", batch_size=3, frames=1, image_size=16, expand="record", **sizes)
    )
    (batch,) = list(eval_batches(root, stream, tokenizer))
    expected = [resize(decode_image(image(n))[None], 16) for n in range(3)]
    np.testing.assert_array_equal(batch["video"], expected)
    assert next(train_batches(root, {"s": stream}, tokenizer, 0))["s"]["example_mask"].all()


def test_flowers_have_the_same_names_from_tfds_and_from_their_own_files():
    builder = importlib.import_module(
        "tensorflow_datasets.datasets.oxford_flowers102.oxford_flowers102_dataset_builder")
    assert list(flowers.NAMES) == builder._NAMES


@pytest.mark.parametrize(
    ("names", "label", "stored", "words"),
    [
        (("sentence",), tfds.features.ClassLabel(names=["negative", "positive"]), 1, "positive"),
        (("question", "sentence"), tfds.features.ClassLabel(names=["entailment", "not"]), -1, ""),
        (("hypothesis", "premise"), tfds.features.ClassLabel(names=["yes", "no"]), 0, "yes"),
        (("sentence2", "sentence1"), tfds.features.Scalar(np.float32), 3.75, "3.75"),
    ],
)
def test_glue_becomes_labelled_sentences(names, label, stored, words, tmp_path):
    text = tfds.features.Text()
    root = write(
        tmp_path,
        "glue",
        {name: text for name in names} | {"label": label, "idx": np.int32},
        {"validation": [{name: f"the {name}" for name in names} | {"label": stored, "idx": 7}]},
    )
    record = open_split(root, "validation")[0]
    order = {"hypothesis": ("premise", "hypothesis"), "sentence2": ("sentence1", "sentence2")}
    assert record["texts"] == [f"the {name}" for name in order.get(names[0], names)]
    assert (record["id"], record["kind"], record["label"]) == ("7", "text", words)
    assert record["media"] == b"" and record["questions"] == []


def test_other_features_are_refused(tmp_path):
    root = write(tmp_path, "sounds", {"audio": tfds.features.Text()},
                 {"validation": [{"audio": "x"}]})
    with pytest.raises(DataError, match="sounds has the features audio: only records"):
        open_split(root, "validation")
