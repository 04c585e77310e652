"""Text-visual retrieval: a dual encoder over the whole gallery, its best reranked by matching.

Every visual is encoded once, however many captions it has (`tasks.base.gallery`).
"""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from absl import logging
from jax.sharding import Mesh

from mplug2_jax.contracts.errors import ConfigError
from mplug2_jax.contracts.options import option
from mplug2_jax.contracts.streams import ITEMS, Stream
from mplug2_jax.metrics.ranking import Ranked, Similarities, dual_softmax, reranked, search
from mplug2_jax.metrics.retrieval import Way, alike, ceilings, score_ways
from mplug2_jax.metrics.scores import numbered
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
    accumulation,
    fetch,
    modality,
    over_streams,
)
from mplug2_jax.tasks.base.gallery import Gallery, batched, filled, kept, recall_by_chance
from mplug2_jax.tasks.base.pairs import (
    CONTRAST,
    check_batching,
    check_blocks,
    contrasts,
    objectives_of,
)
from mplug2_jax.tasks.base.reranking import (
    DEFAULT,
    DUAL_SOFTMAX,
    RANKED,
    RULES,
    SAME,
    prefix_of,
)
from mplug2_jax.tasks.base.rows import Counts, Kept, Rows

SHOWN = 5  # best of a query that a record has
RERANK_BATCH = 64  # pairs a call, about; all calls alike, so that one compilation serves


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
    accumulation: int = accumulation()
    rerank: int = option(16, "best of every query that matching reranks; 0 for none")
    rerank_by: str = option(DEFAULT, "what they are ranked by: " + ", ".join(RULES))
    dual_softmax: bool = option(False, "similarities times their softmax over all test queries")
    same: str = option("", "label or group: visuals that have it alike show the same, and figures "
                           "by which any of them is right stand beside; empty: none do")

    def __post_init__(self):
        check_batching(self)
        if self.rerank < 0 or self.rerank_by not in RULES:
            raise ConfigError(f"task.rerank = {self.rerank}, rerank_by = {self.rerank_by!r}: "
                              f"expected at least 0, and one of {', '.join(RULES)}")
        if self.same not in ("", "label", "group"):
            raise ConfigError(f"task.same = {self.same!r}: expected label, group or nothing")


