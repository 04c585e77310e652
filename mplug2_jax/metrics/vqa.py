"""VQAv2's accuracy, as its official evaluation computes it, and the file that its server accepts.

The rule is that of the `vqaEval.py` published with the dataset, odd sides included, because the
published scores were computed with it: hyphens and slashes become spaces but vanish beside a space,
apostrophes of known contractions are put back (though not those of "its" or "ill"), and where all
annotators agree to the letter nothing is normalised at all.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mplug2_jax.contracts.paths import parse

_NUMBERS = {"none": "0", **{
    word: str(number) for number, word in enumerate(
        "zero one two three four five six seven eight nine ten".split())}}
_ARTICLES = {"a", "an", "the"}
_PUNCTUATION = ";/[]\"{}()=+\\_-><@`,?!"
_THOUSANDS = re.compile(r"\d,\d")
_FULL_STOP = re.compile(r"\.(?!\d)")
# Each is recognised with any one of its apostrophes left out.
_CONTRACTIONS = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't
    haven't he'd he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've
    might've mustn't must've needn't not've o'clock oughtn't 'ow's'at shan't she'd've should've
    shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd someone'd've someone'll
    someone's something'd something'd've something'll that's there'd there'd've there're there's
    they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're
    what's what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're
    why's won't would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're
    you've
""".split()
_CONTRACTED = {word[:i] + word[i + 1:]: word for word in _CONTRACTIONS
               for i, letter in enumerate(word) if letter == "'"}
_CONTRACTED["somebody'd"] = "somebodyd"  # as in the official table


def normalize_vqa_answer(text: str) -> str:
    """The official normal form: no punctuation or articles, digits for number words, lower case."""
    dropped = bool(_THOUSANDS.search(text))  # "1,000" makes all its punctuation vanish
    result = text
    for mark in _PUNCTUATION:
        beside_space = f"{mark} " in text or f" {mark}" in text
        result = result.replace(mark, "" if dropped or beside_space else " ")
    words = [_NUMBERS.get(word, word) for word in _FULL_STOP.sub("", result).lower().split()]
    return " ".join(_CONTRACTED.get(word, word) for word in words if word not in _ARTICLES)


def vqa_accuracy(predictions: Sequence[str], answers: Sequence[Sequence[str]]) -> np.ndarray:
    """Each question's accuracy, float64 [N] in 0..1; their mean is the official figure.

    An annotator's vote is left out in turn: right as a third of the others who gave the predicted
    answer, at most 1; then the mean over annotators, of whom VQAv2 has ten.

    Args:
      predictions: one answer a question, as generated.
      answers: all annotators' answers of each question.

    Raises:
      ValueError: different lengths, or a question with fewer than two answers.
    """
    if len(predictions) != len(answers):
        raise ValueError(
            f"{len(predictions)} predictions, answers for {len(answers)} questions: "
            "expected equal numbers"
        )
    result = np.empty(len(predictions))
    for i, (said, given) in enumerate(zip(predictions, answers, strict=True)):
        if isinstance(given, str) or len(given) < 2:
            raise ValueError(f"question {i}: expected the answers of several annotators, got "
                             f"{given!r}")
        said, given = _flat(said), [_flat(answer) for answer in given]
        if len(set(given)) > 1:
            said = normalize_vqa_answer(said)
            given = [normalize_vqa_answer(answer) for answer in given]
        agree = given.count(said)
        votes = [min(1.0, (agree - (answer == said)) / 3) for answer in given]
        result[i] = sum(votes) / len(votes)
    return result


def _flat(text: str) -> str:
    return text.replace("\n", " ").replace("\t", " ").strip()


def write_vqa_submission(
    path: str | Path, question_ids: Sequence[int | str], predictions: Sequence[str]
) -> None:
    """Writes `[{"question_id": int, "answer": str}, ...]`, as the evaluation server expects.

    Raises:
      ValueError: different lengths, an id that is not a whole number, or one that comes twice: the
        server refuses the whole file for each of them.
    """
    if len(question_ids) != len(predictions):
        raise ValueError(f"{len(question_ids)} question ids, {len(predictions)} predictions: "
                         "expected equal numbers")
    rows, seen = [], set()
    for question_id, answer in zip(question_ids, predictions, strict=True):
        if not str(question_id).isdecimal():
            raise ValueError(f"question id {question_id!r}: expected a whole number")
        number = int(question_id)
        if number in seen:
            raise ValueError(f"question id {number} comes twice")
        seen.add(number)
        rows.append({"question_id": number, "answer": answer})
    parse(path).write_text(json.dumps(rows, ensure_ascii=False) + "\n", "utf-8")
