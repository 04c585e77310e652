"""What the miniatures of raw formats do not show: damage, other layouts, what sets share."""

import csv
import gzip
import json

import numpy as np
import pytest
import raw_actions
import raw_images
import raw_pretraining
import scipy.io
from raw_media import clip, image, put, put_csv

from data.datasets import DATASETS, RawFolder
from data.datasets.kinetics import _key
from data.datasets.raw import Media, Missing
from data.pipeline import open_split
from data.prepare import prepare
from mplug2_jax.contracts.errors import DataError


def read(name: str, raw) -> dict[str, list]:
    return {split: list(entries) for split, entries in DATASETS[name].read(RawFolder(raw)).items()}


def test_documents_become_passages_and_damaged_lines_are_counted_and_named(tmp_path, capsys):
    words = " ".join(f"word{number}" for number in range(200))
    lines = [json.dumps({"text": words}), "", '{"text": "cut of', '{"title": "none"}', "[1]",
             '{"text": 7}', json.dumps({"text": "\ud800half"}), json.dumps({"text": "last"})]
    put(tmp_path / "raw/a.jsonl", "\n".join(lines[:2]) + "\n" + "\n".join(lines[2:]))
    packed = gzip.compress("".join(json.dumps({"text": f"{n} " * 40}) + "\n"
                                   for n in range(400)).encode())
    put(tmp_path / "raw/b.json.gz", packed[: len(packed) // 2])
    assert prepare(DATASETS["json_lines"], tmp_path / "raw", tmp_path / "out")["train"] > 5
    split = open_split(tmp_path / "out", "train")
    found = {(record := split[number])["id"]: record["texts"] for number in range(len(split))}
    assert found["a.jsonl:1:97"] == [" ".join(words.split()[96:192])]
    assert len(found["a.jsonl:1:193"][0].split()) == 8
    assert found["a.jsonl:7:1"] == ["\ufffdhalf"] and found["a.jsonl:8:1"] == ["last"]
    assert "b.json.gz:1:1" in found and "b.json.gz:400:1" not in found
    with (tmp_path / "out/json_lines/1.0.0/problems.tsv").open() as file:
        listed = {row["record"]: row["reason"] for row in csv.DictReader(file, delimiter="\t")}
    assert set(listed) - {"a.jsonl:3", "a.jsonl:4", "a.jsonl:5", "a.jsonl:6"} == {
        name for name in listed if name.startswith("b.json.gz:")}
    assert len(listed) in (5, 6)  # the last line before the cut may be cut itself
    assert listed["a.jsonl:4"] == "missing: a JSON object with a text (no text)"
    assert any(problem.startswith("missing: the rest of b.json.gz from line")
               for problem in listed.values())
    assert f"media of {len(listed)} missing" in capsys.readouterr().out


def test_a_corpus_of_nothing_but_damage_is_an_error(tmp_path):
    put(tmp_path / "raw/a.jsonl", "no json\n" * 3)
    with pytest.raises(DataError, match="all 3 media are missing.*a JSON object with a text"):
        prepare(DATASETS["json_lines"], tmp_path / "raw", tmp_path / "out")


def test_a_file_that_is_there_packed_and_unpacked_is_read_once(tmp_path):
    line = json.dumps({"text": "once"}).encode() + b"\n"
    put(tmp_path / "x.jsonl", line)
    put(tmp_path / "x.jsonl.gz", gzip.compress(line))
    (tmp_path / "up").symlink_to(tmp_path)
    assert [entry.id for entry in read("json_lines", tmp_path)["train"]] == ["x.jsonl:1:1"]


def test_visual_genome_without_cocos_split_has_all_images_and_may_lack_questions(tmp_path):
    raw_pretraining.visual_genome(tmp_path)
    (tmp_path / "coco/dataset_coco.json").unlink()
    (tmp_path / "question_answers.json").unlink()
    found = read("visual_genome", tmp_path)
    assert list(found) == ["train"]
    assert [(entry.id, entry.fields["questions"]) for entry in found["train"]] == [
        ("1", []), ("2", []), ("3", [])]
    (tmp_path / "region_descriptions.json").unlink()
    with pytest.raises(DataError, match="neither region_descriptions.json nor question_answers"):
        read("visual_genome", tmp_path)


def test_sbu_of_two_text_files_takes_what_is_there(tmp_path):
    addresses = [f"http://static.flickr.com/2723/43854{n}_a.jpg" for n in range(4)]
    put(tmp_path / "SBU_captioned_photo_dataset_urls.txt", "\n".join(addresses) + "\n")
    put(tmp_path / "SBU_captioned_photo_dataset_captions.txt", "zero \n\ntwo\u2028two\nthree\n")
    put(tmp_path / "dataset/438540_a.jpg", image(0))
    put(tmp_path / "dataset/00002.jpg", image(2))
    entries = read("sbu", tmp_path)["train"]
    assert [entry.fields["texts"] for entry in entries] == [
        ["zero"], [""], ["two\u2028two"], ["three"]]
    assert [isinstance(entry.media, Missing) for entry in entries] == [False, True, False, True]
    assert entries[2].media == Media("dataset/00002.jpg")
    put(tmp_path / "SBU_captioned_photo_dataset_captions.txt", "zero\none\n")
    with pytest.raises(DataError, match="4 addresses for 2 captions"):
        read("sbu", tmp_path)


def test_classes_of_three_sets_are_one_by_their_names():
    same = [
        ("petting animal (not cat)", "Petting animal - not cat", "petting_animal_(not_cat)"),
        ("massaging person's head", "massaging persons head"),
        ("passing American football (in game)", "passing american football in game"),
        ("inflating balloons", "balloon blowing"), ("tying necktie", "tying tie"),
        ("throwing ball (not baseball or American football)", "Throwing ball"),
    ]
    keys = [{_key(name) for name in names} for names in same]
    assert all(len(own) == 1 for own in keys)
    assert len(set.union(*keys)) == len(same)
    others = ["petting cat", "passing American football (not in game)", "playing american football",
              "opening wine bottle", "hugging baby", "hugging (not baby)"]
    assert len({_key(name) for name in others} | set.union(*keys)) == len(others) + len(same)


def test_a_union_of_kinetics_lists_a_video_once_and_what_is_missing(tmp_path):
    raw_actions.kinetics710(tmp_path)
    header = ["label", "youtube_id", "time_start", "time_end", "split"]
    put_csv(tmp_path / "kinetics700/train.csv", [
        header, ["yoga", "twice", "1", "11", "train"], ["yoga", "twice", "20", "30", "train"],
        ["yoga", "nowhere", "1", "11", "train"], ["yoga", "nowhere", "20", "30", "train"]])
    put_csv(tmp_path / "k600/train.csv", [
        header, ["yoga", "twice", "1", "11", "train"], ["yoga", "nowhere", "1", "11", "train"]])
    for start in (1, 20):
        put(tmp_path / f"kinetics700/train/twice_{start:06d}_{start + 10:06d}.mp4", clip(1))
    put(tmp_path / "k600/train/twice_000001_000011.mp4", clip(2))
    entries = read("kinetics710", tmp_path)["train"]
    found = [(entry.id, isinstance(entry.media, Missing)) for entry in entries]
    assert found[:2] == [("twice_000001_000011", False), ("twice_000020_000030", False)]
    assert found[-2:] == [("nowhere_000001_000011", True), ("nowhere_000020_000030", True)]
    assert len(found) == len(set(found))
    assert entries[0].media.path.startswith("kinetics700/")


def test_a_union_needs_all_of_its_sets(tmp_path):
    raw_images.refcoco_union(tmp_path / "refcoco_sets")
    (tmp_path / "refcoco_sets/refcoco+").rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match=r"no folder refcoco\+ or refcoco_plus"):
        read("refcoco_union", tmp_path / "refcoco_sets")


def test_no_image_that_is_evaluated_on_is_trained_on(tmp_path):
    raw_images.refcoco_union(tmp_path)
    found = read("refcoco_union", tmp_path)
    trained = {entry.id for entry in found.pop("train")}
    assert trained and not trained & {entry.id for own in found.values() for entry in own}


def test_classes_of_flowers_out_of_range_are_said(tmp_path):
    raw_images.flowers102(tmp_path)
    scipy.io.savemat(tmp_path / "imagelabels.mat", {"labels": np.array([[1, 103]])})
    with pytest.raises(DataError, match="class 103, not within 1..102"):
        read("flowers102", tmp_path)
    put(tmp_path / "imagelabels.mat", b"no matlab")
    with pytest.raises(DataError, match="is no MATLAB file with 'labels'"):
        read("flowers102", tmp_path)
