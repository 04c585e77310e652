"""Folders and tars as people hold them: names of files, links, rights, members in any order."""

import os
import subprocess
import sys
import tarfile
import unicodedata
from pathlib import Path

import pytest
from raw_media import clip, image, put, put_csv, put_tar, read, texts

from data.datasets import RawFolder
from data.datasets.raw import (
    Media,
    Missing,
    of_file,
)

ROOT = Path(__file__).parents[2]


def test_suffixes_in_capitals_missing_doubled_and_new(tmp_path):
    stored = {"a.MP4": "a", "b": "b", "c.mp4.webm": "c", "d.MPEG": "d", "e.m2ts": "e", "f.flv": "f",
              "g.OGV": "g", "h x.mp4": "h_x", unicodedata.normalize("NFD", "é") + ".mkv": "é"}
    for name in stored:
        put(tmp_path / "videos" / name, clip(0))
    (tmp_path / "videos/k").mkdir()  # a folder that is called like a clip is none
    for name in ("p.JPG", "q.jfif", "r.heic", "s.AVIF", "t.jp2", "u.tiff", "v.JPEG"):
        put(tmp_path / "images" / name, image(0))
    raw = RawFolder(tmp_path)
    for name, asked in stored.items():
        assert raw.video(asked) == Media(f"videos/{name}"), asked
    assert isinstance(raw.video("k"), Missing) and isinstance(raw.video("A"), Missing)
    assert raw.video("a.mp4") == Media("videos/a.MP4")
    for name in "pqrstuv":
        assert isinstance(raw.image(name), Media), name
    assert raw.exactly("p.jpg") == Media("images/p.JPG")
    assert raw.exactly("v.png") == Media("images/v.JPEG")  # encoded anew by a tool
    put(tmp_path / "images/v.png", image(1))
    assert RawFolder(tmp_path).exactly("v.png") == Media("images/v.png")


def test_names_never_lead_out_of_the_folder(tmp_path):
    put(tmp_path / "secret.jpg", image(0))
    put(tmp_path / "raw/x.jpg", image(1))
    raw = RawFolder(tmp_path / "raw")
    for name in ("../secret.jpg", str(tmp_path / "secret.jpg"), "a/../../secret.jpg",
                 "..\\secret.jpg", "\0.jpg", "x" * 5000 + ".jpg", "a/" * 3000 + "b.jpg"):
        assert isinstance(raw.exactly(name), Missing), name
        assert isinstance(raw.image(name), Missing), name
    assert raw.exactly("./x.jpg") == raw.exactly("a/../x.jpg") == Media("x.jpg")


def test_linked_folders_are_followed_but_not_in_rings(tmp_path):
    put(tmp_path / "raw/cc3m.tsv", "a\thttp://x/0.jpg\nb\thttp://x/1.jpg\n")
    put(tmp_path / "disk2/00000/000000001.jpg", image(1))
    put(tmp_path / "raw/images/deep/000000000.JPG", image(0))
    (tmp_path / "raw/images/00000").symlink_to("../../disk2/00000")
    (tmp_path / "raw/images/ring").symlink_to("..")
    (tmp_path / "raw/self").symlink_to("self")
    found, _ = read("cc3m", tmp_path / "raw")
    assert [entry.media for entry in found["train"]] == [
        Media("images/deep/000000000.JPG"), Media("images/00000/000000001.jpg")]
    put(tmp_path / "texts/train/a.txt", "one\n")
    (tmp_path / "texts/train/more").symlink_to(tmp_path / "more")
    put(tmp_path / "more/b.TXT", "two\n")
    assert texts(read("text_folder", tmp_path / "texts")[0]["train"]) == [["one"], ["two"]]


_UNREADABLE = """
import sys
sys.path.insert(0, {root!r})
from data.datasets import DATASETS, RawFolder
for name in ("webvid", "cc3m", "class_folders", "webdataset", "text_folder", "kinetics400"):
    raw = RawFolder({raw!r} + "/" + name)
    print(name, sum(len(list(own)) for own in DATASETS[name].read(raw).values()))
"""


@pytest.mark.skipif(os.getuid() != 0, reason="another user is one that root can become")
def test_a_folder_that_may_not_be_looked_into_is_left_out(tmp_path):
    put_csv(tmp_path / "webvid/results_2M_train.csv", [["videoid", "page_dir", "name"], [1, 2, 3]])
    put(tmp_path / "cc3m/cc3m.tsv", "a\thttp://x/0.jpg\n")
    put(tmp_path / "cc3m/images/0.jpg", image(0))
    put(tmp_path / "class_folders/cat/1.jpg", image(0))
    put_tar(tmp_path / "webdataset/0.tar", {"a.jpg": image(0)})
    put(tmp_path / "text_folder/train/a.txt", "one\n")
    put_csv(tmp_path / "kinetics400/train.csv", [
        ["label", "youtube_id", "time_start", "time_end"], ["yoga", "x", 1, 11]])
    for name in ("webvid", "cc3m/images", "class_folders", "webdataset", "text_folder/train",
                 "kinetics400"):
        (tmp_path / name / "lost+found").mkdir(mode=0o700)
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == 0 and "pytest" in str(folder):
            folder.chmod(0o755)
    script = _UNREADABLE.format(root=str(ROOT), raw=str(tmp_path))
    done = subprocess.run(
        ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", sys.executable, "-c",
         script], capture_output=True, text=True, cwd="/", timeout=120)
    assert done.returncode == 0, done.stderr
    assert [line.split()[1] for line in done.stdout.splitlines()] == ["1"] * 6
    assert done.stderr.count("lost+found is left out: Permission denied") == 6


