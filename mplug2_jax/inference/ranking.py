"""Files in the order in which they match a text: by contrast, the best of them by matching, too."""

import bisect
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import numpy as np

from mplug2_jax.inference.clips import Part
from mplug2_jax.inference.jobs import each
from mplug2_jax.inference.predictor import Output, Predictor, Row
from mplug2_jax.inference.written import Line


class Match(NamedTuple):
    """A file of the gallery: its similarity to the query, and its row while it may be reranked."""

    file: str
    kind: str
    score: float
    output: Output | None


def rank(predictor: Predictor, taken: Iterable[Part],
         line: Callable[[Line | None], None]) -> list[Line]:
    """A line a file that could be read, best first.

    Of the `rerank` best the rows are kept meanwhile.

    Args:
      predictor: of the command "retrieve".
      taken: parts of files.
      line: gets for each file, in order, why it cannot be read, or None.
    """
    found: list[Match] = []  # best first, with their rows
    others: list[Match] = []

    def take(row: Row, waited: float) -> None:
        del waited
        if not isinstance(row.output, dict):
            line(predictor.line(row))
            return
        line(None)
        similarity = float(row.output["visual_features"] @ row.output["text_features"])
        bisect.insort(found, Match(str(row.file), row.kind, similarity, row.output),
                      key=lambda match: -match.score)
        if len(found) > predictor.rerank:
            others.append(found.pop()._replace(output=None))

    each(predictor, taken, take)
    ranked = reranked(found, predictor) + sorted(others, key=lambda match: -match.score)
    return [{"rank": place, "file": match.file, "score": match.score}
            for place, match in enumerate(ranked, 1)]


def reranked(matches: list[Match], predictor: Predictor) -> list[Match]:
    """Matches as their task reranks them, by what matching says, best first."""
    result = []
    # One kind at a time, for clips of other lengths have other shapes.
    for kind, task in predictor.tasks.items():
        retrieval: Any = task
        rows = [(match, match.output) for match in matches
                if match.kind == kind and match.output is not None]
        if not rows:
            continue
        outputs = {key: np.stack([output[key] for _, output in rows])
                   for key in ("visual", "text", "text_mask")}
        pairs = np.repeat(np.arange(len(rows))[:, None], 2, axis=1)
        with jax.set_mesh(predictor.mesh):
            said = retrieval.match_pairs(predictor.params, outputs, pairs)
        result += [match._replace(score=float(retrieval.rescored(match.score, more)))
                   for (match, _), more in zip(rows, said, strict=True)]
    return sorted(result, key=lambda match: -match.score)
