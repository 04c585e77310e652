"""Records of an evaluation: their order, a few of them, the file of all."""

import json

import numpy as np
import pytest

from mplug2_jax.evaluation.records import best_first, choose, write_records


def record(index, **scores):
    return {"index": index, "prediction": f"p{index}", "scores": scores}


def test_order():
    records = [record(0, cider=1.0), record(1, cider=3.0), record(2), record(3, cider=1.0)]
    assert [r["index"] for r in best_first(records, "cider")] == [1, 0, 3, 2]
    assert [r["index"] for r in best_first(records, "cider", worst=True)] == [0, 3, 1, 2]
    assert [r["index"] for r in best_first(records, "-cider")] == [0, 3, 1, 2]  # as a rank
    assert [r["index"] for r in best_first(records, "-cider", worst=True)] == [1, 0, 3, 2]
    assert best_first(records, "other") == records


def test_best_worst_and_random_ones():
    records = [record(i, rank=float(i)) for i in np.random.default_rng(0).permutation(40)]
    chosen = choose(records, "-rank", 9)
    assert [r["index"] for r in chosen["best"]] == [0, 1, 2]
    assert [r["index"] for r in chosen["worst"]] == [39, 38, 37]
    others = [r["index"] for r in chosen["random"]]
    assert len(others) == 3 and set(others) <= set(range(3, 37))
    assert choose(records, "-rank", 9) == chosen
    assert choose(records, "-rank", 9, seed=1)["random"] != chosen["random"]
    assert sum(map(len, choose(records, "-rank", 10).values())) == 10


def test_equal_scores_are_drawn_from():
    records = [record(i, right=float(i % 2)) for i in range(60)]
    seen = {r["index"] for seed in range(20) for r in choose(records, "right", 6, seed)["best"]}
    assert all(i % 2 for i in seen) and len(seen) > 10


@pytest.mark.parametrize(("count", "scores"), [(0, {}), (5, {}), (2, {"a": 1.0}), (3, {"a": 1.0})])
def test_few_records(count, scores):
    records = [record(i, **scores) for i in range(count)]
    chosen = choose(records, "a", 12)
    found = [r["index"] for some in chosen.values() for r in some]
    assert sorted(found) == list(range(count))


def test_file(tmp_path):
    path = tmp_path / "video_captions.jsonl"
    path.write_text("old\n")
    write_records(path, [{"index": np.int32(3), "references": ["é", "b"],
                          "box": np.ones(2, np.float32), "scores": {"cider": 0.5}},
                         {"index": 4, "prediction": "line\nbreak"}])
    lines = path.read_text("utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [
        {"index": 3, "references": ["é", "b"], "box": [1.0, 1.0], "scores": {"cider": 0.5}},
        {"index": 4, "prediction": "line\nbreak"}]
    assert "é" in lines[0]


@pytest.mark.parametrize("value", [float("nan"), object()])
def test_what_json_cannot_hold_is_named_and_nothing_written(tmp_path, value):
    path = tmp_path / "x.jsonl"
    path.write_text("old\n")
    with pytest.raises(ValueError, match="record 12: "):
        write_records(path, [{"index": 11}, {"index": 12, "score": value}])
    assert path.read_text() == "old\n" and list(tmp_path.iterdir()) == [path]
