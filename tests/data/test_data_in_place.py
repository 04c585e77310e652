"""Media that stay in their tars: records, batches and what is left out are those of prepared ones.

A bucket is fsspec's own in memory.
"""

import errno
import os
from pathlib import Path

import fsspec
import pytest
from data_helpers import assert_same, take
from fuzz_sound import sparse
from raw_media import clip, image, put, put_tar
from raw_miniatures import MINIATURES

from data import stores
from data.datasets import DATASETS, webdataset
from data.pipeline import SkipLog, eval_batches, open_split, train_batches
from data.prepare import prepare
from data.prepare.__main__ import main
from data.prepare.plan import folders
from data.prepare.problems import PROBLEMS
from data.written import Written, described
from mplug2_jax.contracts.errors import DataError, RecordError
from mplug2_jax.contracts.machine import MachineError

TARS = DATASETS["webdataset"]
RAW, COPIED, IN_PLACE = "raw", "copied", "in_place"


def write_tars(raw: Path) -> None:
    """Two shards of pictures and one of clips, some of which cannot be used, and one that is cut.
    """
    for shard in range(2):
        members = {}
        for n in range(9 * shard, 9 * shard + 9):
            members |= {f"{n:09d}.jpg": image(n), f"{n:09d}.txt": f"picture {n} of some things"}
        members |= {f"{shard}bad.jpg": b"junk", f"{shard}bad.txt": "no picture",
                    f"{shard}no.txt": "nothing beside", f"{shard}cut.jpg": image(3)[:200],
                    f"{shard}odd.jpg": image(4), f"{shard}odd.json": "no JSON"}
        put_tar(raw / f"0000{shard}.tar", members)
    put_tar(raw / "00002.tar", {"c.jpg": image(20), "c.txt": "before the cut",
                                "d.jpg": image(21), "d.txt": "behind"})
    whole = (raw / "00002.tar").read_bytes()
    put(raw / "00002.tar", whole[:whole.index(b"d.jpg") + 600])
    put(raw / "00003.tar", sparse([(0, 100), (512, 100)], bytes(612), 1000) + b"\0" * 1024)
    put_tar(raw / "clips/0.tar", {f"{n}{end}": content for n in range(3) for end, content in (
        (".mp4", clip(n)), (".json", {"caption": f"clip {n} of the tar"}))})


@pytest.fixture(scope="module")
def both(tmp_path_factory) -> Path:
    """A folder with tars, and what was made of them in both ways."""
    folder = tmp_path_factory.mktemp("tars")
    write_tars(folder / RAW)
    prepare(TARS, folder / RAW, folder / COPIED, shard_records=7)
    assert main(["webdataset", f"--raw={folder / RAW}", f"--out={folder / IN_PLACE}", "--in_place",
                 "--shard_records=7", "--processes=1"]) == 0
    return folder


def final(out: Path, name: str = "webdataset") -> Path:
    return folders(out, name)[1]


def records_of(out: Path, split: str) -> list[dict]:
    source = open_split(out, split)
    return [source[index] for index in range(len(source))]


def written(out: Path, split: str) -> Written:
    return Written(final(out), described(final(out)), split)


def test_records_indexes_and_problems_are_those_of_prepared_ones(both):
    copied, in_place = both / COPIED, both / IN_PLACE
    for split, count in (("train", 19), ("clips", 3)):
        found = records_of(in_place, split)
        assert found == records_of(copied, split) and len(found) == count
        one, other = written(copied, split).index, written(in_place, split).index
        assert one.meta["digest"] == other.meta["digest"] and one.meta["items"] == other.meta[
            "items"]
    listed = [(final(out) / PROBLEMS).read_text() for out in (copied, in_place)]
    assert listed[0] == listed[1] and len(listed[0].splitlines()) == 12
    sizes = [described(final(out)).info.splits["clips"].num_bytes for out in (copied, in_place)]
    assert sizes[0] > sum(len(clip(n)) for n in range(3)) and sizes[1] < 3 * 1000
    media = image(5)
    assert not any(media in path.read_bytes() for path in final(in_place).iterdir())


