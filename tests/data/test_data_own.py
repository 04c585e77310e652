"""Data of one's own: every format gives the same records, and what is odd costs its row alone."""

import gzip
import hashlib
import io
import json
import os
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from own_tables import WRITERS, save, separated
from PIL import Image
from raw_media import clip, image, put, put_tar

from data.datasets import Missing, RawFolder, own
from data.datasets.own import opening
from data.pipeline import open_split
from data.prepare.__main__ import main
from data.prepare.plan import Plan, make_plan
from data.prepare.problems import PROBLEMS
from data.records import record
from mplug2_jax.contracts.errors import DataError, MediaError

COLUMNS = ("path", "caption", "question", "answer", "split")
CELLS = (  # two rows of one clip; marks that a format may stumble over; a number for an answer
    ("clips/0.mp4", 'a "red" three, moving left', "how many?", "2", "train"),
    ("clips/0.mp4", "eine drei;\tvon Grün\nzu Blau", "which colour?", "red", "train"),
    ("clips/1.mp4", "a four", "where?", "left, or right", "train"),
    ("clips/2.mp4", "日本の猫 🐱", "what?", "cat", "validation"))
ROWS = [dict(zip(COLUMNS, cells, strict=True)) for cells in CELLS]


@pytest.fixture(scope="module")
def raw(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("raw")
    for number in range(4):
        put(folder / f"clips/{number}.mp4", clip(number))
        put(folder / f"pictures/{number}.jpg", image(number))
        put(folder / f"frames/{number + 8}.jpg", image(number))  # 8, 9, 10, 11
    put_tar(folder / "packed/some.tar", {"a/x.mp4": clip(1), "a/y.jpg": image(1), "y.txt": "no"})
    return folder


def read(raw: Path, *tables: Path, roots=(), boxes="", share="", seed=0, **given) -> dict:
    """The entries of each split."""
    options = own.Options(tuple(map(str, tables)), given, tuple(map(str, roots)), boxes, share,
                          seed)
    return {split: list(entries)
            for split, entries in own.dataset(options).read(RawFolder(raw)).items()}


def table(folder: Path, rows: list[dict], name: str = "t.json") -> Path:
    put(folder / name, rows)
    return folder / name


def one(raw: Path, tmp_path: Path, row: dict, **options):
    """The entry of a table of one row."""
    ((entry,),) = read(raw, table(tmp_path, [row]), **options).values()
    return entry


def faults(entries) -> list[str]:
    return [entry.media.expected for entry in entries if isinstance(entry.media, Missing)]


def stored(out: Path) -> dict[str, bytes]:
    """All shards and indexes of what was prepared."""
    return {path.name: path.read_bytes() for path in (out / "table/1.0.0").iterdir()
            if "array_record" in path.name or path.suffix in (".arrow", ".tsv")}


@pytest.fixture(scope="module")
def of_csv(raw, tmp_path_factory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("csv")
    path = WRITERS["csv"](out, ROWS)
    assert main(["table", f"--raw={raw}", f"--table={path}", f"--out={out}", "--processes=1"]) == 0
    return stored(out)


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_same_records(name, raw, of_csv, tmp_path):
    path = WRITERS[name](tmp_path, ROWS)
    assert main(["table", f"--raw={raw}", f"--table={path}", f"--out={tmp_path}",
                 "--processes=1"]) == 0
    assert stored(tmp_path) == of_csv and len(of_csv) == 5
    train, val = (open_split(tmp_path / "table", split) for split in ("train", "val"))
    assert [len(train), len(val)] == [2, 1] and train[0]["media"] == clip(0)
    assert train[0]["texts"] == [row["caption"] for row in ROWS[:2]]
    said = [(one["question"], one["answer"], one["answers"]) for one in train[0]["questions"]]
    assert said == [("how many?", "2", []), ("which colour?", "red", [])]
    assert (val[0]["id"], val[0]["texts"]) == ("clips/2.mp4", ["日本の猫 🐱"])


def test_numbers_lists_and_nulls_of_any_format(raw, tmp_path):
    rows = [{"path": "clips/0.mp4", "caption": ["a", "b"], "label": 3, "start": 0.25, "end": 0.5},
            {"path": "clips/1.mp4", "caption": ["c"], "label": 4, "start": None, "end": None}]
    wanted = None
    for name in ("csv", "tsv", "json", "jsonl", "parquet", "datasets"):
        (tmp_path / name).mkdir()
        found = read(raw, WRITERS[name](tmp_path / name, rows))
        wanted = wanted or found
        assert found == wanted
    first, second = wanted["train"]
    assert (first.id, first.fields) == ("clips/0.mp4@0.25-0.5", {
        "start": 0.25, "end": 0.5, "label": "3", "texts": ["a", "b"]})
    assert (second.id, second.fields) == ("clips/1.mp4", {"label": "4", "texts": ["c"]})


@pytest.mark.parametrize("told, wanted", [
    ("a", ["a"]), (["a", "b"], ["a", "b"]), ([["a", "b"], ["c"]], ["a", "b", "c"]),
    ('["a", "b"]', ["a", "b"]), ("['a', 'b']", ["a", "b"]), ("['a' 'b']", ["a", "b"]),
    ("['it''s' \"b\"]", ["it", "s", "b"]), ("[laughs]", ["[laughs]"]),
    ("[{{1,2,3,4}}]", ["[{{1,2,3,4}}]"]), ("[{[1]: 2}]", ["[{[1]: 2}]"]),
    (2, ["2"]), (2.5, ["2.5"]), (2.0, ["2"]), ("2.0", ["2.0"]),
    (True, ["True"]), (["a", None, " "], ["a"]), ([{"raw": "a"}, {"raw": "b"}], ["a", "b"]),
    ("cut \ud83d", ["cut ?"]), ("a\r\nb ", ["a\nb"]), ("none", ["none"]), ("N/A", ["N/A"])])
def test_captions(told, wanted, raw, tmp_path):
    assert one(raw, tmp_path, {"path": "clips/0.mp4", "text": told}).fields["texts"] == wanted


@pytest.mark.parametrize("told, answer, answers", [
    (2, "2", []), (["yes", "no", "no"], "no", ["yes", "no", "no"]), (["yes"], "yes", []),
    ([{"answer": "a", "answer_id": 1}, {"answer": "a", "answer_id": 2}], "a", ["a", "a"])])
def test_answers(told, answer, answers, raw, tmp_path):
    row = {"path": "clips/0.mp4", "question": "what?", "answers": told, "question_id": 7}
    (question,) = one(raw, tmp_path, row).fields["questions"]
    assert question.pop("answers", []) == answers
    assert question == {"question": "what?", "answer": answer, "id": "7"}


def test_several_questions_of_a_row(raw, tmp_path):
    row = {"path": "clips/0.mp4", "questions": ["a?", "b?"], "answers": [["x", "y", "y"], 1]}
    first, second = one(raw, tmp_path, row).fields["questions"]
    assert (first["answer"], first["answers"], second["answer"]) == ("y", ["x", "y", "y"], "1")
    assert "2 questions with 1 answers" in faults([one(raw, tmp_path, row | {"answers": ["x"]})])[0]


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


def test_a_store_without_its_package_is_one_line(raw, tmp_path, capsys):
    for name, package in (("s3://bucket/a.mp4", "s3fs"), ("gs://bucket/a.mp4", "gcsfs")):
        path = table(tmp_path, [{"path": name, "caption": "a"}])
        assert main(["table", f"--raw={raw}", f"--table={path}", f"--out={tmp_path}"]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert f"pip install {package}" in line and name in line


def embedded(paths: list[str | None], data: list[bytes | None], **more) -> pa.Table:
    values = [{"bytes": one, "path": path} for one, path in zip(data, paths, strict=True)]
    return pa.table({"image": pa.array(values, pa.struct([("bytes", pa.binary()),
                                                          ("path", pa.string())]))} | more)


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


def test_splits_by_column_and_by_file(raw, tmp_path):
    rows = [{"path": f"clips/{n}.mp4", "caption": "a", "Split": split}
            for n, split in enumerate(("valid", "Train", "my fold"))]
    found = read(raw, table(tmp_path, [*rows, rows[0] | {"Split": None}]))
    assert {split: len(entries) for split, entries in found.items()} == {
        "train": 2, "val": 1, "my_fold": 1}
    assert faults(found["train"]) == ["a usable row (its split is empty (column 'Split'))"]
    for row in rows:
        del row["Split"]
    files = [table(tmp_path, rows[n:n + 1], name) for n, name in enumerate(
        ("captions_dev.json", "captions_train.json", "else.json"))]
    assert list(read(raw, *files)) == ["train", "val", "else"]
    for folders, wanted in ((("a", "b"), ["a_t", "b_t"]), (("Train", "dev"), ["train", "val"])):
        files = [table(tmp_path, rows[n:n + 1], f"{name}/t.json") for n, name in enumerate(folders)]
        assert list(read(raw, *files)) == wanted
    for name in ("train-00000-of-00002", "train-00001-of-00002", "validation-00000-of-00001"):
        pq.write_table(pa.table({"path": ["clips/0.mp4"], "text": [name]}),
                       tmp_path / "a" / f"{name}.parquet")
    found = read(raw, tmp_path / "a")
    assert {split: [entry.fields["texts"] for entry in entries] for split, entries in found.items()
            } == {"train": [["train-00000-of-00002", "train-00001-of-00002"]],
                  "val": [["validation-00000-of-00001"]]}


def test_hidden_files_are_no_parts_of_a_folder_of_tables(raw, tmp_path):
    for name in ("train.parquet", "._train.parquet", ".cache/old.parquet"):
        put(tmp_path / "t" / name, b"\0\5\x16\7")
    pq.write_table(pa.table({"path": ["clips/0.mp4"], "text": ["a"]}), tmp_path / "t/train.parquet")
    told = own.Options((str(tmp_path / "t"),))
    before = own.dataset(told).settings
    ((entry,),) = read(raw, tmp_path / "t").values()
    assert entry.fields["texts"] == ["a"]
    put(tmp_path / "t/.DS_Store", "x")
    assert own.dataset(told).settings == before


def test_splits_that_fall_together_are_one_line(raw, tmp_path):
    row = {"path": "clips/0.mp4", "caption": "a"}
    for first, second in (("训练", "测试"), ("fold-1", "fold 1"), ("été", "ôté")):
        rows = [row | {"split": one} for one in (first, f" {first}", second)]
        message = f"the splits '{first}' and '{second}' would both be called .*rename one"
        with pytest.raises(DataError, match=message):
            read(raw, table(tmp_path, rows))
        assert len(read(raw, table(tmp_path, rows[:2]))) == 1
        with pytest.raises(DataError, match=message):
            read(raw, *(table(tmp_path, [row], f"{one}.json") for one in (first, second)))
        for one in (first, second):
            save(tmp_path / first / one, pa.table({"path": ["clips/0.mp4"], "text": ["a"]}))
        put(tmp_path / first / "dataset_dict.json", json.dumps({"splits": [first, second]}))
        with pytest.raises(DataError, match=message):
            read(raw, tmp_path / first)
    known = [row | {"split": one} for one in ("valid", "dev", "Validation", "val")]
    assert list(read(raw, table(tmp_path, known))) == ["val"]


def test_a_share_never_divides_a_medium(raw, tmp_path):
    rows = [{"path": f"clips/{n % 4}.mp4", "caption": f"{n}", "start": n // 4, "end": n // 4 + 1}
            for n in range(12)]
    found = read(raw, table(tmp_path, rows), share="val=0.25,test=0.25")
    media = {split: {entry.media.path for entry in entries} for split, entries in found.items()}
    assert [len(media[split]) for split in ("train", "val", "test")] == [2, 1, 1]
    assert len(set.union(*media.values())) == 4 and sum(map(len, found.values())) == 12
    assert read(raw, table(tmp_path, rows[::-1]), share="val=0.25,test=0.25").keys() == media.keys()
    again = read(raw, table(tmp_path, rows[::-1]), share="0.25")["val"]
    assert {entry.media.path for entry in again} == media["val"]
    drawn = {frozenset(entry.media.path for entry in read(
        raw, table(tmp_path, rows), share="0.25", seed=seed)["val"]) for seed in range(9)}
    assert len(drawn) > 1


def test_a_share_takes_the_same_bytes_under_any_name_together(raw, tmp_path):
    made = embedded([f"{n}.jpg" for n in range(12)], [image(n % 4) for n in range(12)],
                    caption=[f"{n}" for n in range(12)])
    pq.write_table(made, tmp_path / "t.parquet")
    for seed in range(4):
        found = read(raw, tmp_path / "t.parquet", share="val=0.25,test=0.25", seed=seed)
        bytes_of = {split: {opening.read_media(raw, entry.media) for entry in entries}
                    for split, entries in found.items()}
        assert [len(bytes_of[split]) for split in ("train", "val", "test")] == [2, 1, 1]
        assert len(set.union(*bytes_of.values())) == 4 and sum(map(len, found.values())) == 12


def test_a_share_keeps_images_together_that_records_join(raw, tmp_path, capsys):
    for name in "abcdefgh":
        put(tmp_path / f"raw/{name}.jpg", image(ord(name)))
    pairs = ["ab", "bc", "ef", "d", "c", "gh", "h"]  # abc, ef, gh, d
    rows = [{"images": [f"{one}.jpg" for one in pair], "caption": pair} for pair in pairs]
    groups = [{"ab", "bc", "c"}, {"ef"}, {"gh", "h"}, {"d"}]
    for seed in range(6):
        found = read(tmp_path / "raw", table(tmp_path, rows), share="val=0.25", seed=seed)
        said = [{entry.fields["texts"][0] for entry in found[split]} for split in ("train", "val")]
        assert all(any(group <= one for one in said) for group in groups)
        media = [media for entry in found["val"] for media in (
            entry.media if isinstance(entry.media, list) else [entry.media])]
        assert len({one.path for one in media}) in (1, 2)  # a quarter of eight, at most
        again = read(tmp_path / "raw", table(tmp_path, rows[::-1]), share="val=0.25", seed=seed)
        assert {entry.id for entry in again["val"]} == {entry.id for entry in found["val"]}
    assert "several splits" not in capsys.readouterr().err
    with pytest.raises(DataError, match="3 media, in 1 groups .* cannot be divided"):
        read(tmp_path / "raw", table(tmp_path, rows[:2]), share="0.5")
    rows = [{"images": ["a.jpg", "b.jpg"], "text": "x", "split": "train"},
            {"images": ["c.jpg", "b.jpg"], "text": "y", "split": "val"}]
    read(tmp_path / "raw", table(tmp_path, rows))
    assert "1 media stand in several splits" in capsys.readouterr().err


@pytest.mark.parametrize("share, message", [
    ("2", "expected such as"), ("train=0.1", "expected such as"),
    ("val=0.6,test=0.5", "nothing is"),
    ("val=x", "expected such as"), ("val=0.5,test=0.1", "cannot be divided")])
def test_wrong_shares(share, message, raw, tmp_path):
    rows = [{"path": f"clips/{n}.mp4", "caption": "a"} for n in range(2)]
    with pytest.raises(DataError, match=message):
        read(raw, table(tmp_path, rows), share=share)
    with pytest.raises(DataError, match="have a split 'val' already"):
        read(raw, table(tmp_path, [rows[0] | {"split": "val"}, rows[1] | {"split": "train"}]),
             share="0.1")


BOXES = {  # of a picture of 40 x 20: the same box
    "list": [10, 5, 30, 10], "text": "[10, 5, 30, 10]", "plain": "10 5 30.0 10", "tuple":
    "(10, 5, 30, 10)", "dict": {"xmin": 10, "ymin": 5, "xmax": 30, "ymax": 10},
    "of sides": {"x": 10, "y": 5, "width": 20, "height": 5}, "nested": [[10, 5, 30, 10]],
    "text of sides": '{"x": 10, "y": 5, "w": 20, "h": 5}', "texts": ["10", "5", "30", "10"],
    "rounded": [10, 5, 30, 10]}


@pytest.mark.parametrize("way", BOXES)
def test_a_box_however_it_is_written(way, raw, tmp_path):
    row = {"image": "pictures/0.jpg", "phrase": "it", "bbox": BOXES[way]}
    (box,) = one(raw, tmp_path, row).fields["boxes"]
    assert box == {"phrase": "it", "box": [0.25, 0.25, 0.75, 0.5]}


@pytest.mark.parametrize("told, box", [
    ("xywh", [10, 5, 20, 5]), ("xywh,absolute", [10, 5, 20, 5]), ("", [0.25, 0.25, 0.75, 0.5]),
    ("relative,xywh", [0.25, 0.25, 0.5, 0.25]), ("xyxy", [10, 5, 30, 10])])
def test_formats_of_boxes(told, box, raw, tmp_path):
    row = {"image": "pictures/0.jpg", "caption": "it", "box": box}
    entry = one(raw, tmp_path, row, boxes=told)
    assert entry.fields["boxes"] == [{"phrase": "it", "box": [0.25, 0.25, 0.75, 0.5]}]
    assert entry.fields["texts"] == ["it"]


def test_boxes_in_four_columns_of_clips_and_of_stated_sizes(raw, tmp_path):
    row = {"path": "clips/0.mp4", "expression": "it", "x": 8, "y": 6, "w": 16, "h": 12}
    (box,) = one(raw, tmp_path, row, box="x,y,w,h").fields["boxes"]
    assert box["box"] == [0.25, 0.25, 0.75, 0.75]
    sized = {"path": "clips/0.mp4", "expression": "it", "box": [8, 6, 24, 18], "width": 64,
             "height": 48}
    assert one(raw, tmp_path, sized).fields["boxes"][0]["box"] == [0.125, 0.125, 0.375, 0.375]


def test_boxes_of_a_turned_photo_are_of_what_is_seen(tmp_path):
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x112] = 6
    Image.new("RGB", (40, 20)).save(file, "JPEG", exif=exif)
    put(tmp_path / "raw/0.jpg", file.getvalue())
    row = {"image": "0.jpg", "phrase": "it", "box": [5, 10, 10, 30]}
    (box,) = one(tmp_path / "raw", tmp_path, row).fields["boxes"]
    assert box["box"] == [0.25, 0.25, 0.5, 0.75]


def test_several_boxes_of_a_row_and_parts_of_columns(raw, tmp_path):
    objects = [{"bbox": [0, 0, 20, 10], "category": "cat"}, {"bbox": [20, 10, 20, 10],
                                                             "category": "dog"}]
    row = {"image": "pictures/0.jpg", "objects": objects}
    entry = one(raw, tmp_path, row, box="objects.bbox", phrase="objects.category", boxes="xywh")
    assert entry.fields["boxes"] == [{"phrase": "cat", "box": [0, 0, 0.5, 0.5]},
                                     {"phrase": "dog", "box": [0.5, 0.5, 1, 1]}]
    row = {"image": "pictures/0.jpg", "phrase": ["a", "b"], "box": [10, 5, 30, 10]}
    assert [one["phrase"] for one in one_boxes(raw, tmp_path, row)] == ["a", "b"]


def one_boxes(raw, tmp_path, row, **options):
    return one(raw, tmp_path, row, **options).fields["boxes"]


def test_a_row_without_a_box_keeps_its_caption(raw, tmp_path):
    row = {"image": "pictures/0.jpg", "caption": "it"}
    for empty in (None, "", [], "[]", float("nan")):
        entry = one(raw, tmp_path, row | {"box": empty})
        assert entry.fields == {"texts": ["it"]}, empty
        assert "'box' is empty" in faults([one(raw, tmp_path, {
            "image": "pictures/0.jpg", "phrase": "it", "box": empty})])[0]
    sides = dict.fromkeys("xywh")
    assert one(raw, tmp_path, row | sides, box="x,y,w,h").fields == {"texts": ["it"]}
    assert "expected a box" in faults([one(raw, tmp_path, row | sides | {"x": 1},
                                           box="x,y,w,h")])[0]


def test_whole_numbers_of_columns_with_nulls(raw, tmp_path):
    made = pa.table({"video_id": [2.0, None, 1.0], "question": ["a?"] * 3,
                     "answer": [3.0, 1.0, 2.5], "question_id": pa.array([7.0, 8.0, None])})
    pq.write_table(made, tmp_path / "t.parquet")
    first, second, odd = read(raw, tmp_path / "t.parquet")["train"]
    assert [first.media.path, second.media.path] == ["clips/2.mp4", "clips/1.mp4"]
    assert first.fields["questions"] == [{"question": "a?", "answer": "3", "id": "7"}]
    assert second.fields["questions"] == [{"question": "a?", "answer": "2.5"}]
    assert "names no medium" in faults([odd])[0]


def test_an_odd_box_costs_its_row(raw, tmp_path):
    good = {"image": "pictures/0.jpg", "phrase": "it", "box": [10, 5, 30, 10]}
    odd = {"beyond": [10, 5, 90, 10], "three": [1, 2, 3], "turned": [30, 10, 10, 5],
           "words": "left of it", "set": "{{1,2,3,4}}", "hash": "[{[1]: 2}]", "null": None,
           "nan": [float("nan"), 1, 2, 3],
           "two": [[10, 5, 30, 10], [1, 1, 3, 3]]}
    rows = [good | {"phrase": f"it {name}", "box": box} for name, box in odd.items()]
    entries = read(raw, table(tmp_path, [good, *rows]), boxes="xyxy")["train"]
    assert entries[0].fields["boxes"] == [{"phrase": "it", "box": [0.25, 0.25, 0.75, 0.5]}]
    assert len(entries) == 1 + len(faults(entries)) == 1 + len(odd)
    assert {entry.id for entry in entries[1:]} == {f"t.json:{n}" for n in range(2, 11)}


def test_boxes_of_another_format_are_one_error(raw, tmp_path):
    row = {"image": "pictures/0.jpg", "phrase": "it"}
    with pytest.raises(DataError, match="1 of 2 boxes end before .* say --boxes=xywh"):
        read(raw, table(tmp_path, [row | {"box": [20, 5, 10, 5]}, row | {"box": [1, 2, 30, 10]}]))
    large = [row | {"box": [1, 2, 30 + n % 9, 10]} for n in range(19)]
    few = [row | {"box": [20, 5, 10, 5]}] * 2
    with pytest.raises(DataError, match="2 of 21 boxes end before .* else --boxes=xyxy"):
        read(raw, table(tmp_path, [*large, *few]))
    entries = read(raw, table(tmp_path, [*large, few[0]]))["train"]  # an odd one of twenty
    assert len(entries[0].fields["boxes"]) == 9 and "ends before" in faults(entries)[0]
    with pytest.raises(DataError, match="1 of 2 boxes lie within 0 to 1, the others beyond"):
        read(raw, table(tmp_path, [row | {"box": [0.1, 0.1, 0.2, 0.3]},
                                   row | {"box": [1, 2, 30, 10]}]))
    with pytest.raises(DataError, match="--boxes=xyz: expected xyxy or xywh, and absolute"):
        read(raw, table(tmp_path, [row | {"box": [1, 2, 30, 10]}]), boxes="xyz")


@pytest.mark.parametrize("columns, given, message", [
    (("path", "words"), {}, "no column that says something of the media: it has 'path', 'words'; "
                            "name one with --caption, --question, --label, --box"),
    (("words", "caption"), {}, "no column that is known to name media: it has 'words', 'caption'; "
                               "name it with --media=COLUMN"),
    (("path", "caption"), {"caption": "txt"}, "no column 'txt' .--caption.: it has 'path', "
                                              "'caption'; name one with --caption=COLUMN"),
    (("path", "caption", "captions"), {}, "'caption', 'captions' could each be the caption; name "
                                          "one with --caption=COLUMN, or none with --caption=-"),
    (("image", "video", "caption"), {}, "'image', 'video' could each be the media; name one with "
                                        "--media=COLUMN"),
    (("path", "question"), {}, "no column that is known to hold answers"),
    (("path", "answer", "label"), {}, "no column that is known to hold questions"),
    (("path", "box"), {}, "no column that says what is in them")])
def test_columns_that_are_not_known_are_one_line(columns, given, message, raw, tmp_path):
    with pytest.raises(DataError, match=message) as error:
        read(raw, table(tmp_path, [dict.fromkeys(columns, "clips/0.mp4")]), **given)
    assert "\n" not in str(error.value)


def test_columns_are_known_in_any_spelling(raw, tmp_path):
    rows = [{" File Name": "clips/0.mp4", "Captions": "a", "note": "b"}]
    for given, wanted in (({}, "a"), ({"caption": "NOTE"}, "b")):
        entry = one(raw, tmp_path, rows[0], **given)
        assert entry.fields["texts"] == [wanted]
    with pytest.raises(DataError, match="says something"):
        one(raw, tmp_path, rows[0], caption="-")


def test_rows_that_are_odd_cost_themselves(raw, tmp_path):
    text = ("path,caption\nclips/0.mp4,a\nclips/0.mp4,a\nclips/1.mp4\nclips/1.mp4,b,c\n,d\n"
            'clips/1.mp4,"an open quote\nclips/1.mp4,e\n\nclips/2.mp4, \nclips/3.mp4,f,,\n')
    put(tmp_path / "t.csv", text)
    entries = read(raw, tmp_path / "t.csv")["train"]
    assert {entry.id: entry.fields.get("texts") for entry in entries[:3]} == {
        "clips/0.mp4": ["a"], "clips/1.mp4": ['"an open quote', "e"], "clips/3.mp4": ["f"]}
    assert [(entry.id, entry.media.expected) for entry in entries[3:]] == [
        ("t.csv:4", "a usable row (1 cells, where the first line has 2)"),
        ("t.csv:5", "a usable row (3 cells, where the first line has 2)"),
        ("t.csv:6", "a usable row (it names no medium)"),
        ("t.csv:10", "a usable row (it says nothing: 'caption' is empty)")]
    put(tmp_path / "t.jsonl", '{"path": "clips/0.mp4", "caption": "a"}\n{"path"\n[1]\n'
        '{"path": "clips/1.mp4", "caption": {"a": 1}}\n{"path": "clips/1.mp4", "caption": null}\n')
    entries = read(raw, tmp_path / "t.jsonl")["train"]
    assert [entry.id for entry in entries] == [
        "clips/0.mp4", *(f"t.jsonl:{n}" for n in (2, 3, 4, 5))]


def test_quotes_that_are_letters_cost_no_other_row(raw, tmp_path):
    for separator, name in (("\t", "t.tsv"), (",", "t.csv")):
        rows = ["path", "caption"], ["0.mp4", '"a'], ["1.mp4", '"b'], ["2.mp4", '"c\nd"'], [
            "3.mp4", '"e" f']
        put(tmp_path / name, "".join(f"{separator.join(row)}\n" for row in rows))
        entries = read(raw, tmp_path / name)["train"]
        assert [entry.fields["texts"] for entry in entries] == [['"a'], ['"b'], ["c\nd"], ["e f"]]


def test_carriage_returns_are_letters_of_their_cell(raw, tmp_path):
    put(tmp_path / "t.tsv", b"path\tcaption\r\nclips/0.mp4\ta\rb\r\nclips/1.mp4\t\"c\r\nd\"\r\n")
    entries = read(raw, tmp_path / "t.tsv")["train"]
    assert [entry.fields["texts"] for entry in entries] == [["a\rb"], ["c\nd"]]
    put(tmp_path / "mac.csv", b"path,caption\rclips/0.mp4,a\rclips/1.mp4,b\r")
    assert len(read(raw, tmp_path / "mac.csv")["train"]) == 2


def test_latin_and_packed_and_marked_tables(raw, tmp_path):
    text = separated([{"path": "clips/0.mp4", "caption": "café"}])
    for name, data in (("l.csv", text.encode("latin-1")),
                       ("z.csv.gz", gzip.compress(text.encode())),
                       ("s.csv", f"sep=;\n{text.replace(',', ';')}".encode("utf-8-sig")),
                       ("b.csv", text.replace(",", "|").encode()), ("c.tsv", text.encode()),
                       ("q.csv", f'"path",{text[5:]}'.encode())):
        put(tmp_path / name, data)
        ((entry,),) = read(raw, tmp_path / name).values()
        assert entry.fields["texts"] == ["café"], name


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-16", "utf-32", "utf-8-sig"])
def test_tables_in_any_encoding(encoding, raw, tmp_path):
    text = separated([{"path": "clips/0.mp4", "caption": "日本 café"}])
    for name, packed in (("t.csv", False), ("z.csv.gz", True)):
        data = text.encode(encoding)
        put(tmp_path / name, gzip.compress(data) if packed else data)
        ((entry,),) = read(raw, tmp_path / name).values()
        assert entry.fields["texts"] == ["日本 café"], name


def test_a_bad_byte_costs_no_other_letter_of_its_table(raw, tmp_path, capsys):
    put(tmp_path / "t.csv", "path,caption\nclips/0.mp4,日本 café\nclips/1.mp4,".encode()
        + b"caf\xe9 \x93q\x94\n" + "clips/2.mp4,naïve\n".encode())
    entries = read(raw, tmp_path / "t.csv")["train"]
    assert [entry.fields["texts"] for entry in entries] == [["日本 café"], ["café “q”"], ["naïve"]]
    assert "t.csv is not all UTF-8, first in line 3" in capsys.readouterr().err


def test_lists_and_lines_of_json_pass_for_each_other(raw, tmp_path):
    row = {"path": "clips/0.mp4", "caption": "a"}
    for name, text in (("l.jsonl", json.dumps([row], indent=1)), ("m.ndjson", json.dumps([row])),
                       ("n.jsonl", f"\n[1]\n{json.dumps(row)}\n"),
                       ("o.json", f"{json.dumps(row)}\n{json.dumps(row)}\n")):
        put(tmp_path / name, text)
        first = read(raw, tmp_path / name)["train"][0]
        assert first.fields["texts"] == ["a"], name
    for name in ("c.json", "c.jsonl"):
        put(tmp_path / name, "[\n" + f"{json.dumps(row)},\n" * 2 + "]\n")
        with pytest.raises(DataError, match="c.jsonl? is not JSON: .*line [34]"):
            read(raw, tmp_path / name)


def test_a_table_without_any_column_says_what_its_first_row_is(raw, tmp_path):
    for name, text, reason in (
            ("a.jsonl", "{'path': 1}\n{'path': 2}\n", "a.jsonl:1: not JSON"),
            ("b.json", "[[1, 2], [3]]", "b.json:1: expected an object, not list"),
            ("c.json", "[{}]", "c.json:1: an object without a name"),
            ("d.json", "[]", "no column that is known to name media")):
        put(tmp_path / name, text)
        with pytest.raises(DataError, match=reason):
            read(raw, tmp_path / name)


def test_json_by_media(raw, tmp_path):
    for told, texts in (({"clips/0.mp4": "a", "clips/1.mp4": ["b", "c"]}, [["a"], ["b", "c"]]),
                        ({"0": {"captions": ["a"]}, "1": {"captions": "b"}}, [["a"], ["b"]]),
                        ({"clips/0.mp4": ["a", "b"], "clips/1.mp4": ["c", "d"]},
                         [["a", "b"], ["c", "d"]])):
        entries = read(raw, table(tmp_path, told))["train"]
        assert [entry.fields["texts"] for entry in entries] == texts
    asked = {"clips/0.mp4": [{"question": "a?", "answer": "x"}, {"question": "b?", "answer": 1}]}
    (entry,) = read(raw, table(tmp_path, asked))["train"]
    assert [one["answer"] for one in entry.fields["questions"]] == ["x", "1"]
    with pytest.raises(DataError, match="holds several lists .images, annotations."):
        read(raw, table(tmp_path, {"images": [{"id": 1}], "annotations": [{"caption": "a"}]}))


@pytest.mark.parametrize("told, wanted", [
    (dict(start="0:00.25", end="00:00:00,5"), (0.25, 0.5)), (dict(start=None, end=0.25), (0, 0.25)),
    (dict(start="0.25", end=""), (0.25, 0.0)), (dict(start="0,25", end="0,5"), (0.25, 0.5)),
    (dict(start="nan", end=float("nan")), (0.0, 0.0))])
def test_parts_of_clips(told, wanted, raw, tmp_path):
    entry = one(raw, tmp_path, {"path": "clips/0.mp4", "caption": "a"} | told)
    assert (entry.fields.get("start", 0.0), entry.fields.get("end", 0.0)) == wanted


@pytest.mark.parametrize("told, reason", [
    (dict(start=2, end=1), "end 1 is not after its start 2"), (dict(start=-1), "start: expected"),
    (dict(start="soon"), "start: expected a number, not 'soon'"),
    (dict(path="pictures/0.jpg", start=1), "of an image")])
def test_parts_that_are_none(told, reason, raw, tmp_path):
    entry = one(raw, tmp_path, {"path": "clips/0.mp4", "caption": "a"} | told)
    assert reason in faults([entry])[0]


def test_classes_and_answers_that_do_not_agree(raw, tmp_path):
    rows = [{"path": "clips/0.mp4", "label": label} for label in ("cat", "dog", 7, ["cat"], None)]
    first, *rest = read(raw, table(tmp_path, rows))["train"]
    assert first.fields == {"label": "cat"}
    assert [entry.id for entry in rest] == ["t.json:5", "t.json:2", "t.json:3"]
    asked = [{"path": f"clips/{n}.mp4", "question": "a?", "answer": answer, "split": split}
             for n, (answer, split) in enumerate((("x", "train"), (None, "train"), ("", "test")))]
    found = read(raw, table(tmp_path, asked))
    assert len(faults(found["train"])) == 1
    assert found["test"][0].fields["questions"] == [{"question": "a?", "answer": ""}]


def test_what_was_missing_is_counted_and_named(raw, tmp_path, capsys):
    rows = [{"path": f"gone/{n}.mp4", "caption": "a"} for n in range(5)]
    arguments = ["table", f"--raw={raw}", f"--out={tmp_path}", "--processes=1"]
    path = table(tmp_path, rows)
    assert main([*arguments, f"--table={path}"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "all 5 media are missing" in line
    assert line.endswith("gone/0.mp4; gone/1.mp4; gone/2.mp4")
    table(tmp_path, [*rows, {"path": "clips/0.mp4", "caption": "a"}])
    assert main([*arguments, f"--table={path}"]) == 0
    assert "media of 5 missing, the first: gone/0.mp4; gone/1.mp4; gone/2.mp4" in (
        capsys.readouterr().out)
    assert main([*arguments, f"--table={path}", "--share=0.1"]) == 1  # made otherwise
    assert "with share=, not 0.1" in capsys.readouterr().err


def test_an_edited_table_is_not_what_was_prepared(raw, tmp_path, capsys):
    rows = [{"path": "clips/0.mp4", "caption": "a"}]
    (tmp_path / "raw").symlink_to(raw)
    put(tmp_path / "raw/own/t.json", rows)
    arguments = ["table", f"--raw={tmp_path}/raw", "--processes=1"]
    for told, edit in ((f"{tmp_path}/t.json", lambda: table(tmp_path, rows)),
                       ("own/t.json", lambda: put(raw / "own/t.json", rows)),
                       (f"{tmp_path}/folder", lambda: WRITERS["parquet"](
                           tmp_path / "folder", rows))):
        (tmp_path / "folder").mkdir(exist_ok=True)
        rows[0]["caption"] = "a"
        edit()
        again = [*arguments, f"--table={told}", f"--out={tmp_path}/of {told.replace('/', ' ')}"]
        assert main(again) == 0 and main(again) == 0, told
        rows[0]["caption"] = "b"
        edit()
        capsys.readouterr()
        assert main(again) == 1, told
        assert "with contents=" in capsys.readouterr().err
    dataset = own.dataset(own.Options(("own/t.json",)), raw)
    assert dataset.settings["tables"] == f"{raw}/own/t.json"


def test_an_edited_table_is_not_what_was_begun(raw, tmp_path):
    def planned(caption: str) -> Plan:
        path = table(tmp_path, [{"path": "clips/0.mp4", "caption": caption}])
        dataset = own.dataset(own.Options((str(path),)), raw)
        return make_plan(dataset, RawFolder(raw), tmp_path / "work", 10)

    assert planned("a").shards == planned("a").shards == {"train": 1}
    with pytest.raises(DataError, match="was begun with contents="):
        planned("b")


def test_warnings_of_what_may_be_no_intention(raw, tmp_path, capsys):
    rows = [{"path": "clips/0.mp4", "caption": "a", "split": "train"},
            {"path": "pictures/0.jpg", "caption": "a", "split": "train"},
            {"path": "clips/0.mp4", "caption": "a", "split": "val"}]
    read(raw, table(tmp_path, [*rows, rows[0]]))
    said = capsys.readouterr()
    assert "1 of 4 rows repeat" in said.out
    assert "train holds 1 of video, 1 of image" in said.err
    assert "1 media stand in several splits, the first: clips/0.mp4" in said.err


@pytest.mark.parametrize("name, content, message", [
    ("t.csv", "", "is empty"), ("t.csv", "path,path\n", "names the column 'path' twice"),
    ("t.json", "{", "is not JSON"), ("t.json", "3", "holds int, no table"),
    ("t.xlsx", "x", "expected .csv, .tsv"), ("t.parquet", "x", "cannot be read"),
    ("t.arrow", "x", "cannot be read"), ("folder/readme.md", "x", "is a folder without"),
    ("folder/state.json", "{}", "names no files"), ("t.csv.gz", b"\x1f\x8b", "cannot be read"),
    ("t.json", '{"path": ["a"], "caption": []}', "different lengths: path 1, caption 0"),
    ("folder/dataset_dict.json", "[]", "no JSON object")])
def test_tables_that_are_none(name, content, message, raw, tmp_path):
    put(tmp_path / name, content)
    path = tmp_path / "folder" if name.startswith("folder") else tmp_path / name
    with pytest.raises(DataError, match=message) as error:
        read(raw, path)
    assert "\n" not in str(error.value) and str(tmp_path) in str(error.value)


def test_a_place_that_cannot_be_read_is_one_line(raw):
    for path in ("gone.mp4", "data:image/png;base64,???", "cell:image:gone.parquet"):
        with pytest.raises(MediaError) as error:
            opening.read_media(raw, own.table.Media(path))
        assert "\n" not in str(error.value)
    assert record("a", "video", clip(0))["media"].item() == clip(0)
    assert os.fspath(raw)
