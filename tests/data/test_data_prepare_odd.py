"""Odd annotations through `data.prepare` to records: what is kept, and where the rest is listed."""

import json

import pytest
from raw_media import clip, image, put, put_csv

from data.datasets import DATASETS
from data.pipeline import open_split
from data.prepare import prepare
from data.prepare.problems import PROBLEMS


def records(out, split: str = "train") -> dict[str, dict]:
    source = open_split(out, split)
    return {record["id"]: record for record in (source[n] for n in range(len(source)))}


def test_clips_named_by_the_id_alone_are_their_segments_where_they_are_as_long(tmp_path):
    """Cut clips as several mirrors have them, and a whole video: 3 s and 12 s."""
    put_csv(tmp_path / "raw/train.csv", [
        ["label", "youtube_id", "time_start", "time_end", "split"],
        ["yoga", "cut", "84", "87", "train"], ["yoga", "whole", "4", "7", "train"],
        ["yoga", "first", "0", "3", "train"]])
    for name, frames in (("cut", 24), ("whole", 96), ("first", 24)):
        put(tmp_path / f"raw/train/{name}.mp4", clip(len(name), frames=frames))
    prepare(DATASETS["kinetics400"], tmp_path / "raw", tmp_path / "out")
    found = records(tmp_path / "out")
    assert {name: (one["start"], one["end"]) for name, one in found.items()} == {
        "cut_000084_000087": (0.0, 0.0), "whole_000004_000007": (4.0, 7.0),
        "first_000000_000003": (0.0, 3.0)}


def test_what_is_no_text_is_listed_and_the_rest_is_written(tmp_path, capsys):
    said = ["cut \ud83d", None, 2, ["a list"], "good"]
    put(tmp_path / "raw/annotations/captions_train2014.json", json.dumps({
        "images": [{"id": n, "file_name": f"{n}.jpg"} for n in range(5)],
        "annotations": [{"image_id": n, "caption": one} for n, one in enumerate(said)]}))
    for n in range(5):
        put(tmp_path / f"raw/train2014/{n}.JPG", image(n))
    prepare(DATASETS["coco2014"], tmp_path / "raw", tmp_path / "out")
    assert {name: one["texts"] for name, one in records(tmp_path / "out", "train2014").items()} == {
        "0": ["cut \ufffd"], "1": [], "2": ["2"], "3": [], "4": ["good"]}
    listed = (tmp_path / "out/coco2014/1.0.0" / PROBLEMS).read_text().splitlines()[1:]
    assert len(listed) == 2
    for line, place, reason in zip(listed, (2, 4), ("caption is null", "caption is a list"),
                                   strict=True):
        assert "annotations/captions_train2014.json" in line and f"item {place}" in line
        assert reason in line
    assert "2 items of the annotation cannot be used" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["caf\udce9.jpg", "half \udc80.png"])
def test_names_of_files_that_are_no_text(name, tmp_path):
    """As an old disk has them, in Latin-1: the record's id is text, the file is found."""
    put(tmp_path / "raw/cat" / name, image(0))
    put(tmp_path / "raw/cat/other.jpg", b"no image")
    assert prepare(DATASETS["class_folders"], tmp_path / "raw", tmp_path / "out") == {"train": 1}
    ((number, record),) = records(tmp_path / "out").items()
    assert number.encode() and record["media"] == image(0) and record["label"] == "cat"