def streams(stream) -> dict:
    same = dict(text_length=12, prompt_length=0, target_length=0)
    return {"image": stream(split="train", frames=1, batch_size=6, **same),
            "video": stream(split="clips", frames=2, batch_size=2, **same)}


def test_batches_are_those_of_prepared_ones_bit_for_bit(both, stream, tokenizer):
    def train(out, count, **options):
        return take(train_batches(both / out, streams(stream), tokenizer, 3, **options), count)

    whole = train(COPIED, 6)
    assert_same(train(IN_PLACE, 6), whole)
    assert_same(train(IN_PLACE, 2, start={"image": 24, "video": 8}), whole[4:])
    slices = [train(IN_PLACE, 2, process_index=n, process_count=2) for n in (0, 1)]
    for n in (0, 1):
        for key, value in whole[1]["image"].items():
            assert_same(slices[n][1]["image"][key], value[3 * n:3 * n + 3])
    asked = streams(stream)["image"]
    assert_same(list(eval_batches(both / IN_PLACE, asked, tokenizer)),
                list(eval_batches(both / COPIED, asked, tokenizer)))


@pytest.mark.slow
def test_workers_read_tars_in_place(both, stream, tokenizer):
    one, other = (take(train_batches(both / out, streams(stream), tokenizer, 0, workers=workers), 3)
                  for out, workers in ((COPIED, 0), (IN_PLACE, 2)))
    assert_same(one, other)


def test_what_has_changed_in_a_tar_is_skipped_and_counted(tmp_path, stream, tokenizer):
    write_tars(tmp_path / RAW)
    prepare(TARS, tmp_path / RAW, tmp_path, in_place=True)
    source = open_split(tmp_path, "train")
    tar = tmp_path / RAW / "00000.tar"
    content = bytearray(tar.read_bytes())
    content[content.index(image(3)) + 30] ^= 1
    tar.write_bytes(content)
    with pytest.raises(RecordError, match="00000.tar has other bytes at"):
        source[3]
    assert source[4]["media"] == image(4)
    os.truncate(tmp_path / RAW / "00001.tar", 600)
    with pytest.raises(RecordError, match="00001.tar ends .* bytes too early"):
        source[9]
    asked = stream(split="train", frames=1, batch_size=6, prompt_length=0, target_length=0)
    skips = SkipLog(max_share=1)
    take(train_batches(tmp_path, {"s": asked}, tokenizer, 0, skips=skips), 4)
    lost = {f"#{number}" for number in (3, *range(9, 18))}
    assert set(skips.records["train"]) == lost and set(skips.counts) == {
        ("train", "damaged record")}
    for path in (tmp_path / RAW).glob("*.tar"):
        path.unlink()
    with pytest.raises(DataError, match=r"is damaged \(.*No such file.*\.tar'\)"):
        next(train_batches(tmp_path, {"s": asked}, tokenizer, 0))


def test_one_is_not_taken_for_the_other(both, capsys):
    for out, given in ((IN_PLACE, []), (COPIED, ["--in_place"])):
        assert main(["webdataset", f"--raw={both / RAW}", f"--out={both / out}", *given,
                     "--shard_records=7"]) == 1
        assert "holds webdataset with in_place=" in capsys.readouterr().err
    assert main(["webdataset", f"--raw={both / RAW}", f"--out={both / IN_PLACE}", "--in_place",
                 "--shard_records=7"]) == 0


def test_a_lost_index_is_written_again_of_the_tars(both, tmp_path):
    path = final(both / IN_PLACE) / "train.index.arrow"
    before = written(both / IN_PLACE, "train").index.meta
    path.unlink()
    assert main(["index", str(final(both / IN_PLACE)), "--processes=1"]) == 0
    assert written(both / IN_PLACE, "train").index.meta == before


