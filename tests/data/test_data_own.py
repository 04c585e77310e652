"""Data of one's own: every format gives the same records, and what is odd costs its row alone."""

import gzip
import json
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from own_tables import WRITERS, faults, one, read, separated, stored, table
from raw_media import clip, put

from data.datasets import RawFolder, own
from data.datasets.own import opening
from data.pipeline import open_split
from data.prepare.__main__ import main
from data.prepare.plan import Plan, make_plan, settings_of
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


def test_whole_numbers_of_columns_with_nulls(raw, tmp_path):
    made = pa.table({"video_id": [2.0, None, 1.0], "question": ["a?"] * 3,
                     "answer": [3.0, 1.0, 2.5], "question_id": pa.array([7.0, 8.0, None])})
    pq.write_table(made, tmp_path / "t.parquet")
    first, second, odd = read(raw, tmp_path / "t.parquet")["train"]
    assert [first.media.path, second.media.path] == ["clips/2.mp4", "clips/1.mp4"]
    assert first.fields["questions"] == [{"question": "a?", "answer": "3", "id": "7"}]
    assert second.fields["questions"] == [{"question": "a?", "answer": "2.5"}]
    assert "names no medium" in faults([odd])[0]


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


def test_a_table_of_endless_names_is_one_short_line(raw, tmp_path):
    for columns in (("path", "x" * 5000), [f"column {n}" for n in range(999)]):
        with pytest.raises(DataError, match="no column that") as error:
            read(raw, table(tmp_path, [dict.fromkeys(columns, "clips/0.mp4")]))
        assert "\n" not in str(error.value) and len(str(error.value)) < 1000
    (tmp_path / "t.csv").write_text(f"path,{'x' * 5000},{'x' * 5000}\na,b,c\n")
    lists = {"train": [{"path": "a", "caption": "b"}], "\r\x1b": [{"path": "a"}]}
    with pytest.raises(DataError, match=r"several lists .'train', '.r.x1b'."):
        read(raw, table(tmp_path, lists))
    with pytest.raises(DataError, match=r"names the column 'x{57}'\.\.\. twice"):
        read(raw, tmp_path / "t.csv")


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
    with pytest.raises(DataError, match="holds several lists .'images', 'annotations'."):
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
    (dict(start=10**400), "start: expected a number, not 1000"),
    (dict(start=f"{'9' * 400}:00"), "start: expected a number, not inf"),
    (dict(width=-10**400), "width: expected a number, not -100"),
    (dict(box=[0, 0, 10**400, 5], label="x"), "box: expected a number, not 1000"),
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
        return make_plan(dataset, RawFolder(raw), tmp_path / "work",
                         settings_of(dataset, str(raw), 10, in_place=False))

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
    ("t.json", '{"path": ["a"], "caption": []}', "different lengths: 'path' 1, 'caption' 0"),
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
