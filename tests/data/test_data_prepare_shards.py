"""Preparing raw files: interruptions, several workers, and files that are missing or damaged."""

import pickle
import re
import sys
from pathlib import Path

import pytest
from raw_media import clip, image, put, put_csv, put_tar
from raw_miniatures import MINIATURES

from data.datasets import DATASETS
from data.datasets.pickles import read_pickle
from data.pipeline import open_split
from data.prepare import finish, prepare, shards
from data.prepare.__main__ import main
from data.prepare.plan import folders
from data.prepare.problems import PROBLEMS
from mplug2_jax.contracts.errors import DataError
from mplug2_jax.parallel import beam

WEBVID = DATASETS["webvid"]
ROOT = Path(__file__).parents[2]


def webvid(raw: Path, count: int) -> None:
    rows = [[str(n), "1_50", f"clip {n}"] for n in range(count)]
    put_csv(raw / "results_2M_train.csv", [["videoid", "page_dir", "name"], *rows])
    for n in range(count):
        put(raw / f"videos/1_50/{n}.mp4", clip(n % 3))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def records_of(out: Path, split: str) -> list[dict]:
    source = open_split(out, split)
    return [source[index] for index in range(len(source))]


def problems(out: Path, name: str) -> list[list[str]]:
    lines = (out / name / "1.0.0" / PROBLEMS).read_text().splitlines()
    listed = (line.split("\t") for line in lines[1:])
    return [[split, record, reason] for _, _, record, reason, _, split in listed]


def test_several_processes_write_the_same(tmp_path):
    webvid(tmp_path / "raw", 5)
    for processes in (1, 2):
        prepare(WEBVID, tmp_path / "raw", tmp_path / str(processes), processes, shard_records=2)
    one, two = (folders(tmp_path / str(n), "webvid")[1] for n in (1, 2))
    assert contents(one) == contents(two)


def test_without_beam_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    with pytest.raises(DataError, match="requirements/beam.txt"):
        beam.run(shards.writer, [], "DirectRunner", [])


def test_a_finished_dataset_is_left_alone(tmp_path, capsys):
    webvid(tmp_path / "raw", 3)
    prepare(WEBVID, tmp_path / "raw", tmp_path / "out")
    final = folders(tmp_path / "out", "webvid")[1]
    before = {path.name: path.stat().st_mtime_ns for path in final.iterdir()}
    assert prepare(WEBVID, tmp_path / "raw", tmp_path / "out") == {"train": 3}
    assert "there already" in capsys.readouterr().out
    assert {path.name: path.stat().st_mtime_ns for path in final.iterdir()} == before
    with pytest.raises(DataError, match="shard_records=500, not 2.*choose another --out"):
        prepare(WEBVID, tmp_path / "raw", tmp_path / "out", shard_records=2)


def test_a_begun_dataset_keeps_its_settings(tmp_path, monkeypatch):
    webvid(tmp_path / "raw", 3)

    def stop(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shards, "write_shard", stop)
        with pytest.raises(KeyboardInterrupt):
            prepare(WEBVID, tmp_path / "raw", tmp_path / "out", shard_records=2)
    with pytest.raises(DataError, match="was begun with shard_records=2, not 3"):
        prepare(WEBVID, tmp_path / "raw", tmp_path / "out", shard_records=3)
    assert prepare(WEBVID, tmp_path / "raw", tmp_path / "out", shard_records=2) == {"train": 3}


@pytest.mark.parametrize("step", ["metadata", "rename", "remove"])
def test_a_run_that_dies_at_the_very_end_goes_on(step, tmp_path, monkeypatch):
    webvid(tmp_path / "raw", 3)
    owner, name = {
        "metadata": (finish.tfds.folder_dataset, "write_metadata"),
        "rename": (Path, "rename"),
        "remove": (finish.shutil, "rmtree"),
    }[step]
    whole = getattr(owner, name)

    def dies(*arguments, **options):
        if step == "metadata":
            whole(*arguments, **options)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, dies)
        with pytest.raises(KeyboardInterrupt):
            prepare(WEBVID, tmp_path / "raw", tmp_path / "out")
    assert prepare(WEBVID, tmp_path / "raw", tmp_path / "out") == {"train": 3}
    prepare(WEBVID, tmp_path / "raw", tmp_path / "straight")
    died, straight = (folders(tmp_path / n, "webvid")[1] for n in ("out", "straight"))
    assert contents(died) == contents(straight)


