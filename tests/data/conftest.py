"""A miniature of the demo corpus, and hand-made datasets with bad records, for the data tests."""

import dataclasses
from pathlib import Path

import ml_collections
import pytest
import tensorflow_datasets as tfds
from data_helpers import SIZES
from raw_media import clip, image, put, put_tar

from data.demo import builder as moving_digits_builder
from data.prepare import builder
from data.written import reading
from mplug2_jax.preprocess.tokenizer import Tokenizer, load_tokenizer


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    """Folder of the miniature corpus with seed 0."""
    out = tmp_path_factory.mktemp("corpus")
    moving_digits_builder.prepare(out, SIZES, processes=1)
    return out


@pytest.fixture(scope="session")
def other_corpora(tmp_path_factory):
    """Folders of the miniature corpus written again: (with the same seed, with seed 1)."""
    folders = []
    for seed in (0, 1):
        folders.append(tmp_path_factory.mktemp(f"seed{seed}"))
        moving_digits_builder.prepare(
            folders[-1], dataclasses.replace(SIZES, seed=seed), processes=1
        )
    return folders


@pytest.fixture(scope="session")
def tokenizer(corpus) -> Tokenizer:
    return load_tokenizer(corpus / moving_digits_builder.VOCABULARY)


@pytest.fixture
def stream():
    """Makes a stream of the miniature corpus: `stream(split='video_test', ...)`."""

    def make(**changes) -> ml_collections.ConfigDict:
        defaults = dict(
            split="video_train",
            batch_size=8,
            frames=3,
            image_size=32,
            text_length=24,
            prompt_length=16,
            target_length=4,
            crop_area=(0.7, 1.0),
            expand="record",
        )
        return ml_collections.ConfigDict(defaults | changes)

    return make


@pytest.fixture
def warn_every_time(monkeypatch, tmp_path):
    """Warnings that come once a process come anew; indexes of the cache are this test's."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    reading.warn_once.cache_clear()


class HandMade(builder.RecordBuilder):
    """Records that a test made."""

    name = "hand_made"
    VERSION = tfds.core.Version("1.0.0")


@pytest.fixture
def write_records(tmp_path):
    """Writes records as a dataset, gives its folder: `write_records({'train': [record, ...]})`."""

    def write(splits: dict[str, list[dict]]):
        makers = {name: (lambda made=made: made) for name, made in splits.items()}
        builder.write(HandMade, tmp_path, makers, {"seed": 0})
        return tmp_path

    return write


@pytest.fixture(scope="module")
def raw(tmp_path_factory) -> Path:
    """Clips, pictures, frames and a tar of them, that tables of one's own are about."""
    folder = tmp_path_factory.mktemp("raw")
    for number in range(4):
        put(folder / f"clips/{number}.mp4", clip(number))
        put(folder / f"pictures/{number}.jpg", image(number))
        put(folder / f"frames/{number + 8}.jpg", image(number))  # 8, 9, 10, 11
    put_tar(folder / "packed/some.tar", {"a/x.mp4": clip(1), "a/y.jpg": image(1), "y.txt": "no"})
    return folder
