"""Question answering: by free generation, or by ranking the answers of a list."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from mplug2_jax.contracts.errors import ConfigError
from mplug2_jax.contracts.options import option
from mplug2_jax.contracts.streams import ITEMS
from mplug2_jax.metrics.accuracy import exact_match, qa_accuracy
from mplug2_jax.metrics.scores import by_group, mean, within
from mplug2_jax.metrics.submissions import numbers_of
from mplug2_jax.metrics.vqa import vqa_accuracy, write_vqa_submission
from mplug2_jax.model.decoding import rank_answers
from mplug2_jax.preprocess.classes import read_names
from mplug2_jax.tasks.base import Array, Batch, Clip, Example, Figure, Scores
from mplug2_jax.tasks.base.generation import LANGUAGE, Writing, WritingOptions, read_by_fusion


@dataclasses.dataclass(frozen=True)
class QuestionAnsweringOptions(WritingOptions):
    """The `task` section."""

    answers: tuple | str = option((), "a list or a file of them, ranked in place of generating one")
    rank_keep: int = option(128, "of them scored whole: those with the most probable first token")

    def __post_init__(self):
        super().__post_init__()
        if self.answers and self.rank_keep < 1:
            raise ConfigError(f"task.rank_keep = {self.rank_keep}: expected at least 1")


class QuestionAnswering(Writing):
    """The prompt is the question, the target its answer; scored by exact match.

    With `task.answers` the most probable of them is given, in place of a generated one; the names
    may be in the config or, one a line, in a file.
    """

    Options = QuestionAnsweringOptions
    card = ("Answers a question about a clip or an image, in its own words or from a list. Scored "
            "by exact match, with several people's answers also as VQAv2 does. Paper: experiments, "
            "visual and video question answering.")
    fields = ("prompt", "target")
    expansion = "question"
    epoch_over = ITEMS
    epoch_source = ("release: `dataset/vqa_dataset.py` and `video_downstream_datasets.py`: "
                    "`__len__` counts the questions of all files together")
    figures = (
        Figure("{kind}_qa_majority", "accuracy of each type's most frequent answer"),
        Figure("{kind}_qa_accuracy", "share of questions answered exactly", headline=True,
               baseline="majority"),
        Figure("{kind}_qa_*_accuracy", "the same of one type of question, or (vqa) as VQAv2 counts",
               headline=True, baseline="majority"),
        Figure("{kind}_qa_unanswered", "questions without a known answer", high=float("inf"),
               better=""),
        *LANGUAGE,
    )
    submissions = ("*.json",)
    best_by = "{kind}_qa_accuracy"

    def __init__(self, *args: Any):
        super().__init__(*args)
        if self.options.answers:
            self.answers = answer_list(self.options)
            length = 2 + max(len(self.tokenizer.encode(answer)) for answer in self.answers)
            self.candidates = tuple(np.stack(part) for part in zip(
                *(self.tokenizer.encode_padded(answer, length) for answer in self.answers),
                strict=True))  # ids and mask [C, L]

    @classmethod
    def composition(cls, options: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
        read_by_fusion(cls.name, options)
        if options.answers:
            answer_list(options)  # raises
        return super().composition(options)

    def predict(self, params: Any, batch: Batch) -> dict[str, Array]:
        """As of `Generation`; with `task.answers`, `answer int32 [B]` and its `score [B]`.

        The score is the answer's probability among the `task.rank_keep` that were scored whole.
        """
        if not self.options.answers:
            return super().predict(params, batch)
        memory, mask = self.memory(params, batch)
        kept, probabilities = rank_answers(self.model, params, memory, mask,
                                           *map(jnp.asarray, self.candidates),
                                           keep=self.options.rank_keep)
        return {"answer": kept[:, 0], "score": probabilities[:, 0]}

    def text(self, output: dict[str, np.ndarray]) -> str:
        return self.answers[int(output["answer"])] if "answer" in output else super().text(output)

    def example_id(self, annotation: dict[str, Any], item: int) -> str:
        return annotation["questions"][item]["id"]

    def write_submission(self, path: Path, records: list[dict[str, Any]]) -> bool:
        """VQAv2's: every question's id and answer, where each has a number of its own."""
        numbers = numbers_of([record["id"] for record in records])
        if not numbers:
            return False
        write_vqa_submission(path, numbers, [record["prediction"] for record in records])
        return True

    def record(self, output: dict[str, np.ndarray], annotation: dict[str, Any]) -> dict[str, Any]:
        question = annotation["questions"][int(output["item"])]
        return {"prediction": self.text(output), **question}

    def score(self, records: list[dict[str, Any]], kind: str) -> Scores:
        """Exact match `<kind>_qa_accuracy`, by question type, and `<kind>_qa_majority`.

        Both sides are as the vocabulary says them, lower-cased and without accents perhaps, so that
        who generates exactly the answer's tokens is right. With several people's answers also
        VQAv2's own `<kind>_qa_vqa_accuracy`, by its server's rule. All are over the questions with
        an answer; `<kind>_qa_unanswered` counts the others, if there are any, such as all of a test
        split.
        """
        rows = [row for row, r in enumerate(records) if r["answer"]]
        count, known = len(records), [records[row] for row in rows]
        figures: Scores = {}
        if len(rows) < count:
            figures[f"{kind}_qa_unanswered"] = float(count - len(rows))
        if not rows:
            return figures
        types = [r["type"] for r in known]
        said, answers = ([self.tokenizer.said(r[key]) for r in known]
                         for key in ("prediction", "answer"))
        right = exact_match(said, answers)
        scores = {"accuracy": mean(right)} | {
            f"{name}_accuracy": score for name, score in by_group(right, types).items()}
        people = [r.get("answers", ()) for r in known]
        if all(len(given) > 1 for given in people):
            official = vqa_accuracy(*zip(*(
                as_people_say(self.tokenizer.said, r["prediction"], r["answers"])
                for r in known), strict=True))
            scores["vqa_accuracy"] = mean(official)
            scores |= {f"{name}_vqa_accuracy": score
                       for name, score in by_group(official, types).items()}
        figures |= {f"{kind}_qa_{name}": within(score, rows, count)
                    for name, score in scores.items()}
        figures[f"{kind}_qa_majority"] = qa_accuracy(said, answers, types)["majority"]
        return figures

    def absent(self, records: list[dict[str, Any]], kind: str) -> dict[str, str]:
        if any(record["answer"] for record in records):
            return {}
        return {f"{kind}_qa_accuracy": f"the answers to all {len(records)} questions are hidden"}

    def example(self, record: dict[str, Any], clip: Clip) -> Example:
        correct = None
        if record["answer"]:
            both = (self.tokenizer.said(record[key]) for key in ("prediction", "answer"))
            correct = bool(exact_match(*([text] for text in both))[0])
        return Example(clip(record["index"]), correct=correct,
                       rows=[("question", record["question"]), ("model", record["prediction"]),
                             ("answer", record["answer"])])


def as_people_say(form: Callable[[str], str], said: str,
                  answers: Sequence[str]) -> tuple[str, list[str]]:
    """A prediction and people's answers, as VQAv2's rule is to compare them.

    What has characters that no generated text has, "caf\u00e9" where a vocabulary drops accents, is
    taken as the model would say it, on both sides: a list's own spelling is given back. Where
    people agree to the letter, which is then compared, all is in lower case, as VQAv2's answers
    are.

    Args:
      form: a text as a generated one has it.
      said: the prediction.
      answers: of several people.
    """
    def bare(text: str) -> str:
        return "".join(text.split()).lower()

    def plain(text: str) -> str:
        return text if bare(form(text)) == bare(text) else form(text)

    said, given = plain(said), [plain(text) for text in answers]
    if len(set(answers)) > 1:
        return said, given
    return said.lower(), [text.lower() for text in given]


def answer_list(options: Any) -> tuple[str, ...]:
    """The answers of `task.answers`; ConfigError names the line of one that comes twice."""
    return read_names("task.answers", options.answers,
                      form=lambda text: " ".join(text.lower().split()))
