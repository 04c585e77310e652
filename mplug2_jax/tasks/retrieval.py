"""Text-visual retrieval: a dual encoder over the whole gallery, its best reranked by matching."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mplug2_jax.metrics.retrieval import rank_scores, ranks
from mplug2_jax.tasks.base import Array, Batch, Metrics, Scores, Task, fetch
from mplug2_jax.tasks.objectives import pair_losses

RERANK_BATCH = 64  # pairs a call at most; all calls alike, so that one compilation serves


class Retrieval(Task):
    """Contrastive and matching losses; recall both ways.

    Scores add the matching probability of the pair to the contrastive similarity for the
    `task.rerank` best of every query (0: none), as the predecessor's procedure does.
    """

    fields = ("text",)
    best_by = "-text_to_{kind}_mean_rank"

    def __init__(self, *args: Any):
        super().__init__(*args)
        self._match = jax.jit(self.match)

    @classmethod
    def composition(cls, options: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
        del options
        return ("vision", "text", "universal", "fusion"), ("vtc", "vtm")

    def loss(self, params: Any, batch: dict[str, Batch], rng: Array) -> tuple[Array, Metrics]:
        weights = {"vtc": 1.0, "vtm": 1.0, "mlm": 0.0, "prefix_lm": 0.0, "instruct": 0.0}
        total, metrics = jnp.zeros(()), {}
        keys = jax.random.split(rng, len(batch))
        for key, (name, stream) in zip(keys, sorted(batch.items()), strict=True):
            part, values, _ = pair_losses(self, params, stream, key, weights)
            total += part
            metrics |= {f"{name}/{key}": value for key, value in values.items()}
        return total, metrics

    def predict(self, params: Any, batch: Batch) -> dict[str, Array]:
        """Features `[B, C]` and tokens of both sides, and the text's mask `[B, L]`."""
        visual = self.call(params, "encode_visual", batch["video"])
        text = self.call(params, "encode_text", batch["text"], batch["text_mask"])
        return {
            "visual_features": self.call(params, "contrastive", visual, "visual"),
            "text_features": self.call(params, "contrastive", text, "text"),
            "visual": visual, "text": text, "text_mask": batch["text_mask"],
        }

    def record(self, output: dict[str, np.ndarray], annotation: dict[str, Any]) -> dict[str, Any]:
        return {"query": annotation["texts"][0], "output": output}

    def match(self, params: Any, visual: Array, text: Array, mask: Array) -> Array:
        """Probability `[B]` that `visual [B, S, D]` and `text [B, L, D]` belong together."""
        _, fused = self.call(params, "fuse", visual, text, mask)
        return jax.nn.softmax(self.call(params, "match_logits", fused), axis=-1)[:, 1]

    def finish(self, params: Any, records: list[dict[str, Any]], kind: str) -> Scores:
        """Recall of the dual encoder and, with `task.rerank`, of the reranked lists."""
        outputs = {key: np.stack([r["output"][key] for r in records])
                   for key in ("visual_features", "text_features", "visual", "text", "text_mask")}
        similarity = outputs["text_features"] @ outputs["visual_features"].T  # [Q, G]
        to_visual, to_text = similarity, similarity.T
        scores = self.score_matrices(to_visual, to_text, kind, "dual_")
        if self.options.rerank:
            to_visual, to_text = self.rerank(params, outputs, similarity)
        scores |= self.score_matrices(to_visual, to_text, kind, "")
        order = np.argsort(-to_visual, axis=1, kind="stable")
        rank = ranks(to_visual, np.eye(len(records), dtype=bool))
        for i, r in enumerate(records):
            del r["output"]
            r["rank"], r["top"] = int(rank[i]), [records[j]["index"] for j in order[i, :5]]
        return scores

    @staticmethod
    def score_matrices(to_visual: np.ndarray, to_text: np.ndarray, kind: str,
                       prefix: str) -> Scores:
        """`<prefix>text_to_<kind>_r1 ...` and back, of similarities `[Q, G]` and `[G, Q]`."""
        own = np.eye(len(to_visual), dtype=bool)
        both = {f"text_to_{kind}": to_visual, f"{kind}_to_text": to_text}
        return {f"{prefix}{way}_{name}": score for way, matrix in both.items()
                for name, score in rank_scores(ranks(matrix, own)).items()}

    def rerank(self, params: Any, outputs: dict[str, np.ndarray],
               similarity: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Adds matching probabilities to the `task.rerank` best of each query, both ways.

        Pairs wanted in either direction are computed once; all others keep a score below them.

        Args:
          params: of the model.
          outputs: `visual [G, S, D]`, `text [Q, L, D]`, `text_mask [Q, L]`.
          similarity: `[Q, G]` in -1..1.

        Returns:
          Scores `[Q, G]` and `[G, Q]`.
        """
        count = min(self.options.rerank, similarity.shape[1])
        best_visual = np.argsort(-similarity, axis=1)[:, :count]  # [Q, k]
        best_text = np.argsort(-similarity.T, axis=1)[:, :count]  # [G, k]
        wanted_visual = np.zeros(similarity.shape, bool)
        wanted_text = np.zeros(similarity.T.shape, bool)
        np.put_along_axis(wanted_visual, best_visual, True, axis=1)
        np.put_along_axis(wanted_text, best_text, True, axis=1)
        pairs = np.argwhere(wanted_visual | wanted_text.T)  # [P, 2] of (text, visual)
        probability = np.zeros(similarity.shape, np.float32)
        probability[tuple(pairs.T)] = self.match_pairs(params, outputs, pairs)
        # A similarity is at least -1, so what was not reranked stays behind what was.
        to_visual = np.where(wanted_visual, similarity + probability, similarity - 2.0)
        to_text = np.where(wanted_text, (similarity + probability).T, similarity.T - 2.0)
        return to_visual, to_text

    def match_pairs(self, params: Any, outputs: dict[str, np.ndarray],
                    pairs: np.ndarray) -> np.ndarray:
        """Matching probabilities float32 `[P]` of `pairs [P, 2]`, numbers of (text, visual).

        Args:
          params: of the model.
          outputs: `visual [G, S, D]`, `text [Q, L, D]`, `text_mask [Q, L]`.
          pairs: at least one.
        """
        rows = min(RERANK_BATCH, len(pairs))
        probabilities = []
        for start in range(0, len(pairs), rows):
            part = pairs[start:start + rows]
            filled = np.concatenate([part, np.repeat(part[-1:], rows - len(part), axis=0)])
            text, visual = filled.T
            result = self._match(params, outputs["visual"][visual], outputs["text"][text],
                                 outputs["text_mask"][text])
            probabilities.append(fetch(result)[:len(part)])
        return np.concatenate(probabilities)
