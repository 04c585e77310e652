"""What an index says: of every dataset what a scan of its records finds, in parts and sums too."""

import itertools
import logging

import numpy as np
import pytest
from index_reference import assert_is_of, two
from raw_media import clip
from raw_miniatures import MINIATURES

from data import records
from data.datasets import DATASETS
from data.pipeline import open_split, references, summary
from data.pipeline.annotations import Items
from data.prepare import index as indexing
from data.prepare import prepare
from data.prepare.__main__ import main
from data.written import Index, Written, schema
from data.written import split as written_split
from data.written.folders import find_versions, index_path
from mplug2_jax.contracts.errors import RecordError

pytestmark = pytest.mark.usefixtures("warn_every_time")


@pytest.mark.parametrize("name", MINIATURES)
def test_every_dataset_has_an_index_of_its_records(name, tmp_path):
    splits = MINIATURES[name](tmp_path / "raw")
    prepare(DATASETS[name], tmp_path / "raw", tmp_path / "out", shard_records=2)
    (folder,) = find_versions(tmp_path / "out")
    for split in splits:
        assert_is_of(folder, split)
    before = {path: path.read_bytes() for path in folder.glob("*.index.arrow")}
    assert len(before) == len(splits)
    # Of the shards comes the same, byte for byte.
    for path in before:
        path.unlink()
    assert main(["index", str(tmp_path / "out"), "--processes=1"]) == 0
    assert {path: path.read_bytes() for path in folder.glob("*.index.arrow")} == before
    assert not list(folder.glob("*incomplete*")) and not list(folder.glob(".*"))


def test_the_demo_corpora_have_an_index(corpus):
    (folder,) = find_versions(corpus)
    for split in ("video_test", "image_train", "text_validation"):
        assert_is_of(folder, split)
    durations = Index(index_path(folder, "video_test")).table("record")["duration"].to_pylist()
    assert durations == [2.0] * 12  # 16 frames, 8 a second


def test_equal_media_have_equal_hashes_and_damage_has_its_row(write_records):
    made = [two(0), two(1), two(2), two(3, media=b""), two(4, media=b"junk"),
            records.record("none", "text", texts=["alone"])]
    root = write_records({"train": made})
    (folder,) = find_versions(root)
    (shard,) = folder.glob("*.array_record*")
    stored = shard.read_bytes()
    place = stored.index(b"text 1") + 3  # ArrayRecord's checksum tells
    shard.write_bytes(stored[:place] + b"?" + stored[place + 1:])
    index_path(folder, "train").unlink()
    assert list(indexing.write_missing(folder).items()) == [("train", 6)]
    assert_is_of(folder, "train")
    table = Index(index_path(folder, "train")).table("record")
    one, damaged, same, empty, junk, text = table["hash"].to_pylist()
    assert one == same != junk and damaged is empty is text is None
    assert table["width"].to_pylist() == [40, None, 40, None, None, None]
    split = open_split(root, "train")
    assert split.annotations.counts("text").tolist() == [2, -1, 2, 2, 2, 1]
    with pytest.raises(RecordError, match="damaged record: number 1"):
        split.annotations[1]


class Watched:
    """Counts the records that are read with their media."""

    def __init__(self, monkeypatch):
        self.read, plain = 0, Written.__getitem__

        def counted(written, number):
            self.read += 1
            return plain(written, number)

        monkeypatch.setattr(Written, "__getitem__", counted)


@pytest.mark.parametrize("split", ["train", "train[held_out]", "train[rest]", "val+train[rest]",
                                   "val[held_out]+train"])
def test_parts_and_sums_are_said_of_indexes_as_of_records(split, write_records, monkeypatch,
                                                          caplog):
    root = write_records({
        "train": [two(n, texts=[f"t{n}"] * (n % 3), boxes=[
            {"phrase": "p", "box": [0, 0, 1, 0.1]}] * (n % 2)) for n in range(47)],
        "val": [two(n, texts=[f"v{n}"]) for n in range(3)]})
    (folder,) = find_versions(root)

    def said():
        of = open_split(root, split).annotations
        return (len(of), [of[n] for n in range(len(of))], list(of.texts()),
                [of.counts(kind).tolist() for kind in schema.KINDS],
                list(references(root, {"s": {"split": split, "text_length": 8}})["s"]))

    watched = Watched(monkeypatch)
    indexed = said()
    assert watched.read <= 2 * 2 * written_split._COMPARED  # what is compared with the index
    table = open_split(root, split).annotations.table("text", ["text"])
    assert table["text"].to_pylist() == list(itertools.chain.from_iterable(indexed[2]))
    for path in folder.glob("*.index.arrow"):
        path.unlink()
    with caplog.at_level(logging.WARNING):
        assert said() == indexed
    assert open_split(root, split).annotations.table("text", ["text"]) is None
    lines = [one.getMessage() for one in caplog.records]
    assert len(lines) == len(set(lines)) == split.count("+") + 1
    assert all(f"python -m data.prepare index {folder}" in line for line in lines)


def test_without_an_index_no_more_is_read_than_is_needed(write_records, monkeypatch):
    root = write_records({"train": [two(n) for n in range(60)]})
    (folder,) = find_versions(root)
    index_path(folder, "train").unlink()
    watched = Watched(monkeypatch)
    assert open_split(root, "train").annotations.counts("text", 5).tolist() == [2, 2, 2]
    assert open_split(root, "train[held_out]").annotations.counts("text").tolist() == [2, 2, 2]
    assert watched.read == 6


def test_items_are_found_by_their_number():
    counts = np.array([2, 0, 0, 3, 1, 0])
    items = Items(counts)
    listed = [(record, item) for record, count in enumerate(counts) for item in range(count)]
    assert [items.locate(number) for number in range(len(items))] == listed
    assert len(Items(np.zeros(0, np.int32))) == len(Items(np.zeros(3, np.int32))) == 0


def test_a_summary_says_what_the_data_holds(write_records):
    made = [two(n, label="cat" if n < 6 else "dog" if n < 8 else "", questions=[
        {"question": "q", "answer": "a"}] * (n == 3)) for n in range(9)]
    made += [records.record(f"v{n}", "video", media=clip(n, frames=8 + 8 * n)) for n in range(2)]
    root = write_records({"train": made})
    (folder,) = find_versions(root)
    size = sum(len(one["media"].item()) for one in made) / 1e6
    assert summary(root, {"split": "train", "text_length": 8}) == [
        "train: 11 records, 18 texts, 1 questions",
        f"  11 media (image, video), 4 different, {size:.1f} MB; width 32..40, height 20..24 "
        "pixels",
        "  seconds: median 1.5, 90 % between 1.1 and 1.9; 0.00 hours of 2",
        "  2 classes of 8 records: 'cat' has 6 (75.0%), 'dog' 2 (25.0%)"]
    assert summary(root, {"split": "train[held_out]", "text_length": 8})[0].startswith(
        "train[held_out]: 1 records")
    index_path(folder, "train").unlink()
    assert summary(root, {"split": "train", "text_length": 8}) == []
