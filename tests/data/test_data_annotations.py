"""Annotations as people hold them: encodings, odd values, tables, lists."""

import json
from pathlib import Path

import pytest
from raw_media import clip, image, put, read, texts

from data.datasets import RawFolder, refcoco, visual_genome
from data.datasets.raw import (
    Entry,
    Media,
    Missing,
    OddItem,
    read_json,
    read_rows,
    read_table,
)
from data.datasets.texts import lines
from data.datasets.values import mended, plain
from mplug2_jax.contracts.errors import DataError

ROOT = Path(__file__).parents[2]


def captions(raw: Path, said: list) -> None:
    """A miniature of COCO 2014 with a caption of each kind for images 0, 1, ..."""
    put(raw / "captions_train2014.json", json.dumps({
        "images": [{"id": n, "file_name": f"{n}.jpg"} for n in range(len(said))],
        "annotations": [{"image_id": n, "caption": one} for n, one in enumerate(said)]}))
    for n in range(len(said)):
        put(raw / f"train2014/{n}.jpg", image(n))


@pytest.mark.parametrize("written, read_as", [
    ("cut \ud83d", "cut \ufffd"), ("\ude00 low", "\ufffd low"), ("\ud83d\ude00", "\U0001f600"),
    ("\ud83d \ude00", "\ufffd \ufffd"), ("\ud83d\ud83d\ude00", "\ufffd\U0001f600"),
    ("plain é", "plain é"),
])
def test_halves_of_pairs_are_joined_or_replaced(written, read_as, tmp_path):
    assert mended(written) == read_as
    captions(tmp_path, [written])
    found, left_out = read("coco2014", tmp_path)
    assert texts(found["train2014"]) == [[read_as]] and not left_out


@pytest.mark.parametrize("value, said", [
    (2, "2"), (2.0, "2"), (2.5, "2.5"), (-3, "-3"), (10**20, str(10**20)), ("x", "x"),
    (None, "null"), (True, "true"), (["a"], "a list"), ({"a": 1}, "an object"),
    (float("nan"), "nan"), (float("inf"), "inf"),
])
def test_numbers_are_texts_and_the_rest_costs_its_item(value, said, tmp_path):
    captions(tmp_path, ["first", value])
    found, left_out = read("coco2014", tmp_path)
    if isinstance(value, str | int | float) and not isinstance(value, bool) and value == value \
            and abs(value if not isinstance(value, str) else 0) != float("inf"):
        assert plain(value) == said and texts(found["train2014"])[1] == [said]
    else:
        assert texts(found["train2014"]) == [["first"], []]
        assert left_out == [("captions_train2014.json", "item 2", f"caption is {said}, not text")]


def test_a_reader_of_ones_own_that_gives_no_text_loses_the_record_alone():
    good = Entry("1", "image", Media("a.jpg"), {"texts": [2], "label": 7, "group": None})
    assert good.fields == {"texts": ["2"], "label": "7", "group": ""}
    for fields in ({"texts": [None]}, {"texts": None}, {"label": ["a"]}, {"questions": [{}]},
                   {"questions": [{"question": "q", "answer": None}]},
                   {"boxes": [{"phrase": {}, "box": [0, 0, 1, 1]}]}, {"questions": [7]}):
        bad = Entry("2", "image", Media("a.jpg"), fields)
        assert isinstance(bad.media, Missing) and bad.fields == {}, fields
    asked = Entry("3", "image", Media("a.jpg"), {"questions": [
        {"question": "q", "answer": 2, "answers": [1, "b"], "id": 0, "type": None}]})
    assert asked.fields["questions"] == [
        {"question": "q", "answer": "2", "answers": ["1", "b"], "id": "0", "type": ""}]


def test_an_odd_item_is_listed_with_file_and_place_and_the_run_goes_on(tmp_path):
    put(tmp_path / "train_qa.json", [
        {"id": 0, "video_id": 5, "question": "who?", "answer": 2},
        {"id": 1, "video_id": 5, "question": "who?", "answer": None},
        {"id": 2, "video_id": 6, "question": ["a"], "answer": "x"},
        {"id": 3, "video_id": 6, "answer": "x"}, 7, {"video_id": 5, "question": "?", "answer": ""}])
    found, left_out = read("msrvtt_qa", tmp_path)
    (entry,) = found["train"]
    assert [q["answer"] for q in entry.fields["questions"]] == ["2", ""]
    assert [(file, place) for file, place, _ in left_out] == [
        ("train_qa.json", f"item {n}") for n in (2, 3, 4, 5)]
    assert [reason for *_, reason in left_out][:2] == [
        "answer is null, not text", "question is a list, not text"]


