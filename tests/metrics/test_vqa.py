"""VQAv2's accuracy: its rule on hand-made cases, and the submission file."""

import json

import numpy as np
import pytest

from mplug2_jax.metrics.vqa import normalize_vqa_answer, vqa_accuracy, write_vqa_submission

# Expected by reading the rules of GT-Vision-Lab's vqaEval.py: `processPunctuation` with its list of
# marks (no . : ' % $ # & * ~), `commaStrip` and `periodStrip`; `processDigitArticle` with its
# table of numbers, articles and contractions.
NORMALIZED = [
    ("Yes.", "yes"),
    ("the Dog", "dog"),
    ("A man and an apple", "man and apple"),
    ("two", "2"),
    ("None", "0"),
    ("TEN dogs", "10 dogs"),
    ("eleven", "eleven"),
    ("dont", "don't"),
    ("hes", "he's"),
    ("its", "its"),
    ("couldnt've", "couldn't've"),
    ("couldn'tve", "couldn't've"),
    ("somebody'd", "somebodyd"),
    ("twas", "'twas"),
    ("t-shirt", "t shirt"),
    ("t- shirt", "t shirt"),
    ("ice-cream / cake", "ice cream cake"),
    ("red -blue-green", "red bluegreen"),
    ("1,000", "1000"),
    ("1,000-mile", "1000mile"),
    ("3.5", "3.5"),
    ("u.s.a.", "usa"),
    ("no. 5", "no 5"),
    ("what?!", "what"),
    ("(left)", "left"),
    ("it's", "it's"),
    ("the", ""),
    ("10:30", "10:30"),
    ("a_b", "b"),  # "_" becomes a space, so that "a" stands alone
    ("rock'n'roll", "rock'n'roll"),
    # Marks that are not on the list stay, with the spaces around them.
    ("50%", "50%"), ("50 %", "50 %"), ("$5", "$5"), ("#1", "#1"), ("r&b", "r&b"),
    ("b & w", "b & w"), ("5*5", "5*5"), ("~5", "~5"), ("10 : 30", "10 : 30"), ("dogs'", "dogs'"),
    ("'stop'", "'stop'"), ("café", "café"), ("don’t", "don’t"), ("8–9", "8–9"), ("25°c", "25°c"),
    # Full stops go but before a digit.
    ("a.m.", "am"), ("10:30 a.m.", "10:30 am"), ("u. s.", "u s"), ("5.", "5"), (".5", ".5"),
    ("3. 5", "3 5"), ("St. Louis", "st louis"), ("1.5.", "1.5"),
    # A comma between digits makes every mark on the list vanish, else one becomes a space.
    ("$5,000", "$5000"), ("1,000.50", "1000.50"), ("1, 000", "1 000"), ("1,2/3", "123"),
    ("x,y", "x y"), ("x, y", "x y"), ("1,b", "1 b"),
    # Beside a space in one place, gone in all places.
    ("8-9", "8 9"), ("8 - 9", "8 9"), ("1/2", "1 2"), ("1 / 2", "1 2"), ("1 1/2", "1 1 2"),
    ("t-shirt - red", "tshirt red"), ("t-shirt, red", "t shirt red"), ("c++", "c"),
    ("c++ code", "c code"), ("2+2", "2 2"), ("yes;no", "yes no"), ("<5", "5"), ("\"stop\"", "stop"),
    ("5'10\"", "5'10"), ("e-mail@a.com", "e mail acom"),
    # Whole words: numbers up to ten, articles, contractions.
    ("none of them", "0 of them"), ("Twenty-One", "twenty 1"), ("an apple a day", "apple day"),
    ("oclock", "o'clock"), ("10 oclock", "10 o'clock"), ("wont", "won't"), ("cant", "can't"),
    ("whats", "what's"), ("im", "im"), ("ive", "ive"), ("lets", "lets"), ("yall", "y'all"),
]


@pytest.mark.parametrize(("text", "expected"), NORMALIZED)
def test_normal_form(text, expected):
    assert normalize_vqa_answer(text) == expected


