"""Question answering by free generation."""

from typing import Any

import numpy as np

from mplug2_jax.config import ConfigError
from mplug2_jax.metrics.accuracy import qa_accuracy
from mplug2_jax.tasks.generation import Generation


class QuestionAnswering(Generation):
    """The prompt is the question, the target its answer; scored by exact match."""

    fields = ("prompt", "target")

    @classmethod
    def composition(cls, options: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
        if options.memory != "fused":
            raise ConfigError(f"task.memory = {options.memory!r}: question answering reads the "
                              "question through the fusion, so it must be 'fused'")
        return super().composition(options)

    def record(self, output: dict[str, np.ndarray], annotation: dict[str, Any]) -> dict[str, Any]:
        question = annotation["questions"][int(output["item"])]
        return {"prediction": self.text(output), **question}

    def score(self, records: list[dict[str, Any]], kind: str) -> dict[str, float]:
        """Exact match `<kind>_qa_accuracy`, by question type, and `<kind>_qa_majority`.

        Over the questions with an answer; of a test split that hides them all, just how many.
        """
        hidden = sum(not r["answer"] for r in records)
        if hidden:
            records = [r for r in records if r["answer"]]
            if not records:
                return {f"{kind}_qa_unanswered": float(hidden)}
        scores = qa_accuracy([r["prediction"] for r in records], [r["answer"] for r in records],
                             [r["type"] for r in records])
        by_type = {f"{kind}_qa_{name}_accuracy": value
                   for name, value in scores["per_type"].items()}
        return {f"{kind}_qa_accuracy": scores["accuracy"],
                f"{kind}_qa_majority": scores["majority"], **by_type}
