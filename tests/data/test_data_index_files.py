"""How an index is written: once and whole; and that none half written, stale or spoilt is read."""

import itertools
import json
import logging
import shutil
import signal
import subprocess
import sys
import types
from pathlib import Path

import ml_collections
import numpy as np
import pyarrow as pa
import pytest
import raw_tfds
from index_reference import assert_is_of, two
from raw_media import clip, put, put_csv

from data import media, records
from data.datasets import DATASETS
from data.pipeline import fingerprint, open_split
from data.prepare import finish, prepare
from data.prepare import index as indexing
from data.prepare.__main__ import main
from data.prepare.plan import folders
from data.written import Index, Part, Shard, Written, schema
from data.written.folders import find_versions, index_path
from data.written.writing import join
from mplug2_jax.contracts.errors import DataError, RecordError

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.usefixtures("warn_every_time")


@pytest.mark.parametrize("name", ["imagenet2012", "oxford_flowers102"])
def test_datasets_of_tfds_get_theirs_on_command(name, tmp_path, caplog):
    raw_tfds.PREPARED[name](tmp_path)
    (folder,) = find_versions(tmp_path / name)
    with caplog.at_level(logging.WARNING):
        assert open_split(folder, "train").annotations[1]["label"] == "goldfish"
    assert "has no index of 'train'" in caplog.text
    assert main(["index", str(tmp_path / name)]) == 0
    for split in ("train", "validation"):
        assert_is_of(folder, split)


def test_a_folder_that_cannot_be_written_to_has_its_index_in_the_cache(tmp_path, monkeypatch):
    raw_tfds.PREPARED["imagenet2012"](tmp_path)
    (folder,) = find_versions(tmp_path / "imagenet2012")
    make = Path.mkdir

    def refused(path, *arguments, **options):
        if folder in path.parents:
            raise PermissionError(13, "Permission denied", str(path))
        return make(path, *arguments, **options)

    monkeypatch.setattr(Path, "mkdir", refused)
    before = sorted(path.name for path in folder.iterdir())
    assert indexing.write_missing(folder) == {"train": 4, "validation": 4}
    assert sorted(path.name for path in folder.iterdir()) == before
    (path,) = (tmp_path / "cache").rglob("train.index.arrow")
    found = Written(folder, raw_tfds.tfds.builder_from_directory(str(folder)), "train")
    assert found.index.path == path and found.index[3]["id"] == "3.JPEG"
    assert indexing.write_missing(folder) == {}


def webvid(raw: Path, count: int) -> None:
    rows = [[str(n), "1_50", f"clip {n}"] for n in range(count)]
    put_csv(raw / "results_2M_train.csv", [["videoid", "page_dir", "name"], *rows])
    for n in range(count):
        put(raw / f"videos/1_50/{n}.mp4", clip(n % 3))


@pytest.fixture
def clips(tmp_path) -> Path:
    """The folder of five clips in three shards."""
    webvid(tmp_path / "raw", 5)
    prepare(DATASETS["webvid"], tmp_path / "raw", tmp_path / "out", shard_records=2)
    return folders(tmp_path / "out", "webvid")[1]


def test_several_processes_write_the_same_index(clips):
    path = index_path(clips, "train")
    before = path.read_bytes()
    path.unlink()
    assert indexing.write_missing(clips, processes=2) == {"train": 5}
    assert path.read_bytes() == before


def test_an_index_that_is_interrupted_is_none_and_goes_on(clips, monkeypatch):
    path = index_path(clips, "train")
    before = path.read_bytes()
    path.unlink()
    scan, done = indexing.scan, []

    def third_dies(job, progress):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(job.shard)
        return scan(job, progress)

    monkeypatch.setattr(indexing, "scan", third_dies)
    with pytest.raises(KeyboardInterrupt):
        indexing.write_missing(clips)
    assert not path.exists() and open_split(clips, "train").annotations[4]["texts"] == ["clip 4"]
    done.clear()
    assert indexing.write_missing(clips) == {"train": 5} and done == [2]
    assert path.read_bytes() == before and not list(clips.glob("*incomplete*"))