# (prediction, answer -> annotators, accuracy in tenths of thirds): k of ten agree, one left out.
SCORED = [
    ("red", {"red": 10}, 30),
    ("Red", {"red": 10}, 0),  # unanimous: nothing is normalised
    (" red\n", {"red": 10}, 30),
    ("red.", {"red": 10}, 0),
    ("Red.", {"red": 9, "blue": 1}, 30),
    ("red", {"blue": 9, "green": 1}, 0),
    ("red", {"red": 1, "blue": 9}, 9),  # nine times 1/3, and 0 without itself
    ("red", {"red": 2, "blue": 8}, 18),  # eight times 2/3, twice 1/3
    ("red", {"red": 3, "blue": 7}, 27),  # seven times 1, three times 2/3
    ("red", {"red": 4, "blue": 6}, 30),
    ("red", {"red": 5, "green": 5}, 30),
    ("green", {"red": 3, "green": 3, "blue": 4}, 27),
    ("2", {"two": 2, "2": 2, "3": 6}, 30),  # one answer after normalisation
    ("two", {"two": 1, "2": 1, "3": 8}, 18),
    ("none", {"0": 3, "1": 7}, 27),
    ("a dog", {"dog": 2, "the dog": 1, "cat": 7}, 27),
    ("dog", {"a dog": 10}, 0),  # unanimous again
    ("a dog", {"a dog": 10}, 30),
    ("dont know", {"don't know": 3, "yes": 7}, 27),
    ("t-shirt", {"t shirt": 2, "T-Shirt": 2, "shirt": 6}, 30),
    ("1,000", {"1000": 1, "100": 9}, 9),
    ("3.5", {"3.5": 2, "35": 8}, 18),
    ("u.s.", {"US": 3, "usa": 7}, 27),
    ("left (side)", {"left side": 1, "right": 9}, 9),
    ("yes!", {"yes": 6, "no": 4}, 30),
    ("no", {"yes": 6, "no": 4}, 30),
    ("", {"yes": 6, "no": 4}, 0),
    ("the", {"a": 2, "no": 8}, 18),  # both are empty after the articles
    ("he's", {"hes": 3, "she": 7}, 27),
    ("shes", {"she's": 3, "she": 7}, 0),  # the official table lacks it
]


@pytest.mark.parametrize(("said", "given", "thirtieths"), SCORED)
def test_rule_by_hand(said, given, thirtieths):
    answers = [answer for answer, count in given.items() for _ in range(count)]
    assert len(answers) == 10
    for order in (answers, answers[::-1]):
        np.testing.assert_allclose(vqa_accuracy([said], [order]), [thirtieths / 30])


def test_every_question_has_its_own():
    answers = [["red"] * 9 + ["blue"], ["red"] + ["blue"] * 9]
    np.testing.assert_allclose(vqa_accuracy(["red", "red"], answers), [1, 0.3])


@pytest.mark.parametrize(("predictions", "answers", "message"), [
    (["a"], [], "answers for 0 questions"),
    (["a", "b"], [["a"] * 10, ["b"]], "question 1: expected the answers of several"),
    (["a"], ["aaaaaaaaaa"], "question 0: expected"),
])
def test_errors_name_the_question(predictions, answers, message):
    with pytest.raises(ValueError, match=message):
        vqa_accuracy(predictions, answers)


def test_submission(tmp_path):
    path = tmp_path / "answers.json"
    write_vqa_submission(path, ["262148000", 5], ["down", "café"])
    assert json.loads(path.read_text("utf-8")) == [
        {"question_id": 262148000, "answer": "down"}, {"question_id": 5, "answer": "café"}]


@pytest.mark.parametrize(("ids", "message"), [
    (["7", 7], "question id 7 comes twice"), (["7", "q8"], "'q8': expected a whole number"),
    ([1], "1 question ids, 2 predictions"),
])
def test_a_submission_that_would_be_refused(tmp_path, ids, message):
    with pytest.raises(ValueError, match=message):
        write_vqa_submission(tmp_path / "answers.json", ids, ["a", "b"])
    assert not list(tmp_path.iterdir())