@pytest.mark.parametrize("encoding", [
    "utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-le", "utf-16-be", "latin-1"])
@pytest.mark.parametrize("suffix", ["json", "jsonl", "csv", "tsv", "txt"])
def test_encodings(encoding, suffix, tmp_path, capsys):
    content = {
        "json": '[{"image": "a.jpg", "caption": "café"}]',
        "jsonl": '{"video_id": "v", "caption": "café"}\n\n{"video_id": "w", "caption": "x"}\n',
        "csv": "videoid,page_dir,name\r\n1,p,café\r\n", "tsv": "café\thttp://x/1.jpg\n",
        "txt": "# c\nclip_1_2 café\n",
    }[suffix]
    if encoding == "latin-1":
        assert content.encode("latin-1") != content.encode()
    name, file = {"json": ("albef_json", "train.json"), "jsonl": ("release_jsonl", "train.jsonl"),
                  "csv": ("webvid", "results_2M_train.csv"), "tsv": ("cc3m", "cc3m.tsv"),
                  "txt": ("msvd", "AllVideoDescriptions.txt")}[suffix]
    put(tmp_path / file, content.encode(encoding))
    if suffix == "txt":
        put(tmp_path / "train_list.txt", "clip_1_2\n".encode(encoding))
    found, left_out = read(name, tmp_path)
    assert "café" in texts(found["train"])[0][0] and not left_out
    warned = capsys.readouterr().err
    assert (f"{tmp_path / file} is not all UTF-8" in warned) == (encoding == "latin-1")


def test_a_file_that_is_mostly_utf8_keeps_what_is(tmp_path, capsys):
    put(tmp_path / "a.txt", "naïve\n".encode() + b"caf\xe9 \x93q\x94\n" + "é".encode() + b"\xff\n"
        + b"\xed\xa0\xbd\xed\xb8\x80 \xed\xa0\xbd.\n")
    assert list(lines(tmp_path / "a.txt")) == [
        "naïve\n", "café “q”\n", "éÿ\n", "\U0001f600 \ufffd.\n"]
    assert capsys.readouterr().err.count("\n") == 1


def test_only_a_line_feed_ends_a_row_of_tabs(tmp_path):
    put(tmp_path / "x.tsv", b"one\rmore\tu1\r\ntwo\x0bx\x85\xe2\x80\xa8y\tu2\nthree\tu3")
    assert list(read_rows(tmp_path / "x.tsv", 2)) == [
        ["one\rmore", "u1"], ["two\x0bx…\u2028y", "u2"], ["three", "u3"]]


def test_numbers_that_no_float_holds(tmp_path):
    """JSON has whole numbers of any length, and what Python writes of infinities."""
    assert plain(10**400) == str(10**400) and plain(-2) == "-2"
    with pytest.raises(OddItem, match="no size in pixels"):
        visual_genome._region(Path("x"), {"phrase": "a"} | dict.fromkeys(
            ("x", "y", "width", "height"), 10**400), 1, 1)
    with pytest.raises(OddItem, match="is no box in"):
        refcoco._corners(Path("x"), [10**400, 0, 1, 1], {"width": 5, "height": 5})
    put(tmp_path / "msrvtt/train_val_videodatainfo.json", json.dumps({
        "videos": [{"video_id": "video0", "split": "train"}],
        "sentences": [{"video_id": "video0", "caption": text, "sen_id": number}
                      for text, number in (("a", float("inf")), ("b", 10**400), ("c", 0))]}))
    put(tmp_path / "msrvtt/test_videodatainfo.json", '{"videos": [], "sentences": []}')
    put(tmp_path / "msrvtt/TrainValVideo/video0.mp4", clip(0))
    found, left_out = read("msrvtt", tmp_path / "msrvtt")
    assert texts(found["train"]) == [["c", "b"]]
    assert [reason for _, _, reason in left_out] == ["its sen_id is no number"]
    put(tmp_path / "vqa/v2_OpenEnded_mscoco_test2015_questions.json", json.dumps({"questions": [
        {"image_id": number, "question_id": 1, "question": "q?"} for number in (float("inf"), 7)]}))
    found, left_out = read("vqav2", tmp_path / "vqa")
    assert [entry.id for entry in found["test"]] == ["7"]
    assert [reason for _, _, reason in left_out] == ["its image_id is no number"]


