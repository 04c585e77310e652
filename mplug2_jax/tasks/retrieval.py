"""Text-visual retrieval: a dual encoder over the whole gallery, its best reranked by matching.

Every visual is encoded once, however many captions it has (`tasks.base.gallery`).
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from mplug2_jax.contracts.errors import ConfigError
from mplug2_jax.contracts.options import option
from mplug2_jax.contracts.streams import Stream
from mplug2_jax.metrics.retrieval import captions_of, rank_scores, ranks
from mplug2_jax.metrics.scores import Score, within
from mplug2_jax.objectives.pretraining import pair_losses
from mplug2_jax.parallel.sharding import shard_batch
from mplug2_jax.preprocess.text import clean_caption
from mplug2_jax.tasks.base import (
    Annotate,
    Array,
    Batch,
    Clip,
    Example,
    Figure,
    Loss,
    Scores,
    Task,
    fetch,
    modality,
    over_streams,
)
from mplug2_jax.tasks.base.gallery import Gallery, batched, filled
from mplug2_jax.tasks.base.pairs import CONTRAST, check_batching, check_blocks, objectives_of

# (figures, what they are of, by what) of each way.
WAYS = tuple((f"{prefix}{way}", what, by) for prefix, by in (
    ("", ", reranked"), ("dual_", ", dual encoder alone")) for way, what in (
    ("text_to_{kind}", "texts"), ("{kind}_to_text", "clips or images")))
RERANK_BATCH = 64  # pairs a call, about; all calls alike, so that one compilation serves
_RANK_ROWS = 256  # queries sorted at a time


@dataclasses.dataclass(frozen=True)
class Weights:
    """Of the objectives."""

    vtc: float = option(1.0, "weight of the contrastive loss")
    vtm: float = option(1.0, "weight of matching")

    def __post_init__(self):
        if min(self.vtc, self.vtm) < 0 or max(self.vtc, self.vtm) <= 0:
            raise ConfigError("task.objectives: vtc and vtm must be at least 0 and one above 0")


@dataclasses.dataclass(frozen=True)
class RetrievalOptions:
    """The `task` section."""

    modality: str = modality()
    objectives: Weights = option(Weights, "weights of the losses")
    negative_block: int = option(0, "examples among which a hard negative is sought; 0 for the "
                                 "global batch")
    accumulation: int = option(1, "micro-batches of a step; the results are those of 1")
    rerank: int = option(16, "best of every query that matching reranks; 0 for none")

    def __post_init__(self):
        check_batching(self)


class Retrieval(Task):
    """Contrastive and matching losses; recall both ways.

    The `task.rerank` best of every query (0: none) are ranked by similarity and matching together.
    Matching learns to tell pairs from negatives that are drawn in proportion to the softmax of
    similarity / temperature. Were they drawn for the queries alone, its log-odds would be what a
    pair's probability, given the query, has beyond that softmax: log p = similarity / temperature
    + log-odds + a constant of the query (noise-contrastive estimation, Gutmann and Hyvarinen,
    2010). They are drawn both ways, so this holds as far as the softmax's sums are alike. A score
    is that, times the temperature. A visual with several captions is a query for all of them, found
    with the first; each caption is a query.
    """

    Options = RetrievalOptions
    card = ("Finds the clip or image of a text, and the text of a clip: a dual encoder over the "
            "whole gallery, its best reranked by matching. Scored by recall both ways. Paper: "
            "experiments, image-text and video-text retrieval.")
    fields = ("text",)
    figures = (
        *(Figure(f"{way}_r1", f"share of {what} whose match comes first{by}", headline=True)
          for way, what, by in WAYS),
        *(Figure(f"{way}_r*", f"share of {what} with a match among the first so many{by}")
          for way, what, by in WAYS),
        *(Figure(f"{way}_m*_rank", f"rank of the first match of {what}{by}", 1.0, float("inf"),
                 "lower") for way, what, by in WAYS),
        Figure("text_to_{kind}_wordless", "captions without a word, left out", 0.0, float("inf"),
               ""),
        *CONTRAST,
    )
    best_by = "-text_to_{kind}_mean_rank"

    def __init__(self, *args: Any):
        super().__init__(*args)
        self._match = jax.jit(self.match)
        self._encode = jax.jit(self.encode_queries)

    @classmethod
    def composition(cls, options: RetrievalOptions) -> tuple[tuple[str, ...], tuple[str, ...]]:
        return (options.modality, "text", "universal", "fusion"), ("vtc", "vtm")

    def check_mesh(self, streams: Mapping[str, Stream], mesh: Mesh) -> None:
        super().check_mesh(streams, mesh)
        check_blocks(self, streams)

    def loss(self, params: Any, batch: dict[str, Batch], rng: Array, task_state: Any = None,
             step: Array | int = 0) -> Loss:
        del task_state, step
        objectives = objectives_of(self, vars(self.options.objectives))

        def of_stream(_, rows, key):
            return pair_losses(objectives, params, rows, key)[:2]

        return over_streams(of_stream, batch, rng)

    def predict(self, params: Any, batch: Batch) -> dict[str, Array]:
        """Features `[B, C]` and tokens of both sides, and the text's mask `[B, L]`."""
        visual = self.encode_seen(params, batch)
        text = self.call(params, "encode_text", batch["text"], batch["text_mask"])
        return {
            "visual_features": self.call(params, "contrastive", visual, self.options.modality),
            "text_features": self.call(params, "contrastive", text, "text"),
            "visual": shard_batch(visual), "text": text, "text_mask": batch["text_mask"],
        }

    def encode_queries(self, params: Any, ids: Array, mask: Array) -> dict[str, Array]:
        """Features `[B, C]`, tokens and mask of texts alone."""
        text = self.call(params, "encode_text", ids, mask)
        return {"text_features": self.call(params, "contrastive", text, "text"), "text": text,
                "text_mask": mask}

    def match(self, params: Any, visual: Array, text: Array, mask: Array) -> Array:
        """What matching adds to the similarity of `visual [B, S, D]` and `text [B, L, D]`: `[B]`.

        The log-odds that they belong together, times the temperature, float32.
        """
        _, fused = self.call(params, "fuse", visual, text, mask)
        wrong, right = self.call(params, "match_logits", fused).T
        return (right - wrong) * self.call(params, "temperature")

    def evaluate(self, params: Any, batches: Iterable[Batch], annotate: Annotate, kind: str,
                 reference: Iterable[Batch] = ()) -> tuple[Scores, list[dict[str, Any]]]:
        """As of `Task`; a batch's rows are the gallery, and every caption of theirs a query.

        A caption without a word is left out and counted.
        """
        del reference
        gallery, length = Gallery(), 0
        for batch in batches:
            length = batch["text"].shape[1]
            gallery.add(self._predict(params, batch), batch)
        records: list[dict[str, Any]] = []
        owner, wordless = [], 0
        for number, index in enumerate(gallery.index):
            for item, text in enumerate(annotate(index)["texts"]):
                words = clean_caption(text, length)
                wordless += not words
                if words:
                    records.append({"index": index, "item": item, "query": words})
                    owner.append(number)
        if not records:
            raise ValueError("retrieval has nothing to find: no example could be used")
        queries = self.encode_all(params, [record["query"] for record in records], length)
        scores = self.rank(params, queries, gallery, owner, records, kind)
        for record, text in zip(records, (annotate(r["index"])["texts"][r["item"]]
                                          for r in records), strict=True):
            record["query"] = text
        if wordless:
            scores[f"text_to_{kind}_wordless"] = float(wordless)
        return scores, records

    def chance(self, name: str, records: list[dict[str, Any]]) -> float | None:
        if name.endswith("_r1"):
            return 1 / len({record["index"] for record in records})
        return None

    def example(self, record: dict[str, Any], clip: Clip) -> Example:
        return Example(rows=[("query", record["query"]), ("rank", str(record["rank"]))],
                       correct=record["rank"] == 1,
                       thumbnails=[(clip(index), f"{place}.", index == record["index"])
                                   for place, index in enumerate(record["top"], 1)])

    def encode_all(self, params: Any, texts: Sequence[str], length: int) -> dict[str, np.ndarray]:
        """`encode_queries` of all texts, on every host: `[Q, ...]`."""
        encoded = [self.tokenizer.encode_padded(text, length) for text in texts]
        parts = []
        for chunk in batched(np.arange(len(texts)), RERANK_BATCH):
            ids, mask = (np.stack([encoded[i][k] for i in chunk]) for k in (0, 1))
            parts.append(fetch(self._encode(params, ids, mask)))
        return {key: np.concatenate([part[key] for part in parts])[:len(texts)]
                for key in parts[0]}

    def rank(self, params: Any, queries: dict[str, np.ndarray], gallery: Gallery,
             owner: Sequence[int], records: list[dict[str, Any]], kind: str) -> Scores:
        """Recall of the dual encoder and, with `task.rerank`, of the reranked lists.

        Args:
          params: of the model.
          queries: of `encode_all`, `[Q, ...]`.
          gallery: G visuals.
          owner: of every query its visual's number.
          records: one a query; gets its `rank` and the `top` five.
          kind: for the names of the figures.
        """
        similarity = queries["text_features"] @ np.stack(gallery.features).T  # [Q, G]
        to_visual, to_text = similarity, similarity.T
        scores = score_matrices(to_visual, to_text, owner, kind, "dual_")
        if self.options.rerank:
            to_visual, to_text = self.rerank(params, queries, gallery, similarity)
        scores |= score_matrices(to_visual, to_text, owner, kind, "")
        rank, top = ranks(to_visual, [[o] for o in owner]), best(to_visual, 5)
        for i, record in enumerate(records):
            record["rank"], record["top"] = int(rank[i]), [gallery.index[j] for j in top[i]]
        return scores

    def rerank(self, params: Any, queries: dict[str, np.ndarray], gallery: Gallery,
               similarity: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Adds what `match` finds to the `task.rerank` best of each query, both ways.

        Pairs wanted in either direction are computed once, at most `rerank` times the texts and
        visuals; all others keep a score below them.

        Args:
          params: of the model.
          queries: `text [Q, L, D]`, `text_mask [Q, L]`.
          gallery: G visuals.
          similarity: `[Q, G]` in -1..1.

        Returns:
          Scores `[Q, G]` and `[G, Q]`.
        """
        wanted_visual = np.zeros(similarity.shape, bool)
        wanted_text = np.zeros(similarity.T.shape, bool)
        for wanted, matrix in ((wanted_visual, similarity), (wanted_text, similarity.T)):
            np.put_along_axis(wanted, best(matrix, self.options.rerank), True, axis=1)
        pairs = np.argwhere(wanted_visual | wanted_text.T)  # [P, 2] of (text, visual)
        added = np.zeros(similarity.shape, np.float32)
        added[tuple(pairs.T)] = self.match_spread(params, queries, gallery, pairs)
        # A similarity is in -1..1, so what was not reranked stays behind what was.
        others = similarity - (2.0 - min(added.min(), 0.0))
        added += similarity
        return (np.where(wanted_visual, added, others), np.where(wanted_text, added.T, others.T))

    def match_spread(self, params: Any, queries: dict[str, np.ndarray], gallery: Gallery,
                     pairs: np.ndarray) -> np.ndarray:
        """`match_pairs` over all hosts: each gives the pairs of its own visuals to every call."""
        starts = gallery.starts()
        block = np.searchsorted(starts, gallery.row, side="right") - 1  # of every visual
        mine = int(np.searchsorted(starts, gallery.first))
        lists = [np.flatnonzero(block[pairs[:, 1]] == b) for b in range(len(starts))]
        ways = gallery.ways()
        share = -(-RERANK_BATCH // ways) * ways // len(starts)  # pairs of a host and call
        result = np.zeros(len(pairs), np.float32)
        for start in range(0, max(map(len, lists)), share):
            parts = [numbers[start:start + share] for numbers in lists]
            own = pairs[filled(parts[mine], share)] if len(parts[mine]) else None
            added = fetch(self._match(params, *(
                gallery.put(x, share * len(starts)) for x in gallery.rows(queries, own, share))))
            for b, part in enumerate(parts):
                result[part] = added[b * share:b * share + len(part)]
        return result

    def match_pairs(self, params: Any, outputs: Mapping[str, np.ndarray],
                    pairs: np.ndarray) -> np.ndarray:
        """`match` of `pairs [P, 2]`, numbers of (text, visual): float32 `[P]`.

        Args:
          params: of the model.
          outputs: `visual [G, S, D]`, `text [Q, L, D]`, `text_mask [Q, L]`.
          pairs: at least one.
        """
        added = []
        for part in batched(pairs, min(RERANK_BATCH, len(pairs))):
            text, visual = part.T
            result = self._match(params, outputs["visual"][visual], outputs["text"][text],
                                 outputs["text_mask"][text])
            added.append(fetch(result))
        return np.concatenate(added)[:len(pairs)]


def score_matrices(to_visual: np.ndarray, to_text: np.ndarray, owner: Sequence[int], kind: str,
                   prefix: str) -> Scores:
    """`<prefix>text_to_<kind>_r1 ...` and back, of similarities `[Q, G]` and `[G, Q]`.

    All are over the Q queries; a visual counts at the first of its own.
    """
    captions = captions_of(owner, len(to_text))
    first = [int(texts[0]) for texts in captions]
    there = rank_scores(ranks(to_visual, [[o] for o in owner]))
    back: dict[str, Score] = {name: within(score, first, len(owner)) for name, score in
                              rank_scores(ranks(to_text, captions)).items()}
    ways = {f"text_to_{kind}": there, f"{kind}_to_text": back}
    return {f"{prefix}{way}_{name}": score for way, scores in ways.items()
            for name, score in scores.items()}


def best(matrix: np.ndarray, count: int) -> np.ndarray:
    """int `[N, count]`: columns of the highest of every row of `[N, M]`, the earlier of equals."""
    count = min(count, matrix.shape[1])
    return np.concatenate([
        np.argsort(-matrix[start:start + _RANK_ROWS], axis=1, kind="stable")[:, :count]
        for start in range(0, len(matrix), _RANK_ROWS)])