def test_a_part_that_is_killed_is_none(tmp_path):
    program = (
        "import sys, time; from pathlib import Path; from data.media import Facts;"
        "from data.written import Part\n"
        "said = dict(id='x', kind='text', media=b'', texts=['t'], label='', group='', start=0.0,"
        " end=0.0, questions=[], boxes=[])\n"
        "with Part(Path(sys.argv[1])) as part:\n"
        "    for n in range(200_000):\n"
        "        part.add(said, Facts())\n"
        "    print('written', flush=True)\n"
        "    time.sleep(600)\n"
    )
    path = tmp_path / "train-00000.arrow"
    process = subprocess.Popen([sys.executable, "-c", program, str(path)], cwd=ROOT,
                               stdout=subprocess.PIPE)
    try:
        assert process.stdout.readline() == b"written\n"
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    (half,) = tmp_path.iterdir()
    assert half != path and half.stat().st_size > 2**20
    with pytest.raises(DataError, match="is no index that can be read"):
        Index(half)


def test_a_part_that_fails_leaves_nothing(tmp_path):
    with pytest.raises(KeyError), Part(tmp_path / "a.arrow") as part:
        part.add({"media": b""}, media.Facts())
    assert not list(tmp_path.iterdir())


def test_a_run_begun_before_there_were_indexes_goes_on(tmp_path, monkeypatch):
    webvid(tmp_path / "raw", 5)
    arguments = DATASETS["webvid"], tmp_path / "raw", tmp_path / "out"

    def stop(*rest):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(finish, "finish", stop)
        with pytest.raises(KeyboardInterrupt):
            prepare(*arguments, shard_records=2)
    work, final = folders(tmp_path / "out", "webvid")
    (work / "done/train-00001.arrow").unlink()
    assert prepare(*arguments, shard_records=2) == {"train": 5}
    assert_is_of(final, "train")
    # A finished one that has none gets it by the command that prepared it.
    path = index_path(final, "train")
    before = path.read_bytes()
    path.unlink()
    assert prepare(*arguments, shard_records=2) == {"train": 5}
    assert path.read_bytes() == before


def one_line(folder: Path) -> str:
    """The error that reading what is said of a split's records ends with."""
    with pytest.raises(DataError) as caught:
        _ = open_split(folder, "train").annotations
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith(f"write it again: python -m data.prepare index {folder}")
    return message


def test_an_index_of_other_shards_is_stale(clips, tmp_path):
    webvid(tmp_path / "more", 6)
    prepare(DATASETS["webvid"], tmp_path / "more", tmp_path / "other", shard_records=2)
    other = folders(tmp_path / "other", "webvid")[1]
    path = index_path(clips, "train")
    mine = path.read_bytes()
    shutil.copy(index_path(other, "train"), path)
    message = one_line(clips)
    assert "is stale, of webvid-train.array_record-00002-of-00003 with 2 records" in message
    assert main(["index", str(clips)]) == 0
    assert path.read_bytes() == mine
    assert_is_of(clips, "train")


def test_an_index_of_shards_as_large_with_other_records_is_stale(clips, tmp_path):
    """ArrayRecord pads its files, so their sizes say little."""
    webvid(tmp_path / "more", 5)
    put_csv(tmp_path / "more/results_2M_train.csv", [
        ["videoid", "page_dir", "name"], *([str(n), "1_50", f"klip {n}"] for n in range(5))])
    prepare(DATASETS["webvid"], tmp_path / "more", tmp_path / "other", shard_records=2)
    other = folders(tmp_path / "other", "webvid")[1]
    for shard in clips.glob("*.array_record*"):
        assert shard.stat().st_size == (other / shard.name).stat().st_size
    path = index_path(clips, "train")
    shutil.copy(index_path(other, "train"), path)
    assert "is stale, of another record 0 than '0'" in one_line(clips)
    # Other media of as many bytes under the same words.
    webvid(tmp_path / "same", 5)
    frames = clip(0)
    put(tmp_path / "same/videos/1_50/0.mp4", frames[:-1] + bytes([frames[-1] ^ 1]))
    prepare(DATASETS["webvid"], tmp_path / "same", tmp_path / "third", shard_records=2)
    shutil.copy(index_path(folders(tmp_path / "third", "webvid")[1], "train"), path)
    assert "is stale, of another record 0 than '0'" in one_line(clips)
    path.write_bytes(b"")
    assert "is no index that can be read" in one_line(clips)


def test_another_version_and_any_other_file_are_refused(clips):
    path = index_path(clips, "train")
    table = pa.ipc.open_file(str(path)).read_all()
    meta = json.dumps({**Index(path).meta, "version": 99}).encode()
    for carried in ({schema.META: meta}, {schema.META: b"{}"}, {schema.META: b"["}, {}):
        with pa.ipc.new_file(str(path), table.schema.with_metadata(carried)) as writer:
            writer.write_table(table)
        assert "is no index that can be read" in one_line(clips)


