"""Public datasets as downloaders and toolboxes lay them out: each test says which one does so.

The published layouts are those of the miniatures (`raw_miniatures.py`).
"""

import json
import pickle
import random
import zlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from raw_media import clip, image, put, put_csv, put_tar

from data.datasets import DATASETS, RawFolder
from data.datasets.downloads import shard_size
from data.datasets.raw import Entry, Media, Missing
from mplug2_jax.contracts.errors import DataError


def read(name: str, raw: Path) -> dict[str, list[Entry]]:
    folder = RawFolder(raw)
    found = {split: list(own) for split, own in DATASETS[name].read(folder).items()}
    assert not folder.left_out
    return found


def said(entries: list[Entry]) -> dict[str, tuple[str | None, list[str]]]:
    """{id: (where its medium is, its texts)}."""
    return {entry.id: (None if isinstance(entry.media, Missing) else entry.media.path,
                       entry.fields.get("texts", [])) for entry in entries}


def asked(entries: list[Entry]) -> dict[str, tuple[str, list[tuple[str, str]]]]:
    """{id: (where its medium is, its questions and answers)}."""
    return {entry.id: (entry.media.path, [(q["question"], q["answer"])
                                          for q in entry.fields["questions"]])
            for entry in entries}


# img2dataset: `FilesSampleWriter`, `write_stats`; dataset_examples/cc3m.md puts the header.
ROWS = 23


