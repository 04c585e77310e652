"""Boxes of one's own tables, in every form."""

import io

import pytest
from own_tables import faults, one, read, table
from PIL import Image
from raw_media import put

from mplug2_jax.contracts.errors import DataError

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