def test_rows_of_tabs_that_pandas_quoted(tmp_path):
    put(tmp_path / "x.tsv", '"a ""very"" fine day"\thttp://1\n"said"\thttp://2\n'
        'say "hi"\thttp://3\n"all"\t"http://4"\n"open\thttp://5\n')
    assert [row[0] for row in read_rows(tmp_path / "x.tsv", 2, quoted=True)] == [
        'a "very" fine day', '"said"', 'say "hi"', "all", '"open']
    assert next(iter(read_rows(tmp_path / "x.tsv", 2)))[0] == '"a ""very"" fine day"'


def test_tables_of_commas(tmp_path):
    rows = ('\ufeff VideoID , page_dir,Name\r\n1,p,"a, b"\n2,p,"two\nlines"\n3,p,lone\rreturn\n\n'
            '4,p,"never closed\n5,p,5 inch\n6,p\n7,p,"said ""so"""\n8,p,"last, open, quote\n')
    put(tmp_path / "t.csv", rows.encode())
    odd: list[tuple] = []
    found = list(read_table(tmp_path / "t.csv", ("videoid", "name"),
                            odd=lambda path, place, reason: odd.append((place, reason))))
    assert [(row["videoid"], row["name"]) for row in found] == [
        ("1", "a, b"), ("2", "two\nlines"), ("3", "lone return"), ("4", '"never closed'),
        ("5", "5 inch"), ("7", 'said "so"')]
    assert odd == [("line 9", "has fewer columns than the first line"),
                   ("line 11", "is no row: its quote is never closed")]
    put(tmp_path / "s.csv", "videoid;name\n1;a, b\n")
    assert list(read_table(tmp_path / "s.csv", ("name",))) == [{"videoid": "1", "name": "a, b"}]
    with pytest.raises(DataError, match="line 9"):
        list(read_table(tmp_path / "t.csv", ("videoid", "name")))


@pytest.mark.parametrize("row", [
    '"a" cat\rb,p', 'a "cat\rb",p', '"a\rb" cat,p\r', '"a\rb\nc" d,p', '"a\r,p', 'a\r\r,"p" q\r'])
def test_a_carriage_return_beside_a_quote_that_is_a_letter_ends_no_row(row, tmp_path):
    put(tmp_path / "x.csv", f"text,media\n{row}\nlast,q\n")
    found = list(read_table(tmp_path / "x.csv", ("text",), odd=lambda *odd: None))
    assert found[-1] == {"text": "last", "media": "q"}
    if '"a\r,p' != row and "\n" not in row:
        assert len(found) == 2 and "\r" not in found[0]["text"]


def test_rows_with_more_cells_than_columns_are_odd(tmp_path):
    put(tmp_path / "t.csv", "videoid,name\n1,a\n2,b, c\n3,d, ,\n4,e,,x\n5,\"f, g\"\n")
    odd: list[tuple] = []
    found = list(read_table(tmp_path / "t.csv", ("videoid", "name"),
                            odd=lambda path, place, reason: odd.append((place, reason))))
    assert [(row["videoid"], row["name"]) for row in found] == [("1", "a"), ("3", "d"),
                                                                ("5", "f, g")]
    assert odd == [("line 3", "has 3 cells, the first line 2"),
                   ("line 5", "has 4 cells, the first line 2")]


@pytest.mark.parametrize("name, suffix", [("release_jsonl", "jsonl"), ("albef_json", "json")])
def test_lists_whose_splits_fall_together_are_an_error(name, suffix, tmp_path):
    for stem in ("a-b", "a_b"):
        put(tmp_path / f"{stem}.{suffix}", '[{"image": "a.jpg", "video": "v", "caption": "x"}]')
    with pytest.raises(DataError, match=f"a-b.{suffix} and a_b.{suffix} would both be .*'a_b'"):
        read(name, tmp_path)


def test_hidden_files_are_no_annotations(tmp_path):
    junk = b"\0\5\x16\7\0\2\0\0Mac OS X"
    for folder in ("a", "b", "c", "d/train"):
        put(tmp_path / f"{folder}/._train.{'json' if folder == 'b' else 'jsonl'}", junk)
    put(tmp_path / "a/train.jsonl", '{"video": "v", "caption": "x"}\n')
    put(tmp_path / "b/train.json", '[{"image": "a.jpg", "caption": "x"}]')
    put(tmp_path / "c/train.jsonl", '{"text": "x"}\n')
    for folder, name in (("a", "release_jsonl"), ("b", "albef_json"), ("c", "json_lines")):
        found, left_out = read(name, tmp_path / folder)
        assert {split: texts(entries) for split, entries in found.items()} == {"train": [["x"]]}
        assert not left_out
    put(tmp_path / "e/._results_2M_train.csv", junk)
    put(tmp_path / "e/.cache/results_2M_train.csv", "videoid,page_dir,name\n1,p,old\n")
    folder = RawFolder(tmp_path / "e")
    assert folder.optional("*results_2M_train.csv") is None
    put(tmp_path / "e/x/results_2M_train.csv", "videoid,page_dir,name\n1,p,new\n")
    assert folder.optional("*results_2M_train.csv") == tmp_path / "e/x/results_2M_train.csv"