def img2dataset(raw: Path, size: int, digits: int, beside: str = "txt+json", gone=(4, 11),
                restart: bool = False) -> dict[int, str]:
    """A download of 23 rows, in shards of `size`; {row: image's path} of those that were had."""
    rows = [f"caption {n}\thttp://x.example/{n}.jpg" for n in range(ROWS)]
    put(raw / "cc3m.tsv", "\n".join(["caption\turl", *rows]) + "\n")
    paths = {}
    for n in range(ROWS):
        shard, index = divmod(n, size)
        key = f"{index:04d}" if restart else f"{shard * 10**digits + index:0{5 + digits}d}"
        place = f"images/{shard:05d}/{key}"
        if n in gone:
            continue
        put(raw / f"{place}.jpg", image(n))
        paths[n] = f"{place}.jpg"
        if "txt" in beside:
            put(raw / f"{place}.txt", f"caption {n}")
        if "json" in beside:
            put(raw / f"{place}.json", json.dumps(
                {"caption": f"caption {n}", "url": f"http://x.example/{n}.jpg", "key": key,
                 "status": "success", "width": 40, "exif": "{}"}, indent=4))
    for shard in range(-(-ROWS // size)):
        own = range(shard * size, min(ROWS, shard * size + size))
        if "stats" in beside:
            put(raw / f"images/{shard:05d}_stats.json", {"count": len(own), "successes": 1})
        if "parquet" in beside:
            keys = [f"{shard * 10**digits + n - shard * size:0{5 + digits}d}" for n in own]
            parquet.write_table(pa.table({
                "key": keys, "url": [f"http://x.example/{n}.jpg" for n in own],
                "status": ["success"] * len(own)}), raw / f"images/{shard:05d}.parquet")
    return paths


@pytest.mark.parametrize("size, digits, beside, restart", [
    (10, 1, "", False), (10, 1, "txt+json", False), (6, 1, "txt+json", False),
    (6, 1, "stats", False), (6, 1, "parquet", False), (6, 1, "json", False), (7, 1, "", False),
    (6, 1, "json", True), (10, 4, "stats", True), (30, 4, "", False), (6, 1, "txt+stats", False),
])
def test_each_image_of_img2dataset_meets_its_caption(size, digits, beside, restart, tmp_path):
    """Also where shards of no power of ten leave gaps; its first versions counted anew in each."""
    if digits == 4 and size == 10:
        size = 6
    paths = img2dataset(tmp_path, size, digits, beside, restart=restart)
    assert said(read("cc3m", tmp_path)["train"]) == {
        f"{n:09d}": (paths.get(n), [f"caption {n}"]) for n in range(ROWS)}


def test_what_lies_beside_an_image_is_its_caption(tmp_path):
    img2dataset(tmp_path, 10, 1)
    put(tmp_path / "images/00000/000003.txt", b"caption\xe9 anew \n")
    put(tmp_path / "images/00000/000005.txt", "")
    (tmp_path / "images/00000/000006.txt").unlink()
    put(tmp_path / "images/00000/000006.json", {"url": "http://x.example/6.jpg", "caption": 6})
    found = said(read("cc3m", tmp_path)["train"])
    assert [found[f"{n:09d}"][1][0] for n in (3, 5, 6)] == ["captioné anew", "caption 5", "6"]


def test_a_table_that_was_sorted_anew_follows_the_addresses(tmp_path):
    paths = img2dataset(tmp_path, 10, 1)
    rows = (tmp_path / "cc3m.tsv").read_text().splitlines()
    swapped = [line.split("\t")[::-1] for line in [rows[0], *reversed(rows[1:])]]
    put(tmp_path / "cc3m.tsv", "".join("\t".join(row) + "\r\n" for row in swapped))
    found = said(read("cc3m", tmp_path)["train"])
    assert found["000000000"] == (paths[22], ["caption 22"])
    assert found["000000011"] == (None, ["caption 11"]) and len(found) == ROWS


def test_gaps_that_nothing_explains_are_an_error_not_another_caption(tmp_path):
    img2dataset(tmp_path, 6, 1, "")
    rows = (tmp_path / "cc3m.tsv").read_text().splitlines()
    put(tmp_path / "cc3m.tsv", "\n".join(rows + rows[1:] * 4))
    with pytest.raises(DataError, match="images has shards of img2dataset of unknown size"):
        read("cc3m", tmp_path)


def test_sizes_of_shards():
    assert shard_size(3_318_333, 332, 9_990, 4) == 10_000
    assert shard_size(3_318_333, 664, 4_990, 4) == 5_000
    assert shard_size(12_423_374, 12, 9_990, 4) == 10_000  # the first shards of many
    assert shard_size(12_423_374, 12, 4_990, 4) is None
    assert shard_size(7, 3, 3, 1) == 3
    assert shard_size(10, 9, 5, 1) is None
    rng = random.Random(0)
    for _ in range(300):
        size, rows = rng.choice([100, 250, 1000, 3000, 5000, 10_000]), rng.randrange(20_000, 10**6)
        shards, digits = -(-rows // size), len(str(size - 1))
        assert shard_size(rows, shards, size - rng.randrange(3), digits) in (size, None)


def test_cc12m_with_the_header_of_its_recipe(tmp_path):
    """img2dataset's dataset_examples/cc12m.md: `url<TAB>caption`."""
    put(tmp_path / "cc12m.tsv", "url\tcaption\nhttp://x/0\tzero\nhttp://x/1\tone\n")
    for n in range(2):
        put(tmp_path / f"00000/00000000{n}.jpg", image(n))
    assert said(read("cc12m", tmp_path)["train"]) == {
        f"{n:09d}": (f"00000/00000000{n}.jpg", [word]) for n, word in enumerate(("zero", "one"))}


def test_first_rows_that_are_no_header(tmp_path):
    for first in ("a cat\thttp://x/0.jpg", "caption\thttp://x/0.jpg", "url\thttp://x/0.jpg",
                  "text, that says\tsomewhere/0.jpg"):
        put(tmp_path / "cc3m.tsv", f"{first}\nthe end\thttp://x/1.jpg\n")
        put(tmp_path / "images/0.jpg", image(0))
        found = read("cc3m", tmp_path)["train"]
        assert len(found) == 2 and found[0].fields["texts"] == [first.split("\t")[0]], first


def test_checksums_of_addresses_as_frozen_in_time_names_them(tmp_path):
    """m-bain/frozen-in-time, data_loader/ConceptualCaptions_dataset.py: the CRC-32, no suffix."""
    put(tmp_path / "cc3m.tsv", "a\thttp://x/0.jpg\n")
    name = str(zlib.crc32(b"http://x/0.jpg"))
    put(tmp_path / "training" / name, image(0))
    assert said(read("cc3m", tmp_path)["train"]) == {"000000000": (f"training/{name}", ["a"])}


def test_folders_of_img2dataset_without_the_table(tmp_path):
    """img2dataset 1.31, --output_format files; video2dataset 1.0 writes the same of videos."""
    img2dataset(tmp_path / "a", 10, 1)
    (tmp_path / "a/cc3m.tsv").unlink()
    found = read("webdataset", tmp_path / "a")["images"]
    assert len(found) == ROWS - 2
    assert said(found)["images/00001/000010"] == ("images/00001/000010.jpg", ["caption 10"])
    put(tmp_path / "b/00000/0000000.mp4", clip(0))
    put(tmp_path / "b/00000/0000000.json", {"caption": "a clip", "url": "x"})
    (entry,) = read("webdataset", tmp_path / "b")["train"]
    assert entry.kind == "video" and entry.fields == {"texts": ["a clip"]}


def test_webvid_as_video2dataset_writes_it(tmp_path):
    """iejMac/video2dataset 1.0, dataset_examples/WebVid.md, --output_format files; 10M's table."""
    put_csv(tmp_path / "results_10M_train.csv", [
        ["videoid", "contentUrl", "duration", "page_dir", "name"],
        ["7", "https://x/7.mp4", "PT0S", "1_50", "Rain"], ["8", "https://x/8.mp4", "", "", "Fog"]])
    put(tmp_path / "videos/00000/00000001.mp4", clip(0))
    put(tmp_path / "videos/00000/00000001.json", {"url": "https://x/8.mp4", "caption": "Fog"})
    assert said(read("webvid", tmp_path)["train"]) == {
        "7": (None, ["Rain"]), "8": ("videos/00000/00000001.mp4", ["Fog"])}


KINETICS = [["label", "youtube_id", "time_start", "time_end", "split", "is_cc"],
            ["riding a bike", "D32_1", "10", "20", "train", "0"],
            ["massaging person's head", "a-b", "84", "94", "train", "0"],
            ["petting animal (not cat)", "-dash", "1.0", "11.0", "train", "0"]]
NAMES = ("D32_1_000010_000020", "a-b_000084_000094", "-dash_000001_000011")


@pytest.mark.parametrize("table, folders", [
    # open-mmlab/mmaction2 1.2, tools/data/kinetics: rename_classnames.sh, README.md step 5.
    ("annotations/kinetics_train.csv", ("videos_train/riding_a_bike",
     "videos_train/massaging_person's_head", "videos_train/petting_animal_(not_cat)")),
    # activitynet/ActivityNet, Crawler/Kinetics: folders as the labels are.
    ("train.csv", ("train/riding a bike", "train/massaging person's head",
                   "train/petting animal (not cat)")),
    # mit-han-lab/temporal-shift-module, tools/gen_label_kinetics.py: no marks either.
    ("kinetics400/train.csv", ("train/riding_a_bike", "train/massaging_persons_head",
                               "train/petting_animal_not_cat")),
    # cvdfoundation/kinetics-dataset, k400_extractor.sh: all in one, replacements elsewhere.
    ("annotations/train.csv", ("train", "replacement/replacement_for_corrupted_k400", "train")),
])
@pytest.mark.parametrize("suffix", [".mp4", ".MKV"])
def test_kinetics_of_other_toolboxes(table, folders, suffix, tmp_path):
    put_csv(tmp_path / table, KINETICS)
    for folder, name in zip(folders, NAMES, strict=True):
        put(tmp_path / folder / f"{name}{suffix}", clip(0))
    found = read("kinetics400", tmp_path)["train"]
    assert [(entry.id, entry.media.path, entry.fields) for entry in found] == [
        (name, f"{folder}/{name}{suffix}", {"label": row[0]})
        for name, folder, row in zip(NAMES, folders, KINETICS[1:], strict=True)]


def test_kinetics_by_lists_of_paths(tmp_path):
    """MMAction2's `kinetics400_train_list_videos.txt`; PySlowFast's DATASET.md calls it .csv."""
    lines = [f"riding_a_bike/{NAMES[0]}.mp4 1", f"yoga/{NAMES[1]}.mp4 0"]
    put(tmp_path / "a/kinetics400_train_list_videos.txt", "\n".join(lines))
    put(tmp_path / f"a/videos_train/riding_a_bike/{NAMES[0]}.mp4", clip(0))
    found = read("kinetics400", tmp_path / "a")["train"]
    assert [(entry.id, entry.fields["label"], isinstance(entry.media, Media)) for entry in found] \
        == [(NAMES[0], "riding a bike", True), (NAMES[1], "yoga", False)]
    put(tmp_path / "b/train.csv", f"/data/k400/train/{NAMES[0]}.mp4 1\n")
    put(tmp_path / "b/label_map_k400.txt", "yoga\nriding a bike\n")
    put(tmp_path / f"b/train/{NAMES[0]}.mp4", clip(0))
    (entry,) = read("kinetics400", tmp_path / "b")["train"]
    assert entry.fields == {"label": "riding a bike"} and isinstance(entry.media, Media)


def test_something_something_of_2022_and_of_mmaction2(tmp_path):
    """Qualcomm's archive: labels/, and test-answers.csv; MMAction2's README: annotations/, .mp4."""
    put(tmp_path / "labels/train.json", [{"id": 7, "label": "a", "template": "[b] it"}])
    put(tmp_path / "labels/test.json", [{"id": "8"}, {"id": "9"}])
    put(tmp_path / "labels/test-answers.csv", "8;Pushing something; slowly\n")
    for n in (7, 8, 9):
        put(tmp_path / f"videos/{n}.mp4", clip(n))
    found = read("ssv2", tmp_path)
    assert [(entry.id, entry.fields["label"]) for own in found.values() for entry in own] == [
        ("7", "b it"), ("8", "Pushing something; slowly"), ("9", "")]


def test_msrvtt_of_frozen_in_time(tmp_path):
    """m-bain/frozen-in-time, data_loader/MSRVTT_dataset.py: the archive MSRVTT.zip."""
    raw = tmp_path / "MSRVTT"
    put(raw / "annotation/MSR_VTT.json", {"images": [], "annotations": [
        {"image_id": f"video{n}", "caption": f"{word} {n}", "id": 2 * n + k}
        for n in range(3) for k, word in enumerate(("one", "two"))]})
    lists = raw / "high-quality/structured-symlinks"
    put(lists / "train_list_jsfusion.txt", "video2\n")
    put(lists / "val_list_jsfusion.txt", "video0\nvideo1\n")
    put(lists / "jsfusion_val_caption_idx.pkl", pickle.dumps({"video0": 1, "video1": 0}))
    put(lists / "train_list_full.txt", "video0\nvideo2")
    for n in range(3):
        put(raw / f"videos/all/video{n}.mp4", clip(n))
    found = read("msrvtt_1ka", raw)
    assert said(found["train"]) == {"video2": ("videos/all/video2.mp4", ["one 2", "two 2"])}
    assert [entry.fields["texts"] for entry in found["test"]] == [["two 0"], ["one 1"]]
    assert list(said(read("msrvtt", raw)["train"])) == ["video0", "video2"]


@pytest.mark.parametrize("name, file, split", [
    # LAVIS 1.0.0.dev1, configs/datasets/msrvtt/defaults_cap.yaml; .../msvd/defaults_cap.yaml.
    ("msrvtt", "annotations/cap_train.json", "train"),
    ("msvd", "annotations/cap_test.json", "test"),
    # open-mmlab/mmaction2 1.2, tools/data/msrvtt/README.md (lists of VindLU).
    ("msrvtt", "annotations/msrvtt_ret_train7k.json", "train"),
    ("msrvtt_1ka", "annotations/msrvtt_ret_train9k.json", "train"),
    ("msrvtt_1ka", "annotations/msrvtt_ret_test1k.json", "test"),
    # klauscc/VindLU, configs/data.py.
    ("didemo", "anno_downstream/didemo_ret_train.json", "train"),
])
def test_videos_with_captions_of_toolboxes(name, file, split, tmp_path):
    put(tmp_path / file, [
        {"video": "video9770.mp4", "image_id": "video9770", "caption": "a person is shown"},
        {"video": "video9771.mp4", "caption": ["one", "two"]},
        {"video": "video9770.mp4", "image_id": "video9770", "caption": "more"}])
    for n in (9770, 9771):
        put(tmp_path / f"videos_2fps_224/video{n}.mp4", clip(n))
    assert said(read(name, tmp_path)[split]) == {
        "video9770": ("videos_2fps_224/video9770.mp4", ["a person is shown", "more"]),
        "video9771": ("videos_2fps_224/video9771.mp4", ["one", "two"])}


@pytest.mark.parametrize("name, file", [
    ("msrvtt_qa", "annotations/qa_test.json"),  # LAVIS 1.0.0.dev1, msrvtt/defaults_qa.yaml
    ("msvd_qa", "annotations/qa_test.json"),
    ("msrvtt_qa", "annotations/msrvtt_qa_test.json"),  # MMAction2 1.0.0rc2, tools/data/msrvtt
])
def test_videos_with_questions_of_toolboxes(name, file, tmp_path):
    put(tmp_path / file, [{"video": "video9.avi", "question": f"q{n}?", "answer": f"a{n}",
                           "question_id": n} for n in range(2)])
    put(tmp_path / "videos/video9.avi", clip(9, ".avi"))
    assert asked(read(name, tmp_path)["test"]) == {
        "video9": ("videos/video9.avi", [("q0?", "a0"), ("q1?", "a1")])}


def test_msvd_of_clip4clip(tmp_path):
    """ArrowLuo/CLIP4Clip, dataloaders/dataloader_msvd_retrieval.py: lists and raw-captions.pkl."""
    put(tmp_path / "raw-captions.pkl", pickle.dumps({"a_1_2": [["a", "bird"], ["it", "flies"]]}))
    put(tmp_path / "train_list.txt", "a_1_2\n")
    put(tmp_path / "MSVD_Videos/a_1_2.AVI", clip(1, ".avi"))
    assert said(read("msvd", tmp_path)["train"]) == {
        "a_1_2": ("MSVD_Videos/a_1_2.AVI", ["a bird", "it flies"])}


def test_lists_above_the_raw_folder_are_not_read(tmp_path):
    raw = tmp_path / "deep/raw"
    put(raw / "MSR_VTT.json", {"annotations": [{"image_id": "video0", "caption": "a"}]})
    put(raw / "video0.mp4", clip(0))
    for above in (tmp_path / "deep", tmp_path):
        put(above / "high-quality/structured-symlinks/train_list_full.txt", "video0\n")
    with pytest.raises(DataError, match="is not there"):
        read("msrvtt", raw)
    put(raw / "high-quality/structured-symlinks/train_list_full.txt", "video0\n")
    assert said(read("msrvtt", raw)["train"]) == {"video0": ("video0.mp4", ["a"])}


def test_coco_and_flickr_of_lavis_and_hugging_face(tmp_path):
    """LAVIS 1.0.0.dev1, {coco/defaults_cap,flickr30k/defaults}.yaml; nlphuji/flickr30k."""
    coco = tmp_path / "coco"
    put(coco / "annotations/coco_karpathy_train.json", [
        {"caption": text, "image": "val2014/COCO_val2014_000000522418.jpg", "image_id": "coco_522"}
        for text in ("one", "two")])
    put(coco / "annotations/coco_karpathy_val.json", [
        {"image": "val2014/COCO_val2014_000000000009.jpg", "caption": ["a", "b", "c"]}])
    put(coco / "images/val2014/COCO_val2014_000000522418.jpg", image(0))
    put(coco / "images/train2017/000000000009.jpg", image(1))  # under its name of 2017
    found = read("coco_karpathy", coco)
    assert said(found["train"]) == {
        "522418": ("images/val2014/COCO_val2014_000000522418.jpg", ["one", "two"])}
    assert said(found["val"]) == {"9": ("images/train2017/000000000009.jpg", ["a", "b", "c"])}
    flickr = tmp_path / "flickr"
    put(flickr / "flickr30k_test.json", [
        {"image": "flickr30k-images/1007129816.jpg", "caption": ["a", "b"]}])
    put(flickr / "flickr30k-images/1007129816.jpg", image(2))
    wanted = {"1007129816.jpg": ("flickr30k-images/1007129816.jpg", ["a", "b"])}
    assert said(read("flickr30k_karpathy", flickr)["test"]) == wanted
    (flickr / "flickr30k_test.json").unlink()
    put_csv(flickr / "flickr_annotations_30k.csv", [
        ["raw", "sentids", "split", "filename", "img_id"],
        ['["a", "b"]', "[0, 1]", "test", "1007129816.jpg", "0"]])
    assert said(read("flickr30k_karpathy", flickr)["test"]) == wanted


@pytest.mark.parametrize("place", [
    "val2014/COCO_val2014_000000000042.jpg", "images/val2017/000000000042.jpg",
    "coco/images/train2017/000000000042.JPG"])
def test_images_of_coco_under_the_names_of_either_year(place, tmp_path):
    put(tmp_path / place, image(0))
    name = "COCO_val2014_000000000042.jpg"
    put(tmp_path / "dataset_coco.json", {"images": [
        {"filename": name, "filepath": "val2014", "split": "val", "cocoid": 42,
         "sentences": [{"raw": "a"}]}]})
    put(tmp_path / "captions_val2014.json", {
        "images": [{"id": 42, "file_name": name}],
        "annotations": [{"image_id": 42, "caption": "a"}]})
    put(tmp_path / "v2_OpenEnded_mscoco_val2014_questions.json", {"questions": [
        {"image_id": 42, "question": "q?", "question_id": 1}]})
    put(tmp_path / "v2_mscoco_val2014_annotations.json", {"annotations": [
        {"question_id": 1, "multiple_choice_answer": "2", "answers": [{"answer": 2}]}]})
    for dataset, split in (("coco_karpathy", "val"), ("coco2014", "val2014"), ("vqav2", "val")):
        (entry,) = read(dataset, tmp_path)[split]
        assert entry.media == Media(place) and entry.id == "42", dataset


def test_a_list_of_another_machine_gives_no_clip_of_another_split(tmp_path):
    put(tmp_path / "val/0001.mp4", clip(0))
    put(tmp_path / "train/0002.mp4", clip(1))
    put(tmp_path / "train.jsonl", "".join(
        json.dumps({"video": f"/data/train/{name}.mp4", "caption": name}) + "\n"
        for name in ("0001", "0002")))
    found = said(read("release_jsonl", tmp_path)["train"])
    assert found == {"/data/train/0001": (None, ["0001"]),
                     "/data/train/0002": ("train/0002.mp4", ["0002"])}


def test_vqav2_of_lavis(tmp_path):
    """LAVIS 1.0.0.dev1, coco/defaults_vqa.yaml: vqa_train.json and the like, as ALBEF made them."""
    put(tmp_path / "annotations/vqa_train.json", [
        {"question_id": 262148000, "question": "What is it?", "dataset": "vqa",
         "answer": ["net"] * 6 + ["netting"] * 4,
         "image": "val2014/COCO_val2014_000000262148.jpg"}])
    put(tmp_path / "annotations/vqa_test.json", [
        {"question_id": 1, "question": "Q?", "image": "test2015/COCO_test2015_000000000001.jpg",
         "dataset": "vqa"}])
    put(tmp_path / "images/val2014/COCO_val2014_000000262148.jpg", image(0))
    put(tmp_path / "images/test2015/COCO_test2015_000000000001.jpg", image(1))
    found = read("vqav2", tmp_path)
    assert asked(found["train"]) == {
        "262148": ("images/val2014/COCO_val2014_000000262148.jpg", [("What is it?", "net")])}
    assert asked(found["test"])["1"][1] == [("Q?", "")]


@pytest.mark.parametrize("name, prefix", [
    ("refcoco", "refcoco"), ("refcoco_plus", "refcoco+"), ("refcocog", "refcocog")])
def test_refcoco_of_mdetr(name, prefix, tmp_path):
    """ashkamath/mdetr, scripts/fine-tuning/refexp_coco_format.py: an image a phrase."""
    put(tmp_path / f"finetune_{prefix}_train.json", {
        "images": [{"id": n, "original_id": 581857, "caption": text, "height": 20, "width": 40,
                    "file_name": "COCO_train2014_000000581857.jpg", "dataset_name": prefix}
                   for n, text in enumerate(("left cat", "cat"))],
        "annotations": [{"id": n + 9, "image_id": n, "bbox": [10, 2, 20, 10], "original_id": 17193,
                         "tokens_positive": [[0, 3]]} for n in range(2)]})
    put(tmp_path / "images/mscoco/train2014/COCO_train2014_000000581857.jpg", image(0))
    (entry,) = read(name, tmp_path)["train"]
    assert entry.id == "581857" and isinstance(entry.media, Media)
    assert [(box["phrase"], box["box"]) for box in entry.fields["boxes"]] == [
        ("left cat", [0.25, 0.1, 0.75, 0.6]), ("cat", [0.25, 0.1, 0.75, 0.6])]


def test_boxes_of_refcoco_lie_in_their_image(tmp_path):
    boxes = {"whole": [0, 0, 40, 20], "beyond": [30, 10, 20.5, 15], "before": [-4, -2, 14, 12],
             "outside": [41, 2, 5, 5], "empty": [10, 2, 0, 10], "turned": [10, 2, -5, 10],
             "nan": [float("nan"), 2, 5, 5], "far": [1, 1, float("inf"), 5], "three": [1, 2, 3]}
    put(tmp_path / "finetune_refcoco_train.json", json.dumps({
        "images": [{"id": n, "original_id": 7, "caption": name, "height": 20, "width": 40,
                    "file_name": "COCO_train2014_000000000007.jpg"}
                   for n, name in enumerate(boxes)],
        "annotations": [{"id": n, "image_id": n, "bbox": box}
                        for n, box in enumerate(boxes.values())]}))
    put(tmp_path / "train2014/COCO_train2014_000000000007.jpg", image(0))
    folder = RawFolder(tmp_path)
    (entry,) = DATASETS["refcoco"].read(folder)["train"]
    assert {box["phrase"]: box["box"] for box in entry.fields["boxes"]} == {
        "whole": [0, 0, 1, 1], "beyond": [0.75, 0.5, 1, 1], "before": [0, 0, 0.25, 0.5]}
    assert [place for _, place, _ in folder.left_out] == [f"item {n}" for n in range(4, 10)]
    assert "is no box in 40 x 20 pixels" in folder.left_out[0][2]


def test_visual_genome_with_the_images_of_gqa(tmp_path):
    """GQA's images.zip has those of Visual Genome too, in one folder (cs.stanford.edu/.../gqa)."""
    put(tmp_path / "image_data.json", [{"image_id": 1, "width": 40, "height": 20}])
    put(tmp_path / "region_descriptions.json", [{"id": 1, "regions": [
        {"region_id": 1, "phrase": "a clock", "x": 0, "y": 0, "width": 20, "height": 10}]}])
    put(tmp_path / "images/1.jpg", image(1))
    assert said(read("visual_genome", tmp_path)["train"]) == {"1": ("images/1.jpg", ["a clock"])}


def test_sbu_of_img2dataset(tmp_path):
    """img2dataset 1.31, dataset_examples/SBUcaptions.md: the .json, rows counted from 0."""
    put(tmp_path / "sbu-captions-all.json", {
        "image_urls": [f"http://x/{n}.jpg" for n in range(3)], "captions": ["a", "b", 3]})
    put(tmp_path / "images/00000/000000002.jpg", image(2))
    assert said(read("sbu", tmp_path)["train"]) == {
        "000000000": (None, ["a"]), "000000001": (None, ["b"]),
        "000000002": ("images/00000/000000002.jpg", ["3"])}


def test_tars_of_hugging_face(tmp_path):
    """pixparse/cc3m-wds: cc3m-train-0000.tar ... in one folder, .jpg, .json and .txt of a key."""
    put_tar(tmp_path / "cc3m-train-0000.tar", {
        "000000000.jpg": image(0), "000000000.json": {"caption": "x"}, "000000000.txt": "a cat"})
    (entry,) = read("webdataset", tmp_path)["train"]
    assert entry.fields == {"texts": ["a cat"]}
