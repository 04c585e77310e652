"""Answer accuracy and the majority baseline."""

import pytest

from mplug2_jax.metrics.accuracy import qa_accuracy


def test_by_hand():
    scores = qa_accuracy(
        predictions=[" Red ", "two", "blue", "play  guitar"],
        answers=["red", "three", "red", "Play guitar"],
        types=["colour", "count", "colour", "what"],
    )
    assert scores["accuracy"] == 0.5 and scores["count"] == 4
    assert scores["per_type"] == {"colour": 0.5, "count": 0.0, "what": 1.0}
    assert scores["majority"] == 1.0


def test_majority_per_type_not_overall():
    answers = ["a", "a", "b", "c", "c", "d"]
    types = ["x", "x", "x", "y", "y", "y"]
    assert qa_accuracy(answers, answers, types)["majority"] == pytest.approx(4 / 6)


def test_majority_of_training_answers():
    train = [("x", "B "), ("x", "b"), ("x", "a"), ("z", "d")]
    scores = qa_accuracy(["?"] * 4, ["a", "b", "b", "d"], ["x", "x", "x", "y"], train=iter(train))
    assert scores["majority"] == 0.5  # b twice; type y was never seen


def test_equally_frequent_answers_do_not_depend_on_order():
    held_out = ["a"], ["a"], ["x"]
    for train in ([("x", "a"), ("x", "b")], [("x", "b"), ("x", "a")]):
        assert qa_accuracy(*held_out, train=train)["majority"] == 1.0


@pytest.mark.parametrize("lists", [([], [], []), (["a"], ["a", "b"], ["x", "x"])])
def test_errors(lists):
    with pytest.raises(ValueError, match="no answers|equal numbers"):
        qa_accuracy(*lists)
