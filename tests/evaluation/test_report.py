"""The report: contents of both files, text that stays text, failures that lose nothing."""

import base64
import io
import json
import os
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from mplug2_jax.evaluation.report import Section, write_report
from mplug2_jax.tasks.base import Example

VOID = {"meta", "img", "br"}
REPORT = {
    "title": "Run",
    "figures": {"CIDEr": {"value": np.float32(1.5), "untrained": 0.125}, "examples": 8},
    "run": {"seed": 0, "versions": {"jax": "0.10"}},
    "history": np.arange(3),
}


class Page(HTMLParser):
    """Collects tags, attributes and text; fails where tags do not nest."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.images, self.words = [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def frames(count=3, size=8):
    return np.random.default_rng(0).integers(0, 255, (count, size, size, 3), np.uint8)


def picture(page, index=0):
    source = [attrs["src"] for tag, attrs in page.tags if tag == "img"][index]
    return Image.open(io.BytesIO(base64.b64decode(source.removeprefix("data:image/jpeg;base64,"))))


def test_json_round_trip(tmp_path):
    write_report(tmp_path / "new", REPORT, [Section("QA", {"accuracy": np.float64(0.5)})])
    read = json.loads((tmp_path / "new" / "report.json").read_text("utf-8"))
    assert read == {
        "title": "Run",
        "figures": {"CIDEr": {"value": 1.5, "untrained": 0.125}, "examples": 8},
        "run": {"seed": 0, "versions": {"jax": "0.10"}},
        "history": [0, 1, 2],
        "sections": [{"title": "QA", "figures": {"accuracy": 0.5}}],
    }
    assert list(read) == sorted(read)
    assert sorted(os.listdir(tmp_path / "new")) == ["report.html", "report.json"]


def test_page_is_self_contained_and_nests(tmp_path):
    cards = [
        Example(frames(), [("prediction", "a man"), ("reference", "")], correct=True),
        Example(None, [("query", "q")], False,
                [(frames(2), "clip 1", False), (frames(2), "x", True), (None, "unseen", False)]),
        Example(rows=[("note", "unmarked")]),
    ]
    text = write_report(tmp_path, REPORT, [Section("Clips", {"R@1": 0.5}, cards)]).read_text(
        "utf-8"
    )
    page = Page(text)
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe"}
    assert not re.search(r"https?://|url\(|@import", text)
    words = " ".join(page.words)
    for expected in ("1.500", "0.125", "untrained", "a man", "(empty)", "2. x", "3. unseen", "R@1",
                     "jax: 0.10"):
        assert expected in words, expected
    assert "chance" not in words  # no figure gives it, so there is no such column
    # Right and wrong are words, not only colours; the unmarked card has neither.
    assert (words.count("✓ correct"), words.count("✗ wrong"), words.count("✓ match")) == (1, 1, 1)
    assert len([tag for tag, _ in page.tags if tag == "img"]) == 3


def test_groups_of_examples_and_intervals(tmp_path):
    report = {"title": "t", "figures": {
        "CIDEr": {"value": 1.5, "interval": (1.25, 1.75), "untrained": 0.5}, "R@1": 0.25}}
    groups = {"best": [Example(frames(), [("model", "good")])],
              "worst": [Example(None, [("model", "")])]}
    cards = [Example(rows=[("note", "first")])]
    path = write_report(tmp_path, report, [Section("s", cards=cards, groups=groups)])
    page = Page(path.read_text("utf-8"))
    assert [tag for tag, _ in page.tags].count("h3") == 2
    words = " ".join(word.strip() for word in page.words if word.strip())
    assert "first best model good worst model (empty)" in words
    assert "CIDEr 1.500 1.250 to 1.750 0.500 R@1 0.250 – – " in words


def test_the_unit_of_intervals_stands_under_each_figure(tmp_path):
    report = {"title": "t", "figures": {
        "accuracy": {"value": 0.5, "interval": (0.4, 0.6)}, "R@1": {"value": 0.5,
                                                                    "interval": (0.4, 0.6)}},
        "units": {"accuracy": {"media": 256, "questions": 1024}, "R@1": {"<sets>": 1990}}}
    path = write_report(tmp_path, report)
    words = " ".join(word.strip() for word in Page(path.read_text("utf-8")).words if word.strip())
    assert "accuracy 256 media, 1,024 questions 0.500 0.400 to 0.600" in words
    assert "R@1 1,990 <sets> 0.500" in words and "each drawn with all of its examples" in words
    read = json.loads((tmp_path / "report.json").read_text("utf-8"))
    assert read["units"]["accuracy"] == {"media": 256, "questions": 1024}
    assert set(read["figures"]["accuracy"]) == {"value", "interval"}
    del report["units"]
    text = write_report(tmp_path, report).read_text("utf-8")
    assert "each drawn with" not in text and "<small" not in text


def test_contact_sheet_shows_every_frame_in_order(tmp_path):
    clip = np.zeros((3, 8, 8, 3), np.uint8)
    for index, colour in enumerate([(255, 0, 0), (0, 255, 0), (0, 0, 255)]):
        clip[index] = colour
    path = write_report(tmp_path, {"title": "t"}, [Section("s", cards=[Example(clip)])])
    sheet = picture(Page(path.read_text("utf-8")))
    assert sheet.size == (3 * 112 + 2 * 2, 112)
    for index in range(3):
        seen = np.array(sheet.getpixel((56 + index * 114, 56)))
        np.testing.assert_allclose(seen, clip[index, 0, 0], atol=6)


def test_ninth_frame_starts_a_second_row(tmp_path):
    clip = np.zeros((9, 56, 56, 3), np.uint8)
    clip[8] = 255
    path = write_report(tmp_path, {"title": "t"}, [Section("s", cards=[Example(clip)])])
    sheet = np.asarray(picture(Page(path.read_text("utf-8"))))
    assert sheet[170, 56].min() > 240 and sheet[56, 56].max() < 15


@pytest.mark.parametrize(("count", "size", "expected"), [(9, 56, (910, 226)), (1, 448, (112, 112))])
def test_many_or_large_frames_stay_small(tmp_path, count, size, expected):
    clips = [Section("s", cards=[Example(frames(count, size))])]
    path = write_report(tmp_path, {"title": "t"}, clips)
    assert picture(Page(path.read_text("utf-8"))).size == expected


def test_text_is_escaped_everywhere(tmp_path):
    bad = "<script>alert(1)</script>\"'&{body}"
    report = {
        "title": bad,
        "summary": bad,
        "figures": {bad: {"value": bad}},
        "run": {bad: bad, "more": {bad: bad}},
    }
    card = Example(frames(), [(bad, bad)], None, [(frames(), bad, True)])
    path = write_report(tmp_path, report, [Section(bad, {bad: bad}, [card])])
    page = Page(path.read_text("utf-8"))
    assert "script" not in {tag for tag, _ in page.tags}
    assert "".join(page.words).count(bad) == 15
    assert [attrs["alt"] for tag, attrs in page.tags if tag == "img"][1] == f"{bad}: 3 frames"


@pytest.mark.parametrize(
    ("report", "sections", "message"),
    [
        (
            {"title": "t", "loss": {"vtc": [1.0, float("nan")]}},
            [],
            r"report\.loss\.vtc\[1\] is nan",
        ),
        ({"title": "t", "x": np.float32("inf")}, [], r"report\.x is inf"),
        ({"title": "t"}, [Section("s", {"r": -np.inf})], r"sections\[0\]\.figures\.r is -inf"),
        ({"title": "t", "x": object()}, [], r"report\.x: object"),
        ({"title": "t", "x": {1: 2}}, [], r"report\.x: keys must be strings, got 1"),
        ({"title": "t", "figures": {"R@1": {"valu": 1}}}, [], r"figures\.R@1: expected value"),
        ({}, [], "title"),
        ({"title": "t"}, [Section("s", cards=[Example(np.zeros((1, 4, 4, 3)))])], "uint8"),
    ],
)
def test_errors_name_the_key_and_write_nothing(tmp_path, report, sections, message):
    with pytest.raises(ValueError, match=message):
        write_report(tmp_path, report, sections)
    assert os.listdir(tmp_path) == []


def test_failed_write_keeps_the_old_report(tmp_path, monkeypatch):
    write_report(tmp_path, REPORT)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(_):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        write_report(tmp_path, {**REPORT, "title": "Later"})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
