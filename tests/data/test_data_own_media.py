"""Media of one's own tables: wherever they lie, and nothing outside."""

import gzip
import hashlib
import json
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from own_tables import embedded, faults, one, read, save, stored, table
from raw_media import clip, image, put, put_tar

from data.datasets import Missing
from data.datasets.own import opening
from data.datasets.own.arrow_files import read_cell
from data.pipeline import open_split
from data.prepare.__main__ import main
from data.prepare.problems import PROBLEMS
from mplug2_jax.contracts import buckets


def places(raw: Path) -> dict[str, str]:
    return {"relative": "clips/0.mp4", "dots": "./clips/../clips/0.mp4",
            "absolute": f"{raw}/clips/0.mp4", "address": f"file://{raw}/clips/0.mp4",
            "escaped": f"file://localhost{raw}/clips/%30.mp4", "Windows": r"clips\0.mp4",
            "another machine": "/home/ann/data/clips/0.mp4", "a drive": r"D:\data\clips\0.mp4",
            "a drive, turned": "D:/data/clips/0.mp4", "without suffix": "clips/0", "name": "0.mp4",
            "blanks": "  clips/0.mp4 ", "capitals": "clips/0.MP4", "escapes": "clips/%30.mp4"}


@pytest.mark.parametrize("way", places(Path()))
def test_a_clip_is_found_however_it_is_named(way, raw, tmp_path):
    entry = one(raw, tmp_path, {"path": places(raw)[way], "caption": "a"})
    assert (entry.id, entry.kind, entry.media.path) == ("clips/0.mp4", "video", "clips/0.mp4")


@pytest.mark.parametrize("name, place", [
    ("/data/train/0001.mp4", None), ("/data/train/sub/0001.mp4", None), ("val/0001.mp4", "val/"),
    ("/data/val/0001.mp4", "val/"), ("0001.mp4", "val/"), (r"D:\data\train\0001.mp4", None),
    ("9.jpg", None), ("vid/9.jpeg", None), ("9.bmp", None), ("3.mp4", None), ("9", "vid/9.mp4"),
    ("vid/9.avi", "vid/9.mp4"), ("pic/3.png", "pic/3.jpg")])
def test_no_other_medium_stands_in_for_one_that_is_missing(name, place, tmp_path):
    for file in ("val/0001.mp4", "vid/9.mp4"):
        put(tmp_path / "raw" / file, clip(0))
    put(tmp_path / "raw/pic/3.jpg", image(0))
    entry = one(tmp_path / "raw", tmp_path, {"path": name, "caption": "a"})
    found = None if isinstance(entry.media, Missing) else entry.media.path
    assert found == (place + "0001.mp4" if place == "val/" else place)


def test_names_with_marks_are_found_in_either_form(tmp_path):
    for number, (disk, said) in enumerate((("cafe\u0301.mp4", "caf\u00e9.mp4"),
                                           ("\u00fcber 50%.mp4", "u\u0308ber 50%.mp4"))):
        put(tmp_path / "raw" / disk, clip(number))
        assert one(tmp_path / "raw", tmp_path, {"path": said, "text": "a"}).media.path == disk


def test_ids_that_are_numbers(raw, tmp_path):
    entry = one(raw, tmp_path, {"video_id": 2, "caption": "a"})
    assert entry.media.path == "clips/2.mp4"


def test_paths_relative_to_the_table(raw, tmp_path):
    (tmp_path / "all").mkdir()
    (tmp_path / "all/raw").symlink_to(raw)
    path = table(tmp_path / "all", [{"path": "raw/clips/0.mp4", "caption": "a"}])
    ((entry,),) = read(tmp_path / "all/raw", path).values()
    assert entry.media.path == "clips/0.mp4"


@pytest.mark.parametrize("way", ["../secret.mp4", "ABSOLUTE", "file://ABSOLUTE", "link.mp4",
                                 "linked/secret.mp4", r"..\secret.mp4", "secret.mp4",
                                 "clips/../../secret.mp4", "linked", "linked/s.tar/a.jpg"])
def test_nothing_outside_of_raw_is_read_unless_declared(way, tmp_path):
    folder = tmp_path / "raw"
    put(folder / "clips/0.mp4", clip(0))
    for place in (tmp_path, tmp_path / "outer"):
        put(place / "secret.mp4", clip(1))
    put(tmp_path / "outer/a.jpg", image(0))
    put_tar(tmp_path / "outer/s.tar", {"a.jpg": image(0)})
    (folder / "link.mp4").symlink_to("../secret.mp4")
    (folder / "linked").symlink_to("../outer")
    name = way.replace("ABSOLUTE", f"{tmp_path}/secret.mp4")
    row = {"path": name, "caption": "a"}
    entry = one(folder, tmp_path, row)
    assert isinstance(entry.media, Missing) and "outside of --raw" in entry.media.expected
    entry = one(folder, tmp_path, row, roots=[tmp_path])
    assert not isinstance(entry.media, Missing)


