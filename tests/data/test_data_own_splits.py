"""Splits of one's own tables: a medium is of one of them."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from own_tables import embedded, faults, read, save, table
from raw_media import image, put

from data.datasets import own
from data.datasets.own import opening
from mplug2_jax.contracts.errors import DataError


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