@pytest.mark.parametrize("name", ["msrvtt", "refcoco", "nlvr2", "text_folder"])
def test_media_of_other_datasets_may_stay_where_they_are(name, tmp_path):
    """Files; pictures that are turned to fit their boxes; pairs; and none."""
    (tmp_path / RAW).mkdir()
    MINIATURES[name](tmp_path / RAW)
    for out, in_place in ((COPIED, False), (IN_PLACE, True)):
        sizes = prepare(DATASETS[name], tmp_path / RAW, tmp_path / out, in_place=in_place)
    for split in sizes:
        assert records_of(tmp_path / IN_PLACE, split) == records_of(tmp_path / COPIED, split)


class Asked:
    """What a bucket is asked for: (method, file, bytes)."""

    def __init__(self, monkeypatch):
        self.calls, store = [], fsspec.filesystem("memory")
        ranged, whole = store.cat_file, store.get_file

        def cat_file(path, start=None, end=None, **options):
            self.calls.append(("range", path, end - start))
            return ranged(path, start=start, end=end, **options)

        def get_file(path, to, **options):
            self.calls.append(("copy", path, store.size(path)))
            return whole(path, to, **options)

        monkeypatch.setattr(store, "cat_file", cat_file)
        monkeypatch.setattr(store, "get_file", get_file)


@pytest.fixture
def bucket(both):
    """The tars of `both` in a bucket, by its address."""
    store = fsspec.filesystem("memory")
    store.put(str(both / RAW), "/tars", recursive=True)
    yield "memory://tars"
    store.rm("/tars", recursive=True)


def test_tars_of_a_bucket_are_copied_once_to_be_prepared_and_read_in_parts(
        both, bucket, tmp_path, stream, tokenizer, monkeypatch):
    asked = Asked(monkeypatch)
    prepare(TARS, bucket, tmp_path, shard_records=7, in_place=True)
    assert {(what, Path(path).name) for what, path, _ in asked.calls} == {
        ("copy", f"{name}.tar") for name in ("00000", "00001", "00002", "00003", "0")}
    assert (final(tmp_path) / PROBLEMS).read_text() == (final(both / COPIED) / PROBLEMS).read_text()
    for split in ("train", "clips"):
        assert records_of(tmp_path, split) == records_of(both / COPIED, split)
    asked.calls.clear()
    batches = [take(train_batches(out, streams(stream), tokenizer, 3), 3)
               for out in (tmp_path, both / COPIED)]
    assert_same(*batches)
    assert {what for what, _, _ in asked.calls} == {"range"}
    assert max(size for _, _, size in asked.calls) == max(len(clip(n)) for n in range(3))


def test_a_bucket_that_fails_for_a_while_is_asked_again(bucket, tmp_path, monkeypatch):
    prepare(TARS, bucket, tmp_path, in_place=True)
    source, waited = open_split(tmp_path, "clips"), []
    store = fsspec.filesystem("memory")
    answer, faults = store.cat_file, iter((True, True, False, *[True] * 9))
    monkeypatch.setattr(stores.time, "sleep", waited.append)

    def unsteady(*given, **options):
        if next(faults):
            raise RuntimeError("503, slow down")
        return answer(*given, **options)

    monkeypatch.setattr(store, "cat_file", unsteady)
    assert source[1]["media"] == clip(1) and waited == [1, 2]
    with pytest.raises(DataError, match="memory://tars/clips/0.tar: 503, slow down: see that"):
        source[1]