def test_every_cut_and_a_thousand_flipped_bytes_are_told_or_harmless(clips, tmp_path):
    """Nothing ends the process, and nothing else than `DataError` comes up."""
    stored, path = index_path(clips, "train").read_bytes(), tmp_path / "x.arrow"
    for length in range(0, len(stored), 97):
        path.write_bytes(stored[:length])
        with pytest.raises(DataError, match="is no index that can be read"):
            Index(path)
    rng = np.random.default_rng(0)
    told = 0
    for _ in range(1000):
        spoilt = np.frombuffer(stored, np.uint8).copy()
        spoilt[rng.integers(len(spoilt))] ^= rng.integers(1, 256)
        path.write_bytes(spoilt.tobytes())
        try:
            index = Index(path)
            for number in range(len(index)):
                index[number]
            list(index.texts())
            index.counts("text")
        except (DataError, RecordError):
            told += 1
    assert told > 100


def test_the_digest_is_that_of_the_records_however_they_are_cut(tmp_path):
    said = [records.plain(two(n)) for n in range(7)]

    def written(*sizes: int) -> Index:
        rest, parts = iter(said), []
        for number, size in enumerate(sizes):
            parts.append(tmp_path / f"{number}.arrow")
            with Part(parts[-1]) as part:
                for one in itertools.islice(rest, size):
                    part.add(one, media.Facts())
        join(parts, "train", [Shard("s", 1, 7)], tmp_path / "whole.arrow")
        return Index(tmp_path / "whole.arrow")

    digests = {written(*sizes).meta["digest"] for sizes in ((7,), (3, 4), (1, 0, 5, 1))}
    assert len(digests) == 1
    said[2], said[4] = said[4], said[2]
    assert written(7).meta["digest"] not in digests
    with pytest.raises(DataError, match="would have 7 records, not 8"):
        join([tmp_path / "0.arrow"], "train", [Shard("s", 1, 8)], tmp_path / "none.arrow")
    assert not (tmp_path / "none.arrow").exists()


def test_an_index_is_mapped_not_loaded(tmp_path):
    """Opening and reading here and there takes no memory that would grow with the rows."""
    part, path, count = tmp_path / "part.arrow", tmp_path / "big.index.arrow", 30_000
    with Part(part) as writer:
        for n in range(count):
            writer.add({"id": str(n), "kind": "text", "media": b"", "texts": [f"{n} " * 30] * 2,
                        "label": "", "group": "", "start": 0.0, "end": 0.0, "questions": [],
                        "boxes": []}, media.Facts())
    join([part] * 8, "train", [Shard("s", 1, 8 * count)], path)
    assert path.stat().st_size > 2**27
    before = pa.total_allocated_bytes()
    held = own_memory()
    index = Index(path)
    for number in range(0, len(index), 9973):
        assert index[number]["id"] == str(number % count)
    assert index.counts("text").sum() == 16 * count
    assert index.table("text").num_rows == 16 * count
    assert pa.total_allocated_bytes() - before < 2**20
    assert own_memory() - held < 2**24  # a block's check of its places


def own_memory() -> int:
    """Bytes of this process that are mapped from no file."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith("RssAnon")]
    return int(line.split()[1]) * 1024


def test_opening_a_missing_shard_is_said(clips):
    next(clips.glob("*.array_record-00001*")).unlink()
    with pytest.raises(DataError, match="lacks 1 of its files"):
        open_split(clips, "train")
    assert main(["index", str(clips)]) == 1


def test_the_command_needs_a_dataset(tmp_path, capsys):
    assert main(["index", str(tmp_path / "none")]) == 1
    assert "does not exist" in capsys.readouterr().err


def test_the_fingerprint_is_of_the_media_too(clips, tmp_path):
    """Other media of the same sizes: nothing else that it covers differs."""
    def of(folder: Path) -> str:
        (vocabulary := tmp_path / "v.model").write_bytes(b"v")
        streams = ml_collections.ConfigDict({"s": {"split": "train"}})
        data = types.SimpleNamespace(root=folder, tokenizer=vocabulary, streams=streams)
        return fingerprint(data)[str(folder)]

    before = of(clips)
    path = index_path(clips, "train")
    stored = path.read_bytes()
    digest = Index(path).meta["digest"]
    path.write_bytes(stored.replace(digest.encode(), digest[::-1].encode()))
    assert of(clips) != before
    path.unlink()
    assert of(clips) != before
    assert indexing.write_missing(clips) == {"train": 5}
    assert of(clips) == before
    path.write_bytes(stored[:100])
    with pytest.raises(DataError, match="no index that can be read.*write it again: python -m"):
        of(clips)