def test_members_of_a_tar_need_not_follow_each_other(tmp_path):
    put_tar(tmp_path / "0.TAR", {
        **{f"./{n}.jpg": image(n) for n in range(3)}, "._0.jpg": b"of macOS",
        **{f"{n}.txt": f"text {n}" for n in (2, 0)}, "1.json": {"caption": "from json"},
        "3.JPG": image(3), "4.jpg": image(4), "4.json": ["a list"], "5.jpg": image(5),
        "5.json": {"caption": None}, "6.jpg": image(6), "6.json": {"caption": 2},
        "7.jpg": image(7), "7.txt": "caf\xe9".encode("latin-1"), "8.jpg": image(8),
        "8.json": {"caption": "half \ud83d"}, "9.jpg": image(9), "9.json": b"{"})
    found, _ = read("webdataset", tmp_path)
    said = {entry.id: entry.fields.get("texts") for entry in found["train"]}
    assert list(said) == [str(n) for n in range(10)]
    assert said == {"0": ["text 0"], "1": ["from json"], "2": ["text 2"], "3": None, "4": None,
                    "5": None, "6": ["2"], "7": ["café"], "8": ["half \ufffd"], "9": None}
    gone = {entry.id: entry.media.expected for entry in found["train"]
            if isinstance(entry.media, Missing)}
    assert gone.keys() == {"4", "5", "9"}
    assert "no object but list" in gone["4"] and "caption is null" in gone["5"]
    for entry in found["train"]:
        if isinstance(entry.media, Media):
            data = (tmp_path / entry.media.path).read_bytes()[entry.media.offset:]
            assert data[:entry.media.size] == image(int(entry.id))


@pytest.mark.parametrize("claimed", [2**26 + 1, 2**33, 2**62, 600])
def test_sizes_that_a_tar_merely_claims_are_not_read(claimed, tmp_path):
    """Of the caption's header, at the shard's end; the sample in front of it is used."""
    put_tar(tmp_path / "0.tar", {"a.jpg": image(0), "a.txt": "one", "b.jpg": image(1)})
    shard = (tmp_path / "0.tar").read_bytes()
    with tarfile.open(tmp_path / "0.tar") as tar:
        end = tar.getmembers()[-1].offset_data + len(image(1))
    header = tarfile.TarInfo("b.txt")
    header.size = claimed
    put(tmp_path / "0.tar", shard[:end + -end % 512] + header.tobuf(tarfile.GNU_FORMAT) + b"two")
    found = {entry.id: entry for entry in read("webdataset", tmp_path)[0]["train"]}
    assert found["a"].fields["texts"] == ["one"] and found["a"].media.size == len(image(0))
    expected = "is cut off" if claimed < 2**20 else "more than the 64 MiB"
    assert expected in found["b"].media.expected and found["b"].media.odd


def test_a_caption_of_gigabytes_beside_an_image_is_none(tmp_path):
    put(tmp_path / "0/a.jpg", image(0))
    with (tmp_path / "0/a.txt").open("wb") as file:
        file.truncate(2**40)  # sparse
    (entry,) = read("webdataset", tmp_path)[0]["train"]
    assert "more than the 64 MiB" in entry.media.expected


def test_shards_that_were_joined_count_anew(tmp_path):
    put_tar(tmp_path / "0.tar", {"a.jpg": image(0), "a.txt": "one"})
    put_tar(tmp_path / "1.tar", {"a.jpg": image(1), "a.txt": "two"})
    whole = (tmp_path / "0.tar").read_bytes().rstrip(b"\0")
    whole += b"\0" * (-len(whole) % 512) + (tmp_path / "1.tar").read_bytes()
    (tmp_path / "1.tar").unlink()
    put(tmp_path / "0.tar", whole)
    assert texts(read("webdataset", tmp_path)[0]["train"]) == [["one"], ["two"]]


@pytest.mark.parametrize("duration, start, end, whole", [
    (10.0, 84, 94, True), (10.4, 84, 94, True), (12.5, 5, 15, True), (9.1, 84, 94, True),
    (4.0, 84, 94, True), (300.0, 84, 94, False), (94.0, 84, 94, False), (10.0, 0, 10, False),
    (93.5, 84, 94, False), (60.0, 55, 65, False), (None, 84, 94, False), (10.0, 0, 0, False),
])
def test_a_file_as_long_as_its_part_is_the_part(duration, start, end, whole):
    fields = of_file({"label": "x", "start": start, "end": end}, duration)
    assert fields == ({"label": "x"} if whole else {"label": "x", "start": start, "end": end})
