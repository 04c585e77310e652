"""Question answering by free generation."""

from typing import Any

import numpy as np

from mplug2_jax.config import ConfigError
from mplug2_jax.metrics.accuracy import exact_match, qa_accuracy
from mplug2_jax.metrics.scores import by_group, mean, within
from mplug2_jax.metrics.vqa import vqa_accuracy
from mplug2_jax.tasks.base import Scores
from mplug2_jax.tasks.generation import Generation


class QuestionAnswering(Generation):
    """The prompt is the question, the target its answer; scored by exact match."""

    fields = ("prompt", "target")
    best_by = "{kind}_qa_accuracy"

    @classmethod
    def composition(cls, options: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
        if options.memory != "fused":
            raise ConfigError(f"task.memory = {options.memory!r}: question answering reads the "
                              "question through the fusion, so it must be 'fused'")
        return super().composition(options)

    def record(self, output: dict[str, np.ndarray], annotation: dict[str, Any]) -> dict[str, Any]:
        question = annotation["questions"][int(output["item"])]
        return {"prediction": self.text(output), **question}

    def score(self, records: list[dict[str, Any]], kind: str) -> Scores:
        """Exact match `<kind>_qa_accuracy`, by question type, and `<kind>_qa_majority`.

        With several people's answers also VQAv2's own `<kind>_qa_vqa_accuracy`. All are over the
        questions with an answer; `<kind>_qa_unanswered` counts the others, if there are any, such
        as all of a test split.
        """
        rows = [row for row, r in enumerate(records) if r["answer"]]
        count, known = len(records), [records[row] for row in rows]
        figures: Scores = {}
        if len(rows) < count:
            figures[f"{kind}_qa_unanswered"] = float(count - len(rows))
        if not rows:
            return figures
        said, answers, types = zip(*((r["prediction"], r["answer"], r["type"]) for r in known),
                                   strict=True)
        right = exact_match(said, answers)
        scores = {"accuracy": mean(right)} | {
            f"{name}_accuracy": score for name, score in by_group(right, types).items()}
        people = [r.get("answers", ()) for r in known]
        if all(len(given) > 1 for given in people):
            scores["vqa_accuracy"] = mean(vqa_accuracy(said, people))
        figures |= {f"{kind}_qa_{name}": within(score, rows, count)
                    for name, score in scores.items()}
        figures[f"{kind}_qa_majority"] = qa_accuracy(said, answers, types)["majority"]
        return figures
