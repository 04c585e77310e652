"""Question answering by free generation."""

from typing import Any

import numpy as np

from mplug2_jax.config import ConfigError
from mplug2_jax.metrics.accuracy import exact_match, qa_accuracy
from mplug2_jax.metrics.scores import by_group, mean
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
        """Exact match `<kind>_qa_accuracy`, by question type, and `<kind>_qa_majority`."""
        said, answers, types = zip(*((r["prediction"], r["answer"], r["type"]) for r in records),
                                   strict=True)
        right = exact_match(said, answers)
        by_type = {f"{kind}_qa_{name}_accuracy": score
                   for name, score in by_group(right, types).items()}
        return {f"{kind}_qa_accuracy": mean(right),
                f"{kind}_qa_majority": qa_accuracy(said, answers, types)["majority"], **by_type}