class Retrieval(Task):
    """Contrastive and matching losses; recall both ways.

    The `task.rerank` best of every query are ranked once more, by `task.rerank_by`; with 0 there is
    no more than the dual encoder, and an evaluation needs neither fusion nor matching. The default
    is similarity and matching together. Matching learns to tell pairs from negatives that are drawn
    in proportion to the softmax of similarity / temperature. Were they drawn for the queries alone,
    its log-odds would be what a pair's probability, given the query, has beyond that softmax: log p
    = similarity / temperature + log-odds + a constant of the query (noise-contrastive estimation,
    Gutmann and Hyvarinen, 2010). They are drawn both ways, so this holds as far as the softmax's
    sums are alike. A score is that, times the temperature. A visual with several captions is a
    query for all of them, found with the first; each caption is a query. With `task.dual_softmax` a
    similarity is multiplied by its softmax over all queries (`metrics.ranking.dual_softmax`),
    wherever it is used.
    """

    Options = RetrievalOptions
    card = ("Finds the clip or image of a text, and the text of a clip: a dual encoder over the "
            "whole gallery, its best reranked by matching. Scored by recall both ways. Paper: "
            "experiments, image-text and video-text retrieval.")
    fields = ("text",)
    epoch_over = ITEMS
    epoch_source = ("release: `dataset/caption_dataset.py`, `re_train_dataset` (ALBEF's), and "
                    "`video_downstream_datasets.py`: `__len__` counts pairs with a caption")
    figures = (
        *RANKED,
        Figure("text_to_{kind}_wordless", "captions without a word, left out", 0.0, float("inf"),
               ""),
        *CONTRAST,
    )

    def __init__(self, *args: Any):
        super().__init__(*args)
        options = self.options
        self.rule = RULES[options.rerank_by]
        self.dual = DUAL_SOFTMAX * options.dual_softmax + "dual_"  # in front of names
        self.final = (DUAL_SOFTMAX * options.dual_softmax + prefix_of(options.rerank_by)
                      if options.rerank else self.dual)
        self.best_by = f"-{self.final}text_to_{{kind}}_mean_rank"
        self._match = jax.jit(self.match)
        self._encode = jax.jit(self.encode_queries)

    @classmethod
    def given(cls, options: RetrievalOptions) -> dict[str, Any]:
        return contrasts(options)

    @classmethod
    def sampled(cls, options: RetrievalOptions, stream: Stream) -> tuple[str, str]:
        return super().sampled(options, stream)[0], "captions"

    @classmethod
    def composition(cls, options: RetrievalOptions) -> tuple[tuple[str, ...], tuple[str, ...]]:
        return parts(options, bool(options.rerank or options.objectives.vtm))

    @classmethod
    def evaluation_composition(cls, options: RetrievalOptions) -> tuple[tuple[str, ...],
                                                                        tuple[str, ...]]:
        return parts(options, bool(options.rerank))

    def check_mesh(self, streams: Mapping[str, Stream], mesh: Mesh) -> None:
        super().check_mesh(streams, mesh)
        check_blocks(self, streams)

    def loss(self, params: Any, batch: dict[str, Batch], rng: Array, task_state: Any = None,
             step: Array | int = 0) -> Loss:
        del task_state, step
        objectives = objectives_of(self, self.weights)

        def of_stream(_, rows, key):
            return pair_losses(objectives, params, rows, key)[:2]

        return over_streams(of_stream, batch, rng)

    @property
    def weights(self) -> Mapping[str, float]:
        return vars(self.options.objectives)

    def embed(self, params: Any, batch: Batch) -> dict[str, Array]:
        """Features `[B, C]` of what is seen alone."""
        visual = self.encode_seen(params, batch)
        return {"visual_features": self.call(params, "contrastive", visual, self.options.modality)}

    def predict(self, params: Any, batch: Batch) -> dict[str, Array]:
        """Features `[B, C]` and tokens of both sides, and the text's mask `[B, L]`."""
        visual = self.encode_seen(params, batch)
        text = self.call(params, "encode_text", batch["text"], batch["text_mask"])
        return {
            "visual_features": self.call(params, "contrastive", visual, self.options.modality),
            "text_features": self.call(params, "contrastive", text, "text"),
            "visual": shard_batch(visual), "text": text, "text_mask": batch["text_mask"],
        }

    def kept(self, shapes: Mapping[str, Any], counts: Counts) -> Kept:
        return kept(shapes["_predict"], counts, self.options.rerank)

    def encode_queries(self, params: Any, ids: Array, mask: Array) -> dict[str, Array]:
        """Features `[B, C]`, tokens and mask of texts alone."""
        text = self.call(params, "encode_text", ids, mask)
        return {"text_features": self.call(params, "contrastive", text, "text"), "text": text,
                "text_mask": mask}

    def match(self, params: Any, visual: Array, text: Array, mask: Array) -> Array:
        """What matching says of `visual [B, S, D]` and `text [B, L, D]`: float32 `[B]`.

        By `task.rerank_by`, which may add the similarity (`rescored`).
        """
        _, fused = self.call(params, "fuse", visual, text, mask)
        wrong, right = self.call(params, "match_logits", fused).T
        return self.rule.matching(wrong, right, self.call(params, "temperature"))

    def rescored(self, similarity: Any, matching: Any) -> Any:
        """The scores of pairs, of their similarity and of what `match` says of them."""
        return similarity + matching if self.rule.similarity else matching

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
        same = self.same(gallery, annotate) if self.options.same else None
        if same is not None:
            for record, number in zip(records, owner, strict=True):
                record["same"] = int(same[number])
        scores = self.rank(params, queries, gallery, owner, records, kind, same)
        for record, text in zip(records, (annotate(r["index"])["texts"][r["item"]]
                                          for r in records), strict=True):
            record["query"] = text
        if wordless:
            scores[f"text_to_{kind}_wordless"] = float(wordless)
        return scores, records

    def chance(self, name: str, records: list[dict[str, Any]]) -> float | None:
        way, _, level = name.rpartition("_r")
        if not level.isdecimal() or not records:
            return None
        alike = "same" if name.startswith(SAME) else "index"  # what is right
        shown = {record["index"]: record[alike] for record in records}
        texts = Counter(record[alike] for record in records)
        if way.endswith("_to_text"):
            return recall_by_chance(int(level), [texts[own] for own in shown.values()],
                                    len(records))
        visuals = Counter(shown.values())
        return recall_by_chance(int(level), [visuals[record[alike]] for record in records],
                                len(shown))

    def example(self, record: dict[str, Any], clip: Clip) -> Example:
        return Example(rows=[("query", record["query"]), ("rank", str(record["rank"]))],
                       correct=record["rank"] == 1,
                       thumbnails=[(clip(index), f"{place}.", index == record["index"])
                                   for place, index in enumerate(record["top"], 1)])

    def same(self, gallery: Gallery, annotate: Annotate) -> np.ndarray | None:
        """int `[G]`, equal for visuals with the same `task.same`; None where none has any."""
        shows = [annotate(index)[self.options.same] for index in gallery.index]
        if not any(shows):
            logging.warning("task.same = %r: no record has any, so that none of its figures is "
                            "given; prepare the data again, or leave it out", self.options.same)
            return None
        return numbered([(one, None if one else index)
                         for one, index in zip(shows, gallery.index, strict=True)])

    def encode_all(self, params: Any, texts: Sequence[str], length: int) -> dict[str, Any]:
        """`encode_queries` of all texts, on every host: `[Q, ...]`, the tokens `Rows`."""
        encoded = [self.tokenizer.encode_padded(text, length) for text in texts]
        parts, tokens = [], Rows()
        for chunk in batched(np.arange(len(texts)), RERANK_BATCH):
            ids, mask = (np.stack([encoded[i][k] for i in chunk]) for k in (0, 1))
            part = fetch(self._encode(params, ids, mask))
            tokens.append(part.pop("text"))
            parts.append(part)
        return {"text": tokens} | {key: np.concatenate([part[key] for part in parts])[:len(texts)]
                                   for key in parts[0]}

    def rank(self, params: Any, queries: Mapping[str, Any], gallery: Gallery,
             owner: Sequence[int], records: list[dict[str, Any]], kind: str,
             same: np.ndarray | None = None) -> Scores:
        """Recall of the dual encoder and, with `task.rerank`, of the reranked lists beside it.

        Args:
          params: of the model.
          queries: of `encode_all`, `[Q, ...]`.
          gallery: G visuals.
          owner: of every query its visual's number.
          records: one a query; gets its `rank` and the `top` five.
          kind: for the names of the figures.
          same: int `[G]`, equal for visuals that show the same.
        """
        text = queries["text_features"], np.asarray(owner)
        visual = np.stack(gallery.features), np.arange(len(gallery.features))
        ways: list[Way] = [(self.similarities(params, a, b), owner_a, owner_b)
                           for (a, owner_a), (b, owner_b) in ((text, visual), (visual, text))]
        most, scores = max(SHOWN, self.options.rerank), Scores()
        found: list[Ranked] = []
        new: list[np.ndarray] = []
        owned = {"": ways} if same is None else {SAME: alike(ways, same), "": ways}
        for prefix, owners in owned.items():
            found = [search(*way, most) for way in owners]
            scores |= score_ways(owners, found, [(), ()], kind, prefix + self.dual, ways)
            if self.options.rerank:
                new = new or self.rerank(params, queries, gallery, *found)
                given = list(zip(found, new, strict=True))
                found = [reranked(one, scored, *way[1:]) for one, scored, way in zip(
                    found, new, owners, strict=True)]
                scores |= score_ways(owners, found, given, kind, prefix + self.final, ways)
        if same is not None:
            scores |= ceilings(ways, owned[SAME], kind)
        for record, rank, top in zip(records, found[0].rank, found[0].top, strict=True):
            record["rank"] = int(rank)
            record["top"] = [gallery.index[item] for item in top[:SHOWN]]
        return scores

    def similarities(self, params: Any, queries: np.ndarray, items: np.ndarray) -> Similarities:
        """Of features `[N, C]` and `[M, C]`; with `task.dual_softmax`, times it."""
        if not self.options.dual_softmax:
            return Similarities(queries, items)
        temperature = float(np.asarray(self.call(params, "temperature")))
        return Similarities(queries, items, dual_softmax(queries, items, temperature))

    def rerank(self, params: Any, queries: Mapping[str, Any], gallery: Gallery,
               to_visual: Ranked, to_text: Ranked) -> list[np.ndarray]:
        """The scores of the `task.rerank` best of each query by what `match` says, both ways.

        Pairs wanted in either direction are computed once, at most `rerank` times the texts and
        visuals.

        Args:
          params: of the model.
          queries: `text [Q, L, D]`, `text_mask [Q, L]`.
          gallery: G visuals.
          to_visual, to_text: of `search`.

        Returns:
          Float32 `[Q, K]` and `[G, K]`.
        """
        texts, visuals, most = len(to_visual.top), len(to_text.top), self.options.rerank
        there, back = to_visual.top[:, :most], to_text.top[:, :most]
        numbers = [np.arange(texts)[:, None] * visuals + there,  # of pairs (text, visual)
                   back * visuals + np.arange(visuals)[:, None]]
        wanted = np.unique(np.concatenate([one.ravel() for one in numbers]))
        said = self.match_spread(params, queries, gallery,
                                 np.stack(np.divmod(wanted, visuals), axis=1))
        return [self.rescored(one.values[:, :most], said[np.searchsorted(wanted, number)])
                for one, number in zip((to_visual, to_text), numbers, strict=True)]

    def match_spread(self, params: Any, queries: Mapping[str, Any], gallery: Gallery,
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


def parts(options: RetrievalOptions, matches: bool) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Modules and heads of the dual encoder, and of matching where it `matches`."""
    modules = options.modality, "text", "universal"
    return ((*modules, "fusion"), ("vtc", "vtm")) if matches else (modules, ("vtc",))
