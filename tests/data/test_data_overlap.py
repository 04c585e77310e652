"""`data.inspect --overlap`: what two splits share, against a comparison of all with all."""

import itertools
import re
import unicodedata
from pathlib import Path

import pytest
from commands import seen
from forks import finished
from raw_media import image, put, put_tar

from data.datasets import DATASETS
from data.inspect import indexes_of, show_overlap
from data.pipeline import open_split
from data.prepare import prepare
from data.written.overlap import cleaned, overlap
from mplug2_jax.contracts.errors import DataError

TRAIN = [(0, "A man, singing!"), (1, "two dogs"), (2, "ＣＡＦÉ"), (3, "..."), (1, "Two  dogs."),
         (4, "one")]
TEST = [(5, "a man singing"), (1, "another"), (6, "cafe\u0301"), (7, "!!"), (2, "one more")]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("overlap")
    for split, rows in (("train", TRAIN), ("test", TEST)):
        put_tar(folder / f"raw/{split}/0.tar", {
            f"{split}{n}{suffix}": content for n, (medium, text) in enumerate(rows)
            for suffix, content in ((".jpg", image(medium)), (".txt", text))})
    prepare(DATASETS["webdataset"], folder / "raw", folder / "out")
    return folder / "out"


def plainly(text: str) -> str:
    """Letters and digits alone, one by one."""
    kept = [c if c.isalnum() or unicodedata.combining(c) else " "
            for c in unicodedata.normalize("NFKC", text).casefold()]
    return " ".join("".join(kept).split())


def test_what_is_common_is_found(prepared):
    found = overlap(indexes_of(f"{prepared}:train"), indexes_of(f"{prepared}:test"))
    a, b = ([split[n] for n in range(len(split))] for split in (
        open_split(prepared, "train"), open_split(prepared, "test")))
    media = {(x["id"], y["id"]) for x, y in itertools.product(a, b) if x["media"] == y["media"]}
    texts = {(x["id"], y["id"]) for x, y in itertools.product(a, b) for s in x["texts"]
             for t in y["texts"] if plainly(s) == plainly(t) != ""}
    for kind, pairs in (("medium", media), ("text", texts)):
        own = [one for one in found if one.kind == kind]
        assert {pair for one in own for pair in itertools.product(one.first, one.second)} == pairs
        assert len(pairs) >= 2 and own
    assert [one.what for one in found if one.kind == "text"] == ["a man singing", "café"]
    assert [one.first for one in found if one.kind == "medium"] == [
        ("train1", "train4"), ("train2",)]


def test_of_itself_a_split_has_all_in_common(prepared):
    own = indexes_of(f"{prepared}:train+test")
    found = overlap(own, own)
    assert {one.what for one in found if one.kind == "text"} == {
        plainly(text) for _, text in TRAIN + TEST} - {""}
    assert len([one for one in found if one.kind == "medium"]) == 8
    assert overlap(indexes_of(f"{prepared}:train"), []) == []


@pytest.mark.parametrize("text", [
    "A man, singing!", "  ", "don't", "ﬁne", "３ dogs", "Straße 5", "你好。"])
def test_texts_are_compared_by_their_words(text):
    assert cleaned(text) == plainly(text)
    assert re.fullmatch(r"(\w+( \w+)*)?", cleaned(text))


def test_the_command_prints_it_and_writes_all_of_it(prepared, tmp_path, capsys):
    show_overlap(f"{prepared}:train", f"{prepared}:test", str(tmp_path / "o.tsv"), rows=1)
    printed = capsys.readouterr().out.splitlines()
    assert "media in both: 2, of 3 records of A and 2 of B" in printed
    assert "texts in both: 2, of 2 records of A and 2 of B" in printed
    assert "  text 'a man singing': train0 in A, test0 in B" in printed and len(printed) == 6
    rows = [line.split("\t") for line in (tmp_path / "o.tsv").read_text().splitlines()]
    assert rows[0] == ["kind", "what", "records of A", "records of B"] and len(rows) == 5
    assert rows[1][2:] == ["train1 train4", "test1"]
    for said, message in ((str(prepared), "expected FOLDER:SPLIT"), (f"{prepared}:val", "no index "
                          "of 'val'"), (f"{tmp_path}:train", "has no finished dataset")):
        with pytest.raises(DataError, match=message):
            indexes_of(said)


def test_the_command_line_needs_no_config(tmp_path):
    put(tmp_path / "x", "")
    done = finished(["-m", "data.inspect", "--overlap", f"{tmp_path}:a", f"{tmp_path}:b"], seen())
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(f"error: data folder {tmp_path} has no finished")