def test_splits_of_text_by_any_of_their_names(tmp_path):
    places = {"TEST/a": "test", "dev/a": "val", "Validation/a": "val", "training/a": "train",
              "else/a": "train"}
    for place in places:
        put(tmp_path / f"lines/{place}.jsonl", json.dumps({"text": place}) + "\n")
        put(tmp_path / f"folder/{place}.txt", f"{place}\n")
    named = {"c4-validation.00000-of-00008": "val", "my_Valid": "val", "x-DEV.0": "val",
             "Testing": "test", "devices": "train", "a_train": "train", "contest": "train"}
    for place in named:
        put(tmp_path / f"lines/{place}.jsonl", json.dumps({"text": place}) + "\n")
    for name, folder, wanted in (("json_lines", "lines", places | named),
                                 ("text_folder", "folder", places)):
        found, _ = read(name, tmp_path / folder)
        assert {said: split for split, entries in found.items()
                for (said,) in texts(entries)} == {
            said: split for said, split in wanted.items()
            if name == "json_lines" or said != "else/a"}
        assert list(found) == ["train", "val", "test"]


def test_a_name_that_is_nowhere_costs_no_look_into_every_folder(tmp_path, monkeypatch):
    for number in range(40):
        put(tmp_path / f"{number:02d}/inner/{number}.mp4", clip(0))
    raw, looks = RawFolder(tmp_path), []
    assert raw.video("39").path == "39/inner/39.mp4"
    assert raw.video("inner/38").path == "38/inner/38.mp4"
    assert raw.ending("/data/37/inner/37.mp4").path == "37/inner/37.mp4"
    listing = raw.tree.listing
    monkeypatch.setattr(raw.tree, "listing", lambda folder: looks.append(folder) or listing(folder))
    for look in (raw.video, raw.image, raw.exactly, raw.ending):
        for name in ("gone", "inner/gone", "gone.mp4"):
            assert isinstance(look(name), Missing)
    looks.clear()
    for number in range(10):
        assert isinstance(raw.video(f"gone {number}"), Missing)
        assert isinstance(raw.exactly(f"inner/gone {number}.mp4"), Missing)
        raw.ending(f"gone {number}.mp4")
    assert len(looks) == 0
    assert raw.video("38").path == "38/inner/38.mp4" and len(looks) == 1


def test_lists_and_lines_of_json_pass_for_each_other(tmp_path):
    put(tmp_path / "train.jsonl", '[\n{"video_id": "v", "caption": "a"},\n{"caption": "b"}]')
    put(tmp_path / "ssv2.json", '{"id": 1, "label": "x"}\n{"id": "2"}\n')
    found, left_out = read("release_jsonl", tmp_path)
    assert texts(found["train"]) == [["a"]] and left_out[0][:2] == ("train.jsonl", "item 2")
    assert read_json(tmp_path / "ssv2.json") == [{"id": 1, "label": "x"}, {"id": "2"}]
    for content in ("{", "", '{"a": 1}\n{', "[" * 100_000):
        put(tmp_path / "bad.json", content)
        with pytest.raises(DataError, match="bad.json is not JSON"):
            read_json(tmp_path / "bad.json")


def test_a_damaged_line_costs_a_line_and_nothing_but_them_is_an_error(tmp_path):
    put(tmp_path / "train.jsonl", '{"video_id": "v", "caption": "a"}\n{]\n[1]\n7\n'
        '{"video_id": {}, "caption": "b"}\n{"video_id": 3, "caption": ["c", 4]}\n')
    found, left_out = read("release_jsonl", tmp_path)
    assert [entry.id for entry in found["train"]] == ["v", "3"]
    assert texts(found["train"])[1] == ["c", "4"]
    assert [place for _, place, _ in left_out] == ["line 2", "line 3", "line 4", "line 5"]
    put(tmp_path / "train.jsonl", '{]\n{"video_id": null, "caption": "b"}\n')
    with pytest.raises(DataError, match=r"train.jsonl, line 1 is not JSON"):
        read("release_jsonl", tmp_path)