def test_links_within_are_followed(tmp_path):
    put(tmp_path / "raw/kept/0.mp4", clip(0))
    (tmp_path / "raw/clips").symlink_to("kept")
    entry = one(tmp_path / "raw", tmp_path, {"path": "clips/0.mp4", "caption": "a"})
    assert opening.read_media(tmp_path / "raw", entry.media) == clip(0)


@pytest.mark.parametrize("way", ["packed/some.tar/a/x.mp4", "packed/some.tar::a/x.mp4", "x",
                                 "x.mp4", "packed/some.tar#a/x.mp4", "tar://a/x.mp4::packed/some.tar",
                                 "packed/some.tar!/a/x.mp4", "a/x", "some.tar/./a/x.mp4"])
def test_members_of_tar_files(way, raw, tmp_path):
    entry = one(raw, tmp_path, {"path": way, "caption": "a"})
    assert (entry.id, entry.kind) == ("packed/some.tar/a/x.mp4", "video")
    assert opening.read_media(raw, entry.media) == clip(1)


def test_tars_that_cannot_be_used(raw, tmp_path):
    put(raw / "packed/z.tar.gz", gzip.compress(b""))
    for name, reason in (("packed/z.tar.gz/a.jpg", "unpack it"),
                         ("packed/some.tar/b.jpg", "no such"),
                         ("s3+zip://a", "no protocol"), ("http://h/a.tar::b.jpg", "local ones")):
        assert reason in faults([one(raw, tmp_path, {"path": name, "caption": "a"})])[0]


def test_folders_and_lists_of_images(raw, tmp_path):
    entry = one(raw, tmp_path, {"path": "frames", "caption": "a"})
    assert (entry.id, entry.kind) == ("frames", "images")
    assert [media.path for media in entry.media] == [f"frames/{n}.jpg" for n in (8, 9, 10, 11)]
    for told in (["pictures/0.jpg", "pictures/1.jpg"], "['pictures/0.jpg', 'pictures/1.jpg']"):
        entry = one(raw, tmp_path, {"images": told, "caption": "a"}, media="images")
        assert [media.path for media in entry.media] == ["pictures/0.jpg", "pictures/1.jpg"]
    for told, reason in ((["pictures/0.jpg", "pictures/9.jpg"], "pictures/9.jpg"),
                         (["pictures/0.jpg", "clips/0.mp4"], "a record has several"),
                         ("clips", "without"), ([["pictures/0.jpg", "1.jpg"], "a"], "a list in")):
        assert reason in faults([one(raw, tmp_path, {"path": told, "caption": "a"})])[0]


class Server(BaseHTTPRequestHandler):
    """Serves the files of a folder; `/moved`, `/busy` once, and nothing else."""

    busy = True

    def __init__(self, folder: Path, *arguments):
        self.folder = folder
        super().__init__(*arguments)

    def do_GET(self):
        file = self.folder / self.path.partition("?")[0].strip("/")
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", f"file://{self.folder}/clips/0.mp4")
            return self.end_headers()
        if self.path.startswith("/busy") and Server.busy:
            Server.busy, file = False, Path("/nothing")
            self.send_response(503)
            return self.end_headers()
        if self.path.startswith("/busy"):
            file = self.folder / "clips/1.mp4"
        if not file.is_file():
            return self.send_error(404)
        data = file.read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data) + ("cut" in self.path)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module")
def address(raw):
    server = HTTPServer(("127.0.0.1", 0), partial(Server, raw))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()


def test_media_of_a_server_and_of_a_store(raw, address, tmp_path, monkeypatch, capsys):
    import fsspec
    with fsspec.open("memory://bucket/0.jpg", "wb") as file:
        file.write(image(3))
    monkeypatch.setattr(opening.time, "sleep", lambda seconds: None)
    names = ["/clips/0.mp4", "/clips/1.mp4?cut=1", "/gone.mp4", "/moved", "/busy",
             "/pictures/0.jpg?size=l", "/pictures/1.jpg#x"]
    names = [f"{address}{name}" for name in names] + ["memory://bucket/0.jpg", "memory://b/9.jpg"]
    path = table(tmp_path, [{"url": name, "caption": "a"} for name in names])
    assert main(["table", f"--raw={raw}", f"--table={path}", f"--out={tmp_path}",
                 "--processes=1"]) == 0
    split = open_split(tmp_path / "table", "train")
    assert {split[n]["id"]: split[n]["media"] for n in range(len(split))} == {
        names[0]: clip(0), names[4]: clip(1), names[5]: image(0), names[6]: image(1),
        names[7]: image(3)}
    problems = dict(line.split("\t")[2:4] for line in
                    (tmp_path / "table/1.0.0" / PROBLEMS).read_text().splitlines()[1:])
    assert set(problems) == {names[1], names[2], names[3], names[8]}
    assert "1 bytes too early" in problems[names[1]] and "404" in problems[names[2]]
    assert "video" in (split[n]["kind"] for n in range(len(split)))
    assert "holds 4 of image" not in capsys.readouterr().out


