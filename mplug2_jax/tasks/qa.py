"""Question answering by free generation."""

from typing import Any

import numpy as np

from mplug2_jax.config import ConfigError
from mplug2_jax.metrics.accuracy import exact_match, qa_accuracy
from mplug2_jax.metrics.scores import by_group, mean, within
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

        Over the questions with an answer; `<kind>_qa_unanswered` is how many have none, such as all
        of a test split that hides them.
        """
        rows = [row for row, r in enumerate(records) if r["answer"]]
        hidden = {f"{kind}_qa_unanswered": float(len(records) - len(rows))}
        if not rows:
            return hidden
        said, answers, types = zip(*((r["prediction"], r["answer"], r["type"]) for r in
                                     (records[row] for row in rows)), strict=True)
        right = exact_match(said, answers)
        scores = {"accuracy": mean(right)} | {
            f"{name}_accuracy": score for name, score in by_group(right, types).items()}
        return {f"{kind}_qa_{name}": within(score, rows, len(records))
                for name, score in scores.items()} | {
            f"{kind}_qa_majority": qa_accuracy(said, answers, types)["majority"]} | (
            hidden if len(rows) < len(records) else {})