def test_missing_and_unreadable_media_are_listed(tmp_path, capsys):
    raw, out = tmp_path / "raw", tmp_path / "out"
    webvid(raw, 8)
    videos = raw / "videos/1_50"
    (videos / "1.mp4").unlink()
    put(videos / "2.mp4", b"")
    put(videos / "3.mp4", b"this is no video" * 100)
    (videos / "4.mp4").unlink()
    (videos / "4.mp4").mkdir()
    put(videos / "5.mp4", clip(5)[: len(clip(5)) // 3])  # the index of an mp4 comes last
    assert prepare(WEBVID, raw, out, shard_records=1) == {"train": 3}
    assert [record["id"] for record in records_of(out, "train")] == ["0", "6", "7"]
    listed = problems(out, "webvid")
    assert [row[:2] for row in listed] == [["train", number] for number in "12345"]
    assert listed[0][2] == "missing: 1(.mp4|.avi|.gif|.webm|.mkv)"
    assert listed[1][2] == "unreadable: videos/1_50/2.mp4: empty file"
    assert "undecodable video" in listed[2][2] and "videos/1_50/3.mp4" in listed[2][2]
    assert "is a folder, not a file" in listed[3][2] and "undecodable video" in listed[4][2]
    printed = capsys.readouterr()
    assert "train: found 8 records, 8 texts, media of 1 missing" in printed.out
    assert "records/s" in printed.out
    assert "train holds 3 of 8 records: 1 missing, 4 unreadable, listed in" in printed.err


def test_a_split_without_media_is_left_out(tmp_path, capsys):
    raw = tmp_path / "raw"
    MINIATURES["msrvtt"](raw)
    (raw / "TestVideo/video3.mkv").unlink()
    put(raw / "TrainValVideo/video2.webm", b"junk")
    sizes = prepare(DATASETS["msrvtt"], raw, tmp_path / "out")
    assert sizes == {"train": 2}
    assert [row[0] for row in problems(tmp_path / "out", "msrvtt")] == ["test", "val"]
    with pytest.raises(DataError, match="no split 'test'"):
        open_split(tmp_path / "out", "test")
    assert "test holds 0 of 1 records: 1 missing, 0 unreadable" in capsys.readouterr().err


def test_no_media_at_all_is_an_error(tmp_path):
    raw, out = tmp_path / "raw", tmp_path / "out"
    webvid(raw, 2)
    for n in range(2):
        put(raw / f"videos/1_50/{n}.mp4", b"junk")
    with pytest.raises(DataError, match="none of the media could be read, the first: unreadable"):
        prepare(WEBVID, raw, out)
    assert not list((out / "webvid").iterdir())
    for n in range(2):
        (raw / f"videos/1_50/{n}.mp4").unlink()
    with pytest.raises(DataError, match=r"all 2 media are missing in --raw=.*: missing: 0\(.mp4"):
        prepare(WEBVID, raw, tmp_path / "other")
    # Nothing is left that would be in the way once the media are there.
    webvid(raw, 2)
    assert prepare(WEBVID, raw, tmp_path / "other") == {"train": 2}


@pytest.mark.parametrize("name", DATASETS)
def test_a_wrong_raw_folder_is_one_line_with_the_files_expected(name, tmp_path, capsys):
    (tmp_path / "raw/other").mkdir(parents=True)
    put(tmp_path / "raw/other/notes.txt", "nothing of use")
    status = main([name, f"--raw={tmp_path / 'raw'}", f"--out={tmp_path / 'out'}"])
    error = capsys.readouterr().err
    assert status == 1 and error.count("\n") == 1 and error.startswith("error: --raw=")
    assert re.search(r"\.(json|jsonl|csv|txt|p|tsv|tar|jpg|mat)\b", error)


def test_a_raw_folder_that_does_not_exist(tmp_path, capsys):
    assert main(["msrvtt", f"--raw={tmp_path / 'none'}", f"--out={tmp_path}"]) == 1
    assert "none is not a folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "file", "content", "message"),
    [
        ("msrvtt", "train_val_videodatainfo.json", "{", "is not JSON"),
        ("msrvtt", "train_val_videodatainfo.json", {"videos": []}, "has no 'sentences'"),
        ("msrvtt_qa", "val_qa.json", [{"video_id": 8, "question": "?"}], "has no 'answer'"),
        ("msrvtt_1ka", "annotation/MSRVTT_train.9k.csv", "id\n1\n", "no column video_id"),
        ("webvid", "results_2M_val.csv", "videoid,page_dir,name\n1\n", "line 2 has fewer"),
        ("lsmdc", "LSMDC16_annos_val.csv", "clip\tsentence\n", "line 1 has 2 columns"),
        ("release_jsonl", "qa_test.jsonl", '{"video_id": "1"}\n', "neither"),
        ("release_jsonl", "qa_test.jsonl", "\n{]\n", "line 2 is not JSON"),
        ("msvd", "youtube_mapping.txt", "only\n", "is not `<clip> vid<number>`"),
        ("kinetics400", "annotations/test.csv", "youtube_id,time_start,time_end\na,b,2\n", "'b'"),
        ("refcoco", "refs(unc).p", b"junk", "is not a pickle of plain values"),
        ("refcoco", "instances.json", {"images": [], "annotations": []}, "has no image"),
        (
            "nocaps",
            "nocaps_val_4500_captions.json",
            {"images": [{"id": 3, "domain": "x"}], "annotations": []},
            "image 3 is of domain 'x'",
        ),
        ("vqav2", "v2_mscoco_train2014_annotations.json", {"annotations": []}, "no annotation"),
    ],
)
def test_files_of_another_layout_are_named(name, file, content, message, tmp_path):
    raw = tmp_path / "raw"
    MINIATURES[name](raw)
    assert (raw / file).exists() or name == "msvd"
    put(raw / file, content)
    with pytest.raises(DataError) as raised:
        prepare(DATASETS[name], raw, tmp_path / "out")
    assert str(raw / file) in str(raised.value) and message in str(raised.value)
    assert "\n" not in str(raised.value)


class _Touches:
    """Unpickled without care, it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("protocol", range(5))
def test_a_pickle_never_runs_code(protocol, tmp_path):
    trap = tmp_path / "trap"
    plain = [{"ref_id": 1, "split": "train", "box": (1.5, True, None), "é": b"x"}]
    put(tmp_path / "plain.p", pickle.dumps(plain, protocol))
    put(tmp_path / "bad.p", pickle.dumps([_Touches(trap)], protocol))
    if protocol >= 3:  # earlier ones spell bytes as a call
        assert read_pickle(tmp_path / "plain.p") == plain
    with pytest.raises(DataError, match="refers to"):
        read_pickle(tmp_path / "bad.p")
    assert not trap.exists()


def test_a_pickle_of_python_2_is_read(tmp_path):
    # What Python 2 writes for [{'split': 'train', u'sent': u'caf\xe9', 'id': 3L}], protocol 2.
    python2 = (
        b"\x80\x02]q\x00}q\x01(U\x05splitU\x05trainX\x04\x00\x00\x00sent"
        b"X\x05\x00\x00\x00caf\xc3\xa9U\x02id\x8a\x01\x03ua."
    )
    put(tmp_path / "refs.p", python2)
    assert read_pickle(tmp_path / "refs.p") == [{"split": "train", "sent": "café", "id": 3}]


def test_a_cut_tar_gives_what_it_holds(tmp_path):
    raw, out = tmp_path / "raw", tmp_path / "out"
    large = image(2) + b"\0" * 20_000
    put_tar(raw / "0.tar", {"a.jpg": image(1), "a.txt": "one", "b.txt": "no image"})
    put_tar(raw / "1.tar", {"c.jpg": image(2), "c.txt": "two", "d.jpg": large})
    whole = (raw / "1.tar").read_bytes()
    put(raw / "1.tar", whole[: whole.index(large) + 100])
    assert prepare(DATASETS["webdataset"], raw, out) == {"train": 2}
    assert [record["texts"] for record in records_of(out, "train")] == [["one"], ["two"]]
    listed = problems(out, "webdataset")
    assert listed[0] == ["train", "b", "missing: an image or a video beside .txt"]
    assert any("1.tar" in row[2] for row in listed[1:])


def test_unknown_arguments_are_refused_without_beam(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["webvid", f"--raw={tmp_path}", f"--out={tmp_path}", "--direct_num_workers=2"])
    assert "--direct_num_workers" in capsys.readouterr().err