def test_a_client_that_waits_itself_is_not_asked_for_minutes(bucket, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(stores.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(stores.time, "sleep", lambda seconds: None)

    def fails(*given, **options):
        now[0] += 33
        raise RuntimeError("503")

    monkeypatch.setattr(fsspec.filesystem("memory"), "cat_file", fails)
    with pytest.raises(MachineError, match="see that its store can be reached"):
        stores.read_range(f"{bucket}/00000.tar", 0, 1)
    assert now == [33]


class Answer(Exception):
    """An error as a store's client has it."""

    def __init__(self, said, **facts):
        super().__init__(said)
        vars(self).update(facts)


@pytest.mark.parametrize("error", [
    OSError(errno.EINVAL, "The requested range is not satisfiable"),  # s3fs
    Answer("<Error>...</Error>, 416", code=416),  # gcsfs
    Answer("(InvalidRange) ...", status_code=416),  # adlfs
])
def test_of_what_lies_behind_an_objects_end_nothing_is_read(bucket, tmp_path, monkeypatch, error):
    prepare(TARS, bucket, tmp_path, in_place=True)
    source, asked = open_split(tmp_path, "clips"), []

    def refuses(*given, **options):
        asked.append(given)
        raise error

    monkeypatch.setattr(fsspec.filesystem("memory"), "cat_file", refuses)
    with pytest.raises(RecordError, match="clips/0.tar ends .* bytes too early"):
        source[1]
    assert len(asked) == 1


def test_a_store_that_gives_this_user_nothing_ends_the_run_and_no_record(
        bucket, tmp_path, monkeypatch):
    """As s3fs says it: a PermissionError of a text alone, of what is read and of what is copied."""
    prepare(TARS, bucket, tmp_path, in_place=True)
    source, store = open_split(tmp_path, "clips"), fsspec.filesystem("memory")

    def refuses(*given, **options):
        raise PermissionError("Access Denied")

    for method in ("cat_file", "get_file"):
        monkeypatch.setattr(store, method, refuses)
    with pytest.raises(MachineError, match="clips/0.tar: Access Denied: see that this user's keys"):
        source[1]
    with pytest.raises(MachineError, match="Access Denied: see that this user's keys"):
        prepare(TARS, bucket, tmp_path / "again", in_place=True)


def test_a_tar_that_is_gone_is_a_problem(bucket, tmp_path, monkeypatch):
    store = fsspec.filesystem("memory")
    whole = store.get_file

    def lost(path, to, **options):
        if path.endswith("00001.tar"):
            raise FileNotFoundError(path)  # as fsspec's: no errno, no words of it
        return whole(path, to, **options)

    monkeypatch.setattr(store, "get_file", lost)
    assert prepare(TARS, bucket, tmp_path, in_place=True)["train"] == 10
    assert "the rest of 00001.tar (No such file or directory)" in (
        final(tmp_path) / PROBLEMS).read_text()


def test_what_the_machine_refuses_is_said_of_no_sample(tmp_path, monkeypatch):
    """Beside a medium, too."""
    write_tars(tmp_path / RAW)

    def refuses(*given):
        raise MachineError("the store is gone")

    monkeypatch.setattr(webdataset.beside, "content_of", refuses)
    with pytest.raises(MachineError, match="the store is gone"):
        prepare(TARS, tmp_path / RAW, tmp_path)


@pytest.mark.parametrize("path", ["file:///etc/passwd", "memory://tars/0.tar::file:///etc/passwd",
                                  "https://host/a.tar"])
def test_what_is_no_address_of_a_bucket_is_not_opened(path):
    with pytest.raises(ValueError, match="is no address of a bucket"):
        stores.read_range(path, 0, 1)


@pytest.mark.parametrize("name, raw, said", [
    ("webdataset", "memory://nowhere", "holds nothing"),
    ("webdataset", "ftp://host/tars", "expected a path, or one of s3://"),
    ("webvid", "memory://tars", "webvid is read from folders: copy it to one, or mount the bucket"),
])
def test_a_bucket_that_cannot_be_read_is_one_line(name, raw, said, tmp_path, capsys):
    assert main([name, f"--raw={raw}", f"--out={tmp_path}", "--in_place"]) == 1
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