def test_a_store_without_its_package_is_one_line(raw, tmp_path, capsys, monkeypatch):
    for scheme in ("s3", "gs"):
        monkeypatch.setitem(buckets.EXTRAS, scheme, f"no_{scheme}fs")
        buckets._prepare.cache_clear()  # nothing stays in it: it raises
        name = f"{scheme}://bucket/a.mp4"
        path = table(tmp_path, [{"path": name, "caption": "a"}])
        assert main(["table", f"--raw={raw}", f"--table={path}", f"--out={tmp_path}"]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert f'no_{scheme}fs, which is not installed: pip install "mplug2_jax[{scheme}]"' in line
        assert name in line


def test_pictures_within_a_table(raw, tmp_path):
    made = embedded(["0.jpg", "1.jpg", "0.jpg", None], [image(0), image(1), image(0), image(2)],
                    caption=["a", "b", "c", "d"], label=pa.array([0, 1, 0, None], pa.int64()))
    features = {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}
    save(tmp_path / "saved", made, features)
    noted = made.replace_schema_metadata(
        {"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(noted, tmp_path / "t.parquet", row_group_size=3)
    found = []
    for name in ("saved", "t.parquet"):
        out = tmp_path / f"out_{name}"
        assert main(["table", f"--raw={raw}", f"--table={tmp_path / name}", f"--out={out}",
                     "--processes=1", "--shard_records=2"]) == 0
        found.append(stored(out))
        split = open_split(out / "table", "train")
        records = [split[n] for n in range(len(split))]
        assert [(one["id"], one["texts"], one["label"]) for one in records[:2]] == [
            ("0.jpg", ["a", "c"], "cat"), ("1.jpg", ["b"], "dog")]
        assert [one["media"] for one in records] == [image(0), image(1), image(2)]
        assert records[2]["id"] == hashlib.sha256(image(2)).hexdigest()[:16]
    assert found[0] == found[1]


def test_lists_of_pictures_within_a_table(raw, tmp_path):
    kind = pa.list_(pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    held = [[{"bytes": image(n), "path": None} for n in numbers]
            for numbers in ((0,), (1, 2), (2, 1), (1, 2))]
    made = pa.table({"images": pa.array(held, kind), "text": ["a", "b", "c", "d"],
                     "checksum": [b"0", b"1", b"2", b"3"]})
    pq.write_table(made, tmp_path / "t.parquet")
    entries = read(raw, tmp_path / "t.parquet", media="images")["train"]
    assert entries == read(raw, tmp_path / "t.parquet")["train"]
    assert [(entry.kind, entry.fields["texts"]) for entry in entries] == [
        ("image", ["a"]), ("images", ["b", "d"]), ("images", ["c"])]
    assert [opening.read_media(raw, media) for media in entries[1].media] == [image(1), image(2)]


def test_threads_read_a_table_at_once(tmp_path):
    """A reader of Parquet's that two threads ask aborts the process."""
    kept, file = [b"%d" % i for i in range(64)], tmp_path / "a.parquet"
    pq.write_table(pa.table({"image": kept}), file, row_group_size=8)
    rows, interval = [29 * i % 64 for i in range(640)], sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            assert [*pool.map(partial(read_cell, file, "image"), rows)] == [kept[i] for i in rows]
    finally:
        sys.setswitchinterval(interval)


def test_pictures_beside_a_table_of_datasets(raw, tmp_path):
    """`save_to_disk` may leave the files where they were: {bytes: null, path}."""
    made = embedded([f"{raw}/pictures/0.jpg", "pictures/1.jpg"], [None, None], text=["a", "b"])
    entries = read(raw, save(tmp_path / "saved", made))["train"]
    assert [entry.media.path for entry in entries] == ["pictures/0.jpg", "pictures/1.jpg"]


def test_names_that_are_no_utf8_are_shared_too(tmp_path):
    for number in range(3):
        put_tar(tmp_path / f"raw/\udcff{number}.tar", {f"{number}.jpg": image(number)})
    rows = [{"path": f"{number}", "caption": "a"} for number in range(3)]
    found = read(tmp_path / "raw", table(tmp_path, rows), share="0.3")
    assert [len(found[split]) for split in ("train", "val")] == [2, 1]


def test_bytes_in_base64_are_media_too(raw, tmp_path):
    import base64
    packed = base64.b64encode(image(0)).decode()
    for told in ({"bytes": packed, "path": None}, f"data:image/jpeg;base64,{packed}"):
        entry = one(raw, tmp_path, {"image": told, "caption": "a"})
        assert (entry.kind, opening.read_media(raw, entry.media)) == ("image", image(0))
